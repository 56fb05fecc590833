package picker

import (
	"math"
	"sync/atomic"
	"time"
)

// latencyMemory is the time constant of the latency average: a sample weighs
// 1/e of a new one after it. 10 s is linkerd2-proxy's PeakEWMA decay.
const latencyMemory = 10 * time.Second

// ewma is an exponentially weighted moving average by time, not by count: the
// old mean weighs exp(-dt/latencyMemory) against a new sample. Samples that
// come within one memory of the first are averaged evenly enough by the floor
// on the new sample's weight.
//
// Value (float32 milliseconds) and time of the last sample (uint32
// milliseconds, wrapping after 49 days) share one word, so that an update is
// one compare-and-swap. One that loses a race is dropped: it is a statistic.
type ewma struct{ word atomic.Uint64 }

// minSampleWeight bounds from below what a sample adds, so that a stream of
// requests microseconds apart still moves the average (1/64: about the last
// hundred samples when they come faster than the memory).
const minSampleWeight = 1.0 / 64

func (m *ewma) observe(now time.Duration, sample time.Duration) {
	old := m.word.Load()
	stamp := uint32(now / time.Millisecond)
	x := float64(sample) / float64(time.Millisecond)
	if old != 0 {
		mean := float64(math.Float32frombits(uint32(old >> 32)))
		// Requests that end together may come in either order: an earlier stamp
		// is of the same moment, not of 49 days later.
		dt := time.Duration(max(0, int32(stamp-uint32(old)))) * time.Millisecond
		w := max(minSampleWeight, 1-math.Exp(-float64(dt)/float64(latencyMemory)))
		x = mean + w*(x-mean)
	}
	// A mean of exactly 0 at stamp 0 would read as "no sample".
	bits := uint64(math.Float32bits(float32(max(x, 1e-6))))
	m.word.CompareAndSwap(old, bits<<32|uint64(stamp))
}

func (m *ewma) value() time.Duration {
	w := m.word.Load()
	return time.Duration(float64(math.Float32frombits(uint32(w>>32))) * float64(time.Millisecond))
}
