package main

import (
	"flag"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
)

// burnCommand and neighbourCommand make this program a backend that burns CPU
// for each request, and a neighbour that burns it for nobody.
const (
	burnCommand      = "burn"
	neighbourCommand = "neighbour"
)

// workPrefix begins the path of a request; the work in units follows. A unit is
// a fixed number of iterations, calibrated once per run to about 1 µs of CPU
// time, so that a request costs the same on every backend and however long the
// kernel makes the backend wait.
const workPrefix = "/w/"

// maxWork bounds a request: a minute of CPU time.
const maxWork = 60e6

// workOf reads the units of work that a request head asks for.
func workOf(head []byte) (int, error) {
	rest, ok := strings.CutPrefix(string(head), "GET "+workPrefix)
	digits, _, found := strings.Cut(rest, " ")
	if !ok || !found {
		return 0, fmt.Errorf("a request that is no GET %sUNITS: %.40q", workPrefix, head)
	}
	n, err := strconv.Atoi(digits)
	if err != nil || n < 0 || n > maxWork {
		return 0, fmt.Errorf("a request for %.20q units of work", digits)
	}
	return n, nil
}

// burn works for some iterations, in registers only: what it costs does not
// depend on what others do to caches. The result keeps the compiler honest.
func burn(iterations int) uint64 {
	x := uint64(iterations) | 1
	for range iterations {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
	}
	return x
}

// burnPlan is the command line of a backend.
type burnPlan struct {
	addr  string
	gauge string // file where the requests in the backend are counted
	unit  int    // iterations of a unit of work
}

func (p burnPlan) args() []string {
	return []string{burnCommand, "-addr", p.addr, "-gauge", p.gauge, "-unit", strconv.Itoa(p.unit)}
}

func parseBurnPlan(args []string, errs io.Writer) (burnPlan, error) {
	var p burnPlan
	fs := flag.NewFlagSet(burnCommand, flag.ContinueOnError)
	fs.SetOutput(errs)
	fs.StringVar(&p.addr, "addr", "", "`ADDR:PORT` to listen on")
	fs.StringVar(&p.gauge, "gauge", "", "`FILE` for the count of requests")
	fs.IntVar(&p.unit, "unit", 0, "iterations of a unit of work")
	if err := fs.Parse(args); err != nil {
		return p, err
	}
	if p.addr == "" || p.gauge == "" || p.unit < 1 || p.unit > math.MaxInt32 {
		return p, fmt.Errorf("%q is no backend", args)
	}
	return p, nil
}
