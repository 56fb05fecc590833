package admin

import (
	"github.com/prometheus/client_golang/prometheus"

	"outrigger/breaker"
	"outrigger/picker"
	"outrigger/sidecar/balance"
)

const (
	gauge   = prometheus.GaugeValue
	counter = prometheus.CounterValue
)

// unknown is the value of a metric that is left out.
const unknown = picker.Absent

// serviceMetrics lists what each service exports, labelled with its name.
func serviceMetrics() []metric[serviceView] {
	t := &table[serviceView]{base: []string{"service"}}
	balanceMetrics(t)
	shadowMetrics(t)
	discoveryMetrics(t)
	doubtMetrics(t)
	fallbackMetrics(t)
	snapshotMetrics(t)
	trafficMetrics(t)
	loadMetrics(t)
	return t.rows
}

func balanceMetrics(t *table[serviceView]) {
	type view = serviceView
	t.add(gauge, "service_endpoints", "Endpoints in the set in use.",
		func(v view) float64 { return float64(len(v.Endpoints)) })
	t.add(gauge, "service_endpoints_ready", "Endpoints that may be picked.",
		func(v view) float64 { return float64(v.Ready) })
	t.add(gauge, "service_endpoints_ejected", "Endpoints whose breaker keeps them out.",
		func(v view) float64 { return float64(v.EjectedEndpoints) })
	t.addBy(counter, "reason", "service_ejections_total",
		"Ejections of the service's endpoints, those that left among them, by what they were for.",
		func(v view, emit func(float64, ...string)) {
			for _, cause := range breaker.Causes() {
				emit(float64(v.EjectedBy[cause]), cause)
			}
		})
	t.add(gauge, "service_panic", "1 while health is ignored because too few endpoints are healthy.",
		func(v view) float64 { return truth(v.Panic) })
	t.add(counter, "service_panics_total", "How often health began to be ignored.",
		func(v view) float64 { return float64(v.Panics) })
	t.add(gauge, "service_endpoints_listed", "Endpoints that are neither draining nor in maintenance.",
		func(v view) float64 { return float64(v.PanicListed) })
	t.add(gauge, "service_endpoints_healthy", "Listed endpoints that Consul, active checks, ejection and damping let through.",
		func(v view) float64 { return float64(v.PanicHealthy) })
	t.addBy(gauge, "name", "service_tier", "1 for the last source whose endpoints are needed: primary or a fallback; absent where there is no fallback.",
		func(v view, emit func(float64, ...string)) {
			if v.discovery == nil || len(v.discovery.Fallbacks) == 0 {
				return
			}
			for i, name := range tiers(v.discovery) {
				emit(truth(i == v.Tier), name)
			}
		})
	t.add(counter, "service_failovers_total", "How often endpoints of a fallback, or of a further one, came into use.",
		func(v view) float64 { return float64(v.Failovers) })
	t.add(gauge, "service_draining", "1 while new requests are turned away for the shutdown.",
		func(v view) float64 { return truth(v.Draining) })
	t.add(counter, "service_attempts_total", "Requests sent to an endpoint, each retry counting again.",
		func(v view) float64 { return float64(v.Requests) })
	t.add(counter, "service_retries_total", "Attempts that were retries.",
		func(v view) float64 { return float64(v.Retries) })
	t.add(counter, "service_retries_denied_total", "Retries that the retry budget forbade.",
		func(v view) float64 { return float64(v.BudgetSpent) })
	t.add(counter, "service_pinned_total", "Requests that went where their affinity cookie says.",
		func(v view) float64 { return float64(v.Pinned) })
	t.add(counter, "service_pin_missed_total", "Requests whose affinity cookie names an endpoint that could not take them.",
		func(v view) float64 { return float64(v.PinMissed) })
	t.addBy(counter, "reason", "service_refused_total", "Our own 503 answers by their Outrigger-Reason.",
		func(v view, emit func(float64, ...string)) {
			for reason, n := range v.Refused {
				emit(float64(n), reason)
			}
		})
	t.add(gauge, "queue_waiting", "Requests waiting for a free slot.",
		func(v view) float64 { return float64(v.Waiting) })
	t.add(counter, "queue_served_total", "Requests that waited and got a slot.",
		func(v view) float64 { return float64(v.Queued) })
	t.add(counter, "queue_overflowed_total", "Requests turned away because the queue was full.",
		func(v view) float64 { return float64(v.Overflowed) })
	t.add(counter, "queue_timed_out_total", "Requests turned away after waiting in vain.",
		func(v view) float64 { return float64(v.TimedOut) })
	t.addBy(gauge, "state", "capacity_breaker_state", "1 for the state that the service-level breaker is in.",
		func(v view, emit func(float64, ...string)) { states(v.Capacity, emit) })
	t.add(counter, "capacity_breaker_trips_total", "How often the service-level breaker opened.",
		func(v view) float64 { return float64(v.CapacityTrips) })
}

