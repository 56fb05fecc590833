package picker

import (
	"math"
	"strings"
	"testing"
)

func TestConfig(t *testing.T) {
	if err := DefaultConfig().Validate(); err != nil {
		t.Errorf("the defaults: %v", err)
	}
	for want, change := range map[string]func(*Config){
		`policy "leastconn" is not one of least_conn, resource, p2c, peak_ewma, round_robin, random, consistent_hash`: func(c *Config) { c.Policy = "leastconn" },
		"policy \"\" is not":   func(c *Config) { c.Policy = "" },
		"samples is 1,":        func(c *Config) { c.Resource.Samples = 1 },
		"samples is 33,":       func(c *Config) { c.Resource.Samples = 33 },
		"memory_veto is 0,":    func(c *Config) { c.Resource.MemoryVeto = 0 },
		"memory_veto is 1.01,": func(c *Config) { c.Resource.MemoryVeto = 1.01 },
		"memory_veto is NaN,":  func(c *Config) { c.Resource.MemoryVeto = math.NaN() },
	} {
		c := DefaultConfig()
		change(&c)
		if err := c.Validate(); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("error %v, want %q", err, want)
		}
		if p, err := New(c, seeded(1)); err == nil || p != nil {
			t.Errorf("New took what Validate says is wrong: %s", want)
		}
	}
}
