package h1

import (
	"context"
	"testing"
	"time"

	"outrigger/sidecar/balance"
)

// parkedConns counts connections that rest without a goroutine.
func (r *rig) parkedConns() int { return r.e.watch.resting() }

// parked sends a request on each of n new connections and waits until all are
// parked.
func (r *rig) parked(n int) []*peer {
	r.t.Helper()
	var ps []*peer
	for range n {
		p := r.dial()
		p.send(get1("/"))
		p.want("GET", 200, "b")
		ps = append(ps, p)
	}
	r.eventually("idle connections are parked", func() bool { return r.parkedConns() == n })
	return ps
}

func TestParked(t *testing.T) {
	t.Parallel()
	b := named(t, "b")
	r := newRig(t, quick(), balance.DefaultConfig(), b.addr)
	ps := r.parked(20)
	for _, p := range ps { // each serves on, twice in a row and after another rest
		for range 2 {
			p.send(get1("/"))
			p.want("GET", 200, "b")
		}
	}
	r.eventually("they are parked again", func() bool { return r.parkedConns() == len(ps) })
	ps[0].send("GET / HTT")
	r.eventually("a part of a head ends the rest", func() bool { return r.parkedConns() == len(ps)-1 })
	ps[0].send("P/1.1\r\nHost: a\r\n\r\n")
	ps[0].want("GET", 200, "b")
	ps[1].nc.Close()
	ps[2].reset()
	r.eventually("those whose clients left are closed", func() bool { return r.s.Stats().Open == int64(len(ps)-2) })
}

// A parked connection has the same time for its next request as any other.
func TestParkedTooLong(t *testing.T) {
	t.Parallel()
	cfg := quick()
	cfg.Timeouts.Idle = parkAfter + 200*time.Millisecond
	r := newRig(t, cfg, balance.DefaultConfig(), named(t, "b").addr)
	for _, p := range r.parked(3) {
		p.wantEnd("eof")
	}
	r.eventually("all are closed", func() bool { return r.s.Stats().Open == 0 })
}

// Requests that come over parked connections while the server begins to drain
// are served; those that stay idle are closed, and so does a shutdown without
// time for any of that.
func TestParkedShutdown(t *testing.T) {
	t.Parallel()
	for name, grace := range map[string]time.Duration{"in peace": patience, "at once": 0} {
		r := newRig(t, quick(), balance.DefaultConfig(), named(t, "b").addr)
		ps := r.parked(6)
		if grace > 0 {
			r.s.draining.Store(true)
			ps[0].send(get1("/"))
			if a := ps[0].want("GET", 200, "b"); !a.Close {
				t.Errorf("%s: the client was not told: %v", name, a.Header)
			}
		}
		ctx, cancel := context.WithTimeout(context.Background(), grace)
		if err := r.s.Shutdown(ctx); (err == nil) != (grace > 0) {
			t.Errorf("%s: %v", name, err)
		}
		cancel()
		for _, p := range ps {
			_, _ = p.rest()
		}
		if n := r.s.Stats().Open; n != 0 {
			t.Errorf("%s: %d connections left", name, n)
		}
	}
}
