package picker

import (
	"math"
	"sync/atomic"
	"time"
)

// latencyMemory is the time constant of the latency average: a sample weighs
// 1/e of a new one after it. 10 s is linkerd2-proxy's PeakEWMA decay.
const latencyMemory = 10 * time.Second

// EWMA is an exponentially weighted moving average by time, not by count: the
// old mean weighs exp(-dt/latencyMemory) against a new sample. Samples that
// come within one memory of the first are averaged evenly enough by the floor
// on the new sample's weight.
//
// Value (float32 milliseconds) and time of the last sample (uint32
// milliseconds, wrapping after 49 days) share one word, so that an update is
// one compare-and-swap. One that loses a race is dropped: it is a statistic.
type EWMA struct{ word atomic.Uint64 }

// minSampleWeight bounds from below what a sample adds, so that a stream of
// requests microseconds apart still moves the average (1/64: about the last
// hundred samples when they come faster than the memory).
const minSampleWeight = 1.0 / 64

// Observe takes a sample. Any goroutine may call it.
func (m *EWMA) Observe(now time.Duration, sample time.Duration) {
	old := m.word.Load()
	x := float64(sample) / float64(time.Millisecond)
	if old != 0 {
		mean := stampedValue(old)
		// Requests that end together may come in either order: an earlier stamp
		// is of the same moment, not of 49 days later.
		dt := time.Duration(since(now, uint32(old))) * time.Millisecond
		w := max(minSampleWeight, 1-math.Exp(-float64(dt)/float64(latencyMemory)))
		x = mean + w*(x-mean)
	}
	// A mean of exactly 0 at stamp 0 would read as "no sample".
	m.word.CompareAndSwap(old, stamped(max(x, 1e-6), stampOf(now)))
}

// Value returns the average, 0 if there was no sample.
func (m *EWMA) Value() time.Duration {
	return time.Duration(stampedValue(m.word.Load()) * float64(time.Millisecond))
}
