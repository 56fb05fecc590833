package picker

import (
	"fmt"
	"slices"
	"testing"
)

func drainedNeverPicked(t *testing.T, p Policy) {
	eps := fleet(1, 0, 4, 0, 0, 2, 0)
	hold(eps[0], 50)
	hold(eps[2], 50)
	hold(eps[5], 50) // the drained ones look best of all
	got := count(t, build(p, eps), eps, 2000, Request{Now: now})
	for i, e := range eps {
		if e.Weight() == 0 && got[i] > 0 {
			t.Errorf("endpoint %d of weight 0 was picked %d times", i, got[i])
		}
	}
}

// drain: from the rebuild on that follows weight 0, an endpoint gets nothing
// new, and what it has runs on to its end and is counted.
func drain(t *testing.T, p Policy) {
	for _, n := range []int{3, 40} {
		eps := equal(n)
		k := build(p, eps)
		leases := map[*Endpoint][]held{}
		for i := range 20 * n {
			h, ok := acquire(k, Request{Now: now, Key: keyAt(i)})
			if !ok {
				t.Fatal("no endpoint picked")
			}
			leases[h.ep] = append(leases[h.ep], h)
		}
		gone := eps[n/2]
		open := gone.InFlight()
		if open == 0 {
			t.Fatal("the one to drain has got nothing")
		}
		gone.SetWeight(0)
		k = build(p, eps)
		for left := open; left > 0; left-- {
			if got := count(t, k, eps, 20, Request{Now: now}); got[n/2] > 0 || gone.InFlight() != left {
				t.Fatalf("draining: picked %d times, %d in flight, want %d", got[n/2], gone.InFlight(), left)
			}
			leases[gone][left-1].end(k, now, Result{Outcome: Success, FirstByte: 1e6})
		}
		if n := gone.Totals().Successes; int(n) != open {
			t.Errorf("%d of %d answers were counted", n, open)
		}
		gone.SetWeight(1)
		if got := count(t, build(p, eps), eps, 200*n, Request{Now: now}); got[n/2] == 0 {
			t.Error("nothing after its return")
		}
	}
}

// slowStart: under load an endpoint that ramps up gets less than its weight asks
// for, more as it goes up, and never nothing.
func slowStart(t *testing.T, p Policy) {
	for i, n := range []int{2, 4, 40, 40} {
		share := map[float64]int{}
		for _, at := range []float64{minRamp, 0.5, 1} {
			eps := equal(n)
			for _, e := range eps {
				e.SetWeight([]int{1, 100}[i%2])
			}
			rampTo(eps[1], at)
			share[at] = steady(t, build(p, eps), eps, 6*n, 500*n)[1]
		}
		if share[minRamp] == 0 || share[minRamp]*10 > share[1]*6 || share[0.5] <= share[minRamp] || share[0.5]*10 > share[1]*9 {
			t.Errorf("%d endpoints: picked %d times of %d at the ramp's start, %d half way up, %d after it",
				n, share[minRamp], 500*n, share[0.5], share[1])
		}
	}
}

// orderDoesNotMatter turns the set through all its rotations: the counts of an
// endpoint fit its weight wherever it stands. Where the key decides, a key goes
// to the same endpoint in any order.
func orderDoesNotMatter(t *testing.T, p Policy) {
	if byKey(p) {
		sameInAnyOrder(t, p)
		return
	}
	eps := fleet(1, 2, 3, 6)
	total := make([]int, len(eps))
	for turn := range eps {
		set := slices.Concat(eps[turn:], eps[:turn])
		for i, n := range count(t, build(p, set), eps, 6000, Request{Now: now}) {
			total[i] += n
		}
	}
	fits(t, "all rotations", total, sharesOf(eps))
}

func sameInAnyOrder(t *testing.T, p Policy) {
	eps := equal(20)
	for i, e := range eps {
		e.SetWeight(1 + i%3)
	}
	turned := slices.Concat(eps[7:], eps[:7])
	slices.Reverse(turned[3:12])
	a, b := build(p, eps), build(p, turned)
	for i := range 2000 {
		r := Request{Now: now, Key: keyAt(i)}
		x, _ := a.Pick(r)
		y, _ := b.Pick(r)
		if x != y {
			t.Fatalf("key %#x goes to %s, and in another order to %s", r.Key, x.ID, y.ID)
		}
	}
}

// tiesByWeight: endpoints that nothing tells apart get their weights' shares,
// idle and busy alike, whatever the size of the set.
func tiesByWeight(t *testing.T, p Policy) {
	for _, n := range []int{2, 3, 9, 32, 33, 65, 513} {
		for _, each := range []int{0, 4} {
			eps := equal(n)
			for i, e := range eps {
				e.SetWeight([]int{1, 4, 2}[i%3])
				hold(e, each*e.Weight())
			}
			k := build(p, eps)
			what := fmt.Sprintf("%d endpoints, %d in flight per weight", n, each)
			if byKey(p) {
				nearWeights(t, what, k, eps)
				continue
			}
			if p.Name() == "round_robin" { // not drawn: see TestRoundRobinWeights
				continue
			}
			fits(t, what, count(t, k, eps, 6000+8*n, Request{Now: now}), sharesOf(eps))
		}
	}
}

// nearWeights: of endpoints of the same weight none has more than twice or less
// than half of what it should on a ring of 64 points per weight (one sigma is
// 13 % at weight 1), and each weight's group has its share to 10 %.
func nearWeights(t *testing.T, what string, k Picker, eps []*Endpoint) {
	t.Helper()
	const each = 400
	var sum int
	for _, e := range eps {
		sum += e.Weight()
	}
	got := count(t, k, eps, each*sum, Request{Now: now})
	group, want := map[int]int{}, map[int]int{}
	for i, e := range eps {
		w := each * e.Weight()
		group[e.Weight()] += got[i]
		want[e.Weight()] += w
		if got[i] < w/2 || got[i] > 2*w {
			t.Errorf("%s: endpoint %d of weight %d got %d keys, want about %d", what, i, e.Weight(), got[i], w)
		}
	}
	for w := range want {
		if len(eps) > 30 && (group[w] < want[w]*9/10 || group[w] > want[w]*11/10) {
			t.Errorf("%s: all of weight %d got %d keys, want about %d", what, w, group[w], want[w])
		}
	}
}

// firstPickFair: a sidecar that rebuilds often must not favour a position, nor
// must a fleet of sidecars that all start at the same moment.
func firstPickFair(t *testing.T, p Policy) {
	first := func(eps []*Endpoint) []int {
		got := make([]int, len(eps))
		for i := range 4000 {
			e, _ := build(p, eps).Pick(Request{Now: now, Key: keyAt(i)})
			got[slices.Index(eps, e)]++
		}
		return got
	}
	if !byKey(p) { // whose first pick is as any other: see nearWeights
		for _, n := range []int{2, 3, 7} {
			eps := equal(n)
			fits(t, fmt.Sprint("first of ", n), first(eps), sharesOf(eps))
		}
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
	for i, n := range count(t, build(p, eps), eps, 20000, Request{Now: now}) {
		if n == 0 {
			t.Errorf("endpoint %d of weight %d got nothing", i, eps[i].Weight())
		}
	}
}
