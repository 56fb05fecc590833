package config

import (
	"outrigger/discovery"
	"outrigger/sidecar"
)

// discoverTable is where a service's instances are learnt from.
func discoverTable(c *sidecar.ServiceConfig) *block {
	q, s := &c.Discover, &c.Source
	return &block{
		name:      "discover",
		label:     choice(&s.Kind, sidecar.SourceKinds()),
		otherwise: "consul",
		settings: []setting{
			{name: "service", dest: text(&q.Service)},
			{name: "datacenter", dest: text(&q.Datacenter), empty: "that of the consul block"},
			{name: "near", dest: text(&q.Near)},
			{name: "backup_tag", dest: text(&q.BackupTag), empty: "none"},
			{name: "backup_weight", dest: count(&q.BackupWeight), empty: "none"},
		},
		variants: map[string][]setting{
			"consul":         selection(q),
			"file":           {{name: "path", dest: text(&s.FilePath)}, {name: "poll", dest: duration(&s.FilePoll)}},
			"prepared_query": {{name: "name", dest: text(&s.QueryName)}, {name: "poll", dest: duration(&s.QueryPoll)}},
		},
		blocks: []*block{fallbackTable(c)},
	}
}

// selection is what chooses among the instances of a service in Consul.
func selection(q *discovery.Query) []setting {
	return []setting{
		{name: "tags", dest: texts(&q.Tags)},
		{name: "filter", dest: text(&q.Filter)},
		{name: "node_meta", dest: textMap(&q.NodeMetaIs), empty: "any"},
		{name: "only_passing", dest: flag(&q.OnlyPassing)},
	}
}

// fallbackTable is a kind of block that may be there several times.
func fallbackTable(c *sidecar.ServiceConfig) *block {
	table := func(f *sidecar.Fallback) *block {
		return &block{name: "fallback", settings: append(selection(&f.Query),
			setting{name: "service", dest: text(&f.Query.Service), empty: "that of discover"},
			setting{name: "datacenter", dest: text(&f.Query.Datacenter), empty: "that of the consul block"},
			setting{name: "addresses", dest: texts(&f.Addresses), empty: "none"},
			setting{name: "file", dest: text(&f.File), empty: "none"},
			setting{name: "prepared_query", dest: text(&f.PreparedQuery), empty: "none"},
		)}
	}
	b := table(&sidecar.Fallback{})
	b.settings = nil
	b.sample = table(&sidecar.Fallback{})
	b.add = func(label string) *block {
		f := &sidecar.Fallback{Name: label}
		c.Source.Fallbacks = append(c.Source.Fallbacks, f)
		return table(f)
	}
	b.all = func() []named {
		var list []named
		for _, f := range c.Source.Fallbacks {
			list = append(list, named{f.Name, table(f), table(&sidecar.Fallback{})})
		}
		return list
	}
	return b
}
