package discovery

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"
)

func TestDefaultConfigIsValid(t *testing.T) {
	if err := DefaultConfig().Validate(); err != nil {
		t.Fatal(err)
	}
}

func TestConfigValidate(t *testing.T) {
	good := map[string]func(*Config){
		"host and port": func(c *Config) { c.Address = "10.0.0.1:8500" },
		"host":          func(c *Config) { c.Address = "consul.example" },
		"IPv6":          func(c *Config) { c.Address = "[::1]:8500" },
		"http":          func(c *Config) { c.Address = "http://127.0.0.1:8500/prefix" },
		"https":         func(c *Config) { c.Address, c.Scheme = "https://127.0.0.1:8501", "https" },
		"unix":          func(c *Config) { c.Address = "unix:///run/consul.sock" },
		"token":         func(c *Config) { c.Token = "6d6d6d6d-e5a1-4b77-a2b0-6d6d6d6d6d6d" },
		"lower bounds":  func(c *Config) { c.Wait, c.EmptyConfirm, c.BackoffMax = time.Second, time.Second, c.BackoffMin },
	}
	for name, change := range good {
		c := DefaultConfig()
		change(&c)
		if err := c.Validate(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	bad := map[string]func(*Config){
		"ftp://x":          func(c *Config) { c.Address = "ftp://x" },
		"password":         func(c *Config) { c.Address = "http://u:p@x:8500" },
		"HOST:PORT":        func(c *Config) { c.Address = "a b" },
		"HOST:PORT,":       func(c *Config) { c.Address = "http://x?y=z" },
		"absolute path":    func(c *Config) { c.Address = "unix://run/consul.sock" },
		"contradicts":      func(c *Config) { c.Address, c.Scheme = "http://x", "https" },
		"scheme is":        func(c *Config) { c.Scheme = "tcp" },
		"token has":        func(c *Config) { c.Token = "a\nb" },
		"datacenter":       func(c *Config) { c.Datacenter = "a\x00" },
		"together":         func(c *Config) { c.TLS.CertFile = "x" },
		"wait is 11m":      func(c *Config) { c.Wait = 11 * time.Minute },
		"max_stale is 0s":  func(c *Config) { c.MaxStale = 0 },
		"rate_interval":    func(c *Config) { c.RateInterval = time.Hour },
		"backoff_min":      func(c *Config) { c.BackoffMin = 0 },
		"backoff_max":      func(c *Config) { c.BackoffMax = c.BackoffMin - 1 },
		"empty_confirm is": func(c *Config) { c.EmptyConfirm = 0 },
		"rate_burst is 0":  func(c *Config) { c.RateBurst = 0 },
		"max_answer is":    func(c *Config) { c.MaxAnswer = 1 },
	}
	for want, change := range bad {
		c := DefaultConfig()
		change(&c)
		if err := c.Validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want something on %q", err, want)
		}
	}
	c := DefaultConfig()
	c.Wait, c.RateBurst, c.Scheme = 0, 0, "x"
	if err := c.Validate(); strings.Count(err.Error(), "\n") != 2 {
		t.Errorf("not every error at once: %v", err)
	}
}

func TestQueryValidate(t *testing.T) {
	for _, q := range []Query{
		{Service: "web"},
		{Service: "web-2_b.c", Tags: []string{"v1", "a b"}, Filter: "x", Datacenter: "dc1", Near: "_agent"},
	} {
		if err := q.Validate(); err != nil {
			t.Errorf("%+v: %v", q, err)
		}
	}
	for _, q := range []Query{
		{}, {Service: ".."}, {Service: "a/b"}, {Service: "a\n"}, {Service: strings.Repeat("a", 254)},
		{Service: "a", Tags: []string{""}}, {Service: "a", Tags: []string{"\x1b"}}, {Service: "a", Tags: make([]string, 65)},
		{Service: "a", Datacenter: "\t"}, {Service: "a", Near: "\x00"}, {Service: "a", Filter: strings.Repeat("x", 4097)},
	} {
		if err := q.Validate(); err == nil {
			t.Errorf("%+v passed", q)
		}
	}
}

func TestSecretDoesNotPrint(t *testing.T) {
	c := Config{Token: "hunter2"}
	js, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []string{fmt.Sprint(c), fmt.Sprintf("%v %+v %#v %s %q", c, c, c, c.Token, c.Token), string(js)} {
		if strings.Contains(s, "hunter2") {
			t.Errorf("token shows in %s", s)
		}
	}
	if string(c.Token) != "hunter2" || Secret("").String() != "" {
		t.Error("value lost")
	}
}
