package publish

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"outrigger/agentstats/internal/call"
)

// Config is how an agent publishes.
type Config struct {
	// Prefix of the keys: PREFIX/SERVICE/NODE/ID. Sidecars need the same.
	Prefix string
	// MinInterval is the least time between two writes that a change asks for, 1 s
	// to 10 min; a quarter of it is chance. A backend that stops listening or is
	// replaced is written without it, see urgentEvery.
	MinInterval time.Duration
	// MaxInterval is the longest time between two writes, MinInterval to 1 h: how
	// old the figures of a living agent get at the sidecars.
	MaxInterval time.Duration
	// SessionTTL is for how long a dead agent's report stays, 10 s to 1 h. Consul
	// may take twice as long.
	SessionTTL time.Duration
	Change     Change
}

// Change is by how much a figure must differ from the published one to be worth a
// write, each in (0, 1]. That a figure appears or vanishes always is.
type Change struct {
	Avail float64 // of avail (averaged over MinInterval), as a share of cores
	Mem   float64 // of mem, absolute
	Err   float64 // of err, absolute
	Conc  float64 // of conc, as a share of the published one
}

// DefaultConfig returns the settings of a configuration that names none.
func DefaultConfig() Config {
	return Config{
		Prefix: "outrigger/reports",
		// A write costs the whole Consul cluster a Raft entry and wakes every
		// sidecar of the service: 100 backends at 5 s make at most 20 writes a
		// second, of the thousands that a cluster takes.
		MinInterval: 5 * time.Second,
		MaxInterval: 30 * time.Second, // an idle fleet of 100 backends writes 3 times a second
		SessionTTL:  30 * time.Second, // renewed three times in it; outlasts an election
		Change: Change{
			Avail: 0.1,  // less than that does not change a pick
			Mem:   0.05, // the veto fades in over 0.12
			Err:   0.05,
			Conc:  0.25, // estimated, and noisy
		},
	}
}

const maxName = 253 // bytes of one part of a key

// Validate reports every setting that is out of range.
func (c Config) Validate() error {
	errs := []error{checkPrefix(c.Prefix)}
	span := func(name string, d, low, high time.Duration) {
		if d < low || d > high {
			errs = append(errs, fmt.Errorf("%s is %s, allowed are %s to %s", name, d, low, high))
		}
	}
	span("min_interval", c.MinInterval, time.Second, 10*time.Minute)
	span("max_interval", c.MaxInterval, c.MinInterval, time.Hour)
	span("session_ttl", c.SessionTTL, 10*time.Second, time.Hour) // Consul refuses less than 10 s
	for _, f := range []struct {
		name string
		v    float64
	}{{"avail", c.Change.Avail}, {"mem", c.Change.Mem}, {"err", c.Change.Err}, {"conc", c.Change.Conc}} {
		if !(f.v > 0 && f.v <= 1) { // also NaN
			errs = append(errs, fmt.Errorf("change.%s is %v, allowed are numbers above 0 up to 1", f.name, f.v))
		}
	}
	return errors.Join(errs...)
}

// checkPrefix accepts a path in Consul's KV store, without a slash at either end.
func checkPrefix(p string) error {
	if !keyPath(p) {
		return fmt.Errorf("prefix %.80q must be names with single slashes between them, as \"outrigger/reports\"", p)
	}
	return nil
}

// keyPath reports whether s can be in a key, of several parts.
func keyPath(s string) bool {
	for part := range strings.SplitSeq(s, "/") {
		if !keyPart(part) {
			return false
		}
	}
	return len(s) <= 2*maxName
}

// keyPart reports whether s can be one part of a key.
func keyPart(s string) bool {
	return s != "" && s != "." && s != ".." && call.Plain(s, maxName) && !strings.Contains(s, "/")
}

// Key is where the report of an instance is. What follows SERVICE/ is the ID that
// outrigger's discovery gives the instance: "/" and "%" in the node's name are
// written %2F and %25.
func Key(prefix, service, node, instance string) string {
	if strings.ContainsAny(node, "/%") {
		node = strings.NewReplacer("%", "%25", "/", "%2F").Replace(node)
	}
	return prefix + "/" + service + "/" + node + "/" + instance
}
