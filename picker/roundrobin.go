package picker

import (
	"sync/atomic"
	"time"
)

// roundRobin goes round the endpoints so that each is taken in proportion to
// its weight and as evenly spaced as may be.
//
// It is gRPC's static stride scheduler (gRFC A58): one shared counter, no lock.
// Position seq visits endpoint seq mod n for the (seq div n)th time; an
// endpoint of weight w (scaled so that the largest is 65535) is skipped on all
// but w/65535 of its visits, evenly spread.
type roundRobin struct{ rand Rand }

func (roundRobin) Name() string { return "round_robin" }

const strideMax = 1<<16 - 1

func (p roundRobin) Build(ready []*Endpoint) Picker {
	s := slots(ready)
	var top int64 = 1
	for _, x := range s {
		top = max(top, x.w)
	}
	rr := &roundRobinPicker{slots: s, scaled: make([]uint64, len(s)), rand: p.rand}
	for i, x := range s {
		rr.scaled[i] = uint64(max(1, x.w*strideMax/top))
	}
	// A random start keeps a fleet of sidecars, or one that rebuilds often,
	// from all hitting the first endpoint (haproxy #1393). The round is drawn
	// too: in the first rounds light endpoints are skipped.
	if n := uint64(len(s)); n > 0 {
		rr.seq.Store(uint64(p.rand(strideMax))*n + uint64(p.rand(uint32(n))))
	}
	return rr
}

type roundRobinPicker struct {
	slots  []slot
	scaled []uint64
	rand   Rand
	_      [64]byte // the counter is written by every pick, the rest only read
	seq    atomic.Uint64
}

func (p *roundRobinPicker) Pick(r Request) (*Endpoint, bool) {
	n := uint64(len(p.slots))
	if n == 0 {
		return nil, false
	}
	for refused := 0; refused < redraws; {
		seq := p.seq.Add(1) - 1
		i, round := seq%n, seq/n
		w := p.scaled[i]
		// The offset staggers neighbours of equal weight.
		if (w*round+i*(strideMax/2))%strideMax < strideMax-w {
			continue
		}
		if e := p.slots[i].ep; r.takes(e) {
			return e, true
		}
		refused++
	}
	return scanFree(p.slots, &r, p.rand)
}

func (*roundRobinPicker) Mode(time.Duration) string { return "weighted round robin" }

// Explain implements Picker.
func (p *roundRobinPicker) Explain(r Request) Explanation {
	return explain(p.Mode(r.Now), p.slots, &r, byWeight(p.slots))
}
