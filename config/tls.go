package config

import "outrigger/sidecar/h1"

// tlsTable is TLS to a service's backends. It is not on by being there: the
// effective configuration has every block.
func tlsTable(c *h1.TLSConfig) *block {
	return &block{name: "tls", settings: []setting{
		{name: "enabled", dest: flag(&c.Enabled)},
		{name: "ca_file", dest: text(&c.CAFile), empty: "the system's"},
		{name: "server_name", dest: text(&c.ServerName), empty: "the host of the instance's address"},
		{name: "cert_file", dest: text(&c.CertFile), empty: "none is shown"},
		{name: "key_file", dest: text(&c.KeyFile)},
		{name: "min_version", dest: choice(&c.MinVersion, h1.TLSVersions())},
		{name: "insecure_skip_verify", dest: flag(&c.InsecureSkipVerify)},
	}}
}
