package main

import (
	"context"
	"errors"
	"flag"
	"fmt"

	"outrigger/config"
)

// runCheck validates a sidecar's or an agent's configuration and prints it with all
// defaults.
func runCheck(_ context.Context, args []string, s streams) int {
	agent := false
	paths, status, ok := configPaths("check", args, s, func(fs *flag.FlagSet) {
		fs.BoolVar(&agent, "agent", false, "the file is an agent's")
	})
	if !ok {
		return status
	}
	if agent {
		return checkAgent(paths, config.OS(), s)
	}
	return check(paths, config.OS(), s)
}

func check(paths []string, env config.Env, s streams) int {
	cfg, err := config.Load(paths, env)
	return checked(err, func() error { return config.Effective(s.out, cfg) }, s)
}

func checkAgent(paths []string, env config.Env, s streams) int {
	if len(paths) != 1 {
		fmt.Fprintln(s.err, "outrigger check -agent: one file, please: an agent watches one backend")
		return 2
	}
	cfg, err := config.LoadAgent(paths[0], env)
	return checked(err, func() error { return config.EffectiveAgent(s.out, cfg) }, s)
}

// checked tells what came of reading a configuration.
func checked(err error, show func() error, s streams) int {
	if err != nil {
		fmt.Fprintf(s.err, "%v\n", err)
		var all config.Problems
		if errors.As(err, &all) && len(all) > 1 {
			fmt.Fprintf(s.err, "\n%d problems\n", len(all))
		}
		return 1
	}
	if err := show(); err != nil {
		fmt.Fprintf(s.err, "outrigger check: the configuration is right but cannot be printed: %v\n", err)
		return 1
	}
	return 0
}
