package access

import (
	"math"
	"strings"
	"testing"
)

func TestValidate(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*Config)
		want   string // in the error; "": none
	}{
		{"defaults", func(*Config) {}, ""},
		{"stdout", func(c *Config) { c.Path = "stdout" }, ""},
		{"stderr", func(c *Config) { c.Path = "stderr" }, ""},
		{"file", func(c *Config) { c.Path = "/var/log/a b.log" }, ""},
		{"relative", func(c *Config) { c.Path = "access.log" }, `access_log path "access.log" is not`},
		{"wrong case", func(c *Config) { c.Path = "Stdout" }, "path"},
		{"NUL", func(c *Config) { c.Path = "/a\x00" }, "path"},
		{"format", func(c *Config) { c.Format = "xml" }, `access_log format "xml" is not one of json, logfmt`},
		{"least sample", func(c *Config) { c.Sample = 0 }, ""},
		{"negative sample", func(c *Config) { c.Sample = -0.001 }, "access_log sample is -0.001, allowed are 0 to 1"},
		{"large sample", func(c *Config) { c.Sample = 1.001 }, "sample"},
		{"NaN", func(c *Config) { c.Sample = math.NaN() }, "sample"},
		{"least buffer", func(c *Config) { c.Buffer = 128 << 10 }, ""},
		{"small buffer", func(c *Config) { c.Buffer = 128<<10 - 1 }, "access_log buffer is 131071 bytes, allowed are 131072 to 268435456"},
		{"large buffer", func(c *Config) { c.Buffer = 256<<20 + 1 }, "buffer"},
	} {
		c := DefaultConfig()
		tt.change(&c)
		err := c.Validate()
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", tt.name, err, tt.want)
		}
		if l, newErr := New(c, Options{}); (err == nil) != (newErr == nil) && c.Path == "" {
			t.Errorf("%s: New says %v, %v", tt.name, l, newErr)
		}
	}
}
