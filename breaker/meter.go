package breaker

import (
	"sync/atomic"
	"time"
)

// meterSlots is how many seconds a Meter remembers, with room for the current
// one and for a reader that is late.
const meterSlots = 16

// Meter counts events by the second over the last 15. Safe for concurrent use;
// it never locks. Each slot packs the second (24 bits) over a count (40 bits),
// so that a slot's turnover is one compare-and-swap; an event that races with
// it by a whole turn of the ring is miscounted, which takes 16 s of delay.
type Meter struct{ slots [meterSlots]atomic.Uint64 }

const (
	meterCountBits = 40
	meterSecMask   = 1<<(64-meterCountBits) - 1
	meterCountMask = 1<<meterCountBits - 1
)

// Add counts one event at the time now.
func (m *Meter) Add(now time.Duration) {
	sec := uint64(now / time.Second)
	s := &m.slots[sec%meterSlots]
	for {
		w := s.Load()
		if w>>meterCountBits == sec&meterSecMask {
			s.Add(1)
			return
		}
		if s.CompareAndSwap(w, (sec&meterSecMask)<<meterCountBits|1) {
			return
		}
	}
}

// Sum returns the events of the current second and the seconds-1 before it.
func (m *Meter) Sum(now time.Duration, seconds int) uint64 {
	sec := uint64(now / time.Second)
	var sum uint64
	for back := range uint64(min(seconds, meterSlots-1)) {
		if back > sec {
			break
		}
		w := m.slots[(sec-back)%meterSlots].Load()
		if w>>meterCountBits == (sec-back)&meterSecMask {
			sum += w & meterCountMask
		}
	}
	return sum
}

// budgetSeconds is the window of the retry budget: linkerd2's ttl.
const budgetSeconds = 10

// Budget bounds retries to a share of requests plus a few a second, so that
// retries cannot multiply an outage. Safe for concurrent use.
type Budget struct {
	cfg      BudgetConfig
	requests *Meter
	retries  Meter
}

// NewBudget returns a budget over the requests that the meter counts.
func NewBudget(cfg BudgetConfig, requests *Meter) *Budget {
	return &Budget{cfg: cfg, requests: requests}
}

// Exhausted reports whether the budget has no retry left.
func (b *Budget) Exhausted(now time.Duration) bool {
	allowed := b.cfg.Ratio*float64(b.requests.Sum(now, budgetSeconds)) +
		float64(b.cfg.MinPerSecond)*budgetSeconds
	return float64(b.retries.Sum(now, budgetSeconds))+1 > allowed
}

// Spend counts one retry. Callers that saw room at the same moment may
// overshoot by their number less one.
func (b *Budget) Spend(now time.Duration) { b.retries.Add(now) }
