package sim

import (
	"math"
	"reflect"
	"slices"
	"testing"
	"time"

	"outrigger/picker"
	"outrigger/sidecar/balance"
)

// short is PICKING.md's fleet in small.
func short(policy string) Config {
	c := Default()
	c.Sidecars, c.Backends = 12, Fleet(9)
	c.Warm, c.Measured = time.Second, 3*time.Second
	if slices.Contains(Baselines(), policy) {
		c.Baseline = policy
	} else {
		c.Balance.Picker.Policy = policy
	}
	return c
}

// TestRepeatable: one seed, one result, whatever is going on; another seed,
// another result. What arrives depends on the seed alone.
func TestRepeatable(t *testing.T) {
	arrived := map[uint64][]int{}
	for _, policy := range append(picker.Names(), Baselines()...) {
		for seed := uint64(1); seed <= 2; seed++ {
			c := short(policy)
			c.Seed = seed
			c.Load.Level = 1.3
			c.Load.Surges = []Surge{{2 * time.Second, time.Second, 2}}
			c.Client.Retries, c.Client.Returns, c.Client.ReturnAfter = 2, 2, 300*time.Millisecond
			c.Client.Outcome = picker.Failure
			c.Balance.MaxInFlight = 4
			c.Agents.Loss, c.Agents.Noise, c.Agents.Silent = 0.1, 0.3, 0.2
			c.Backends[0].Fault = Fault{Kind: Reset, Share: 0.5}
			c.Backends[1].Memory = Memory{Base: 0.5, Leak: 0.002, PerRequest: 0.01, Restart: time.Second}
			c.Backends[2].Joins = 2 * time.Second
			c.Backends[3].Leaves = 3 * time.Second
			c.Backends[4].Limit, c.Backends[4].Backlog = 5, 20
			a, b := run(t, c), run(t, c)
			if !reflect.DeepEqual(a, b) {
				t.Errorf("%s: two runs with seed %d differ: %+v %+v", policy, seed, a, b)
			}
			if a.Policy != policy {
				t.Errorf("the result is called %q, not %q", a.Policy, policy)
			}
			if a.Backends[1].Kills == 0 && policy != "resource" || a.Ejections == 0 || a.Retries == 0 || a.ShedShare == 0 {
				t.Errorf("%s: nothing happened: %d kills, %d ejections, %d retries, %v shed",
					policy, a.Backends[1].Kills, a.Ejections, a.Retries, a.ShedShare)
			}
			c.Client.Returns = 0 // those come with the policy's refusals
			var n []int
			for _, s := range run(t, c).Seconds {
				n = append(n, s.Arrived)
			}
			if arrived[seed] == nil {
				arrived[seed] = n
			}
			if !slices.Equal(n, arrived[seed]) {
				t.Errorf("%s: other arrivals with seed %d: %v, not %v", policy, seed, n, arrived[seed])
			}
		}
	}
	if slices.Equal(arrived[1], arrived[2]) {
		t.Error("two seeds, the same arrivals")
	}
}

// TestPolls: every sidecar asks every agent once an interval, within the
// jitter, in an order of its own.
func TestPolls(t *testing.T) {
	c := short("least_conn")
	c.Load.Level = 0.01
	f, err := newFleet(&c)
	if err != nil {
		t.Fatal(err)
	}
	last := map[[2]int32]time.Duration{}
	order := make([][]int32, c.Sidecars)
	for f.now < 3900*time.Millisecond {
		if len(f.polls) > 0 && f.wire.n > 0 {
			if e := f.wire.ring[(f.wire.head+f.wire.n-1)&(len(f.wire.ring)-1)]; e.kind == evPoll && e.at == f.now+c.Network.Delay {
				k := [2]int32{e.a, e.b}
				if was, ok := last[k]; ok && was != f.now {
					gap := f.now - was
					if d := gap - c.Agents.Interval; d > c.Agents.Interval/20 || -d > c.Agents.Interval/20 {
						t.Fatalf("polls %v apart", gap)
					}
				}
				if last[k] == 0 {
					order[e.a] = append(order[e.a], e.b)
				}
				last[k] = f.now
			}
		}
		if !f.step() {
			t.Fatal("the run has ended")
		}
	}
	same := 0
	for i := range order {
		if len(order[i]) != len(c.Backends) {
			t.Fatalf("sidecar %d polls %d of %d agents", i, len(order[i]), len(c.Backends))
		}
		if i > 0 && slices.Equal(order[i], order[i-1]) {
			same++
		}
	}
	if same > 0 {
		t.Errorf("%d sidecars have their neighbour's order", same)
	}
}

