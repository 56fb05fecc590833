package breaker

import (
	"fmt"
	"time"
)

// OutlierConfig tunes ejection by success rate: an endpoint that fails more often
// than the others of its service, by more than chance.
type OutlierConfig struct {
	// MinHosts with at least Volume requests each in an Interval are needed to
	// compare, 2 to 1000; 1 to 1000000.
	MinHosts, Volume int
	Interval         time.Duration // 1 s to 10 min
	// Factor is how many standard errors the rate must be below the others', 0 (off)
	// to 100; MinGap is how much it must be below them at least, 0 to 1.
	Factor, MinGap float64
}

func defaultOutliers() OutlierConfig {
	return OutlierConfig{
		MinHosts: 3,                // the error is the binomial's own, so Envoy's 5 for a deviation are not needed
		Volume:   100,              // Envoy's
		Interval: 10 * time.Second, // Envoy's
		Factor:   3,                // a false alarm per host in 700 sweeps
		MinGap:   0.05,             // less is not worth losing an endpoint for
	}
}

func (c OutlierConfig) validate() error {
	switch {
	case c.MinHosts < 2 || c.MinHosts > 1000:
		return fmt.Errorf("success_rate: min_hosts is %d, allowed are 2 to 1000", c.MinHosts)
	case c.Volume < 1 || c.Volume > 1e6:
		return fmt.Errorf("success_rate: volume is %d, allowed are 1 to 1000000", c.Volume)
	case c.Interval < time.Second || c.Interval > 10*time.Minute:
		return fmt.Errorf("success_rate: interval is %v, allowed are 1s to 10m", c.Interval)
	case !(c.Factor >= 0 && c.Factor <= 100):
		return fmt.Errorf("success_rate: factor is %v, allowed are 0 (off) to 100", c.Factor)
	case !(c.MinGap >= 0 && c.MinGap <= 1):
		return fmt.Errorf("success_rate: min_gap is %v, allowed are 0 to 1", c.MinGap)
	}
	return nil
}
