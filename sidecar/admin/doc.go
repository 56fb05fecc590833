package admin

import "time"

// The types of /v1/status. They are its documentation, and `outrigger status`
// decodes them. Times are seconds, shares are 0 to 1. What is not known is
// absent: 0 is a measured 0. Fields may be added, and are not renamed.

// StatusDoc is the answer of /v1/status.
type StatusDoc struct {
	Version       string    `json:"version"`
	Time          time.Time `json:"time"`
	UptimeSeconds float64   `json:"uptime_seconds"`
	// Ready is what /readyz says; WaitingFor names the services of which
	// discovery has told nothing yet.
	Ready      bool         `json:"ready"`
	WaitingFor []string     `json:"waiting_for,omitempty"`
	Draining   bool         `json:"draining"`
	Consul     *ConsulDoc   `json:"consul,omitempty"` // absent: no service uses it
	Services   []ServiceDoc `json:"services"`
}

// ErrorDoc is the answer to a question that has none.
type ErrorDoc struct {
	Error string   `json:"error"`
	Known []string `json:"known,omitempty"` // names of services
}

// ServiceDoc is one service.
type ServiceDoc struct {
	Name     string `json:"name"`
	Listen   string `json:"listen"`
	Policy   string `json:"policy"`
	Mode     string `json:"mode"` // how the policy picks now
	Draining bool   `json:"draining"`
	// Panic: too few endpoints are healthy, so health is ignored.
	Panic bool `json:"panic"`
	// PanicHealthyShare of the listed endpoints is healthy: below panic_threshold
	// there is a panic. Absent where none is listed.
	PanicHealthyShare *float64 `json:"panic_healthy_share,omitempty"`
	PanicsTotal       uint64   `json:"panics_total"` // how often one began

	EndpointsTotal   int `json:"endpoints_total"`
	EndpointsReady   int `json:"endpoints_ready"`
	EndpointsEjected int `json:"endpoints_ejected"`
	// Of those that are neither draining nor in maintenance: how many there are, and
	// how many of them Consul, checks, ejection and damping let through.
	EndpointsListed  int    `json:"endpoints_listed"`
	EndpointsHealthy int    `json:"endpoints_healthy"`
	WhyNoneReady     string `json:"why_none_ready,omitempty"` // an Outrigger-Reason

	// Tier is the last source whose endpoints are needed: primary, or the name of a
	// fallback; absent where there is none. FailoversTotal is how often a later one
	// came into use.
	Tier           string   `json:"tier,omitempty"`
	TierForSeconds *float64 `json:"tier_for_seconds,omitempty"`
	FailoversTotal uint64   `json:"failovers_total"`

	// Ejections by reason: consecutive (failures in a row), ratio (share of its
	// requests), unreachable, success_rate (against the others), probe (failed the
	// try whether an ejection is over). They count endpoints that have left too.
	EjectionsByReasonTotal map[string]uint64 `json:"ejections_by_reason_total"`

	// AttemptsTotal counts leases: a request sent to an endpoint, and sent again.
	AttemptsTotal      uint64 `json:"attempts_total"`
	RetriesTotal       uint64 `json:"retries_total"`        // among the attempts
	RetriesDeniedTotal uint64 `json:"retries_denied_total"` // forbidden by the budget
	// Requests that got the endpoint of their affinity, and those that did not get
	// it at once: it was not ready, had no room or had been tried.
	PinnedTotal    uint64 `json:"pinned_total"`
	PinMissedTotal uint64 `json:"pin_missed_total"`
	// RefusedTotal counts our own 503s by Outrigger-Reason.
	RefusedTotal map[string]uint64 `json:"refused_total"`

	Here      *HereDoc      `json:"here,omitempty"`   // absent: nothing is preferred for being near
	Shadow    *ShadowDoc    `json:"shadow,omitempty"` // absent: there is none
	Queue     QueueDoc      `json:"queue"`
	Capacity  CapacityDoc   `json:"capacity_breaker"`
	Discovery *DiscoveryDoc `json:"discovery,omitempty"`
	Traffic   *TrafficDoc   `json:"traffic,omitempty"`
	Endpoints []EndpointDoc `json:"endpoints"` // in the order of discovery
}

// HereDoc is where this sidecar is, as far as it knows; what it does not know is
// absent.
type HereDoc struct {
	Node       string `json:"node,omitempty"`
	Zone       string `json:"zone,omitempty"`
	Datacenter string `json:"datacenter,omitempty"`
}

