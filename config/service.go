package config

import (
	"slices"

	"outrigger/breaker"
	"outrigger/picker"
	"outrigger/sidecar"
	"outrigger/sidecar/balance"
	"outrigger/sidecar/h1"
)

// serviceTable is what may stand in a service block.
func serviceTable(c *sidecar.ServiceConfig) *block {
	return &block{
		name: "service",
		settings: []setting{
			{name: "listen", dest: text(&c.Listen), required: true, address: true},
			{name: "listen_mode", dest: text(&c.ListenMode)},
			{name: "slow_start", dest: duration(&c.Balance.SlowStart), empty: "off"},
			{name: "panic_threshold", dest: ratio(&c.Balance.PanicThreshold), empty: "only when ejections and damping left none"},
		},
		blocks: []*block{
			discoverTable(c),
			policyTable("policy", &c.Balance.Picker),
			policyTable("shadow", &c.Balance.Shadow),
			localityTable(&c.Balance.Locality),
			affinityTable(&c.HTTP.Affinity),
			capacityTable(&c.Balance),
			breakerTable(&c.Balance.Breaker),
			checkTable(&c.Check),
			dampingTable(&c.Balance.Damping),
			failoverTable(&c.Balance.Failover),
			retryTable(&c.HTTP.Retry, &c.Balance.Budget),
			timeoutsTable(&c.HTTP.Timeouts),
			{name: "limits", settings: []setting{
				{name: "line", dest: size(&c.HTTP.Limits.Line)},
				{name: "head", dest: size(&c.HTTP.Limits.Head)},
				{name: "headers", dest: count(&c.HTTP.Limits.Headers)},
				{name: "connections", dest: count(&c.HTTP.MaxConns)},
				{name: "requests", dest: count(&c.HTTP.MaxRequests), empty: "no limit"},
				{name: "body", dest: size(&c.HTTP.MaxBody), empty: "no limit"},
				{name: "min_rate", dest: count(&c.HTTP.MinRate), empty: "none"},
			}},
			accessTable(&c.Access),
			{name: "pool", settings: []setting{
				{name: "size", dest: count(&c.HTTP.PoolSize)},
				{name: "idle", dest: duration(&c.HTTP.PoolIdle)},
			}},
			tlsTable(&c.HTTP.TLS),
			{name: "orca", settings: []setting{
				{name: "enabled", dest: flag(&c.ORCA.Enabled)},
				{name: "in_flight", dest: text(&c.ORCA.InFlight)},
				{name: "expiry", dest: duration(&c.ORCA.Expiry)},
				{name: "memory", dest: flag(&c.ORCA.Memory)},
			}},
			forwardTable(&c.HTTP.Forward),
		},
	}
}

// newService returns the settings of a service block that says nothing, with an
// example in the place of what is required.
func newService(name string) *sidecar.ServiceConfig {
	c := sidecar.DefaultService(name)
	c.Listen = "127.0.0.1:8080"
	shareStatuses(&c)
	return &c
}

// shareStatuses gives the engine the statuses that the breaker counts: one
// setting says both.
func shareStatuses(c *sidecar.ServiceConfig) {
	c.HTTP.FailureStatuses = slices.Clone(c.Balance.Breaker.FailureStatuses)
}

func localityTable(c *balance.LocalityConfig) *block {
	return &block{name: "locality", settings: []setting{
		{name: "prefer", dest: texts(&c.Prefer), empty: "nothing"},
		{name: "node", dest: text(&c.Node), empty: "the Consul agent's"},
		{name: "zone", dest: text(&c.Zone), empty: "as the Consul agent's node meta says"},
		{name: "datacenter", dest: text(&c.Datacenter), empty: "the Consul agent's"},
		{name: "zone_meta", dest: text(&c.ZoneMeta)},
		{name: "spill", dest: ratio(&c.Spill)},
	}}
}

