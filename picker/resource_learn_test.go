package picker

import (
	"math"
	"testing"
	"time"
)

// done ends a request that was alone at e, with a latency or a failure.
func done(k *resourcePicker, e *Endpoint, at time.Duration, o Outcome, latency time.Duration) {
	k.Done(e, at, k.Sent(e, at), Result{Outcome: o, FirstByte: latency, Total: latency, Age: latency})
}

// term returns a named figure of e's explanation.
func term(t *testing.T, k *resourcePicker, e *Endpoint, at time.Duration, name string) float64 {
	t.Helper()
	for _, c := range k.Explain(Request{Now: at}).Candidates {
		for _, x := range c.Terms {
			if c.Endpoint == e && x.Name == name {
				return x.Value
			}
		}
	}
	t.Fatalf("%s has no term %s", e.ID, name)
	return 0
}

// TestResourceTrustDecays: what others had there is believed at first, and ages
// towards the endpoint's share of what all have.
func TestResourceTrustDecays(t *testing.T) {
	eps := equal(2)
	eps[0].SetLoad(live(2, 2, 30))
	eps[1].SetLoad(live(2, 2, 10))
	k := rate(t, 8, eps)
	around(t, "n at once", term(t, k, eps[0], now, "n"), 30, 0.01)
	around(t, "n of the other at once", term(t, k, eps[1], now, "n"), 10, 0.01)
	around(t, "n after one stay", term(t, k, eps[0], now+firstStay, "n"), 20+10/math.E, 0.3)
	later := now + 2*time.Second
	around(t, "n long after", term(t, k, eps[0], later, "n"), 20, 0.1)
	around(t, "n of the other long after", term(t, k, eps[1], later, "n"), 20, 0.1)
}

// TestResourceStayFollowsLatency: trust lasts as long as requests do.
func TestResourceStayFollowsLatency(t *testing.T) {
	eps := equal(2)
	for _, e := range eps {
		e.SetLoad(live(2, 2, 0))
	}
	k := rate(t, 8, eps)
	for range 50 {
		k.Done(eps[0], now, 1, Result{Outcome: Success, FirstByte: time.Second})
		eps[0].latency.Observe(now, time.Second)
	}
	for range 100 {
		k.Refresh(now)
	}
	around(t, "stay", 1/float64(k.table.Load().perStay), 1000, 1)
}

// TestResourceKnowsSlow: an endpoint that sleeps is known from few answers,
// gets next to nothing, and is forgiven when it has become fast.
func TestResourceKnowsSlow(t *testing.T) {
	eps := equal(3)
	for _, e := range eps {
		e.SetLoad(live(2, 2, 0))
	}
	k := rate(t, 8, eps)
	for range 10 {
		done(k, eps[0], now, Success, 10*time.Millisecond)
		done(k, eps[1], now, Success, 10*time.Millisecond)
	}
	done(k, eps[2], now, Success, 5*time.Second)
	heard(k, eps, now)
	if b := term(t, k, eps[2], now, "slowness"); b < 5 {
		t.Errorf("slowness of a sleeper after one answer: %v", b)
	}
	if got := count(t, k, eps, 10000, Request{Now: now}); got[2] > 0 {
		t.Errorf("the sleeper got %d of 10000", got[2])
	}
	for range 200 {
		done(k, eps[2], now, Success, 10*time.Millisecond)
	}
	heard(k, eps, now)
	if b := term(t, k, eps[2], now, "slowness"); b > 1.5 {
		t.Errorf("slowness after it has healed: %v", b)
	}
}

// TestResourceQueueIsNotSlowness: latency under congestion is divided by it.
func TestResourceQueueIsNotSlowness(t *testing.T) {
	eps := equal(2)
	eps[0].SetLoad(live(2, 2, 0))
	eps[1].SetLoad(live(2, 2, 20)) // ten times what it serves at once
	k := rate(t, 8, eps)
	for range 50 {
		done(k, eps[0], now, Success, 10*time.Millisecond)
		done(k, eps[1], now, Success, 100*time.Millisecond)
	}
	heard(k, eps, now)
	around(t, "slowness of the busy one", term(t, k, eps[1], now, "slowness"), 1, 0.1)
}

