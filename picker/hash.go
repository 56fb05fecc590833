package picker

import (
	"fmt"
	"slices"
	"strings"
)

// HashConfig tunes the consistent_hash policy.
type HashConfig struct {
	// On says what of a request makes the key: one of HashKeys. The engine
	// computes it (Request.Key).
	On string
	// Name is the header's, cookie's or query parameter's.
	Name string
	// Balance is the most that an endpoint may have in flight, as a multiple of
	// its share by weight of all in flight, before its keys spill over to the
	// next endpoint: 1.01 to 100, or 0 for no bound.
	Balance float64
	// Points is how many points an endpoint has on the ring for each unit of
	// weight, 1 to 1000.
	Points int
}

// HashKeys lists what HashConfig.On may be.
func HashKeys() []string { return []string{"source", "header", "cookie", "path", "query"} }

// DefaultHashConfig returns the settings of a policy block that says nothing.
func DefaultHashConfig() HashConfig {
	return HashConfig{
		On:      "source", // every request has one
		Balance: 1.25,     // Mirrokni et al.'s example and HAProxy's advice for hash-balance-factor
		Points:  64,       // shares within 13 % (one sigma); the bound evens out the rest
	}
}

// Validate reports the first setting that is out of range.
func (c HashConfig) Validate() error {
	named := c.On == "header" || c.On == "cookie" || c.On == "query"
	switch {
	case !slices.Contains(HashKeys(), c.On):
		return fmt.Errorf("hash on is %q, allowed are %s", c.On, strings.Join(HashKeys(), ", "))
	case named && c.Name == "":
		return fmt.Errorf("hash name is missing: on = %q needs the name of the %s", c.On, c.On)
	case !named && c.Name != "":
		return fmt.Errorf("hash name is %q, but on = %q takes none", c.Name, c.On)
	case c.Balance != 0 && !(c.Balance >= 1.01 && c.Balance <= 100):
		return fmt.Errorf("hash balance is %v, allowed are 1.01 to 100, or 0 for no bound", c.Balance)
	case c.Points < 1 || c.Points > 1000:
		return fmt.Errorf("hash points is %d, allowed are 1 to 1000", c.Points)
	}
	return nil
}

type consistentHash struct {
	cfg  HashConfig
	rand Rand
}

func (consistentHash) Name() string { return "consistent_hash" }

func (p consistentHash) Build(ready []*Endpoint) Picker { return randomPolicy{p.rand}.Build(ready) }
