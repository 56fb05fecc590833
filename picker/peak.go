package picker

import (
	"math"
	"sync/atomic"
	"time"
)

// peak is finagle's peak-sensitive moving average of an endpoint's response
// time: a sample above it replaces it, and it is forgotten by time. finagle
// forgets whenever it reads, which it does before nearly every sample, so that
// one below the average has no weight of its own: the average is the highest of
// all samples, each taken times exp(-age/decay). Nothing has to be written for
// that but a new highest.
//
// One word: the highest in milliseconds (float32) over its time in milliseconds
// (uint32, wrapping after 49 days). Without a sample the first is unsampled and
// the time that from which Unknown sinks, as tower's default does: an endpoint
// that seems slower than all others is still tried some day.
type peak struct{ word atomic.Uint64 }

// unsampled stands for the average of an endpoint that no sample came from.
const unsampled = -1

// sampled reports whether a sample is behind the word.
func sampled(word uint64) bool { return word != 0 && int64(word) >= 0 }

func packPeak(ms float64, now time.Duration) uint64 {
	return stamped(ms, stampOf(now))
}

// seen has the time of an endpoint that is new to the policy begin.
func (p *peak) seen(now time.Duration) {
	if p.word.Load() == 0 {
		p.word.CompareAndSwap(0, packPeak(unsampled, now))
	}
}

// at returns the average in milliseconds.
func (p *peak) at(now time.Duration, c *PeakEWMAConfig) float64 {
	return peakOf(p.word.Load(), now, c)
}

func peakOf(word uint64, now time.Duration, c *PeakEWMAConfig) float64 {
	ms := stampedValue(word)
	if !sampled(word) {
		ms = float64(c.Unknown) / float64(time.Millisecond)
	}
	if t := peakAge(word, now); t > 0 {
		ms = max(ms*math.Exp(-float64(t)/float64(c.Decay)), min(ms, leastPeak))
	}
	return ms
}

// leastPeak is as far as a peak sinks, in milliseconds: with 0, in-flight, which
// it is multiplied by, would not count any more. No backend answers faster.
const leastPeak = 1e-3

// peakAge returns how long ago the word's highest was sampled. A request that
// ended meanwhile may have stamped it after this one read its clock.
func peakAge(word uint64, now time.Duration) time.Duration {
	if word == 0 {
		return 0
	}
	return time.Duration(since(now, uint32(word))) * time.Millisecond
}

// age returns the seconds since the highest sample, Absent if there is none.
func (p *peak) age(now time.Duration) float64 {
	w := p.word.Load()
	if !sampled(w) {
		return Absent
	}
	return peakAge(w, now).Seconds()
}

// answered takes a sample. The first replaces Unknown whatever it is.
func (p *peak) answered(now, sample time.Duration, c *PeakEWMAConfig) {
	old := p.word.Load()
	if !sampled(old) {
		if p.word.CompareAndSwap(old, packPeak(float64(sample)/float64(time.Millisecond), now)) {
			return
		}
	}
	p.atLeast(now, sample, c)
}

// atLeast takes a sample that only counts if it is above the average. One that
// loses a race looks again: what beat it may be a lower one.
func (p *peak) atLeast(now, sample time.Duration, c *PeakEWMAConfig) {
	ms := float64(sample) / float64(time.Millisecond)
	for {
		old := p.word.Load()
		if ms <= peakOf(old, now, c) || p.word.CompareAndSwap(old, packPeak(ms, now)) {
			return
		}
	}
}

// failed undoes what was forgotten since the highest sample: time spent on
// failing is not time in which the endpoint got better.
func (p *peak) failed(now time.Duration) {
	old := p.word.Load()
	ms := stampedValue(old)
	if old == 0 {
		ms = unsampled
	}
	if old == 0 || peakAge(old, now) > 0 {
		p.word.CompareAndSwap(old, packPeak(ms, now))
	}
}
