package picker

import (
	"math"
	"slices"
	"sort"
	"time"
)

// ramp is a slow start.
type ramp struct {
	from, length time.Duration
	floor        float64 // never less
}

// minRamp is the share of its weight with which an endpoint's slow start
// begins: Envoy's floor. With less it may get no request at all and its slow
// start end untried (envoy #19437).
const minRamp = 0.1

// SetRamp begins a slow start at the time from that takes length; 0 ends it.
// Policies that take weights at Build see it from HoldRamps on.
func (e *Endpoint) SetRamp(from, length time.Duration) {
	if length <= 0 {
		e.ramp.Store(nil)
		e.share.Store(0)
		return
	}
	e.ramp.Store(&ramp{from, length, minRamp})
}

// Ramp returns the share of its weight that the endpoint counts with during
// its slow start, minRamp (or what HoldRamps raised it to) to 1, linear in time.
func (e *Endpoint) Ramp(now time.Duration) float64 { return e.ramp.Load().share(now) }

// RampAge returns the part of its slow start that is over, 0 to 1; 1 also where
// there is none.
func (e *Endpoint) RampAge(now time.Duration) float64 {
	r := e.ramp.Load()
	if r == nil {
		return 1
	}
	return min(1, max(0, r.age(now)))
}

func (r *ramp) share(now time.Duration) float64 {
	if r == nil {
		return 1
	}
	return min(1, max(r.floor, r.age(now)))
}

// age is the part of the slow start that is over, above 1 afterwards.
func (r *ramp) age(now time.Duration) float64 { return float64(now-r.from) / float64(r.length) }

// HoldRamps makes the shares of the time now those which pickers built from now
// on count with, ends slow starts that are over, and reports whether any goes
// on. Not to be called concurrently.
//
// Slow starts take at most half of the weight of a set away: shares are raised
// to what that asks for. So who is not new gets at most twice its normal part,
// even when most of the set is replaced at once; and when all are new, and there
// is nobody to spare them, they count about alike.
func HoldRamps(set []*Endpoint, now time.Duration) bool {
	if !slices.ContainsFunc(set, func(e *Endpoint) bool { return e.ramp.Load() != nil }) {
		return false
	}
	floor := rampFloor(set, now)
	going := false
	for _, e := range set {
		going = e.holdRamp(now, floor) || going
	}
	return going
}

// rampFloor is the least share, in whole percent, that leaves half the weight.
func rampFloor(set []*Endpoint, now time.Duration) float64 {
	const least, most = 100 * minRamp, 50 // which always does
	percent := least + sort.Search(most-least, func(i int) bool {
		var all, left float64
		for _, e := range set {
			w, share := float64(e.weight.Load()), 1.0
			if r := e.ramp.Load(); r != nil {
				share = min(1, max(float64(least+i)/100, r.age(now)))
			}
			all += w
			left += w * share
		}
		return left >= all/2
	})
	return float64(percent) / 100
}

func (e *Endpoint) holdRamp(now time.Duration, floor float64) bool {
	r := e.ramp.Load()
	var next *ramp
	if r != nil && r.age(now) < 1 {
		next = &ramp{r.from, r.length, floor}
	}
	if r != nil && !e.ramp.CompareAndSwap(r, next) {
		next = e.ramp.Load() // it has just begun anew
	}
	if next == nil {
		e.share.Store(0)
		return false
	}
	e.share.Store(int32(math.Round(100 * next.share(now))))
	return true
}

// percent returns what HoldRamps holds.
func (e *Endpoint) percent() int64 {
	if p := e.share.Load(); p > 0 {
		return int64(p)
	}
	return 100
}

// rampScale is what whole weights have to be multiplied by so that percentages
// of them can be told apart. 1 where all count in full, and where weights are
// so large that it is not needed: their sum stays within 32 bits (see scanFree).
func rampScale(ready []*Endpoint) int64 {
	var sum int64
	ramps := false
	for _, e := range ready {
		sum += e.weight.Load()
		ramps = ramps || e.percent() < 100
	}
	if ramps && sum <= math.MaxUint32/100 {
		return 100
	}
	return 1
}

// ramped returns the weight w times scale as it counts in the slow start, at
// least 1.
func (e *Endpoint) ramped(w, scale int64) int64 {
	return max(1, (w*scale*e.percent()+50)/100)
}

// SetDistance says how far away the endpoint is, 0 for the nearest. See Near.
func (e *Endpoint) SetDistance(n int) { e.distance.Store(int32(n)) }

// Distance returns how far away the endpoint is.
func (e *Endpoint) Distance() int { return int(e.distance.Load()) }
