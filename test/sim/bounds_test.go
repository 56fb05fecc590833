package sim_test

import (
	"testing"
	"time"

	"outrigger/sidecar/sim"
)

// bound is what a cell's median over the seeds has to keep. The zero value of a
// field asks for nothing.
type bound struct {
	name    string
	cfg     sim.Config
	seeds   int
	p99     [2]float64 // least and most, in ms; "most" 0 is no bound
	over    bool       // p99 is over the time-out
	goodput [2]float64 // least and most
	check   func(t *testing.T, r runs)
}

// shorter measures less than the tables do, as CI has two busy cores for it.
func shorter(c *sim.Config) { c.Warm, c.Measured = 8*time.Second, 15*time.Second }

func reduced(load float64, changes ...change) sim.Config {
	return fleet(load, append([]change{shorter}, changes...)...)
}

// TestBounds holds the real code to PICKING.md: resource at or under sweep's
// figures within their spread, the baselines near theirs, which shows that the
// model is the same.
func TestBounds(t *testing.T) {
	if raceEnabled {
		t.Skip("a run is one goroutine and takes ten times as long with the race detector: nothing to be found")
	}
	list := bounds()
	cells := map[int][]sim.Config{}
	at := map[int][]int{}
	for i, b := range list {
		cells[b.seeds] = append(cells[b.seeds], b.cfg)
		at[b.seeds] = append(at[b.seeds], i)
	}
	results := make([]runs, len(list))
	for n, group := range cells {
		for i, r := range measure(t, n, group...) {
			results[at[n][i]] = r
		}
	}
	for i, b := range list {
		t.Run(b.name, func(t *testing.T) { b.hold(t, results[i]) })
	}
}

func (b *bound) hold(t *testing.T, r runs) {
	tail, good := median(r, p99), median(r, goodput)
	t.Logf("p50 %s p99 %s p99.9 %s, goodput %s, errors %s, shed %s", ms(median(r, p50)), spread(r, p99), ms(median(r, p999)),
		percent(good), percent(median(r, errors)), percent(median(r, turned)))
	inMs := float64(tail) / float64(time.Millisecond)
	switch {
	case b.over && tail != sim.Never:
		t.Errorf("p99 is %s ms, expected over the time-out", ms(tail))
	case inMs < b.p99[0], b.p99[1] > 0 && inMs > b.p99[1]:
		t.Errorf("p99 is %s ms, expected %v to %v", ms(tail), b.p99[0], b.p99[1])
	}
	if good < b.goodput[0] || b.goodput[1] > 0 && good > b.goodput[1] {
		t.Errorf("goodput is %s, expected %s to %s", percent(good), percent(b.goodput[0]), percent(b.goodput[1]))
	}
	if b.check != nil {
		b.check(t, r)
	}
}

func atMost(what string, f func(*sim.Result) float64, most float64) func(*testing.T, runs) {
	return func(t *testing.T, r runs) {
		t.Helper()
		if v := median(r, f); v > most {
			t.Errorf("%s: %.4f, expected at most %.4f", what, v, most)
		}
	}
}

func atLeast(what string, f func(*sim.Result) float64, least float64) func(*testing.T, runs) {
	return func(t *testing.T, r runs) {
		t.Helper()
		if v := median(r, f); v < least {
			t.Errorf("%s: %.4f, expected at least %.4f", what, v, least)
		}
	}
}
