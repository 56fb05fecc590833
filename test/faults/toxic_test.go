package faults

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"syscall"
	"testing"
	"time"

	"outrigger/test/harness"
)

// toxiproxy is the running server. Its API is plain HTTP.
type toxiproxy struct{ addr string }

func startToxiproxy(ctx context.Context, path string) (*harness.Process, *toxiproxy, error) {
	ports, err := harness.FreePorts(1)
	if err != nil {
		return nil, nil, err
	}
	addr := fmt.Sprintf("127.0.0.1:%d", ports[0])
	p, err := startListening(ctx, addr, harness.Spec{
		Path: path, Args: []string{"-host", "127.0.0.1", "-port", fmt.Sprint(ports[0])},
		Env: append(os.Environ(), "LOG_LEVEL=fatal"),
	})
	return p, &toxiproxy{addr}, err
}

func (x *toxiproxy) call(t testing.TB, method, path string, body any) {
	t.Helper()
	b, err := json.Marshal(body)
	if err != nil {
		t.Fatal(err)
	}
	if status, text := direct(t, method, x.addr, path, b); status >= 300 {
		t.Fatalf("toxiproxy: %s %s %s: %d %s", method, path, b, status, text)
	}
}

// direct makes a request past the sidecar. Unlike http.Client it has no
// goroutine or descriptor left when it returns, which would count as a leak.
func direct(t testing.TB, method, addr, path string, body []byte) (status int, text []byte) {
	t.Helper()
	req, err := http.NewRequest(method, "http://"+addr+path, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	_ = nc.SetDeadline(time.Now().Add(patience)) // fails only on a closed connection
	if err := req.Write(nc); err != nil {
		t.Fatal(err)
	}
	res, err := http.ReadResponse(bufio.NewReader(nc), req)
	if err == nil {
		text, err = io.ReadAll(res.Body)
	}
	if err != nil {
		t.Fatalf("%s http://%s%s: %v", method, addr, path, err)
	}
	return res.StatusCode, text
}

// proxy is one of toxiproxy's.
type proxy struct {
	x    *toxiproxy
	name string
	addr string
}

// proxy makes a proxy before an address that ends with the test. Its port is
// below the ephemeral ones: no outgoing connection takes it while the proxy is
// disabled.
func (x *toxiproxy) proxy(t testing.TB, upstream string) *proxy {
	t.Helper()
	ports, err := harness.FreePorts(1)
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{x: x, name: fmt.Sprint("p", ports[0]), addr: fmt.Sprintf("127.0.0.1:%d", ports[0])}
	x.call(t, "POST", "/proxies", map[string]any{"name": p.name, "listen": p.addr, "upstream": upstream})
	t.Cleanup(func() { x.call(t, "DELETE", "/proxies/"+p.name, nil) })
	return p
}

// toxic is a fault of one direction: "downstream" is from the server.
type toxic struct {
	Name       string         `json:"name"`
	Type       string         `json:"type"`
	Stream     string         `json:"stream"`
	Toxicity   float64        `json:"toxicity"` // the share of connections that have it
	Attributes map[string]int `json:"attributes"`
}

func down(kind string, attributes map[string]int) toxic {
	return toxic{Name: kind + "-down", Type: kind, Stream: "downstream", Toxicity: 1, Attributes: attributes}
}

func up(kind string, attributes map[string]int) toxic {
	return toxic{Name: kind + "-up", Type: kind, Stream: "upstream", Toxicity: 1, Attributes: attributes}
}

// dormant makes connections that are reset when they are closed, and otherwise
// leaves them alone: toxiproxy prepares the reset when a connection begins, by
// the mere presence of the toxic.
func (x toxic) dormant() toxic {
	x.Toxicity = 0
	return x
}

func (p *proxy) add(t testing.TB, x toxic) {
	t.Helper()
	p.x.call(t, "POST", "/proxies/"+p.name+"/toxics", x)
}

// rouse makes a dormant toxic strike.
func (p *proxy) rouse(t testing.TB, x toxic) {
	t.Helper()
	x.Toxicity = 1
	p.x.call(t, "POST", "/proxies/"+p.name+"/toxics/"+x.Name, x)
}

func (p *proxy) remove(t testing.TB, x toxic) {
	t.Helper()
	p.x.call(t, "DELETE", "/proxies/"+p.name+"/toxics/"+x.Name, nil)
}

// enable opens a proxy, or closes it with all its connections: new ones are
// refused then.
func (p *proxy) enable(t testing.TB, yes bool) {
	t.Helper()
	p.x.call(t, "POST", "/proxies/"+p.name, map[string]any{"enabled": yes})
}

// patience is how long anything may take that is bound to happen.
const patience = 20 * time.Second

// The instrument does what the tests take it to do: a reset is a reset, in the
// middle of an answer too, and a refusal a refusal.
func TestInstrument(t *testing.T) {
	needToxiproxy(t)
	const limit = 50_000
	big := "GET /file/big-0 HTTP/1.1\r\nHost: a\r\n\r\n"
	reset := down("reset_peer", map[string]int{"timeout": 0})
	for _, tt := range []struct {
		name   string
		toxics []toxic
		strike func(p *proxy)
		most   int64 // bytes of the answer
		want   error // nil: a plain end
	}{
		{name: "reset", toxics: []toxic{reset}, want: syscall.ECONNRESET},
		{name: "reset of requests", toxics: []toxic{up("reset_peer", map[string]int{"timeout": 0})}, want: syscall.ECONNRESET},
		{name: "roused reset", toxics: []toxic{reset.dormant()}, strike: func(p *proxy) { p.rouse(t, reset) }, want: syscall.ECONNRESET},
		{name: "cut", toxics: []toxic{down("limit_data", map[string]int{"bytes": limit})}, most: limit},
		{name: "cut by reset", toxics: []toxic{down("limit_data", map[string]int{"bytes": limit}), up("reset_peer", nil).dormant()},
			most: limit, want: syscall.ECONNRESET},
		{name: "timeout", toxics: []toxic{down("timeout", map[string]int{"timeout": 20})}},
	} {
		p := suite.toxic.proxy(t, suite.origin)
		for _, x := range tt.toxics {
			p.add(t, x)
		}
		nc, err := net.Dial("tcp", p.addr)
		if err != nil {
			t.Fatal(err)
		}
		_ = nc.SetDeadline(time.Now().Add(patience)) // fails only on a closed connection
		if tt.strike != nil {
			tt.strike(p)
		}
		_, _ = io.WriteString(nc, big) // what comes back tells
		n, err := io.Copy(io.Discard, nc)
		if !errors.Is(err, tt.want) || n > tt.most {
			t.Errorf("%s: %v after %d bytes, want %v after %d", tt.name, err, n, tt.want, tt.most)
		}
		_ = nc.Close()
		p.enable(t, false)
		if _, err := net.Dial("tcp", p.addr); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("%s: a closed proxy answers with %v", tt.name, err)
		}
	}
}
