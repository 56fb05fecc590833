package main

import (
	"context"
	"fmt"

	"outrigger/agentstats"
	"outrigger/config"
	"outrigger/discovery"
)

func runAgent(ctx context.Context, args []string, s streams) int {
	paths, status, ok := configPaths("agent", args, s)
	if !ok {
		return status
	}
	if len(paths) != 1 {
		fmt.Fprintln(s.err, "outrigger agent: one file, please: an agent watches one backend")
		return 2
	}
	cfg, err := config.LoadAgent(paths[0], config.OS())
	if err != nil {
		fmt.Fprintln(s.err, err)
		return 1
	}
	log := newLogger(cfg.Log, s.err).Named("agent")
	env := agentstats.Env{Logger: log, Version: version(), OwnProcess: true, Hurry: hurried(ctx)}
	if cfg.Agent.Register.Service != "" || cfg.Agent.Publish.To != "" {
		if env.Consul, err = discovery.NewClient(cfg.Consul); err != nil {
			log.Error("cannot start", "error", err)
			return 1
		}
	}
	a, err := agentstats.NewAgent(cfg.Agent, env)
	if err != nil {
		log.Error("cannot start", "error", err)
		return 1
	}
	if err := a.Run(ctx); err != nil {
		log.Error("ended", "error", err)
		return 1
	}
	return 0
}
