package picker

import (
	"math"
	"slices"
	"testing"
)

// conformance is what holds for every policy. Each case gets a policy with a
// fresh, seeded source of chance.
var conformance = []struct {
	name string
	run  func(t *testing.T, p Policy)
}{
	{"empty set", emptySet},
	{"only drained endpoints", onlyDrained},
	{"one endpoint", oneEndpoint},
	{"two endpoints", twoEndpoints},
	{"every size", everySize},
	{"every key", everyKey},
	{"all at their limit", allAtLimit},
	{"the only one with room is found", onlyRoomFound},
	{"room that is freed is found", freedRoomFound},
	{"limits that change are seen", limitChanges},
	{"tried endpoints are avoided", triedAvoided},
	{"all tried", allTried},
	{"a pick reserves nothing", pickReservesNothing},

	{"drained is never picked", drainedNeverPicked},
	{"drain", drain},
	{"slow start", slowStart},
	{"order of the set does not matter", orderDoesNotMatter},
	{"ties are drawn by weight", tiesByWeight},
	{"the first pick after a build is fair", firstPickFair},
	{"everyone gets something", everyoneServed},

	{"rebuild keeps counters", rebuildKeepsCounters},
	{"rebuild keeps what was learnt", rebuildKeepsMind},
	{"the slice is not kept", sliceNotKept},
	{"an older picker picks on", olderPicker},
	{"two pickers at once", twoPickers},
	{"membership changes under picks", membershipChanges},

	{"explain lists everyone", explainLists},
	{"explain says why not", explainOut},
	{"explain agrees with pick", explainAgrees},
	{"explain changes nothing", explainChangesNothing},
}

func TestConformance(t *testing.T) {
	for i, name := range Names() {
		t.Run(name, func(t *testing.T) {
			for _, c := range conformance {
				t.Run(c.name, func(t *testing.T) { c.run(t, policy(t, name, seeded(uint64(i+1)))) })
			}
		})
	}
}

// byKey reports whether a pick is decided by its key: over many keys shares are
// those of the ring, near the weights and not equal to them.
func byKey(p Policy) bool { return p.Name() == "consistent_hash" }

// sizes are below, at and above those at which a policy may change its way.
var sizes = []int{1, 2, 3, 8, 9, 31, 32, 33, 64, 65, 513, 10000}

// none fails unless there is nothing to pick.
func none(t *testing.T, p Picker, r Request) {
	t.Helper()
	for i := range 20 {
		r.Key = keyAt(i)
		if e, ok := p.Pick(r); ok || e != nil {
			t.Fatalf("picked %v, %v; want nothing", e, ok)
		}
	}
}

// emptySet is what is left when all are ejected.
func emptySet(t *testing.T, p Policy) {
	for _, set := range [][]*Endpoint{nil, {}} {
		k := build(p, set)
		none(t, k, Request{Now: now})
		none(t, k, Request{Now: now, Tried: triedOf(equal(2)...)})
		if k.Mode(now) == "" {
			t.Error("no mode")
		}
		if x := k.Explain(Request{Now: now}); len(x.Candidates) != 0 || x.Rule == "" {
			t.Errorf("explained as %+v", x)
		}
		if o, ok := k.(Observer); ok { // a request that was sent before all went
			e := fleet(1)[0]
			o.Done(e, now, o.Sent(e, now), Result{Outcome: Failure, Age: 1})
			o.Reported(e, now)
		}
	}
}

func onlyDrained(t *testing.T, p Policy) { none(t, build(p, fleet(0, 0, 0)), Request{Now: now}) }

func oneEndpoint(t *testing.T, p Policy) {
	eps := fleet(3)
	eps[0].SetLimit(2)
	k := build(p, eps)
	count(t, k, eps, 20, Request{Now: now})
	none(t, k, Request{Now: now, Tried: triedOf(eps...)})
	fill(eps[0])
	none(t, k, Request{Now: now})
	eps[0].Cancel()
	count(t, k, eps, 20, Request{Now: now})
}

func twoEndpoints(t *testing.T, p Policy) {
	eps := fleet(1, 5)
	k := build(p, eps)
	for i, e := range eps {
		if got := count(t, k, eps, 50, Request{Now: now, Tried: triedOf(e)}); got[i] != 0 {
			t.Errorf("endpoint %d was tried and picked %d times", i, got[i])
		}
	}
	if got := count(t, k, eps, 200, Request{Now: now}); got[0] == 0 || got[1] == 0 {
		t.Errorf("one of two was never picked: %v", got)
	}
}

// everySize holds a busy, uneven set of each size to the picker's contract.
func everySize(t *testing.T, p Policy) {
	for _, n := range sizes {
		eps := equal(n)
		for i, e := range eps {
			e.SetWeight((i + 1) % 5) // one in five drains
			e.SetLimit(3)
			hold(e, i%4)
		}
		k := build(p, eps)
		if n < 5 {
			eps[0].SetLimit(0) // so that there is something to pick
		}
		for i := range 100 {
			e, ok := k.Pick(Request{Now: now, Key: keyAt(i), Tried: triedOf(eps[n/2])})
			switch {
			case n == 1:
				if ok {
					t.Errorf("picked the only one, which was tried")
				}
			case !ok:
				t.Fatalf("%d endpoints: nothing was picked", n)
			case e.Weight() == 0 || !e.HasRoom() || e == eps[n/2]:
				t.Fatalf("%d endpoints: picked %s, weight %d, room %v", n, e.ID, e.Weight(), e.HasRoom())
			}
		}
		for _, e := range eps {
			e.SetLimit(3)
			fill(e)
		}
		none(t, k, Request{Now: now})
		for _, i := range []int{0, n / 2, n - 1} {
			if eps[i].Weight() == 0 {
				continue
			}
			eps[i].SetLimit(4)
			if e, ok := k.Pick(Request{Now: now, Key: 1}); !ok || e != eps[i] {
				t.Errorf("%d endpoints, only %d has room: picked %v", n, i, e)
			}
			eps[i].SetLimit(3)
		}
	}
}

