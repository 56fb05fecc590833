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

// redraws is how often a draw that hits an endpoint without room is repeated
// before all are scanned: a few keep the distribution when little is full.
const redraws = 3

func (p *randomPicker) Pick(r Request) (*Endpoint, bool) {
	if len(p.slots) == 0 {
		return nil, false
	}
	for range redraws {
		if e := p.slots[p.alias.draw(p.rand)].ep; r.takes(e) {
			return e, true
		}
	}
	return scanFree(p.slots, &r, p.rand)
}

func (*randomPicker) Mode(time.Duration) string { return "weighted random" }

// Explain implements Picker.
func (p *randomPicker) Explain(r Request) Explanation {
	return explain(p.Mode(r.Now), p.slots, &r, byWeight(p.slots))
}
