package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"strings"

	"github.com/hashicorp/go-hclog"

	"outrigger/config"
	"outrigger/sidecar"
)

// pathList is a flag that may be given more than once.
type pathList []string

func (p *pathList) String() string     { return strings.Join(*p, " ") }
func (p *pathList) Set(s string) error { *p = append(*p, s); return nil }

// parse reads flags. It answers -h and mistakes itself; ok is false then, with
// the exit status.
func parse(fs *flag.FlagSet, args []string, s streams, synopsis string) (status int, ok bool) {
	fs.SetOutput(s.err)
	fs.Usage = func() {
		fmt.Fprintf(fs.Output(), "Usage: outrigger %s\n", synopsis)
		fs.PrintDefaults()
	}
	if err := fs.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return 0, false
		}
		return 2, false
	}
	return 0, true
}

// configPaths reads -config and the arguments after the flags, which name
// files or directories too ("-config a.hcl b.hcl").
//
// more are further flags.
func configPaths(name string, args []string, s streams, more ...func(*flag.FlagSet)) (paths []string, status int, ok bool) {
	fs := flag.NewFlagSet(name, flag.ContinueOnError)
	var list pathList
	for _, add := range more {
		add(fs)
	}
	fs.Var(&list, "config", "a file, or a directory of *.hcl files; may be repeated")
	if status, ok := parse(fs, args, s, name+" -config DIR|FILE..."); !ok {
		return nil, status, false
	}
	paths = append(list, fs.Args()...)
	if len(paths) == 0 {
		fmt.Fprintf(s.err, "outrigger %s: say which configuration to use: -config DIR or -config FILE...\n", name)
		return nil, 2, false
	}
	return paths, 0, true
}

func newLogger(c sidecar.LogConfig, w io.Writer) hclog.Logger {
	return hclog.New(&hclog.LoggerOptions{
		Name:       "outrigger",
		Level:      hclog.LevelFromString(c.Level),
		JSONFormat: c.Format == "json",
		Output:     w,
	})
}

func runSidecar(ctx context.Context, args []string, s streams) int {
	paths, status, ok := configPaths("sidecar", args, s)
	if !ok {
		return status
	}
	cfg, err := config.Load(paths, config.OS())
	if err != nil {
		fmt.Fprintln(s.err, err)
		return 1
	}
	log := newLogger(cfg.Log, s.err)
	sc, err := sidecar.New(cfg, log, version())
	if err != nil {
		log.Error("cannot start", "error", err)
		return 1
	}
	onHangUp(ctx, sc.ReopenLogs)
	if err := sc.Run(ctx); err != nil {
		log.Error("ended", "error", err)
		return 1
	}
	return 0
}
