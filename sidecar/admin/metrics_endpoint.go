package admin

import (
	"outrigger/agentstats"
	"outrigger/picker"
)

// endpointMetrics lists what each endpoint exports, labelled with its service
// and its ID.
func endpointMetrics() []metric[endpointView] {
	t := &table[endpointView]{base: []string{"service", "endpoint"}}
	trafficOfEndpoint(t)
	checksOfEndpoint(t)
	dampingOfEndpoint(t)
	figuresOfEndpoint(t)
	return t.rows
}

func trafficOfEndpoint(t *table[endpointView]) {
	type view = endpointView
	t.add(gauge, "endpoint_ready", "1 while the endpoint may be picked.",
		func(v view) float64 { return truth(v.Ready) })
	t.add(gauge, "endpoint_weight", "Weight from the catalog, 0 while draining.",
		func(v view) float64 { return float64(v.Instance.Weight) })
	t.add(gauge, "endpoint_in_flight", "Requests that this sidecar has at the endpoint.",
		func(v view) float64 { return float64(v.InFlight) })
	t.add(gauge, "endpoint_in_flight_limit", "Most requests that this sidecar has at the endpoint at once; absent when unlimited.",
		func(v view) float64 {
			if v.Limit == 0 {
				return unknown
			}
			return float64(v.Limit)
		})
	t.addBy(counter, "outcome", "endpoint_requests_total",
		"Requests that ended, by outcome: drop is the endpoint saying that it is overloaded, ignore says nothing of it (the client left).",
		func(v view, emit func(float64, ...string)) {
			emit(float64(v.Totals.Drops), picker.Drop.String()) // sorted: see byLabel
			emit(float64(v.Totals.Failures), picker.Failure.String())
			emit(float64(v.Totals.Ignored), picker.Ignore.String())
			emit(float64(v.Totals.Successes), picker.Success.String())
		})
	t.add(gauge, "endpoint_latency_ewma_seconds", "Moving average of the time to the first byte of successful answers; absent before the first.",
		func(v view) float64 {
			if v.Latency <= 0 {
				return unknown
			}
			return v.Latency.Seconds()
		})
	t.addBy(gauge, "state", "endpoint_breaker_state", "1 for the state that the endpoint's breaker is in.",
		func(v view, emit func(float64, ...string)) { states(v.Breaker, emit) })
	t.add(counter, "endpoint_ejections_total", "How often the endpoint was ejected.",
		func(v view) float64 { return float64(v.Ejections) })
}

// checksOfEndpoint lists what active checks came to.
func checksOfEndpoint(t *table[endpointView]) {
	t.add(gauge, "endpoint_check_up", "1 while the endpoint's active checks say that it is up; absent before the first says anything.",
		func(v endpointView) float64 {
			switch v.check.State {
			case checkUp:
				return 1
			case checkDown:
				return 0
			}
			return unknown
		})
	t.addBy(counter, "result", "endpoint_checks_total",
		"Active checks of the endpoint: unmade ones have no verdict, for a reason of the sidecar's own.",
		func(v endpointView, emit func(float64, ...string)) {
			if v.check.Checked {
				emit(float64(v.check.Failures), "failure")
				emit(float64(v.check.Successes), "success")
				emit(float64(v.check.Unmade), "unmade")
			}
		})
	t.add(gauge, "endpoint_check_seconds", "Duration of the endpoint's last active check.",
		func(v endpointView) float64 {
			if !v.check.Checked || v.check.Took <= 0 {
				return unknown
			}
			return v.check.Took.Seconds()
		})
}

// dampingOfEndpoint lists what keeps out an endpoint that changes its state often.
func dampingOfEndpoint(t *table[endpointView]) {
	t.add(counter, "endpoint_flaps_total", "How often the endpoint fell: critical, check down or gone.",
		func(v endpointView) float64 { return float64(v.Falls) })
	t.add(gauge, "endpoint_damped_seconds", "Time for which the endpoint is still kept out because it fell too often; absent when it is not.",
		func(v endpointView) float64 {
			if v.Damped <= 0 {
				return unknown
			}
			return v.Damped.Seconds()
		})
}

