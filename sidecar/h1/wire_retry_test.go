package h1

import (
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"outrigger/sidecar/balance"
)

// resets is a backend that takes a request and resets the connection, after
// calling f.
func resets(t *testing.T, f func()) *backend {
	return newBackend(t, func(b *backend, p *peer) {
		b.head(p)
		if f != nil {
			f()
		}
		p.reset()
	})
}

// Nothing listens: nothing was sent, so any method goes to another endpoint,
// and the one that refused is ejected at once.
func TestRefusedGoesElsewhere(t *testing.T) {
	t.Parallel()
	for _, req := range []string{
		get1("/"),
		post("Content-Length: 3") + "abc",
		post("Content-Length: 20000") + strings.Repeat("x", 20_000),
		post("Transfer-Encoding: chunked") + chunkedABC,
	} {
		good := newBackend(t, func(b *backend, p *peer) {
			for h := b.head(p); h != ""; h = b.head(p) {
				n, _ := strconv.Atoi(fieldOf(h, "Content-Length"))
				if strings.Contains(h, "chunked") {
					n = len(chunkedABC)
				}
				if got := p.read(n); len(got) != n {
					t.Errorf("%d bytes of body of %d", len(got), n)
				}
				p.send(ok200("good"))
			}
		})
		dead := nobody(t)
		r := newRig(t, quick(), balance.DefaultConfig(), dead, good.addr)
		c := r.dial()
		for range 20 {
			c.send(req)
			c.want("POST", 200, "good")
			r.settled()
		}
		st := r.b.Status()
		if st.Retries > 1 {
			t.Errorf("%d retries, though the first failure ejects", st.Retries)
		}
		r.wantTotals(20, st.Retries, 0)
	}
}

func TestEverythingRefused(t *testing.T) {
	t.Parallel()
	r := newRig(t, quick(), balance.DefaultConfig(), nobody(t), nobody(t), nobody(t))
	c := r.dial()
	c.send(get1("/"))
	a := c.wantOwn(503, "unreachable")
	if n, err := strconv.Atoi(a.Header.Get("Retry-After")); err != nil || n < 1 || a.Close {
		t.Errorf("%v", a.Header)
	}
	// Each was tried once: three tries, none twice.
	for _, e := range r.b.Status().Endpoints {
		if e.Totals.Requests != 1 || e.Totals.Failures != 1 {
			t.Errorf("%s: %+v", e.Instance.ID, e.Totals)
		}
	}
}

func TestAttemptsAreBounded(t *testing.T) {
	t.Parallel()
	for attempts := range 3 {
		cfg := quick()
		cfg.Retry.Attempts = attempts
		r := newRig(t, cfg, balance.DefaultConfig(), nobody(t), nobody(t), nobody(t), nobody(t))
		c := r.dial()
		c.send(get1("/"))
		c.wantOwn(503, "unreachable")
		r.wantTotals(0, uint64(attempts)+1, 0)
	}
	cfg := quick()
	cfg.Retry.ConnectFailure = false
	r := newRig(t, cfg, balance.DefaultConfig(), nobody(t), nobody(t))
	c := r.dial()
	c.send(get1("/"))
	c.wantOwn(503, "unreachable")
	r.wantTotals(0, 1, 0)
}

// A connection that breaks before any answer: what may be sent twice is sent
// to another endpoint, anything else is a 502.
func TestResetBeforeAnAnswer(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		req    string
		again  bool
		status int
	}{
		{get1("/"), true, 200},
		{lines("DELETE / HTTP/1.1", "Host: a"), true, 200},
		{lines("PUT / HTTP/1.1", "Host: a", "Content-Length: 3") + "abc", true, 200},
		{post("Content-Length: 3") + "abc", true, 502},
		{lines("PATCH / HTTP/1.1", "Host: a"), true, 502},
		{get1("/"), false, 502},                                                                               // switched off
		{lines("PUT / HTTP/1.1", "Host: a", "Transfer-Encoding: chunked") + chunkedABC, true, 200},            // whole, with its head
		{lines("PUT / HTTP/1.1", "Host: a", "Content-Length: 20000") + strings.Repeat("x", 20000), true, 502}, // streamed: gone
	} {
		good := newBackend(t, func(b *backend, p *peer) {
			for h := b.head(p); h != ""; h = b.head(p) {
				n, _ := strconv.Atoi(fieldOf(h, "Content-Length"))
				p.read(n)
				p.send(ok200("good"))
			}
		})
		var r *rig
		var bad *backend
		bad = resets(t, func() { r.set(bad.addr, good.addr) }) // so that it is the first to be tried
		cfg := quick()
		cfg.Retry.Reset = tt.again
		r = newRig(t, cfg, balance.DefaultConfig(), bad.addr)
		c := r.dial()
		c.send(tt.req)
		if tt.status == 200 {
			c.want("GET", 200, "good")
			r.wantTotals(1, 1, 0)
		} else {
			if a := c.wantOwn(502, "reset"); a.Close != strings.Contains(tt.req, "20000") {
				t.Errorf("%.40q: close %v", tt.req, a.Close)
			}
			r.wantTotals(0, 1, 0)
			if n := len(good.got()); n != 0 {
				t.Errorf("%.40q was sent twice", tt.req)
			}
		}
	}
}

