package balance

import (
	"fmt"
	"time"

	"outrigger/breaker"
	"outrigger/discovery"
	"outrigger/picker"
)

// Status is one service's state, read at one moment (its counters one by one).
type Status struct {
	Service  string
	Seen     bool // discovery has answered
	Draining bool
	Policy   string
	Mode     string // how the policy picks now
	Ready    int
	Panic    bool   // ejections are ignored, for everything is ejected
	Reason   string // why nothing is ready, when nothing is

	Requests, Retries, BudgetSpent uint64 // leases granted, retries among them, retries forbidden
	// Requests that got the endpoint of their affinity, and those that did not get
	// it at once: it was not ready, had no room or had been tried.
	Pinned, PinMissed            uint64
	Refused                      map[string]uint64
	Waiting                      int
	Queued, Overflowed, TimedOut uint64

	Capacity         string // state of the capacity breaker
	CapacityFor      time.Duration
	CapacityTrips    uint64
	EjectedEndpoints int
	Shadow           *ShadowStatus // nil: there is none
	Here             *Place        // nil: nothing is preferred for being near
	Endpoints        []EndpointStatus
}

// EndpointStatus is one endpoint's state.
type EndpointStatus struct {
	Instance  discovery.Instance
	Distance  string  // of Locality.Prefer what it shares with this sidecar, else "elsewhere"; "": nothing is preferred
	Ramp      float64 // share of its weight that it counts with, below 1 in a slow start
	Ready     bool
	Why       string // why it is not ready
	Limit     int
	InFlight  int
	Totals    picker.Totals
	Latency   time.Duration
	Load      *picker.Load // newest agent figures, nil: none yet
	LoadAge   time.Duration
	Breaker   string
	Returns   time.Duration // until the ejection runs out
	Ejections uint64
}

// Status describes the balancer now.
func (b *Balancer) Status() Status {
	s, now := b.snap.Load(), b.env.Now()
	st := Status{
		Service: b.cfg.Service, Seen: s.seen, Draining: b.draining.Load(),
		Policy: b.policy.Name(), Mode: s.picker.Mode(now),
		Panic:    s.ignoring,
		Requests: b.granted.Load(), Retries: b.retries.Load(), BudgetSpent: b.budgetSpent.Load(),
		Pinned: b.pinned.Load(), PinMissed: b.pinMissed.Load(),
		Refused:  make(map[string]uint64, numReasons),
		Waiting:  int(b.queue.waiting.Load()),
		Queued:   b.queue.granted.Load(),
		TimedOut: b.queue.timedOut.Load(), Overflowed: b.queue.overflowed.Load(),
		Capacity: b.capacity.State(now).String(), CapacityTrips: b.capacity.Trips(),
		EjectedEndpoints: b.guard.Ejected(),
		Shadow:           b.shadowStatus(s, now),
	}
	if len(b.cfg.Locality.Prefer) > 0 {
		here := b.Here()
		st.Here = &here
	}
	if b.capacity.State(now) == breaker.Open {
		st.CapacityFor = b.capacity.Until() - now
	}
	for i, name := range reasonNames {
		st.Refused[name] = b.refused[i].Load()
	}
	for _, m := range s.all {
		e := m.status(s, now)
		e.Distance = b.distanceName(m.ep.Distance())
		if e.Ready {
			st.Ready++
		}
		st.Endpoints = append(st.Endpoints, e)
	}
	if st.Ready == 0 {
		st.Reason = s.whyNone().String()
	}
	return st
}

// whyNone is the Reason that a request without an endpoint would get now.
func (s *snapshot) whyNone() Reason {
	for _, m := range s.ready {
		if !m.ep.HasRoom() {
			return Saturated
		}
	}
	return s.reason
}

func (m *member) status(s *snapshot, now time.Duration) EndpointStatus {
	state := m.br.State(now)
	e := EndpointStatus{
		Instance: *m.inst.Load(), Ramp: m.ep.Ramp(now),
		Limit: m.ep.Limit(), InFlight: m.ep.InFlight(),
		Totals: m.ep.Totals(), Latency: m.ep.Latency(), Load: m.ep.Load(),
		Breaker: state.String(), Ejections: m.br.Ejections(),
	}
	if e.Load != nil {
		e.LoadAge = now - e.Load.At
	}
	if state == breaker.Open {
		e.Returns = m.br.Until() - now
	}
	if e.Why = m.why(&e, state, s.ignoring); e.Why == "" && s.vetoes(m, now) {
		e.Why = vetoText(e.Load)
	}
	if e.Why == "" && m.ep.Rank() > s.tier {
		e.Why = s.whyStandby()
	}
	e.Ready = e.Why == ""
	return e
}

// vetoText says why a policy leaves an endpoint out that is ready otherwise.
func vetoText(l *picker.Load) string {
	if l != nil && !l.Listening {
		return "its agent sees nobody listen"
	}
	if l != nil && l.Mem >= 0 {
		return fmt.Sprintf("memory at %.0f %% of its limit", 100*l.Mem)
	}
	return "left out by the policy"
}

// why says in a few words why an endpoint is not ready, "" if it is.
func (m *member) why(e *EndpointStatus, state breaker.State, ignoring bool) string {
	switch {
	case e.Instance.Health > discovery.Warning:
		return e.Instance.Health.String() // also in maintenance, when the weight is 0
	case !eligible(&e.Instance):
		return "draining (weight 0)"
	case ignoring && m.ep.HasRoom():
		return ""
	case state == breaker.Open:
		return fmt.Sprintf("ejected, back in %.1f s", e.Returns.Seconds())
	case !m.ep.HasRoom() && state == breaker.HalfOpen:
		return "half-open, waiting for its probe"
	case !m.ep.HasRoom():
		return fmt.Sprintf("at its limit of %d", e.Limit)
	}
	return ""
}
