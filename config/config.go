// Package config reads the HCL files of the sidecar and the agent into the
// Configs of the packages that they concern.
//
// A sidecar's files together say:
//
//	grace = "30s"
//	consul { ... }
//	admin  { ... }
//	log    { ... }
//	agents { ... }
//	service "NAME" { ... }   # any number
//
// in any order and division; Effective prints all settings with their defaults.
// Durations are texts like "250ms", sizes texts like "8KiB", counts and shares
// plain numbers. Values are written out or read by env("NAME"),
// env("NAME", "VALUE") and file("PATH"); what these return may stand for a
// number too, and no error shows it.
//
// Everything that is wrong is reported at once (Problems). Functions here keep
// no state: any number of goroutines may call them.
package config

import (
	"slices"

	"outrigger/sidecar"
)

// Load reads a sidecar's configuration from files and from the *.hcl files of
// directories (in the order of their names, hidden ones and subdirectories left
// out). The error is a Problems. The configuration is valid, or the zero value.
func Load(paths []string, env Env) (sidecar.Config, error) {
	cfg := sidecar.DefaultConfig()
	var services []*sidecar.ServiceConfig
	kind := &block{
		name: "service",
		each: func(name string) (*block, func() error) {
			c := newService(name)
			services = append(services, c)
			return serviceTable(c), func() error { shareStatuses(c); return c.Validate() }
		},
		sample: serviceTable(newService("sample")),
	}
	table := baseTable(&cfg)
	table.blocks = append(table.blocks, kind)
	l := &loader{env: env, root: table, byName: map[string]*source{}}
	if len(paths) == 0 {
		l.add(Problem{Message: "no configuration is named", Hint: "Name files or directories with -config."})
		return sidecar.Config{}, l.problems.sorted()
	}
	root := l.load(paths)
	// What a file with a syntax error says behind it nobody knows.
	if cfg.StateDir == "" && !l.broken() && !slices.ContainsFunc(root.sec.failed, func(x failed) bool { return x.name == "state_dir" }) {
		for i, c := range services {
			if !l.complained(l.services[i], "secret") { // else it was put back, and is not missing
				l.blame(l.services[i], func() error { return c.ValidateKey("") })
			}
		}
	}
	l.blame(root.sec, func() error {
		base := cfg // with a service, as Validate asks for one
		base.Services = []sidecar.ServiceConfig{*newService("sample")}
		return base.Validate()
	})
	if !slices.ContainsFunc(l.addresses, func(a address) bool { return a.of == "admin" }) {
		l.addresses = append([]address{{text: cfg.Admin.Listen, of: "admin (by default)", shown: true}}, l.addresses...)
	}
	l.collisions()
	if len(services) == 0 && !l.broken() {
		l.add(Problem{Message: "there is no service block: nothing to listen for",
			Hint: `Write service "NAME" { listen = "ADDR:PORT" } in one of the files.`})
	}
	if len(l.problems) > 0 {
		return sidecar.Config{}, l.problems.sorted()
	}
	for _, c := range services {
		cfg.Services = append(cfg.Services, *c)
	}
	if err := cfg.Validate(); err != nil {
		for _, e := range leaves(err) {
			l.add(Problem{Message: e})
		}
		return sidecar.Config{}, l.problems.sorted()
	}
	return cfg, nil
}

// complained reports whether there is a problem with a setting that sec has.
func (l *loader) complained(sec *section, name string) bool {
	return slices.ContainsFunc(sec.given, func(g given) bool {
		return g.name == name && slices.ContainsFunc(l.problems, func(p Problem) bool {
			return p.File == g.at.Filename && p.Line == g.at.Start.Line && p.Column == g.at.Start.Column
		})
	})
}
