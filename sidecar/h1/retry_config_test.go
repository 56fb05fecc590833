package h1

import (
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"outrigger/discovery"
	"outrigger/sidecar/balance"
)

func TestRetryConfigValidate(t *testing.T) {
	for _, tt := range []struct {
		want string // in the message, "" for valid
		set  func(*RetryConfig)
	}{
		{"", func(c *RetryConfig) {}},
		{"", func(c *RetryConfig) { *c = RetryConfig{} }},
		{"", func(c *RetryConfig) { c.Attempts = 5 }},
		{"attempts", func(c *RetryConfig) { c.Attempts = 6 }},
		{"attempts", func(c *RetryConfig) { c.Attempts = -1 }},
		{"", func(c *RetryConfig) { c.PerTry = 10 * time.Millisecond }},
		{"", func(c *RetryConfig) { c.PerTry = 24 * time.Hour }},
		{"per_try_timeout", func(c *RetryConfig) { c.PerTry = 10*time.Millisecond - 1 }},
		{"per_try_timeout", func(c *RetryConfig) { c.PerTry = 24*time.Hour + 1 }},
		{"per_try_timeout", func(c *RetryConfig) { c.PerTry = -time.Second }},
		{"", func(c *RetryConfig) { c.Backoff, c.BackoffMax = time.Minute, time.Minute }},
		{"retry backoff is", func(c *RetryConfig) { c.Backoff = time.Minute + 1 }},
		{"retry backoff is", func(c *RetryConfig) { c.Backoff = -1 }},
		{"retry backoff_max is", func(c *RetryConfig) { c.BackoffMax = time.Minute + 1 }},
		{"retry backoff_max is", func(c *RetryConfig) { c.BackoffMax = -1 }},
		{"", func(c *RetryConfig) { c.RetryAfterMax = time.Minute }},
		{"retry_after_max", func(c *RetryConfig) { c.RetryAfterMax = time.Minute + 1 }},
		{"retry_after_max", func(c *RetryConfig) { c.RetryAfterMax = -1 }},
		{"", func(c *RetryConfig) { c.BodyBuffer = 4 << 20 }},
		{"body_buffer", func(c *RetryConfig) { c.BodyBuffer = 4<<20 + 1 }},
		{"body_buffer", func(c *RetryConfig) { c.BodyBuffer = -1 }},
		{"", func(c *RetryConfig) { c.Methods = []string{"GET", "M-SEARCH"} }},
		{"methods", func(c *RetryConfig) { c.Methods = []string{"GET", ""} }},
		{"methods", func(c *RetryConfig) { c.Methods = []string{"GET POST"} }},
		{"methods", func(c *RetryConfig) { c.Methods = []string{"GÉT"} }},
		{"methods", func(c *RetryConfig) { c.Methods = []string{"GET\r\n"} }},
	} {
		c := DefaultConfig()
		tt.set(&c.Retry)
		if err := c.Validate(); tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("%+v: %v, want %q", c.Retry, err, tt.want)
		}
	}
}

func TestLimitsValidate(t *testing.T) {
	for _, tt := range []struct {
		want string
		set  func(*Config)
	}{
		{"", func(c *Config) { c.MaxBody, c.MaxRequests, c.MinRate = 1<<50, 1e9, 1e6 }},
		{"", func(c *Config) { c.MaxBody, c.MaxRequests, c.MinRate = 0, 0, 0 }},
		{"limit body", func(c *Config) { c.MaxBody = 1<<50 + 1 }},
		{"limit body", func(c *Config) { c.MaxBody = -1 }},
		{"limit requests", func(c *Config) { c.MaxRequests = 1e9 + 1 }},
		{"limit requests", func(c *Config) { c.MaxRequests = -1 }},
		{"limit min_rate", func(c *Config) { c.MinRate = 1e6 + 1 }},
		{"limit min_rate", func(c *Config) { c.MinRate = -1 }},
		{"", func(c *Config) { c.Timeouts.RequestHeader = "X-Request-Timeout-Ms" }},
		{"request_header", func(c *Config) { c.Timeouts.RequestHeader = "X Timeout" }},
		{"request_header", func(c *Config) { c.Timeouts.RequestHeader = "X-Timeout:" }},
		{"request_header", func(c *Config) { c.Timeouts.RequestHeader = "host" }},
		{"request_header", func(c *Config) { c.Timeouts.RequestHeader = "Content-Length" }},
		{"request_header", func(c *Config) { c.Timeouts.RequestHeader = "keep-alive" }},
	} {
		c := DefaultConfig()
		tt.set(&c)
		if err := c.Validate(); tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("%v, want %q", err, tt.want)
		}
	}
}

