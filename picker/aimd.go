package picker

import (
	"math"
	"sync/atomic"
	"time"
)

// aimd is a limit of all that a sidecar has in flight, which rises and falls
// with latency: what is left to admit by where agents do not report. Of all, and
// not by endpoint, since a hundred sidecars with one request each may be too
// much for a backend already. The rule and its constants are PICKING.md's:
// additive increase by 1/limit for each answer in time near the limit, a tenth
// less, at most every 100 ms, for one that took more than 0.3 of its request's
// time-out. Ours is that it must also have taken twice what requests take when
// all is calm: some work is slow by nature.
//
// One word: the limit (float32) over the time of the last decrease in
// milliseconds (uint32). 0 is the first limit.
type aimd struct {
	_      [64]byte // every request writes what follows
	flying atomic.Int64
	word   atomic.Uint64
	_      [64]byte
}

const (
	aimdFirst = 16  // by endpoint; ours: above what a healthy one gets from one sidecar
	aimdNear  = 0.8 // of the limit; ours
	aimdLess  = 0.9
	aimdPause = 100 * time.Millisecond
	aimdSlow  = 0.3
)

// limit returns the limit for a set of endpoints.
func (a *aimd) limit(endpoints int) float64 {
	w := a.word.Load()
	if w == 0 {
		return float64(aimdFirst * endpoints)
	}
	return stampedValue(w)
}

// tooLate is how long an answer may take of a request with this time-out.
func tooLate(budget, calm time.Duration) time.Duration {
	return max(time.Duration(aimdSlow*float64(budget)), 2*calm)
}

// calm is what requests take on their own when nothing is crowded: the least
// pace that was seen, forgotten by doubling every calmMemory.
type calm struct {
	ms float64
	at time.Duration
}

const calmMemory = 10 * time.Minute

// observe takes the pace of now, 0 if there is none, and returns the least.
func (c *calm) observe(ms float64, now time.Duration) time.Duration {
	if ms > 0 && now > 0 {
		if c.ms > 0 {
			ms = min(ms, c.ms*math.Exp2(float64(max(0, now-c.at))/float64(calmMemory)))
		}
		c.ms, c.at = ms, now
	}
	return time.Duration(c.ms * float64(time.Millisecond))
}

// full reports whether there is no room for one more.
func (a *aimd) full(endpoints int) bool { return float64(a.flying.Load()) >= a.limit(endpoints) }

// observe takes a request that is about to be counted out; late says that it
// failed or took too long.
func (a *aimd) observe(now time.Duration, endpoints int, late bool) {
	old, limit := a.word.Load(), a.limit(endpoints)
	cut := uint32(old)
	if late {
		if old != 0 && time.Duration(since(now, cut))*time.Millisecond < aimdPause {
			return
		}
		limit, cut = max(1, limit*aimdLess), stampOf(now)
	} else if float64(a.flying.Load()) < aimdNear*limit {
		return
	} else {
		limit += 1 / limit
	}
	a.word.CompareAndSwap(old, stamped(limit, cut))
}
