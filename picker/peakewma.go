package picker

import (
	"fmt"
	"time"
)

// PeakEWMAConfig tunes the peak_ewma policy.
type PeakEWMAConfig struct {
	// Decay is the time constant with which a peak is forgotten, 100ms to 10m.
	Decay time.Duration
	// Unknown is the latency that an endpoint without one is taken to have, 1ms
	// to 1m: not the best, so that a newcomer does not win every pick.
	Unknown time.Duration
}

// DefaultPeakEWMAConfig returns linkerd2-proxy's settings.
func DefaultPeakEWMAConfig() PeakEWMAConfig {
	return PeakEWMAConfig{Decay: 10 * time.Second, Unknown: time.Second}
}

// Validate reports the first setting that is out of range.
func (c PeakEWMAConfig) Validate() error {
	switch {
	case c.Decay < 100*time.Millisecond || c.Decay > 10*time.Minute:
		return fmt.Errorf("decay is %v, allowed are 100ms to 10m", c.Decay)
	case c.Unknown < time.Millisecond || c.Unknown > time.Minute:
		return fmt.Errorf("unknown is %v, allowed are 1ms to 1m", c.Unknown)
	}
	return nil
}

type peakEWMA struct {
	cfg  PeakEWMAConfig
	rand Rand
}

func (peakEWMA) Name() string { return "peak_ewma" }

func (p peakEWMA) Build(ready []*Endpoint) Picker { return p2c{p.rand}.Build(ready) }
