package sockets

import "math"

// says is what a signal says of a tie.
type says uint8

const (
	saysNothing says = iota
	saysIdle
	saysBusy
)

// signal is a hint that is right for some backends and clients, and not for others: how
// often it said what of looks that turned out busy and idle.
type signal struct{ busy, idle [3]float64 }

// prior is how many looks are taken to have been seen beforehand at which a signal was
// silent, right and wrong.
type prior struct{ silent, right, wrong float64 }

var (
	// Where the counters add up they are seldom wrong: the prior odds are 20.
	countPrior = prior{silent: 2, right: 2, wrong: 0.1}
	// Whether clients acknowledge early is theirs to choose: the prior odds are 2.
	ackPrior = prior{silent: 2, right: 2, wrong: 1}
)

// signalMemory is the weight above which what was learnt is halved.
const signalMemory = 256

func (s *signal) learn(said says, v verdict) {
	n := &s.idle
	if v == isBusy {
		n = &s.busy
	}
	n[said]++
	if n[0]+n[1]+n[2] > signalMemory {
		for i := range n {
			n[i] /= 2
		}
	}
}

// ratio is how many times more probable the signal is of a busy connection than of an
// idle one.
func (s *signal) ratio(said says, p *prior) float64 {
	if said == saysNothing {
		return 1
	}
	busy, idle := [3]float64{p.silent, p.wrong, p.right}, [3]float64{p.silent, p.right, p.wrong}
	var busies, idles float64
	for i := range busy {
		busy[i] += s.busy[i]
		idle[i] += s.idle[i]
		busies += busy[i]
		idles += idle[i]
	}
	return busy[said] / busies * idles / idle[said]
}

const (
	sizeVotes  = 16 // at most, for the usual number of segments per response
	sizeBelief = 3  // of them, and it is believed
	// From this many requests on, the counters seldom add up by chance.
	manyRequests = 8
)

// countSays compares the segments sent with the requests received since the last clear
// look, or else ever: where every request takes one segment and every response the same
// number, they tell whether the last request was answered. most bounds the ratio that it
// is worth: n requests and responses of unknown size add up by chance every nth time.
func (o *tieOdds) countSays(c *conn, r *record) (said says, most float64) {
	in, out := c.rhythm.since(r)
	if said = o.addUp(in, out); said == saysNothing {
		in = r.dataIn
		said = o.addUp(in, r.dataOut)
	}
	if o.agreed >= sizeBelief {
		return said, math.Inf(1)
	}
	return said, max(1, float64(in))
}

func (o *tieOdds) addUp(in, out uint32) says {
	var idle, busy bool
	switch {
	case in < 1 || in > 1<<30 || out > 1<<30:
	case o.agreed >= sizeBelief:
		idle, busy = out == o.size*in, out == o.size*(in-1)
	case in > 2 && out >= in-1: // of fewer, any number adds up
		idle, busy = out%in == 0, out%(in-1) == 0
	}
	switch {
	case idle && !busy:
		return saysIdle
	case busy && !idle:
		return saysBusy
	}
	return saysNothing
}

// ackSays counts the bare ACKs since the last look. A small response's segments take one
// each where the client's kernel is quick; the last of them is acknowledged by the next
// request where that follows at once.
func ackSays(c *conn, r *record, seen bool) says {
	in, out := r.dataIn-c.last.dataIn, r.dataOut-c.last.dataOut
	bare := r.segsIn - c.last.segsIn - in
	switch {
	case !seen || in == 0 || out == 0 || out > 3*in || bare > 1<<30:
		return saysNothing
	case bare >= out:
		return saysIdle
	}
	return saysBusy
}
