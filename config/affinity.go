package config

import "outrigger/sidecar/h1"

// affinityTable is what binds a client to an endpoint. It is not on by being
// there: the effective configuration has every block.
func affinityTable(c *h1.AffinityConfig) *block {
	return &block{name: "affinity", settings: []setting{
		{name: "cookie", dest: text(&c.Cookie), empty: "no affinity"},
		{name: "ttl", dest: duration(&c.TTL), empty: "as long as the browser is open"},
		{name: "secret", dest: secret(&c.Secret), empty: "a key in state_dir"},
		{name: "path", dest: text(&c.Path)},
		{name: "secure", dest: flag(&c.Secure)},
		{name: "same_site", dest: choice(&c.SameSite, h1.SameSites())},
	}}
}
