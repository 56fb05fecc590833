package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"outrigger/cmd/outrigger/simulate"
	"outrigger/config"
	"outrigger/sidecar"
)

const simulateSynopsis = "simulate -config DIR|FILE -backends COUNTxCORES[@SPEED],... [-work \"KIND MEAN\"] [-load 0.5,0.7,0.9 | -rate 4000/s] [flags]"

// simulateFlags are the flags as given. What they say is read after the
// configuration, which some of them default to.
type simulateFlags struct {
	config                                      pathList
	service, backends, weights                  string
	load, rate, work                            string
	policies, neighbours, silent, limits, surge string
	sidecars, seeds                             int
	seed                                        uint64
	interval, timeout, warmup, duration         time.Duration
	svg, json                                   string
	quiet                                       bool
	given                                       map[string]bool
}

func (f *simulateFlags) define(fs *flag.FlagSet) {
	fs.Var(&f.config, "config", "a sidecar's configuration: a file, or a directory of *.hcl files; may be repeated")
	fs.StringVar(&f.service, "service", "", "the service `NAME` of the configuration, where there are several")
	fs.StringVar(&f.backends, "backends", "", "the `FLEET`: \"12x2,4x8@1.3\" is 12 backends of 2 cores, and 4 of 8 cores 1.3 times as fast")
	fs.StringVar(&f.weights, "weights", "equal", "the backends' weights in Consul, `equal|cores`")
	fs.IntVar(&f.sidecars, "sidecars", 10, "how many sidecars send requests, all alike")
	fs.StringVar(&f.load, "load", "0.5,0.7,0.9", "`LOADS` to run, as shares of what the fleet can serve")
	fs.StringVar(&f.rate, "rate", "", "`RATES` to run in the place of -load, in requests a second: \"4000/s\"")
	fs.StringVar(&f.work, "work", "lognormal 20ms", "`WORK` of a request, as CPU time on a core of speed 1: \"lognormal 20ms sigma 1\", \"exponential 20ms\", \"fixed 20ms\", \"pareto 20ms alpha 2\"; the time is the mean")
	fs.StringVar(&f.policies, "policies", "", "`POLICIES` to compare: names with commas between them, or all (default: the configured one, resource, least_conn, p2c and round_robin)")
	fs.StringVar(&f.limits, "limits", "", "`LIMITS` to compare, values of max_in_flight: \"8,16,32,0\" (0: none; default: the configured one)")
	fs.StringVar(&f.neighbours, "neighbours", "none", "`OTHERS` on the backends' machines: \"20%-60% 3s/6s\" take 20 to 60 % of the cores for 3 s, then nothing for 6 s, on average")
	fs.DurationVar(&f.interval, "interval", 0, "time between two polls of an agent (default: as configured)")
	fs.StringVar(&f.silent, "silent", "0%", "`SHARE` of the backends without an agent")
	fs.DurationVar(&f.timeout, "timeout", 0, "time-out of a request, in the place of timeouts.request; where that is not configured, the time after which clients leave, of which the sidecar does not know (default: as configured, 1s where nothing is)")
	fs.StringVar(&f.surge, "surge", "none", "a `SURGE`, more load for a time in the middle: \"1.6x 5s\"")
	fs.IntVar(&f.seeds, "seeds", 5, "how often each case is run, with different chance")
	fs.Uint64Var(&f.seed, "seed", 1, "the first seed; the same seeds give the same figures")
	fs.DurationVar(&f.warmup, "warmup", 12*time.Second, "simulated time before anything is measured")
	fs.DurationVar(&f.duration, "duration", 25*time.Second, "simulated time that is measured")
	fs.StringVar(&f.svg, "svg", "", "draw p99 and goodput into `FILE`")
	fs.StringVar(&f.json, "json", "", "write all figures of all runs into `FILE`")
	fs.BoolVar(&f.quiet, "quiet", false, "no progress on stderr")
}

// runSimulate answers which policy and limits suit a fleet.
func runSimulate(ctx context.Context, args []string, s streams) int {
	return simulateWith(ctx, args, s, simulate.Engine, config.OS())
}

func simulateWith(ctx context.Context, args []string, s streams, engine simulate.Runner, env config.Env) int {
	fs := flag.NewFlagSet("simulate", flag.ContinueOnError)
	f := &simulateFlags{given: map[string]bool{}}
	f.define(fs)
	if status, ok := parse(fs, args, s, simulateSynopsis); !ok {
		return status
	}
	fs.Visit(func(x *flag.Flag) { f.given[x.Name] = true })
	fail := func(status int, err error) int {
		fmt.Fprintf(s.err, "outrigger simulate: %v\n", err)
		return status
	}
	switch {
	case fs.NArg() > 0:
		return fail(2, fmt.Errorf("%q is not understood; flags alone are, and -config for every file", fs.Arg(0)))
	case len(f.config) == 0:
		return fail(2, errors.New("say which configuration to use: -config DIR or -config FILE"))
	case f.backends == "":
		return fail(2, errors.New(`say what the fleet is: -backends "12x2,4x8@1.3" is 12 backends of 2 cores, and 4 of 8 cores 1.3 times as fast`))
	case f.given["load"] && f.given["rate"]:
		return fail(2, errors.New("-load and -rate both say how much is sent: leave one out"))
	}
	cfg, err := config.Load(f.config, env)
	if err != nil {
		fmt.Fprintln(s.err, err)
		return 1
	}
	q, err := f.question(&cfg)
	if err == nil {
		err = q.Validate()
	}
	if err != nil {
		return fail(2, err)
	}
	return f.answer(ctx, q, s, engine, commandLine(args))
}

