package sim

import "time"

// kind says what an event is and what its numbers mean.
type kind int32

const (
	evArrival   kind = iota // of a new client
	evReturn                // a is the request: its client comes back
	evTick                  // a is the sidecar: its balancer has something to do
	evDone                  // a is the backend, b its version: its next request is ready
	evComputes              // a is the job: it has waited, and now computes
	evNeighbour             // a is the backend: its neighbour comes or goes
	evAgent                 // a is the backend: its agent takes a sample
	evPush                  // a is the backend: its agent broadcasts
	evRestart               // a is the backend: it listens again
	evMembers               // discovery has a new set

	// On the wire, which takes Network.Delay.
	evRequest // a is the job: it reaches the backend
	evReply   // a is the request, b its try, c the answer
	evPoll    // a is the sidecar, b the backend, c the sidecar's requests there: it reaches the agent
	evProbe   // a is the sidecar, b the backend: Prequal's probe reaches the backend
	evProbed  // the same, back again; c is the slot of what it found

	evPatience // a is the request, b its life: the client's time is up
	evQueued   // a is the request, b its life: the queue's time is up
)

// event is what happens at a time. It is a value: a run allocates none.
type event struct {
	at      time.Duration
	kind    kind
	a, b, c int32
}

// heap4 is a heap of events by time with four children to a node, which takes
// half the levels of a binary one for one cache line a level.
type heap4 []event

func (h *heap4) push(e event) {
	*h = append(*h, e)
	s := *h
	i := len(s) - 1
	for i > 0 {
		up := (i - 1) / 4
		if s[up].at <= e.at {
			break
		}
		s[i] = s[up]
		i = up
	}
	s[i] = e
}

// pop removes the first event.
func (h *heap4) pop() event {
	s := *h
	first, last := s[0], s[len(s)-1]
	*h = s[:len(s)-1]
	if len(*h) > 0 {
		h.sink(last)
	}
	return first
}

// sink puts e in the place of the first event.
func (h *heap4) sink(e event) {
	s := *h
	i := 0
	for {
		least := 4*i + 1
		if least >= len(s) {
			break
		}
		for c := least + 1; c < min(4*i+5, len(s)); c++ {
			if s[c].at < s[least].at {
				least = c
			}
		}
		if e.at <= s[least].at {
			break
		}
		s[i] = s[least]
		i = least
	}
	s[i] = e
}

// lane is a first-in first-out ring: all events with one and the same delay
// need no heap.
type lane[T any] struct {
	ring []T // a power of two
	head int
	n    int
}

func (l *lane[T]) push(x T) {
	if l.n == len(l.ring) {
		grown := make([]T, max(64, 2*len(l.ring)))
		for i := range l.n {
			grown[i] = l.ring[(l.head+i)&(len(l.ring)-1)]
		}
		l.ring, l.head = grown, 0
	}
	l.ring[(l.head+l.n)&(len(l.ring)-1)] = x
	l.n++
}

// first is only to be called when n is above 0.
func (l *lane[T]) first() *T { return &l.ring[l.head] }

func (l *lane[T]) pop() T {
	x := l.ring[l.head]
	var zero T
	l.ring[l.head] = zero
	l.head = (l.head + 1) & (len(l.ring) - 1)
	l.n--
	return x
}
