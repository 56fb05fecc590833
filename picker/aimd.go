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
// time-out.
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
	return float64(math.Float32frombits(uint32(w >> 32)))
}

// full reports whether there is no room for one more.
func (a *aimd) full(endpoints int) bool { return float64(a.flying.Load()) >= a.limit(endpoints) }

// observe takes a request that is about to be counted out, after age, of at most
// budget.
func (a *aimd) observe(now, age, budget time.Duration, endpoints int, failed bool) {
	old, limit := a.word.Load(), a.limit(endpoints)
	cut := uint32(old)
	if failed || float64(age) > aimdSlow*float64(budget) {
		ms := uint32(now / time.Millisecond)
		if since := int32(ms - cut); old != 0 && since >= 0 && time.Duration(since)*time.Millisecond < aimdPause {
			return
		}
		limit, cut = max(1, limit*aimdLess), ms
	} else if float64(a.flying.Load()) < aimdNear*limit {
		return
	} else {
		limit += 1 / limit
	}
	a.word.CompareAndSwap(old, uint64(math.Float32bits(float32(limit)))<<32|uint64(cut))
}
