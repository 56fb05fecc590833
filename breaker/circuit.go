package breaker

import (
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sony/gobreaker/v2"
)

// State of a breaker.
type State int32

const (
	Closed   State = iota // requests pass
	Open                  // requests are turned away until the expiry
	HalfOpen              // one request at a time tries whether it is over
)

// String names the state as status shows it.
func (s State) String() string {
	switch s {
	case Closed:
		return "closed"
	case Open:
		return "open"
	default:
		return "half-open"
	}
}

var (
	errFailed  = errors.New("failed")
	errIgnored = errors.New("not counted")
)

// circuit is gobreaker's two-step breaker with what it lacks: an open time
// that grows, an expiry that can be read, an injected clock, and a free pass
// for the healthy.
//
// gobreaker reads the machine's clock, so it keeps the state machine and the
// failures in a row, and nothing that depends on time: the rolling window is
// `seen`, on the injected clock. gobreaker's own Timeout is a nanosecond:
// `until`, which grows and reads the injected clock too, decides when a probe
// may pass, and gobreaker turns half-open when that probe asks. Every call into gobreaker is made under mu, so what
// OnStateChange writes is never seen half done; it runs under gobreaker's
// mutex too and only writes fields and posts.
type circuit struct {
	env       Env
	base, max time.Duration
	trip      func(n gobreaker.Counts, force bool) bool // asked under mu, with the counts of the window
	changed   func(from, to State)                      // told under mu

	state atomic.Int32
	until atomic.Int64  // env clock; while Open: the time of the first probe
	gen   atomic.Uint32 // how often it has closed

	mu       sync.Mutex
	cb       *gobreaker.TwoStepCircuitBreaker[struct{}]
	seen     window
	force    bool // trip on the failure being reported
	streak   int  // ejections in a row without a forgiving pause
	closedAt time.Duration
}

func newCircuit(env Env, span, bucket, base, longest time.Duration) *circuit {
	c := &circuit{env: env, base: base, max: longest, seen: newWindow(span, bucket)}
	c.cb = gobreaker.NewTwoStepCircuitBreaker[struct{}](gobreaker.Settings{
		MaxRequests:   1,
		Timeout:       time.Nanosecond,
		ReadyToTrip:   func(n gobreaker.Counts) bool { return c.trip(c.rolled(n), c.force) },
		OnStateChange: func(_ string, from, to gobreaker.State) { c.onChange(from, to) },
		IsExcluded:    func(err error) bool { return errors.Is(err, errIgnored) },
	})
	return c
}

// rolled replaces gobreaker's counts, which know no time, by those of the
// window. Of the failures in a row those count that are in it.
func (c *circuit) rolled(n gobreaker.Counts) gobreaker.Counts {
	in := c.seen.sum
	return gobreaker.Counts{
		Requests:            in.requests,
		TotalFailures:       in.failures,
		TotalSuccesses:      in.requests - in.failures,
		ConsecutiveFailures: min(n.ConsecutiveFailures, in.failures),
	}
}

func (c *circuit) onChange(from, to gobreaker.State) {
	now := c.env.Now()
	c.seen.clear()
	switch to {
	case gobreaker.StateOpen:
		if c.streak > 0 && from == gobreaker.StateClosed && now-c.closedAt >= c.max {
			c.streak = 0
		}
		c.streak++
		c.until.Store(int64(now + c.openFor(c.streak)))
	case gobreaker.StateClosed:
		c.closedAt = now
		c.gen.Add(1)
	}
	old := State(c.state.Swap(int32(fromGo(to))))
	if c.changed != nil {
		c.changed(old, fromGo(to))
	}
	c.env.Changed()
}

// openFor is base * 2^(n-1) up to max, with up to 25 % added by chance so that
// a fleet of sidecars does not probe a returning backend in step.
func (c *circuit) openFor(n int) time.Duration {
	d := c.base
	for ; n > 1 && d < c.max; n-- {
		d *= 2
	}
	d = min(d, c.max)
	return d + time.Duration(float64(d)*0.25*float64(c.env.Rand(1<<16))/(1<<16))
}

func fromGo(s gobreaker.State) State {
	switch s {
	case gobreaker.StateOpen:
		return Open
	case gobreaker.StateHalfOpen:
		return HalfOpen
	default:
		return Closed
	}
}

// Probe goes with a request from its admission to its report. While half-open
// it is the right to try whether it is over, and whoever holds one must report
// with it: gobreaker would reject everything for ever otherwise. Else it only
// tells when the request began.
type Probe struct {
	done func(error) // nil: not the one that tries
	gen  uint32
}

// admit asks to send one request. While closed it loads two atomics.
func (c *circuit) admit(now time.Duration) (Probe, bool) {
	if State(c.state.Load()) == Closed {
		return Probe{gen: c.gen.Load()}, true
	}
	if now < time.Duration(c.until.Load()) {
		return Probe{}, false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if State(c.state.Load()) == Closed {
		return Probe{gen: c.gen.Load()}, true // closed while we waited for the lock
	}
	if now < time.Duration(c.until.Load()) {
		return Probe{}, false // or failed its probe
	}
	done, err := c.cb.Allow()
	return Probe{done: done}, err == nil
}

// report ends a request that admit let pass.
func (c *circuit) report(p Probe, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.settle(p, err)
}

// settle is report for a caller that holds mu. A result that is not a probe's
// counts only in the closed time that its request began in: what was sent to a
// backend before its ejection says nothing of it after its return.
func (c *circuit) settle(p Probe, err error) {
	switch {
	case p.done != nil:
		p.done(err)
	case c.current(p):
		if done, e := c.cb.Allow(); e == nil {
			c.seen.add(c.env.Now(), err == errFailed)
			done(err)
		}
	}
}

// current reports whether the breaker is closed, and was when p was given.
func (c *circuit) current(p Probe) bool {
	return State(c.state.Load()) == Closed && p.gen == c.gen.Load()
}

// fail is settle for a failure that trips, if force says so, whatever the
// counts.
func (c *circuit) fail(p Probe, force bool) {
	c.force = force
	c.settle(p, errFailed)
	c.force = false
}
