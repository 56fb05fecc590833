package picker

import (
	"slices"
	"testing"
)

// weightsLike are sets of weights whose sums are on both sides of what a cycle
// may hold.
func weightsLike(rand Rand) [][]int {
	sets := [][]int{{1}, {7}, {1, 2}, {5, 1, 1}, {1, 2, 5}, {3, 3, 1, 1}, {7, 1, 1, 1, 1, 1}, {100, 1, 1, 50}, {65535, 1}}
	for _, most := range []uint32{3, 10, 100, 3000} {
		for range 4 {
			w := make([]int, 2+rand(60))
			for i := range w {
				w[i] = 1 + int(rand(most))
			}
			sets = append(sets, w)
		}
	}
	heavy := make([]int, 51)
	for i := range heavy {
		heavy[i] = 1
	}
	heavy[7] = 50
	return append(sets, heavy)
}

// TestScheduleBounds: counts are exact over a cycle, and in any row of turns as
// near to the share as schedule says.
func TestScheduleBounds(t *testing.T) {
	rand := seeded(21)
	for _, weights := range weightsLike(rand) {
		s := newSchedule(slots(fleet(weights...)), 1<<20, dice(rand(1<<31)))
		counts, unit := make([]int, len(weights)), int64(0)
		for _, w := range weights {
			unit = gcd(int64(w), unit)
		}
		for i, w := range weights {
			counts[i] = w / int(unit)
		}
		rowsOf(t, s.turns, counts)
	}
}

// rowsOf fails unless everyone comes as often in a cycle as counts say, and in
// all rows of turns as nearly so as schedule says.
func rowsOf(t *testing.T, turns []int32, counts []int) {
	t.Helper()
	different := map[int]bool{len(turns) - sumOf(counts): true} // those by chance
	for _, n := range counts {
		different[n] = true
	}
	delete(different, 0)
	for i, n := range counts {
		share, got := float64(n)/float64(len(turns)), 0
		for _, at := range turns {
			if int(at) == i {
				got++
			}
		}
		const rounding = 1e-6
		bound := 1 + share*float64(len(different)) + rounding
		if off := unevenness(turns, i, n); off > bound {
			t.Errorf("%v: endpoint %d is off its share by %.3f turns, bound %.3f", counts, i, off, bound)
		}
		if got != n {
			t.Errorf("%v: endpoint %d has %d turns", counts, i, got)
		}
	}
}

func sumOf(counts []int) (sum int) {
	for _, n := range counts {
		sum += n
	}
	return sum
}

// smooth is NGINX's smooth weighted round robin over one cycle.
func smooth(weights []int) []int32 {
	sum, current := sumOf(weights), make([]int, len(weights))
	turns := make([]int32, sum)
	for m := range turns {
		best := 0
		for i, w := range weights {
			if current[i] += w; current[i] > current[best] {
				best = i
			}
		}
		current[best] -= sum
		turns[m] = int32(best)
	}
	return turns
}

// TestScheduleIsSmooth: where there are more than a few endpoints, nobody's
// turns bunch as much as somebody's do in NGINX's order.
func TestScheduleIsSmooth(t *testing.T) {
	rand := seeded(27)
	for range 20 {
		weights := make([]int, 20+rand(40))
		for i := range weights {
			weights[i] = 1 + int(rand(10))
		}
		weights[0] = 1 // no common divisor
		var worst [2]float64
		s := newSchedule(slots(fleet(weights...)), 1<<20, dice(rand(1<<31)))
		for at, turns := range [][]int32{s.turns, smooth(weights)} {
			for i, w := range weights {
				worst[at] = max(worst[at], unevenness(turns, i, w))
			}
		}
		if worst[0] >= worst[1] {
			t.Errorf("%v: off by %.2f turns in a row, NGINX by %.2f", weights, worst[0], worst[1])
		}
	}
}

// unevenness returns by how many turns i, which has n in a cycle, is off its
// share in the row of turns that treats it worst or best.
func unevenness(turns []int32, i, n int) float64 {
	got, low, high := 0, 0.0, 0.0
	for m, at := range slices.Concat(turns, turns) {
		if int(at) == i {
			got++
		}
		off := float64(got) - float64(n)*float64(m+1)/float64(len(turns))
		low, high = min(low, off), max(high, off)
	}
	return high - low
}

// TestScheduleSpacing: of five, one and one, the two light ones never come one
// after the other, and the heavy one never waits for two.
func TestScheduleSpacing(t *testing.T) {
	seen := map[int32]bool{}
	for seed := range 50 {
		s := newSchedule(slots(fleet(5, 1, 1)), 1<<20, dice(seed))
		twice := slices.Concat(s.turns, s.turns)
		for i := range s.turns {
			if twice[i] != 0 && twice[i+1] != 0 {
				t.Fatalf("cycle %v", s.turns)
			}
		}
		seen[s.turns[slices.IndexFunc(s.turns, func(i int32) bool { return i > 0 })]] = true
	}
	if len(seen) != 2 {
		t.Error("the order of those that are due together is always the same")
	}
}

