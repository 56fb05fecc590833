package picker

import "time"

// p2c draws two different endpoints in proportion to weight and takes the one
// with the lower in-flight per weight (Mitzenmacher, "The power of two choices
// in randomized load balancing", IEEE TPDS 12(10), 2001).
type p2c struct{ rand Rand }

func (p2c) Name() string { return "p2c" }

func (p p2c) Build(ready []*Endpoint) Picker {
	s := slots(ready)
	return &p2cPicker{s, newAlias(s), p.rand}
}

type p2cPicker struct {
	slots []slot
	alias alias
	rand  Rand
}

func (p *p2cPicker) Pick(r Request) (*Endpoint, bool) {
	if len(p.slots) == 0 {
		return nil, false
	}
	for range refusals / 2 {
		a, b := p.pair()
		x, y := &p.slots[a], &p.slots[b]
		if lighter(y.ep.inFlight.Load(), y.w, x.ep.inFlight.Load(), x.w) {
			x, y = y, x
		}
		if r.takes(x.ep) {
			return x.ep, true
		}
		if r.takes(y.ep) {
			return y.ep, true
		}
	}
	return scanFree(p.slots, &r, p.rand)
}

// redraws is how often a draw is repeated that is not to be used.
const redraws = 3

// pair draws two indices, different whenever there are two (sampling the same
// host twice is a known mistake: envoy #11004). The second is redrawn a few
// times to keep its distribution, then taken uniformly from the others.
func (p *p2cPicker) pair() (int, int) {
	a := p.alias.draw(p.rand)
	n := len(p.slots)
	if n == 1 {
		return a, a
	}
	for range redraws {
		if b := p.alias.draw(p.rand); b != a {
			return a, b
		}
	}
	return a, (a + 1 + int(p.rand(uint32(n-1)))) % n
}

func (*p2cPicker) Mode(time.Duration) string { return "weighted two choices" }

// Explain implements Picker.
func (p *p2cPicker) Explain(r Request) Explanation {
	return explain("lower in-flight per weight of two drawn by weight", p.slots, &r, byWeight(p.slots))
}
