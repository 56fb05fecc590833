package config

import (
	"errors"
	"strings"

	"outrigger/agentstats"
	"outrigger/agentstats/agentcheck"
	"outrigger/agentstats/declared"
	"outrigger/agentstats/register"
	"outrigger/discovery"
	"outrigger/sidecar"
)

// Agent is what the file of `outrigger agent` says.
type Agent struct {
	Agent agentstats.Config
	// Consul is where the agent registers and publishes; only how it is reached counts.
	Consul discovery.Config
	Log    sidecar.LogConfig
}

func defaultAgent() *Agent {
	return &Agent{Agent: agentstats.DefaultConfig(), Consul: discovery.DefaultConfig(), Log: sidecar.DefaultConfig().Log}
}

// Validate reports everything that is wrong.
func (a *Agent) Validate() error {
	return errors.Join(a.Agent.Validate(), a.Consul.Validate(), a.Log.Validate())
}

// agentTable is the file of `outrigger agent`.
func agentTable(a *Agent) *block {
	const elsewhere = "This belongs in the configuration of `outrigger sidecar`; an agent's file has the blocks agent, consul and log."
	c := &a.Agent
	return &block{
		blocks: []*block{
			{
				name: "agent",
				settings: []setting{
					{name: "listen", dest: text(&c.Listen), required: true, address: true},
					{name: "instance", dest: text(&c.Instance), empty: "as registered, else not told"},
					{name: "token", dest: secretText(&c.Token), empty: "sidecars need none"},
					{name: "interval", dest: duration(&c.Interval)},
					{name: "max_conns", dest: count(&c.MaxConns)},
					{name: "proc_root", dest: text(&c.ProcRoot)},
					{name: "cgroup_root", dest: text(&c.CgroupRoot)},
				},
				blocks: []*block{
					{name: "backend", settings: []setting{
						{name: "port", dest: count(&c.Backend.Port), empty: "not known"},
						{name: "pid", dest: count(&c.Backend.PID), empty: "not known"},
						{name: "cgroup", dest: text(&c.Backend.Cgroup), empty: "not known"},
					}},
					{name: "tls", settings: []setting{
						{name: "cert_file", dest: text(&c.TLS.CertFile), empty: "no TLS"},
						{name: "key_file", dest: text(&c.TLS.KeyFile), empty: "no TLS"},
						{name: "client_ca_file", dest: text(&c.TLS.ClientCAFile), empty: "sidecars need no certificate"},
					}},
					inFlightTable(&c.InFlight),
					agentCheckTable(&c.AgentCheck),
					registerTable(&c.Register),
					publishTable(&c.Publish),
				},
			},
			consulAccess(&a.Consul),
			logTable(&a.Log),
		},
		foreign: map[string]string{
			"service": elsewhere, "admin": elsewhere, "agents": elsewhere, "grace": elsewhere, "state_dir": elsewhere,
		},
	}
}

func inFlightTable(c *agentstats.InFlight) *block {
	d := &c.Declared
	return &block{
		name: "in_flight",
		settings: []setting{
			{name: "kernel", dest: flag(&c.Kernel)},
			{name: "gauges", dest: flag(&c.Gauges)},
			{name: "max_gauges", dest: count(&c.MaxGauges)},
		},
		blocks: []*block{{
			name:  "declared",
			label: choice(&d.Format, declared.Formats()),
			settings: []setting{
				{name: "url", dest: queryText(&d.URL)},
				{name: "interval", dest: duration(&d.Interval), empty: "by what asking costs, 5ms to 100ms"},
				{name: "max_age", dest: duration(&d.MaxAge)},
				{name: "timeout", dest: duration(&d.Timeout)},
			},
			variants: map[string][]setting{
				"prometheus": {{name: "metric", dest: text(&d.Metric)}, {name: "labels", dest: textMap(&d.Labels), empty: "any"}},
				"json":       {{name: "field", dest: text(&d.Field)}},
				"orca":       {{name: "named", dest: text(&d.Named)}},
			},
		}},
	}
}

// queryText is a URL whose query, which may be a secret, does not print.
func queryText(p *string) dest {
	return newField(p, readText, func(s string) string {
		if at, query, found := strings.Cut(s, "?"); found && query != "" {
			s = at + "?" + hiddenText
		}
		return quote(s)
	}, hiddenText)
}

