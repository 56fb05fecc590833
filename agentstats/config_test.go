package agentstats

import (
	"math"
	"strings"
	"testing"
	"time"
)

func TestConfigValidate(t *testing.T) {
	good := func(change func(*Config)) Config {
		c := DefaultConfig()
		c.Listen, c.Backend.Port = "10.0.0.5:7070", 8080
		change(&c)
		return c
	}
	for name, c := range map[string]struct {
		change func(*Config)
		want   string // part of the error; "" is none
	}{
		"port":            {func(*Config) {}, ""},
		"pid":             {func(c *Config) { c.Backend = Backend{PID: 5} }, ""},
		"cgroup and port": {func(c *Config) { c.Backend.Cgroup = "/system.slice/app.service" }, ""},
		"all addresses":   {func(c *Config) { c.Listen = "0.0.0.0:7070" }, ""},

		"instance as registered": {func(c *Config) {
			c.Register.Service, c.Register.ID, c.Instance = "web", "web-1", "web-1"
		}, ""},
		"instance not as registered": {func(c *Config) {
			c.Register.Service, c.Register.ID, c.Instance = "web", "web-1", "mine"
		}, "would drop its reports"},
		"registered elsewhere": {func(c *Config) {
			c.Listen, c.Register.Service, c.Register.Address = "127.0.0.1:7070", "web", "10.1.2.3"
		}, "reached from this host alone"},
		"registered elsewhere, published": {func(c *Config) {
			c.Listen, c.Register.Service, c.Register.Address, c.Publish.To = "localhost:7070", "web", "10.1.2.3", "consul"
		}, ""},

		"no listen":       {func(c *Config) { c.Listen = "" }, "with the address written out"},
		"no address":      {func(c *Config) { c.Listen = ":7070" }, "with the address written out"},
		"port 0":          {func(c *Config) { c.Listen = "10.0.0.5:0" }, "1 to 65535"},
		"the same port":   {func(c *Config) { c.Backend.Port = 7070 }, "find itself"},
		"no backend":      {func(c *Config) { c.Backend = Backend{} }, "by port, pid or cgroup"},
		"pid and cgroup":  {func(c *Config) { c.Backend = Backend{PID: 5, Cgroup: "/a"} }, "keep one"},
		"backend port":    {func(c *Config) { c.Backend.Port = 70000 }, "backend.port 70000"},
		"negative pid":    {func(c *Config) { c.Backend.PID = -1 }, "backend.pid -1"},
		"relative cgroup": {func(c *Config) { c.Backend.Cgroup = "app" }, "clean path"},
		"cgroup dots":     {func(c *Config) { c.Backend.Cgroup = "/../app" }, "clean path"},
		"cgroup root":     {func(c *Config) { c.Backend.Cgroup = "/" }, "whole host"},
		"mounted cgroup":  {func(c *Config) { c.Backend.Cgroup = "/sys/fs/cgroup/app" }, "without the mount point"},
		"interval":        {func(c *Config) { c.Interval = time.Millisecond }, "interval 1ms"},
		"connections":     {func(c *Config) { c.MaxConns = 0 }, "max_conns 0"},
		"instance":        {func(c *Config) { c.Instance = "a\nb" }, "instance"},
		"roots":           {func(c *Config) { c.ProcRoot = "proc" }, "absolute"},
	} {
		err := good(c.change).Validate()
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: got %v, want %q", name, err, c.want)
		}
	}
	// All errors at once.
	err := Config{}.Validate()
	if err == nil || strings.Count(err.Error(), "\n") < 3 {
		t.Errorf("an empty config must name each of its errors, got %v", err)
	}
}

func TestPollConfig(t *testing.T) {
	if err := DefaultPollConfig().Validate(); err != nil {
		t.Error(err)
	}
	for want, change := range map[string]func(*PollConfig){
		"interval 0s": func(c *PollConfig) { c.Interval = 0 },
		"jitter NaN":  func(c *PollConfig) { c.Jitter = math.NaN() },
		"jitter 0.6":  func(c *PollConfig) { c.Jitter = 0.6 },
		"timeout -1s": func(c *PollConfig) { c.Timeout = -time.Second },
		"longer than": func(c *PollConfig) { c.Timeout = time.Minute },
		"be shown it": func(c *PollConfig) {
			c.Token, c.TLS = testToken, ClientTLS{Enabled: true, InsecureSkipVerify: true}
		},
		"max_backoff 1ms": func(c *PollConfig) { c.MaxBackoff = time.Millisecond },
		"expiry 1ms":      func(c *PollConfig) { c.Expiry = time.Millisecond },
	} {
		c := DefaultPollConfig()
		change(&c)
		if err := c.Validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want %q, got %v", want, err)
		}
	}

	c := DefaultPollConfig()
	for _, x := range []struct {
		asked        Opt[int64]
		interval, ex time.Duration
	}{
		{Opt[int64]{}, 500 * time.Millisecond, 1500 * time.Millisecond},
		{Some(int64(1)), 500 * time.Millisecond, 1500 * time.Millisecond},
		{Some(int64(900)), 900 * time.Millisecond, 2700 * time.Millisecond},
		{Some(int64(3_600_000)), 2 * time.Second, 6 * time.Second},
	} {
		if got := c.interval(x.asked); got != x.interval || c.expiry(got) != x.ex {
			t.Errorf("asked for %v: interval %v, expiry %v, want %v, %v", x.asked, got, c.expiry(got), x.interval, x.ex)
		}
	}
	c.Expiry = time.Second
	if got := c.expiry(time.Second); got != 2*time.Second {
		t.Errorf("a configured expiry must grow with the interval: got %v", got)
	}
}

// What would show the token to others is warned of, and nothing else.
func TestPollWarnings(t *testing.T) {
	for _, x := range []struct {
		token string
		tls   ClientTLS
		want  string // "": no warning
	}{
		{"", ClientTLS{}, ""},
		{"", ClientTLS{Enabled: true}, ""},
		{"", ClientTLS{Enabled: true, InsecureSkipVerify: true}, "insecure_skip_verify is on"},
		{testToken, ClientTLS{}, "in clear"},
		{testToken, ClientTLS{Enabled: true}, "system's authorities"},
		{testToken, ClientTLS{Enabled: true, CAFile: "ca.pem"}, ""},
		{testToken, ClientTLS{Enabled: true, ServerName: "agents"}, ""},
	} {
		all := PollConfig{Token: x.token, TLS: x.tls}.Warnings()
		if x.want == "" && len(all) > 0 || x.want != "" && (len(all) != 1 || !strings.Contains(all[0], x.want)) {
			t.Errorf("token %q, %+v: %q", x.token, x.tls, all)
		}
	}
}
