package breaker

import "sync/atomic"

// cause is why an endpoint was ejected.
type cause uint8

const (
	noCause       cause = iota
	consecutive         // failed so often in a row; named where the ratio would have done too
	ratio               // failed too large a share of its requests
	nobodyThere         // nothing listens there
	bySuccessRate       // fails more than the others of its service
	byProbe             // ejected before, and the try whether that is over failed
	numCauses
)

var causeNames = [numCauses]string{"", "consecutive", "ratio", "unreachable", "success_rate", "probe"}

// String names the cause as status and metrics show it, "" for none.
func (c cause) String() string {
	if c >= numCauses {
		return ""
	}
	return causeNames[c]
}

// Causes lists the names of all causes.
func Causes() []string { return append([]string(nil), causeNames[1:]...) }

// causes counts ejections.
type causes [numCauses]atomic.Uint64

// Ejections returns how often endpoints of the service were ejected for the cause
// of that name, those among them that have left since; 0 for an unknown name.
func (g *Guard) Ejections(cause string) uint64 {
	for i := noCause + 1; i < numCauses; i++ {
		if causeNames[i] == cause {
			return g.causes[i].Load()
		}
	}
	return 0
}

// LastCause names why the endpoint was last ejected, "" if it never was.
func (e *Endpoint) LastCause() string { return cause(e.last.Load()).String() }

// Eject ejects the endpoint for its success rate, if it takes requests and the
// guard has a place: for as long as a failure would have, and not at all while it
// is ejected or half-open. It reports whether it did.
func (e *Endpoint) Eject() bool {
	c := e.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if e.aside || State(c.state.Load()) != Closed || !e.guard.enter(false) {
		return false
	}
	e.counted, e.cause = true, bySuccessRate
	c.fail(Probe{gen: c.gen.Load()}, true)
	return true
}
