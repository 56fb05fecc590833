package h1

import (
	"bufio"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"outrigger/sidecar/access"
	"outrigger/sidecar/balance"
)

// newLogged is a rig with an access log that samples no success, unless all is
// set, and what reads its lines once n have been written.
func newLogged(t *testing.T, all bool, addr string) (*rig, func(n int) []map[string]any) {
	t.Helper()
	cfg := access.DefaultConfig()
	cfg.Path = filepath.Join(t.TempDir(), "log")
	if !all {
		cfg.Sample = 0
	}
	log, err := access.New(cfg, access.Options{Service: "web"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = log.Close(context.Background()) })
	return newRigLogging(t, quick(), balance.DefaultConfig(), log, addr), func(n int) (lines []map[string]any) {
		t.Helper()
		eventually(t, "the lines are written", func() bool { return log.Written() >= uint64(n) })
		f, err := os.Open(cfg.Path)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		for sc := bufio.NewScanner(f); sc.Scan(); {
			var l map[string]any
			if err := json.Unmarshal(sc.Bytes(), &l); err != nil {
				t.Fatal(err)
			}
			lines = append(lines, l)
		}
		if len(lines) != n {
			t.Fatalf("%d lines, want %d: %v", len(lines), n, lines)
		}
		return lines
	}
}

func wantFields(t *testing.T, line map[string]any, want map[string]any) {
	t.Helper()
	for k, v := range want {
		if line[k] != v {
			t.Errorf("%s is %v, want %v, in %v", k, line[k], v, line)
		}
	}
}

func TestAccessLogOfAnswers(t *testing.T) {
	t.Parallel()
	b := named(t, "b")
	r, read := newLogged(t, true, b.addr)
	c := r.dial()
	req := lines("POST /a?secret=1 HTTP/1.1", "Host: shop", "Content-Length: 3", "User-Agent: u", "X-Request-ID: id",
		"traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01") + "abc"
	c.send(req)
	c.want("POST", 200, "b")
	c.send(get1("/two"))
	c.want("GET", 200, "b")
	got := read(2)
	wantFields(t, got[0], map[string]any{
		"service": "web", "method": "POST", "target": "/a?...", "host": "shop", "version": "HTTP/1.1", "status": 200.0,
		"bytes_in": float64(len(req)), "tries": 1.0, "reason": "done", "address": b.addr, "reused": false, "connect_ms": got[0]["connect_ms"],
		"user_agent": "u", "request_id": "id", "trace_id": "0af7651916cd43dd8448eb211c80319c",
	})
	wantFields(t, got[1], map[string]any{
		"method": "GET", "target": "/two", "bytes_in": float64(len(get1("/two"))), "reused": true, "connect_ms": 0.0,
	})
	for _, f := range []string{"total_ms", "queue_ms", "connect_ms", "first_byte_ms", "read_ms", "bytes_out"} {
		if _, ok := got[0][f].(float64); !ok {
			t.Errorf("%s is %v", f, got[0][f])
		}
	}
}

// Whatever goes wrong is logged, whatever the share of successes.
func TestAccessLogOfFailures(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		answer, req string
		want        map[string]any
	}{
		"a bad head":    {"", "GET / HTTP/1.1\r\nA : b\r\n\r\n", map[string]any{"status": 400.0, "reason": "bad_request", "tries": 0.0, "endpoint": nil, "connect_ms": nil}},
		"a long line":   {"", "GET /" + strings.Repeat("x", 9000) + " HTTP/1.1\r\n\r\n", map[string]any{"status": 414.0, "reason": "too_large", "method": nil}},
		"a broken body": {"", lines("POST / HTTP/1.1", "Host: a", "Transfer-Encoding: chunked") + "x\r\n", map[string]any{"status": 400.0, "reason": "bad_request", "method": "POST"}},
		"no answer":     {"", post("Content-Length: 0"), map[string]any{"status": 502.0, "reason": "reset", "tries": 1.0, "first_byte_ms": nil}},
		"a bad answer":  {"HTTP/1.1 2 OK\r\n\r\n", get1("/"), map[string]any{"status": 502.0, "reason": "bad_response"}},
		"a cut answer":  {"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n1", get1("/"), map[string]any{"status": 200.0, "reason": "reset"}},
		"a 500":         {"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n", get1("/"), map[string]any{"status": 500.0, "reason": "done"}},
	} {
		b := newBackend(t, func(b *backend, p *peer) {
			b.head(p)
			p.send(tt.answer)
		})
		r, read := newLogged(t, false, b.addr)
		c := r.dial()
		c.send(tt.req)
		t.Log(name)
		_ = c.nc.CloseWrite()
		wantFields(t, read(1)[0], tt.want)
	}
}

func TestAccessLogOfNobody(t *testing.T) {
	t.Parallel()
	b := newBackend(t, func(b *backend, p *peer) {
		b.head(p)
		_, _ = p.rest()
	})
	r, read := newLogged(t, false, b.addr)
	c := r.dial()
	c.send(get1("/"))
	r.eventually("the backend has it", func() bool { return len(b.got()) == 1 })
	c.nc.Close()
	wantFields(t, read(1)[0], map[string]any{"status": nil, "reason": "client_gone", "address": b.addr, "method": "GET"})
	r.set(nobody(t))
	c = r.dial()
	c.send(get1("/"))
	c.wantOwn(503, "unreachable")
	wantFields(t, read(2)[1], map[string]any{"status": 503.0, "reason": "unreachable", "connect_ms": nil})
}
