package h1

import (
	"testing"
	"time"

	"outrigger/picker"
	"outrigger/sidecar/balance"
)

// timeouts.request bounds the wait in the queue too.
func TestRequestTimeBoundsTheQueue(t *testing.T) {
	t.Parallel()
	cfg := quick()
	cfg.Timeouts.Request = short
	b := balance.DefaultConfig()
	b.MaxInFlight = 1
	b.Queue.Timeout = time.Minute
	r := newRig(t, cfg, b, named(t, "b").addr)
	l, err := r.b.TryAcquire(balance.Key{})
	if err != nil {
		t.Fatal(err)
	}
	c := r.dial()
	c.send(get1("/"))
	c.wantOwn(503, "queue_timeout")
	l.Done(picker.Result{Outcome: picker.Ignore})
}