func TestReplayable(t *testing.T) {
	for _, tt := range []struct {
		methods, yes, no []string
	}{
		{nil, []string{"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"}, []string{"POST", "PATCH", "get", "M-SEARCH"}},
		{[]string{"POST"}, []string{"POST"}, []string{"GET", "PUT", "post"}},
	} {
		c := RetryConfig{Methods: tt.methods}
		for _, m := range slices.Concat(tt.yes, tt.no) {
			if got, want := c.replayable(&Head{Method: []byte(m)}), slices.Contains(tt.yes, m); got != want {
				t.Errorf("%s with methods %v: %v", m, tt.methods, got)
			}
		}
	}
}

func TestRetriedStatuses(t *testing.T) {
	for status, c := range map[int]RetryConfig{
		500: {Status500: true},
		502: {Status502: true},
		503: {Status503: true},
		504: {Status504: true},
		409: {Retriable4xx: true},
	} {
		for s := 100; s < 600; s++ {
			if got := c.status(s); got != (s == status) {
				t.Errorf("%+v: %d is retried: %v", c, s, got)
			}
		}
	}
}

func TestCauses(t *testing.T) {
	if got := Causes(); len(got) != int(numCauses) || got[byConnect] != "connect_failure" || got[byRefusal] != "refused" ||
		got[byReset] != "reset" || got[byTimeout] != "timeout" || got[byStatus] != "status" {
		t.Errorf("%v", got)
	}
}

func TestRetryAfterOfABackend(t *testing.T) {
	for _, tt := range []struct {
		fields []string
		want   time.Duration
	}{
		{nil, 0},
		{[]string{"Retry-After: 1"}, time.Second},
		{[]string{"RETRY-after:  120 "}, 2 * time.Minute},
		{[]string{"Retry-After: 0"}, 0},
		{[]string{"Retry-After: Fri, 31 Dec 1999 23:59:59 GMT"}, 0},
		{[]string{"Retry-After: -1"}, 0},
		{[]string{"Retry-After: 1.5"}, 0},
		{[]string{"Retry-After: "}, 0},
		{[]string{"Retry-After: 999999999999999999"}, 1e6 * time.Second}, // and no overflow
		{[]string{"Retry-After: 9999999999999999999"}, 0},
		{[]string{"Retry-After: soon", "Retry-After: 2"}, 2 * time.Second},
	} {
		var h Head
		head := lines(append([]string{"HTTP/1.1 503 No"}, tt.fields...)...)
		if err := h.ParseResponse([]byte(head), DefaultLimits(), false); err != nil {
			t.Fatal(err)
		}
		if got := h.retryAfter(); got != tt.want {
			t.Errorf("%q: %v, want %v", tt.fields, got, tt.want)
		}
	}
}

// paused is a connection that may pause before a try, and nothing else: of its
// service there is an endpoint that was not tried.
func paused(t *testing.T, cfg RetryConfig, rnd func(n uint32) uint32) *conn {
	t.Helper()
	start := time.Now()
	env := balance.RealEnv(nil)
	env.Now = func() time.Duration { return time.Hour + time.Since(start) }
	b, err := balance.New(balance.DefaultConfig(), env)
	if err != nil {
		t.Fatal(err)
	}
	b.Update([]discovery.Instance{instance("i", "127.0.0.1:1")})
	e := &Engine{now: env.Now, rand: rnd}
	return &conn{s: &Server{e: e, b: b, cfg: Config{Retry: cfg}}, work: &work{}}
}

// The pause is random below min(Backoff*2^n, BackoffMax).
func TestPause(t *testing.T) {
	var bound []uint32
	most := func(n uint32) uint32 {
		bound = append(bound, n)
		return n - 1
	}
	least := func(uint32) uint32 { return 0 }
	const ms = time.Millisecond
	for _, tt := range []struct {
		name         string
		backoff, max time.Duration
		f            failure
		want         [6]time.Duration // the bound at each try
	}{
		{"defaults", 25 * ms, 250 * ms, failure{sent: true}, [6]time.Duration{25 * ms, 50 * ms, 100 * ms, 200 * ms, 250 * ms, 250 * ms}},
		{"unreachable", 25 * ms, 250 * ms, failure{}, [6]time.Duration{0, 50 * ms, 100 * ms, 200 * ms, 250 * ms, 250 * ms}},
		{"stale", 25 * ms, 250 * ms, failure{sent: true, stale: true}, [6]time.Duration{0, 50 * ms, 100 * ms, 200 * ms, 250 * ms, 250 * ms}},
		{"max below", 25 * ms, 10 * ms, failure{sent: true}, [6]time.Duration{10 * ms, 10 * ms, 10 * ms, 10 * ms, 10 * ms, 10 * ms}},
		{"off", 0, 250 * ms, failure{sent: true}, [6]time.Duration{}},
		{"no max", 25 * ms, 0, failure{sent: true}, [6]time.Duration{}},
		{"longest", time.Minute, time.Minute, failure{sent: true}, [6]time.Duration{60e3 * ms, 60e3 * ms, 60e3 * ms, 60e3 * ms, 60e3 * ms, 60e3 * ms}},
	} {
		synctest.Test(t, func(t *testing.T) {
			for i, want := range tt.want {
				bound = nil
				c := paused(t, RetryConfig{Backoff: tt.backoff, BackoffMax: tt.max}, most)
				c.rq.tries = i + 1
				start := time.Now()
				if !c.pause(&tt.f) {
					t.Errorf("%s, try %d: no", tt.name, i+1)
				}
				took := time.Since(start)
				if want == 0 && (took != 0 || bound != nil) || want > 0 && (took != want-time.Microsecond || len(bound) != 1) {
					t.Errorf("%s, try %d: paused for %v, asked for chance below %v, want below %v", tt.name, i+1, took, bound, want)
				}
				c = paused(t, RetryConfig{Backoff: tt.backoff, BackoffMax: tt.max}, least)
				c.rq.tries = i + 1
				start = time.Now()
				if !c.pause(&tt.f) || time.Since(start) != 0 {
					t.Errorf("%s, try %d: %v at least", tt.name, i+1, time.Since(start))
				}
			}
		})
	}
}

