package breaker

import (
	"fmt"
	"math"
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

// Flap is the memory of one endpoint's falls. The zero value has none. It is a
// value: DampConfig's methods make the next one of it.
type Flap struct {
	// Falls counts them all, forgiven ones too, as long as the endpoint is remembered.
	Falls uint64
	// Until is the time until which the endpoint is held back.
	Until time.Duration
	// Damped says that the last return was held back.
	Damped bool

	penalty float64 // at the time at
	at      time.Duration
}

// free is the penalty below which a return is not held back: a deploy and an
// accident besides.
const free = 2

// Penalty is how many falls are not forgotten yet: each counts 1 when it happens
// and half as much a HalfLife later.
func (c DampConfig) Penalty(f Flap, now time.Duration) float64 {
	return f.penalty * math.Exp2(-float64(now-f.at)/float64(c.HalfLife))
}

// Fall returns f after one more fall at the time now.
//
// As in RFC 2439 (4.4.3) the penalty has a ceiling, so that a quiet time of about
// two HalfLifes ends the damping however long the endpoint went on before.
func (c DampConfig) Fall(f Flap, now time.Duration) Flap {
	p := c.Penalty(f, now) + 1
	if c.Base > 0 {
		p = min(p, free+1+math.Log2(float64(c.Max)/float64(c.Base)))
	}
	return Flap{Falls: f.Falls + 1, Damped: f.Damped, penalty: p, at: now}
}

// Forgiven returns f with what was before in the place of the falls since: they were
// not the endpoint's own.
func (f Flap) Forgiven(before Flap) Flap {
	before.Falls = f.Falls
	return before
}

// Rise returns f after a return at the time now, with the time until which the
// endpoint is held back: Base * 2^(penalty-2), up to Max, and up to 25 % more by
// chance so that a fleet of sidecars does not let it in in step. Not at all below
// a penalty of 2. RFC 2439 has two thresholds in its place, between which an
// endpoint is out for as long as its penalty says, well or not.
func (c DampConfig) Rise(f Flap, now time.Duration, rand func(n uint32) uint32) Flap {
	p := c.Penalty(f, now)
	f.Damped = c.Base > 0 && p >= free
	f.Until = 0
	if f.Damped {
		hold := min(float64(c.Base)*math.Exp2(p-free), float64(c.Max))
		f.Until = now + time.Duration(hold*(1+0.25*float64(rand(1<<16))/(1<<16)))
	}
	return f
}