// TestReports counts those that arrive, by every way there is to lose them.
func TestReports(t *testing.T) {
	base := func() Config {
		c := short("least_conn")
		c.Load.Level = 0.1
		c.Measured = 20 * time.Second
		return c
	}
	for name, x := range map[string]struct {
		change func(*Config)
		want   float64 // a second, sidecar and backend
	}{
		"plain":     {func(*Config) {}, 2},
		"interval":  {func(c *Config) { c.Agents.Interval = 250 * time.Millisecond }, 4},
		"grid":      {func(c *Config) { c.Agents.Grid = 25 * time.Millisecond }, 2},
		"asks":      {func(c *Config) { c.Agents.Asks, c.Agents.Interval = true, 50*time.Millisecond }, 10},
		"loss":      {func(c *Config) { c.Agents.Loss = 0.3 }, 1.4},
		"silent":    {func(c *Config) { c.Agents.Silent = 1.0 / 3 }, 4.0 / 3},
		"one":       {func(c *Config) { c.Backends[0].Agent.Silent = true }, 2 * 8.0 / 9},
		"leaves":    {func(c *Config) { c.Backends[0].Leaves = 10 * time.Second }, 2 * (8 + 10.0/21) / 9},
		"joins":     {func(c *Config) { c.Backends[0].Joins = 10 * time.Second }, 2 * (8 + 11.0/21) / 9},
		"broadcast": {func(c *Config) { c.Agents.Broadcast = true }, 2},
		"pushed":    {func(c *Config) { c.Agents.Broadcast, c.Backends[0].Leaves = true, 10*time.Second }, 2 * (8 + 10.0/21) / 9},
	} {
		c := base()
		x.change(&c)
		got := float64(run(t, c).Reports) / 21 / float64(c.Sidecars*len(c.Backends))
		near(t, name, got, x.want, 0.03)
	}
}

// TestFigures looks at the reports themselves.
func TestFigures(t *testing.T) {
	report := func(change func(*Config)) []*picker.Load {
		c := short("least_conn")
		c.Load.Level, c.Warm, c.Measured = 0.7, 8*time.Second, 2*time.Second
		change(&c)
		f, err := newFleet(&c)
		if err != nil {
			t.Fatal(err)
		}
		for f.step() && f.now < 10*time.Second {
		}
		var out []*picker.Load
		for i := range f.machines {
			out = append(out, f.report(&f.machines[i]))
		}
		return out
	}
	for i, l := range report(func(*Config) {}) {
		if l.InFlight < 0 || l.Avail < 0.4*l.Cores || l.Avail > l.Cores || l.CPU <= 0 || l.CPU > 1 ||
			l.Conc != picker.Absent && (l.Conc < l.Avail-1e-9 || l.Conc > 10*l.Cores) || l.Err != 0 || l.Epoch == "" || !l.Listening {
			t.Errorf("backend %d reports %+v", i, *l)
		}
	}
	l := report(func(c *Config) {
		c.Backends[0].Agent = Agent{Lies: true}
		c.Backends[1].Agent = Agent{NoInFlight: true, NoErrors: true}
		c.Backends[2].Agent = Agent{Silent: true}
		c.Backends[3].Fault = Fault{Kind: Status, Share: 0.5}
		c.Backends[4].Fault = Fault{Kind: Refuse, Share: 1}
		c.Backends[5].Memory = Memory{Base: 0.7, Reclaim: 1}
		c.Backends[6].Limit = 1
	})
	switch {
	case l[0].InFlight != 0 || l[0].CPU != 0 || l[0].Avail != l[0].Cores:
		t.Errorf("the liar says %+v", *l[0])
	case l[1].InFlight != picker.Absent || l[1].Err != picker.Absent:
		t.Errorf("without in-flight and errors: %+v", *l[1])
	case l[2] != nil:
		t.Error("a silent agent answers")
	case math.Abs(l[3].Err-0.5) > 0.2:
		t.Errorf("error share %v, want about a half", l[3].Err)
	case l[4].Listening:
		t.Error("it listens although it refuses everything")
	case l[5].Mem != 0.7:
		t.Errorf("memory %v", l[5].Mem)
	case l[6].Conc > 1:
		t.Errorf("one worker sustains %v", l[6].Conc)
	}
	spread := 0.0
	for _, l := range report(func(c *Config) { c.Agents.Noise = 0.3; c.Neighbour = Neighbour{} }) {
		spread += math.Abs(l.Avail/l.Cores - 1)
	}
	if spread == 0 {
		t.Error("noise changes nothing")
	}
}