// TestScheduleByChance: weights whose sum is more than a cycle holds have what
// is whole of their share for themselves, and the rest in the mean.
func TestScheduleByChance(t *testing.T) {
	rand := seeded(22)
	for _, most := range []int{16, 100, 1000} {
		for _, weights := range [][]int{{65535, 1}, {65535, 65534, 65533}, {60000, 9, 8000, 1, 1, 1, 31234}, {1009, 2003, 4001, 8009}} {
			s := newSchedule(slots(fleet(weights...)), most, dice(rand(1<<31)))
			if len(s.turns) != most {
				t.Fatalf("%v: a cycle of %d turns, want %d", weights, len(s.turns), most)
			}
			sum := sumOf(weights)
			fixed := make([]int, len(weights))
			for _, i := range s.turns {
				if i != byChance {
					fixed[i]++
				}
			}
			got, share := make([]int, len(weights)), make([]float64, len(weights))
			for seq := range uint64(300 * most) {
				got[s.turn(seq, rand)]++
			}
			for i, w := range weights {
				share[i] = float64(w)
				if want := w * most / sum; fixed[i] != want {
					t.Errorf("%v in %d turns: endpoint %d has %d for itself, want %d", weights, most, i, fixed[i], want)
				}
				// At most len(weights) turns a cycle are by chance: their deviation
				// over 300 cycles is below sqrt(300 * len).
				want := float64(w) / float64(sum) * float64(300*most)
				if off := float64(got[i]) - want; off > 5*46 || off < -5*46 {
					t.Errorf("%v in %d turns: endpoint %d got %d of 300 cycles, want about %.0f", weights, most, i, got[i], want)
				}
			}
			rowsOf(t, s.turns, fixed)
		}
	}
}

// TestRoundRobinLightest: an endpoint whose share is far below one turn in a
// cycle gets it, no more and no less.
func TestRoundRobinLightest(t *testing.T) {
	rand := seeded(23)
	weights := make([]int, 2000)
	for i := range weights {
		weights[i] = 65535
		if i%2 == 0 {
			weights[i] = 655
		}
	}
	eps := fleet(weights...)
	k := policy(t, "round_robin", rand).Build(eps)
	light := 0
	const picks = 400000
	for i, n := range count(t, k, eps, picks, Request{Now: now}) {
		if i%2 == 0 {
			light += n
		}
	}
	if want := picks * 655 / (655 + 65535); light < want*9/10 || light > want*11/10 {
		t.Errorf("the light half got %d of %d picks, want about %d", light, picks, want)
	}
}

// TestRoundRobinOrders: sidecars with the same endpoints go round in different
// orders, from different starts.
func TestRoundRobinOrders(t *testing.T) {
	eps := equal(20)
	rand := seeded(24)
	first := make([]int, len(eps))
	orders := map[*Endpoint]map[*Endpoint]bool{}
	for range 2000 {
		k := policy(t, "round_robin", rand).Build(eps)
		a, _ := k.Pick(Request{Now: now})
		b, _ := k.Pick(Request{Now: now})
		first[slices.Index(eps, a)]++
		if orders[a] == nil {
			orders[a] = map[*Endpoint]bool{}
		}
		orders[a][b] = true
	}
	fits(t, "first picks", first, sharesOf(eps))
	for _, e := range eps {
		if len(orders[e]) < 15 {
			t.Errorf("after %s only %d of 19 others ever came", e.ID, len(orders[e]))
		}
	}
}

// TestRoundRobinRebuiltOften: the shares stay when no picker lives for a cycle.
func TestRoundRobinRebuiltOften(t *testing.T) {
	eps := fleet(8, 4, 2, 1, 1, 16)
	p := policy(t, "round_robin", seeded(25))
	got := make([]int, len(eps))
	for range 6000 {
		for i, n := range count(t, p.Build(eps), eps, 5, Request{Now: now}) {
			got[i] += n
		}
	}
	for i, e := range eps {
		if want := 30000 * e.Weight() / 32; got[i] < want*9/10 || got[i] > want*11/10 {
			t.Errorf("counts %v: endpoint %d got %d, want about %d", got, i, got[i], want)
		}
	}
}

// TestRoundRobinExplains: the endpoint that is 0 turns away comes next.
func TestRoundRobinExplains(t *testing.T) {
	eps := fleet(3, 2, 7, 1)
	k := policy(t, "round_robin", seeded(26)).Build(eps)
	for range 100 {
		x := k.Explain(Request{Now: now})
		e, _ := k.Pick(Request{Now: now})
		for _, c := range x.Candidates {
			if (c.Score == 0) != (c.Endpoint == e) {
				t.Fatalf("picked %s, explained %+v", e.ID, x)
			}
		}
	}
}
