package picker

import (
	"math"
	"slices"
	"sort"
	"time"
)

// ramp is a slow start, a fade or both. Immutable.
type ramp struct {
	from, length time.Duration // of the slow start; no length: there is none
	floor        float64       // never less in it
	fade         *fade         // nil: none
}

// fade is a slow start's opposite: the way out of the set of an endpoint with
// nothing amiss.
type fade struct {
	from, length time.Duration
	top          float64 // the share that it began with
	share        float64 // as HoldRamps held it
}

// minRamp is the share of its weight with which an endpoint's slow start
// begins: Envoy's floor. With less it may get no request at all and its slow
// start end untried (envoy #19437).
const minRamp = 0.1

// minFade is where a fade ends: there is no need for requests that try it.
const minFade = 0.01

// SetRamp begins a slow start at the time from that takes length; 0 ends it.
// Policies that take weights at Build see it from HoldRamps on. A fade goes on:
// the lesser share counts.
func (e *Endpoint) SetRamp(from, length time.Duration) {
	e.change(func(r ramp) ramp {
		r.from, r.length, r.floor = from, max(0, length), minRamp
		return r
	})
}

// SetFade begins a fade at the time from that takes length, at the share that
// the endpoint has then. Policies see it as they see slow starts. Nothing is left
// at its end but to take the endpoint out of the set. Without a length there is
// none.
func (e *Endpoint) SetFade(from, length time.Duration) {
	e.change(func(r ramp) ramp {
		share := r.share(from)
		if r.fade = nil; length > 0 {
			r.fade = &fade{from, length, share, share}
		}
		return r
	})
}

// EndFade ends a fade, if there is one: the share goes up again from where it is,
// as it does in a slow start of that length. 0: at once.
func (e *Endpoint) EndFade(now, slowStart time.Duration) {
	e.change(func(r ramp) ramp {
		if r.fade == nil {
			return r
		}
		back := time.Duration(r.share(now) * float64(slowStart))
		return ramp{from: now - back, length: max(0, slowStart), floor: minRamp}
	})
}

// change replaces the ramp by what f makes of it; of none it is given a zero.
func (e *Endpoint) change(f func(ramp) ramp) {
	for {
		was := e.ramp.Load()
		var r ramp
		if was != nil {
			r = *was
		}
		next := f(r).orNil()
		if !e.ramp.CompareAndSwap(was, next) {
			continue
		}
		if next == nil {
			e.share.Store(0)
		}
		return
	}
}

func (r ramp) orNil() *ramp {
	if r.length == 0 && r.fade == nil {
		return nil
	}
	return &r
}

// Ramp returns the share of its weight that the endpoint counts with: during
// its slow start minRamp (or what HoldRamps raised it to) to 1, linear in time;
// during a fade what HoldRamps held.
func (e *Endpoint) Ramp(now time.Duration) float64 {
	if r := e.ramp.Load(); r != nil { // which it hardly ever is: inlined, for picks ask
		return r.share(now)
	}
	return 1
}

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
	s := min(1, max(r.floor, r.age(now)))
	if r.fade != nil {
		s = min(s, r.fade.share)
	}
	return s
}

// age is the part of the slow start that is over, 1 or more afterwards.
func (r *ramp) age(now time.Duration) float64 {
	if r.length == 0 {
		return 1
	}
	return float64(now-r.from) / float64(r.length)
}

// at is the share at the time now, beside endpoints that stay with the weight
// stay while those that fade have the weight leave. The part of the requests that
// goes to these sinks linearly by it, however many they are beside the others.
func (f *fade) at(now time.Duration, stay, leave float64) float64 {
	x := min(1, max(0, float64(now-f.from)/float64(f.length)))
	s := f.top * (1 - x)
	if stay > 0 {
		s *= stay / (stay + leave*x)
	}
	return max(minFade, s)
}

// HoldRamps makes the shares of the time now those which pickers built from now
// on count with, ends slow starts that are over, and reports whether any goes
// on, or a fade. Not to be called concurrently.
//
// Slow starts take at most half of the weight of a set away, but for those who
// fade: shares are raised to what that asks for. So who is not new gets at most
// twice its normal part, even when most of the set is replaced at once; and when
// all are new, and there is nobody to spare them, they count about alike.
func HoldRamps(set []*Endpoint, now time.Duration) bool {
	if !slices.ContainsFunc(set, func(e *Endpoint) bool { return e.ramp.Load() != nil }) {
		return false
	}
	going := holdFades(set, now)
	floor := rampFloor(set, now)
	for _, e := range set {
		going = e.holdRamp(now, floor) || going
	}
	return going
}

// holdFades makes the shares of fades those of the time now, and reports whether
// one goes on.
func holdFades(set []*Endpoint, now time.Duration) (going bool) {
	var stay, leave float64
	for _, e := range set {
		if w := float64(e.weight.Load()); e.Fading() {
			leave += w
		} else {
			stay += w
		}
	}
	if leave == 0 {
		return false
	}
	for _, e := range set {
		e.change(func(r ramp) ramp {
			if r.fade != nil {
				f := *r.fade
				f.share = f.at(now, stay, leave)
				r.fade, going = &f, going || now < f.from+f.length
			}
			return r
		})
	}
	return going
}

// Fading reports whether the endpoint is in a fade, or at its end.
func (e *Endpoint) Fading() bool {
	r := e.ramp.Load()
	return r != nil && r.fade != nil
}

// rampFloor is the least share, in whole percent, that leaves half the weight.
func rampFloor(set []*Endpoint, now time.Duration) float64 {
	const least, most = 100 * minRamp, 50 // which always does
	percent := least + sort.Search(most-least, func(i int) bool {
		var all, left float64
		for _, e := range set {
			w, r := float64(e.weight.Load()), e.ramp.Load()
			if r == nil || r.fade == nil {
				all += w
			}
			if r != nil {
				raised := *r
				raised.floor = float64(least+i) / 100
				left += w * raised.share(now)
			} else {
				left += w
			}
		}
		return left >= all/2
	})
	return float64(percent) / 100
}

func (e *Endpoint) holdRamp(now time.Duration, floor float64) bool {
	r := e.ramp.Load()
	var next *ramp
	if r != nil {
		held := *r
		if held.floor = floor; held.age(now) >= 1 {
			held.length = 0
		}
		next = held.orNil()
	}
	if r != nil && !e.ramp.CompareAndSwap(r, next) {
		next = e.ramp.Load() // it has just begun anew
	}
	if next == nil {
		e.share.Store(0)
		return false
	}
	e.share.Store(max(1, int32(math.Round(100*next.share(now)))))
	return next.length > 0
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
