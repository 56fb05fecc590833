package config

import (
	"outrigger/discovery"
	"outrigger/sidecar"
	"outrigger/sidecar/admin"
)

// baseTable is what may stand outside service blocks.
func baseTable(c *sidecar.Config) *block {
	return &block{
		settings: []setting{
			{name: "grace", dest: duration(&c.Grace)},
			{name: "state_dir", dest: text(&c.StateDir), empty: "nothing is kept"},
		},
		blocks: []*block{
			consulTable(&c.Consul),
			adminTable(&c.Admin),
			logTable(&c.Log),
			pollTable(c),
		},
		foreign: map[string]string{
			"agent": "An agent block belongs in the file of `outrigger agent -config FILE`; how this sidecar asks agents is said in agents { }.",
		},
	}
}

func consulTable(c *discovery.Config) *block {
	b := consulAccess(c)
	b.settings = append(b.settings,
		setting{name: "datacenter", dest: text(&c.Datacenter), empty: "the Consul agent's"},
		setting{name: "wait", dest: duration(&c.Wait)},
		setting{name: "stale", dest: flag(&c.Stale)},
		setting{name: "max_stale", dest: duration(&c.MaxStale)},
		setting{name: "rate_burst", dest: count(&c.RateBurst)},
		setting{name: "rate_interval", dest: duration(&c.RateInterval)},
		setting{name: "backoff_min", dest: duration(&c.BackoffMin)},
		setting{name: "backoff_max", dest: duration(&c.BackoffMax)},
		setting{name: "empty_confirm", dest: duration(&c.EmptyConfirm)},
		setting{name: "empty_hold", dest: duration(&c.EmptyHold)},
		setting{name: "shrink", dest: ratio(&c.Shrink)},
		setting{name: "shrink_confirm", dest: duration(&c.ShrinkConfirm)},
		setting{name: "probe_timeout", dest: duration(&c.ProbeTimeout)},
		setting{name: "cached", dest: flag(&c.Cached)},
		setting{name: "max_connections", dest: count(&c.MaxConnections)},
		setting{name: "spread", dest: duration(&c.Spread)},
		setting{name: "namespace", dest: text(&c.Namespace), empty: "CONSUL_NAMESPACE, else the token's"},
		setting{name: "partition", dest: text(&c.Partition), empty: "CONSUL_PARTITION, else the agent's"},
		setting{name: "snapshot_interval", dest: duration(&c.SnapshotInterval)},
		setting{name: "snapshot_max_age", dest: duration(&c.SnapshotMaxAge)},
		setting{name: "max_answer", dest: size(&c.MaxAnswer)},
	)
	return b
}

// consulAccess is how Consul is reached.
func consulAccess(c *discovery.Config) *block {
	return &block{
		name: "consul",
		settings: []setting{
			{name: "address", dest: text(&c.Address), empty: "CONSUL_HTTP_ADDR, else localhost:8500"},
			{name: "scheme", dest: text(&c.Scheme), empty: "as address says, else CONSUL_HTTP_SSL, else http"},
			{name: "token", dest: secret(&c.Token), empty: "CONSUL_HTTP_TOKEN_FILE, CONSUL_HTTP_TOKEN"},
			{name: "token_file", dest: text(&c.TokenFile), empty: "none"},
		},
		blocks: []*block{{name: "tls", settings: []setting{
			{name: "ca_file", dest: text(&c.TLS.CAFile), empty: "CONSUL_CACERT, CONSUL_CAPATH, else the system's"},
			{name: "cert_file", dest: text(&c.TLS.CertFile), empty: "CONSUL_CLIENT_CERT"},
			{name: "key_file", dest: text(&c.TLS.KeyFile), empty: "CONSUL_CLIENT_KEY"},
			{name: "server_name", dest: text(&c.TLS.ServerName), empty: "CONSUL_TLS_SERVER_NAME, else the address's host"},
			{name: "insecure_skip_verify", dest: flag(&c.TLS.InsecureSkipVerify)},
		}}},
	}
}

func adminTable(c *admin.Config) *block {
	return &block{name: "admin", settings: []setting{
		{name: "listen", dest: text(&c.Listen), address: true},
	}}
}

// pollTable is how the sidecar hears of agents.
func pollTable(c *sidecar.Config) *block {
	p, t, w := &c.Agents, &c.Agents.TLS, &c.Published
	return &block{
		name: "agents",
		settings: []setting{
			{name: "interval", dest: duration(&p.Interval)},
			{name: "jitter", dest: ratio(&p.Jitter)},
			{name: "timeout", dest: duration(&p.Timeout), empty: "the smaller of interval and 1s"},
			{name: "max_backoff", dest: duration(&p.MaxBackoff)},
			{name: "expiry", dest: duration(&p.Expiry), empty: "three times the interval"},
			{name: "token", dest: secretText(&p.Token), empty: "none is shown"},
		},
		blocks: []*block{
			{name: "tls", settings: []setting{
				{name: "enabled", dest: flag(&t.Enabled)},
				{name: "ca_file", dest: text(&t.CAFile), empty: "the system's"},
				{name: "cert_file", dest: text(&t.CertFile), empty: "none is shown"},
				{name: "key_file", dest: text(&t.KeyFile), empty: "none is shown"},
				{name: "server_name", dest: text(&t.ServerName), empty: "the host of the agent's address"},
				{name: "insecure_skip_verify", dest: flag(&t.InsecureSkipVerify)},
			}},
			{name: "gauges", settings: []setting{
				{name: "enabled", dest: flag(&c.Gauges.Enabled)},
				{name: "interval", dest: duration(&c.Gauges.Interval)},
			}},
			{name: "published", settings: []setting{
				{name: "enabled", dest: flag(&w.Enabled)},
				{name: "expiry", dest: duration(&w.Expiry)},
				{name: "prefix", dest: text(&w.Prefix)},
				{name: "wait", dest: duration(&w.Wait)},
				{name: "pause", dest: duration(&w.Pause)},
				{name: "hold", dest: duration(&w.Hold), empty: "gone at once"},
			}},
		},
	}
}

func logTable(c *sidecar.LogConfig) *block {
	return &block{name: "log", settings: []setting{
		{name: "level", dest: choice(&c.Level, sidecar.LogLevels())},
		{name: "format", dest: choice(&c.Format, sidecar.LogFormats())},
	}}
}
