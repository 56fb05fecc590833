package h1

import (
	"strings"
	"testing"
	"time"

	"outrigger/sidecar/balance"
)

// silent is a backend that takes requests and does not answer.
func silent(t *testing.T) *backend {
	return newBackend(t, func(b *backend, p *peer) {
		b.head(p)
		p.wantEnd("eof")
	})
}

func TestFirstByteTimeout(t *testing.T) {
	t.Parallel()
	cfg := quick()
	cfg.Timeouts.FirstByte = short
	for name, b := range map[string]*backend{
		"silent": silent(t),
		"half a head": newBackend(t, func(b *backend, p *peer) {
			b.head(p)
			p.send("HTTP/1.1 200 OK\r\nContent-")
			p.wantEnd("eof")
		}),
	} {
		r := newRig(t, cfg, balance.DefaultConfig(), b.addr)
		c := r.dial()
		start := time.Now()
		c.send(get1("/"))
		c.wantOwn(504, "first_byte_timeout")
		if took := time.Since(start); took < short {
			t.Errorf("%s: struck early, after %v", name, took)
		}
		c.send(get1("/")) // the client's connection lives on
		c.wantOwn(504, "first_byte_timeout")
		r.wantTotals(0, 2, 0)
		if n := b.accepted.Load(); n != 2 {
			t.Errorf("%s: %d connections for 2 requests: tried again?", name, n)
		}
	}
}

// The first-byte time runs from the end of the request: interim answers start
// it anew.
func TestInterimAnswersKeepAlive(t *testing.T) {
	t.Parallel()
	b := newBackend(t, func(b *backend, p *peer) {
		b.head(p)
		for range 10 {
			p.quietFor(short)
			p.send(lines("HTTP/1.1 102 Processing"))
		}
		p.send(ok200("done"))
		p.head()
	})
	cfg := quick()
	cfg.Timeouts.FirstByte = 8 * short
	r := newRig(t, cfg, balance.DefaultConfig(), b.addr)
	c := r.dial()
	c.send(get1("/"))
	for range 10 {
		c.head()
	}
	c.want("GET", 200, "done")
	r.wantTotals(1, 0, 0)
}

func TestRequestDeadline(t *testing.T) {
	t.Parallel()
	cfg := quick()
	cfg.Timeouts.Request = short
	b := silent(t)
	r := newRig(t, cfg, balance.DefaultConfig(), b.addr)
	c := r.dial()
	c.send(get1("/"))
	c.wantOwn(504, "request_timeout")
	r.wantTotals(0, 1, 0)

	// It ends a body too, however alive.
	b = newBackend(t, func(b *backend, p *peer) {
		b.head(p)
		p.send(lines("HTTP/1.1 200 OK", "Content-Length: 1000000"))
		for p.quietFor(short / 10) {
			p.send("x")
		}
	})
	r = newRig(t, cfg, balance.DefaultConfig(), b.addr)
	c = r.dial()
	c.send(get1("/"))
	if a := c.answer("GET"); a.StatusCode != 200 || a.err == nil {
		t.Errorf("%d, %v", a.StatusCode, a.err)
	}
}

func TestBodyIdleTimeout(t *testing.T) {
	t.Parallel()
	cfg := quick()
	cfg.Timeouts.Idle = short
	for name, answer := range map[string]string{
		"length":    lines("HTTP/1.1 200 OK", "Content-Length: 10") + "12345",
		"chunked":   lines("HTTP/1.1 200 OK", "Transfer-Encoding: chunked") + "5\r\n12345\r\n",
		"until end": lines("HTTP/1.1 200 OK") + "12345",
	} {
		b := newBackend(t, func(b *backend, p *peer) {
			b.head(p)
			p.send(answer)
			p.wantEnd("eof")
		})
		r := newRig(t, cfg, balance.DefaultConfig(), b.addr)
		c := r.dial()
		c.send(get1("/"))
		if a := c.answer("GET"); a.err == nil || a.body != "12345" {
			t.Errorf("%s: %q %v", name, a.body, a.err)
		}
		r.wantTotals(0, 1, 0)
		if st := r.s.Stats(); st.Aborted != 1 {
			t.Errorf("%s: %+v", name, st)
		}
	}
}

// A body that trickles is no idle one.
func TestTricklingBody(t *testing.T) {
	t.Parallel()
	cfg := quick()
	cfg.Timeouts.Idle = 8 * short
	cfg.Timeouts.FirstByte = 8 * short
	b := newBackend(t, func(b *backend, p *peer) {
		b.head(p)
		p.send(lines("HTTP/1.1 200 OK", "Content-Length: 10"))
		for range 10 {
			p.quietFor(short)
			p.send("x")
		}
		p.head()
	})
	r := newRig(t, cfg, balance.DefaultConfig(), b.addr)
	c := r.dial()
	c.send(get1("/"))
	c.want("GET", 200, "xxxxxxxxxx")
	r.wantTotals(1, 0, 0)
}

// A client that is idle between requests is let go without a word.
func TestIdleClient(t *testing.T) {
	t.Parallel()
	cfg := quick()
	cfg.Timeouts.Idle = short
	b := named(t, "b")
	r := newRig(t, cfg, balance.DefaultConfig(), b.addr)
	r.dial().wantEnd("eof")
	c := r.dial()
	c.send(get1("/"))
	c.want("GET", 200, "b")
	c.wantEnd("eof")
	if st := r.s.Stats(); st.ClientErrors != 0 || st.Own[4] != 0 {
		t.Errorf("%+v", st)
	}
}

