// Package breaker decides when something that fails is left alone: one breaker
// per endpoint (ejection), a guard over how many may be out at once, one
// breaker per service for lack of capacity, a retry budget, and the time after
// which a client may usefully come back.
//
// It knows nothing of endpoints or HTTP: the balancer tells it results and asks.
package breaker

import (
	"fmt"
	"time"
)

// Config tunes the breakers of one service.
type Config struct {
	// ConsecutiveFailures in a row eject an endpoint, 1 to 1000.
	ConsecutiveFailures int
	// FailureRatio of at least MinRequests in the rolling Window ejects it too,
	// in (0, 1]. The window starts to fill at an endpoint's first failure.
	FailureRatio float64
	MinRequests  int
	// Window is the rolling window, kept in buckets of BucketPeriod.
	Window       time.Duration
	BucketPeriod time.Duration
	// BaseEjection is how long the first ejection lasts; each further one twice
	// as long, up to MaxEjection, with up to 25 % added by chance. An endpoint
	// that stays in for MaxEjection is forgiven.
	BaseEjection time.Duration
	MaxEjection  time.Duration
	// MaxEjectedPercent caps the share of endpoints that may be ejected for
	// failing, 0 to 100. One that refuses connections does not count against
	// it (sending there serves nobody), but the last endpoint is never ejected.
	MaxEjectedPercent int
	// FailureStatuses are answers of a backend that count as its failure.
	FailureStatuses []int
	// SuccessRate tunes ejection by comparison with the others.
	SuccessRate OutlierConfig
	// Capacity tunes the service-level breaker.
	Capacity CapacityConfig
}

// CapacityConfig tunes the breaker that trips when the service as a whole has
// nothing left to give.
type CapacityConfig struct {
	// QueueFailureRatio of at least MinQueued requests that had to queue within
	// Window and were not served trips it, in (0, 1].
	QueueFailureRatio float64
	MinQueued         int
	Window            time.Duration
	// BaseOpen is how long it stays open the first time, doubling to MaxOpen.
	BaseOpen, MaxOpen time.Duration
}

// DefaultConfig returns the settings of a service without a breaker block.
func DefaultConfig() Config {
	return Config{
		ConsecutiveFailures: 3,   // PICKING.md; Envoy takes 5, but our retries hide fewer
		FailureRatio:        0.5, // an endpoint that fails every other request serves nobody well
		MinRequests:         20,  // below it a ratio is noise
		Window:              10 * time.Second,
		BucketPeriod:        time.Second,
		BaseEjection:        time.Second,          // a restart is often over by then
		MaxEjection:         30 * time.Second,     // Envoy's base; longer hides a healed backend
		MaxEjectedPercent:   50,                   // beyond it the fault is likelier ours or the network's
		FailureStatuses:     []int{502, 503, 504}, // a 500 is as often the request's fault
		SuccessRate:         defaultOutliers(),
		Capacity: CapacityConfig{
			QueueFailureRatio: 0.5,
			MinQueued:         20,
			Window:            5 * time.Second,
			BaseOpen:          time.Second,
			MaxOpen:           30 * time.Second,
		},
	}
}

// Validate reports the first setting that is out of range.
func (c Config) Validate() error {
	switch {
	case c.ConsecutiveFailures < 1 || c.ConsecutiveFailures > 1000:
		return fmt.Errorf("consecutive_failures is %d, allowed are 1 to 1000", c.ConsecutiveFailures)
	case !(c.FailureRatio > 0 && c.FailureRatio <= 1):
		return fmt.Errorf("failure_ratio is %v, allowed is above 0 up to 1", c.FailureRatio)
	case c.MinRequests < 1 || c.MinRequests > 1e6:
		return fmt.Errorf("min_requests is %d, allowed are 1 to 1000000", c.MinRequests)
	case c.BucketPeriod < 10*time.Millisecond:
		return fmt.Errorf("bucket is %v, allowed is 10ms and up", c.BucketPeriod)
	case c.Window < c.BucketPeriod || c.Window > time.Hour || c.Window/c.BucketPeriod > 1000:
		return fmt.Errorf("window is %v, allowed are one to 1000 buckets of %v, up to 1h", c.Window, c.BucketPeriod)
	case c.BaseEjection < 10*time.Millisecond || c.BaseEjection > c.MaxEjection:
		return fmt.Errorf("base_ejection is %v, allowed are 10ms to max_ejection (%v)", c.BaseEjection, c.MaxEjection)
	case c.MaxEjection > time.Hour:
		return fmt.Errorf("max_ejection is %v, allowed is up to 1h", c.MaxEjection)
	case c.MaxEjectedPercent < 0 || c.MaxEjectedPercent > 100:
		return fmt.Errorf("max_ejected_percent is %d, allowed are 0 to 100", c.MaxEjectedPercent)
	}
	for _, s := range c.FailureStatuses {
		if s < 400 || s > 599 {
			return fmt.Errorf("failure_statuses has %d, allowed are 400 to 599", s)
		}
	}
	if err := c.SuccessRate.validate(); err != nil {
		return err
	}
	return c.Capacity.validate()
}

func (c CapacityConfig) validate() error {
	switch {
	case !(c.QueueFailureRatio > 0 && c.QueueFailureRatio <= 1):
		return fmt.Errorf("capacity: queue_failure_ratio is %v, allowed is above 0 up to 1", c.QueueFailureRatio)
	case c.MinQueued < 1 || c.MinQueued > 1e6:
		return fmt.Errorf("capacity: min_queued is %d, allowed are 1 to 1000000", c.MinQueued)
	case c.Window < 100*time.Millisecond || c.Window > time.Hour:
		return fmt.Errorf("capacity: window is %v, allowed are 100ms to 1h", c.Window)
	case c.BaseOpen < 10*time.Millisecond || c.BaseOpen > c.MaxOpen || c.MaxOpen > time.Hour:
		return fmt.Errorf("capacity: base_open is %v, allowed are 10ms to max_open (%v, up to 1h)", c.BaseOpen, c.MaxOpen)
	}
	return nil
}

// BudgetConfig bounds retries as a share of requests.
type BudgetConfig struct {
	Ratio        float64 // retries per request over the last 10 s, 0 to 1
	MinPerSecond int     // allowed besides, so that a quiet client can retry at all; 0 to 10000
}

// DefaultBudgetConfig returns PICKING.md's retry budget.
func DefaultBudgetConfig() BudgetConfig {
	return BudgetConfig{Ratio: 0.1, MinPerSecond: 3}
}

// Validate reports the first setting that is out of range.
func (c BudgetConfig) Validate() error {
	switch {
	case !(c.Ratio >= 0 && c.Ratio <= 1):
		return fmt.Errorf("budget ratio is %v, allowed are 0 to 1", c.Ratio)
	case c.MinPerSecond < 0 || c.MinPerSecond > 10000:
		return fmt.Errorf("budget min_per_second is %d, allowed are 0 to 10000", c.MinPerSecond)
	}
	return nil
}

// Env is what a breaker needs of the world.
type Env struct {
	// Now is the balancer's monotonic clock.
	Now func() time.Duration
	// Rand returns a uniform number in [0, n).
	Rand func(n uint32) uint32
	// Changed is told that a breaker changed state. It is called with the
	// breaker's locks held: it must only post, and must not call back.
	Changed func()
}