// ShadowDoc is how a second policy would have done, predicted and not measured:
// see balance.ShadowStatus for the yardstick and its limits.
type ShadowDoc struct {
	Policy string `json:"policy"`
	Mode   string `json:"mode"`

	PicksTotal     uint64 `json:"picks_total"`     // compared with the policy's
	DisagreedTotal uint64 `json:"disagreed_total"` // it would have taken another, or none
	NoneTotal      uint64 `json:"none_total"`      // it would have taken none

	// Over the picks with a prediction for the endpoints of both: the sums of the
	// times to the first byte, and what the shadow would have saved of them in
	// the mean, negative if it would have lost; absent until there is one.
	PredictedTotal              uint64   `json:"predicted_total"`
	PredictedPolicySecondsTotal float64  `json:"predicted_policy_seconds_total"`
	PredictedShadowSecondsTotal float64  `json:"predicted_shadow_seconds_total"`
	GainSeconds                 *float64 `json:"gain_seconds,omitempty"`
	GainShare                   *float64 `json:"gain_share,omitempty"` // of the policy's
}

// QueueDoc is the wait for a free slot.
type QueueDoc struct {
	Waiting         int    `json:"waiting"` // now
	ServedTotal     uint64 `json:"served_total"`
	OverflowedTotal uint64 `json:"overflowed_total"`
	TimedOutTotal   uint64 `json:"timed_out_total"`
}

// CapacityDoc is the service-level breaker.
type CapacityDoc struct {
	State          string   `json:"state"`                      // closed, open, half-open
	OpenForSeconds *float64 `json:"open_for_seconds,omitempty"` // still to go, while open
	TripsTotal     uint64   `json:"trips_total"`
}

// TrafficDoc is what clients got. The classes are "1xx" to "5xx".
type TrafficDoc struct {
	ConnectionsOpen          int64  `json:"connections_open"`
	TunnelsOpen              int64  `json:"tunnels_open"` // among the connections
	ConnectionsAcceptedTotal uint64 `json:"connections_accepted_total"`

	BackendResponsesTotal map[string]uint64 `json:"backend_responses_total"` // passed through, by class
	OwnResponsesTotal     map[string]uint64 `json:"own_responses_total"`     // made by the sidecar, by class

	ClientErrorsTotal     uint64 `json:"client_errors_total"`     // invalid, ambiguous or too large
	ClientsGoneTotal      uint64 `json:"clients_gone_total"`      // left before the end
	ResponsesAbortedTotal uint64 `json:"responses_aborted_total"` // the backend broke off

	RetriesTotal          map[string]uint64 `json:"retries_total"` // tries after the first, by cause
	AccessLogDroppedTotal uint64            `json:"access_log_dropped_total"`
}

// EndpointDoc is one endpoint.
type EndpointDoc struct {
	ID         string `json:"id"`
	Node       string `json:"node,omitempty"`
	Datacenter string `json:"datacenter,omitempty"`
	Address    string `json:"address"` // host:port
	Weight     int    `json:"weight"`  // 0: draining
	Health     string `json:"health"`  // passing, warning, critical, maintenance
	Ready      bool   `json:"ready"`
	Why        string `json:"why_not_ready,omitempty"`

	// Despite names what would take it out, and is ignored in a panic: critical, check
	// down, damped, ejected or half-open.
	Despite string `json:"despite,omitempty"`

	Backup bool `json:"backup,omitempty"`
	// Tier names the fallback source that it is of; absent: the primary.
	Tier string `json:"tier,omitempty"`
	// Unlisted: the registry does not list it any more, and it is kept because it
	// answers.
	Unlisted bool `json:"unlisted,omitempty"`
	// Distance is what it shares with this sidecar (node, zone, datacenter or
	// elsewhere); absent: nothing is preferred.
	Distance string `json:"distance,omitempty"`
	// DampedForSeconds is how long it is still kept out for having changed its state
	// too often; absent: it is not.
	DampedForSeconds *float64 `json:"damped_for_seconds,omitempty"`
	// Flaps are its falls (critical, check down, left) as they are remembered, half of
	// them after half_life; absent: none. FallsTotal counts all.
	Flaps      *float64 `json:"flaps,omitempty"`
	FallsTotal uint64   `json:"falls_total"`
	// SlowStart is the share of its weight that it counts with; absent: all.
	SlowStart *float64 `json:"slow_start,omitempty"`

	InFlight int  `json:"in_flight"`
	Limit    *int `json:"limit,omitempty"` // most in flight at once; absent: none

	// Finished requests, and how they ended: successes, failures, drops (the
	// endpoint said it is overloaded) and those that say nothing of it.
	RequestsTotal  uint64 `json:"requests_total"`
	SuccessesTotal uint64 `json:"successes_total"`
	FailuresTotal  uint64 `json:"failures_total"`
	DropsTotal     uint64 `json:"drops_total"`
	IgnoredTotal   uint64 `json:"ignored_total"`

	// Moving average of the time to the first byte of successful answers.
	LatencySeconds *float64 `json:"latency_ewma_seconds,omitempty"`

	Check *CheckDoc `json:"check,omitempty"` // absent: there are no active checks of it

	Breaker EndpointBreakerDoc `json:"breaker"`
	Agent   *AgentDoc          `json:"agent,omitempty"`   // absent: it has none
	Figures *FiguresDoc        `json:"figures,omitempty"` // absent: none came yet
}

