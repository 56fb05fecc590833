// Package discovery finds the instances of a service and follows their changes.
//
// A Source hands out full sets, never single events, and holds on to the last
// good set: an error, a leaderless or stale answer, or an empty answer that
// nothing confirms is not "no backends" (see plausible.go for the rules).
package discovery

import (
	"context"
	"fmt"
	"net"
	"strconv"
	"time"
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

// Status is how a source is doing. Ages are as of the call.
type Status struct {
	// Seen: a first answer has been applied. Until then the service is
	// unknown, which differs from empty.
	Seen bool `json:"seen"`
	// Current: the last read was answered and its answer believed. A read that
	// now blocks until something changes does not alter that.
	Current   bool   `json:"current"`
	Instances int    `json:"instances"` // in the set that was applied last
	Unusable  int    `json:"unusable"`  // registrations left out of it: bad address, no port, double ID
	Index     uint64 `json:"index"`     // Consul's index of the last believed answer

	// Age is the time since the last believed answer, changed or not. In a
	// quiet service it grows to Wait + Wait/16 with nothing amiss: Current
	// tells those apart. SinceChange is the time since apply was last called.
	// Both are 0 until Seen.
	Age         time.Duration `json:"age"`
	SinceChange time.Duration `json:"since_change"`
	// LastContact is how far behind its leader the answering server was.
	LastContact time.Duration `json:"last_contact"`

	// LastError is the newest error, with its age, kept after recovery.
	// FailingFor is the time since reads began to fail, 0 when they don't.
	LastError    string        `json:"last_error"`
	LastErrorAge time.Duration `json:"last_error_age"`
	FailingFor   time.Duration `json:"failing_for"`
	// Holding says why an answer is not believed and the last good set kept
	// instead; "" when none is. HoldingFor is for how long.
	Holding    string        `json:"holding"`
	HoldingFor time.Duration `json:"holding_for"`

	AnswersTotal uint64 `json:"answers_total"` // reads that were answered
	ErrorsTotal  uint64 `json:"errors_total"`  // reads that failed
	HeldTotal    uint64 `json:"held_total"`    // answers not believed
	UpdatesTotal uint64 `json:"updates_total"` // calls of apply
}
