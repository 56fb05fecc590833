package agentstats

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"time"

	"github.com/hashicorp/go-hclog"
)

// Bounds of the poll interval an agent may ask for (PICKING.md).
const (
	minPoll = 100 * time.Millisecond
	maxPoll = 2 * time.Second
)

// PollConfig is how a sidecar polls the agents of its endpoints.
//
// The cost is one small exchange per endpoint and interval: with 1,000 endpoints the
// default is 2,000 polls a second, so set Interval to 2s there (p99 at 90 % load rises
// by about a third, PICKING.md), or let the sidecar see a subset of the endpoints.
type PollConfig struct {
	// Interval is the time between two polls of one endpoint, 50 ms to 1 min. An agent
	// with many sidecars may ask for a longer one, of at most 2 s.
	Interval time.Duration
	// Jitter is the share by which each interval varies, up and down, 0 to 0.5.
	Jitter float64
	// Timeout bounds one poll, dialling included, and is at most Interval; 0 means the
	// smaller of that and 1 s.
	Timeout time.Duration
	// MaxBackoff bounds the pause after failures, which starts at Interval and doubles.
	MaxBackoff time.Duration
	// Expiry is the age from which a report should no longer count; 0 means three times
	// the interval at which its endpoint is polled. It grows in proportion where an agent
	// asks for a longer interval. The poller only stamps it on each Sample; the consumer
	// applies it.
	Expiry time.Duration
	// Token is shown to agents; "": none. The catalog says where they are: who may
	// register an instance of the service may have himself shown the token, unless TLS
	// tells the agents from others. Without TLS whoever sees the traffic sees it, and it
	// is shown to agents on their instance's own host alone.
	Token string
	// TLS is for all agents; its zero value is plain HTTP.
	TLS ClientTLS
}

// DefaultPollConfig returns the defaults.
func DefaultPollConfig() PollConfig {
	return PollConfig{
		// p99 at 90 % load in simulation: 252 ms at 0.1 s, 295 at 0.5 s, 395 at 2 s.
		Interval: 500 * time.Millisecond,
		// Enough for the orders of different sidecars to drift apart, within seconds.
		Jitter: 0.05,
		// A report that took longer is too old to act on, and polls must not overlap.
		Timeout: 0,
		// An agent that comes back is seen within 10 s; until then it costs next to nothing.
		MaxBackoff: 10 * time.Second,
		// Two polls in a row may be lost without an effect; from three on the figures are
		// those of another situation (PICKING.md fades them from here).
		Expiry: 0,
	}
}

// Validate reports everything that is wrong with the configuration.
func (c PollConfig) Validate() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if c.Interval < 50*time.Millisecond || c.Interval > time.Minute {
		bad("poll interval %s is outside 50ms to 1m", c.Interval)
	}
	if !(c.Jitter >= 0 && c.Jitter <= 0.5) {
		bad("poll jitter %v is outside 0 to 0.5", c.Jitter)
	}
	if c.Timeout != 0 && (c.Timeout < time.Millisecond || c.Timeout > time.Minute) {
		bad("poll timeout %s is outside 1ms to 1m (0: the smaller of the interval and 1s)", c.Timeout)
	}
	if c.Timeout > c.Interval {
		bad("poll timeout %s is longer than the interval %s: a report that took so long would have expired on arrival", c.Timeout, c.Interval)
	}
	if c.MaxBackoff < c.Interval || c.MaxBackoff > 10*time.Minute {
		bad("poll max_backoff %s is outside %s (the interval) to 10m", c.MaxBackoff, c.Interval)
	}
	if c.Expiry != 0 && (c.Expiry < c.Interval || c.Expiry > time.Hour) {
		bad("report expiry %s is outside %s (the poll interval) to 1h (0: three intervals)", c.Expiry, c.Interval)
	}
	if c.Token != "" && c.TLS.InsecureSkipVerify {
		bad("token with tls insecure_skip_verify: anybody may pose as an agent and be shown it; set ca_file, or drop one of the two")
	}
	errs = append(errs, checkToken(c.Token), c.TLS.Validate())
	return errors.Join(errs...)
}

// Warnings are what a valid configuration should be warned of, once at the start.
func (c PollConfig) Warnings() []string {
	var all []string
	if c.TLS.InsecureSkipVerify {
		all = append(all, "tls insecure_skip_verify is on: anybody may pose as an agent")
	}
	switch {
	case c.Token == "":
	case !c.TLS.Enabled:
		all = append(all, "the token goes in clear to every agent that the catalog names on its instance's own host: turn tls on, with a ca_file")
	case c.TLS.CAFile == "" && c.TLS.ServerName == "":
		all = append(all, "the token goes to whoever the catalog names as an agent and has a certificate of any of the system's authorities for that name: set tls ca_file or server_name")
	}
	return all
}

// timeout of one poll.
func (c PollConfig) timeout() time.Duration {
	if c.Timeout > 0 {
		return c.Timeout
	}
	return min(c.Interval, time.Second)
}

// interval at which an endpoint is polled whose agent asks for asked: its wish is
// clamped, and it may only slow the sidecar down.
func (c PollConfig) interval(asked Opt[int64]) time.Duration {
	ms, ok := asked.Get()
	if !ok {
		return c.Interval
	}
	return max(c.Interval, min(max(time.Duration(ms)*time.Millisecond, minPoll), maxPoll))
}

// expiry of a report of an endpoint polled at interval: a configured one grows with
// the interval an agent asked for.
func (c PollConfig) expiry(interval time.Duration) time.Duration {
	if c.Expiry == 0 {
		return 3 * interval
	}
	return time.Duration(float64(c.Expiry) * float64(interval) / float64(c.Interval))
}

// PollEnv is what a poller gets from its surroundings. Every field may be left out.
type PollEnv struct {
	// Now is the sidecar's monotonic clock; Sample.At is on it. Default: time since NewPoller.
	Now func() time.Duration
	// Rand returns a uniform number in [0, n); it is called under a lock of the poller.
	Rand func(n uint32) uint32
	// Dial opens a connection and must honour ctx; default: net.Dialer, no proxy, which
	// refuses names that resolve to what AgentAddr would refuse.
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)
	// InFlight returns the sidecar's own requests in flight at an endpoint. It is called
	// by many goroutines, when a poll is sent, and is told to the agent. Default: 0.
	InFlight func(id string) int64
	Logger   hclog.Logger // default: none
}

func (e PollEnv) withDefaults() PollEnv {
	if e.Now == nil {
		start := time.Now()
		e.Now = func() time.Duration { return time.Since(start) }
	}
	if e.Rand == nil {
		e.Rand = rand.Uint32N
	}
	if e.InFlight == nil {
		e.InFlight = func(string) int64 { return 0 }
	}
	if e.Logger == nil {
		e.Logger = hclog.NewNullLogger()
	}
	return e
}
