package sockets

import (
	"errors"
	"fmt"
	"path/filepath"
	"time"
)

// Config says which connections are watched and what that may cost.
type Config struct {
	// Port is the local TCP port of the backend, 1 to 65535.
	Port int
	// NetNS is the path of the backend's network namespace, such as /proc/PID/ns/net;
	// "" is the process's own. Entering another one takes CAP_SYS_ADMIN.
	NetNS string
	// Budget is the share of one core that samples may use, in (0, 1]: one that comes
	// sooner than the last one's CPU time allows repeats it (see Sample.At).
	Budget float64
	// Rescan is how often, at least, the host's whole connection table is searched for
	// the backend's connections; it is also searched when the kernel's count of accepted
	// connections has moved.
	Rescan time.Duration
}

// DefaultConfig returns the defaults; Port has none.
func DefaultConfig() Config {
	return Config{
		// An agent under 2,000 polls per second may use 5 % of a core in all, and most of
		// that is HTTP. At 2 % a sample of 100 connections is at most 10 ms old.
		Budget: 0.02,
		// The count misses nothing but sockets restored from a checkpoint or moved from
		// elsewhere; a search costs 0.2 to 0.4 ms at the usual 262,144 hash buckets.
		Rescan: time.Second,
	}
}

// Validate reports everything that is wrong with the configuration.
func (c Config) Validate() error {
	var errs []error
	if c.Port < 1 || c.Port > 65535 {
		errs = append(errs, fmt.Errorf("port is %d, outside 1 to 65535", c.Port))
	}
	if c.NetNS != "" && !filepath.IsAbs(c.NetNS) {
		errs = append(errs, fmt.Errorf("netns is %q, not an absolute path such as /proc/PID/ns/net", c.NetNS))
	}
	if !(c.Budget > 0 && c.Budget <= 1) {
		errs = append(errs, fmt.Errorf("budget is %v, outside (0, 1]: a share of one core", c.Budget))
	}
	if c.Rescan < 10*time.Millisecond || c.Rescan > time.Minute {
		errs = append(errs, fmt.Errorf("rescan is %v, outside 10ms to 1m", c.Rescan))
	}
	return errors.Join(errs...)
}
