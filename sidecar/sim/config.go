// Package sim runs a fleet in virtual time: sidecars with the real balancer,
// picker and breakers in front of modelled backends, agents, networks and
// clients. It is one goroutine and a queue of events, so a run with one seed
// is repeatable bit for bit, and thousands of sidecars fit into one core.
//
// The models are those of PICKING.md, where Default's figures come from.
package sim

import (
	"fmt"
	"math"
	"slices"
	"time"

	"outrigger/picker"
	"outrigger/sidecar/balance"
)

// Config describes one run. Start from Default. Times are virtual; 0 is the
// start of the run.
type Config struct {
	// Seed is the only source of chance. What arrives, how much work it is and
	// what neighbours do depend on it and on nothing that a policy does.
	Seed uint64
	// Balance is what every sidecar runs: policy, breakers, limits, queue.
	Balance balance.Config
	// Baseline, one of Baselines(), replaces Balance.Picker's policy by one that
	// lives only here; "" is none.
	Baseline string

	Sidecars int // 1 to 100000
	Backends []Backend

	Work      Work
	Neighbour Neighbour // on the machine of every backend
	Agents    Agents
	Network   Network
	Load      Load
	Client    Client

	// Warm is not measured; what arrives in the Measured time after it is. The
	// run goes on, under load, until every such request has come to its end.
	Warm, Measured time.Duration
}

// Backend is one backend and the machine it runs on.
type Backend struct {
	Name  string  // for people; "" is "backend N"
	Cores float64 // above 0
	Speed float64 // of a core, above 0; work is given in time at speed 1
	// Weight is the instance's weight in Consul, 1 to 65535; 0 is 1.
	Weight int

	// Limit is the most requests that are worked on at once (threads, workers),
	// 0 none; Backlog how many more wait in the accept queue, 0 any number. What
	// comes beyond it is not heard of again, as Linux drops the connection.
	Limit, Backlog int

	// Wait is how long each request first waits without CPU, on top of its work:
	// a sleep, or a slow database.
	Wait time.Duration
	// IO is the share of a request's time that needs no CPU, 0 up to 1 (not
	// included): it waits for that share of its work's time, and computes for the
	// rest. The waiting comes first and is not slowed by anything.
	IO float64

	// Joins and Leaves are when discovery begins and ceases to know it; Joins 0 is
	// from the start, Leaves 0 is never. It works on what it has when it leaves.
	Joins, Leaves time.Duration
	Cold          Cold
	Memory        Memory
	Fault         Fault
	Agent         Agent
	// Neighbour replaces Config.Neighbour here, if set.
	Neighbour *Neighbour
}

// Cold is a slow start: caches, compilers and pools to be filled. At its start
// (Joins, and after a kill) a backend runs Slow times slower than it will, and
// the excess falls by a factor of e with every Time and every Requests served.
type Cold struct {
	Slow     float64       // 1 and up; 0 is 1, not cold
	Time     time.Duration // 0: time alone warms nothing
	Requests float64       // 0: requests warm nothing
}

// Memory is a backend's working set as a share of its limit. At 1 it is killed:
// what it has in flight is reset, nothing listens for Restart, and then it
// begins anew, at Base, cold, in a new epoch.
type Memory struct {
	Base       float64 // 0 up to 1
	PerRequest float64 // held by each request that is worked on or waits
	Leak       float64 // added by each request for good
	Reclaim    float64 // given back a second of what has leaked (a collector's work), as a share of the limit
	Restart    time.Duration
}

// Fault is how a backend fails at once, without work.
type Fault struct {
	Kind  FaultKind
	Share float64 // of the requests, 0 to 1
	// From and Until bound it; Until 0 is the end of the run.
	From, Until time.Duration
}

// FaultKind is what a client sees of a fault.
type FaultKind uint8

const (
	NoFault FaultKind = iota
	Reset             // the connection breaks: a failure, may be retried
	Status            // an answer with a status that counts as failure
	Refuse            // nothing listens: ejected at once
	Shed              // an answer 503 that says "overloaded": no failure, no latency
)

// Agent is what is special about one backend's agent.
type Agent struct {
	Silent     bool // it never answers
	Lies       bool // it claims an idle machine
	NoInFlight bool // its reports have no in-flight figure
	NoErrors   bool // and no error share
}

// Distribution is the shape of the work of requests.
type Distribution uint8

const (
	LogNormal   Distribution = iota // Shape is sigma
	Exponential                     // Shape is not used
	Pareto                          // Shape is alpha, above 1 that there be a mean
	Fixed                           // every request alike
)

// String names the distribution as ParseDistribution reads it.
func (d Distribution) String() string {
	if int(d) < len(distributions) {
		return distributions[d]
	}
	return "unknown"
}

var distributions = []string{"lognormal", "exponential", "pareto", "fixed"}

// ParseDistribution is String's inverse.
func ParseDistribution(s string) (Distribution, error) {
	if i := slices.Index(distributions, s); i >= 0 {
		return Distribution(i), nil
	}
	return 0, fmt.Errorf("work %q is not one of %v", s, distributions)
}

// Work is what requests need: CPU time on a core of speed 1.
type Work struct {
	Mean         time.Duration // above 0
	Distribution Distribution
	Shape        float64
}

// Neighbour is another tenant of a backend's machine. It is on and off for
// exponential times, and while on takes a share of the cores that is drawn
// anew for each burst.
type Neighbour struct {
	On, Off  time.Duration // means; On 0: there is none
	Min, Max float64       // share stolen, uniform, 0 up to 1 (not included)
}

// Share returns what it takes on average.
func (n Neighbour) Share() float64 {
	if n.On <= 0 {
		return 0
	}
	return n.On.Seconds() / (n.On + n.Off).Seconds() * (n.Min + n.Max) / 2
}

