package sim

import (
	"flag"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"outrigger/picker"
)

var (
	full     = flag.Bool("sim.full", false, "print PICKING.md's table beside ours")
	only     = flag.String("sim.only", "", "only rows whose name holds this")
	seeds    = flag.Int("sim.seeds", 1, "seeds of each row")
	measured = flag.Duration("sim.measured", 25*time.Second, "measured time of each run")
)

// row is a line of PICKING.md's table.
type row struct {
	name             string
	at70, at90       string // p50 / p99 / goodput; p50 / p99 / p99.9 / goodput
	policy, baseline string
	weighted         bool
}

var rows = []row{
	{"round robin", "172 / TO / 62.3", "968 / TO / TO / 49.6", "round_robin", "", false},
	{"least-conn, own counts", "60 / TO / 81.1", "157 / TO / TO / 72.3", "least_conn", "", false},
	{"p2c, weighted by power", "24 / 939 / 98.9", "57 / TO / TO / 95.2", "p2c", "", true},
	{"PeakEWMA", "31 / TO / 97.0", "129 / TO / TO / 81.5", "peak_ewma", "", false},
	{"gRPC WRR", "24 / 953 / 98.9", "67 / TO / TO / 93.9", "", "grpc_wrr", false},
	{"lowest CPU", "915 / TO / 52.4", "TO / TO / TO / 33.8", "", "lowest_cpu", false},
	{"C3", "18 / 266 / 99.98", "48 / 843 / TO / 98.9", "", "c3", false},
	{"Prequal", "23 / 347 / 99.97", "42 / 529 / 996 / 99.85", "", "prequal", false},
	{"sweep", "16 / 180 / 100", "25 / 277 / 592 / 99.98", "resource", "", false},
	{"oracle", "12 / 130 / 100", "16 / 176 / 388 / 100", "", "oracle", false},
}

func ms(d time.Duration) string {
	if d == Never {
		return "TO"
	}
	return fmt.Sprintf("%.0f", float64(d)/float64(time.Millisecond))
}

// TestTable prints ours beside PICKING.md's.
func TestTable(t *testing.T) {
	if !*full {
		t.Skip("a table for people; run with -sim.full -v")
	}
	for _, load := range []float64{0.7, 0.9} {
		for _, r := range rows {
			if !strings.Contains(r.name, *only) {
				continue
			}
			theirs := r.at90
			if load == 0.7 {
				theirs = r.at70
			}
			var p50, p99, p999 []time.Duration
			good, took, ejected := 0.0, time.Duration(0), 0
			for seed := range *seeds {
				c := Default()
				c.Seed, c.Load.Level, c.Measured = uint64(seed+1), load, *measured
				c.Baseline = r.baseline
				if r.policy != "" {
					c.Balance.Picker.Policy = r.policy
				}
				if r.policy != "resource" {
					c.Client.Outcome = picker.Ignore // theirs ejected nothing
				}
				if r.weighted {
					c.Backends = ByPower(c.Backends)
				}
				start := time.Now()
				res, err := Run(c)
				if err != nil {
					t.Fatal(err)
				}
				took += time.Since(start)
				p50, p99, p999 = append(p50, res.P50), append(p99, res.P99), append(p999, res.P999)
				good += res.Goodput / float64(*seeds)
				ejected += res.Ejections
			}
			mid := func(d []time.Duration) string { slices.Sort(d); return ms(d[len(d)/2]) }
			t.Logf("%.0f %% %-24s %4s / %4s / %4s / %6.2f %%   theirs %-24s  %5.1f s, %d ejections",
				100*load, r.name, mid(p50), mid(p99), mid(p999), 100*good, theirs, took.Seconds(), ejected)
		}
	}
}
