package breaker

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"time"
)

// OutlierConfig tunes ejection by success rate: an endpoint that fails more often
// than the others of its service, by more than chance. It takes for granted that
// requests are spread by chance: sidecar/balance compares none where keys or cookies
// say who serves them.
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

// Rate is what became of the requests sent to one endpoint in an interval.
type Rate struct{ Successes, Failures uint64 }

func (r Rate) requests() float64 { return float64(r.Successes) + float64(r.Failures) }

func (r Rate) share() float64 { return float64(r.Successes) / r.requests() }

// Outliers returns which of the endpoints fail more often than the others, the
// worst first. Endpoints with fewer than Volume requests are neither judged nor
// compared with, and of fewer than MinHosts with that many nobody is.
//
// An endpoint is an outlier when its success rate is MinGap below the median host's
// (what is true of most is the service's fault, not theirs), and below
//
//	m - max(MinGap, Factor * sqrt(p * (1-p) * (1/n + 1/N)) + (1/n + 1/N) / 2)
//
// where n are its requests, N those of all others together, m their success rate and
// p that of all: worse than the others by more than chance, and by enough to matter.
// That is the two-proportion z-test with Yates's correction for continuity. Taking
// the others' m in the place of p, uncorrected, gave five times the false alarms (1 %
// of 100 requests at a rate of 95 %); Envoy takes the deviation between the hosts, to
// which a bad one adds so much that one at 0 among five is found by a hair, and two
// never.
func (c OutlierConfig) Outliers(rates []Rate) []int {
	if c.Factor == 0 {
		return nil
	}
	var all Rate
	var shares []float64
	for _, r := range rates {
		if c.enough(r) {
			shares = append(shares, r.share())
			all.Successes += r.Successes
			all.Failures += r.Failures
		}
	}
	if len(shares) < c.MinHosts || all.Failures == 0 {
		return nil
	}
	slices.Sort(shares)
	usual := shares[len(shares)/2] - c.MinGap
	var low []int
	for i, r := range rates {
		if c.enough(r) && r.share() < usual && c.below(r, Rate{all.Successes - r.Successes, all.Failures - r.Failures}) {
			low = append(low, i)
		}
	}
	slices.SortStableFunc(low, func(i, j int) int { return cmp.Compare(rates[i].share(), rates[j].share()) })
	return low
}

func (c OutlierConfig) enough(r Rate) bool { return r.requests() >= float64(c.Volume) }

// below reports whether r is worse than the others. Both have requests.
func (c OutlierConfig) below(r, others Rate) bool {
	n, rest := r.requests(), others.requests()
	p := (float64(r.Successes) + float64(others.Successes)) / (n + rest)
	each := 1/n + 1/rest
	chance := c.Factor*math.Sqrt(p*(1-p)*each) + each/2
	return r.share() < others.share()-max(c.MinGap, chance)
}
