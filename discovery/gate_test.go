package discovery

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/consul/api"
	"github.com/hashicorp/go-hclog"
)

func TestGateSharesConnections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAudience(t, newCrowd())
		all := names("s", 500)
		a.watch(all...)
		a.seen(all, 1, 5*time.Second) // paced, not queued
		time.Sleep(time.Minute)
		if s := a.gate.Status(); s.Readers != 500 || s.Limit != 150 || s.InUse+s.Waiting > 500 || s.LongestWait >= a.cfg.Spread {
			t.Errorf("status %+v", s)
		}
		a.crowd.mu.Lock()
		if a.crowd.most > 150 || a.crowd.waits[a.cfg.Wait] > 0 {
			t.Errorf("%d reads at once, %d for the whole wait", a.crowd.most, a.crowd.waits[a.cfg.Wait])
		}
		before := a.crowd.reads
		a.crowd.mu.Unlock()
		for _, s := range all {
			a.crowd.touch(s)
		}
		if d := a.seen(all, 2, 15*time.Second); d < time.Second {
			t.Errorf("all have seen it within %v: nothing was shared", d)
		}
		// One change each costs one read each, beside the rounds.
		time.Sleep(20 * time.Second)
		a.crowd.mu.Lock()
		if n := a.crowd.reads - before; n > 500+500*4 {
			t.Errorf("%d reads in two rounds and for a change of each", n)
		}
		a.crowd.mu.Unlock()
		if n := strings.Count(a.out.String(), "take turns"); n != 1 {
			t.Errorf("told %d times:\n%s", n, a.out.String())
		}
	})
}

// A change of one service shows within about Spread wherever its turn is.
func TestGateLagOfOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAudience(t, newCrowd())
		all := names("s", 500)
		a.watch(all...)
		time.Sleep(time.Minute)
		var sum time.Duration
		for i, s := range all[:100] {
			a.crowd.touch(s)
			sum += a.seen([]string{s}, 2, a.cfg.Spread*5/4)
			time.Sleep(time.Duration(i) * 7 * time.Millisecond)
		}
		if mean := sum / 100; mean > a.cfg.Spread/2+a.cfg.Spread/10 {
			t.Errorf("a change shows after %v on average", mean)
		}
	})
}

func TestGateFewAndHTTP2BlockForTheWholeWait(t *testing.T) {
	for name, tc := range map[string]struct {
		n     int
		http2 bool
	}{"few": {140, false}, "http2": {500, true}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newCrowd()
				c.http2 = tc.http2
				a := newAudience(t, c)
				all := names("s", tc.n)
				a.watch(all...)
				a.seen(all, 1, 5*time.Second)
				time.Sleep(time.Minute)
				c.mu.Lock()
				if short := c.reads - tc.n - c.waits[a.cfg.Wait]; c.waits[a.cfg.Wait] != tc.n || tc.http2 && short > 0 || short > tc.n {
					t.Errorf("waits %v", c.waits)
				}
				c.mu.Unlock()
				for _, s := range all {
					c.touch(s)
				}
				a.seen(all, 2, 5*time.Second)
				time.Sleep(10 * time.Second)
				if s := a.gate.Status(); s.HTTP2 != tc.http2 || s.LongestWait != 0 || s.Waiting != 0 {
					t.Errorf("status %+v", s)
				}
			})
		})
	}
}

// Those who come when all connections are held for minutes are not left out, nor
// is a read that verifies.
func TestGateNewcomers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAudience(t, newCrowd())
		a.watch(names("old", 141)...)
		time.Sleep(10 * time.Second) // they have settled and block for minutes
		late := names("new", 60)
		a.watch(late...)
		a.seen(late, 1, 2*time.Second)
		time.Sleep(20 * time.Second)
		start := time.Now()
		if _, _, err := a.client.Health().Service("old000", "", false, &api.QueryOptions{RequireConsistent: true}); err != nil || time.Since(start) > 2*shortestWait {
			t.Errorf("a verifying read took %v: %v", time.Since(start), err)
		}
		for _, s := range late {
			a.crowd.touch(s)
		}
		a.seen(late, 2, 2*a.cfg.Spread)
		// When the long reads are over all take turns.
		time.Sleep(6 * time.Minute)
		for _, s := range names("old", 141) {
			a.crowd.touch(s)
		}
		a.seen(names("old", 141), 2, a.cfg.Spread*5/4)
		a.crowd.mu.Lock()
		defer a.crowd.mu.Unlock()
		if a.crowd.most > 150 {
			t.Errorf("%d reads at once", a.crowd.most)
		}
	})
}

