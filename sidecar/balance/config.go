// Package balance is the one place where membership, picking, breaking and
// waiting meet: a Balancer hands out leases, one per try of a request.
package balance

import (
	"fmt"
	"time"

	"outrigger/breaker"
	"outrigger/picker"
)

// Config is what one service's balancer needs to know.
type Config struct {
	Service string // for messages
	Picker  picker.Config
	// Shadow is a second policy that picks beside the first without effect (see
	// ShadowStatus); its Policy is "" for none.
	Shadow  picker.Config
	Breaker breaker.Config
	Budget  breaker.BudgetConfig
	// MaxInFlight is the most requests that this sidecar has at one endpoint at
	// once, 0 to 1000000; 0 is no limit.
	MaxInFlight int
	// MaxWait is the share of the time that a request has left (Key.Deadline)
	// which it may spend waiting inside the backend, as the policy foretells, 0
	// to 1; 0 is no limit. Only the resource policy foretells, and only for
	// requests with a deadline.
	MaxWait float64
	Queue   QueueConfig
	// SlowStart is how long an endpoint that joins or returns takes to get its
	// full part, from a tenth on: 0 (at once), or 100ms to 10m.
	SlowStart time.Duration
	Locality  LocalityConfig
	// PanicThreshold is the share of the endpoints that would serve that must be
	// healthy, 0 to 1: below it health is ignored (see panic.go). 0: only when every
	// endpoint that Consul and checks let through is ejected, damped or refuses.
	PanicThreshold float64
	Damping        breaker.DampConfig
	Failover       FailoverConfig
	// Pins lets requests ask for an endpoint (Key.Pin): the service has affinity.
	Pins bool
}

// QueueConfig bounds waiting for a free slot.
type QueueConfig struct {
	Length  int           // most requests waiting, 0 to 100000; 0: nobody waits
	Timeout time.Duration // longest wait, 1ms to 1m
}

// FailoverConfig says when fallback sources are used.
type FailoverConfig struct {
	// Below is how many endpoints of a tier must take requests for the next one not
	// to be used, counted together with those of the tiers before it: a count from 1
	// on, or below 1 a share of the tier's own endpoints. Above 0 to 100000. Ignored
	// without fallbacks.
	Below float64
	// Return is how long a fallback goes on being used, ever less, when the tiers
	// before it suffice again: 0 to 1h.
	Return time.Duration
}

// DefaultConfig returns the settings of a service that names only itself.
func DefaultConfig() Config {
	return Config{
		Picker:      picker.DefaultConfig(),
		Shadow:      noShadow(),
		Breaker:     breaker.DefaultConfig(),
		Budget:      breaker.DefaultBudgetConfig(),
		MaxWait:     0.15, // PICKING.md: 97 % of the capacity served at 150 % load
		MaxInFlight: 1024, // a backstop, Envoy's figure; the right one depends on the backend
		Queue: QueueConfig{
			Length: 128, // small against the limit: a queue only smooths bursts
			// PICKING.md: longer waits changed goodput by under half a point and raised p50.
			Timeout: 50 * time.Millisecond,
		},
		// PICKING.md's, for every policy: there a cold backend had 51 requests in
		// flight under least_conn and 163 under round robin, with a slow start 4
		// to 6. It costs warm endpoints little: see picker.HoldRamps.
		SlowStart: 10 * time.Second,
		Locality:  defaultLocality(),
		// Envoy's: with more than half gone the fault is likelier in what judges them.
		PanicThreshold: 0.5,
		Damping:        breaker.DefaultDampConfig(),
		Failover: FailoverConfig{
			Below:  0.5,              // the panic threshold: a fallback helps before health is ignored
			Return: 30 * time.Second, // three slow starts: what returns is warm by then
		},
	}
}

// Validate reports the first setting that is out of range.
func (c Config) Validate() error {
	switch {
	case c.MaxInFlight < 0 || c.MaxInFlight > 1e6:
		return fmt.Errorf("max_in_flight is %d, allowed are 0 (no limit) to 1000000", c.MaxInFlight)
	case !(c.MaxWait >= 0 && c.MaxWait <= 1):
		return fmt.Errorf("max_wait is %v, allowed are 0 (no limit) to 1, a share of the request's time-out", c.MaxWait)
	case c.Queue.Length < 0 || c.Queue.Length > 1e5:
		return fmt.Errorf("queue length is %d, allowed are 0 (no queue) to 100000", c.Queue.Length)
	case c.Queue.Timeout < time.Millisecond || c.Queue.Timeout > time.Minute:
		return fmt.Errorf("queue timeout is %v, allowed are 1ms to 1m", c.Queue.Timeout)
	}
	if c.SlowStart != 0 && (c.SlowStart < 100*time.Millisecond || c.SlowStart > 10*time.Minute) {
		return fmt.Errorf("slow_start is %v, allowed are 0 (off) or 100ms to 10m", c.SlowStart)
	}
	if !(c.PanicThreshold >= 0 && c.PanicThreshold <= 1) {
		return fmt.Errorf("panic_threshold is %v, allowed are 0 to 1, a share of the endpoints", c.PanicThreshold)
	}
	if !(c.Failover.Below > 0 && c.Failover.Below <= 1e5) {
		return fmt.Errorf("failover below is %v, allowed are above 0 to 100000", c.Failover.Below)
	}
	if c.Failover.Return < 0 || c.Failover.Return > time.Hour {
		return fmt.Errorf("failover return is %v, allowed are 0s to 1h", c.Failover.Return)
	}
	if err := c.Damping.Validate(); err != nil {
		return err
	}
	if err := c.Locality.validate(); err != nil {
		return err
	}
	if err := c.Picker.Validate(); err != nil {
		return err
	}
	if err := c.validateShadow(); err != nil {
		return err
	}
	if err := c.Breaker.Validate(); err != nil {
		return err
	}
	return c.Budget.Validate()
}

// Conns is an engine's store of connections to one endpoint. The balancer
// keeps it beside the endpoint, so that a lease finds it without a look-up.
type Conns interface {
	// Retire is called once, when the endpoint's instance has left: idle
	// connections are closed, used ones when their request ends.
	Retire()
}

// Env is what a balancer needs of the world.
type Env struct {
	Now  func() time.Duration // monotonic
	Rand picker.Rand
	// ShadowRand is what a shadow draws from. A simulator gives it chance of its
	// own, so that a run with a shadow is, pick for pick, the run without. nil: Rand.
	ShadowRand picker.Rand
	// Wake, if set, is called instead of waking Run when there is something for
	// Tick to do: a simulator then calls Tick itself, later but at this very
	// time of its clock. It must not call back into the balancer.
	Wake func()
	// NewConns makes the engine's connection store for a new endpoint. nil: none.
	NewConns func(*picker.Endpoint) Conns
	// NewGauge makes the gauge of a new endpoint, or none for it: nil. Called with
	// the balancer's lock held. nil: there are no gauges.
	NewGauge func(*picker.Endpoint) Gauge
	// Event, if set, is told of what an operator should know, once per change. It is
	// called without locks held, never concurrently with itself.
	Event func(Event)
	// Policy, if set, makes the policy in the place of picker.New: a simulator's
	// baselines, which are not for sidecars. It must keep picker's contracts.
	Policy func(picker.Config, picker.Rand) (picker.Policy, error)
}
