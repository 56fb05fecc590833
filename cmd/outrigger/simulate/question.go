// Package simulate answers which policy and which limits suit a fleet, and at
// what tail latency: it runs the simulator over policies, limits, loads and
// seeds, and draws a table, an advice and a picture from the figures.
package simulate

import (
	"errors"
	"fmt"
	"time"

	"outrigger/sidecar/balance"
	"outrigger/sidecar/h1"
)

// Question is a fleet and what is to be compared on it.
type Question struct {
	Service string         // its name, for messages
	Balance balance.Config // as configured; Policies and Limits vary it
	Retry   h1.RetryConfig // as configured

	Backends   []Group
	ByCores    bool // weights in proportion to cores; else all alike
	Sidecars   int  // 1 to maxSidecars
	Work       Work
	Neighbours Neighbours
	Silent     float64       // share of the backends whose agent says nothing, 0 to 1
	Interval   time.Duration // between two polls of one agent, 50ms to 1m
	Jitter     float64       // of the interval, as configured
	Timeout    time.Duration // after which a request is given up, 10ms to 10m
	Own        bool          // the sidecar's own time-out gives it up, not the client
	Told       bool          // the sidecar knows the time-out, its own or that of a request header

	Policies []string  // by name, at least one
	Limits   []int     // values of max_in_flight, at least one
	Loads    []float64 // shares of the capacity; used where Rates is empty
	Rates    []float64 // requests a second
	Surge    Surge

	Seed     uint64        // the first of Seeds in a row
	Seeds    int           // 1 to maxSeeds
	Warmup   time.Duration // not measured, 0 to 10m
	Duration time.Duration // measured, 1s to 1h
}

const maxSeeds = 100

// Capacity returns how many requests a second the fleet can serve: what cores
// and speeds give, less what neighbours take on average.
func (q *Question) Capacity() float64 {
	var cores float64
	for _, g := range q.Backends {
		cores += float64(g.Count) * g.Cores * g.Speed
	}
	return cores * (1 - q.Neighbours.mean()) / q.Work.Mean.Seconds()
}

// backends returns how many there are.
func (q *Question) backends() int {
	n := 0
	for _, g := range q.Backends {
		n += g.Count
	}
	return n
}

// loads returns the loads to run, as shares of the capacity.
func (q *Question) loads() []float64 {
	if len(q.Rates) == 0 {
		return q.Loads
	}
	loads := make([]float64, len(q.Rates))
	for i, r := range q.Rates {
		loads[i] = r / q.Capacity()
	}
	return loads
}

// Case is one line of the table: what is run with every seed.
type Case struct {
	Policy string
	Limit  int     // max_in_flight, 0: none
	Load   float64 // share of the capacity
}

// cases lists all in the order of the table.
func (q *Question) cases() []Case {
	var all []Case
	for _, load := range q.loads() {
		for _, policy := range q.Policies {
			for _, limit := range q.Limits {
				all = append(all, Case{Policy: policy, Limit: limit, Load: load})
			}
		}
	}
	return all
}

// Bounds of the whole work. A core simulates some 100,000 requests a second of
// wall time, and as many polls.
const (
	maxRequests = 300e6
	maxPolls    = 1e9
	maxRuns     = 5000
)

// Validate reports the first thing that is out of range, with the flag that
// says it.
func (q *Question) Validate() error {
	switch {
	case q.Sidecars < 1 || q.Sidecars > maxSidecars:
		return fmt.Errorf("-sidecars is %d, allowed are 1 to %d", q.Sidecars, maxSidecars)
	case q.Seeds < 1 || q.Seeds > maxSeeds:
		return fmt.Errorf("-seeds is %d, allowed are 1 to %d", q.Seeds, maxSeeds)
	case q.Interval < 50*time.Millisecond || q.Interval > time.Minute:
		return fmt.Errorf("-interval is %v, allowed are 50ms to 1m", q.Interval)
	case q.Timeout < 10*time.Millisecond || q.Timeout > 10*time.Minute:
		return fmt.Errorf("-timeout is %v, allowed are 10ms to 10m", q.Timeout)
	case q.Warmup < 0 || q.Warmup > 10*time.Minute:
		return fmt.Errorf("-warmup is %v, allowed are 0s to 10m", q.Warmup)
	case q.Duration < time.Second || q.Duration > time.Hour:
		return fmt.Errorf("-duration is %v, allowed are 1s to 1h", q.Duration)
	case q.Surge.For > q.Duration:
		return fmt.Errorf("-surge lasts %v, which is longer than -duration %v", q.Surge.For, q.Duration)
	case len(q.Policies) == 0 || len(q.Limits) == 0 || len(q.loads()) == 0:
		return errors.New("there is nothing to compare: -policies, -limits and -load (or -rate) need a value each")
	}
	for _, load := range q.loads() {
		if load > 3 {
			return fmt.Errorf("-rate asks for %.0f/s of a fleet that serves %.0f/s; 3 times its capacity is the most", load*q.Capacity(), q.Capacity())
		}
	}
	return q.bounded()
}

// bounded refuses what would take hours.
func (q *Question) bounded() error {
	runs := len(q.cases()) * q.Seeds
	if runs > maxRuns {
		return fmt.Errorf("this is %d policies x %d limits x %d loads x %d seeds = %d runs, %d are the most: ask for fewer",
			len(q.Policies), len(q.Limits), len(q.loads()), q.Seeds, runs, maxRuns)
	}
	if n := q.requests(); n > maxRequests {
		return fmt.Errorf("this comes to %.0f million requests (a fleet that serves %.0f/s, %d runs of %v), %.0f million are the most: ask for fewer -policies, -limits, loads or -seeds, a shorter -duration, or a part of the fleet",
			n/1e6, q.Capacity(), runs, q.Warmup+q.Duration, maxRequests/1e6)
	}
	polls := float64(q.Sidecars) * float64(q.backends()) / q.Interval.Seconds() * (q.Warmup + q.Duration).Seconds() * float64(runs)
	if polls > maxPolls {
		return fmt.Errorf("this comes to %.0f million polls (%d sidecars poll %d agents every %v, in %d runs of %v), %.0f million are the most: ask for a longer -interval, fewer runs, or a part of the fleet",
			polls/1e6, q.Sidecars, q.backends(), q.Interval, runs, q.Warmup+q.Duration, maxPolls/1e6)
	}
	return nil
}

// requests returns how many are sent in all.
func (q *Question) requests() float64 {
	var load float64
	for _, c := range q.cases() {
		load += c.Load
	}
	n := load * q.Capacity() * (q.Warmup + q.Duration).Seconds()
	if q.Surge.For > 0 {
		n += load * q.Capacity() * q.Surge.For.Seconds() * max(0, q.Surge.Factor-1)
	}
	return n * float64(q.Seeds)
}
