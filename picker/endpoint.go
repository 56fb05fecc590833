// Package picker chooses an endpoint for a request.
//
// It knows nothing of Consul, breakers or sockets: package balance tells it
// which endpoints are ready, and a Policy turns that set into a Picker.
package picker

import (
	"sync/atomic"
	"time"
)

// Outcome is how one request to an endpoint ended, as the balancer counts it.
type Outcome uint8

const (
	// Success: the backend answered; its answer says nothing bad of it.
	Success Outcome = iota
	// Failure: the backend is to blame (reset, cut answer, time-out, configured status).
	Failure
	// Drop: the backend said it is overloaded. Not a fault, and no latency sample.
	Drop
	// Ignore: the request ended for a reason that is not the backend's
	// (the client left, our own rejection). It is no failure and no latency; a
	// policy may learn from it that an answer would have taken longer.
	Ignore
)

// String names the outcome as status and logs show it.
func (o Outcome) String() string {
	switch o {
	case Success:
		return "success"
	case Failure:
		return "failure"
	case Drop:
		return "drop"
	default:
		return "ignore"
	}
}

// Result ends a lease.
type Result struct {
	Outcome Outcome
	// Down says that nothing listens at the address (connection refused, no
	// route). Only meaningful with Failure: such an endpoint is ejected at once.
	Down bool
	// NoConn says that no connection could be made, for that or any other reason of
	// the backend's (a time-out). Only meaningful with Failure.
	NoConn bool
	// FirstByte is from sending the request to the first byte of the answer,
	// Total to its last byte. Zero is unknown and not sampled.
	FirstByte, Total time.Duration
	// Age is how long ago the request was sent to the endpoint, whatever came of
	// it. The balancer fills it in.
	Age time.Duration
	// Budget is what the request had left of its time-out when it was sent; 0:
	// there is none. The balancer fills it in.
	Budget time.Duration
}

// Absent marks a figure that the report did not carry: unknown is not zero.
const Absent = -1

// Load is what a policy sees of the newest report of an endpoint's agent.
// It is immutable once stored. Every float64 may be Absent.
type Load struct {
	At          time.Duration // when it was true, on the sidecar's clock: receipt minus half a round trip
	InFlight    float64       // requests inside the backend, from everyone
	OwnInFlight float64       // of those, this sidecar's own when the figure was sampled
	Cores       float64       // the CPU limit that applies to the backend, in cores
	Avail       float64       // cores it could use now: min(limit, used by it + idle), in (0, Cores]
	CPU         float64       // share of Cores in use
	Mem         float64       // working set as a share of the memory limit
	Conc        float64       // requests it sustains at once without slowing down
	Err         float64       // share of requests that the backend itself saw fail
	Expires     time.Duration // from when it is not believed any more, on the same clock
	Epoch       string        // changes when the backend restarts; "": unknown
	Listening   bool          // false: the agent sees nobody listen on the backend's port
	// Unasked says that it is no answer to this sidecar's poll: others may have heard it
	// at the same moment, so it is not to count among the freshest (PICKING.md, "What
	// matters", 2).
	Unasked bool
	// Hearsay says that InFlight comes of no poll: nobody will ask anew when it has aged,
	// so admission does not go by it.
	Hearsay bool
}

// Restarted reports whether l tells of another process than old, the report
// before it (nil: none). A report without an epoch tells nothing of that.
func (l *Load) Restarted(old *Load) bool {
	return old != nil && old.Epoch != "" && l.Epoch != "" && old.Epoch != l.Epoch
}

// Totals counts what became of the requests sent to an endpoint since it was
// first seen. An endpoint that stays in Consul keeps them over every reload.
type Totals struct {
	Requests, Successes, Failures, Drops, Ignored uint64
}

// Endpoint is the picker's live object for one instance. It outlives snapshots
// and reloads for as long as its instance stays registered.
//
// All methods are safe for concurrent use; none takes a lock.
type Endpoint struct {
	// ID is the instance's ID, Addr its "host:port". Immutable.
	ID, Addr string
	// Owner is the balancer's own object for this endpoint. Immutable.
	Owner any

	weight atomic.Int64 // 0 = draining
	load   atomic.Pointer[Load]

	// What every request writes sits on a cache line of its own, away from
	// what every pick of other endpoints' weights reads; first what a pick
	// looks at.
	_        [64]byte
	inFlight atomic.Int64
	limit    atomic.Int64  // most in flight at once; 0 = none
	others   atomic.Uint64 // see others.go
	ghosts   ghosts
	latency  EWMA
	requests atomic.Uint64
	byResult [4]atomic.Uint64
	_        [64]byte

	watch    atomic.Pointer[watch] // who hears of every change of what is in flight
	ramp     atomic.Pointer[ramp]  // slow start; nil: none, or over
	share    atomic.Int32          // see HoldRamps
	rank     atomic.Int32          // see SetRank
	distance atomic.Int32          // see SetDistance
	mind     mind                  // what policies have learnt of it
}

