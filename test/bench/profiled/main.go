// Command profiled is the sidecar as cmd/outrigger assembles it, under the CPU
// profiler from start to end. The bench runs it to make default.pgo.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"runtime/pprof"
	"syscall"

	"github.com/hashicorp/go-hclog"

	"outrigger/config"
	"outrigger/sidecar"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	file := flag.String("config", "", "configuration `FILE`")
	profile := flag.String("profile", "", "`FILE` for the CPU profile")
	flag.Parse()
	if err := run(ctx, *file, *profile); err != nil {
		fmt.Fprintln(os.Stderr, "profiled:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, file, profile string) error {
	cfg, err := config.Load([]string{file}, config.OS())
	if err != nil {
		return err
	}
	out, err := os.Create(profile)
	if err != nil {
		return err
	}
	if err := pprof.StartCPUProfile(out); err != nil {
		return err
	}
	log := hclog.New(&hclog.LoggerOptions{Name: "outrigger", Level: hclog.LevelFromString(cfg.Log.Level), Output: os.Stderr})
	sc, err := sidecar.New(cfg, log, "profiled")
	if err == nil {
		err = sc.Run(ctx)
	}
	pprof.StopCPUProfile()
	if err != nil {
		return err
	}
	return out.Close()
}