func figuresOfEndpoint(t *table[endpointView]) {
	polled := func(name, help string, read func(*AgentStatus) float64) {
		t.add(counter, "endpoint_agent_"+name, help, func(v endpointView) float64 {
			if !v.agent.Polled {
				return unknown
			}
			return read(&v.agent)
		})
	}
	polled("polls_total", "Polls of the endpoint's agent.", func(a *AgentStatus) float64 { return float64(a.Polls) })
	polled("poll_failures_total", "Polls of the endpoint's agent that got no answer or an error.",
		func(a *AgentStatus) float64 { return float64(a.Failures) })
	polled("reports_rejected_total", "Answers of the endpoint's agent that were not believed.",
		func(a *AgentStatus) float64 { return float64(a.Rejected) })
	polled("reports_repeated_total", "Answers of the endpoint's agent that were its last report again.",
		func(a *AgentStatus) float64 { return float64(a.Repeated) })

	t.add(gauge, "endpoint_agent_report_age_seconds", "Age of the newest report; its figures are exported until it expires.",
		func(v endpointView) float64 {
			if v.Load == nil {
				return unknown
			}
			return max(0, v.LoadAge.Seconds())
		})
	// Old figures would look like a steady state.
	figure := func(name, help string, read func(*picker.Load) float64) {
		t.add(gauge, "endpoint_agent_"+name, help, func(v endpointView) float64 {
			if v.Load == nil || expired(v.Load, v.LoadAge) {
				return unknown
			}
			return read(v.Load)
		})
	}
	figure("cpu_ratio", "Share of its cores that the backend uses.", func(l *picker.Load) float64 { return l.CPU })
	figure("memory_ratio", "Share of its memory limit that the backend uses.", func(l *picker.Load) float64 { return l.Mem })
	figure("cores", "CPU limit that applies to the backend, in cores.", func(l *picker.Load) float64 { return l.Cores })
	figure("available_cores", "Cores that the backend could use now.", func(l *picker.Load) float64 { return l.Avail })
	figure("in_flight", "Requests in the backend, from every client.", func(l *picker.Load) float64 { return l.InFlight })
	figure("sustained_concurrency", "Requests that the backend sustains at once.", func(l *picker.Load) float64 { return l.Conc })
	figure("error_ratio", "Share of requests that the backend itself saw fail.", func(l *picker.Load) float64 { return l.Err })
	figure("listening", "0 when the agent sees nobody accept on the backend's port.", func(l *picker.Load) float64 { return truth(l.Listening) })
	reportOfEndpoint(t)
}

// reportOfEndpoint lists the figures that policies do not look at.
func reportOfEndpoint(t *table[endpointView]) {
	reported := func(v *endpointView) bool { return v.Load != nil && v.Load.At+v.LoadAge < v.agent.Expires }
	count := func(name, help string, read func(*agentstats.Report) agentstats.Opt[int64]) {
		t.add(gauge, "endpoint_agent_"+name, help, func(v endpointView) float64 {
			n, ok := read(&v.agent.Report).Get()
			if !ok || !reported(&v) {
				return unknown
			}
			return float64(n)
		})
	}
	count("accept_queue_connections", "Connections that wait for the backend to accept them.",
		func(r *agentstats.Report) agentstats.Opt[int64] { return r.AcceptQueue })
	count("accept_queue_limit_connections", "Waiting connections above which the backend's kernel refuses more.",
		func(r *agentstats.Report) agentstats.Opt[int64] { return r.AcceptLimit })
	count("memory_bytes", "Memory that the backend uses.",
		func(r *agentstats.Report) agentstats.Opt[int64] { return r.MemBytes })
	count("memory_limit_bytes", "Memory limit that applies to the backend.",
		func(r *agentstats.Report) agentstats.Opt[int64] { return r.MemLimit })
	rate := func(name, help string, read func(*agentstats.Report) agentstats.Opt[float64]) {
		t.add(gauge, "endpoint_agent_"+name, help, func(v endpointView) float64 {
			if !reported(&v) {
				return unknown
			}
			return read(&v.agent.Report).Or(unknown)
		})
	}
	rate("receive_bytes_per_second", "Bytes that the backend's network receives.",
		func(r *agentstats.Report) agentstats.Opt[float64] { return r.RxBytes })
	rate("transmit_bytes_per_second", "Bytes that the backend's network sends.",
		func(r *agentstats.Report) agentstats.Opt[float64] { return r.TxBytes })
	t.addBy(gauge, "source", "endpoint_agent_in_flight_source", "1 for where the agent has the requests in the backend from.",
		func(v endpointView, emit func(float64, ...string)) {
			r := &v.agent.Report
			if r.InFlight.IsZero() || !reported(&v) {
				return
			}
			switch s := r.InFlightSource; s {
			case agentstats.SourceDeclared, agentstats.SourceKernel, agentstats.SourceSidecars:
				emit(1, s)
			default: // an agent cannot make up labels
				emit(1, "other")
			}
		})
	t.addBy(gauge, "stall", "endpoint_agent_pressure_ratio", "Share of time in which some or all (full) tasks of the backend, or of its host, waited for a resource.",
		func(v endpointView, emit func(float64, ...string)) {
			if !reported(&v) {
				return
			}
			p := &v.agent.Report.Pressure
			for _, s := range []struct {
				name string
				v    agentstats.Opt[float64]
			}{
				{"cpu_some", p.CPU.Some}, {"cpu_full", p.CPU.Full}, {"memory_some", p.Memory.Some},
				{"memory_full", p.Memory.Full}, {"io_some", p.IO.Some}, {"io_full", p.IO.Full},
			} {
				emit(s.v.Or(unknown), s.name)
			}
		})
}
