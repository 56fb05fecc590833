package sim_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"outrigger/sidecar/sim"
)

// TestTables prints the tables of PICKING.md as the real code has them.
func TestTables(t *testing.T) {
	if !*full {
		t.Skip("the full tables are printed with -full -v -timeout 1h")
	}
	for _, table := range []struct {
		name string
		run  func(*testing.T)
	}{
		{"policies", tablePolicies},
		{"loads", tableLoads},
		{"scenarios", tableScenarios},
		{"apps", tableApps},
		{"blackhole", tableBlackHole},
		{"cold", tableCold},
		{"memory", tableMemory},
		{"admission", tableAdmission},
		{"surge", tableSurge},
	} {
		t.Run(table.name, table.run)
	}
}

// table prints rows of markdown; the first is the header.
func table(t *testing.T, title string, rows ...[]string) {
	t.Helper()
	var b strings.Builder
	fmt.Fprintf(&b, "\n%s\n\n", title)
	for i, row := range rows {
		fmt.Fprintf(&b, "| %s |\n", strings.Join(row, " | "))
		if i == 0 {
			b.WriteString("|" + strings.Repeat("---|", len(row)) + "\n")
		}
	}
	fmt.Println(b.String()) // as it comes: the whole takes long
}

func tablePolicies(t *testing.T) {
	var cells []sim.Config
	for _, c := range contestants() {
		cells = append(cells, fleet(0.7, c.set), fleet(0.9, c.set))
	}
	r := measure(t, *seeds, cells...)
	rows := [][]string{{"policy", "70 % p50", "p99", "goodput", "90 % p50", "p99", "p99.9", "goodput"}}
	for i, c := range contestants() {
		at70, at90 := r[2*i], r[2*i+1]
		rows = append(rows, []string{c.name,
			ms(median(at70, p50)), spread(at70, p99), percent(median(at70, goodput)),
			ms(median(at90, p50)), spread(at90, p99), ms(median(at90, p999)), percent(median(at90, goodput))})
	}
	table(t, "100 sidecars, 50 backends, reports every 0.5 s; ms, median over seeds (lowest-highest)", rows...)
}

func tableLoads(t *testing.T) {
	loads := []float64{0.5, 0.7, 0.8, 0.9, 0.95}
	list := []contestant{resource, prequal, weighted, oracle}
	var cells []sim.Config
	rows := [][]string{{"p99 / goodput at load"}}
	for _, load := range loads {
		rows[0] = append(rows[0], percent(load))
		for _, c := range list {
			cells = append(cells, fleet(load, c.set))
		}
	}
	r := measure(t, *seeds, cells...)
	for i, c := range list {
		row := []string{c.name}
		for l := range loads {
			cell := r[l*len(list)+i]
			row = append(row, spread(cell, p99)+" / "+percent(median(cell, goodput)))
		}
		rows = append(rows, row)
	}
	table(t, "Loads", rows...)
}

func tableScenarios(t *testing.T) {
	rows := [][]string{{"at 90 % load", "policy", "p50", "p99", "p99.9", "goodput", "sweep's p99"}}
	for _, s := range scenarios() {
		list := append([]contestant{resource}, s.also...)
		var cells []sim.Config
		for _, c := range list {
			set := s.set
			if set == nil {
				set = func(*sim.Config) {}
			}
			cells = append(cells, fleet(0.9, set, c.set))
		}
		n := *seeds
		if s.heavy {
			n = min(n, 2)
		}
		start := time.Now()
		for i, r := range measure(t, n, cells...) {
			reference := ""
			if i == 0 && s.sweep > 0 {
				reference = fmt.Sprint(s.sweep)
			}
			rows = append(rows, []string{s.name, list[i].name, ms(median(r, p50)), spread(r, p99), ms(median(r, p999)), percent(median(r, goodput)), reference})
		}
		t.Logf("%s: %v", s.name, time.Since(start).Round(time.Second))
	}
	table(t, "Scenarios", rows...)
}

func tableApps(t *testing.T) {
	list := []contestant{resource, oracle, {"least_conn", policy("least_conn")}, prequal, {"round_robin", policy("round_robin")}}
	var cells []sim.Config
	for _, c := range list {
		cells = append(cells, fleet(0.7, threeApps, c.set))
	}
	rows := [][]string{{"policy", "share of the fast app", "p50", "p99"}}
	for i, r := range measure(t, *seeds, cells...) {
		rows = append(rows, []string{list[i].name, percent(median(r, shareOf(fast))), ms(median(r, p50)), spread(r, p99)})
	}
	table(t, "Three apps, two of which sleep 5 s; 10 sidecars, 70 % of what the fast one can do", rows...)
}

