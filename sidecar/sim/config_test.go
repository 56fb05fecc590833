package sim

import (
	"math"
	"strings"
	"testing"
	"time"

	"outrigger/picker"
)

func TestValidate(t *testing.T) {
	c := Default()
	if err := c.Validate(); err != nil {
		t.Fatalf("the default: %v", err)
	}
	for want, change := range map[string]func(*Config){
		"sidecars":          func(c *Config) { c.Sidecars = 0 },
		"backends":          func(c *Config) { c.Backends = nil },
		"baseline":          func(c *Config) { c.Baseline = "magic" },
		"policy":            func(c *Config) { c.Balance.Picker.Policy = "magic" },
		"mean work":         func(c *Config) { c.Work.Mean = 0 },
		"distribution":      func(c *Config) { c.Work.Distribution = 9 },
		"Pareto":            func(c *Config) { c.Work = Work{time.Second, Pareto, 1} },
		"log-normal":        func(c *Config) { c.Work.Shape = math.NaN() },
		"neighbour":         func(c *Config) { c.Neighbour.Max = 1 },
		"poll interval":     func(c *Config) { c.Agents.Interval = 0 },
		"poll jitter":       func(c *Config) { c.Agents.Jitter = math.NaN() },
		"grid":              func(c *Config) { c.Agents.Grid = -1 },
		"span":              func(c *Config) { c.Agents.Span = 0 },
		"stale":             func(c *Config) { c.Agents.Stale = -1 },
		"loss":              func(c *Config) { c.Agents.Loss = 1.1 },
		"noise":             func(c *Config) { c.Agents.Noise = -1 },
		"network":           func(c *Config) { c.Network.Delay = -1 },
		"time-out":          func(c *Config) { c.Client.Timeout = 0 },
		"outcome":           func(c *Config) { c.Client.Outcome = picker.Ignore + 1 },
		"retries":           func(c *Config) { c.Client.Retries = 6 },
		"returns":           func(c *Config) { c.Client.Returns = -1 },
		"measured":          func(c *Config) { c.Measured = 0 },
		"load":              func(c *Config) { c.Load.Level = 0 },
		"load is NaN":       func(c *Config) { c.Load.Level = math.NaN() },
		"requests a second": func(c *Config) { c.Load.Rate = math.Inf(1) },
		"surge":             func(c *Config) { c.Load.Surges = []Surge{{}} },
		"backend 1: cores":  func(c *Config) { c.Backends[1].Cores = 0 },
		"backend 2: speed":  func(c *Config) { c.Backends[2].Speed = math.NaN() },
		"backend 3: weight": func(c *Config) { c.Backends[3].Weight = 65536 },
		"limit":             func(c *Config) { c.Backends[0].Backlog = 1 },
		"wait":              func(c *Config) { c.Backends[0].IO = 1 },
		"joins":             func(c *Config) { c.Backends[0].Joins, c.Backends[0].Leaves = 2, 1 },
		"cold":              func(c *Config) { c.Backends[0].Cold.Slow = 0.5 },
		"memory":            func(c *Config) { c.Backends[0].Memory.Base = 1 },
		"fault":             func(c *Config) { c.Backends[0].Fault.Share = 2 },
		"backend 0: neigh":  func(c *Config) { c.Backends[0].Neighbour = &Neighbour{Min: 2} },
	} {
		c := Default()
		change(&c)
		if _, err := Run(c); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s out of range: %v", want, err)
		}
	}
	c.Sidecars, c.Work.Mean = 0, 0
	if err := c.Validate(); !strings.Contains(err.Error(), "sidecars") || !strings.Contains(err.Error(), "work") {
		t.Errorf("of two mistakes it says %v", err)
	}
}

// TestFleetIsEven: every combination of cores and speed is there as often as
// every other, and the average speed is 1 at any size.
func TestFleetIsEven(t *testing.T) {
	for _, n := range []int{9, 45, 50, 1000} {
		count := map[[2]float64]int{}
		var cores, power float64
		for _, b := range Fleet(n) {
			count[[2]float64{b.Cores, b.Speed}]++
			cores += b.Cores
			power += b.Cores * b.Speed
		}
		for k, got := range count {
			if len(count) != 9 || got < n/9 || got > n/9+1 {
				t.Errorf("of %d backends %d are %v", n, got, k)
			}
		}
		near(t, "mean speed", power/cores, 1, 0.03)
	}
	var by []int
	for _, b := range ByPower(Fleet(3)) {
		by = append(by, b.Weight)
	}
	if by[0] != 10 || by[1] != 29 || by[2] != 74 {
		t.Errorf("weights by power: %v", by)
	}
	if b := ByCores(Fleet(3)); b[0].Weight != 10 || b[1].Weight != 20 || b[2].Weight != 40 {
		t.Errorf("weights by cores: %v", b)
	}
	c := Default()
	near(t, "capacity", c.Capacity(), 50*7.0/3*(1-0.4/3)/0.02, 0.03)
}
