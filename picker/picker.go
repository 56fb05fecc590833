package picker

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Rand returns a uniform number in [0, n). n is at least 1. It must be safe
// for concurrent use and must not lock.
type Rand func(n uint32) uint32

// maxTried bounds the memory of one request's tries; a request that is retried
// more often may see an endpoint twice.
const maxTried = 6

// Tried is the set of endpoints that a request is not to be given. The zero
// value is empty. It is a value: no allocation, no sharing.
type Tried struct {
	eps [maxTried]*Endpoint
	n   int
}

// Add puts e into the set. A full set forgets its oldest member.
func (t *Tried) Add(e *Endpoint) {
	t.eps[t.n%maxTried] = e
	t.n++
}

// Has reports whether e is in the set.
func (t *Tried) Has(e *Endpoint) bool {
	for _, x := range t.eps[:min(t.n, maxTried)] {
		if x == e {
			return true
		}
	}
	return false
}

// Len returns how many were added.
func (t *Tried) Len() int { return t.n }

// Request is what a pick may depend on.
type Request struct {
	Key   uint64        // hash of the affinity key; 0 when there is none
	Now   time.Duration // the balancer's clock
	Tried Tried         // endpoints to leave out
	// MaxWait is the most that the request may wait inside the backend, as a
	// Forecaster foretells; 0 is no limit. The balancer sees to it; a picker
	// over several groups goes on to the next one.
	MaxWait time.Duration
}

// takes reports whether e may be given to this request.
func (r *Request) takes(e *Endpoint) bool { return e.HasRoom() && !r.Tried.Has(e) }

// Policy makes pickers. Build is called, never concurrently, on every change
// of the ready set or of a weight; it may allocate and take its time (off the
// request path). It must not keep or change the slice. Endpoints of weight 0
// are left out.
type Policy interface {
	Name() string
	Build(ready []*Endpoint) Picker
}

// Picker chooses among the endpoints it was built over. Pick is called by many
// goroutines at once and does not block, allocate, lock or read a clock. It
// returns only endpoints that had room when it looked and were not tried; false
// means that there was none. The caller reserves (Endpoint.TryReserve) and
// picks again if another was quicker.
type Picker interface {
	Pick(r Request) (*Endpoint, bool)
	// Mode says in a few words how it picks now, for status ("weighted", or
	// why it has fallen back to something simpler).
	Mode(now time.Duration) string
	// Explain says how r would be picked now. It may allocate and take its
	// time, changes nothing, and is as safe as Pick.
	Explain(r Request) Explanation
}

// Vetoer is a Picker that may leave an endpoint out although it has room.
type Vetoer interface {
	// Vetoes reports whether e is left out now. To be called as Pick is.
	Vetoes(e *Endpoint, now time.Duration) bool
}

// Refresher is a Picker with tables that age. The balancer refreshes them off
// the request path when a request finds them due.
type Refresher interface {
	// Due reports whether Refresh should be called soon. To be called as Pick is.
	Due(now time.Duration) bool
	// Refresh computes the tables anew. Never called concurrently with itself.
	Refresh(now time.Duration)
}

// Observer is a Picker that learns from what becomes of requests, whichever
// policy picked their endpoints. The endpoint may be one that it was not built
// over. All methods are to be called as Pick is.
type Observer interface {
	// Sent is called when a request has been given a slot at e; what it returns
	// is given to Done.
	Sent(e *Endpoint, now time.Duration) float32
	// Done is called when the request has ended, before it is counted out.
	Done(e *Endpoint, now time.Duration, sent float32, r Result)
	// Reported is called when e has got a new report (Endpoint.SetLoad).
	Reported(e *Endpoint, now time.Duration)
}

// Forecaster is a Picker that can tell how long a request would wait.
type Forecaster interface {
	// Wait returns how long a request sent to e now would take beyond what it
	// takes on its own; 0 also where too little is known. To be called as Pick is.
	Wait(e *Endpoint, now time.Duration) time.Duration
}

// Explanation is how a pick is made: the rule in a line and each endpoint's
// part in it, in the order the picker holds them.
type Explanation struct {
	Rule       string
	Candidates []Candidate
}

// Candidate is one endpoint of an explanation.
type Candidate struct {
	Endpoint *Endpoint
	// Share is the chance, 0 to 1, that this endpoint is among those that a
	// pick compares, or is picked where nothing is compared.
	Share float64
	// Score is what is compared, lowest wins; meaningless where Out is set.
	Score float64
	Terms []Term // what the score is made of
	Out   string // why it cannot be picked, "" if it can
}

// Term is one named figure of a score. Its name carries the unit.
type Term struct {
	Name  string
	Value float64 // Absent where unknown
}

// Names lists the policies that New accepts, in the order documents show them.
func Names() []string {
	return []string{"least_conn", "resource", "p2c", "peak_ewma", "round_robin", "random", "consistent_hash"}
}

// Config selects and tunes a policy.
type Config struct {
	Policy   string         // one of Names
	Resource ResourceConfig // used by "resource" alone
	PeakEWMA PeakEWMAConfig // used by "peak_ewma" alone
	Hash     HashConfig     // used by "consistent_hash" alone
}

// DefaultConfig returns the settings of a service that names no policy.
func DefaultConfig() Config {
	return Config{
		Policy:   "least_conn", // needs no agents and is right for requests of unequal length
		Resource: DefaultResourceConfig(),
		PeakEWMA: DefaultPeakEWMAConfig(),
		Hash:     DefaultHashConfig(),
	}
}

// Validate reports the first setting that is out of range.
func (c Config) Validate() error {
	if !slices.Contains(Names(), c.Policy) {
		return fmt.Errorf("policy %q is not one of %s", c.Policy, strings.Join(Names(), ", "))
	}
	for _, err := range []error{c.Resource.Validate(), c.PeakEWMA.Validate(), c.Hash.Validate()} {
		if err != nil {
			return err
		}
	}
	return nil
}

// New returns the policy that the configuration names. rand is the only source
// of chance that its pickers use.
func New(c Config, rand Rand) (Policy, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	switch c.Policy {
	case "round_robin":
		return roundRobin{rand}, nil
	case "random":
		return randomPolicy{rand}, nil
	case "p2c":
		return p2c{rand}, nil
	case "peak_ewma":
		return peakEWMA{c.PeakEWMA, rand}, nil
	case "consistent_hash":
		return newConsistentHash(c.Hash, rand), nil
	case "resource":
		return newResource(c.Resource, rand), nil
	default:
		return leastConn{rand}, nil
	}
}