func agentCheckTable(c *agentcheck.Config) *block {
	return &block{name: "agent_check", settings: []setting{
		{name: "listen", dest: text(&c.Listen), empty: "off", address: true},
		{name: "health", dest: flag(&c.Health)},
		{name: "admin", dest: flag(&c.Admin)},
		{name: "percent_per_core", dest: count(&c.PercentPerCore), empty: "percent of the backend's own limit"},
		{name: "maxconn_factor", dest: ratio(&c.MaxConnFactor), empty: "no maxconn is said"},
		{name: "drain", dest: duration(&c.Drain)},
		{name: "max_conns", dest: count(&c.MaxConns)},
	}}
}

func registerTable(c *register.Config) *block {
	k, d := &c.Check, &c.Drain
	return &block{
		name: "register",
		settings: []setting{
			{name: "service", dest: text(&c.Service), empty: "the agent registers nothing"},
			{name: "id", dest: text(&c.ID), empty: "SERVICE-ADDRESS-PORT"},
			{name: "address", dest: text(&c.Address), empty: "the Consul agent's"},
			{name: "port", dest: count(&c.Port), empty: "backend.port"},
			{name: "tags", dest: texts(&c.Tags), empty: "none"},
			{name: "meta", dest: textMap(&c.Meta), empty: "none but outrigger_agent"},
			{name: "weight", dest: count(&c.Weight)},
			{name: "warning_weight", dest: count(&c.WarningWeight)},
			{name: "tag_override", dest: flag(&c.TagOverride)},
			{name: "namespace", dest: text(&c.Namespace), empty: "the token's"},
			{name: "partition", dest: text(&c.Partition), empty: "the token's"},
			{name: "refresh", dest: duration(&c.Refresh)},
		},
		blocks: []*block{
			{name: "check", settings: []setting{
				{name: "kind", dest: choice(&k.Kind, []string{register.CheckTCP, register.CheckHTTP, register.CheckGRPC, register.CheckNone})},
				{name: "address", dest: text(&k.Address), empty: "the instance's"},
				{name: "path", dest: text(&k.Path)},
				{name: "method", dest: text(&k.Method)},
				{name: "headers", dest: headerMap(&k.Headers), empty: "none"},
				{name: "service", dest: text(&k.Service), empty: "the server as a whole"},
				{name: "tls", dest: flag(&k.TLS)},
				{name: "tls_server_name", dest: text(&k.TLSServerName), empty: "the address's host"},
				{name: "tls_skip_verify", dest: flag(&k.TLSSkipVerify)},
				{name: "interval", dest: duration(&k.Interval)},
				{name: "timeout", dest: duration(&k.Timeout)},
				{name: "passes", dest: count(&k.Passes)},
				{name: "failures", dest: count(&k.Failures)},
				{name: "deregister_after", dest: duration(&k.DeregisterAfter), empty: "never"},
			}},
			{name: "drain", settings: []setting{
				{name: "timeout", dest: duration(&d.Timeout), empty: "no drain"},
				{name: "quiet", dest: duration(&d.Quiet)},
				{name: "blind", dest: duration(&d.Blind)},
			}},
		},
	}
}

func publishTable(c *agentstats.Publish) *block {
	return &block{
		name:  "publish",
		label: choice(&c.To, agentstats.PublishTargets()),
		settings: []setting{
			{name: "service", dest: text(&c.Service), empty: "that of register"},
			{name: "prefix", dest: text(&c.Prefix)},
			{name: "min_interval", dest: duration(&c.MinInterval)},
			{name: "max_interval", dest: duration(&c.MaxInterval)},
			{name: "session_ttl", dest: duration(&c.SessionTTL)},
		},
		blocks: []*block{{name: "change", settings: []setting{
			{name: "avail", dest: ratio(&c.Change.Avail)},
			{name: "mem", dest: ratio(&c.Change.Mem)},
			{name: "err", dest: ratio(&c.Change.Err)},
			{name: "conc", dest: ratio(&c.Change.Conc)},
		}}},
	}
}

// LoadAgent reads an agent's configuration: a file (or directory) with one
// block agent { }. The error is a Problems.
func LoadAgent(path string, env Env) (Agent, error) {
	cfg := defaultAgent()
	cfg.Agent.Listen = "192.0.2.10:9912" // an example, until the file says
	l := &loader{env: env, root: agentTable(cfg), byName: map[string]*source{}}
	root := l.load([]string{path})
	at, ok := root.seen["agent"]
	if ok {
		root.sec.header = at
		l.blame(root.sec, cfg.Validate)
	} else if !l.broken() {
		l.add(Problem{File: path, Message: "there is no agent block", Hint: `Write agent { listen = "ADDR:PORT" ... }.`})
	}
	l.collisions()
	if len(l.problems) > 0 {
		return Agent{}, l.problems.sorted()
	}
	return *cfg, nil
}