func tableBlackHole(t *testing.T) {
	list := []contestant{resource, {"resource, no error figures", all(policy("resource"), mute)},
		{"least_conn", policy("least_conn")}, {"peak_ewma", policy("peak_ewma")}, prequal}
	var cells []sim.Config
	for _, c := range list {
		cells = append(cells, fleet(0.7, blackHole, c.set))
	}
	rows := [][]string{{"policy", "errors", "p99", "goodput"}}
	for i, r := range measure(t, *seeds, cells...) {
		rows = append(rows, []string{list[i].name, percent(median(r, errors)), spread(r, p99), percent(median(r, goodput))})
	}
	table(t, "One backend of 50 fails every request at once, 70 % load", rows...)
}

func tableCold(t *testing.T) {
	var list []contestant
	for _, name := range []string{"resource", "least_conn", "peak_ewma", "round_robin"} {
		list = append(list, contestant{name, policy(name)}, contestant{name + ", slow_start 0", all(policy(name), atOnce)})
	}
	var cells []sim.Config
	for _, c := range list {
		cells = append(cells, fleet(0.7, coldJoin, c.set))
	}
	rows := [][]string{{"policy", "most in flight on it", "p99", "goodput"}}
	for i, r := range measure(t, *seeds, cells...) {
		f := mostInFlight(50)
		rows = append(rows, []string{list[i].name, fmt.Sprintf("%d (%d-%d)", median(r, f), lowest(r, f), highest(r, f)), spread(r, p99), percent(median(r, goodput))})
	}
	table(t, "A cold backend joins, 70 % load", rows...)
}

func tableMemory(t *testing.T) {
	list := []contestant{resource, {"resource, memory_veto = 1", all(policy("resource"), veto(1))},
		{"least_conn", policy("least_conn")}, prequal, {"round_robin", policy("round_robin")}}
	var cells []sim.Config
	for _, c := range list {
		cells = append(cells, fleet(0.7, leaking, c.set))
	}
	rows := [][]string{{"policy", "kills", "p99", "goodput"}}
	for i, r := range measure(t, *seeds, cells...) {
		rows = append(rows, []string{list[i].name, fmt.Sprintf("%d (%d-%d)", median(r, kills), lowest(r, kills), highest(r, kills)), spread(r, p99), percent(median(r, goodput))})
	}
	table(t, "Every fifth backend leaks memory, 70 % load", rows...)
}

func tableAdmission(t *testing.T) {
	list := []contestant{
		{"none", all(policy("resource"), maxWait(0), maxInFlight(0))},
		{"static limit 5 per sidecar", all(policy("resource"), maxWait(0), maxInFlight(5))},
		{"max_wait 0.15 (the delay rule)", policy("resource")},
		{"the same, all agents silent", all(policy("resource"), silent(1))},
	}
	sizes := []int{10, 100, 1000}
	var cells []sim.Config
	for _, c := range list {
		for _, n := range sizes {
			cells = append(cells, fleet(1.5, sidecars(n), c.set))
		}
	}
	cells = append(cells, fleet(0.9, resource.set))
	r := measure(t, *seeds, cells...)
	rows := [][]string{{"goodput at 150 % load, of capacity", "S = 10", "S = 100", "S = 1,000"}}
	for i, c := range list {
		row := []string{c.name}
		for k := range sizes {
			cell := r[i*len(sizes)+k]
			row = append(row, percent(1.5*median(cell, goodput))+", p99 "+spread(cell, p99))
		}
		rows = append(rows, row)
	}
	last := r[len(r)-1]
	table(t, "Admission; false shedding at 90 % load: "+percent(median(last, turned)), rows...)
}

func tableSurge(t *testing.T) {
	rows := [][]string{{"Retry-After", "served in the end", "p99"}}
	for _, c := range []struct {
		name  string
		after time.Duration
	}{{"as computed", 0}, {"1 s", time.Second}, {"5 s", 5 * time.Second}} {
		r := measure(t, *seeds, fleet(0.7, resource.set, comeBack(c.after)))[0]
		rows = append(rows, []string{c.name, percent(median(r, goodput)), spread(r, p99)})
	}
	table(t, "A surge of 1.6 times the capacity for 5 s, clients return up to 4 times, 70 % load before and after", rows...)
}
