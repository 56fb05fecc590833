package picker

import (
	"fmt"
	"math"
	"math/big"
	"sync"
	"testing"
)

var weightSets = [][]int{
	{1}, {1, 1}, {3, 1}, {1, 2, 3, 10, 0, 7}, {5, 5, 5, 5, 5}, {100, 1, 1, 50},
}

// TestWeightedProportions: with nothing in flight every policy but two draws in
// proportion to weight, those that compare through their ties. Never (n+1)/w,
// which sends all of a sparse client's requests to the largest. The two are
// round robin, which does not draw, and consistent_hash.
func TestWeightedProportions(t *testing.T) {
	for _, name := range Names() {
		if name == "round_robin" || name == "consistent_hash" {
			continue
		}
		for i, weights := range weightSets {
			eps := fleet(weights...)
			k := build(policy(t, name, seeded(uint64(i))), eps)
			fits(t, fmt.Sprint(name, " ", weights), count(t, k, eps, 30000, Request{Now: now}), sharesOf(eps))
		}
	}
}

// TestHashProportions: an endpoint's share of the keys depends on where its
// points fall, so the mean over many sets is what fits the weights. A share on
// 64 points per weight has a deviation of 1/8 at weight 1; over 300 sets, with
// 100 keys of each, that of the mean is below 1 %: the bound of 3 % is more than
// three of them.
func TestHashProportions(t *testing.T) {
	const sets, keys = 300, 1000
	weights := []int{1, 2, 3, 4}
	got := make([]float64, len(weights))
	p := policy(t, "consistent_hash", seeded(1))
	for set := range sets {
		eps := make([]*Endpoint, len(weights))
		for i, w := range weights {
			eps[i] = NewEndpoint(fmt.Sprint("set", set, "-", i), fmt.Sprintf("10.%d.%d.%d:80", set/250, set%250, i), w, 0, nil)
		}
		for i, n := range count(t, build(p, eps), eps, keys, Request{Now: now}) {
			got[i] += float64(n)
		}
	}
	for i, w := range weights {
		if want := float64(sets*keys*w) / 10; math.Abs(got[i]/want-1) > 0.03 {
			t.Errorf("weight %d: %.0f keys, want about %.0f", w, got[i], want)
		}
	}
}

// TestEquilibrium: with many requests in flight, of equal mean length, each
// endpoint gets its weight's share of the new ones, to 5 %: what ends is drawn
// at random, and a lead of one request is 5 % of what weight 1 holds.
func TestEquilibrium(t *testing.T) {
	for _, name := range []string{"least_conn", "p2c", "peak_ewma", "resource"} {
		const rounds = 60000
		eps := fleet(1, 2, 3, 4, 10)
		got := steady(t, build(policy(t, name, seeded(12)), eps), eps, 400, rounds)
		for i, e := range eps {
			share := float64(e.Weight()) / 20
			if n := float64(got[i]) / rounds; math.Abs(n/share-1) > 0.05 {
				t.Errorf("%s: weight %d got %.3f of the requests, want %.3f", name, e.Weight(), n, share)
			}
		}
	}
}

// TestRandomSurvivesFull: what a full endpoint can't take goes to the others,
// and none of them is starved by it.
func TestRandomSurvivesFull(t *testing.T) {
	eps := equal(4)
	eps[0].SetLimit(1)
	fill(eps[0])
	got := count(t, policy(t, "random", seeded(1)).Build(eps), eps, 30000, Request{Now: now})
	fits(t, "three of four", got, []float64{0, 1, 1, 1})
}

func TestAliasIsExact(t *testing.T) {
	rand := seeded(7)
	sets := append([][]int{{65535, 1}, {1, 65535, 65535, 1, 2}}, weightSets...)
	for _, n := range []int{10, 1000, 10000} {
		w := make([]int, n)
		for i := range w {
			w[i] = 1 + int(rand(65535))
		}
		sets = append(sets, w)
	}
	for _, weights := range sets {
		s := slots(fleet(weights...))
		a := newAlias(s)
		n := float64(len(s))
		var sum float64
		for _, x := range s {
			sum += float64(x.w)
		}
		got := make([]float64, len(s))
		for i := range s {
			if a.keep[i] > 1<<31 || int(a.other[i]) >= len(s) {
				t.Fatalf("column %d of %d: keep %d, other %d", i, len(s), a.keep[i], a.other[i])
			}
			keep := float64(a.keep[i]) / (1 << 31)
			got[i] += keep / n
			got[a.other[i]] += (1 - keep) / n
		}
		for i, x := range s {
			// A column is cut at a multiple of 2^-31; one index may be in all.
			if want := float64(x.w) / sum; math.Abs(got[i]-want) > 1.0/(1<<30) {
				t.Errorf("%d weights, index %d: probability %.12f, want %.12f", len(s), i, got[i], want)
			}
		}
	}
}

func TestP2CDrawsTwoDifferent(t *testing.T) {
	for _, weights := range [][]int{{1, 1}, {65535, 1}, {1, 65535, 1}, {1, 1, 1, 1, 60000}} {
		k := policy(t, "p2c", seeded(3)).Build(fleet(weights...)).(*p2cPicker)
		for range 20000 {
			a, b := k.pair()
			if a == b || a < 0 || b < 0 || a >= len(weights) || b >= len(weights) {
				t.Fatalf("%v: drew %d and %d", weights, a, b)
			}
		}
	}
}

