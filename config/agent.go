package config

import (
	"errors"

	"outrigger/agentstats"
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
					{name: "instance", dest: text(&c.Instance)},
					{name: "interval", dest: duration(&c.Interval)},
					{name: "max_conns", dest: count(&c.MaxConns)},
					{name: "proc_root", dest: text(&c.ProcRoot)},
					{name: "cgroup_root", dest: text(&c.CgroupRoot)},
				},
				blocks: []*block{{name: "backend", settings: []setting{
					{name: "port", dest: count(&c.Backend.Port)},
					{name: "pid", dest: count(&c.Backend.PID)},
					{name: "cgroup", dest: text(&c.Backend.Cgroup)},
				}}},
			},
			consulAccess(&a.Consul),
			logTable(&a.Log),
		},
		foreign: map[string]string{
			"service": elsewhere, "admin": elsewhere, "agents": elsewhere, "grace": elsewhere, "state_dir": elsewhere,
		},
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