func shadowMetrics(t *table[serviceView]) {
	type status = *balance.ShadowStatus
	by := func(kind prometheus.ValueType, label, name, help string, read func(s status, emit func(float64, ...string))) {
		t.addBy(kind, label, "service_shadow_"+name, help, func(v serviceView, emit func(float64, ...string)) {
			if v.Shadow != nil {
				read(v.Shadow, emit)
			}
		})
	}
	add := func(name, help string, read func(status) uint64) {
		by(counter, "", name, help, func(s status, emit func(float64, ...string)) { emit(float64(read(s))) })
	}
	by(gauge, "policy", "info", "1 for the policy that picks beside the service's own, without effect.",
		func(s status, emit func(float64, ...string)) { emit(1, s.Policy) })
	add("picks_total", "Picks of the policy beside which the shadow picked.", func(s status) uint64 { return s.Picks })
	add("disagreed_total", "Picks for which the shadow would have taken another endpoint, or none.",
		func(s status) uint64 { return s.Disagreed })
	add("none_total", "Picks for which the shadow would have taken none.", func(s status) uint64 { return s.None })
	add("predicted_picks_total", "Picks with a predicted time to the first byte at the endpoints of both.",
		func(s status) uint64 { return s.Predicted })
	by(counter, "by", "predicted_seconds_total",
		"Sum of these predicted (not measured) times, at the endpoints of the policy and at those of the shadow: their difference is what the shadow would have saved.",
		func(s status, emit func(float64, ...string)) {
			emit(s.PolicySeconds, "policy")
			emit(s.ShadowSeconds, "shadow")
		})
}

func trafficMetrics(t *table[serviceView]) {
	add := func(kind prometheus.ValueType, name, help string, read func(*Traffic) float64) {
		t.add(kind, name, help, func(v serviceView) float64 {
			if v.traffic == nil {
				return unknown
			}
			return read(v.traffic)
		})
	}
	byClass := func(name, help string, read func(*Traffic) *[len(classNames)]uint64) {
		t.addBy(counter, "class", name, help, func(v serviceView, emit func(float64, ...string)) {
			if v.traffic == nil {
				return
			}
			for class := 1; class < len(classNames); class++ {
				emit(float64(read(v.traffic)[class]), classNames[class])
			}
		})
	}
	byClass("backend_responses_total", "Answers of backends passed on to clients, by status class.",
		func(t *Traffic) *[len(classNames)]uint64 { return &t.Passed })
	byClass("own_responses_total", "Answers that the sidecar made itself, by status class.",
		func(t *Traffic) *[len(classNames)]uint64 { return &t.Own })
	t.addBy(counter, "cause", "retries_by_cause_total", "Tries after a request's first, by what they were due to.",
		func(v serviceView, emit func(float64, ...string)) {
			if v.traffic == nil {
				return
			}
			for i, cause := range v.traffic.RetryCauses {
				emit(float64(v.traffic.Retries[i]), cause)
			}
		})
	add(counter, "access_log_lines_total", "Lines of the access log that were written.",
		func(t *Traffic) float64 { return float64(t.LogWritten) })
	add(counter, "access_log_dropped_total", "Lines that were not, because the log could not keep up or failed.",
		func(t *Traffic) float64 { return float64(t.LogDropped) })
	add(counter, "access_log_errors_total", "Failures to write the access log.",
		func(t *Traffic) float64 { return float64(t.LogErrors) })
	add(counter, "client_errors_total", "Requests refused as invalid, ambiguous or too large.",
		func(t *Traffic) float64 { return float64(t.ClientErrors) })
	add(counter, "clients_gone_total", "Requests whose client left before the end.",
		func(t *Traffic) float64 { return float64(t.ClientGone) })
	add(counter, "responses_aborted_total", "Answers cut short because the backend broke off.",
		func(t *Traffic) float64 { return float64(t.Aborted) })
	add(gauge, "client_connections_open", "Client connections, upgraded ones among them.",
		func(t *Traffic) float64 { return float64(t.Open) })
	add(counter, "client_connections_accepted_total", "Client connections accepted.",
		func(t *Traffic) float64 { return float64(t.Accepted) })
	add(gauge, "tunnels_open", "Upgraded client connections.",
		func(t *Traffic) float64 { return float64(t.Tunnels) })
}

// states writes a breaker's state as Prometheus writes enums: one series for
// each, and 1 for the one that holds.
func states(now string, emit func(float64, ...string)) {
	for _, s := range []breaker.State{breaker.Closed, breaker.HalfOpen, breaker.Open} {
		emit(truth(s.String() == now), s.String())
	}
}
