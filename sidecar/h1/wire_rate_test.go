package h1

import (
	"strconv"
	"strings"
	"testing"
	"time"

	"outrigger/sidecar/balance"
)

// rated are time-outs for a clocked rig: a client may keep us waiting for ten
// seconds, and earns a tenth of a second with every byte.
func rated() Config {
	c := quick()
	c.Timeouts.Idle, c.Timeouts.FirstByte, c.Timeouts.Head = 10*time.Second, 10*time.Second, time.Minute
	c.MinRate = 10
	return c
}

// dribbles are ways to frame a body of 100 bytes that comes byte by byte.
var dribbles = map[string]struct {
	head, piece string
	streamed    bool
}{
	"buffered": {post("Content-Length: 100"), "x", false},
	"length":   {post("Content-Length: 100"), "x", true},
	"chunked":  {post("Transfer-Encoding: chunked"), "1\r\nx\r\n", true},
}

// drinks is a backend that reads a whole body of 100 and answers.
func drinks(t *testing.T) *backend {
	return newBackend(t, func(b *backend, p *peer) {
		for h := b.head(p); h != ""; h = b.head(p) {
			if s := p.bodyOf(h); strings.Count(s, "x") != 100 {
				return
			}
			p.send(ok200("done"))
		}
	})
}

// A body below the rate is cut off when the waits for it have used the idle
// time-out up, though none of them was that long. Until it is whole a small one
// holds no lease.
func TestDribbledBody(t *testing.T) {
	t.Parallel()
	for name, d := range dribbles {
		cfg := rated()
		if d.streamed {
			cfg.Retry.BodyBuffer = 0
		}
		b := drinks(t)
		r := newClocked(t, cfg, balance.DefaultConfig(), b.addr)
		c := r.dial()
		c.send(d.head)
		left := 10 * time.Second
		r.wantClientAlarm(left)
		began := r.now()
		gap := 3 * time.Second
		for left > gap {
			r.pass(gap)
			c.send(d.piece)
			left += time.Duration(len(d.piece))*earns(cfg) - gap
			r.wantClientAlarm(left)
			if !d.streamed && r.b.Status().Requests != 0 {
				t.Errorf("%s: a lease for a body that has not come", name)
			}
		}
		r.pass(left - 1)
		if at := r.clientAlarm(); at != r.now()+1 {
			t.Errorf("%s: %v left", name, at-r.now())
		}
		r.pass(1)
		if a := c.wantOwn(408, "body_timeout"); !a.Close {
			t.Errorf("%s: 408 without Connection: close", name)
		}
		c.wantEnd("eof")
		if took := r.now() - began; took > 20*time.Second {
			t.Errorf("%s: held for %v", name, took)
		}
		ignored := uint64(0)
		if d.streamed {
			ignored = 1
		}
		r.wantTotals(0, 0, ignored)
		if n := len(b.got()); n != int(ignored) {
			t.Errorf("%s: %d requests reached the backend", name, n)
		}
		if st := r.s.Stats(); st.ClientErrors != 1 || st.Own != [6]uint64{4: 1} {
			t.Errorf("%s: %+v", name, st)
		}
	}
}

// earns is what a byte does at the rate.
func earns(c Config) time.Duration { return time.Second / time.Duration(c.MinRate) }

// One that keeps the rate may take as long as it likes, and so may any where
// there is none.
func TestSteadyBody(t *testing.T) {
	t.Parallel()
	for _, d := range dribbles {
		for _, rate := range []int{10, 0} {
			cfg := rated()
			cfg.MinRate = rate
			if d.streamed {
				cfg.Retry.BodyBuffer = 0
			}
			b := drinks(t)
			r := newClocked(t, cfg, balance.DefaultConfig(), b.addr)
			c := r.dial()
			c.send(d.head)
			r.wantClientAlarm(10 * time.Second)
			gap := 9 * time.Second
			if rate > 0 {
				gap = earns(cfg)
			}
			for range 99 {
				r.pass(gap)
				c.send(d.piece)
				r.wantClientAlarm(10 * time.Second)
			}
			c.send(d.piece)
			if d.piece != "x" {
				c.send("0\r\n\r\n")
			}
			c.want("POST", 200, "done")
			r.wantTotals(1, 0, 0)
		}
	}
}

// A pause is allowed to anyone, as long as the idle time-out in all; what it
// used up is earned back, and the next request begins with all of it.
func TestCreditOfAnUpload(t *testing.T) {
	t.Parallel()
	b := drinks(t)
	r := newClocked(t, rated(), balance.DefaultConfig(), b.addr)
	c := r.dial()
	for range 2 {
		c.send(post("Content-Length: 100"))
		r.wantClientAlarm(10 * time.Second)
		r.pass(9 * time.Second)
		c.send("x")
		r.wantClientAlarm(1100 * time.Millisecond)
		c.send(strings.Repeat("x", 50))
		r.wantClientAlarm(6100 * time.Millisecond)
		r.pass(6 * time.Second)
		c.send(strings.Repeat("x", 48))
		r.wantClientAlarm(4900 * time.Millisecond)
		r.pass(4 * time.Second)
		c.send("x")
		c.want("POST", 200, "done")
		r.rests()
	}
	r.wantTotals(2, 0, 0)
}