// EndpointBreakerDoc is one endpoint's breaker.
type EndpointBreakerDoc struct {
	State            string   `json:"state"`                        // closed, open, half-open
	ReturnsInSeconds *float64 `json:"returns_in_seconds,omitempty"` // while open
	EjectionsTotal   uint64   `json:"ejections_total"`
	LastReason       string   `json:"last_reason,omitempty"` // of the last ejection, as in ejections_by_reason_total
}

// CheckDoc is what the active checks of an endpoint came to.
type CheckDoc struct {
	State          string   `json:"state"`                  // unknown, up, down
	ForSeconds     *float64 `json:"for_seconds,omitempty"`  // absent while unknown
	Error          string   `json:"error,omitempty"`        // why the last one failed; absent: it did not
	TookSeconds    *float64 `json:"took_seconds,omitempty"` // by the last one
	SuccessesTotal uint64   `json:"successes_total"`
	FailuresTotal  uint64   `json:"failures_total"`
	UnmadeTotal    uint64   `json:"unmade_total"` // without a verdict, for a reason of ours
}

// AgentDoc is what the polls of an endpoint's agent came to.
type AgentDoc struct {
	Address       string `json:"address"`
	PollsTotal    uint64 `json:"polls_total"`
	FailuresTotal uint64 `json:"failures_total"`
	RejectedTotal uint64 `json:"rejected_total"`
	LastError     string `json:"last_error,omitempty"` // kept after recovery
}

// FiguresDoc is the newest report of an endpoint's agent.
type FiguresDoc struct {
	AgeSeconds     float64  `json:"age_seconds"`
	Expired        bool     `json:"expired"`                   // too old: policies do without
	CPU            *float64 `json:"cpu,omitempty"`             // share of the cores
	Memory         *float64 `json:"memory,omitempty"`          // share of the limit, up to 2
	Cores          *float64 `json:"cores,omitempty"`           // the limit that applies
	AvailableCores *float64 `json:"available_cores,omitempty"` // what it could use now
	InFlight       *float64 `json:"in_flight,omitempty"`       // in the backend, from everyone
	OwnInFlight    *float64 `json:"own_in_flight,omitempty"`   // of those, this sidecar's
	Concurrency    *float64 `json:"concurrency,omitempty"`     // what it sustains
	ErrorShare     *float64 `json:"error_share,omitempty"`
	Listening      bool     `json:"listening"` // on its port; true also when the agent does not say

	// What policies do not look at.
	InFlightSource string       `json:"in_flight_source,omitempty"` // declared, kernel or sidecars
	AcceptQueue    *int64       `json:"accept_queue,omitempty"`     // connections that wait to be accepted
	AcceptLimit    *int64       `json:"accept_limit,omitempty"`     // above it the kernel refuses more
	Pressure       *PressureDoc `json:"pressure,omitempty"`
	MemoryBytes    *int64       `json:"memory_bytes,omitempty"` // the backend's own working set
	MemoryLimit    *int64       `json:"memory_limit_bytes,omitempty"`
	ReceiveRate    *float64     `json:"receive_bytes_per_second,omitempty"` // of its network namespace
	TransmitRate   *float64     `json:"transmit_bytes_per_second,omitempty"`
}

// PressureDoc is the share of time in which some tasks waited for a resource, and in
// which all did.
type PressureDoc struct {
	Scope      string   `json:"scope"` // group: of the backend's control group; host: of its machine
	CPUSome    *float64 `json:"cpu_some,omitempty"`
	CPUFull    *float64 `json:"cpu_full,omitempty"`
	MemorySome *float64 `json:"memory_some,omitempty"`
	MemoryFull *float64 `json:"memory_full,omitempty"`
	IOSome     *float64 `json:"io_some,omitempty"`
	IOFull     *float64 `json:"io_full,omitempty"`
}
