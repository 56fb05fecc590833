package picker

import "time"

// randomPolicy draws endpoints in proportion to their weight.
type randomPolicy struct{ rand Rand }

func (randomPolicy) Name() string { return "random" }

func (p randomPolicy) Build(ready []*Endpoint) Picker {
	s := slots(ready)
	return &randomPicker{s, newAlias(s), p.rand}
}

type randomPicker struct {
	slots []slot
	alias alias
	rand  Rand
}

func (p *randomPicker) Pick(r Request) (*Endpoint, bool) {
	if len(p.slots) == 0 {
		return nil, false
	}
	// A few redraws keep the distribution when little is full.
	for range refusals {
		if e := p.slots[p.alias.draw(p.rand)].ep; r.takes(e) {
			return e, true
		}
	}
	return scanFree(p.slots, &r, p.rand)
}

func (*randomPicker) Mode(time.Duration) string { return "weighted random" }

// Explain implements Picker.
func (p *randomPicker) Explain(r Request) Explanation {
	x := explain("drawn by weight", p.slots, &r, byWeight(p.slots))
	for i := range x.Candidates {
		x.Candidates[i].Score = 0 // nothing is compared
	}
	return x
}
