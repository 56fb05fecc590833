// Package h1 is the HTTP/1.1 engine: one goroutine per client connection, a
// codec that does no I/O of its own, pooled connections to backends.
package h1

import (
	"fmt"
	"time"
)

// Config is what the engine needs to know of one service.
type Config struct {
	Timeouts Timeouts
	Limits   Limits
	Retry    RetryConfig
	// FailureStatuses are answers that count as the backend's failure.
	FailureStatuses []int
	// PoolSize is the most idle connections kept per endpoint, 0 to 100000;
	// PoolIdle how long one is kept.
	PoolSize int
	PoolIdle time.Duration
	// MaxConns is the most client connections at once, 1 to 1000000. Above it
	// new ones wait in the kernel's backlog.
	MaxConns int
	// MaxRequests is how many requests a client connection may carry, 0 to
	// 1000000000; 0 is no limit.
	MaxRequests int
	// MaxBody is the largest request body in bytes, without its framing, 0 to
	// 2^50; 0 is no limit.
	MaxBody int64
	// MinRate is how many bytes per second a client must send of a body, and take
	// of an answer, once it has kept us waiting for the idle time-out in all: 0 to
	// 1000000, 0 is no such rate.
	MinRate  int
	TLS      TLSConfig // to backends
	Forward  ForwardConfig
	Hash     KeyConfig // for the policy consistent_hash
	Affinity AffinityConfig
}

// Timeouts bound the phases of a request. They are checked by a coarse clock:
// one may strike up to 50 ms late, never early.
type Timeouts struct {
	Connect   time.Duration // to establish a connection to a backend
	FirstByte time.Duration // from the end of the request to the head of the answer
	Idle      time.Duration // between bytes of a body, and of a client connection between requests
	Tunnel    time.Duration // without a byte in either direction of an upgraded connection
	Request   time.Duration // all of a request, retries included; 0 is none
	Head      time.Duration // for a client to send a head, from its first byte on
	// RequestHeader names a header in which a client may give a request's own
	// time-out in whole milliseconds, in the place of Request; "" is none. It is
	// not passed on.
	RequestHeader string
}

const maxTimeout = 24 * time.Hour

// DefaultConfig returns the settings of a service that says nothing.
func DefaultConfig() Config {
	return Config{
		Timeouts: Timeouts{
			Connect:   time.Second,      // backends are near; a dead host must not hold a request longer
			FirstByte: 30 * time.Second, // HAProxy's customary "timeout server"
			Idle:      60 * time.Second,
			Tunnel:    time.Hour, // HAProxy's customary "timeout tunnel"; WebSockets may rest long
			Request:   0,         // streams and downloads may take as long as bytes flow
			Head:      10 * time.Second,
		},
		Limits:      DefaultLimits(),
		Retry:       defaultRetry(),
		PoolSize:    256,
		PoolIdle:    30 * time.Second, // below the idle time of most servers, so that we close first
		MaxConns:    10000,
		MaxRequests: 0,   // the client is this machine's own app; NGINX's 1000 is there to free its memory
		MaxBody:     0,   // bodies are streamed: what is too large is the backend's to say
		MinRate:     240, // Kestrel's; slow enough for any link that works
		TLS:         DefaultTLSConfig(),
		Forward:     DefaultForwardConfig(),
		Affinity:    DefaultAffinityConfig(),
	}
}

// Validate reports the first setting that is out of range.
func (c Config) Validate() error {
	for _, t := range []struct {
		name string
		d    time.Duration
		zero bool
	}{
		{"connect", c.Timeouts.Connect, false},
		{"first_byte", c.Timeouts.FirstByte, false},
		{"idle", c.Timeouts.Idle, false},
		{"tunnel", c.Timeouts.Tunnel, false},
		{"request", c.Timeouts.Request, true},
		{"head", c.Timeouts.Head, false},
	} {
		if t.zero && t.d == 0 {
			continue
		}
		if t.d < 10*time.Millisecond || t.d > maxTimeout {
			return fmt.Errorf("timeout %s is %v, allowed are 10ms to 24h", t.name, t.d)
		}
	}
	if err := c.Retry.validate(); err != nil {
		return err
	}
	if h := c.Timeouts.RequestHeader; h != "" && (!all([]byte(h), isToken) || identify([]byte(h)) != other) {
		return fmt.Errorf("timeout request_header is %q, which is no header's name, or one with a meaning of its own", h)
	}
	l := c.Limits
	switch {
	case c.MaxRequests < 0 || c.MaxRequests > 1e9:
		return fmt.Errorf("limit requests is %d, allowed are 0 (no limit) to 1000000000", c.MaxRequests)
	case c.MaxBody < 0 || c.MaxBody > 1<<50:
		return fmt.Errorf("limit body is %d bytes, allowed are 0 (no limit) to 2^50", c.MaxBody)
	case c.MinRate < 0 || c.MinRate > 1e6:
		return fmt.Errorf("limit min_rate is %d bytes per second, allowed are 0 (none) to 1000000", c.MinRate)
	case c.PoolSize < 0 || c.PoolSize > 1e5:
		return fmt.Errorf("pool size is %d, allowed are 0 to 100000", c.PoolSize)
	case c.PoolIdle < 10*time.Millisecond || c.PoolIdle > time.Hour:
		return fmt.Errorf("pool idle time is %v, allowed are 10ms to 1h", c.PoolIdle)
	case c.MaxConns < 1 || c.MaxConns > 1e6:
		return fmt.Errorf("limit connections is %d, allowed are 1 to 1000000", c.MaxConns)
	case l.Head < 1<<10 || l.Head > bufSize:
		return fmt.Errorf("limit head is %d bytes, allowed are 1024 to %d", l.Head, bufSize)
	case l.Line < 256:
		return fmt.Errorf("limit line is %d bytes, allowed are 256 and up", l.Line)
	case l.Line > l.Head:
		return fmt.Errorf("limit line is %d bytes, more than limit head, which it is part of", l.Line)
	case l.Headers < 8 || l.Headers > 10000:
		return fmt.Errorf("limit headers is %d, allowed are 8 to 10000", l.Headers)
	}
	if err := c.TLS.Validate(); err != nil {
		return err
	}
	if err := c.Hash.Validate(); err != nil {
		return err
	}
	if err := c.Affinity.Validate(); err != nil {
		return err
	}
	return c.Forward.Validate()
}
