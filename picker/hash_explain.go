package picker

import (
	"fmt"
	"math"
)

// Explain implements Picker. The endpoints come in the order in which the key
// meets them; the score is that order.
func (p *hashPicker) Explain(r Request) Explanation {
	if r.Key == 0 || len(p.slots) == 0 {
		x := p.lot.Explain(r)
		x.Rule = "no key, so: " + x.Rule
		return x
	}
	chosen, ok := p.Pick(r)
	x := Explanation{Rule: p.mode}
	bound, met, in := p.bound(), make([]bool, len(p.slots)), 0
	for i, n := p.ring.find(r.Key), 0; n < len(p.ring.points) && len(x.Candidates) < len(p.slots); n++ {
		if o := p.ring.owner(i); !met[o] {
			met[o] = true
			c := p.explain(&p.slots[o], bound, &r)
			c.Score = float64(len(x.Candidates))
			c.Terms = append(c.Terms, Term{"points_passed", float64(n)})
			if c.Endpoint == chosen {
				c.Share = 1
			}
			if c.Out == "" {
				in++
			}
			x.Candidates = append(x.Candidates, c)
		}
		i = p.ring.next(i)
	}
	if ok && in == 0 {
		x.leastLoaded(&r)
	}
	return x
}

func (p *hashPicker) explain(s *slot, bound loadBound, r *Request) Candidate {
	n := float64(s.ep.InFlight())
	c := Candidate{Endpoint: s.ep, Out: r.whyNot(s.ep)}
	c.Terms = []Term{{"in_flight", n}, {"weight", float64(s.w)}, {"bound", Absent}}
	if bound.perWeight > 0 {
		most := math.Ceil(bound.of(s, r.Now))
		c.Terms[2].Value = most
		if c.Out == "" && !bound.admits(s, r.Now) {
			c.Out = fmt.Sprintf("at its bound of %.0f: its keys spill over", most)
		}
	}
	return c
}

// leastLoaded turns x into what it is when those below their bounds have no room
// or were tried.
func (x *Explanation) leastLoaded(r *Request) {
	x.Rule += "; all others are at their bounds, so: least in-flight per weight"
	for i := range x.Candidates {
		c := &x.Candidates[i]
		c.Out = r.whyNot(c.Endpoint)
		c.Score = c.Terms[0].Value / c.Terms[1].Value
	}
}
