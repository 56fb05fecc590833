package picker

import (
	"math"
	"sync/atomic"
	"time"
)

// mind is what policies have learnt of an endpoint from requests. It is kept
// beside the endpoint, so that it survives every rebuild and reload.
type mind struct {
	pace     pace
	failures failures
	place    atomic.Int32 // in the newest resource picker
	peak     peak         // of peak_ewma
}

// pace is the mean time that an endpoint takes for a request on its own, on a
// whole core: its latency divided by the congestion it was under (PICKING.md's
// x), and less where it has less than a core (not in PICKING.md). Samples
// count half after paceHalf, and all of them together as paceMost at most.
//
// One word: the mean in milliseconds (float32), the samples' count (14 bits, in
// 1/256) and the time (18 bits, in half seconds, wrapping after 36 hours). An update
// that loses a race is dropped: it is a statistic.
type pace struct{ word atomic.Uint64 }

const (
	paceHalf  = 20 * time.Second
	paceMost  = 50
	paceUnit  = 256
	paceStep  = 500 * time.Millisecond
	paceAhead = 16 // steps that a stamp may be ahead of a clock read before it
	paceClock = 1<<18 - 1
)

// get returns the mean, in milliseconds, and how many samples it counts as now.
func (p *pace) get(now time.Duration) (mean, count float64) {
	w := p.word.Load()
	if w == 0 {
		return 0, 0
	}
	steps := (uint32(now/paceStep) - uint32(w)) & paceClock
	if steps > paceClock-paceAhead {
		steps = 0
	}
	count = float64(uint32(w)>>18) / paceUnit
	count *= math.Exp2(-float64(steps) * float64(paceStep) / float64(paceHalf))
	return stampedValue(w), count
}

func (p *pace) observe(now time.Duration, ms float64) {
	old := p.word.Load()
	mean, count := p.get(now)
	count = min(count+1, paceMost)
	mean += (ms - mean) / count
	low := uint32(count*paceUnit)<<18 | uint32(now/paceStep)&paceClock
	p.word.CompareAndSwap(old, stamped(mean, low))
}

// failures is the share of an endpoint's requests that failed lately, 0 to 1.
// It sinks by itself, so that an endpoint that gets nothing recovers.
//
// One word: the share (float32) over the time in milliseconds (uint32).
type failures struct{ word atomic.Uint64 }

const (
	failMemory = 5 * time.Second // PICKING.md
	// failLeast and failMost bound what one request changes: of many a second
	// each still counts, and one alone is no verdict.
	failLeast = 1.0 / 32
	failMost  = 1.0 / 4
)

func (f *failures) get(now time.Duration) float64 {
	w := f.word.Load()
	if w == 0 {
		return 0
	}
	return stampedValue(w) * math.Exp(-failAge(w, now))
}

// failAge is the age of the word in units of failMemory.
func failAge(w uint64, now time.Duration) float64 {
	ms := since(now, uint32(w))
	return float64(ms) * float64(time.Millisecond) / float64(failMemory)
}

func (f *failures) observe(now time.Duration, failed bool) {
	old := f.word.Load()
	if old == 0 && !failed {
		return
	}
	share, weight := 0.0, failMost
	if old != 0 {
		kept := math.Exp(-failAge(old, now))
		weight = min(failMost, max(failLeast, 1-kept))
		share = stampedValue(old) * min(kept, 1-weight)
	}
	if failed {
		share += weight
	}
	var next uint64
	if share > 1e-4 {
		next = stamped(share, stampOf(now))
	}
	f.word.CompareAndSwap(old, next)
}

func (f *failures) forget() { f.word.Store(0) }
