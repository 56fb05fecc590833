package picker

import "math/bits"

// slot is an endpoint with the weight it had when the picker was built, side
// by side so that a scan reads memory in order.
type slot struct {
	ep *Endpoint
	w  int64 // 1 to maxWeight
}

// maxWeight keeps a weight times what an endpoint may have in flight within an
// int64. Consul's are up to 65535.
const maxWeight = 1<<31 - 1

// slots copies what can be picked: endpoints with a weight above 0. During a
// slow start all weights are a hundredfold and some less than that (ramp.go).
func slots(ready []*Endpoint) []slot {
	out := make([]slot, 0, len(ready))
	scale := rampScale(ready)
	for _, e := range ready {
		if w := min(e.weight.Load(), maxWeight); w > 0 {
			out = append(out, slot{e, min(e.ramped(w, scale), maxWeight)})
		}
	}
	return out
}

// lighter reports whether a, with na requests in flight, is less loaded than b
// with nb: na/wa < nb/wb without a division. Never (n+1)/w: that sends every
// sparse client to the largest endpoint (PICKING.md).
func lighter(na, wa, nb, wb int64) bool { return na*wb < nb*wa }

// scanFree is the way out when a policy's own choice has no room: the endpoint
// with the lowest in-flight per weight among all that take the request, ties
// drawn in proportion to weight. O(n), so only under pressure.
func scanFree(s []slot, r *Request, rand Rand) (*Endpoint, bool) {
	return scanUnless(nil, s, r, rand)
}

// scanUnless is scanFree without the endpoints that the veto, if any, holds of.
func scanUnless(veto func(*Endpoint) bool, s []slot, r *Request, rand Rand) (*Endpoint, bool) {
	var best *slot
	var bestN, ties int64
	var d dice
	for i := range s {
		c := &s[i]
		n := c.ep.inFlight.Load()
		if best != nil && lighter(bestN, best.w, n, c.w) {
			continue
		}
		if !r.takes(c.ep) || veto != nil && veto(c.ep) {
			continue
		}
		if best == nil || lighter(n, c.w, bestN, best.w) {
			best, bestN, ties = c, n, c.w
			continue
		}
		if d == 0 {
			d = 1 + dice(rand(1<<31))
		}
		ties += c.w
		if d.below(ties) < c.w {
			best, bestN = c, n
		}
	}
	if best == nil {
		return nil, false
	}
	return best.ep, true
}

// below returns a number from 0 to n-1; n is at least 1.
func (d *dice) below(n int64) int64 {
	x, _ := bits.Mul64(d.next(), uint64(n))
	return int64(x)
}

// alias draws an index with probability proportional to its weight in O(1):
// Vose, "A linear algorithm for generating random numbers with a given
// distribution", IEEE TSE 17(9), 1991.
type alias struct {
	keep  []uint32 // of 2^31: below it the column keeps its own index
	other []uint32
}

func newAlias(s []slot) alias {
	weights := make([]float64, len(s))
	for i, x := range s {
		weights[i] = float64(x.w)
	}
	return newAliasOf(weights)
}

// newAliasOf returns one for weights that are at least 0 and not all 0. It
// overwrites them.
func newAliasOf(p []float64) alias {
	n := len(p)
	a := alias{make([]uint32, n), make([]uint32, n)}
	var sum float64
	for _, x := range p {
		sum += x
	}
	small, large := make([]int, 0, n), make([]int, 0, n)
	for i, x := range p {
		p[i] = x * float64(n) / sum
		if p[i] < 1 {
			small = append(small, i)
		} else {
			large = append(large, i)
		}
	}
	for len(small) > 0 && len(large) > 0 {
		l, g := small[len(small)-1], large[len(large)-1]
		small = small[:len(small)-1]
		a.keep[l], a.other[l] = uint32(p[l]*(1<<31)), uint32(g)
		p[g] -= 1 - p[l]
		if p[g] < 1 {
			large = large[:len(large)-1]
			small = append(small, g)
		}
	}
	// What is left is 1 but for rounding.
	for _, i := range append(small, large...) {
		a.keep[i], a.other[i] = 1<<31, uint32(i)
	}
	return a
}

// draw takes one random number for both column and place in it: an index's
// probability is off by at most 2^-31 for each column that holds it.
func (a *alias) draw(rand Rand) int {
	x := uint64(rand(1<<31)) * uint64(len(a.keep))
	i := x >> 31
	if uint32(x)&(1<<31-1) < a.keep[i] {
		return int(i)
	}
	return int(a.other[i])
}
