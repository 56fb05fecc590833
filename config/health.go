package config

import (
	"outrigger/breaker"
	"outrigger/discovery/healthcheck"
	"outrigger/sidecar/balance"
)

// checkTable is how endpoints are checked, if there is a block.
func checkTable(c *healthcheck.Config) *block {
	h := &c.HTTP
	return &block{
		name:  "health_check",
		label: choice(&c.Kind, healthcheck.Kinds()),
		settings: []setting{
			{name: "interval", dest: duration(&c.Interval)},
			{name: "fast_interval", dest: duration(&c.FastInterval), empty: "the smaller of interval and 1s"},
			{name: "timeout", dest: duration(&c.Timeout), empty: "the smaller of interval and 2s"},
			{name: "rise", dest: count(&c.Rise)},
			{name: "fall", dest: count(&c.Fall)},
			{name: "spread", dest: ratio(&c.Spread)},
			{name: "port", dest: count(&c.Port), empty: "the instance's"},
		},
		variants: map[string][]setting{
			"http": {
				{name: "method", dest: text(&h.Method)},
				{name: "path", dest: text(&h.Path)},
				{name: "host", dest: text(&h.Host), empty: "the address that is checked"},
				{name: "headers", dest: textMap(&h.Headers), empty: "none"},
				{name: "statuses", dest: texts(&h.Statuses)},
				{name: "header_match", dest: textMap(&h.HeaderMatch), empty: "any"},
				{name: "body_match", dest: text(&h.BodyMatch), empty: "any"},
			},
			"grpc": {{name: "service", dest: text(&c.GRPC.Service), empty: "the server as a whole"}},
		},
	}
}

func dampingTable(c *breaker.DampConfig) *block {
	return &block{name: "flap_damping", settings: []setting{
		{name: "base", dest: duration(&c.Base), empty: "off"},
		{name: "max", dest: duration(&c.Max)},
		{name: "half_life", dest: duration(&c.HalfLife)},
	}}
}

func failoverTable(c *balance.FailoverConfig) *block {
	return &block{name: "failover", settings: []setting{
		{name: "below", dest: ratio(&c.Below)},
		{name: "return", dest: duration(&c.Return), empty: "at once"},
	}}
}

func successRateTable(c *breaker.OutlierConfig) *block {
	return &block{name: "success_rate", settings: []setting{
		{name: "min_hosts", dest: count(&c.MinHosts)},
		{name: "volume", dest: count(&c.Volume)},
		{name: "interval", dest: duration(&c.Interval)},
		{name: "factor", dest: ratio(&c.Factor), empty: "off"},
		{name: "min_gap", dest: ratio(&c.MinGap)},
	}}
}
