package balance

import (
	"fmt"
	"slices"
	"time"

	"outrigger/breaker"
)

// Reason says why a request got no endpoint. Its names are part of the HTTP
// interface (the Outrigger-Reason header) and of the metrics.
type Reason uint8

const (
	NoBackends   Reason = iota // Consul knows none that may be used
	AllEjected                 // there are some, but each is ejected, half-open, vetoed or tried
	Saturated                  // every one is at its limit, and nobody may wait
	QueueFull                  // and too many wait already
	QueueTimeout               // waited for the queue's time-out in vain
	Unreachable                // every try failed before a byte reached a backend
	Draining                   // this sidecar is shutting down
	numReasons
)

var reasonNames = [numReasons]string{
	"no_backends", "all_ejected", "saturated", "queue_full", "queue_timeout", "unreachable", "draining",
}

// String returns the name that clients see.
func (r Reason) String() string {
	if r < numReasons {
		return reasonNames[r]
	}
	return "unknown"
}

// Reasons returns all names in order, for metrics that want every label.
func Reasons() []string { return slices.Clone(reasonNames[:]) }

// Refusal is the error of a request that got no endpoint.
type Refusal struct {
	Reason     Reason
	RetryAfter int // seconds, 1 to 30
}

// Error implements error.
func (r *Refusal) Error() string {
	return fmt.Sprintf("%s, retry after %d s", r.Reason, r.RetryAfter)
}

// shedSeconds is the window of the share of requests shed (PICKING.md: 2 s).
const shedSeconds = 2

// Refuse counts a request that gets our own 503 and says when to come back.
// The engine calls it for Unreachable; Acquire and its parts for the others.
func (b *Balancer) Refuse(reason Reason) *Refusal { return b.refuse(reason, nil) }

// refuse is Refuse for a request whose key is known, or nil.
func (b *Balancer) refuse(reason Reason, k *Key) *Refusal {
	now := b.env.Now()
	b.refused[reason].Add(1)
	b.shed.Add(now)
	r := &Refusal{reason, b.retryAfter(reason, now)}
	b.denied(r, k, now)
	return r
}

func (b *Balancer) retryAfter(reason Reason, now time.Duration) int {
	rand := b.env.Rand
	switch reason {
	case Draining:
		return 1 // whoever takes over listens on the same address
	case NoBackends:
		return breaker.WaitRetryAfter(b.capacity.Until()-now, rand)
	case AllEjected, Unreachable:
		return breaker.WaitRetryAfter(b.snap.Load().nextExpiry-now, rand)
	default:
		return breaker.ShedRetryAfter(b.shed.Sum(now, shedSeconds), b.requests.Sum(now, shedSeconds), rand)
	}
}
