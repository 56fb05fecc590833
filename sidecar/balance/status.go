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
	Panic    bool // health is ignored, for too few endpoints are healthy
	// PanicHealthy of PanicListed endpoints were healthy when the ready set was last
	// made, of those that would serve; their share is what Config.PanicThreshold is held
	// against.
	PanicHealthy, PanicListed int
	Panics                    uint64 // how often a panic began
	Reason                    string // why nothing is ready, when nothing is

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
	EjectedBy        map[string]uint64 // ejections ever, by breaker.Causes
	Shadow           *ShadowStatus     // nil: there is none
	Here             *Place            // nil: nothing is preferred for being near
	// Tier is the last tier of sources that is needed, 0 for the primary, n for the
	// n-th fallback; TierFor is for how long, and Failovers how often a later one came
	// to be needed.
	Tier      int
	TierFor   time.Duration
	Failovers uint64
	Endpoints []EndpointStatus
}

// EndpointStatus is one endpoint's state.
type EndpointStatus struct {
	Instance  discovery.Instance
	Distance  string  // of Locality.Prefer what it shares with this sidecar, else "elsewhere"; "": nothing is preferred
	Ramp      float64 // share of its weight that it counts with, below 1 in a slow start
	Fading    bool    // it is of a tier that is not needed any more, and its Ramp sinks
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
	Cause     string // of the last of them, one of breaker.Causes; "": none
	Check     CheckState
	CheckAge  time.Duration // how long it has said so, 0: not known
	Damped    time.Duration // until it is let in again after it fell too often
	Flaps     float64       // falls that are not forgotten, see breaker.DampConfig
	Falls     uint64        // all of them
	Despite   string        // what would take it out, and is ignored in a panic: "critical", "check down", "damped", "ejected", "half-open"
}

// Status describes the balancer now.
func (b *Balancer) Status() Status {
	s, now := b.snap.Load(), b.env.Now()
	st := Status{
		Service: b.cfg.Service, Seen: s.seen, Draining: b.draining.Load(),
		Policy: b.policy.Name(), Mode: s.picker.Mode(now),
		Panic: s.ignoring, PanicHealthy: s.healthy, PanicListed: s.listed, Panics: b.panics.Load(),
		Requests: b.granted.Load(), Retries: b.retries.Load(), BudgetSpent: b.budgetSpent.Load(),
		Pinned: b.pinned.Load(), PinMissed: b.pinMissed.Load(),
		Refused:  make(map[string]uint64, numReasons),
		Waiting:  int(b.queue.waiting.Load()),
		Queued:   b.queue.granted.Load(),
		TimedOut: b.queue.timedOut.Load(), Overflowed: b.queue.overflowed.Load(),
		Capacity: b.capacity.State(now).String(), CapacityTrips: b.capacity.Trips(),
		EjectedEndpoints: b.guard.Ejected(), EjectedBy: map[string]uint64{},
		Shadow: b.shadowStatus(s, now),
	}
	if b.cfg.Breaker.SuccessRate.Factor > 0 && !b.compares {
		st.Mode += notCompared
	}
	if len(b.cfg.Locality.Prefer) > 0 {
		here := b.Here()
		st.Here = &here
	}
	if b.capacity.State(now) == breaker.Open {
		st.CapacityFor = b.capacity.Until() - now
	}
	st.Tier, st.Failovers = s.level, s.failovers
	if s.levelSince > 0 {
		st.TierFor = now - s.levelSince
	}
	for i, name := range reasonNames {
		st.Refused[name] = b.refused[i].Load()
	}
	for _, cause := range breaker.Causes() {
		st.EjectedBy[cause] = b.guard.Ejections(cause)
	}
	for _, m := range s.all {
		e := m.status(s, now)
		if f := m.flap.Load(); f != nil {
			e.Falls, e.Flaps, e.Damped = f.Falls, b.cfg.Damping.Penalty(*f, now), max(0, f.Until-now)
		}
		e.Distance = b.cfg.Locality.distanceName(st.Here, &e.Instance)
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
		Instance: *m.inst.Load(), Ramp: m.ep.Ramp(now), Fading: m.ep.Fading(),
		Limit: m.ep.Limit(), InFlight: m.ep.InFlight(),
		Totals: m.ep.Totals(), Latency: m.ep.Latency(), Load: m.ep.Load(),
		Breaker: state.String(), Ejections: m.br.Ejections(), Cause: m.br.LastCause(),
	}
	if e.Load != nil {
		e.LoadAge = now - e.Load.At
	}
	if state == breaker.Open {
		e.Returns = m.br.Until() - now
	}
	if c := m.check.Load(); c != nil && c.Known {
		e.Check, e.CheckAge = c.CheckState, max(0, now-c.Since)
	}
	if out := m.out(now); out.listed() && s.ignores(m) {
		e.Despite = outNames[out]
	}
	if e.Why = m.why(&e, s, now); e.Why == "" && s.vetoes(m, now) {
		e.Why = vetoText(e.Load)
	}
	if e.Why == "" {
		e.Why = s.whyStandby(m)
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

// why says in a few words why an endpoint is not ready, "" if it is, but for the
// picker's veto.
func (m *member) why(e *EndpointStatus, s *snapshot, now time.Duration) string {
	out := m.out(now)
	ignored := out.listed() && s.ignores(m)
	_, refuses := m.unreachable(now)
	if held := s.ignoring && !ignored; held && out.listed() && out > ejected && !refuses {
		switch m.br.State(now) { // it failed in the panic
		case breaker.Open:
			out = ejected
		case breaker.HalfOpen:
			out = halfOpen
		}
	}
	text := m.outText(out, e, now)
	if refuses && s.ignoring && text != "" {
		text += ", and nobody could connect" // or it would be in
	}
	switch {
	case text != "" && !ignored && s.strict[m] != oneByOne:
		return text
	case m.ep.HasRoom():
		return ""
	case out == halfOpen && !ignored:
		return "half-open, waiting for its probe"
	case text != "" && !ignored:
		return text + ": one request tries"
	}
	return fmt.Sprintf("at its limit of %d", e.Limit)
}

// outText says why an endpoint is out. One that is half-open has its turn.
func (m *member) outText(out outReason, e *EndpointStatus, now time.Duration) string {
	switch out {
	case inService, halfOpen:
		return ""
	case weightZero:
		return "draining (weight 0)"
	case checkDown:
		return fmt.Sprintf("active check: %.80s", e.Check.Error)
	case damped:
		return fmt.Sprintf("damped for changing state too often, back in %.1f s", max(0, m.flap.Load().Until-now).Seconds())
	case ejected:
		return fmt.Sprintf("ejected, back in %.1f s", e.Returns.Seconds())
	}
	return outNames[out]
}
