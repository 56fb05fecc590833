package picker

import (
	"fmt"
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
	{"drained is never picked", drainedNeverPicked},
	{"all at their limit", allAtLimit},
	{"the only one with room is found", onlyRoomFound},
	{"tried endpoints are avoided", triedAvoided},
	{"all tried", allTried},
	{"a pick reserves nothing", pickReservesNothing},
	{"rebuild keeps counters", rebuildKeepsCounters},
	{"the slice is not kept", sliceNotKept},
	{"order of the set does not matter", orderDoesNotMatter},
	{"the first pick after a build is fair", firstPickFair},
	{"everyone gets something", everyoneServed},
	{"room that is freed is found", freedRoomFound},
	{"ten thousand", tenThousand},
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

func none(t *testing.T, p Picker, r Request) {
	t.Helper()
	for range 50 {
		if e, ok := p.Pick(r); ok || e != nil {
			t.Fatalf("picked %v, %v; want nothing", e, ok)
		}
	}
}

func emptySet(t *testing.T, p Policy) {
	for _, set := range [][]*Endpoint{nil, {}} {
		k := p.Build(set)
		none(t, k, Request{Now: now})
		if k.Mode(now) == "" {
			t.Error("no mode")
		}
	}
}

func onlyDrained(t *testing.T, p Policy) { none(t, p.Build(fleet(0, 0, 0)), Request{Now: now}) }

func oneEndpoint(t *testing.T, p Policy) {
	eps := fleet(3)
	eps[0].SetLimit(2)
	k := p.Build(eps)
	count(t, k, eps, 20, Request{Now: now})
	none(t, k, Request{Now: now, Tried: triedOf(eps...)})
	fill(eps[0])
	none(t, k, Request{Now: now})
	eps[0].Cancel()
	count(t, k, eps, 20, Request{Now: now})
}

func twoEndpoints(t *testing.T, p Policy) {
	eps := fleet(1, 5)
	k := p.Build(eps)
	for i, e := range eps {
		if got := count(t, k, eps, 50, Request{Now: now, Tried: triedOf(e)}); got[i] != 0 {
			t.Errorf("endpoint %d was tried and picked %d times", i, got[i])
		}
	}
	if got := count(t, k, eps, 200, Request{Now: now}); got[0] == 0 || got[1] == 0 {
		t.Errorf("one of two was never picked: %v", got)
	}
}

func drainedNeverPicked(t *testing.T, p Policy) {
	eps := fleet(1, 0, 4, 0, 0, 2, 0)
	hold(eps[0], 50)
	hold(eps[2], 50)
	hold(eps[5], 50) // the drained ones look best of all
	got := count(t, p.Build(eps), eps, 2000, Request{Now: now})
	for i, e := range eps {
		if e.Weight() == 0 && got[i] > 0 {
			t.Errorf("endpoint %d of weight 0 was picked %d times", i, got[i])
		}
	}
}

func allAtLimit(t *testing.T, p Policy) {
	for _, n := range []int{1, 2, 3, 9, 40} {
		eps := equal(n)
		for i, e := range eps {
			e.SetLimit(1 + i%3)
			fill(e)
		}
		none(t, p.Build(eps), Request{Now: now})
	}
}

func onlyRoomFound(t *testing.T, p Policy) {
	for _, n := range []int{2, 3, 9, 50} {
		for _, free := range []int{0, n / 2, n - 1} {
			eps := equal(n)
			for i, e := range eps {
				e.SetLimit(2)
				if i != free {
					fill(e)
				}
			}
			if got := count(t, p.Build(eps), eps, 50, Request{Now: now}); got[free] != 50 {
				t.Errorf("%d of %d: counts %v", free, n, got)
			}
		}
	}
}

func triedAvoided(t *testing.T, p Policy) {
	eps := equal(10)
	tried := triedOf(eps[1], eps[4], eps[9], eps[0], eps[5])
	got := count(t, p.Build(eps), eps, 3000, Request{Now: now, Tried: tried})
	for i, e := range eps {
		if tried.Has(e) != (got[i] == 0) {
			t.Errorf("endpoint %d: tried %v, picked %d times", i, tried.Has(e), got[i])
		}
	}
}

func allTried(t *testing.T, p Policy) {
	for n := 1; n <= maxTried; n++ {
		eps := equal(n)
		none(t, p.Build(eps), Request{Now: now, Tried: triedOf(eps...)})
	}
}

func pickReservesNothing(t *testing.T, p Policy) {
	eps := equal(4)
	count(t, p.Build(eps), eps, 100, Request{Now: now})
	for i, e := range eps {
		if e.InFlight() != 0 || e.Totals() != (Totals{}) {
			t.Errorf("endpoint %d: in flight %d, totals %+v after picks alone", i, e.InFlight(), e.Totals())
		}
	}
}

// rebuildKeepsCounters: the counts are the endpoint's, not the picker's, so a
// picker of a later generation sees what the earlier one's requests hold.
func rebuildKeepsCounters(t *testing.T, p Policy) {
	eps := equal(3)
	before := p.Build(eps[:2])
	for range 6 {
		e, _ := before.Pick(Request{Now: now})
		if !e.TryReserve() {
			t.Fatal("no room without a limit")
		}
	}
	eps[0].Finish(now, Result{Outcome: Success})
	was := []int{eps[0].InFlight(), eps[1].InFlight()}
	after := p.Build(eps)
	if is := []int{eps[0].InFlight(), eps[1].InFlight()}; !slices.Equal(was, is) {
		t.Fatalf("in flight %v, after a rebuild %v", was, is)
	}
	if eps[0].Totals().Successes != 1 {
		t.Error("totals forgotten")
	}
	if p.Name() == "least_conn" {
		hold(eps[0], 1)
		hold(eps[1], 1)
		if got := count(t, after, eps, 20, Request{Now: now}); got[2] != 20 {
			t.Errorf("the idle newcomer got %v of 20", got)
		}
	}
	got := count(t, p.Build(eps[2:]), eps, 20, Request{Now: now})
	if got[2] != 20 {
		t.Errorf("endpoints that left are picked: %v", got)
	}
}

func sliceNotKept(t *testing.T, p Policy) {
	eps := equal(3)
	mine := slices.Clone(eps)
	k := p.Build(mine)
	clear(mine)
	count(t, k, eps, 30, Request{Now: now})
	mine = slices.Clone(eps)
	p.Build(mine)
	if !slices.Equal(mine, eps) {
		t.Error("Build changed its argument")
	}
}

// orderDoesNotMatter turns the set through all its rotations: the counts of an
// endpoint fit its weight wherever it stands.
func orderDoesNotMatter(t *testing.T, p Policy) {
	eps := fleet(1, 2, 3, 6)
	total := make([]int, len(eps))
	for turn := range eps {
		set := slices.Concat(eps[turn:], eps[:turn])
		for i, n := range count(t, p.Build(set), eps, 6000, Request{Now: now}) {
			total[i] += n
		}
	}
	fits(t, "all rotations", total, sharesOf(eps))
}

// firstPickFair: a sidecar that rebuilds often must not favour a position, nor
// must a fleet of sidecars that all start at the same moment.
func firstPickFair(t *testing.T, p Policy) {
	first := func(eps []*Endpoint) []int {
		got := make([]int, len(eps))
		for range 4000 {
			e, _ := p.Build(eps).Pick(Request{Now: now})
			got[slices.Index(eps, e)]++
		}
		return got
	}
	for _, n := range []int{2, 3, 7} {
		eps := equal(n)
		fits(t, fmt.Sprint("first of ", n), first(eps), sharesOf(eps))
	}
	// Unequal weights: nobody starves, however often there is a rebuild.
	eps := fleet(1, 9, 9, 1)
	got := first(eps)
	for i, e := range eps {
		if want := 4000 * e.Weight() / 20; got[i] < want/2 || got[i] > want*2 {
			t.Errorf("endpoint %d of weight %d got %d of 4000 first picks, want about %d", i, e.Weight(), got[i], want)
		}
	}
}

func everyoneServed(t *testing.T, p Policy) {
	eps := fleet(1, 100, 1, 30, 5, 1, 1, 1, 1, 1, 1, 1)
	for i, n := range count(t, p.Build(eps), eps, 20000, Request{Now: now}) {
		if n == 0 {
			t.Errorf("endpoint %d of weight %d got nothing", i, eps[i].Weight())
		}
	}
}

func freedRoomFound(t *testing.T, p Policy) {
	eps := equal(5)
	for _, e := range eps {
		e.SetLimit(1)
		fill(e)
	}
	k := p.Build(eps)
	for i, e := range eps {
		none(t, k, Request{Now: now})
		e.Finish(now, Result{Outcome: Failure})
		if got, ok := k.Pick(Request{Now: now}); !ok || got != eps[i] {
			t.Errorf("freed %d, picked %v", i, got)
		}
		fill(e)
	}
}

func tenThousand(t *testing.T, p Policy) {
	eps := equal(10000)
	for i, e := range eps {
		e.SetWeight(i % 100)
		e.SetLimit(10)
		hold(e, i%10)
	}
	for i, n := range count(t, p.Build(eps), eps, 100, Request{Now: now}) {
		if n > 0 && eps[i].Weight() == 0 {
			t.Errorf("endpoint %d of weight 0 was picked", i)
		}
	}
}