// everyKey: the ends of the key's range, and no key, are served like any other.
func everyKey(t *testing.T, p Policy) {
	for _, n := range []int{1, 2, 9, 65} {
		eps := equal(n)
		k := build(p, eps)
		for _, key := range []uint64{0, 1, 2, math.MaxUint32, 1 << 32, 1<<63 - 1, 1 << 63, math.MaxUint64 - 1, math.MaxUint64} {
			for range 3 {
				if e, ok := k.Pick(Request{Now: now, Key: key}); !ok || !slices.Contains(eps, e) {
					t.Errorf("%d endpoints, key %#x: picked %v", n, key, e)
				}
			}
			if n == 1 {
				continue
			}
			first, _ := k.Pick(Request{Now: now, Key: key})
			if e, ok := k.Pick(Request{Now: now, Key: key, Tried: triedOf(first)}); !ok || e == first {
				t.Errorf("%d endpoints, key %#x: the first was tried, picked %v", n, key, e)
			}
		}
	}
}

func allAtLimit(t *testing.T, p Policy) {
	for _, n := range sizes {
		eps := equal(n)
		for i, e := range eps {
			e.SetLimit(1 + i%3)
			fill(e)
		}
		none(t, build(p, eps), Request{Now: now})
	}
}

func onlyRoomFound(t *testing.T, p Policy) {
	for _, n := range sizes {
		eps := equal(n)
		for _, e := range eps {
			e.SetLimit(2)
			fill(e)
		}
		k := build(p, eps)
		for _, free := range []int{0, n / 2, n - 1} {
			eps[free].Cancel()
			if got := count(t, k, eps, 5, Request{Now: now}); got[free] != 5 {
				t.Errorf("%d of %d was picked %d times of 5", free, n, got[free])
			}
			fill(eps[free])
		}
	}
}

func freedRoomFound(t *testing.T, p Policy) {
	for _, n := range []int{5, 65} {
		eps := equal(n)
		for _, e := range eps {
			e.SetLimit(1)
			fill(e)
		}
		k := build(p, eps)
		for i, e := range eps {
			none(t, k, Request{Now: now})
			e.Finish(now, Result{Outcome: Ignore})
			if got, ok := k.Pick(Request{Now: now, Key: keyAt(i)}); !ok || got != eps[i] {
				t.Errorf("freed %d, picked %v", i, got)
			}
			fill(e)
		}
	}
}

// limitChanges: a limit that moves while requests are in flight counts from
// the next pick on, without a rebuild.
func limitChanges(t *testing.T, p Policy) {
	for _, n := range []int{3, 65} {
		eps := equal(n)
		for _, e := range eps {
			hold(e, 4)
		}
		k := build(p, eps)
		count(t, k, eps, 50, Request{Now: now})
		for _, e := range eps {
			e.SetLimit(3) // below what is in flight
		}
		none(t, k, Request{Now: now})
		eps[n-1].SetLimit(5)
		if got := count(t, k, eps, 20, Request{Now: now}); got[n-1] != 20 {
			t.Errorf("the raised limit was not seen: %v", got)
		}
		eps[0].SetLimit(0)
		eps[n-1].SetLimit(4)
		if got := count(t, k, eps, 20, Request{Now: now}); got[0] != 20 {
			t.Errorf("the lifted limit was not seen: %v", got)
		}
	}
}

func triedAvoided(t *testing.T, p Policy) {
	for _, n := range []int{10, 40} {
		eps := equal(n)
		tried := triedOf(eps[1], eps[4], eps[9], eps[0], eps[5])
		got := count(t, build(p, eps), eps, 300*n, Request{Now: now, Tried: tried})
		for i, e := range eps {
			if tried.Has(e) != (got[i] == 0) {
				t.Errorf("endpoint %d of %d: tried %v, picked %d times", i, n, tried.Has(e), got[i])
			}
		}
	}
}

func allTried(t *testing.T, p Policy) {
	for n := 1; n <= maxTried; n++ {
		eps := equal(n)
		none(t, build(p, eps), Request{Now: now, Tried: triedOf(eps...)})
	}
	// All but one: it is found, however many there are to look through.
	eps := equal(maxTried + 1)
	for i := range eps {
		others := slices.Concat(eps[:i], eps[i+1:])
		if got := count(t, build(p, eps), eps, 20, Request{Now: now, Tried: triedOf(others...)}); got[i] != 20 {
			t.Errorf("all but %d were tried: %v", i, got)
		}
	}
}

func pickReservesNothing(t *testing.T, p Policy) {
	eps := equal(4)
	count(t, build(p, eps), eps, 100, Request{Now: now})
	for i, e := range eps {
		if e.InFlight() != 0 || e.Totals() != (Totals{}) {
			t.Errorf("endpoint %d: in flight %d, totals %+v after picks alone", i, e.InFlight(), e.Totals())
		}
	}
}
