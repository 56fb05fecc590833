package breaker

import (
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"time"
)

// TestWindowAgainstList holds the window against a list of all that ever was:
// it counts what came in its newest buckets, and nothing else.
func TestWindowAgainstList(t *testing.T) {
	type event struct {
		bucket int64
		failed bool
	}
	r := rand.New(rand.NewPCG(1, 2))
	for _, c := range []struct{ span, bucket time.Duration }{
		{time.Second, time.Second}, {10 * time.Second, time.Second}, {time.Second, 300 * time.Millisecond},
	} {
		w := newWindow(c.span, c.bucket)
		length := int64((c.span + c.bucket - 1) / c.bucket)
		var all []event
		now := time.Duration(0)
		for range 5000 {
			switch r.IntN(20) {
			case 0:
				now += time.Duration(r.Int64N(int64(3 * c.span)))
			case 1:
				w.clear()
				all = nil
			default:
				now += time.Duration(r.Int64N(int64(c.bucket)))
			}
			e := event{int64(now / c.bucket), r.IntN(3) == 0}
			all = append(all, e)
			w.add(now, e.failed)
			var want tally
			for _, x := range all {
				if x.bucket > e.bucket-length {
					want.requests++
					if x.failed {
						want.failures++
					}
				}
			}
			if w.sum != want {
				t.Fatalf("%v of %v: counts %+v, want %+v", c.span, c.bucket, w.sum, want)
			}
		}
		before := w.sum
		w.add(now-c.bucket, true) // a clock that went back
		if w.sum.failures != before.failures+1 {
			t.Errorf("a failure before the newest bucket is not counted")
		}
	}
}

// TestWindowFollowsInjectedClock: failures are forgotten in a simulator's time,
// whatever the machine's.
func TestWindowFollowsInjectedClock(t *testing.T) {
	var now atomic.Int64
	now.Store(int64(time.Hour))
	w := &world{clock: func() time.Duration { return time.Duration(now.Load()) }, rand: least}
	cfg := DefaultConfig()
	e := w.endpoint(t, cfg)
	for range 100 { // in a row, but too far apart
		e.send(Bad, Bad)
		now.Add(int64(cfg.Window + cfg.BucketPeriod))
	}
	e.want(Closed)
	e = w.endpoint(t, ratioOnly())
	for range 300 {
		e.send(Bad)
		now.Add(int64(700 * time.Millisecond)) // 15 in a window, of which 20 would trip
	}
	e.want(Closed)
	for i := 0; e.State(w.clock()) == Closed; i++ {
		if e.send(Bad); i == 20 {
			t.Fatal("20 failures at once did not trip")
		}
	}

	q := w.capacity(t)
	for range 100 {
		q.wait(false)
		now.Add(int64(350 * time.Millisecond))
	}
	q.want(Closed, 0)
}