// watch is a leaf of a structure that is kept up to date with what endpoints
// have in flight.
type watch struct {
	of   interface{ changed(leaf int) }
	leaf int
}

// touched tells the watcher that in-flight or limit has changed.
func (e *Endpoint) touched() {
	if w := e.watch.Load(); w != nil {
		w.of.changed(w.leaf)
	}
}

// SetRank says how far the endpoint stands behind others: endpoints of a rank
// above 0 are used as package balance's tiers say.
func (e *Endpoint) SetRank(n int) { e.rank.Store(int32(n)) }

// Rank returns the endpoint's rank, 0 for the first choice.
func (e *Endpoint) Rank() int { return int(e.rank.Load()) }

// NewEndpoint returns an endpoint with the given weight (0 and up; 0 means
// drain) and limit of requests in flight (0 = none).
func NewEndpoint(id, addr string, weight, limit int, owner any) *Endpoint {
	e := &Endpoint{ID: id, Addr: addr, Owner: owner}
	e.SetWeight(weight)
	e.SetLimit(limit)
	return e
}

// Weight returns the endpoint's weight; 0 means that it drains.
func (e *Endpoint) Weight() int { return int(e.weight.Load()) }

// SetWeight changes the weight. Pickers built before keep the old one: the
// balancer builds a new one after it.
func (e *Endpoint) SetWeight(w int) { e.weight.Store(int64(max(0, w))) }

// Limit returns the most requests in flight at once, 0 for none.
func (e *Endpoint) Limit() int { return int(e.limit.Load()) }

// SetLimit changes the limit. Requests in flight above it are left to finish.
func (e *Endpoint) SetLimit(n int) {
	e.limit.Store(int64(max(0, n)))
	e.touched()
}

// InFlight returns the requests this sidecar has at the endpoint now.
func (e *Endpoint) InFlight() int { return int(e.inFlight.Load()) }

// HasRoom reports whether a reservation would succeed now.
func (e *Endpoint) HasRoom() bool {
	limit := e.limit.Load()
	return limit == 0 || e.inFlight.Load() < limit
}

// TryReserve counts one more request in flight unless the limit is reached.
// Check and increment are one step, so concurrent callers never overshoot.
func (e *Endpoint) TryReserve() bool {
	limit := e.limit.Load()
	if limit == 0 {
		e.inFlight.Add(1)
		e.touched()
		return true
	}
	for {
		n := e.inFlight.Load()
		if n >= limit {
			return false
		}
		if e.inFlight.CompareAndSwap(n, n+1) {
			e.touched()
			return true
		}
	}
}

// Cancel takes back a reservation that no request was sent under.
func (e *Endpoint) Cancel() {
	e.inFlight.Add(-1)
	e.touched()
}

// Finish ends one reservation and counts its result. The caller makes sure
// that it is called exactly once per reservation (see balance.Lease).
func (e *Endpoint) Finish(now time.Duration, r Result) {
	e.inFlight.Add(-1)
	e.touched()
	e.requests.Add(1)
	e.byResult[r.Outcome&3].Add(1)
	if r.Outcome == Success && r.FirstByte > 0 {
		e.latency.Observe(now, r.FirstByte)
	}
}

// Latency returns the moving average of the time to the first byte of
// successful answers, 0 while there is none. See ewma for its memory.
func (e *Endpoint) Latency() time.Duration { return e.latency.Value() }

// Totals returns the counts so far. They are read one by one, so a request
// that ends meanwhile may be in some and not yet in others.
func (e *Endpoint) Totals() Totals {
	return Totals{
		Requests:  e.requests.Load(),
		Successes: e.byResult[Success].Load(),
		Failures:  e.byResult[Failure].Load(),
		Drops:     e.byResult[Drop].Load(),
		Ignored:   e.byResult[Ignore].Load(),
	}
}

// SetLoad stores the newest report's figures. The caller must not change l
// afterwards, and does not call it concurrently for one endpoint.
func (e *Endpoint) SetLoad(l *Load) {
	if l.Restarted(e.load.Swap(l)) {
		e.mind.failures.forget() // of the process that was there before
	}
	e.others.Store(packOthers(l))
}

// Load returns the newest report's figures, nil if none ever came. Its age is
// the caller's to judge.
func (e *Endpoint) Load() *Load { return e.load.Load() }
