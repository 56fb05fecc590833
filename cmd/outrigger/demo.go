package main

import (
	"context"
	"flag"

	"outrigger/cmd/outrigger/demo"
)

func runDemo(ctx context.Context, args []string, s streams) int {
	fs := flag.NewFlagSet("demo", flag.ContinueOnError)
	keep := fs.Bool("keep", false, "leave everything running at the end, until Ctrl-C")
	if status, ok := parse(fs, args, s, "demo [-keep]"); !ok {
		return status
	}
	return demo.Run(ctx, demo.Options{Keep: *keep, Out: s.out})
}
