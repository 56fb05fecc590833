// Command bench measures Outrigger's sidecar beside HAProxy and NGINX: the
// same work for all three, the proxy alone on one processor, load and backends
// on another.
//
//	go run ./test/bench                    everything but the attacks
//	go run ./test/bench -cases small-64,close-32 -rounds 9
//	go run ./test/bench -cases slow        slow clients, against HAProxy
//	go run ./test/bench -cases balance     the choice of backends under load
//	go run ./test/bench -cases flask       the same, where two of three backends sleep
//	go run ./test/bench -cases agent       what agents and asking them cost
//	go run ./test/bench -cases discovery   from a change in Consul to the requests, in 20 minutes
//	go run ./test/bench -cases catalog     what 500 services with 10,000 instances cost, in 6 minutes
//	go run ./test/bench -profile cmd/outrigger/default.pgo
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// options are what the command line says.
type options struct {
	cases   []string
	rounds  int
	seconds int    // of load per round and proxy
	quick   bool   // to see that it works: the figures are noise
	json    string // file for the results
	picture string // file for a drawing of the case balance
	loads   []int  // of the case balance, in percent of capacity
	profile string // file for a CPU profile of our sidecar, instead of cases
	binary  string // outrigger to measure; "": built from the tree
}

func main() {
	if runtime.GOOS != "linux" {
		fmt.Fprintln(os.Stderr, "bench: it pins processes to processors and reads /proc, which needs Linux, not "+runtime.GOOS)
		os.Exit(1)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	if len(os.Args) > 1 { // what this program starts itself
		switch args := os.Args[2:]; os.Args[1] {
		case generatorCommand:
			os.Exit(runGenerator(args, os.Stdout, os.Stderr))
		case burnCommand:
			os.Exit(runBurner(args, os.Stderr))
		case neighbourCommand:
			os.Exit(runNeighbour(args, os.Stderr))
		}
	}
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

func run(ctx context.Context, args []string, out, errs io.Writer) int {
	opt, err := parseOptions(args, errs)
	if err != nil {
		if err != flag.ErrHelp {
			fmt.Fprintln(errs, "bench:", err)
		}
		return 2
	}
	if err := measure(ctx, opt, out, errs); err != nil {
		fmt.Fprintln(errs, "bench:", err)
		return 1
	}
	return 0
}

func parseOptions(args []string, errs io.Writer) (options, error) {
	var opt options
	fs := flag.NewFlagSet("bench", flag.ContinueOnError)
	fs.SetOutput(errs)
	list := fs.String("cases", "all", "comma-separated; \"all\" is all but slow, "+strings.Join(ownFleet(), ", ")+"; there are "+strings.Join(caseNames(), ", "))
	fs.IntVar(&opt.rounds, "rounds", 5, "rounds of each case, 1 to 100; the proxies take turns within each; discovery and catalog do a fifth of them")
	fs.IntVar(&opt.seconds, "seconds", 3, "seconds of load per round and proxy, 1 to 600; for slow the least time of an attack; balance takes five times as long, catalog twenty times, flask and discovery as long as they take")
	loads := fs.String("loads", "50,70,90", "loads of the case balance, comma-separated, in percent of capacity, 1 to 200")
	fs.StringVar(&opt.picture, "picture", "", "draw the results of the case balance into `FILE`, as SVG")
	fs.BoolVar(&opt.quick, "quick", false, "2 rounds of 1 s: shows that it works, no more")
	fs.StringVar(&opt.json, "json", "", "write all results to `FILE` too")
	fs.StringVar(&opt.profile, "profile", "", "instead of comparing, write a CPU profile of our sidecar under a mix of the cases to `FILE`, for profile-guided builds")
	fs.StringVar(&opt.binary, "binary", "", "measure the outrigger in `FILE` instead of one built from this tree")
	if err := fs.Parse(args); err != nil {
		return opt, flag.ErrHelp // the flag package has said what is wrong
	}
	if opt.quick {
		opt.rounds, opt.seconds = 2, 1
	}
	var err error
	switch {
	case fs.NArg() > 0:
		err = fmt.Errorf("%q is not understood; cases are chosen with -cases", fs.Arg(0))
	case opt.rounds < 1 || opt.rounds > 100:
		err = fmt.Errorf("-rounds is %d, allowed are 1 to 100", opt.rounds)
	case opt.seconds < 1 || opt.seconds > 600:
		err = fmt.Errorf("-seconds is %d, allowed are 1 to 600", opt.seconds)
	default:
		var lerr error
		opt.loads, lerr = parseLoads(*loads)
		opt.cases, err = chooseCases(*list)
		if opt.picture != "" && err == nil && !slices.Contains(opt.cases, balanceCase) {
			err = fmt.Errorf("-picture draws the case %s, which is not among -cases", balanceCase)
		}
		err = errors.Join(err, lerr)
	}
	return opt, err
}

// parseLoads reads percentages, each once and in their order.
func parseLoads(list string) ([]int, error) {
	var loads []int
	for text := range strings.SplitSeq(list, ",") {
		n, err := strconv.Atoi(strings.TrimSpace(text))
		if err != nil || n < 1 || n > 200 {
			return nil, fmt.Errorf("-loads has %q, not a percentage of 1 to 200", text)
		}
		loads = append(loads, n)
	}
	slices.Sort(loads)
	return slices.Compact(loads), nil
}

// measure sets everything up, runs what was asked for and tears it down.
func measure(ctx context.Context, opt options, out, errs io.Writer) (err error) {
	b := &bench{opt: opt, out: out, errs: errs}
	defer b.tearDown()
	if err := b.setUp(ctx); err != nil {
		return err
	}
	if opt.profile != "" {
		return b.profile(ctx, opt.profile)
	}
	var results []*result
	defer func() {
		// What was measured before a failure is not lost.
		if werr := b.finish(results); err == nil {
			err = werr
		}
	}()
	for _, name := range opt.cases {
		rs, err := b.runCase(ctx, name)
		for _, r := range rs {
			if r != nil && len(r.Rounds) > 0 { // some cases have done several rounds when they fail
				r.print(out)
				results = append(results, r)
			}
		}
		if err != nil {
			return fmt.Errorf("case %s: %w", name, err)
		}
	}
	return nil
}

// finish prints the summary and writes the JSON file.
func (b *bench) finish(results []*result) error {
	printSummary(b.out, results)
	if b.opt.picture != "" && drawable(results) { // a case that was skipped has said why
		if err := writePicture(b.opt.picture, results); err != nil {
			return err
		}
	}
	if b.opt.json == "" || len(results) == 0 {
		return nil
	}
	return writeJSON(b.opt.json, b.about(), results)
}
