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

	ejections atomic.Uint64
	counted   bool // holds a place in the guard; under c.mu
	aside     bool // not eligible; under c.mu
}

// NewEndpoint returns a closed breaker. guard is shared by the endpoints of one
// service. cfg must be valid.
func NewEndpoint(cfg Config, guard *Guard, env Env) *Endpoint {
	e := &Endpoint{cfg: cfg, guard: guard}
	e.c = newCircuit(env, cfg.Window, cfg.BucketPeriod, cfg.BaseEjection, cfg.MaxEjection)
	e.c.trip = func(n gobreaker.Counts, gone bool) bool {
		tooMany := int(n.ConsecutiveFailures) >= cfg.ConsecutiveFailures
		tooOften := int(n.Requests) >= cfg.MinRequests &&
			float64(n.TotalFailures) >= cfg.FailureRatio*float64(n.Requests)
		if gone || tooMany || tooOften {
			// Without a place the failures go on being counted, and the next
			// one asks again.
			e.counted = guard.enter(gone)
		}
		return e.counted
	}
	e.c.changed = e.onChange
	return e
}

func (e *Endpoint) onChange(from, to State) {
	switch to {
	case Open:
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
