package picker

import (
	"math"
	"time"
)

// What is learnt of an endpoint is kept as a float32 over 32 bits of time in one
// word, so that both are read and written in one step.

// stamped returns such a word.
func stamped(v float64, stamp uint32) uint64 {
	return uint64(math.Float32bits(float32(v)))<<32 | uint64(stamp)
}

// stampedValue returns the figure of a word.
func stampedValue(word uint64) float64 { return float64(math.Float32frombits(uint32(word >> 32))) }

// stampOf is a time in milliseconds, which wraps after 49 days.
func stampOf(now time.Duration) uint32 { return uint32(now / time.Millisecond) }

// since returns the milliseconds from a stamp until now, 0 for one that is up to
// a minute ahead: clocks are read before words are.
func since(now time.Duration, stamp uint32) uint32 {
	ms := stampOf(now) - stamp
	if ms > math.MaxUint32-60_000 {
		return 0
	}
	return ms
}