// pours is a backend with an answer of n bytes.
func pours(t *testing.T, n int) *backend {
	return newBackend(t, func(b *backend, p *peer) {
		_ = p.nc.SetDeadline(time.Now().Add(4 * patience))
		if b.head(p) == "" {
			return
		}
		p.send(lines("HTTP/1.1 200 OK", "Content-Length: "+strconv.Itoa(n)))
		piece := []byte(strings.Repeat("x", 64<<10))
		for ; n > 0; n -= len(piece) {
			if _, err := p.nc.Write(piece[:min(n, len(piece))]); err != nil {
				return
			}
		}
		p.head()
	})
}

// narrow makes the kernel hold little between the server and its client, so
// that what the client reads is soon what the server could write.
func (r *clocked) narrow(c *peer) {
	const size = 128 << 10
	_ = c.nc.SetReadBuffer(size)
	r.eventually("the server has the connection", func() bool {
		found := false
		r.s.each(func(c *conn) {
			_ = writeBuffer(c.nc, size)
			found = true
		})
		return found
	})
}

// gulp is more than all that is buffered between the server and a narrow
// client: a client that has read it has made the server write.
const gulp = 2 << 20

// A client that takes an answer more slowly than the rate has its lease ended
// although it never rests for the idle time-out; one that keeps the rate, or
// any where there is none, gets it all.
func TestSlowReader(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		rate  int
		every time.Duration // a gulp
		whole bool
	}{
		"slow":    {1e6, 9 * time.Second, false}, // two seconds' worth in nine
		"fast":    {1e6, 1500 * time.Millisecond, true},
		"no rate": {0, 9 * time.Second, true},
	} {
		const gulps = 12
		cfg := rated()
		cfg.MinRate = tt.rate
		b := pours(t, gulps*gulp)
		r := newClocked(t, cfg, balance.DefaultConfig(), b.addr)
		c := r.dial()
		_ = c.nc.SetDeadline(time.Now().Add(4 * patience))
		r.narrow(c)
		c.send(get1("/"))
		if head := c.head(); !strings.HasPrefix(head, "HTTP/1.1 200 OK\r\n") {
			t.Errorf("%s: %q", name, head)
		}
		r.wantClientAlarm(10 * time.Second) // it waits for the client
		n, got := 0, gulp
		for ; n < gulps && got == gulp; n++ {
			got = len(c.read(gulp))
			if n < gulps-1 && got == gulp {
				r.pass(tt.every)
			}
		}
		if whole := n == gulps && got == gulp; whole != tt.whole {
			t.Errorf("%s: the answer is whole: %v, after %d gulps and %d bytes", name, whole, n-1, got)
		}
		r.settled()
		st := r.s.Stats()
		if tt.whole {
			r.wantTotals(1, 0, 0)
			if st.ClientGone != 0 {
				t.Errorf("%s: %+v", name, st)
			}
			continue
		}
		if n < 2 {
			t.Errorf("%s: cut off in the %dth gulp: by no rate", name, n)
		}
		r.wantTotals(0, 0, 1)
		if st.ClientGone != 1 || st.Aborted != 0 {
			t.Errorf("%s: %+v", name, st)
		}
		r.eventually("the backend's connection is closed", func() bool { return b.open.Load() == 0 })
	}
}

// The time for which the backend rests is not the client's.
func TestCreditIsTheClientsAlone(t *testing.T) {
	t.Parallel()
	release := make(chan bool)
	b := newBackend(t, func(b *backend, p *peer) {
		b.head(p)
		p.send(lines("HTTP/1.1 200 OK", "Content-Length: 5"))
		for range 5 {
			await(t, release)
			p.send("x")
		}
		p.head()
	})
	cfg := rated()
	cfg.MinRate = 1e6
	r := newClocked(t, cfg, balance.DefaultConfig(), b.addr)
	c := r.dial()
	c.send(get1("/"))
	c.br.Peek(1)
	for range 5 {
		r.wantBackendAlarm(10 * time.Second)
		if at := r.clientAlarm(); at != 0 {
			t.Errorf("the client owes something until %v from now", at-r.now())
		}
		r.pass(9 * time.Second)
		give(t, release)
	}
	c.want("GET", 200, "xxxxx")
	r.wantTotals(1, 0, 0)
}

// A request that is refused by its head comes on a connection whose client owes
// nothing yet, whatever the one before it on the same memory did: the reaper
// does not strike the answer.
func TestCreditOfARefusal(t *testing.T) {
	t.Parallel()
	b := named(t, "b")
	r := newClocked(t, rated(), balance.DefaultConfig(), b.addr)
	stop, done := make(chan bool), make(chan bool)
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			default:
				r.e.reaper.strike(r.now())
			}
		}
	}()
	defer func() { close(stop); await(t, done) }()
	for i := range 300 {
		c := r.rig.dial()
		c.send("GET / HTTP/1.1\r\nHost: a\r\nnot a field\r\n\r\n" + strings.Repeat("x", 200_000))
		if a := c.anything("GET"); a.StatusCode != 400 || a.err != nil {
			t.Fatalf("%dth: %d %v", i+1, a.StatusCode, a.err)
		}
		_ = c.nc.CloseWrite()
		if end := c.end(); end != "eof" {
			t.Fatalf("%dth: %s, want eof: it was struck", i+1, end)
		}
		c.nc.Close()
	}
}
