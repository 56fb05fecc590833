package picker

import (
	"math"
	"testing"
	"time"
)

func TestResourceWait(t *testing.T) {
	eps := equal(2)
	busy := live(2, 2, 19)
	eps[0].SetLoad(busy)
	eps[1].SetLoad(live(2, 2, 0))
	k := rate(t, 8, eps)
	if w := k.Wait(eps[0], now); w != 0 {
		t.Errorf("it foretells %v without having seen a request", w)
	}
	for _, e := range eps {
		k.Done(e, now, 0, Result{Outcome: Success, FirstByte: 10 * time.Millisecond})
	}
	// What has been measured under the congestion of 19 counts as less.
	k.Refresh(now)
	g := k.table.Load().pace
	around(t, "wait", k.Wait(eps[0], now).Seconds()*1e3, g*term(t, k, eps[0], now, "slowness")*9, 0.01)
	if w := k.Wait(eps[1], now); w != 0 {
		t.Errorf("an idle one is foretold to take %v", w)
	}
	// Its concurrency counts for more than its cores.
	wide := *busy
	wide.Conc = 40
	eps[0].SetLoad(&wide)
	heard(k, eps, now)
	if w := k.Wait(eps[0], now); w != 0 {
		t.Errorf("one that sustains 40 is foretold to take %v with 20", w)
	}
}

// TestResourceWaitUnseen: without reports it goes by what answers in time, over
// all endpoints.
func TestResourceWaitUnseen(t *testing.T) {
	eps := equal(2)
	k := rate(t, 8, eps)
	for range 2 * aimdFirst {
		if w := k.Wait(eps[1], now); w != 0 {
			t.Fatalf("it foretells %v below its limit", w)
		}
		k.Sent(eps[0], now)
	}
	if k.Wait(eps[0], now) != math.MaxInt64 || k.Wait(eps[1], now) != math.MaxInt64 {
		t.Errorf("at the limit it foretells %v and %v", k.Wait(eps[0], now), k.Wait(eps[1], now))
	}
	for range 3 * aimdFirst {
		k.Sent(eps[0], now)
		k.Done(eps[0], now, 0, Result{Outcome: Success, FirstByte: 1, Age: time.Minute, Budget: time.Second})
	}
	if w := k.Wait(eps[0], now); w != 0 {
		t.Errorf("after answers in time: %v", w)
	}
	for range 2 {
		k.Sent(eps[0], now)
		k.Done(eps[0], now, 0, Result{Outcome: Ignore, Age: time.Second, Budget: time.Second})
	}
	if k.Wait(eps[0], now) == 0 {
		t.Error("clients that gave up late change nothing")
	}
}

// TestResourceWaitBounds: absurd figures foretell a long wait, never a negative
// one; old tables none.
func TestResourceWaitBounds(t *testing.T) {
	eps := equal(2)
	for _, e := range eps {
		e.SetLoad(live(leastCores, leastCores, 1e6))
	}
	k := rate(t, 8, eps)
	k.Done(eps[0], now, 0, Result{Outcome: Success, FirstByte: 1000 * time.Hour})
	k.Refresh(now)
	if w := k.Wait(eps[0], now); w < time.Hour {
		t.Errorf("foretold: %v", w)
	}
}

// TestResourceWaitAfterPause: the tables of long ago do not count then, the
// newest reports do.
func TestResourceWaitAfterPause(t *testing.T) {
	eps := equal(4)
	for _, e := range eps {
		e.SetLoad(live(2, 2, 100))
	}
	k := rate(t, 8, eps)
	for _, e := range eps {
		done(k, e, now, Success, 10*time.Millisecond)
	}
	k.Refresh(now)
	later := now + time.Minute
	report := func(e *Endpoint, n float64) {
		l := live(2, 2, n)
		l.At, l.Expires, l.Epoch = later, later+lifetime, "one"
		e.SetLoad(l)
	}
	report(eps[0], 0)
	report(eps[1], 100)
	if w := k.Wait(eps[0], later); w != 0 {
		t.Errorf("of an idle one it foretells %v", w)
	}
	if w := k.Wait(eps[1], later); w == 0 {
		t.Error("of a busy one it foretells nothing")
	}
	if w := k.Wait(eps[2], later); w != 0 {
		t.Errorf("of one whose report has expired it foretells %v", w)
	}
}

// TestResourceSeesThroughVetoes: vetoed endpoints have told, too.
func TestResourceSeesThroughVetoes(t *testing.T) {
	eps := equal(3)
	for i, e := range eps {
		l := live(2, 2, 0)
		if i > 0 {
			l.Mem = 0.95
		}
		e.SetLoad(l)
	}
	k := rate(t, 8, eps)
	now := k.table.Load().at
	if k.table.Load().seeing {
		t.Error("it foretells waits without a pace")
	}
	done(k, eps[0], now, Success, 10*time.Millisecond)
	k.Refresh(now)
	if !k.table.Load().seeing {
		t.Error("it goes by its own limit beside fresh reports")
	}
	for _, e := range eps { // a tenth of its time on a core: that is no noise
		l := live(2, 2, 0)
		l.Conc = 2 / 0.1
		e.SetLoad(l)
	}
	if k.Refresh(now); !k.table.Load().seeing {
		t.Error("it goes by its own limit where conc is known")
	}
	for name, conc := range map[string]float64{"not known": Absent, "what waiting looks like": 2 / 0.02} {
		for i, e := range eps {
			l := live(2, 2, 0)
			if l.Conc = conc; i > 0 {
				l.Mem = 0.95
			}
			e.SetLoad(l)
		}
		if k.Refresh(now); k.table.Load().seeing {
			t.Errorf("it foretells waits with a concurrency that is %s", name)
		}
	}
}
