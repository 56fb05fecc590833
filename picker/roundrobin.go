package picker

import (
	"sync/atomic"
	"time"
)

// roundRobin goes round the endpoints so that each is taken in proportion to
// its weight and as evenly spaced as may be.
//
// All the turns of a cycle are laid out beforehand (see schedule); a pick is a
// step of one shared counter, whatever the weights. NGINX's smooth weighted
// round robin goes over all endpoints for each pick, and gRPC's static stride
// scheduler (gRFC A58) skips all but the heavy: 10,000 for one pick if one is.
type roundRobin struct{ rand Rand }

func (roundRobin) Name() string { return "round_robin" }

// Build draws the order of turns that are due together and where to begin, so
// that neither a fleet of sidecars goes round in lockstep nor one that
// rebuilds often favours anybody (haproxy #1393): the first pick, and so every
// later one, is each endpoint's with the probability of its share.
func (p roundRobin) Build(ready []*Endpoint) Picker {
	k := &roundRobinPicker{slots: slots(ready), rand: p.rand}
	if n := len(k.slots); n > 0 {
		k.schedule = newSchedule(k.slots, max(turnsEach*n, minTurns), dice(p.rand(1<<31)))
		k.seq.Store(uint64(p.rand(uint32(len(k.turns)))))
	}
	return k
}

type roundRobinPicker struct {
	slots []slot
	schedule
	rand Rand
	_    [64]byte // the counter is written by every pick, the rest only read
	seq  atomic.Uint64
	_    [64]byte
}

func (p *roundRobinPicker) Pick(r Request) (*Endpoint, bool) {
	if len(p.slots) == 0 {
		return nil, false
	}
	// The turn of one that has no room goes to the next, who has its own after.
	for range refusals {
		if e := p.slots[p.turn(p.seq.Add(1)-1, p.rand)].ep; r.takes(e) {
			return e, true
		}
	}
	return scanFree(p.slots, &r, p.rand)
}

// refusals is how often a policy that does not look for room hits an endpoint
// without before all are scanned. While half of them have room that is once in
// 65,000 picks.
const refusals = 16

func (*roundRobinPicker) Mode(time.Duration) string { return "weighted round robin" }

// Explain implements Picker. The score is how many turns away an endpoint's
// next one is; those that are left to chance have none.
func (p *roundRobinPicker) Explain(r Request) Explanation {
	x := explain("next turn of the cycle; shares by weight", p.slots, &r, byWeight(p.slots))
	if len(p.slots) == 0 {
		return x
	}
	next, fixed := make([]int, len(p.slots)), make([]int, len(p.slots))
	at, length := p.seq.Load(), len(p.turns)
	for i := range next {
		next[i] = length
	}
	for ahead := length - 1; ahead >= 0; ahead-- {
		if i := p.turns[(at+uint64(ahead))%uint64(length)]; i != byChance {
			next[i] = ahead
			fixed[i]++
		}
	}
	for i := range x.Candidates {
		c := &x.Candidates[i]
		c.Score = float64(next[i])
		c.Terms = append(c.Terms, Term{"turns_away", float64(next[i])},
			Term{"turns", float64(fixed[i])}, Term{"cycle", float64(length)})
	}
	return x
}
