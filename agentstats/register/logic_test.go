package register

import (
	"math"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"
)

func TestDrainClock(t *testing.T) {
	const unknown = -1
	tests := map[string]struct {
		reads []float64 // one a second, from second 0
		done  int       // the second at which it is drained
		by    string
	}{
		"never busy":               {[]float64{0, 0, 0, 0}, 2, "nothing was in flight for 2s"},
		"busy first":               {[]float64{3, 1, 0, 0, 0, 0}, 4, "nothing"},
		"busy again":               {[]float64{0, 0.7, 0, 0, 0}, 4, "nothing"},
		"a fraction":               {[]float64{0.2, 0.3, 0.1}, 2, "nothing"},
		"unknown":                  {[]float64{unknown, unknown, unknown, unknown, unknown, unknown}, 5, "not known, waited 5s"},
		"unknown after busy":       {[]float64{0, 1, unknown, unknown, unknown, unknown, unknown}, 6, "not known"},
		"unknown ends no quiet":    {[]float64{0, 0, unknown, 0}, 3, "nothing"},
		"unknown begins no quiet":  {[]float64{unknown, 0, unknown, 0, 0}, 3, "nothing"},
		"not a number is not none": {[]float64{0, math.NaN(), 0, 0, 0}, 4, "nothing"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			start := time.Unix(1000, 0)
			d := drainClock{Drain: Drain{Quiet: 2 * time.Second, Blind: 5 * time.Second}, busy: start}
			for i, v := range tt.reads {
				done, by := d.step(start.Add(time.Duration(i)*time.Second), v, v != unknown)
				if !done {
					continue
				}
				if i != tt.done || !strings.Contains(by, tt.by) {
					t.Errorf("drained at second %d because %q, want at %d because %q", i, by, tt.done, tt.by)
				}
				return
			}
			t.Error("never drained")
		})
	}
}

func TestDefaultsAreValid(t *testing.T) {
	c := DefaultConfig()
	c.Service, c.Port = "web", 8080
	if err := c.Validate(); err != nil {
		t.Error(err)
	}
}

func TestValidate(t *testing.T) {
	bad := map[string]struct {
		change func(*Config)
		want   string
	}{
		"no service":     {func(c *Config) { c.Service = "" }, "name the service"},
		"service slash":  {func(c *Config) { c.Service = "a/b" }, "service \"a/b\""},
		"id dots":        {func(c *Config) { c.ID = ".." }, "id"},
		"address port":   {func(c *Config) { c.Address = "10.0.0.1:80" }, "a port goes into port"},
		"address any":    {func(c *Config) { c.Address = "0.0.0.0" }, "that others can reach"},
		"no port":        {func(c *Config) { c.Port = 0 }, "port is 0"},
		"tag":            {func(c *Config) { c.Tags = []string{"a\n"} }, "tag"},
		"meta key":       {func(c *Config) { c.Meta = map[string]string{"a.b": "1"} }, "A-Z a-z 0-9"},
		"meta value":     {func(c *Config) { c.Meta = map[string]string{"a": strings.Repeat("x", 513)} }, "512"},
		"weight":         {func(c *Config) { c.Weight = 0 }, "maintenance mode"},
		"warning weight": {func(c *Config) { c.WarningWeight = 70000 }, "65535"},
		"refresh":        {func(c *Config) { c.Refresh = 0 }, "refresh is 0s"},
		"check kind":     {func(c *Config) { c.Check.Kind = "ping" }, `kind is "ping"`},
		"check address":  {func(c *Config) { c.Check.Address = "localhost" }, "HOST:PORT"},
		"check path":     {func(c *Config) { c.Check.Kind = CheckHTTP; c.Check.Path = "health" }, "begin with /"},
		"check method":   {func(c *Config) { c.Check.Kind = CheckHTTP; c.Check.Method = "GET /" }, "method"},
		"check header": {func(c *Config) {
			c.Check.Kind = CheckHTTP
			c.Check.Headers = map[string][]string{"X-A": {"a\r\nB: c"}}
		}, "unprintable"},
		"check tls":       {func(c *Config) { c.Check.TLSSkipVerify = true }, "tls = true"},
		"check interval":  {func(c *Config) { c.Check.Interval = time.Millisecond }, "interval"},
		"check timeout":   {func(c *Config) { c.Check.Timeout = time.Hour }, "timeout is 1h0m0s"},
		"check failures":  {func(c *Config) { c.Check.Failures = 0 }, "failures is 0"},
		"deregister soon": {func(c *Config) { c.Check.DeregisterAfter = time.Second }, "deregister_after"},
		"drain":           {func(c *Config) { c.Drain.Timeout = -1 }, "drain: timeout"},
	}
	for name, tt := range bad {
		t.Run(name, func(t *testing.T) {
			c := DefaultConfig()
			c.Service, c.Port = "web", 8080
			tt.change(&c)
			if err := c.Validate(); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want one with %q", err, tt.want)
			}
			if _, err := New(c, Env{Client: &api.Client{}}); err == nil {
				t.Error("New takes it")
			}
		})
	}
}

