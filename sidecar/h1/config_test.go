package h1

import (
	"strings"
	"testing"
	"time"
)

func TestConfigValidate(t *testing.T) {
	if err := DefaultConfig().Validate(); err != nil {
		t.Errorf("the defaults: %v", err)
	}
	for _, tt := range []struct {
		want string // in the message, "" for valid
		set  func(*Config)
	}{
		{"", func(c *Config) { c.Timeouts.Request = time.Minute }},
		{"", func(c *Config) { c.PoolSize = 0 }},
		{"", func(c *Config) { c.Retry.Attempts = 0 }},
		{"connect", func(c *Config) { c.Timeouts.Connect = 0 }},
		{"first_byte", func(c *Config) { c.Timeouts.FirstByte = -time.Second }},
		{"idle", func(c *Config) { c.Timeouts.Idle = 25 * time.Hour }},
		{"tunnel", func(c *Config) { c.Timeouts.Tunnel = time.Millisecond }},
		{"request", func(c *Config) { c.Timeouts.Request = -1 }},
		{"head", func(c *Config) { c.Timeouts.Head = 0 }},
		{"attempts", func(c *Config) { c.Retry.Attempts = 11 }},
		{"attempts", func(c *Config) { c.Retry.Attempts = -1 }},
		{"pool size", func(c *Config) { c.PoolSize = -1 }},
		{"pool idle", func(c *Config) { c.PoolIdle = 0 }},
		{"limit connections", func(c *Config) { c.MaxConns = 0 }},
		{"limit head", func(c *Config) { c.Limits.Head = bufSize + 1 }}, // a head must fit into one buffer
		{"limit line", func(c *Config) { c.Limits.Line = c.Limits.Head + 1 }},
		{"limit line", func(c *Config) { c.Limits.Line = 10 }},
		{"limit headers", func(c *Config) { c.Limits.Headers = 1 }},
		{"limit head", func(c *Config) { c.Limits = Limits{} }},
	} {
		c := DefaultConfig()
		tt.set(&c)
		err := c.Validate()
		if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("%+v: %v, want %q", c, err, tt.want)
		}
	}
}