// A head that does not come holds nothing behind the proxy, and the time runs
// from its first byte, however many follow.
func TestHeadTimeoutEndsTheConnection(t *testing.T) {
	t.Parallel()
	cfg := quick()
	cfg.Timeouts.Head = 2 * short
	b := named(t, "b")
	r := newRig(t, cfg, balance.DefaultConfig(), b.addr)
	c := r.dial()
	c.send("GET / HTTP/1.1\r\n")
	for i := 0; i < 1000 && c.quietFor(short/10); i++ {
		c.send("A: b\r\n")
	}
	if _, err := c.rest(); err != nil && b.accepted.Load() != 0 {
		t.Errorf("%v", err)
	}
	r.eventually("the connection is over", func() bool { return r.s.Stats().Open == 0 })
	if st := r.s.Stats(); st.ClientErrors != 1 {
		t.Errorf("%+v", st)
	}
	// A second request on a connection gets its own time.
	c = r.dial()
	c.send(get1("/"))
	c.want("GET", 200, "b")
	c.quietFor(3 * short)
	c.send(get1("/"))
	c.want("GET", 200, "b")
	r.wantTotals(2, 0, 0)
}

// A small body is read whole before an endpoint is leased.
func TestSlowSmallBody(t *testing.T) {
	t.Parallel()
	cfg := quick()
	cfg.Timeouts.Idle = short
	b := named(t, "b")
	r := newRig(t, cfg, balance.DefaultConfig(), b.addr)
	c := r.dial()
	c.send(post("Content-Length: 10") + "12345")
	if a := c.wantOwn(408, "body_timeout"); !a.Close {
		t.Error("408 without Connection: close")
	}
	c.wantEnd("eof")
	r.wantTotals(0, 0, 0)
	if b.accepted.Load() != 0 || r.b.Status().Requests != 0 {
		t.Error("a backend was bothered with half a body")
	}
	if st := r.s.Stats(); st.ClientErrors != 1 || st.Own[4] != 1 {
		t.Errorf("%+v", st)
	}
}

// A large one is streamed; when it stalls, its client is told, and the backend,
// which waits in vain, is not blamed.
func TestSlowLargeBody(t *testing.T) {
	t.Parallel()
	cfg := quick()
	cfg.Timeouts.Idle = short
	for name, req := range map[string]string{
		"length":  post("Content-Length: 100000") + "12345",
		"chunked": post("Transfer-Encoding: chunked") + "5\r\n12345\r\n",
	} {
		b := newBackend(t, func(b *backend, p *peer) {
			b.head(p)
			if s, _ := p.rest(); strings.HasSuffix(s, "0\r\n\r\n") || len(s) >= 100_000 {
				t.Errorf("%s: the backend got a complete body", name)
			}
		})
		r := newRig(t, cfg, balance.DefaultConfig(), b.addr)
		c := r.dial()
		c.send(req)
		if a := c.wantOwn(408, "body_timeout"); !a.Close {
			t.Error("408 without Connection: close")
		}
		r.wantTotals(0, 0, 1)
	}
}

// The client of a head that does not come is told so.
func TestHeadTimeoutAnswers(t *testing.T) {
	t.Parallel()
	cfg := quick()
	cfg.Timeouts.Head = short
	r := newRig(t, cfg, balance.DefaultConfig())
	c := r.dial()
	c.send("GET / HTTP/1.1\r\n")
	if a := c.answer("GET"); a.StatusCode != 408 || !a.Close {
		t.Errorf("%d %v", a.StatusCode, a.err)
	}
	c.wantEnd("eof")
}

// A client that does not read holds its lease for the idle time at most, and
// the backend is not blamed.
func TestClientThatDoesNotRead(t *testing.T) {
	t.Parallel()
	cfg := quick()
	cfg.Timeouts.Idle = 5 * short
	b := newBackend(t, func(b *backend, p *peer) {
		b.head(p)
		p.send(lines("HTTP/1.1 200 OK", "Content-Length: 100000000"))
		piece := strings.Repeat("x", 1<<20)
		for range 100 {
			if _, err := p.nc.Write([]byte(piece)); err != nil {
				return
			}
		}
	})
	r := newRig(t, cfg, balance.DefaultConfig(), b.addr)
	c := r.dial()
	c.send(get1("/"))
	var u *upstream
	r.eventually("the answer is on its way", func() bool {
		r.s.each(func(c *conn) {
			c.mu.Lock()
			u = c.up
			c.mu.Unlock()
		})
		return u != nil
	})
	r.eventually("the backend's alarm is off, it being the client's turn", func() bool {
		at := u.alarm.at.Load()
		if at == fired {
			t.Fatal("the backend's alarm has struck")
		}
		return at == 0 && r.inFlight() == 1
	})
	r.settled()
	r.wantTotals(0, 0, 1)
	if st := r.s.Stats(); st.ClientGone != 1 || st.Aborted != 0 {
		t.Errorf("%+v", st)
	}
}
