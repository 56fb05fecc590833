package h1

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"outrigger/sidecar/balance"
)

// shutdown starts a shutdown and returns where its result will come.
func (r *rig) shutdown(ctx context.Context) <-chan error {
	done := make(chan error, 1)
	go func() { done <- r.s.Shutdown(ctx) }()
	r.eventually("it is draining", func() bool { return r.s.draining.Load() })
	return done
}

// What is in flight finishes with Connection: close; nobody is let in.
func TestShutdownFinishesWhatIsInFlight(t *testing.T) {
	t.Parallel()
	b, release := held(t)
	r := newRig(t, quick(), balance.DefaultConfig(), b.addr)
	c := r.dial()
	c.send(get1("/"))
	r.eventually("it is on its way", func() bool { return len(b.got()) == 1 })
	done := r.shutdown(context.Background())
	r.eventually("the listener is closed", func() bool {
		nc, err := net.Dial("tcp", r.addr())
		if err == nil {
			nc.Close()
		}
		return err != nil
	})
	select {
	case err := <-done:
		t.Fatalf("over (%v) with a request in flight", err)
	default:
	}
	give(t, release)
	if a := c.want("GET", 200, "b"); !a.Close {
		t.Error("no Connection: close")
	}
	c.wantEnd("eof")
	c.nc.Close()
	if err := await(t, done); err != nil {
		t.Error(err)
	}
	r.wantTotals(1, 0, 0)
}

// A body that is on its way finishes too, both directions.
func TestShutdownFinishesBodies(t *testing.T) {
	t.Parallel()
	more := make(chan bool)
	b := newBackend(t, func(b *backend, p *peer) {
		for h := b.head(p); h != ""; h = b.head(p) {
			if strings.HasPrefix(h, "POST") {
				p.send(ok200(p.read(20_000)))
				continue
			}
			p.send(lines("HTTP/1.1 200 OK", "Transfer-Encoding: chunked") + "1\r\na\r\n")
			await(t, more)
			p.send("1\r\nb\r\n0\r\n\r\n")
		}
	})
	r := newRig(t, quick(), balance.DefaultConfig(), b.addr)
	down, up := r.dial(), r.dial()
	down.send(get1("/"))
	down.br.Peek(1)
	body := strings.Repeat("x", 20_000)
	up.send(post("Content-Length: 20000") + body[:10_000])
	r.eventually("both are on their way", func() bool { return len(b.got()) == 2 })
	done := r.shutdown(context.Background())
	up.send(body[10_000:])
	if a := up.want("POST", 200, body); !a.Close {
		t.Error("no Connection: close")
	}
	up.nc.Close()
	give(t, more)
	down.want("GET", 200, "ab")
	down.nc.Close() // it was told nothing in its head, so it might stay
	if err := await(t, done); err != nil {
		t.Error(err)
	}
	r.wantTotals(2, 0, 0)
}

// When its time is up, what is left is cut, and looks cut.
func TestShutdownDeadlineCuts(t *testing.T) {
	t.Parallel()
	b := newBackend(t, func(b *backend, p *peer) {
		h := b.head(p)
		if strings.HasPrefix(h, "GET /body") {
			p.send(lines("HTTP/1.1 200 OK", "Content-Length: 10") + "12345")
		}
		p.wantEnd("eof")
	})
	up := switches(t, echo)
	r := newRig(t, quick(), balance.DefaultConfig(), b.addr)
	wait, body, tunnel := r.dial(), r.dial(), r.dial()
	wait.send(get1("/wait"))
	body.send(get1("/body"))
	body.br.Peek(1)
	r.eventually("two are on their way", func() bool { return len(b.got()) == 2 })
	r.set(b.addr, up.addr) // least connections: the third goes there
	tunnel.send(get("Connection: Upgrade", "Upgrade: echo/1"))
	tunnel.head()
	ctx, cancel := context.WithTimeout(context.Background(), short)
	defer cancel()
	done := r.shutdown(ctx)
	if a := body.answer("GET"); a.err == nil {
		t.Errorf("%q taken for a complete body", a.body)
	}
	if a := wait.anything("GET"); a.StatusCode != 0 {
		t.Errorf("%d to a request that was cut", a.StatusCode)
	}
	tunnel.rest()
	select {
	case err := <-done:
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%v", err)
		}
	case <-time.After(patience):
		t.Fatal("Shutdown goes on long after its context ended")
	}
	if st := r.s.Stats(); st.Open != 0 || st.Tunnels != 0 {
		t.Errorf("%+v", st)
	}
	if got := r.totals(); got.Failures != 0 {
		t.Errorf("blamed for our shutdown: %+v", got)
	}
}

// A request that comes on an idle connection while the server drains is served
// and told that it was the last.
func TestRequestWhileDraining(t *testing.T) {
	t.Parallel()
	b := named(t, "b")
	r := newRig(t, quick(), balance.DefaultConfig(), b.addr)
	c := r.dial()
	c.send(get1("/"))
	c.want("GET", 200, "b")
	done := r.shutdown(context.Background())
	c.send(get1("/"))
	if a := c.want("GET", 200, "b"); !a.Close {
		t.Error("no Connection: close")
	}
	c.wantEnd("eof")
	c.nc.Close()
	if err := await(t, done); err != nil {
		t.Error(err)
	}
}

