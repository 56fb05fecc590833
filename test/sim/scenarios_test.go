package sim_test

import (
	"time"

	"outrigger/sidecar/sim"
)

// scenario is a departure from the fleet at which sweep was measured too.
type scenario struct {
	name string
	set  change
	// p99 that PICKING.md has for sweep in milliseconds, 0 where it says only
	// that sweep holds.
	sweep float64
	heavy bool // takes minutes of CPU
	// also are rows beside resource.
	also []contestant
}

func sidecars(n int) change        { return func(c *sim.Config) { c.Sidecars = n } }
func polls(d time.Duration) change { return func(c *sim.Config) { c.Agents.Interval = d } }
func backends(n int) change        { return func(c *sim.Config) { c.Backends = sim.Fleet(n) } }
func silent(share float64) change  { return func(c *sim.Config) { c.Agents.Silent = share } }
func delay(d time.Duration) change { return func(c *sim.Config) { c.Network.Delay = d } }
func noNeighbours(c *sim.Config)   { c.Neighbour = sim.Neighbour{} }
func work(w sim.Work) change       { return func(c *sim.Config) { c.Work = w } }
func maxInFlight(n int) change     { return func(c *sim.Config) { c.Balance.MaxInFlight = n } }
func maxWait(share float64) change { return func(c *sim.Config) { c.Balance.MaxWait = share } }
func noInFlight(c *sim.Config)     { c.Agents.NoInFlight = true }
func broadcast(c *sim.Config)      { c.Agents.Broadcast = true }
func noise(c *sim.Config)          { c.Agents.Noise = 0.3 }
func loss(c *sim.Config)           { c.Agents.Loss = 0.3 }

// liars are two agents, of a small and of a large backend, that claim an idle
// machine.
func liars(c *sim.Config) {
	c.Backends[0].Agent.Lies = true
	c.Backends[2].Agent.Lies = true
}

func identical(c *sim.Config) {
	for i := range c.Backends {
		c.Backends[i].Cores, c.Backends[i].Speed = 2, 1
	}
}

const mean = 20 * time.Millisecond

// scenarios are those of PICKING.md's paragraph "It holds under", at 90 %.
func scenarios() []scenario {
	return []scenario{
		{name: "as the table", sweep: 295, also: []contestant{prequal, oracle}},
		{name: "1,000 sidecars, polls every 2 s", set: all(sidecars(1000), polls(2*time.Second)), sweep: 377, heavy: true, also: []contestant{prequal, weighted}},
		{name: "1,000 backends", set: backends(1000), sweep: 289, heavy: true},
		{name: "the sidecar times out, not the client", set: own, sweep: 295},
		{name: "identical backends", set: identical, also: []contestant{oracle}},
		{name: "exponential work", set: work(sim.Work{Mean: mean, Distribution: sim.Exponential}), also: []contestant{oracle}},
		{name: "Pareto work, alpha 2", set: work(sim.Work{Mean: mean, Distribution: sim.Pareto, Shape: 2}), also: []contestant{oracle}},
		{name: "fixed work", set: work(sim.Work{Mean: mean, Distribution: sim.Fixed}), also: []contestant{oracle}},
		{name: "polls every 0.1 s", set: polls(100 * time.Millisecond), sweep: 252},
		{name: "polls every 1 s", set: polls(time.Second), sweep: 326},
		{name: "polls every 2 s", set: polls(2 * time.Second), sweep: 395},
		{name: "polls every 5 s", set: polls(5 * time.Second), sweep: 535, also: []contestant{prequal, {"gRPC weighted round robin", baseline("grpc_wrr")}, {"C3", baseline("c3")}}},
		{name: "30 % noise on the figures", set: noise, sweep: 309},
		{name: "30 % of reports lost", set: loss, sweep: 310},
		{name: "20 ms of network delay", set: delay(20 * time.Millisecond), sweep: 369},
		{name: "20 % of agents silent", set: silent(0.2), sweep: 495},
		{name: "all agents silent", set: silent(1), sweep: 847, also: []contestant{weighted}},
		{name: "all agents silent, weights by cores and speed", set: all(silent(1), bySpeed), sweep: 847},
		{name: "20 % of agents silent, the sidecar times out", set: all(silent(0.2), own), sweep: 495},
		{name: "two agents lie about being idle", set: liars, sweep: 324},
		{name: "no in-flight figure at all", set: noInFlight, sweep: 617},
		{name: "reports pushed to all at once", set: broadcast},
		{name: "3 backends, 3 sidecars", set: all(backends(9), small, sidecars(3)), sweep: 801, also: []contestant{weighted, oracle}},
		{name: "one sidecar", set: sidecars(1), sweep: 188, also: []contestant{weighted}},
	}
}

// small leaves a backend of each size, at the middle speed.
func small(c *sim.Config) { c.Backends = c.Backends[3:6] }

// threeApps is the classic case: three apps alike, two of which sleep 5 s with
// every request, at 70 % of what the fast one can do. The third is the fast one.
func threeApps(c *sim.Config) {
	noNeighbours(c)
	c.Sidecars = 10
	c.Backends = []sim.Backend{{Cores: 2, Speed: 1, Wait: 5 * time.Second}, {Cores: 2, Speed: 1, Wait: 5 * time.Second}, {Cores: 2, Speed: 1}}
	c.Load = sim.Load{Rate: 0.7 * 2 / mean.Seconds()}
	c.Client.Timeout = 30 * time.Second
}

const fast = 2 // its index

// blackHole has a backend fail every request at once from the middle of the
// warm-up on.
func blackHole(c *sim.Config) {
	c.Backends[4].Fault = sim.Fault{Kind: sim.Status, Share: 1, From: c.Warm / 2}
}

func mute(c *sim.Config) { c.Agents.NoErrors = true }

// coldJoin has one more backend of 2 cores come in the measured time, ten times
// as slow at first as later. It leaves after 4 s, so that what was in flight on
// it is counted while it is cold.
func coldJoin(c *sim.Config) {
	joins := c.Warm + 3*time.Second
	c.Backends = append(c.Backends, sim.Backend{Name: "cold", Cores: 2, Speed: 1, Joins: joins, Leaves: joins + 4*time.Second,
		Cold: sim.Cold{Slow: 10, Time: 5 * time.Second}})
}

// atOnce has those that join get their full part at once.
func atOnce(c *sim.Config) { c.Balance.SlowStart = 0 }

// leaking has every fifth backend leak with each request what its collector
// gives back only at less than its fair share of the requests.
func leaking(c *sim.Config) {
	fair := c.Rate(0) / float64(len(c.Backends)) // requests a second
	for i := 0; i < len(c.Backends); i += 5 {
		c.Backends[i].Memory = sim.Memory{Base: 0.5, PerRequest: 0.002, Leak: 0.05 / fair, Reclaim: 0.02, Restart: 2 * time.Second}
	}
}

// veto sets the share of memory from which an endpoint gets nothing.
func veto(share float64) change {
	return func(c *sim.Config) { c.Balance.Picker.Resource.MemoryVeto = share }
}

// comeBack is a surge of 1.6 times the capacity for 5 s, with clients that
// return up to four times.
func comeBack(after time.Duration) change {
	return func(c *sim.Config) {
		c.Load.Surges = []sim.Surge{{From: c.Warm + 5*time.Second, For: 5 * time.Second, Factor: 1.6 / c.Load.Level}}
		c.Client.Returns, c.Client.ReturnAfter = 4, after
	}
}
