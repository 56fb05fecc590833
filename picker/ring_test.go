package picker

import (
	"fmt"
	"math"
	"slices"
	"testing"
)

// ringOf returns the ring of the endpoints and its slots, in their order.
func ringOf(perWeight int, eps ...*Endpoint) (ring, []slot) {
	s := new(hashSets).of(eps, perWeight)
	return s.ring, s.slots
}

// owners returns the IDs that n keys belong to.
func owners(n int, perWeight int, eps ...*Endpoint) []string {
	r, s := ringOf(perWeight, eps...)
	ids := make([]string, n)
	for k := range ids {
		ids[k] = s[r.owner(r.find(uint64(k+1)))].ep.ID
	}
	return ids
}

// The hashes are part of the contract: sidecars of different versions must agree.
func TestHashIsStable(t *testing.T) {
	for text, want := range map[string]uint64{
		"": mix(0xcbf29ce484222325), "a": mix(0xaf63dc4c8601ec8c), "foobar": mix(0x85944171f73967e8), // of the FNV's own table
	} {
		if got := Hash(text); got != want {
			t.Errorf("hash of %q is %#x, want %#x", text, got, want)
		}
		if got := NewDigest().Bytes([]byte(text)).Sum(); got != want {
			t.Errorf("digest of %q is %#x, want %#x", text, got, want)
		}
	}
	// The first output of splitmix64 with seed 0.
	if got := mix(0x9e3779b97f4a7c15); got != 0xe220a8397b1dcdaf {
		t.Errorf("mix gives %#x", got)
	}
	if Digest(0).Sum() == 0 {
		t.Error("a hash of 0 reads as no key")
	}
	eps := fleet(1, 2, 3)
	if got, want := owners(12, 64, eps...), []string{"n/2", "n/2", "n/0", "n/1", "n/2", "n/1", "n/1", "n/1", "n/2", "n/1", "n/1", "n/2"}; !slices.Equal(got, want) {
		t.Errorf("keys 1 to 12 belong to %q, once they belonged to %q", got, want)
	}
}

// TestFind holds the buckets against a search of all points.
func TestFind(t *testing.T) {
	rand := seeded(1)
	for _, n := range []int{1, 2, 3, 50, 1000} {
		for _, perWeight := range []int{1, 3, 64} {
			r, _ := ringOf(perWeight, equal(n)...)
			if !slices.IsSorted(r.points) || len(r.points) != n*perWeight {
				t.Fatalf("%d endpoints: %d points, sorted %v", n, len(r.points), slices.IsSorted(r.points))
			}
			for range 500 {
				key := uint64(rand(1<<32-1))<<32 | uint64(rand(1<<32-1))
				want, _ := slices.BinarySearch(r.points, mix(key)&^ownerMask)
				if got := r.find(key); got != want%len(r.points) {
					t.Fatalf("%d endpoints: key %d at point %d, want %d of %d", n, key, got, want, len(r.points))
				}
			}
		}
	}
}

func TestRingOrderDoesNotMatter(t *testing.T) {
	eps := fleet(1, 5, 2, 9, 1, 1, 30, 4)
	want := owners(20000, 64, eps...)
	for turn := range eps {
		set := slices.Concat(eps[turn:], eps[:turn])
		slices.Reverse(set[turn/2:])
		if got := owners(20000, 64, set...); !slices.Equal(got, want) {
			t.Fatalf("turned by %d, keys belong to others", turn)
		}
	}
}

// TestMinimalMovement is exact: a change moves keys to or from the endpoint that
// has changed and no others.
func TestMinimalMovement(t *testing.T) {
	const n = 50000
	for _, size := range []int{1, 2, 5, 40} {
		eps := fleet(make([]int, size)...)
		for i, e := range eps {
			e.SetWeight(1 + i*7%5)
		}
		was := owners(n, 64, eps...)
		newcomer := NewEndpoint("m/9", "127.0.0.1:9", 2, 0, nil)
		moves(t, "joining", was, owners(n, 64, append(slices.Clone(eps), newcomer)...), "m/9", true, 2, eps)
		for i, e := range eps {
			if size > 1 {
				rest := slices.Delete(slices.Clone(eps), i, i+1)
				moves(t, "leaving", was, owners(n, 64, rest...), e.ID, false, e.Weight(), rest)
			}
			before := e.Weight()
			e.SetWeight(before + 3)
			if size > 1 {
				moves(t, "growing", was, owners(n, 64, eps...), e.ID, true, 0, nil)
			}
			if e.SetWeight(before - 1); size > 1 && before > 1 {
				moves(t, "shrinking", was, owners(n, 64, eps...), e.ID, false, 0, nil)
			}
			e.SetWeight(before)
		}
	}
}