// TestResourceFailingFast: who fails at once must not look idle, and is trusted
// again only bit by bit.
func TestResourceFailingFast(t *testing.T) {
	eps := equal(4)
	for _, e := range eps {
		e.SetLoad(live(2, 2, 3))
	}
	k := rate(t, 8, eps)
	for range 5 {
		done(k, eps[0], now, Failure, time.Millisecond)
	}
	if !k.Due(now + refreshUrgent) {
		t.Error("no refresh is due after failures")
	}
	heard(k, eps, now)
	around(t, "ghosts", term(t, k, eps[0], now, "ghosts"), 5, 0)
	got := count(t, k, eps, 8000, Request{Now: now})
	if got[0] > 40 {
		t.Errorf("it got %d of 8000", got[0])
	}
	later := now + 10*failMemory
	for _, e := range eps {
		l := *e.Load()
		l.At, l.Expires, l.Epoch = later, later+lifetime, "one"
		e.SetLoad(&l)
	}
	heard(k, eps, later)
	if h := term(t, k, eps[0], later, "health"); h < 1 {
		t.Errorf("health long after: %v", h)
	}
	// A new process did nothing wrong.
	done(k, eps[0], later, Failure, time.Millisecond)
	l := *eps[0].Load()
	l.Epoch = "another"
	eps[0].SetLoad(&l)
	around(t, "failing after a restart", term(t, k, eps[0], later, "failing"), 0, 0)
}

// TestResourceReportedErrors and memory lower an endpoint's share before its
// own results do.
func TestResourceHealthFromReports(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*Load)
		health float64
	}{
		"well":              {func(*Load) {}, 1},
		"1 % errors":        {func(l *Load) { l.Err = 0.01 }, 1},
		"half fail":         {func(l *Load) { l.Err = 0.5 }, 0.125},
		"all fail":          {func(l *Load) { l.Err = 1 }, minHealth},
		"memory at 80 %":    {func(l *Load) { l.Mem = 0.80 }, 1},
		"memory at 86 %":    {func(l *Load) { l.Mem = 0.86 }, 0.5},
		"memory at 91.99 %": {func(l *Load) { l.Mem = 0.9199 }, minMemory},
	} {
		t.Run(name, func(t *testing.T) {
			eps := equal(2)
			l := live(2, 2, 0)
			c.change(l)
			eps[0].SetLoad(l)
			eps[1].SetLoad(live(2, 2, 0))
			around(t, "health", term(t, rate(t, 8, eps), eps[0], now, "health"), c.health, 1e-6)
		})
	}
	eps := equal(1)
	eps[0].SetRamp(now-5*time.Second, 10*time.Second)
	around(t, "health half-way through a slow start", term(t, rate(t, 8, eps), eps[0], now, "health"), 0.5, 1e-6)
}

// TestResourceRing: the freshest reports are looked at by every pick, so that
// one endpoint that is known to be idle among many busy ones is found.
func TestResourceRing(t *testing.T) {
	eps := equal(1000)
	for _, e := range eps {
		e.SetLoad(live(2, 2, 40))
	}
	k := rate(t, 8, eps)
	eps[7].SetLoad(live(2, 2, 0))
	k.Reported(eps[7], now)
	k.Reported(eps[7], now) // twice is once
	if got := count(t, k, eps, 200, Request{Now: now}); got[7] != 200 {
		t.Errorf("the idle one got %d of 200", got[7])
	}
	places := map[int32]bool{}
	for i := range k.ring {
		places[k.ring[i].Load()] = true
	}
	if len(places) != ringSize {
		t.Errorf("%d different endpoints on the ring", len(places))
	}
	// An endpoint that is not one of its own says nothing.
	k.Reported(NewEndpoint("other", "127.0.0.1:1", 1, 0, nil), now)
}

func TestResourceDue(t *testing.T) {
	k := rate(t, 8, equal(3))
	if k.Due(now + refreshEvery - 1) {
		t.Error("due too soon")
	}
	if !k.Due(now + refreshEvery) {
		t.Error("not due")
	}
	k.Refresh(now + refreshEvery)
	if k.Due(now + refreshEvery) {
		t.Error("due right after a refresh")
	}
	if big := rate(t, 8, equal(10000)); big.Due(now+refreshEvery) || !big.Due(now+100*time.Millisecond) {
		t.Error("of ten thousand the tables are due every 100 ms")
	}
}