// A back-off below the resolution of the pause is none, and no panic of the
// source of chance, which wants at least 1.
func TestTinyBackoff(t *testing.T) {
	for _, c := range []RetryConfig{
		{Backoff: 1, BackoffMax: time.Second},
		{Backoff: 999, BackoffMax: time.Second},
		{Backoff: time.Second, BackoffMax: 999},
	} {
		cfg := DefaultConfig()
		cfg.Retry.Backoff, cfg.Retry.BackoffMax = c.Backoff, c.BackoffMax
		if cfg.Validate() != nil {
			continue // as good
		}
		conn := paused(t, c, func(n uint32) uint32 {
			if n == 0 {
				t.Errorf("backoff %v, max %v: chance below 0 asked for", c.Backoff, c.BackoffMax)
			}
			return 0
		})
		conn.rq.tries = 1
		conn.pause(&failure{sent: true})
	}
}

// A backend's Retry-After counts up to the cap, and is no reason to pause for
// less than the back-off.
func TestPauseAsAsked(t *testing.T) {
	half := func(n uint32) uint32 { return n / 2 }
	for _, tt := range []struct {
		asked, most, backoff time.Duration
		want                 time.Duration
	}{
		{5 * time.Second, time.Second, 0, time.Second},
		{time.Second, 5 * time.Second, 0, time.Second},
		{5 * time.Second, 0, 0, 0},
		{5 * time.Second, 0, 100 * time.Millisecond, 50 * time.Millisecond},
		{0, time.Minute, 100 * time.Millisecond, 50 * time.Millisecond},
		{time.Second, time.Minute, 10 * time.Second, 5 * time.Second},
		{time.Second, time.Minute, 100 * time.Millisecond, time.Second},
	} {
		synctest.Test(t, func(t *testing.T) {
			c := paused(t, RetryConfig{Backoff: tt.backoff, BackoffMax: time.Minute, RetryAfterMax: tt.most}, half)
			c.rq.tries = 1
			start := time.Now()
			if !c.pause(&failure{sent: true, retryAfter: tt.asked}) || time.Since(start) != tt.want {
				t.Errorf("%+v: %v", tt, time.Since(start))
			}
		})
	}
}

// There is no pause into the request's deadline, nor for a client that leaves.
func TestPauseEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := failure{sent: true, retryAfter: time.Second}
		for left, want := range map[time.Duration]bool{
			-1: false, 0: false, time.Second: false, time.Second + 1: true,
		} {
			c := paused(t, RetryConfig{RetryAfterMax: time.Minute}, nil)
			c.rq.tries, c.rq.deadline = 1, c.s.e.now()+left
			start := time.Now()
			if got := c.pause(&f); got != want || !want && time.Since(start) != 0 {
				t.Errorf("%v left: %v after %v", left, got, time.Since(start))
			}
		}
		none := paused(t, RetryConfig{RetryAfterMax: time.Minute}, nil)
		none.rq.tries = 1
		none.s.b.Update(nil)
		start := time.Now()
		if none.pause(&f) || time.Since(start) != 0 {
			t.Errorf("paused for %v though there is no endpoint", time.Since(start))
		}
		for _, after := range []time.Duration{0, 300 * time.Millisecond} {
			c := paused(t, RetryConfig{RetryAfterMax: time.Minute}, nil)
			c.rq.tries = 1
			start := time.Now()
			if after == 0 {
				c.hangUp()
			} else {
				time.AfterFunc(after, c.hangUp)
			}
			if c.pause(&f) || time.Since(start) != after {
				t.Errorf("a client left after %v, and the pause ended after %v", after, time.Since(start))
			}
		}
	})
}
