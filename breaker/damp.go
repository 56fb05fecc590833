package breaker

import (
	"fmt"
	"time"
)

// DampConfig tunes flap damping: an endpoint that falls again and again is let in
// ever later.
type DampConfig struct {
	// Base is the first hold, 0 (off) or 10 ms to Max; each further fall doubles it,
	// to Max, up to 1 h.
	Base, Max time.Duration
	// HalfLife is how long it takes until half of the falls are forgotten, 1 s to 24 h.
	HalfLife time.Duration
}

// DefaultDampConfig returns the damping of a service that says nothing of it.
func DefaultDampConfig() DampConfig {
	return DampConfig{
		Base:     2 * time.Second,
		Max:      time.Minute,
		HalfLife: 2 * time.Minute, // a deploy, one fall per instance, is never damped
	}
}

// Validate reports the first setting that is out of range.
func (c DampConfig) Validate() error {
	switch {
	case c.Base != 0 && (c.Base < 10*time.Millisecond || c.Base > c.Max):
		return fmt.Errorf("flap_damping: base is %v, allowed are 0 (off) or 10ms to max (%v)", c.Base, c.Max)
	case c.Max < 10*time.Millisecond || c.Max > time.Hour:
		return fmt.Errorf("flap_damping: max is %v, allowed are 10ms to 1h", c.Max)
	case c.HalfLife < time.Second || c.HalfLife > 24*time.Hour:
		return fmt.Errorf("flap_damping: half_life is %v, allowed are 1s to 24h", c.HalfLife)
	}
	return nil
}
