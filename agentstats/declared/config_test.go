package declared

import (
	"strings"
	"testing"
	"time"
)

func TestConfig(t *testing.T) {
	if err := DefaultConfig().Validate(); err != nil {
		t.Errorf("the defaults, without a source: %v", err)
	}
	ok := patient("http://127.0.0.1:8000/metrics")
	for name, tt := range map[string]struct {
		change func(*Config)
		want   string // "": valid
		format string
	}{
		"orca":            {func(*Config) {}, "", "orca"},
		"prometheus":      {func(c *Config) { c.Metric, c.Labels = "app:busy", map[string]string{"a": "b"} }, "", "prometheus"},
		"json":            {func(c *Config) { c.Field = "a.b.0.c" }, "", "json"},
		"https":           {func(c *Config) { c.URL = "https://[::1]:1/" }, "", "orca"},
		"interval":        {func(c *Config) { c.Interval = 50 * time.Millisecond }, "", "orca"},
		"both":            {func(c *Config) { c.Metric, c.Field = "a", "b" }, "field is of", "prometheus"},
		"no url":          {func(c *Config) { c.URL, c.Metric = "", "a" }, "no url", "prometheus"},
		"no such format":  {func(c *Config) { c.Format = "xml" }, "prometheus, json, orca", "xml"},
		"no metric":       {func(c *Config) { c.Format = "prometheus" }, "metric must name", "prometheus"},
		"no field":        {func(c *Config) { c.Format = "json" }, "field must tell", "json"},
		"labels of json":  {func(c *Config) { c.Field, c.Labels = "a", map[string]string{"a": "b"} }, "metric and labels", "json"},
		"metric, braces":  {func(c *Config) { c.Metric = `a{b="c"}` }, "as labels", "prometheus"},
		"empty part":      {func(c *Config) { c.Field = "a..b" }, "not a path", "json"},
		"deep":            {func(c *Config) { c.Field = "a" + strings.Repeat(".a", maxDepth) }, "not a path", "json"},
		"file":            {func(c *Config) { c.URL = "file:///etc/passwd" }, "http://HOST", "orca"},
		"no host":         {func(c *Config) { c.URL = "http://:80/" }, "http://HOST", "orca"},
		"relative":        {func(c *Config) { c.URL = "/metrics" }, "http://HOST", "orca"},
		"secret":          {func(c *Config) { c.URL = "http://u:geheim@127.0.0.1/" }, "user or password", "orca"},
		"broken secret":   {func(c *Config) { c.URL = "http://u:geheim@127.0.0.1:x%/" }, "not a URL", "orca"},
		"fragment":        {func(c *Config) { c.URL = "http://127.0.0.1/#x" }, "fragment", "orca"},
		"no named":        {func(c *Config) { c.Named = "" }, "named is empty", "orca"},
		"old":             {func(c *Config) { c.MaxAge = time.Minute }, "max_age", "orca"},
		"young":           {func(c *Config) { c.MaxAge = time.Millisecond }, "max_age", "orca"},
		"no time-out":     {func(c *Config) { c.Timeout = 0 }, "timeout", "orca"},
		"late":            {func(c *Config) { c.Timeout = 3 * c.MaxAge }, "more than twice max_age", "orca"},
		"rare":            {func(c *Config) { c.Interval = time.Hour }, "interval", "orca"},
		"control in name": {func(c *Config) { c.Metric = "a\nb" }, "printable", "prometheus"},
	} {
		t.Run(name, func(t *testing.T) {
			c := ok
			tt.change(&c)
			err := c.Validate()
			if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Validate = %v, want %q", err, tt.want)
			}
			if err != nil && strings.Contains(err.Error(), "geheim") {
				t.Errorf("a password is told: %v", err)
			}
			if got := c.format(); got != tt.format {
				t.Errorf("format %q, want %q", got, tt.format)
			}
			if _, err := New(c, Env{ORCA: parseORCA}); (err == nil) != (tt.want == "") {
				t.Errorf("New: %v", err)
			}
		})
	}
	if _, err := New(DefaultConfig(), Env{}); err == nil {
		t.Error("a source without a URL was made")
	}
	if _, err := New(ok, Env{}); err == nil {
		t.Error("a source of ORCA without its reader was made")
	}
}