// TestResourceHungBackend: what piles up at one backend is not expected at the
// others, and turns nobody away from them.
func TestResourceHungBackend(t *testing.T) {
	eps := equal(20)
	for i, e := range eps {
		e.SetLoad(live(4, 4, float64(i%4)))
	}
	k := rate(t, 8, eps)
	for range 20 {
		for _, e := range eps {
			done(k, e, now, Success, 20*time.Millisecond)
		}
	}
	for _, stuck := range []float64{1e3, 1e6, 1e9} {
		eps[3].SetLoad(live(4, 4, stuck))
		heard(k, eps, now)
		later := now + 400*time.Millisecond
		if w := k.Wait(eps[5], later); w > 20*time.Millisecond {
			t.Errorf("%v stuck at one: %v foretold at another", stuck, w)
		}
		if got := count(t, k, eps, 2000, Request{Now: now}); got[3] > 0 {
			t.Errorf("the hung one got %d", got[3])
		}
	}
}

// TestResourceOneAbort: one request that was given up after a long time takes
// little away from an endpoint that is known to be well.
func TestResourceOneAbort(t *testing.T) {
	eps := equal(10)
	for _, e := range eps {
		e.SetLoad(live(2, 2, 0))
	}
	k := rate(t, 8, eps)
	for range 60 {
		for _, e := range eps {
			done(k, e, now, Success, 10*time.Millisecond)
		}
	}
	heard(k, eps, now)
	k.Done(eps[0], now, 1, Result{Outcome: Ignore, Age: time.Minute})
	heard(k, eps, now)
	if b := term(t, k, eps[0], now, "slowness"); b < 1 || b > 1.5 {
		t.Errorf("slowness %v", b)
	}
}

// TestResourceForgives: a backend that timed out again and again is tried like
// others soon after; one from which clients ran away, or that answered very
// late, some minutes after.
func TestResourceForgives(t *testing.T) {
	for name, c := range map[string]struct {
		r      Result
		after  time.Duration
		before float64 // slowness at first, at least
	}{
		"time-outs": {Result{Outcome: Failure, Age: 5 * time.Second}, 30 * time.Second, 1},
		"left":      {Result{Outcome: Ignore, Age: 5 * time.Second}, 3 * time.Minute, 2},
		"late":      {Result{Outcome: Success, FirstByte: 5 * time.Second}, 5 * time.Minute, 4},
	} {
		t.Run(name, func(t *testing.T) {
			eps, at := equal(5), now
			k := rate(t, 8, eps)
			others := func() {
				for _, e := range eps[1:] {
					done(k, e, at, Success, 10*time.Millisecond)
				}
				k.Refresh(at)
			}
			for range 50 {
				done(k, eps[0], at, Success, 10*time.Millisecond)
				others()
			}
			for range 20 {
				at += 500 * time.Millisecond
				k.Done(eps[0], at, 1, c.r)
				others()
			}
			if b := slowness(eps[0], k.table.Load().pace, at); b < c.before {
				t.Errorf("slowness after 10 s of it: %v", b)
			}
			for range int(c.after / time.Second) {
				at += time.Second
				others()
			}
			if r := &k.table.Load().rated[0]; r.cost > 1.5*k.table.Load().rated[1].cost {
				t.Errorf("after %v it costs %v, the others %v", c.after, r.cost, k.table.Load().rated[1].cost)
			}
		})
	}
}

// TestResourceOneLongPoll: one very late answer takes little away from an
// endpoint that is known to be well, the second of a newcomer nearly all.
func TestResourceOneLongPoll(t *testing.T) {
	eps := equal(10)
	k := rate(t, 8, eps)
	for range 60 {
		for _, e := range eps[1:] {
			done(k, e, now, Success, 10*time.Millisecond)
		}
	}
	k.Refresh(now)
	done(k, eps[1], now, Success, time.Minute)
	done(k, eps[0], now, Success, 5*time.Second)
	done(k, eps[0], now, Success, 5*time.Second)
	g := k.table.Load().pace
	if b := slowness(eps[1], g, now); b > 2 {
		t.Errorf("slowness after one long poll: %v", b)
	}
	if b := slowness(eps[0], g, now); b < 50 {
		t.Errorf("slowness of a sleeper after two: %v", b)
	}
}
