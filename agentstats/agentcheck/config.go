package agentcheck

import (
	"errors"
	"fmt"
	"net"
	"strconv"
	"time"
)

// HAProxy's own bounds (server_parse_weight_change_request): a percentage above this
// counts as this, and the weight that comes of it is at most 256.
const maxPercent = 25600

// Config says where HAProxy's checks are answered, and with which words.
type Config struct {
	// Listen is the "ADDR:PORT" that HAProxy asks, its agent-port; "" answers none. The
	// address must be written out, as the agent's own.
	Listen string
	// Health says "up", or "down" while nobody listens on the backend's port. Without it
	// nothing is said of health, and a backend that does not listen has 0%.
	Health bool
	// Admin says "ready", or "drain" while the agent drains, in place of 0%. It makes
	// the agent the only one who can: an operator's own drain or maintenance in HAProxy
	// ends with the next check.
	Admin bool
	// PercentPerCore is the percentage for each core that the backend can have. 0: the
	// percentage is of the backend's own limit, for server lines whose weights tell large
	// backends from small ones. Else all can have one weight, the least of a backend's
	// percentage of which is a whole number (as with server-template): weight 10 and 100
	// per core give 10 for each core and end at HAProxy's 256.
	PercentPerCore int
	// MaxConnFactor, times the concurrency that the backend sustains, is said as the
	// server's maxconn; 0 says none. Each HAProxy process applies it for itself: 2 for
	// one, which leaves room for bursts, is 0.5 for four.
	MaxConnFactor float64
	// Drain is for how long an agent that does not register the backend goes on telling
	// the drain before it ends, 0 to 10 min. It has to cover HAProxy's agent-inter.
	Drain time.Duration
	// MaxConns bounds the checks that are answered at once; one above it is turned away.
	MaxConns int
}

// DefaultConfig answers none: Listen has no default.
func DefaultConfig() Config {
	return Config{
		Health: true,            // the agent sees a closed port at once, HAProxy's check after fall x inter
		Drain:  3 * time.Second, // HAProxy's default agent-inter is 2 s
		// Those of a large HAProxy fleet, which take milliseconds each, with their bursts.
		MaxConns: 64,
	}
}

// Validate reports everything that is wrong with the configuration.
func (c Config) Validate() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if c.Listen != "" {
		host, text, err := net.SplitHostPort(c.Listen)
		port, errPort := strconv.ParseUint(text, 10, 16)
		switch {
		case err != nil || host == "":
			bad("agent_check.listen %q must be \"ADDR:PORT\" with the address written out, one that HAProxy reaches (0.0.0.0 for all)", c.Listen)
		case errPort != nil || port == 0:
			bad("agent_check.listen %q: the port must be a number from 1 to 65535", c.Listen)
		}
	}
	if c.PercentPerCore < 0 || c.PercentPerCore > maxPercent {
		bad("agent_check.percent_per_core %d is outside 0 (of the backend's own limit) to %d", c.PercentPerCore, maxPercent)
	}
	if !(c.MaxConnFactor >= 0 && c.MaxConnFactor <= 1000) {
		bad("agent_check.maxconn_factor %v is outside 0 (none is said) to 1000", c.MaxConnFactor)
	}
	if c.Drain < 0 || c.Drain > 10*time.Minute {
		bad("agent_check.drain %s is outside 0s to 10m", c.Drain)
	}
	if c.MaxConns < 1 || c.MaxConns > 1<<12 {
		bad("agent_check.max_conns %d is outside 1 to 4096", c.MaxConns)
	}
	return errors.Join(errs...)
}
