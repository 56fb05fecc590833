package picker

import (
	"math"
	"time"
)

// What others had in flight at an endpoint when its newest report was sampled:
// float32 requests over the time of the sample in milliseconds (uint32,
// wrapping after 49 days), in one word so that a pick reads both at once. 0: no
// report tells.

// packOthers returns the word of a report.
func packOthers(l *Load) uint64 {
	if l.InFlight < 0 {
		return 0
	}
	n := math.Float32bits(float32(othersAt(l)))
	return uint64(n)<<32 | uint64(max(1, uint32(l.At/time.Millisecond)))
}

// othersAt returns what others had in flight by a report that tells.
func othersAt(l *Load) float64 { return max(0, l.InFlight-max(0, l.OwnInFlight)) }

// othersOf returns the figure and its age in milliseconds; ok is false if there
// is none.
func othersOf(word uint64, now time.Duration) (n, age float32, ok bool) {
	if word == 0 {
		return 0, 0, false
	}
	n = math.Float32frombits(uint32(word >> 32))
	return n, float32(since(now, uint32(word))), true
}