// After the first byte of an answer nothing is tried again.
func TestResetWithinAHead(t *testing.T) {
	t.Parallel()
	good := named(t, "good")
	var r *rig
	var bad *backend
	bad = newBackend(t, func(b *backend, p *peer) {
		b.head(p)
		r.set(bad.addr, good.addr)
		p.send("HTTP/1.1 200 OK\r\nContent-Le")
		p.quietFor(short / 2) // so that it is read before the end is
	})
	r = newRig(t, quick(), balance.DefaultConfig(), bad.addr)
	c := r.dial()
	c.send(get1("/"))
	a := c.answer("GET")
	// A GET whose client has seen nothing may be tried again; a broken head is a failure either way.
	if a.StatusCode != 200 && a.StatusCode != 502 {
		t.Errorf("%d", a.StatusCode)
	}
	r.eventually("the failure is counted", func() bool { return r.totals().Failures == 1 })
}

// diesOnReuse is a backend whose kept connections die when a second request
// comes on one: too late for the proxy to see it before it sends.
func diesOnReuse(t *testing.T, body string) *backend {
	return newBackend(t, func(b *backend, p *peer) {
		b.head(p)
		p.send(ok200(body))
		b.head(p)
		p.reset()
	})
}

// A pooled connection that dies under a request says nothing of the endpoint:
// the request is tried again on a new connection, to the same one if there is
// no other, and nobody is blamed.
func TestDeadPooledConnection(t *testing.T) {
	t.Parallel()
	b := diesOnReuse(t, "b")
	r := newRig(t, quick(), balance.DefaultConfig(), b.addr)
	c := r.dial()
	for range 4 {
		c.send(get1("/"))
		c.want("GET", 200, "b")
		r.settled()
	}
	r.wantTotals(4, 0, 3)
	if st := r.b.Status(); st.Retries != 3 {
		t.Errorf("%d retries, want 3", st.Retries)
	}
	// A POST was sent and may have been acted on.
	c.send(post())
	c.wantOwn(502, "reset")
	r.wantTotals(4, 0, 4)
}

// With another endpoint ready, that one gets it: nothing is tried twice.
func TestRetriesPreferOthers(t *testing.T) {
	t.Parallel()
	var r *rig
	var first atomic.Int64
	good := named(t, "good")
	var bad *backend
	bad = newBackend(t, func(b *backend, p *peer) {
		b.head(p)
		p.send(ok200("first"))
		b.head(p)
		first.Add(1)
		r.set(bad.addr, good.addr)
		p.reset()
	})
	r = newRig(t, quick(), balance.DefaultConfig(), bad.addr)
	c := r.dial()
	c.send(get1("/"))
	c.want("GET", 200, "first")
	r.settled()
	c.send(get1("/"))
	c.want("GET", 200, "good")
	if first.Load() != 1 || bad.accepted.Load() != 1 {
		t.Errorf("the endpoint that failed was tried again: %d connections", bad.accepted.Load())
	}
	r.wantTotals(2, 0, 1)
}

// The budget bounds retries. What is refused then is refused as a request that
// reached nobody.
func TestRetryBudget(t *testing.T) {
	t.Parallel()
	bcfg := balance.DefaultConfig()
	bcfg.Budget.Ratio = 0
	bcfg.Budget.MinPerSecond = 0
	r := newRig(t, quick(), bcfg, nobody(t), nobody(t))
	c := r.dial()
	c.send(get1("/"))
	c.wantOwn(503, "unreachable")
	if st := r.b.Status(); st.Retries != 0 || st.BudgetSpent != 1 {
		t.Errorf("%d retries, %d forbidden", st.Retries, st.BudgetSpent)
	}
	r.wantTotals(0, 1, 0)

	b := diesOnReuse(t, "b")
	r = newRig(t, quick(), bcfg, b.addr)
	c = r.dial()
	c.send(get1("/"))
	c.want("GET", 200, "b")
	r.settled()
	c.send(get1("/"))
	c.wantOwn(502, "reset")
}

// A request that one backend took and broke off is a 502 even when its last
// try found nobody.
func TestLastTryRefused(t *testing.T) {
	t.Parallel()
	dead := nobody(t)
	var r *rig
	var bad *backend
	bad = resets(t, func() { r.set(bad.addr, dead) })
	r = newRig(t, quick(), balance.DefaultConfig(), bad.addr)
	c := r.dial()
	c.send(get1("/"))
	c.wantOwn(502, "reset")
}
