package breaker

import (
	"sync/atomic"
	"time"

	"github.com/sony/gobreaker/v2"
)

// Verdict is what one request says of an endpoint.
type Verdict uint8

const (
	Good    Verdict = iota // answered
	Bad                    // failed, and the endpoint is to blame
	Gone                   // nothing listens there: ejected at once
	Neutral                // says nothing of the endpoint
	NoConn                 // Bad, for no connection could be made
)

// Endpoint is the breaker of one endpoint. All methods are safe for concurrent
// use.
//
// gobreaker's two-step Allow locks and returns a capturing closure. A healthy
// endpoint never pays that: while closed, a request is admitted by two atomic
// loads, and a success is counted only after a failure, until a window has gone
// by without another. A result is registered and reported in one go at its end;
// only half-open probes are registered when they start.
type Endpoint struct {
	c     *circuit
	cfg   Config
	guard *Guard

	// dirty is set by a failure and cleared by the first success that comes a
	// whole window after the last one: until then everything is counted.
	// Both are written under c.mu.
	dirty       atomic.Bool
	lastFailure time.Duration

	// noConn is when a connection could not be made, 0 if the last one could; while
	// it is set, dirty is. Written under c.mu.
	noConn atomic.Int64

	ejections atomic.Uint64
	last      atomic.Uint32 // cause of the last ejection
	counted   bool          // holds a place in the guard; under c.mu
	aside     bool          // not eligible; under c.mu
	cause     cause         // of the ejection being made; under c.mu
}

// NewEndpoint returns a closed breaker. guard is shared by the endpoints of one
// service. cfg must be valid.
func NewEndpoint(cfg Config, guard *Guard, env Env) *Endpoint {
	e := &Endpoint{cfg: cfg, guard: guard}
	e.c = newCircuit(env, cfg.Window, cfg.BucketPeriod, cfg.BaseEjection, cfg.MaxEjection)
	e.c.trip = func(n gobreaker.Counts, gone bool) bool {
		if e.counted {
			return true // Eject has a place for it
		}
		if e.cause = cfg.judge(n, gone); e.cause != noCause {
			// Without a place the failures go on being counted, and the next
			// one asks again.
			e.counted = guard.enter(gone)
		}
		return e.counted
	}
	e.c.changed = e.onChange
	return e
}

// judge returns what the endpoint is to be ejected for after a failure that was
// counted in n, if anything.
func (c *Config) judge(n gobreaker.Counts, gone bool) cause {
	switch {
	case gone:
		return nobodyThere
	case int(n.ConsecutiveFailures) >= c.ConsecutiveFailures:
		return consecutive
	case int(n.Requests) >= c.MinRequests && float64(n.TotalFailures) >= c.FailureRatio*float64(n.Requests):
		return ratio
	}
	return noCause
}

func (e *Endpoint) onChange(from, to State) {
	switch to {
	case Open:
		if from == HalfOpen { // gobreaker asks nobody then
			e.cause = byProbe
			if e.c.force {
				e.cause = nobodyThere
			}
		}
		e.last.Store(uint32(e.cause))
		e.guard.causes[e.cause].Add(1)
		e.ejections.Add(1)
	case Closed:
		e.dirty.Store(false)
		e.leaveGuard()
	}
}

func (e *Endpoint) leaveGuard() {
	if e.counted {
		e.counted = false
		e.guard.leave()
	}
}

// Admit asks to send one request at the time now. ok is false while the
// endpoint is ejected, or half-open with a probe on its way. The probe must be
// given to Report.
func (e *Endpoint) Admit(now time.Duration) (p Probe, ok bool) { return e.c.admit(now) }

// Report ends a request. Exactly once for every Admit that said ok. What was
// let through in a panic, against Admit's word, may be reported and is dropped.
func (e *Endpoint) Report(p Probe, v Verdict, now time.Duration) {
	switch {
	case v == Good && p.done == nil && !e.dirty.Load():
		return
	case v == Neutral && p.done == nil:
		return
	}
	c := e.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if v != Neutral {
		e.reached(v != Gone && v != NoConn, now)
	}
	switch {
	case v == Good:
		if now-e.lastFailure > e.cfg.Window {
			e.dirty.Store(false)
		}
		c.settle(p, nil)
	case v == Neutral:
		c.settle(p, errIgnored)
	case e.aside && p.done == nil:
		// Nobody is sent there anyway.
	default:
		if c.current(p) {
			e.lastFailure = now
			e.dirty.Store(true)
		}
		c.fail(p, v == Gone)
	}
}

// SetEligible tells whether the endpoint might take requests but for its
// breaker. One that might not (critical, weight 0) is not in the guard's total
// either: it holds no place there, and its results eject nothing. True at first.
func (e *Endpoint) SetEligible(yes bool) {
	e.c.mu.Lock()
	defer e.c.mu.Unlock()
	if yes != e.aside {
		return
	}
	e.aside = !yes
	if e.aside {
		e.leaveGuard()
	} else if State(e.c.state.Load()) != Closed {
		e.counted = true
		e.guard.join()
	}
}

// Retire frees the endpoint's place in the guard when its instance leaves. No
// result reported after it ejects anything.
func (e *Endpoint) Retire() { e.SetEligible(false) }

// State returns the state at the time now: an ejection that has run out reads
// as half-open, though gobreaker learns of it only from the next probe.
func (e *Endpoint) State(now time.Duration) State {
	s := State(e.c.state.Load())
	if s == Open && now >= time.Duration(e.c.until.Load()) {
		return HalfOpen
	}
	return s
}

// Until returns when the current ejection runs out, on the balancer's clock.
// Only meaningful while the state is Open.
func (e *Endpoint) Until() time.Duration { return time.Duration(e.c.until.Load()) }

// Ejections counts how often the endpoint was ejected.
func (e *Endpoint) Ejections() uint64 { return e.ejections.Load() }

// Unreachable reports whether the last result was that no connection could be
// made, whatever the breaker made of it. From again on, MaxEjection after it, that
// is old news and one request may try.
func (e *Endpoint) Unreachable() (again time.Duration, yes bool) {
	at := time.Duration(e.noConn.Load())
	return at + e.cfg.MaxEjection, at != 0
}

// reached notes whether there was a connection. The caller holds c.mu.
func (e *Endpoint) reached(yes bool, now time.Duration) {
	again, was := e.Unreachable()
	switch {
	case !yes:
		e.noConn.Store(max(1, int64(now)))
		e.dirty.Store(true) // or the next success would not come this far
		if was && now < again {
			return
		}
	case !was:
		return
	default:
		e.noConn.Store(0)
	}
	e.c.env.Changed()
}