// An agent that takes fewer connections than we believe is found out, and no read
// fails for it.
func TestGateLearnsTheLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCrowd()
		c.limit = 20
		a := newAudience(t, c)
		all := names("s", 60)
		a.watch(all...)
		a.seen(all, 1, 10*time.Second)
		time.Sleep(time.Minute)
		c.mu.Lock()
		before := c.refused
		c.mu.Unlock()
		// Some more than 20 show only when reads that don't block use what is theirs.
		if s := a.gate.Status(); s.Limit > 24 || s.Limit < windowFloor || s.BusyConnections == 0 {
			t.Errorf("status %+v", s)
		}
		time.Sleep(4 * time.Minute)
		c.mu.Lock()
		if c.refused-before > 2 || c.most > 20 {
			t.Errorf("%d refusals after a minute, %d reads at once", c.refused-before, c.most)
		}
		c.limit = 200
		c.mu.Unlock()
		time.Sleep(25 * time.Minute)
		for _, s := range all {
			c.touch(s)
		}
		a.seen(all, 2, a.cfg.Spread*5/4)
		if s := a.gate.Status(); s.Limit < 60 {
			t.Errorf("status %+v long after the limit was raised", s)
		}
		if n := strings.Count(a.out.String(), "refuses connections"); n > 3 {
			t.Errorf("told %d times:\n%s", n, a.out.String())
		}
	})
}

func TestGateForgetsWhoLeaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAudience(t, newCrowd())
		ctx, cancel := context.WithCancel(a.ctx)
		a.ctx = ctx
		a.watch(names("s", 400)...)
		time.Sleep(30 * time.Second)
		cancel()
		synctest.Wait()
		if s := a.gate.Status(); s.InUse != 0 || s.Waiting != 0 {
			t.Errorf("status %+v after all have left", s)
		}
		time.Sleep(2 * time.Minute)
		if s := a.gate.Status(); s.Readers != 0 || s.LongestWait != 0 || len(a.gate.readers) != 0 {
			t.Errorf("status %+v two minutes after all have left", s)
		}
	})
}

// The gate keeps its books whatever becomes of reads.
func TestGateBooks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := DefaultConfig()
		cfg.MaxConnections = 4
		g := newGate(cfg, time.Now, hclog.NewNullLogger(), func() {})
		cause := errors.New("enough")
		var all sync.WaitGroup
		for i := range 2000 {
			all.Go(func() {
				ctx, cancel := context.WithCancelCause(t.Context())
				defer cancel(nil)
				if i%3 == 0 {
					time.AfterFunc(time.Duration(i%97)*100*time.Millisecond, func() { cancel(cause) })
				}
				turn, err := g.enter(ctx, "r"+strconv.Itoa(i%50), time.Duration(i%4)*time.Second)
				if err != nil {
					if err != cause {
						t.Error(err)
					}
					return
				}
				time.Sleep(min(turn.wait, time.Duration(i%7)*time.Millisecond))
				g.mu.Lock()
				if in := g.holding + g.passing; in > 4+2 {
					t.Errorf("%d in, of 4 and 2 that always may", in)
				}
				g.mu.Unlock()
				g.leave(turn)
			})
		}
		all.Wait()
		if s := g.Status(); s.InUse != 0 || s.Waiting != 0 || s.Readers != 50 {
			t.Errorf("status %+v", s)
		}
	})
}

func TestGatePaces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCrowd()
		c.http2 = true
		a := newAudience(t, c)
		a.watch(names("s", 1000)...)
		time.Sleep(100 * time.Millisecond)
		c.mu.Lock()
		defer c.mu.Unlock()
		if low, high := gateBurst, gateBurst+int(100*time.Millisecond/gateEvery)+1; c.reads < low || c.reads > high {
			t.Errorf("%d reads in the first 100 ms, want %d to %d", c.reads, low, high)
		}
	})
}

func TestWindow(t *testing.T) {
	now := time.Unix(1000, 0)
	w := newWindow(150, now)
	w.refused(now, now, 60, 10, true) // 60 in use and one too many
	if w.limit != 48 || w.ceiling != 60 {
		t.Fatalf("%+v", w)
	}
	w.refused(now.Add(time.Second), now.Add(-time.Millisecond), 60, 10, true) // began before the cut
	if w.limit != 48 {
		t.Fatalf("%+v: reads of before the cut count", w)
	}
	w.grow(now.Add(100 * time.Second))
	if w.limit != 58 {
		t.Fatalf("%+v after 100 s", w)
	}
	w.grow(now.Add(115 * time.Second))
	if w.limit != 59 {
		t.Fatalf("%+v below the ceiling", w)
	}
	w.grow(now.Add(115*time.Second + 2*windowGrowAbove))
	if w.limit < 61 || w.ceiling != 0 {
		t.Fatalf("%+v: the ceiling is passed", w)
	}
	for i := range 100 {
		at := now.Add(time.Hour + time.Duration(i)*time.Second)
		w.refused(at, at, 0, 0, true)
	}
	if w.limit != windowFloor {
		t.Fatalf("%+v after 100 refusals", w)
	}
	w.grow(now.Add(1000 * time.Hour))
	if w.limit != 150 {
		t.Fatalf("%+v after long", w)
	}
}
