package balance

import "time"

// CheckState is what active checks say of an endpoint.
type CheckState struct {
	Known       bool // there has been a result
	Up          bool
	Unreachable bool // the last check could not connect
	Since       time.Duration
	Error       string // why it is not up
}

// Event is a change of a service's health that an operator should know of.
type Event struct {
	Kind    string // "panic", "panic_over", "tier", "damped"
	Warn    bool   // else it is for information
	Message string // with the facts as Args, for a logger
	Args    []any  // keys and values in turns
}

// SetCheck stores what active checks say of the endpoint with this ID. It is
// dropped for an endpoint that has left.
func (b *Balancer) SetCheck(id string, c CheckState) {}
