package admin

import (
	"math"
	"time"

	"outrigger/agentstats"
	"outrigger/picker"
	"outrigger/sidecar/balance"
)

// classNames are the status classes; 0 is none. Read-only.
var classNames = [6]string{"", "1xx", "2xx", "3xx", "4xx", "5xx"}

func (s *Server) describe(services []Service) StatusDoc {
	now := s.o.Now()
	doc := StatusDoc{
		Version: s.o.Version, Time: now, UptimeSeconds: max(0, now.Sub(s.started).Seconds()),
		WaitingFor: s.waiting(), Draining: s.o.Draining(),
		Services: make([]ServiceDoc, 0, len(services)),
	}
	if s.o.Consul != nil {
		doc.Consul = describeConsul(s.o.Consul())
	}
	doc.Ready = !doc.Draining && len(doc.WaitingFor) == 0
	for _, sv := range services {
		doc.Services = append(doc.Services, sv.describe())
	}
	return doc
}

func (sv *Service) describe() ServiceDoc {
	st := sv.Status()
	doc := ServiceDoc{
		Name: sv.Name, Listen: sv.Listen, Policy: st.Policy, Mode: st.Mode,
		Draining: st.Draining, Panic: st.Panic, EjectionsByReasonTotal: st.EjectedBy,
		FailoversTotal: st.Failovers, PanicsTotal: st.Panics, EndpointsListed: st.PanicListed, EndpointsHealthy: st.PanicHealthy,
		EndpointsTotal: len(st.Endpoints), EndpointsReady: st.Ready, EndpointsEjected: st.EjectedEndpoints,
		WhyNoneReady:  st.Reason,
		AttemptsTotal: st.Requests, RetriesTotal: st.Retries, RetriesDeniedTotal: st.BudgetSpent,
		PinnedTotal: st.Pinned, PinMissedTotal: st.PinMissed,
		RefusedTotal: st.Refused,
		Queue: QueueDoc{
			Waiting: st.Waiting, ServedTotal: st.Queued,
			OverflowedTotal: st.Overflowed, TimedOutTotal: st.TimedOut,
		},
		Capacity: CapacityDoc{
			State: st.Capacity, OpenForSeconds: positive(st.CapacityFor), TripsTotal: st.CapacityTrips,
		},
		Endpoints: make([]EndpointDoc, 0, len(st.Endpoints)),
	}
	if st.PanicListed > 0 {
		doc.PanicHealthyShare = known(float64(st.PanicHealthy) / float64(st.PanicListed))
	}
	if st.Shadow != nil {
		doc.Shadow = describeShadow(st.Shadow)
	}
	if h := st.Here; h != nil {
		doc.Here = &HereDoc{h.Node, h.Zone, h.Datacenter}
	}
	names := sv.sources(&doc, &st)
	if sv.Traffic != nil {
		doc.Traffic = describeTraffic(sv.Traffic())
	}
	for i := range st.Endpoints {
		e := &st.Endpoints[i]
		doc.Endpoints = append(doc.Endpoints, sv.endpoint(e))
		if e.Instance.Tier > 0 {
			doc.Endpoints[i].Tier = tierName(names, e.Instance.Tier)
		}
	}
	return doc
}

func describeTraffic(t Traffic) *TrafficDoc {
	doc := &TrafficDoc{
		ConnectionsOpen: t.Open, TunnelsOpen: t.Tunnels, ConnectionsAcceptedTotal: t.Accepted,
		BackendResponsesTotal: map[string]uint64{}, OwnResponsesTotal: map[string]uint64{},
		ClientErrorsTotal: t.ClientErrors, ClientsGoneTotal: t.ClientGone, ResponsesAbortedTotal: t.Aborted,
		RetriesTotal: map[string]uint64{}, AccessLogDroppedTotal: t.LogDropped,
	}
	for class := 1; class < len(classNames); class++ {
		doc.BackendResponsesTotal[classNames[class]] = t.Passed[class]
		doc.OwnResponsesTotal[classNames[class]] = t.Own[class]
	}
	for i, cause := range t.RetryCauses {
		doc.RetriesTotal[cause] = t.Retries[i]
	}
	return doc
}

