package breaker

import (
	"math"
	"sync/atomic"
	"time"

	"github.com/sony/gobreaker/v2"
)

// Capacity is the service-level breaker. It opens when nothing is ready, or
// when most requests that had to queue were not served in time. While it is
// open nobody queues: a request that finds a free slot passes, everything else
// is turned away at once. After its open time one request may queue to try.
//
// All methods are safe for concurrent use.
type Capacity struct {
	c     *circuit
	trips atomic.Uint64
	idle  bool // opened because nothing was ready; under c.mu
}

// NewCapacity returns a closed breaker. cfg must be valid.
func NewCapacity(cfg CapacityConfig, env Env) *Capacity {
	c := &Capacity{}
	bucket := max(cfg.Window/10, 10*time.Millisecond)
	c.c = newCircuit(env, cfg.Window, bucket, cfg.BaseOpen, cfg.MaxOpen)
	c.c.trip = func(n gobreaker.Counts, force bool) bool {
		return force || int(n.Requests) >= cfg.MinQueued &&
			float64(n.TotalFailures) >= cfg.QueueFailureRatio*float64(n.Requests)
	}
	c.c.changed = func(_, to State) {
		switch to {
		case Open:
			c.trips.Add(1)
		case Closed:
			c.idle = false
		}
	}
	return c
}

// MayQueue asks whether a request without a free slot may wait for one. The
// probe must be given to Queued or Abandoned.
func (c *Capacity) MayQueue(now time.Duration) (Probe, bool) { return c.c.admit(now) }

// Queued ends a wait that MayQueue allowed: served says that a slot came in
// time.
func (c *Capacity) Queued(p Probe, served bool) {
	var err error
	if !served {
		err = errFailed
	}
	c.c.report(p, err)
}

// Abandoned ends a wait whose client left: it says nothing of capacity.
func (c *Capacity) Abandoned(p Probe) {
	if p.done != nil {
		c.c.report(p, errIgnored)
	}
}

// SetReady tells whether any endpoint is ready. With none it opens at once;
// when one comes back it closes, for there is nothing left to wait for.
func (c *Capacity) SetReady(any bool) {
	c.c.mu.Lock()
	defer c.c.mu.Unlock()
	open := State(c.c.state.Load()) != Closed
	switch {
	case !any && !open:
		c.c.fail(Probe{gen: c.c.gen.Load()}, true)
		c.idle = true
	case any && open && c.idle:
		// gobreaker closes on a probe's success alone.
		if done, err := c.c.cb.Allow(); err == nil {
			done(nil)
		}
	}
}

// State returns the state at the time now.
func (c *Capacity) State(now time.Duration) State {
	s := State(c.c.state.Load())
	if s == Open && now >= c.Until() {
		return HalfOpen
	}
	return s
}

// Until returns when the open time runs out, on the balancer's clock.
func (c *Capacity) Until() time.Duration { return time.Duration(c.c.until.Load()) }

// Trips counts how often it opened.
func (c *Capacity) Trips() uint64 { return c.trips.Load() }

// maxRetryAfter bounds what a client is told to wait.
const maxRetryAfter = 30

// ShedRetryAfter is PICKING.md's rule for overload, in whole seconds: uniform
// from 1 to ceil(4/(1-phi)), at most 30, phi being the share of requests shed
// lately. Many clients come back spread over a time that grows with the excess.
func ShedRetryAfter(shed, offered uint64, rand func(n uint32) uint32) int {
	phi := 0.0
	if offered > 0 {
		phi = min(1, float64(shed)/float64(offered))
	}
	top := maxRetryAfter
	if phi < 1 {
		top = min(maxRetryAfter, int(math.Ceil(4/(1-phi))))
	}
	return 1 + int(rand(uint32(top)))
}

// WaitRetryAfter is the rule for a known time: the wait in whole seconds,
// rounded up, plus 0 or 1 by chance, in 1 to 30. When no time is known (wait is
// 0 or less) it is that of a little overload, 1 to 4: a constant 1 would bring
// all clients back at once.
func WaitRetryAfter(wait time.Duration, rand func(n uint32) uint32) int {
	if wait <= 0 {
		return ShedRetryAfter(0, 0, rand)
	}
	return min(int(math.Ceil(wait.Seconds()))+int(rand(2)), maxRetryAfter)
}
