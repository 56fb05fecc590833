package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"runtime/debug"
	"slices"
	"time"
)

// generatorCommand makes this program the open-loop generator, which needs a
// process of its own to be pinned.
const generatorCommand = "openloop"

// plan is what the generator does: requests start at fixed times, whether or
// not earlier ones were answered, and each one's latency counts from the time
// it was due. A stall thus shows in every request that it delays, also in
// those that found no free connection and waited for one.
type plan struct {
	addr, path string
	conns      int
	rate       float64       // arrivals per second; 0: as fast as connections get free
	warm       time.Duration // not counted
	run        time.Duration
}

// wait is how long after the last arrival answers are waited for.
const wait = 3 * time.Second

// outcome is what the generator saw. Times are in µs.
type outcome struct {
	Due      int     `json:"due"`      // arrivals in the plan, those to warm up included
	Answered int     `json:"answered"` // of them
	Seconds  float64 `json:"seconds"`
	P50      float64 `json:"p50_us"`
	P90      float64 `json:"p90_us"`
	P99      float64 `json:"p99_us"`
	Max      float64 `json:"max_us"`
	Late50   float64 `json:"late_p50_us"` // how late requests were sent that found a free connection:
	Late99   float64 `json:"late_p99_us"` // the generator's own fault
	Queued   int     `json:"queued"`      // requests that found none
}

// record collects latencies; room for all is made beforehand.
type record struct {
	latency, late []time.Duration
	answered      int
	queued        int
}

func (r *record) outcome(due int, took time.Duration) outcome {
	slices.Sort(r.latency)
	slices.Sort(r.late)
	us := func(sorted []time.Duration, p float64) float64 {
		return float64(percentile(sorted, p).Nanoseconds()) / 1e3
	}
	return outcome{
		Due: due, Answered: r.answered, Seconds: took.Seconds(), Queued: r.queued,
		P50: us(r.latency, 50), P90: us(r.latency, 90), P99: us(r.latency, 99), Max: us(r.latency, 100),
		Late50: us(r.late, 50), Late99: us(r.late, 99),
	}
}

// behind tells that the generator itself could not keep the plan.
func (o outcome) behind() bool { return o.Answered < o.Due || o.Late50 > 1000 }

// args is the command line of a plan.
func (p plan) args() []string {
	return []string{generatorCommand, "-addr", p.addr, "-path", p.path, "-conns", fmt.Sprint(p.conns),
		"-rate", fmt.Sprint(p.rate), "-warm", p.warm.String(), "-run", p.run.String()}
}

func parsePlan(args []string, errs io.Writer) (plan, error) {
	var p plan
	fs := flag.NewFlagSet(generatorCommand, flag.ContinueOnError)
	fs.SetOutput(errs)
	fs.StringVar(&p.addr, "addr", "", "`ADDR:PORT` to load")
	fs.StringVar(&p.path, "path", "/", "path to ask for")
	fs.IntVar(&p.conns, "conns", 64, "connections")
	fs.Float64Var(&p.rate, "rate", 0, "arrivals per second; 0: as many as possible")
	fs.DurationVar(&p.warm, "warm", 0, "time before latencies count")
	fs.DurationVar(&p.run, "run", time.Second, "time in which latencies count")
	if err := fs.Parse(args); err != nil {
		return p, err
	}
	if p.conns < 1 || p.rate < 0 || p.rate > 1e6 || p.warm < 0 || p.run <= 0 || p.warm+p.run > time.Hour {
		return p, fmt.Errorf("%q is not a plan", args)
	}
	return p, nil
}

func runGenerator(args []string, out, errs io.Writer) int {
	p, err := parsePlan(args, errs)
	if err != nil {
		fmt.Fprintln(errs, err)
		return 2
	}
	debug.SetGCPercent(-1) // a short-lived process: no pauses
	o, err := generate(p)
	if err == nil {
		err = json.NewEncoder(out).Encode(o)
	}
	if err != nil {
		fmt.Fprintln(errs, err)
		return 1
	}
	return 0
}