// question reads the flags over what is configured.
func (f *simulateFlags) question(cfg *sidecar.Config) (*simulate.Question, error) {
	svc, err := f.pick(cfg.Services)
	if err != nil {
		return nil, err
	}
	q := &simulate.Question{
		Service: svc.Name, Balance: svc.Balance, Retry: svc.HTTP.Retry,
		Sidecars: f.sidecars, Seed: f.seed, Seeds: f.seeds, Warmup: f.warmup, Duration: f.duration,
		Interval: cfg.Agents.Interval, Jitter: cfg.Agents.Jitter, Timeout: time.Second, Limits: []int{svc.Balance.MaxInFlight},
	}
	if t := svc.HTTP.Timeouts.Request; t > 0 {
		q.Timeout, q.Own = t, true
	}
	q.Told = q.Own || svc.HTTP.Timeouts.RequestHeader != ""
	if f.given["interval"] {
		q.Interval = f.interval
	}
	if f.given["timeout"] {
		q.Timeout = f.timeout
	}
	switch f.weights {
	case "equal":
	case "cores":
		q.ByCores = true
	default:
		return nil, fmt.Errorf("-weights is %q, not equal or cores", f.weights)
	}
	return q, f.lists(q)
}

// lists reads what has a language of its own.
func (f *simulateFlags) lists(q *simulate.Question) (err error) {
	read := func(name, text string, parse func() error) {
		if e := parse(); err == nil && e != nil {
			err = fmt.Errorf("-%s %q: %w", name, text, e)
		}
	}
	read("backends", f.backends, func() (e error) { q.Backends, e = simulate.ParseBackends(f.backends); return })
	read("work", f.work, func() (e error) { q.Work, e = simulate.ParseWork(f.work); return })
	read("neighbours", f.neighbours, func() (e error) { q.Neighbours, e = simulate.ParseNeighbours(f.neighbours); return })
	read("silent", f.silent, func() (e error) { q.Silent, e = simulate.ParseShare(f.silent); return })
	read("surge", f.surge, func() (e error) { q.Surge, e = simulate.ParseSurge(f.surge); return })
	read("policies", f.policies, func() (e error) {
		q.Policies, e = simulate.ParsePolicies(f.policies, q.Balance.Picker.Policy)
		return
	})
	if f.given["limits"] {
		read("limits", f.limits, func() (e error) { q.Limits, e = simulate.ParseLimits(f.limits); return })
	}
	if f.given["rate"] {
		read("rate", f.rate, func() (e error) { q.Rates, e = simulate.ParseRates(f.rate); return })
	} else {
		read("load", f.load, func() (e error) { q.Loads, e = simulate.ParseLoads(f.load); return })
	}
	return err
}

// pick finds the service that is asked about.
func (f *simulateFlags) pick(services []sidecar.ServiceConfig) (*sidecar.ServiceConfig, error) {
	var names []string
	for i := range services {
		names = append(names, services[i].Name)
	}
	switch i := slices.Index(names, f.service); {
	case i >= 0:
		return &services[i], nil
	case f.service != "":
		return nil, fmt.Errorf("-service %q is not in the configuration, which has %s", f.service, strings.Join(names, ", "))
	case len(services) > 1:
		return nil, fmt.Errorf("the configuration has the services %s: choose one with -service NAME", strings.Join(names, ", "))
	}
	return &services[0], nil
}

// answer runs everything and writes the answer. Interrupted it writes what is
// there and returns 1.
func (f *simulateFlags) answer(ctx context.Context, q *simulate.Question, s streams, engine simulate.Runner, command string) int {
	progress := s.err
	if f.quiet {
		progress = io.Discard
	}
	lines, err := simulate.Run(ctx, q, engine, progress)
	status := 0
	if err != nil {
		status = 1
		if ctx.Err() == nil {
			fmt.Fprintf(s.err, "outrigger simulate: %v\n", err)
			return 1
		}
		fmt.Fprintf(s.err, "outrigger simulate: interrupted; this is what was done until then\n")
	}
	if len(lines) == 0 {
		return status
	}
	if _, err := fmt.Fprint(s.out, q.Table(lines)); err != nil {
		return 1 // nobody reads any more
	}
	if err := f.files(q, lines, command); err != nil {
		fmt.Fprintf(s.err, "outrigger simulate: %v\n", err)
		return 1
	}
	return status
}

func (f *simulateFlags) files(q *simulate.Question, lines []simulate.Line, command string) error {
	var errs []error
	if f.svg != "" {
		if err := os.WriteFile(f.svg, q.SVG(lines, command), 0o644); err != nil {
			errs = append(errs, fmt.Errorf("-svg: %w", err))
		}
	}
	if f.json != "" {
		text, err := q.JSON(lines, command)
		if err == nil {
			err = os.WriteFile(f.json, text, 0o644)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("-json: %w", err))
		}
	}
	return errors.Join(errs...)
}

// commandLine writes the command as a shell reads it.
func commandLine(args []string) string {
	text := "outrigger simulate"
	for _, a := range args {
		plain := a != "" && strings.Trim(a, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_=./,:@%") == ""
		switch {
		case plain:
			text += " " + a
		case strings.ContainsAny(a, "'\n\x00") || strconv.Quote(a) != `"`+a+`"`:
			text += " " + strconv.Quote(a)
		default:
			text += " '" + a + "'"
		}
	}
	return text
}
