package sockets

import "time"

// Sample is one look at the backend's connections.
type Sample struct {
	// At is when the kernel was asked. It is older than the sample's request where
	// Config.Budget forbade asking again.
	At time.Time
	// InFlight is the requests in the backend, 0 or more: Busy, plus the odds of each of
	// the Ties, plus New.
	InFlight float64
	// Busy is the connections that surely hold a request, Ties those of which it is not
	// known, Established all that are open, Unaccepted those of them that wait for the
	// backend to accept them.
	Busy, Ties, Established, Unaccepted int
	// Unsure is how many of the Ties are expected to be judged wrongly if each is rounded,
	// 0 to half of them; half of those of which there is no evidence yet. Where it is not
	// small beside InFlight, that is guesswork.
	Unsure float64
	// New is what is expected on connections opened since the last search for them.
	New float64

	// Listening tells whether any socket listens on the port.
	Listening bool
	// AcceptQueue is the connections that wait to be accepted, AcceptLimit the length at
	// which the kernel refuses more; both are summed over the port's listening sockets.
	AcceptQueue, AcceptLimit int64
}
