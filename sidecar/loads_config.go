package sidecar

import (
	"fmt"
	"time"

	"outrigger/agentstats/orca"
)

// ORCAConfig is what a service makes of the load that backends declare in the
// header endpoint-load-metrics of their answers (package orca). It fills in for
// figures that an endpoint's agent does not tell, and for an agent that is not
// there.
type ORCAConfig struct {
	Enabled bool
	// InFlight is the named metric that counts the requests in the backend, as ORCA
	// has no such figure.
	InFlight string
	// Expiry is the age from which what was declared does not count, 100ms to 1m.
	Expiry time.Duration
	// Memory tells that mem_utilization is the share of a limit at which the backend
	// dies, so that the policy resource vetoes it when that is reached. Others report
	// a share of the host's memory, or of a heap that is full before it is cleaned.
	Memory bool
}

// DefaultORCAConfig returns the settings of a service that says nothing.
func DefaultORCAConfig() ORCAConfig {
	return ORCAConfig{
		// It costs an answer without the header 5 ns, and who sends it wants it read.
		Enabled:  true,
		InFlight: orca.DefaultInFlight,
		// A sidecar that sends an endpoint one request a second hears of it within this
		// time 95 % of the time. What is in flight fades much sooner in the policy, the
		// other figures change slowly; polls every 1 s, which expire after 3 s, did 10 %
		// worse in simulation than twice as many.
		Expiry: 3 * time.Second,
		// A fleet of JVMs with heaps that are 95 % full would be vetoed as one.
		Memory: false,
	}
}

// Validate reports the first setting that is out of range.
func (c ORCAConfig) Validate() error {
	if err := orca.CheckName(c.InFlight); err != nil {
		return fmt.Errorf("orca in_flight is %.80q: %w", c.InFlight, err)
	}
	if c.Expiry < 100*time.Millisecond || c.Expiry > time.Minute {
		return fmt.Errorf("orca expiry is %v, allowed are 100ms to 1m", c.Expiry)
	}
	return nil
}