// TestOwnShare: what a sidecar says it had in flight when its poll was sampled
// is never more than the backend had, but for answers on their way.
func TestOwnShare(t *testing.T) {
	c := short("least_conn")
	c.Sidecars = 1
	f, err := newFleet(&c)
	if err != nil {
		t.Fatal(err)
	}
	n, off := 0, 0
	for f.step() {
		if f.answers.n == 0 {
			continue
		}
		if d := f.answers.ring[(f.answers.head+f.answers.n-1)&(len(f.answers.ring)-1)]; d.at == f.now+c.Network.Delay {
			n++
			if math.Abs(float64(d.own)-d.load.InFlight) > 2 {
				off++
			}
		}
	}
	if n < 50 || off > n/50 {
		t.Errorf("%d of %d reports disagree with the only sidecar's own count", off, n)
	}
}

// TestReturns: clients that are turned away come back when they are told to.
func TestReturns(t *testing.T) {
	c := short("least_conn")
	c.Load.Level = 0.5
	c.Load.Surges = []Surge{{2 * time.Second, time.Second, 5}}
	c.Balance.MaxInFlight, c.Balance.Queue.Length = 1, 0
	c.Measured = 5 * time.Second
	r := run(t, c)
	if r.Turned == 0 || r.Tries != r.Requests || r.Shed["saturated"] != r.Turned {
		t.Fatalf("%d turned away in %d tries of %d requests, for %v", r.Turned, r.Tries, r.Requests, r.Shed)
	}
	c.Client.Returns = 4
	back := run(t, c)
	if back.Turned >= r.Turned/2 || back.Tries <= back.Requests || back.Goodput <= r.Goodput {
		t.Errorf("with 4 returns %d are turned away in %d tries, without %d", back.Turned, back.Tries, r.Turned)
	}
	sum := 0
	for _, n := range back.Shed {
		sum += n
	}
	near(t, "tries", float64(back.Tries), float64(back.Requests+sum-back.Turned), 1e-9)
}

// TestQueue: a wait in the sidecar's queue ends by a slot or by its time.
func TestQueue(t *testing.T) {
	c := short("least_conn")
	c.Sidecars, c.Load.Level = 1, 2
	c.Balance.MaxInFlight = 2
	c.Balance.Queue = balance.QueueConfig{Length: 50, Timeout: 30 * time.Millisecond}
	r := run(t, c)
	if r.Shed["queue_timeout"] == 0 || r.Answered == 0 || r.TimedOut > 0 {
		t.Errorf("%d answered, %d timed out, shed %v", r.Answered, r.TimedOut, r.Shed)
	}
	most := 0
	for _, b := range r.Backends {
		most = max(most, b.MaxInFlight)
	}
	if most > 2 {
		t.Errorf("%d in flight at a backend with a limit of 2", most)
	}
}

// TestOracle is better than those that see less.
func TestOracle(t *testing.T) {
	p99 := map[string]time.Duration{}
	for _, policy := range []string{"oracle", "resource", "prequal", "round_robin"} {
		c := short(policy)
		c.Sidecars, c.Backends = 30, Fleet(18)
		c.Load.Level = 0.8
		c.Warm, c.Measured = 6*time.Second, 12*time.Second
		p99[policy] = run(t, c).P99
	}
	if !(p99["oracle"] < p99["resource"] && p99["resource"] < p99["prequal"] && p99["prequal"] < p99["round_robin"]) {
		t.Errorf("p99: %v", p99)
	}
}

func TestQuantile(t *testing.T) {
	s := []time.Duration{1, 2, 3, 4, 5, 6, 7, 8, 9, 10}
	for _, c := range []struct {
		late int
		q    float64
		want time.Duration
	}{{0, 0.5, 5}, {0, 0.9, 9}, {0, 0.99, 10}, {10, 0.5, 10}, {10, 0.51, Never}, {1, 0.99, Never}} {
		if got := quantile(s, c.late, c.q); got != c.want {
			t.Errorf("%v with %d late: %v, want %v", c.q, c.late, got, c.want)
		}
	}
	if quantile(nil, 0, 0.5) != 0 {
		t.Error("a quantile of nothing")
	}
	for _, d := range []time.Duration{time.Millisecond, 17 * time.Millisecond, time.Second, time.Hour} {
		near(t, "the histogram's "+d.String(), middle(class(d)).Seconds(), d.Seconds(), 0.011)
	}
}
