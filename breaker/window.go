package breaker

import "time"

// window counts requests and failures over the last so many buckets of time, of
// which the newest is still filling. It has no lock: a circuit's mu is held. It
// reads no clock, so it rolls in a simulator's time as in the machine's.
type window struct {
	bucket time.Duration
	length int // buckets

	ring   []tally // allocated when first needed: most endpoints never fail
	newest int64   // number of the newest bucket, counted from the clock's 0
	sum    tally   // of ring
}

type tally struct{ requests, failures uint32 }

// newWindow returns an empty window of at least the length span, in buckets.
func newWindow(span, bucket time.Duration) window {
	return window{bucket: bucket, length: int((span + bucket - 1) / bucket)}
}

// add counts one request that ended at the time now.
func (w *window) add(now time.Duration, failed bool) {
	w.roll(now)
	if w.ring == nil {
		w.ring = make([]tally, w.length)
	}
	b := &w.ring[w.newest%int64(w.length)]
	b.requests++
	w.sum.requests++
	if failed {
		b.failures++
		w.sum.failures++
	}
}

// roll forgets what is too old at the time now. A clock that has gone back a
// little counts into the newest bucket.
func (w *window) roll(now time.Duration) {
	n := int64(now / w.bucket)
	if w.ring == nil || n <= w.newest {
		w.newest = max(w.newest, n)
		return
	}
	if n-w.newest >= int64(w.length) {
		w.clear()
	}
	for ; w.newest < n && w.sum != (tally{}); w.newest++ {
		old := &w.ring[(w.newest+1)%int64(w.length)]
		w.sum.requests -= old.requests
		w.sum.failures -= old.failures
		*old = tally{}
	}
	w.newest = n
}

// clear forgets everything.
func (w *window) clear() {
	clear(w.ring)
	w.sum = tally{}
}