// policyTable is a block that names a policy and tunes it.
func policyTable(name string, c *picker.Config) *block {
	return &block{
		name:  name,
		label: choice(&c.Policy, picker.Names()),
		variants: map[string][]setting{
			"resource": {
				{name: "samples", dest: count(&c.Resource.Samples)},
				{name: "memory_veto", dest: ratio(&c.Resource.MemoryVeto)},
			},
			"peak_ewma": {
				{name: "decay", dest: duration(&c.PeakEWMA.Decay)},
				{name: "unknown", dest: duration(&c.PeakEWMA.Unknown)},
			},
			"consistent_hash": {
				{name: "on", dest: choice(&c.Hash.On, picker.HashKeys())},
				{name: "name", dest: text(&c.Hash.Name), empty: "none"},
				{name: "balance", dest: ratio(&c.Hash.Balance), empty: "no bound"},
				{name: "points", dest: count(&c.Hash.Points)},
			},
		},
	}
}

func capacityTable(c *balance.Config) *block {
	return &block{
		name: "capacity",
		settings: []setting{
			{name: "max_in_flight", dest: count(&c.MaxInFlight), empty: "no limit"},
			{name: "max_wait", dest: ratio(&c.MaxWait), empty: "no limit"},
		},
		blocks: []*block{{name: "queue", settings: []setting{
			{name: "length", dest: count(&c.Queue.Length), empty: "nobody waits"},
			{name: "timeout", dest: duration(&c.Queue.Timeout)},
		}}},
	}
}

func breakerTable(c *breaker.Config) *block {
	return &block{
		name: "breaker",
		settings: []setting{
			{name: "consecutive_failures", dest: count(&c.ConsecutiveFailures)},
			{name: "failure_ratio", dest: ratio(&c.FailureRatio)},
			{name: "min_requests", dest: count(&c.MinRequests)},
			{name: "window", dest: duration(&c.Window)},
			{name: "bucket", dest: duration(&c.BucketPeriod)},
			{name: "base_ejection", dest: duration(&c.BaseEjection)},
			{name: "max_ejection", dest: duration(&c.MaxEjection)},
			{name: "max_ejected_percent", dest: count(&c.MaxEjectedPercent)},
			{name: "failure_statuses", dest: counts(&c.FailureStatuses)},
		},
		blocks: []*block{successRateTable(&c.SuccessRate), {name: "capacity", settings: []setting{
			{name: "queue_failure_ratio", dest: ratio(&c.Capacity.QueueFailureRatio)},
			{name: "min_queued", dest: count(&c.Capacity.MinQueued)},
			{name: "window", dest: duration(&c.Capacity.Window)},
			{name: "base_open", dest: duration(&c.Capacity.BaseOpen)},
			{name: "max_open", dest: duration(&c.Capacity.MaxOpen)},
		}}},
	}
}

func retryTable(c *h1.RetryConfig, budget *breaker.BudgetConfig) *block {
	return &block{
		name: "retry",
		settings: []setting{
			{name: "attempts", dest: count(&c.Attempts)},
			{name: "on", dest: newToggles(
				[]string{"connect_failure", "refused", "reset", "timeout", "500", "502", "503", "504", "retriable_4xx"},
				&c.ConnectFailure, &c.Refused, &c.Reset, &c.Timeout,
				&c.Status500, &c.Status502, &c.Status503, &c.Status504, &c.Retriable4xx)},
			{name: "methods", dest: texts(&c.Methods), empty: "the idempotent ones"},
			{name: "per_try_timeout", dest: duration(&c.PerTry), empty: "none"},
			{name: "backoff", dest: duration(&c.Backoff), empty: "no pause"},
			{name: "backoff_max", dest: duration(&c.BackoffMax)},
			{name: "retry_after_max", dest: duration(&c.RetryAfterMax), empty: "ignored"},
			{name: "body_buffer", dest: size(&c.BodyBuffer), empty: "every body is streamed"},
		},
		blocks: []*block{{name: "budget", settings: []setting{
			{name: "ratio", dest: ratio(&budget.Ratio)},
			{name: "min_per_second", dest: count(&budget.MinPerSecond)},
		}}},
	}
}

func timeoutsTable(c *h1.Timeouts) *block {
	return &block{name: "timeouts", settings: []setting{
		{name: "connect", dest: duration(&c.Connect)},
		{name: "first_byte", dest: duration(&c.FirstByte)},
		{name: "idle", dest: duration(&c.Idle)},
		{name: "request", dest: duration(&c.Request), empty: "no limit"},
		{name: "head", dest: duration(&c.Head)},
		{name: "tunnel", dest: duration(&c.Tunnel)},
		{name: "request_header", dest: text(&c.RequestHeader), empty: "none"},
	}}
}