// moves fails unless every key that moved did so to (or, with to false, from)
// the endpoint with the ID, and about as many as its weight among the others
// asks for.
func moves(t *testing.T, what string, was, is []string, id string, to bool, weight int, others []*Endpoint) {
	t.Helper()
	moved := 0
	for k := range was {
		if was[k] == is[k] {
			continue
		}
		moved++
		if to && is[k] != id || !to && was[k] != id {
			t.Fatalf("%s of %s moved key %d from %s to %s", what, id, k, was[k], is[k])
		}
	}
	if moved == 0 {
		t.Errorf("%s of %s moved nothing", what, id)
	}
	if others == nil {
		return
	}
	all := weight
	for _, e := range others {
		all += e.Weight()
	}
	if share, got := float64(weight)/float64(all), float64(moved)/float64(len(was)); math.Abs(got-share) > share/2 {
		t.Errorf("%s of %s moved %.3f of all keys, its share is %.3f", what, id, got, share)
	}
}

// Shares follow the weights within what the number of points lets expect: one
// sigma is 1/sqrt(points of the endpoint).
func TestRingShares(t *testing.T) {
	for _, weights := range [][]int{{1, 1}, {1, 1, 1, 1, 1, 1, 1, 1, 1, 1}, {1, 2, 4, 8}, {100, 100, 1}} {
		eps, sum := fleet(weights...), 0
		for _, w := range weights {
			sum += w
		}
		const n = 100000
		got := map[string]int{}
		for _, id := range owners(n, 64, eps...) {
			got[id]++
		}
		for _, e := range eps {
			share, sigma := float64(e.Weight())/float64(sum), 1/math.Sqrt(64*float64(e.Weight()))
			if is := float64(got[e.ID]) / n; math.Abs(is-share) > 4*sigma*share {
				t.Errorf("weights %v: %s of weight %d has a share of %.4f, want %.4f give or take %.4f", weights, e.ID, e.Weight(), is, share, 4*sigma*share)
			}
		}
	}
}

// However large weights are, there are no more points than memory is meant for,
// and shares stay in proportion.
func TestRingIsBounded(t *testing.T) {
	for _, weights := range [][]int{{65535, 65535, 32768}, {1 << 40, 1 << 39, 1 << 40}, {math.MaxInt, 1, 1}} {
		r, s := ringOf(1000, fleet(weights...)...)
		if len(r.points) > maxPoints || len(r.points) < maxPoints/4 {
			t.Errorf("weights %v make %d points", weights, len(r.points))
		}
		of := make([]int, len(s))
		for i := range r.points {
			of[r.owner(i)]++
		}
		if of[0] < 1 || of[1] < 1 || of[2] < 1 {
			t.Errorf("weights %v: points %v", weights, of)
		}
		if ratio := float64(of[0]) / float64(of[1]); weights[1] > 1 && math.Abs(ratio-float64(min(weights[0], 1<<32))/float64(min(weights[1], 1<<32))) > 0.01 {
			t.Errorf("weights %v: points %v", weights, of)
		}
	}
}

// Crossing the bound takes points from the ends of everyone's lists: no key
// moves to an endpoint that had no point behind it before.
func TestScaledRingKeepsThePointsItHas(t *testing.T) {
	eps := fleet(3000, 2000, 1000)
	small, s := ringOf(64, eps...)
	eps[0].SetWeight(60000)
	large, _ := ringOf(64, eps...)
	if small.scale != 0 || large.scale == 0 {
		t.Fatalf("scales %d and %d", small.scale, large.scale)
	}
	for i := range large.points {
		if o := large.owner(i); o > 0 {
			if _, ok := slices.BinarySearch(small.points, large.points[i]); !ok {
				t.Fatalf("a point of %s is new", s[o].ep.ID)
			}
		}
	}
}

func BenchmarkRing(b *testing.B) {
	for _, n := range []int{100, 10000} {
		eps := equal(n)
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				ringOf(64, eps...)
			}
		})
	}
}
