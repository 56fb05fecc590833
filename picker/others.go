package picker

import (
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
	return stamped(l.Others(), max(1, stampOf(l.At)))
}

// Others returns what others than this sidecar had in flight, by a report that
// tells InFlight.
func (l *Load) Others() float64 { return max(0, l.InFlight-max(0, l.OwnInFlight)) }

// othersOf returns the figure and its age in milliseconds; ok is false if there
// is none.
func othersOf(word uint64, now time.Duration) (n, age float32, ok bool) {
	if word == 0 {
		return 0, 0, false
	}
	return float32(stampedValue(word)), float32(since(now, uint32(word))), true
}
