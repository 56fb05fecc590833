package config

import "outrigger/sidecar/access"

// accessTable is the access log of a service.
func accessTable(c *access.Config) *block {
	return &block{name: "access_log", settings: []setting{
		{name: "path", dest: text(&c.Path), empty: "no access log"},
		{name: "format", dest: choice(&c.Format, access.Formats())},
		{name: "sample", dest: ratio(&c.Sample), empty: "errors alone"},
		{name: "query", dest: flag(&c.Query)},
		{name: "buffer", dest: size(&c.Buffer)},
	}}
}
