package sim

import (
	"strings"
	"testing"
	"time"

	"outrigger/picker"
)

// scenario is one of those that PICKING.md lists below its table.
type scenario struct {
	name, theirs string
	load         float64
	change       func(*Config)
}

func scenarios() []scenario {
	tell := func(every time.Duration) func(*Config) {
		return func(c *Config) { c.Agents.Interval = every }
	}
	return []scenario{
		{"reports every 0.1 s", "252", 0.9, tell(100 * time.Millisecond)},
		{"every 0.5 s", "295", 0.9, tell(500 * time.Millisecond)},
		{"every 1 s", "326", 0.9, tell(time.Second)},
		{"every 2 s", "395", 0.9, tell(2 * time.Second)},
		{"every 5 s", "535", 0.9, tell(5 * time.Second)},
		{"noise of 30 %", "309", 0.9, func(c *Config) { c.Agents.Noise = 0.3 }},
		{"30 % of reports lost", "310", 0.9, func(c *Config) { c.Agents.Loss = 0.3 }},
		{"20 ms there and back", "369", 0.9, func(c *Config) { c.Network.Delay = 10 * time.Millisecond }},
		{"20 % of agents silent", "495", 0.9, func(c *Config) { c.Agents.Silent = 0.2 }},
		{"all agents silent", "847", 0.9, func(c *Config) { c.Agents.Silent = 1 }},
		{"two liars", "324", 0.9, func(c *Config) { c.Backends[0].Agent.Lies, c.Backends[2].Agent.Lies = true, true }},
		{"no in-flight figure", "617", 0.9, func(c *Config) { c.Agents.NoInFlight = true }},
		{"broadcast", "goodput 68", 0.9, func(c *Config) { c.Agents.Broadcast = true }},
		{"1000 sidecars, every 2 s", "377", 0.9, func(c *Config) { c.Sidecars, c.Agents.Interval = 1000, 2*time.Second }},
		{"exponential work", "", 0.9, func(c *Config) { c.Work.Distribution = Exponential }},
		{"Pareto work", "", 0.9, func(c *Config) { c.Work.Distribution, c.Work.Shape = Pareto, 2.2 }},
		{"fixed work", "", 0.9, func(c *Config) { c.Work.Distribution = Fixed }},
		{"black hole", "errors 0.00 %", 0.7, hole},
		{"black hole, errors not told", "errors 0.41 %", 0.7, func(c *Config) { hole(c); c.Agents.NoErrors = true }},
		{"a cold backend joins", "4 to 6 in flight", 0.7, func(c *Config) {
			c.Backends[4].Cold, c.Backends[4].Joins = Cold{Slow: 10, Time: 5 * time.Second}, 15*time.Second
		}},
		{"one fast app, two that sleep", "first 99.9 %, p99 280", 0.7, sleepers},
		{"150 % load, 10 sidecars", "goodput 97.1/1.5", 1.5, func(c *Config) { c.Sidecars = 10 }},
		{"150 % load, 100 sidecars", "goodput 97.5/1.5", 1.5, func(*Config) {}},
		{"150 % load, 1000 sidecars", "goodput 97.3/1.5", 1.5, func(c *Config) { c.Sidecars, c.Agents.Asks = 1000, true }},
		{"150 % load, no admission", "goodput 10/1.5", 1.5, func(c *Config) { c.Balance.MaxWait = 0 }},
		{"leaking memory", "0 kills", 0.7, func(c *Config) {
			for i := range 5 {
				c.Backends[i].Memory = Memory{Base: 0.3, Leak: 0.0005, Restart: 2 * time.Second}
			}
		}},
	}
}

func hole(c *Config) { c.Backends[4].Fault = Fault{Kind: Status, Share: 1} }

func sleepers(c *Config) {
	c.Sidecars = 10
	c.Backends = []Backend{{Cores: 2, Speed: 1}, {Cores: 2, Speed: 1, Wait: 5 * time.Second}, {Cores: 2, Speed: 1, Wait: 5 * time.Second}}
	c.Neighbour = Neighbour{}
	c.Load.Rate = 0.7 * 2 / 0.02
	c.Client.Timeout = 30 * time.Second
	c.Warm = 30 * time.Second // until the sleepers' first answers are long in
}

// TestScenarios prints ours beside PICKING.md's.
func TestScenarios(t *testing.T) {
	if !*full {
		t.Skip("a table for people; run with -sim.full -v")
	}
	for _, s := range scenarios() {
		if !strings.Contains(s.name, *only) {
			continue
		}
		for _, policy := range []string{"resource", "least_conn"} {
			c := Default()
			c.Load.Level, c.Measured = s.load, *measured
			c.Balance.Picker.Policy = policy
			s.change(&c)
			r := run(t, c)
			most, kills := 0, 0
			for _, b := range r.Backends {
				if b.Name == "backend 4" {
					most = b.MaxInFlight
				}
				kills += b.Kills
			}
			t.Logf("%-28s %-10s %4s / %4s / %4s / %6.2f %%  errors %.2f %%  shed %5.2f %%  first %5.2f %%  backend 4: %3d in flight  %d kills   sweep: %s",
				s.name, policy, ms(r.P50), ms(r.P99), ms(r.P999), 100*r.Goodput, 100*r.Errors, 100*r.ShedShare,
				100*r.Backends[0].Share, most, kills, s.theirs)
		}
	}
}

// TestScenariosRun runs each of them for a moment, in small.
func TestScenariosRun(t *testing.T) {
	for _, s := range scenarios() {
		for _, policy := range []string{"resource", "oracle"} {
			c := short(policy)
			c.Load.Level = s.load
			s.change(&c)
			c.Sidecars = min(c.Sidecars, 20)
			c.Warm, c.Measured = 500*time.Millisecond, time.Second
			if c.Client.Outcome != picker.Failure {
				t.Errorf("%s: by default a time-out is no failure", s.name)
			}
			if r := run(t, c); r.Requests == 0 {
				t.Errorf("%s, %s: no request", s.name, policy)
			}
		}
	}
}
