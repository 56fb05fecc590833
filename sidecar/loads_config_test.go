package sidecar

import (
	"strings"
	"testing"
	"time"
)

func TestLoadsOff(t *testing.T) {
	cfg := DefaultORCAConfig()
	cfg.Enabled = false
	if newLoads(cfg, loadsEnv{}).hear() != nil {
		t.Error("the engine is to look for a header that nobody wants")
	}
	cfg.Enabled = true
	if newLoads(cfg, loadsEnv{}).hear() == nil {
		t.Error("nobody hears")
	}
}

func TestORCAConfig(t *testing.T) {
	for want, set := range map[string]func(*ORCAConfig){
		"":                     func(*ORCAConfig) {},
		"orca in_flight is \"": func(c *ORCAConfig) { c.InFlight = "" },
		"visible ASCII":        func(c *ORCAConfig) { c.InFlight = "a b" },
		"orca expiry":          func(c *ORCAConfig) { c.Expiry = time.Hour },
	} {
		c := DefaultORCAConfig()
		set(&c)
		if err := c.Validate(); (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}
