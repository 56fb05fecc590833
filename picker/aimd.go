package picker

import (
	"math"
	"sync/atomic"
	"time"
)

// aimd is a limit of a sidecar's own requests at an endpoint that rises and
// falls with latency: what is left to admit by where agents do not report. The
// rule and its constants are PICKING.md's: additive increase by 1/limit for each
// answer in time near the limit, a tenth less, at most every 100 ms, for one
// that took more than 0.3 of its request's time-out.
//
// One word: the limit (float32) over the time of the last decrease in
// milliseconds (uint32). 0 is the first limit.
type aimd struct{ word atomic.Uint64 }

const (
	aimdFirst = 16 // ours: above what a healthy backend gets from one sidecar
	aimdLess  = 0.9
	aimdPause = 100 * time.Millisecond
	aimdSlow  = 0.3
)

func (a *aimd) limit() float64 {
	w := a.word.Load()
	if w == 0 {
		return aimdFirst
	}
	return float64(math.Float32frombits(uint32(w >> 32)))
}

// observe takes a request that ended now after age, of at most budget, with n
// in flight, itself among them.
func (a *aimd) observe(now, age, budget time.Duration, n int64, failed bool) {
	old, limit := a.word.Load(), a.limit()
	cut := uint32(old)
	if failed || float64(age) > aimdSlow*float64(budget) {
		ms := uint32(now / time.Millisecond)
		if since := int32(ms - cut); old != 0 && since >= 0 && time.Duration(since)*time.Millisecond < aimdPause {
			return
		}
		limit, cut = max(1, limit*aimdLess), ms
	} else if float64(n)+1 < limit {
		return
	} else {
		limit += 1 / limit
	}
	a.word.CompareAndSwap(old, uint64(math.Float32bits(float32(limit)))<<32|uint64(cut))
}