func TestInstanceID(t *testing.T) {
	c := Config{Service: "web", Port: 80}
	for _, tt := range []struct{ id, address, want string }{
		{"", "", "web-host-80"}, {"", "10.0.0.1", "web-10.0.0.1-80"}, {"mine", "10.0.0.1", "mine"},
	} {
		c.ID, c.Address = tt.id, tt.address
		if got := c.InstanceID("host"); got != tt.want {
			t.Errorf("%q at %q: %s, want %s", tt.id, tt.address, got, tt.want)
		}
	}
}

func TestAgentMeta(t *testing.T) {
	c := Config{Address: "10.0.0.1"}
	for listen, want := range map[string]string{
		"10.0.0.1:9912": "9912", "0.0.0.0:9912": "9912", "[::]:9912": "9912", ":9912": "9912",
		"10.0.0.2:9912": "10.0.0.2:9912", "agent:9912": "agent:9912", "9912": "",
	} {
		if got := c.AgentMeta(listen); got != want {
			t.Errorf("%s: %q, want %q", listen, got, want)
		}
	}
}

func TestCheckDefinitions(t *testing.T) {
	base := DefaultConfig()
	base.Service, base.Port = "web", 80
	tests := map[string]struct {
		change func(*Config)
		want   api.AgentServiceCheck
	}{
		"tcp at the node":    {func(*Config) {}, api.AgentServiceCheck{TCP: "127.0.0.1:80", Name: "outrigger: tcp 127.0.0.1:80"}},
		"tcp at the address": {func(c *Config) { c.Address = "fd00::1" }, api.AgentServiceCheck{TCP: "[fd00::1]:80", Name: "outrigger: tcp [fd00::1]:80"}},
		"tcp elsewhere":      {func(c *Config) { c.Check.Address = "h:81" }, api.AgentServiceCheck{TCP: "h:81", Name: "outrigger: tcp h:81"}},
		"https": {func(c *Config) {
			c.Check.Kind, c.Check.TLS, c.Check.TLSServerName, c.Check.TLSSkipVerify = CheckHTTP, true, "web.example", true
		}, api.AgentServiceCheck{HTTP: "https://127.0.0.1:80/health", Method: "GET", TLSServerName: "web.example", TLSSkipVerify: true, Name: "outrigger: http 127.0.0.1:80/health"}},
		"grpc": {func(c *Config) { c.Check.Kind, c.Check.Service, c.Check.TLS = CheckGRPC, "pkg.Web", true },
			api.AgentServiceCheck{GRPC: "127.0.0.1:80/pkg.Web", GRPCUseTLS: true, Name: "outrigger: grpc 127.0.0.1:80"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			c := base
			tt.change(&c)
			tt.want.CheckID, tt.want.Status = "service:web-1", api.HealthCritical
			tt.want.Interval, tt.want.Timeout, tt.want.DeregisterCriticalServiceAfter = "5s", "2s", "1h0m0s"
			tt.want.SuccessBeforePassing, tt.want.FailuresBeforeCritical = 1, 2
			if got := c.want("web-1", nil).Check; !reflect.DeepEqual(*got, tt.want) {
				t.Errorf("got  %+v\nwant %+v", *got, tt.want)
			}
		})
	}
}

func TestContestPace(t *testing.T) {
	now := time.Unix(1000, 0)
	for n, want := range []time.Duration{0, time.Second, 2 * time.Second, 4 * time.Second} {
		l := loop{contests: n, settled: now}
		if got := l.contest(now); got != want {
			t.Errorf("after %d writes undone: %v, want %v", n, got, want)
		}
	}
	l := loop{contests: 1000, settled: now}
	if got := l.contest(now); got != contestMax {
		t.Errorf("after 1000: %v, want %v", got, contestMax)
	}
}

func TestBackoff(t *testing.T) {
	for n := range 100 {
		low, high := backoff(n, 0), backoff(n, 1)
		if low < backoffMin/2 || high > backoffMax || low > high {
			t.Errorf("pause %d is %v to %v", n, low, high)
		}
	}
}