// Shutdown under load: every request that was begun on an open connection gets
// its whole answer, and a connection ends only after an answer that said so.
func TestShutdownUnderLoad(t *testing.T) {
	t.Parallel()
	body := strings.Repeat("x", 10_000)
	back := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		io.Copy(io.Discard, q.Body)
		time.Sleep(time.Millisecond)
		io.WriteString(w, body)
	}))
	t.Cleanup(back.Close)
	r := newRig(t, quick(), balance.DefaultConfig(), back.URL)
	var served atomic.Int64
	var wg sync.WaitGroup
	for i := range 8 {
		req := []string{get1("/"), post("Content-Length: 5") + "abcde"}[i%2]
		wg.Go(func() {
			for {
				nc, err := net.Dial("tcp", r.addr())
				if err != nil {
					return // the listener is closed
				}
				c := newPeer(t, nc)
				for n := 0; ; n++ {
					_, werr := io.WriteString(nc, req)
					a := c.anything("GET")
					if a.StatusCode == 0 && n == 0 && (werr != nil || errors.Is(a.err, syscall.ECONNRESET)) {
						break // in the kernel's backlog when the listener was closed
					}
					if a.err != nil || a.StatusCode != 200 || a.body != body {
						t.Errorf("request %d of a connection: %d, %d bytes, %v", n, a.StatusCode, len(a.body), a.err)
						break
					}
					served.Add(1)
					if a.Close {
						c.wantEnd("eof")
						break
					}
				}
				nc.Close()
			}
		})
	}
	r.eventually("there is load", func() bool { return served.Load() > 200 })
	if err := <-r.shutdown(context.Background()); err != nil {
		t.Error(err)
	}
	wg.Wait()
	if got := r.totals(); got.Failures != 0 || got.Ignored != 0 {
		t.Errorf("%+v", got)
	}
}

// Connections that wait for a request are closed after a short grace.
func TestShutdownClosesIdleConnections(t *testing.T) {
	t.Parallel()
	b := named(t, "b")
	r := newRig(t, quick(), balance.DefaultConfig(), b.addr)
	used, fresh := r.dial(), r.dial()
	used.send(get1("/"))
	used.want("GET", 200, "b")
	r.eventually("both are accepted", func() bool { return r.s.Stats().Open == 2 })
	ctx, cancel := context.WithTimeout(context.Background(), 5*idleGrace)
	defer cancel()
	done := r.shutdown(ctx)
	used.wantEnd("eof")
	fresh.wantEnd("eof")
	if err := await(t, done); err != nil {
		t.Error(err)
	}
}

// A connection that is closed while its client has sent more is not reset,
// which could take the answer along (RFC 9112 section 9.6).
func TestCloseBesideUnreadRequests(t *testing.T) {
	t.Parallel()
	b, release := held(t)
	r := newRig(t, quick(), balance.DefaultConfig(), b.addr)
	c := r.dial()
	c.send(get1("/"))
	r.eventually("it is on its way", func() bool { return len(b.got()) == 1 })
	done := r.shutdown(context.Background())
	c.send(get1("/pipelined"))
	give(t, release)
	c.want("GET", 200, "b")
	c.wantEnd("eof")
	c.nc.Close()
	await(t, done)
}

// A request may arrive just as its connection, idle so far, is being closed:
// closeIdle looks, the request begins, and only then the deadline takes effect.
// That moment is too short to hit, so it is played out by hand.
func TestIdleCloseStrikesARequest(t *testing.T) {
	t.Parallel()
	b := newBackend(t, func(b *backend, p *peer) {
		for b.head(p) != "" {
			p.send(ok200(p.read(5)))
		}
	})
	for name, cut := range map[string]int{"in the head": 20, "in the body": len(post("Content-Length: 5")) + 2} {
		r := newRig(t, quick(), balance.DefaultConfig(), b.addr)
		c := r.dial()
		req := post("Content-Length: 5") + "abcde"
		c.send(req[:cut])
		r.eventually("the request has begun", func() bool {
			begun := false
			r.s.each(func(c *conn) { begun = c.idleAt.Load() == 0 })
			return begun
		})
		r.s.draining.Store(true)
		r.s.each(func(c *conn) { c.nudge() }) // the late half of closeIdle
		if !c.quietFor(short / 2) {
			t.Errorf("%s: ended or answered before the request was whole", name)
		}
		c.send(req[cut:])
		if a := c.anything("POST"); a.StatusCode != 200 || a.body != "abcde" {
			t.Errorf("%s: %d %q %v", name, a.StatusCode, a.body, a.err)
		}
	}
}

// Shutdown may come before Serve, twice, and while every connection is taken.
func TestShutdownAtOddTimes(t *testing.T) {
	t.Parallel()
	b := named(t, "b")
	cfg := quick()
	cfg.MaxConns = 1
	r := newRig(t, cfg, balance.DefaultConfig(), b.addr)

	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	early := r.e.NewServer(cfg, r.b, Options{})
	for range 2 {
		if err := early.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
	}
	early.Serve(ln)
	if nc, err := net.Dial("tcp", ln.Addr().String()); err == nil {
		nc.Close()
		t.Error("Serve left its listener open")
	}

	c := r.dial()
	c.send(get1("/"))
	c.want("GET", 200, "b")
	done := r.shutdown(context.Background())
	c.wantEnd("eof")
	c.nc.Close()
	if err := await(t, done); err != nil {
		t.Error(err)
	}
}
