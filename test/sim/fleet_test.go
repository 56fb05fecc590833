// Package sim_test reproduces the tables of PICKING.md with the real balancer,
// picker and breakers, and holds bounds on them.
//
//	go test ./test/sim                                  # the bounds, under a minute
//	go test ./test/sim -run Tables -v -full -timeout 1h # all tables, as markdown
package sim_test

import (
	"cmp"
	"flag"
	"fmt"
	"math"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"outrigger/picker"
	"outrigger/sidecar/sim"
)

var (
	full  = flag.Bool("full", false, "run the full tables: a quarter of an hour on two cores")
	seeds = flag.Int("seeds", 5, "seeds of each cell of the tables")
)

// change is a departure from PICKING.md's fleet.
type change func(*sim.Config)

// fleet is PICKING.md's, at a load, with changes in turn. Clients leave after
// their time-out, so no breaker counts it.
func fleet(load float64, changes ...change) sim.Config {
	c := sim.Default()
	c.Load.Level, c.Client.Outcome = load, picker.Ignore
	for _, f := range changes {
		f(&c)
	}
	return c
}

// contestant is a row of the tables.
type contestant struct {
	name string
	set  change
}

// policy is one of ours, with the breakers as configured by default.
func policy(name string) change {
	return func(c *sim.Config) { c.Balance.Picker.Policy = name }
}

// own has the sidecar time requests out by itself, which its breakers count.
func own(c *sim.Config) { c.Client.Outcome = picker.Failure }

// baseline is a policy that lives only in the simulator.
func baseline(name string) change {
	return func(c *sim.Config) { c.Baseline = name }
}

// bySpeed sets weights in proportion to cores times speed, which is what
// PICKING.md's "weighted by cores" turned out to be.
func bySpeed(c *sim.Config) {
	c.Backends = slices.Clone(c.Backends)
	for i := range c.Backends {
		b := &c.Backends[i]
		b.Weight = int(math.Round(10 * b.Cores * b.Speed))
	}
}

// all does several changes.
func all(changes ...change) change {
	return func(c *sim.Config) {
		for _, f := range changes {
			f(c)
		}
	}
}

var (
	resource = contestant{"resource", policy("resource")}
	oracle   = contestant{"oracle", baseline("oracle")}
	prequal  = contestant{"Prequal", baseline("prequal")}
	weighted = contestant{"p2c, weights by cores and speed", all(policy("p2c"), bySpeed)}
)

// contestants in the order of PICKING.md's table.
func contestants() []contestant {
	return []contestant{
		{"round_robin", policy("round_robin")},
		{"least_conn", policy("least_conn")},
		weighted,
		{"peak_ewma", policy("peak_ewma")},
		{"gRPC weighted round robin", baseline("grpc_wrr")},
		{"lowest reported CPU", baseline("lowest_cpu")},
		{"C3", baseline("c3")},
		prequal,
		resource,
		oracle,
	}
}

// runs are the results of one cell, one for each seed, in order.
type runs []*sim.Result

// measure runs every configuration with the seeds 1 to n, on all CPUs.
func measure(t testing.TB, n int, cells ...sim.Config) []runs {
	t.Helper()
	out := make([]runs, len(cells))
	var mu sync.Mutex
	var wg sync.WaitGroup
	turn := make(chan struct{}, runtime.GOMAXPROCS(0))
	for i := range cells {
		out[i] = make(runs, n)
		for s := range n {
			turn <- struct{}{}
			wg.Go(func() {
				defer func() { <-turn }()
				c := cells[i]
				c.Seed = uint64(s + 1)
				r, err := sim.Run(c)
				if err != nil {
					mu.Lock()
					defer mu.Unlock()
					t.Errorf("cell %d, seed %d: %v", i, s+1, err)
					r = &sim.Result{}
				}
				out[i][s] = r
			})
		}
	}
	wg.Wait()
	if t.Failed() {
		t.FailNow()
	}
	return out
}

// median and the rest are over the seeds.
func median[T cmp.Ordered](r runs, f func(*sim.Result) T) T {
	v := values(r, f)
	return v[len(v)/2]
}

func highest[T cmp.Ordered](r runs, f func(*sim.Result) T) T { return slices.Max(values(r, f)) }
func lowest[T cmp.Ordered](r runs, f func(*sim.Result) T) T  { return slices.Min(values(r, f)) }

func values[T cmp.Ordered](r runs, f func(*sim.Result) T) []T {
	v := make([]T, len(r))
	for i := range r {
		v[i] = f(r[i])
	}
	slices.Sort(v)
	return v
}

func p50(r *sim.Result) time.Duration  { return r.P50 }
func p99(r *sim.Result) time.Duration  { return r.P99 }
func p999(r *sim.Result) time.Duration { return r.P999 }
func goodput(r *sim.Result) float64    { return r.Goodput }
func errors(r *sim.Result) float64     { return r.Errors }
func turned(r *sim.Result) float64     { return float64(r.Turned) / float64(max(1, r.Requests)) }

// shareOf is the share of the requests that one backend got.
func shareOf(i int) func(*sim.Result) float64 {
	return func(r *sim.Result) float64 { return r.Backends[i].Share }
}

func mostInFlight(i int) func(*sim.Result) int {
	return func(r *sim.Result) int { return r.Backends[i].MaxInFlight }
}

func kills(r *sim.Result) int {
	n := 0
	for _, b := range r.Backends {
		n += b.Kills
	}
	return n
}

// ms writes a latency in whole milliseconds, TO beyond the time-out.
func ms(d time.Duration) string {
	if d == sim.Never {
		return "TO"
	}
	return fmt.Sprint(d.Round(time.Millisecond).Milliseconds())
}

// spread writes a latency's median and its lowest and highest.
func spread(r runs, f func(*sim.Result) time.Duration) string {
	low, high := ms(lowest(r, f)), ms(highest(r, f))
	if low == high {
		return low
	}
	return fmt.Sprintf("%s (%s-%s)", ms(median(r, f)), low, high)
}

func percent(v float64) string {
	if v > 0.99 || v > 0 && v < 0.01 {
		return fmt.Sprintf("%.2f %%", v*100)
	}
	return fmt.Sprintf("%.1f %%", v*100)
}
