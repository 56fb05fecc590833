package picker

import (
	"math"
	"testing"
)

// TestAliasDraws: one random number is enough for column and place.
func TestAliasDraws(t *testing.T) {
	rand := seeded(42)
	for _, weights := range weightSets {
		s := slots(fleet(weights...))
		a := newAlias(s)
		got, share := make([]int, len(s)), make([]float64, len(s))
		for range 60000 {
			got[a.draw(rand)]++
		}
		for i := range s {
			share[i] = float64(s[i].w)
		}
		fits(t, "draws", got, share)
	}
	a := newAlias(slots(fleet(3, 5, 1)))
	for _, x := range []uint32{0, 1<<31 - 1} {
		if i := a.draw(func(uint32) uint32 { return x }); i < 0 || i > 2 {
			t.Errorf("the number %d draws index %d", x, i)
		}
	}
}

// TestHugeWeights: nothing overflows where a weight is beyond all measure.
func TestHugeWeights(t *testing.T) {
	for _, name := range Names() {
		eps := fleet(math.MaxInt64, math.MaxInt64, 1, 1<<40)
		for _, e := range eps {
			hold(e, 1<<20)
		}
		hold(eps[1], 1<<20)
		count(t, policy(t, name, seeded(43)).Build(eps), eps, 200, Request{Now: now})
		if name == "least_conn" {
			k := policy(t, name, seeded(44)).Build(eps)
			if e, _ := k.Pick(Request{Now: now}); e == eps[1] || e == eps[2] {
				t.Errorf("picked %s, which is not the least", e.ID)
			}
		}
	}
}