// Agents is how reports are made and reach sidecars.
type Agents struct {
	// Interval is how often a sidecar polls each endpoint, Jitter the share by
	// which it varies; Asks lets agents with many sidecars ask for a longer one
	// (PICKING.md: sidecars / 400 s, clamped to [0.1 s, 2 s]).
	Interval time.Duration
	Jitter   float64
	Asks     bool
	// Grid is the grid that polls of one sidecar are rounded up to, as
	// agentstats.Poller does; 0 is none.
	Grid time.Duration
	// Span is the time over which agents average CPU, and how often they do it.
	Span time.Duration
	// Stale is how old the in-flight figure may be when an agent answers.
	Stale time.Duration

	Silent     float64 // share of the agents that never answer; the first backends' of the fleet in an even spread
	NoInFlight bool    // no report has an in-flight figure
	NoErrors   bool    // no report has an error share
	Loss       float64 // share of reports lost
	Noise      float64 // standard deviation of a factor on every figure
	// Broadcast has each agent push one report to every sidecar at once, instead
	// of being polled by each in its own time.
	Broadcast bool
}

// Network is the way between sidecars and backends.
type Network struct {
	Delay time.Duration // each way, for requests and for polls
}

// Load is how much arrives.
type Load struct {
	// Level is the arrivals over what the backends that are there from the start
	// can do on average with what neighbours leave; above 0.
	Level float64
	// Rate, requests a second, replaces it if above 0.
	Rate   float64
	Surges []Surge
}

// Surge is a time during which the load is another. Where surges overlap the
// later one in the list counts.
type Surge struct {
	From, For time.Duration
	Factor    float64 // of Level or Rate
}

// Client is who sends the requests.
type Client struct {
	// Timeout is how long it waits, from its request's arrival at the sidecar.
	// The sidecar then gives up, with Outcome; the backend works on.
	Timeout time.Duration
	// Outcome is what the sidecar makes of a request that timed out. The HTTP
	// engine: picker.Failure by its own request time-out, picker.Ignore when the
	// client asked for less than the sidecar allows, or left. PICKING.md's
	// baselines have no breakers: they land there with Ignore.
	Outcome picker.Outcome
	// Retries is how often a request that failed before an answer is sent to
	// another endpoint, within the retry budget; 0 to 5.
	Retries int
	// Returns is how often a client that was told 503 comes back, after the
	// seconds that Retry-After said or, if set, after ReturnAfter.
	Returns     int
	ReturnAfter time.Duration
}

// Default returns PICKING.md's fleet at 90 % load, under the default policy.
func Default() Config {
	return Config{
		Seed:      1,
		Balance:   balance.DefaultConfig(),
		Sidecars:  100,
		Backends:  Fleet(50),
		Work:      Work{Mean: 20 * time.Millisecond, Distribution: LogNormal, Shape: 1},
		Neighbour: Neighbour{On: 3 * time.Second, Off: 6 * time.Second, Min: 0.2, Max: 0.6},
		Agents:    Agents{Interval: 500 * time.Millisecond, Jitter: 0.05, Span: 250 * time.Millisecond},
		Network:   Network{Delay: 500 * time.Microsecond},
		Load:      Load{Level: 0.9},
		Client:    Client{Timeout: time.Second, Outcome: picker.Failure},
		Warm:      12 * time.Second,
		Measured:  25 * time.Second,
	}
}

// Fleet returns n backends of PICKING.md: 1, 2 or 4 cores at speeds 0.7, 1.0
// and 1.3, all nine combinations as evenly spread as n allows. Weights are
// equal; see ByPower and ByCores.
func Fleet(n int) []Backend {
	cores, speeds := []float64{1, 2, 4}, []float64{0.7, 1, 1.3}
	all := make([]Backend, n)
	for i := range all {
		all[i] = Backend{Cores: cores[i%3], Speed: speeds[(i+i/3)%3]}
	}
	return all
}

// ByPower returns the backends with weights in proportion to what they can do
// without their neighbours: cores times speed. It is what PICKING.md's table
// calls "weighted by cores".
func ByPower(backends []Backend) []Backend {
	return weighted(backends, func(b *Backend) float64 { return b.Cores * b.Speed })
}

// ByCores returns the backends with weights in proportion to their cores alone,
// which is what an operator knows.
func ByCores(backends []Backend) []Backend {
	return weighted(backends, func(b *Backend) float64 { return b.Cores })
}

func weighted(backends []Backend, by func(*Backend) float64) []Backend {
	out := slices.Clone(backends)
	least := math.Inf(1)
	for i := range out {
		least = min(least, by(&out[i]))
	}
	for i := range out {
		out[i].Weight = max(1, min(65535, int(math.Round(10*by(&out[i])/least))))
	}
	return out
}

// Capacity returns the requests a second that the backends that are there from
// the start can do on average with what neighbours leave.
func (c *Config) Capacity() float64 {
	sum := 0.0
	for i := range c.Backends {
		b := &c.Backends[i]
		if b.Joins > 0 {
			continue
		}
		n := c.Neighbour
		if b.Neighbour != nil {
			n = *b.Neighbour
		}
		sum += b.Cores * b.Speed * (1 - n.Share()) / (1 - b.IO)
	}
	return sum / c.Work.Mean.Seconds()
}

// Rate returns the arrivals a second at the time at.
func (c *Config) Rate(at time.Duration) float64 {
	rate := c.Load.Rate
	if rate <= 0 {
		rate = c.Load.Level * c.Capacity()
	}
	factor := 1.0
	for _, s := range c.Load.Surges {
		if at >= s.From && at < s.From+s.For {
			factor = s.Factor
		}
	}
	return rate * factor
}
