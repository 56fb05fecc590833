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
	cfg   *Config
	guard *Guard

	// dirty is set by a failure and cleared by the first success that comes a
	// whole window after the last one: until then everything is counted.
	// Both are written under c.mu.
	dirty       atomic.Bool
	lastFailure time.Duration

	// noConn is when a connection could not be made, 0 if the last one could; while
	// it is set, dirty is. Written under c.mu. asked is whether anybody was told that
	// it is set.
	noConn atomic.Int64
	asked  atomic.Bool
	told   bool          // of noConn, by Changed; under c.mu
	toldAt time.Duration // the last time; under c.mu
	owed   bool          // to tell that it is over; under c.mu
	overAt time.Duration // when that was told last; under c.mu

	ejections atomic.Uint64
	last      atomic.Uint32 // cause of the last ejection
	counted   bool          // holds a place in the guard; under c.mu
	aside     bool          // not eligible; under c.mu
	cause     cause         // of the ejection being made; under c.mu
}

// NewEndpoint returns a closed breaker. cfg and guard are shared by the endpoints of
// one service; cfg must be valid and not change any more.
func NewEndpoint(cfg *Config, guard *Guard, env Env) *Endpoint {
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
	switch connected := v != Gone && v != NoConn; {
	case v == Neutral:
	case connected && p.done == nil && State(c.state.Load()) == Open:
		// It came over a connection from before the ejection: an app that ends closes
		// its listener first and then answers what it has.
	default:
		e.reached(connected, now)
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
		// Others have taken it out: its failures would eject it for what is known.
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
// made, whatever the breaker made of it; for one that is ejected meanwhile, only its
// probe and Reached say otherwise. From again on, MaxEjection after it, that
// is old news and one request may try. Whoever is told so here is told by Env.Changed
// when it is over, a second later at most if there are requests.
func (e *Endpoint) Unreachable() (again time.Duration, yes bool) {
	if e.noConn.Load() == 0 {
		return e.cfg.MaxEjection, false
	}
	e.asked.Store(true) // before the next line: see reached
	at := time.Duration(e.noConn.Load())
	return at + e.cfg.MaxEjection, at != 0
}

// Reached tells that a connection could be made by other means than a request, and
// reports whether the last result was that none could.
func (e *Endpoint) Reached(now time.Duration) bool {
	if e.noConn.Load() == 0 {
		return false
	}
	e.c.mu.Lock()
	defer e.c.mu.Unlock()
	was := e.noConn.Load() != 0
	e.reached(true, now)
	return was
}

// tellEvery is how often an endpoint that can now be reached and now not tells of
// either, while it takes requests, so that there will be a next time.
const tellEvery = time.Second

// reached notes whether there was a connection, and tells of a change where that may
// decide anything: an address of which a part refuses must not have the snapshot
// built anew with every request. The caller holds c.mu.
func (e *Endpoint) reached(yes bool, now time.Duration) {
	was := time.Duration(e.noConn.Load())
	soon := func(last time.Duration) bool { return last != 0 && now < last+tellEvery }
	if yes {
		if was != 0 {
			e.noConn.Store(0)
			e.told = false
			e.owed = e.asked.Swap(false) || e.owed
		}
		if e.owed && (!soon(e.overAt) || e.aside || State(e.c.state.Load()) != Closed) {
			e.owed, e.overAt = false, now
			e.c.env.Changed()
		}
		return
	}
	e.noConn.Store(max(1, int64(now)))
	e.dirty.Store(true) // or the next success would not come this far
	oldNews := was != 0 && now >= was+e.cfg.MaxEjection
	if (!e.told || oldNews) && !soon(e.toldAt) && e.decides() {
		e.told, e.toldAt = true, now
		e.c.env.Changed()
	}
}

// decides reports whether anybody may want to know that the endpoint cannot be
// reached: while it is in service an ejection says it, if there is a place for one.
func (e *Endpoint) decides() bool {
	return e.aside || State(e.c.state.Load()) != Closed || e.guard.panic.Load() || !e.guard.room()
}
