package agentstats

import (
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestFastSweep: connections on which nothing comes are closed, those that never
// polled sooner.
func TestFastSweep(t *testing.T) {
	a := someAgent()
	a.crowd.most = 10
	f := &fastLoop{a: a, conns: map[int32]*fastConn{}}
	add := func(age time.Duration, polled bool) int32 {
		pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = unix.Close(pair[1]) })
		a.crowd.enter()
		if polled {
			a.crowd.polling.Add(1)
		}
		fd := int32(pair[0])
		f.conns[fd] = &fastConn{seen: time.Now().Add(-age), polled: polled}
		return fd
	}
	add(ioTimeout+time.Second, false)
	fresh := add(ioTimeout-time.Second, false)
	quiet := add(idleTimeout-time.Second, true)
	add(idleTimeout+time.Second, true)
	f.sweep()
	if len(f.conns) != 2 || f.conns[fresh] == nil || f.conns[quiet] == nil || a.crowd.open.Load() != 2 || a.crowd.polling.Load() != 1 {
		t.Errorf("left %v, counted %d and %d", f.conns, a.crowd.open.Load(), a.crowd.polling.Load())
	}
	for fd, c := range f.conns {
		f.close(fd, c)
	}
}

// TestHalfRequests: who begins requests and does not end them gets nothing of
// net/http's, and not more memory of ours than there is for all.
func TestHalfRequests(t *testing.T) {
	a := someAgent()
	addr := serving(t, a)
	const conns = maxHanded + 50
	for range conns {
		conn, _ := dialed(t, addr)
		if _, err := io.WriteString(conn, "GET /v1/report HTTP/1.1\r\nHo"); err != nil {
			t.Fatal(err)
		}
	}
	conn, r := dialed(t, addr)
	if resp, body := say(t, conn, r, "GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n"); resp.StatusCode != 200 {
		t.Errorf("%d %s", resp.StatusCode, body)
	}
	if open, handed := a.crowd.open.Load(), a.crowd.handed.Load(); open != conns+1 || handed != 1 {
		t.Errorf("%d connections, %d at net/http; want %d and 1", open, handed, conns+1)
	}

	f := &fastLoop{a: a}
	half, kept := []byte(strings.Repeat("x", maxHeaderBytes-1)), 0
	for range 2 * maxBegun / len(half) {
		c := &fastConn{}
		if f.begin(c, half) {
			kept++
			f.forget(c)
			f.begin(c, half[:10])
			f.begin(c, half)
		}
	}
	if kept != maxBegun/len(half) || f.begun != kept*len(half) {
		t.Errorf("%d of them are kept, %d bytes", kept, f.begun)
	}
}

// TestPollInPieces: a poll that comes in pieces stays on the fast path.
func TestPollInPieces(t *testing.T) {
	a := someAgent()
	conn, r := dialed(t, serving(t, a))
	for range 3 {
		for _, piece := range []string{"GET /v1/rep", "ort HTTP/1.1\r\n", "Host: a\r\n\r"} {
			if _, err := io.WriteString(conn, piece); err != nil {
				t.Fatal(err)
			}
			time.Sleep(5 * ms) // so that some are read on their own; true either way
		}
		if resp, body := say(t, conn, r, "\n"); resp.StatusCode != 200 {
			t.Errorf("%d %s", resp.StatusCode, body)
		}
	}
	if open, handed, polling := a.crowd.open.Load(), a.crowd.handed.Load(), a.crowd.polling.Load(); open != 1 || handed != 0 || polling != 1 {
		t.Errorf("%d open, %d at net/http, %d poll", open, handed, polling)
	}
}

// TestHandedOverBound: connections at net/http are bounded, polls go on, and those that
// were hijacked or closed give their place to others.
func TestHandedOverBound(t *testing.T) {
	a := someAgent()
	out := &log{}
	a.env.Logger = out.logger()
	hijacked := make(chan net.Conn, 2*maxHanded)
	a.routes = append(a.routes, route{"GET /stream", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		c, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
		hijacked <- c
	})})
	addr := serving(t, a)
	t.Cleanup(func() { // before serving's
		for range len(hijacked) {
			(<-hijacked).Close()
		}
	})
	health, poll := "GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n", "GET /v1/report HTTP/1.1\r\nHost: a\r\n\r\n"
	for range maxHanded + 20 { // as many gauge streams as max_gauges allows, say
		conn, r := dialed(t, addr)
		say(t, conn, r, "GET /stream HTTP/1.1\r\nHost: a\r\n\r\n")
	}
	var last net.Conn
	for range maxHanded {
		conn, r := dialed(t, addr)
		if resp, body := say(t, conn, r, health); resp.StatusCode != 200 {
			t.Fatalf("%d %s", resp.StatusCode, body)
		}
		last = conn
	}
	answered := func() bool {
		conn, r := dialed(t, addr)
		defer conn.Close()
		_ = conn.SetDeadline(time.Now().Add(patience))
		_, _ = io.WriteString(conn, health)
		_, err := http.ReadResponse(r, nil)
		return err == nil
	}
	for range 5 {
		if answered() {
			t.Error("one more was answered")
		}
	}
	if n, said := a.crowd.turnedAway.Load(), out.count("turned away"); n != 5 || said != 1 {
		t.Errorf("%d counted as turned away, %d lines", n, said)
	}
	conn, r := dialed(t, addr)
	if resp, body := say(t, conn, r, poll); resp.StatusCode != 200 {
		t.Errorf("a poll: %d %s", resp.StatusCode, body)
	}
	last.Close()
	for deadline := time.Now().Add(patience); !answered(); {
		if time.Now().After(deadline) {
			t.Fatal("a place is not given back")
		}
	}
}

// TestFastBatches: with many sidecars polls wait for each other, and none is
// forgotten.
func TestFastBatches(t *testing.T) {
	const conns, turns = 2 * batchFrom, 20
	a := someAgent()
	a.live = func() Live { return Live{InFlight: Some(1.0)} }
	addr := serving(t, a)
	poll := "GET /v1/report HTTP/1.1\r\nHost: a\r\n\r\n"
	var done sync.WaitGroup
	for range conns {
		conn, r := dialed(t, addr)
		_ = conn.SetDeadline(time.Now().Add(patience))
		done.Go(func() {
			for range turns {
				if _, err := io.WriteString(conn, poll); err != nil {
					t.Error(err)
					return
				}
				resp, err := http.ReadResponse(r, nil)
				if err != nil || resp.StatusCode != 200 {
					t.Errorf("%+v, %v", resp, err)
					return
				}
				if _, err := io.Copy(io.Discard, resp.Body); err != nil {
					t.Error(err)
				}
			}
		})
	}
	done.Wait()
	if n := a.crowd.polling.Load(); n != conns {
		t.Errorf("%d poll, want %d", n, conns)
	}
}
