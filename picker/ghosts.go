package picker

import (
	"sync/atomic"
	"time"
)

// ghostLife is how long a request counts as in flight from when it was sent,
// even if it has failed: whoever fails fast must not look idle (PICKING.md).
const ghostLife = time.Second

// ghosts counts failed requests that still count as in flight. The zero value
// is none; room for counting is made at the first failure.
type ghosts struct {
	until atomic.Int64 // when the last one goes; the quick way out
	ring  atomic.Pointer[[ghostSlots]atomic.Uint64]
}

// A slot collects the ghosts that go in the same ghostStep: the step's number
// (40 bits) over their count (24 bits). There are more slots than steps in
// ghostLife, so a slot that is needed again has expired.
const (
	ghostSlots = 32
	ghostStep  = 64 * time.Millisecond
	ghostBits  = 24
	ghostMask  = 1<<ghostBits - 1
)

// add counts a request that was sent age ago and has failed now.
func (g *ghosts) add(now, age time.Duration) {
	end := now + ghostLife - age
	if end <= now {
		return
	}
	ring := g.ring.Load()
	if ring == nil {
		g.ring.CompareAndSwap(nil, new([ghostSlots]atomic.Uint64))
		ring = g.ring.Load()
	}
	step := uint64(end / ghostStep)
	s := &ring[step%ghostSlots]
	for {
		old := s.Load()
		next := step<<ghostBits | 1
		if old>>ghostBits == step {
			next = old + 1
		}
		if s.CompareAndSwap(old, next) {
			break
		}
	}
	for {
		u := g.until.Load()
		if int64(end) <= u || g.until.CompareAndSwap(u, int64(end)) {
			return
		}
	}
}

// count returns how many there are now.
func (g *ghosts) count(now time.Duration) int64 {
	if int64(now) >= g.until.Load() {
		return 0
	}
	ring := g.ring.Load()
	if ring == nil {
		return 0
	}
	step := uint64(now / ghostStep)
	var n uint64
	for i := range ring {
		if w := ring[i].Load(); w>>ghostBits >= step {
			n += w & ghostMask
		}
	}
	return int64(n)
}