// TestP2CNeverTakesTheBusiest: it always is compared with another.
func TestP2CNeverTakesTheBusiest(t *testing.T) {
	eps := fleet(1, 2, 4, 8)
	for i, e := range eps {
		hold(e, 3*e.Weight())
		if i == 3 {
			hold(e, 1)
		}
	}
	if got := count(t, policy(t, "p2c", seeded(4)).Build(eps), eps, 5000, Request{Now: now}); got[3] != 0 {
		t.Errorf("the busiest per weight was picked: %v", got)
	}
}

// TestP2CSpreads: the most loaded of n endpoints exceeds the mean by about
// log2 log n, where random placement exceeds it by about sqrt(mean*ln n).
func TestP2CSpreads(t *testing.T) {
	worst := func(name string) int {
		eps := equal(100)
		k := policy(t, name, seeded(5)).Build(eps)
		for range 100 * 50 {
			e, _ := k.Pick(Request{Now: now})
			e.TryReserve()
		}
		most := 0
		for _, e := range eps {
			most = max(most, e.InFlight())
		}
		return most - 50
	}
	if two, one := worst("p2c"), worst("random"); two > 4 || one < 2*two {
		t.Errorf("above the mean of 50: p2c %d, random %d", two, one)
	}
}

func TestRoundRobinIsExact(t *testing.T) {
	for _, n := range []int{1, 2, 3, 7, 100} {
		eps := equal(n)
		for _, e := range eps {
			e.SetWeight(5)
		}
		k := policy(t, "round_robin", seeded(uint64(n))).Build(eps)
		for round := range 20 {
			for i, got := range count(t, k, eps, n, Request{Now: now}) {
				if got != 1 {
					t.Fatalf("round %d of %d endpoints: %d picked %d times", round, n, i, got)
				}
			}
		}
	}
}

func TestRoundRobinIsExactConcurrently(t *testing.T) {
	const n, goroutines, rounds = 7, 8, 1000
	eps := equal(n)
	k := policy(t, "round_robin", seeded(1)).Build(eps)
	var wg sync.WaitGroup
	for range goroutines {
		wg.Go(func() {
			for range n * rounds {
				e, _ := k.Pick(Request{Now: now})
				e.TryReserve()
			}
		})
	}
	wg.Wait()
	for i, e := range eps {
		if e.InFlight() != goroutines*rounds {
			t.Errorf("endpoint %d got %d, want %d", i, e.InFlight(), goroutines*rounds)
		}
	}
}

// TestRoundRobinSkipsFull: the turn of a full endpoint goes to the next, whose
// own turn it is then: the rest stay even.
func TestRoundRobinSkipsFull(t *testing.T) {
	eps := equal(5)
	eps[2].SetLimit(1)
	fill(eps[2])
	got := count(t, policy(t, "round_robin", seeded(2)).Build(eps), eps, 500, Request{Now: now})
	for i, n := range got {
		if (i == 2) != (n == 0) || i != 2 && n != 125 {
			t.Errorf("counts %v, want 125 for all but the full one", got)
		}
	}
}

// TestLeastConnExactMinimum holds the pick against a plain search with exact
// fractions, over random sets with limits, drained and tried endpoints.
func TestLeastConnExactMinimum(t *testing.T) {
	rand := seeded(11)
	for round := range 1000 {
		n := 1 + int(rand(20))
		eps := equal(n)
		var tried Tried
		for _, e := range eps {
			e.SetWeight(int(rand(6)))
			hold(e, int(rand(12)))
			if rand(3) == 0 {
				e.SetLimit(1 + int(rand(10)))
			}
			if rand(10) == 0 {
				tried.Add(e)
			}
		}
		var best *big.Rat
		for _, e := range eps {
			if e.Weight() == 0 || !e.HasRoom() || tried.Has(e) {
				continue
			}
			if x := big.NewRat(int64(e.InFlight()), int64(e.Weight())); best == nil || x.Cmp(best) < 0 {
				best = x
			}
		}
		e, ok := policy(t, "least_conn", rand).Build(eps).Pick(Request{Now: now, Tried: tried})
		if ok != (best != nil) {
			t.Fatalf("round %d: picked %v, one was free: %v", round, ok, best != nil)
		}
		if ok && big.NewRat(int64(e.InFlight()), int64(e.Weight())).Cmp(best) != 0 {
			t.Fatalf("round %d: picked %d/%d, the least is %v", round, e.InFlight(), e.Weight(), best)
		}
	}
}

// TestLeastConnTies are drawn by weight, also when they are not at zero.
func TestLeastConnTies(t *testing.T) {
	eps := fleet(1, 2, 4, 3)
	for i, e := range eps {
		hold(e, 5*e.Weight())
		if i == 3 {
			hold(e, 1)
		}
	}
	got := count(t, policy(t, "least_conn", seeded(6)).Build(eps), eps, 30000, Request{Now: now})
	fits(t, "ties", got, []float64{1, 2, 4, 0})
}