func (sv *Service) endpoint(e *balance.EndpointStatus) EndpointDoc {
	doc := EndpointDoc{
		ID: e.Instance.ID, Node: e.Instance.Node, Datacenter: e.Instance.Datacenter,
		Address: e.Instance.HostPort(), Weight: e.Instance.Weight, Health: e.Instance.Health.String(),
		Unlisted: e.Instance.Unlisted, Despite: e.Despite,
		DampedForSeconds: positive(e.Damped), FallsTotal: e.Falls,
		Ready: e.Ready, Why: e.Why, InFlight: e.InFlight,
		Backup: e.Instance.Backup, Distance: e.Distance,
		RequestsTotal: e.Totals.Requests, SuccessesTotal: e.Totals.Successes,
		FailuresTotal: e.Totals.Failures, DropsTotal: e.Totals.Drops, IgnoredTotal: e.Totals.Ignored,
		LatencySeconds: positive(e.Latency),
		Breaker: EndpointBreakerDoc{
			State: e.Breaker, ReturnsInSeconds: positive(e.Returns), EjectionsTotal: e.Ejections, LastReason: e.Cause,
		},
	}
	if e.Limit > 0 {
		doc.Limit = &e.Limit
	}
	if e.Flaps > 0 {
		doc.Flaps = known(e.Flaps)
	}
	if e.Ramp > 0 && e.Ramp < 1 {
		doc.SlowStart = known(e.Ramp)
	}
	var a AgentStatus
	if sv.Agents != nil {
		if a = sv.Agents(e.Instance.ID); a.Polled {
			doc.Agent = &AgentDoc{a.Addr, a.Polls, a.Failures, a.Rejected, a.LastError}
		}
	}
	if sv.Checks != nil {
		doc.Check = describeCheck(sv.Checks(e.Instance.ID))
	}
	if e.Load != nil {
		doc.Figures = describeFigures(e.Load, e.LoadAge)
		if e.Load.At+e.LoadAge < a.Expires {
			doc.Figures.addReport(&a.Report)
		}
	}
	return doc
}

func describeCheck(c Check) *CheckDoc {
	if !c.Checked {
		return nil
	}
	doc := &CheckDoc{
		State: c.State, Error: c.Error, TookSeconds: positive(c.Took),
		SuccessesTotal: c.Successes, FailuresTotal: c.Failures, UnmadeTotal: c.Unmade,
	}
	if c.State == checkUp || c.State == checkDown {
		doc.ForSeconds = known(max(0, c.For).Seconds())
	}
	return doc
}

func describeFigures(l *picker.Load, age time.Duration) *FiguresDoc {
	return &FiguresDoc{
		AgeSeconds: max(0, age.Seconds()), Expired: expired(l, age), Listening: l.Listening,
		CPU: known(l.CPU), Memory: known(l.Mem), Cores: known(l.Cores), AvailableCores: known(l.Avail),
		InFlight: known(l.InFlight), OwnInFlight: known(l.OwnInFlight),
		Concurrency: known(l.Conc), ErrorShare: known(l.Err),
	}
}

// addReport adds what policies do not look at.
func (d *FiguresDoc) addReport(r *agentstats.Report) {
	d.AcceptQueue, d.AcceptLimit = given(r.AcceptQueue), given(r.AcceptLimit)
	d.MemoryBytes, d.MemoryLimit = given(r.MemBytes), given(r.MemLimit)
	d.ReceiveRate, d.TransmitRate = given(r.RxBytes), given(r.TxBytes)
	d.InFlightSource = r.InFlightSource
	if p := &r.Pressure; *p != (agentstats.Pressure{}) {
		d.Pressure = &PressureDoc{
			p.Scope, given(p.CPU.Some), given(p.CPU.Full),
			given(p.Memory.Some), given(p.Memory.Full), given(p.IO.Some), given(p.IO.Full),
		}
	}
}

// given returns a figure of a report, which has been checked, or nil.
func given[T bool | int64 | float64](o agentstats.Opt[T]) *T {
	v, ok := o.Get()
	if !ok {
		return nil
	}
	return &v
}

// expired reports whether policies have stopped believing figures of this age.
func expired(l *picker.Load, age time.Duration) bool { return l.At+age >= l.Expires }

// known returns a figure unless it is picker.Absent or no number that JSON has.
func known(v float64) *float64 {
	if !(v >= 0) || math.IsInf(v, 1) {
		return nil
	}
	return &v
}

// positive returns a time in seconds, nil for 0, where that means none.
func positive(d time.Duration) *float64 {
	if d <= 0 {
		return nil
	}
	return known(d.Seconds())
}
