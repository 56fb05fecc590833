package healthcheck

import (
	"slices"
	"strings"
	"testing"
	"time"
)

func TestDefaultsAreValid(t *testing.T) {
	for _, kind := range append(Kinds(), "") {
		c := DefaultConfig()
		c.Kind = kind
		if err := c.Validate(); err != nil {
			t.Errorf("%q: %v", kind, err)
		}
	}
	if err := (Config{}).Validate(); err != nil {
		t.Errorf("no checks: %v", err)
	}
}

func TestValidate(t *testing.T) {
	const secret = "sesame"
	long := strings.Repeat("a", 5000)
	for name, x := range map[string]struct {
		change func(*Config)
		want   string // "": valid
	}{
		"kind":              {func(c *Config) { c.Kind = "udp" }, `kind "udp" is unknown, there are http, tcp, grpc`},
		"interval":          {func(c *Config) { c.Interval = 99 * ms }, "interval 99ms is outside"},
		"long interval":     {func(c *Config) { c.Interval = 2 * time.Hour }, "interval 2h0m0s is outside"},
		"fast":              {func(c *Config) { c.FastInterval = 6 * time.Second }, "fast_interval 6s is outside 10ms to 5s"},
		"hasty":             {func(c *Config) { c.FastInterval = 1 }, "fast_interval 1ns"},
		"interval alone":    {func(c *Config) { c.Interval = 200 * time.Millisecond }, ""},
		"fast is the same":  {func(c *Config) { c.FastInterval = 5 * time.Second }, ""},
		"timeout":           {func(c *Config) { c.Timeout = 6 * time.Second }, "timeout 6s is outside"},
		"no time":           {func(c *Config) { c.Timeout = 1 }, "timeout 1ns"},
		"rise":              {func(c *Config) { c.Rise = 0 }, "rise 0"},
		"fall":              {func(c *Config) { c.Fall = 101 }, "fall 101"},
		"spread":            {func(c *Config) { c.Spread = 0.6 }, "spread 0.6"},
		"NaN":               {func(c *Config) { c.Spread = nan() }, "spread NaN"},
		"port":              {func(c *Config) { c.Port = 65536 }, "port 65536"},
		"method":            {func(c *Config) { c.HTTP.Method = "GET /" }, "method"},
		"CONNECT":           {func(c *Config) { c.HTTP.Method = "CONNECT" }, "method"},
		"path":              {func(c *Config) { c.HTTP.Path = "health" }, "path"},
		"two lines":         {func(c *Config) { c.HTTP.Path = "/\r\nX: y" }, "path"},
		"space":             {func(c *Config) { c.HTTP.Path = "/a b" }, "path"},
		"host":              {func(c *Config) { c.HTTP.Host = "a/b" }, `host "a/b"`},
		"host, two lines":   {func(c *Config) { c.HTTP.Host = "a\r\nX: y" }, "host"},
		"header name":       {func(c *Config) { c.HTTP.Headers = map[string]string{"a b": secret} }, `"a b" is no name`},
		"header value":      {func(c *Config) { c.HTTP.Headers = map[string]string{"X-Key": secret + "\n"} }, "value of X-Key"},
		"own header":        {func(c *Config) { c.HTTP.Headers = map[string]string{"host": secret} }, "Host cannot be set: set host"},
		"twice":             {func(c *Config) { c.HTTP.Headers = map[string]string{"x-a": secret, "X-A": secret} }, "X-A is there twice"},
		"UTF-8 value":       {func(c *Config) { c.HTTP.Headers = map[string]string{"X-A": "\u00e4"} }, ""},
		"no statuses":       {func(c *Config) { c.HTTP.Statuses = nil }, "statuses is empty"},
		"statuses":          {func(c *Config) { c.HTTP.Statuses = []string{"399-200"} }, `"399-200"`},
		"header match":      {func(c *Config) { c.HTTP.HeaderMatch = map[string]string{"X-A": "("} }, "header_match of X-A"},
		"header match name": {func(c *Config) { c.HTTP.HeaderMatch = map[string]string{"": ""} }, "header_match"},
		"body match":        {func(c *Config) { c.HTTP.BodyMatch = "a**" }, "body_match"},
		"long match":        {func(c *Config) { c.HTTP.BodyMatch = long }, "4096"},
		"body of HEAD":      {func(c *Config) { c.HTTP.Method, c.HTTP.BodyMatch = "HEAD", "a" }, "HEAD"},
		"service":           {func(c *Config) { c.GRPC.Service = "web" }, `only "grpc"`},
		"path of tcp":       {func(c *Config) { c.Kind, c.HTTP.Path = "tcp", "/health" }, `"tcp" has settings of an HTTP request`},
		"grpc service":      {func(c *Config) { c.Kind, c.GRPC.Service = "grpc", "web.v1.Shop" }, ""},
		"bad grpc service":  {func(c *Config) { c.Kind, c.GRPC.Service = "grpc", "\xff" }, "UTF-8"},
		"off":               {func(c *Config) { *c = Config{Rise: -1} }, ""},
	} {
		c := httpConfig(nil)
		x.change(&c)
		err := c.Validate()
		wants(t, err, x.want)
		if t.Failed() {
			t.Fatalf("%s: %v", name, err)
		}
		if err != nil && strings.Contains(err.Error(), secret) {
			t.Errorf("%s: the secret is in %v", name, err)
		}
	}
}

func nan() float64 { zero := 0.0; return zero / zero }

func TestStatuses(t *testing.T) {
	all, err := parseStatuses([]string{"200-299", "304", "500-599"})
	if err != nil {
		t.Fatal(err)
	}
	for status, want := range map[int]bool{199: false, 200: true, 299: true, 300: false, 304: true, 499: false, 599: true, 600: false, 0: false} {
		if all.has(status) != want {
			t.Errorf("%d: %v", status, !want)
		}
	}
	for _, bad := range []string{"", "-", "20", "2000", "200-", "-200", "200-200-200", "100", "600", "+20", "2xx", " 200", "200 - 299", "٢٠٠"} {
		if s, err := parseStatuses([]string{bad}); err == nil {
			t.Errorf("%q is %v", bad, s)
		}
	}
	if _, err := parseStatuses(slices.Repeat([]string{"200"}, 101)); err == nil {
		t.Error("101 are taken")
	}
}

// FuzzStatuses: what is taken means what it says.
func FuzzStatuses(f *testing.F) {
	for _, s := range []string{"200", "200-399", "399-200", "204,206", "-200", "599-599", "0200"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		all, err := parseStatuses([]string{s})
		if err != nil {
			if len(err.Error()) > 500 {
				t.Errorf("an error of %d bytes", len(err.Error()))
			}
			return
		}
		low, high := s[:3], s[len(s)-3:]
		if len(s) != 3 && (len(s) != 7 || s[3] != '-') {
			t.Fatalf("%q is taken", s)
		}
		for n := range 1000 {
			text := string([]byte{byte('0' + n/100), byte('0' + n/10%10), byte('0' + n%10)})
			if want := low <= text && text <= high; all.has(n) != want {
				t.Fatalf("%q has %d: %v", s, n, !want)
			}
		}
	})
}
