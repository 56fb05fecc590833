package main

import (
	"context"
	"errors"
	"fmt"

	"outrigger/config"
)

// runCheck validates a sidecar's configuration and prints it with all defaults.
func runCheck(_ context.Context, args []string, s streams) int {
	paths, status, ok := configPaths("check", args, s)
	if !ok {
		return status
	}
	return check(paths, config.OS(), s)
}

func check(paths []string, env config.Env, s streams) int {
	cfg, err := config.Load(paths, env)
	if err != nil {
		fmt.Fprintf(s.err, "%v\n", err)
		var all config.Problems
		if errors.As(err, &all) && len(all) > 1 {
			fmt.Fprintf(s.err, "\n%d problems\n", len(all))
		}
		return 1
	}
	if err := config.Effective(s.out, cfg); err != nil {
		fmt.Fprintf(s.err, "outrigger check: the configuration is right but cannot be printed: %v\n", err)
		return 1
	}
	return 0
}
