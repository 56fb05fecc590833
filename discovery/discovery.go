// Package discovery finds the instances of a service and follows their changes.
//
// A Source hands out full sets, never single events, and holds on to the last
// good set: an error, a leaderless or stale answer, or an empty answer that
// nothing confirms is not "no backends" (plausible.go and shrink.go have the rules,
// README has them as a table under "What is believed").
package discovery

import (
	"context"
	"fmt"
	"net"
	"strconv"
)

// Health is what Consul says of an instance: its worst check. Larger is worse.
type Health uint8

const (
	Passing     Health = iota // every check passes, or there is none
	Warning                   // at least one check warns; may be picked
	Critical                  // at least one check fails, or its state can't be read
	Maintenance               // an operator has taken the instance or its node out
)

var healthNames = [...]string{"passing", "warning", "critical", "maintenance"}

// String returns Consul's word for h.
func (h Health) String() string {
	if int(h) < len(healthNames) {
		return healthNames[h]
	}
	return "health(" + strconv.Itoa(int(h)) + ")"
}

// MarshalText writes Consul's word, for JSON status.
func (h Health) MarshalText() ([]byte, error) { return []byte(h.String()), nil }

// UnmarshalText reads Consul's word; any other is an error.
func (h *Health) UnmarshalText(text []byte) error {
	for i, name := range healthNames {
		if string(text) == name {
			*h = Health(i)
			return nil
		}
	}
	return fmt.Errorf("health %.40q is not one of %v", text, healthNames)
}

// Instance is one registration of a service. Sets of instances and all they
// refer to are shared: nobody changes them once they were handed out.
type Instance struct {
	// ID is NODE + "/" + Consul's service ID ("/" and "%" in the node's name
	// are written %2F and %25). Consul's service ID is unique on its node
	// only: the same one may be registered on two. The form is always this
	// one, for an ID that took its node in only on a clash would rename, and
	// so reset, a living endpoint when its double appears.
	//
	// It is unique within one query; who merges queries to several
	// datacenters adds Datacenter. It outlives a change of address: the same
	// registration may return elsewhere, so compare HostPort too.
	ID         string
	Service    string
	Node       string
	Datacenter string
	// Address is an IP address in canonical form or a host name (RFC 1123):
	// the service's own, else its node's.
	Address string
	Port    int // 1 to 65535
	// Weight is the registration's weight for its Health, 0 to 65535; 0 means
	// draining. A critical instance keeps its passing weight, for use when it
	// returns (Health keeps it from being picked); one in maintenance has 0.
	Weight int
	Health Health
	Tags   []string // sorted
	Meta   map[string]string
	// Zone is the value of Query.NodeMeta in the meta of the instance's node.
	Zone string
	// Backup: to be used only when no other instance can be. See Query.
	Backup bool
	// Unlisted: the registry's newest answer does not list it; it is kept because
	// it answers (see shrink.go).
	Unlisted bool
	// Tier is 0 for the primary source, n for its n-th fallback.
	Tier int
}

// HostPort returns the address to dial.
func (i Instance) HostPort() string {
	return net.JoinHostPort(i.Address, strconv.Itoa(i.Port))
}

// Source tells of the instances of one service.
type Source interface {
	// Watch calls apply with the full set, now and on every change, until ctx
	// ends; it returns ctx.Err(), or at once the error of a wrong
	// configuration. It never calls apply concurrently, and waits for it.
	// One Watch at a time.
	Watch(ctx context.Context, apply func([]Instance)) error
	// Status may be called at any time by any goroutine.
	Status() Status
}

// Prober reports by nil that what is at an instance's address answers. It is
// called for several instances at once, and ends with ctx.
type Prober func(ctx context.Context, i Instance) error
