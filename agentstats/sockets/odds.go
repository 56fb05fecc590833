package sockets

import "math/bits"

// tieOdds learns how probable it is that an unresolved tie of some age is busy.
//
// A tie is either a request answered within one tick (idle since), or a response with
// the next request in the same tick (busy since). Of all services a share f ends within
// the tick they began in, of all pauses between requests a share g; such a tie of age a
// is still there with the probability G(a) that a pause lasts longer, or F(a) that a
// service does. By Bayes
//
//	P(busy) = g (1-f) F(a) / (g (1-f) F(a) + f (1-g) G(a))
//
// F comes from idle connections, whose stamps give the time their last request took,
// G from busy ones, whose stamps give the pause before it; f and g are the shares of
// ties among the idle and the busy, where an unresolved tie adds to both by its odds
// (an online form of expectation maximisation, Dempster, Laird and Rubin 1977).
type tieOdds struct {
	service, pause   survivor
	idles, busies    float64 // looks at new states, clear by their stamps
	idleTie, busyTie float64 // and at ties of the kind that may remain unresolved
}

// oddsMemory is the weight of evidence above which all of it is halved, so that the
// last few hundred requests decide.
const oddsMemory = 512

// learn takes a look at a connection whose counters have moved since the last one.
func (o *tieOdds) learn(r *record, v verdict, h how) {
	switch {
	case h == byStamps && v == isBusy:
		o.busies++
		o.pause.add(r.sentAge-r.recvAge, true, 1)
		o.service.add(r.recvAge, false, 1)
	case h == byStamps:
		o.idles++
		o.service.add(r.recvAge-r.sentAge, true, 1)
		o.pause.add(r.sentAge, false, 1)
	case h == byAck && v == isBusy: // ties that are never left to the odds
		o.busies++
		o.service.add(r.recvAge, false, 1)
	case h == byAck:
		o.idles++
		o.pause.add(r.sentAge, false, 1)
	case h == byCount, h == byOdds:
		o.busyTie += v.busy
		o.idleTie += 1 - v.busy
		o.service.add(r.recvAge, false, v.busy)
		o.pause.add(r.sentAge, false, 1-v.busy)
	}
	if o.idles+o.busies+o.idleTie+o.busyTie > oddsMemory {
		o.idles, o.busies, o.idleTie, o.busyTie = o.idles/2, o.busies/2, o.idleTie/2, o.busyTie/2
	}
}

// busy is the probability that an unresolved tie whose stamps are age ms old is busy.
func (o *tieOdds) busy(age uint32) float64 {
	// One look of each kind beforehand: knowing nothing, both are even.
	g := (o.busyTie + 1) / (o.busies + o.busyTie + 2)
	f := (o.idleTie + 1) / (o.idles + o.idleTie + 2)
	busy := g * (1 - f) * o.service.survival(age)
	if busy == 0 {
		return 0
	}
	return busy / (busy + f*(1-g)*o.pause.survival(age))
}

// survivor learns how probable it is that a time lasts longer than some age, as a
// histogram in steps of a quarter of an octave from 1 ms to 4.6 hours.
type survivor struct {
	whole, part [buckets]float64 // times that ended, and times still running
	wholes      float64
	parts       float64
}

const (
	buckets      = 96
	enoughWholes = 16 // fewer, and times still running count as well
)

func (s *survivor) add(ms uint32, ended bool, weight float64) {
	h, n := &s.part, &s.parts
	if ended {
		h, n = &s.whole, &s.wholes
	}
	h[bucket(ms)] += weight
	if *n += weight; *n > oddsMemory {
		*n = 0
		for i := range h {
			h[i] /= 2
			*n += h[i]
		}
	}
}

// survival is the share of times seen that are longer, with one time beforehand that
// may be anything up to a second. It is 0 above that and everything seen.
func (s *survivor) survival(ms uint32) float64 {
	n, b := s.wholes, bucket(ms)
	running := n < enoughWholes
	if running {
		n += s.parts
	}
	longer := max(0, 1-float64(ms)/1000)
	for i := b; i < buckets; i++ {
		w := s.whole[i]
		if running {
			w += s.part[i]
		}
		if i == b {
			w /= 2 // somewhere in this step
		}
		longer += w
	}
	return longer / (n + 1)
}

func bucket(ms uint32) int {
	if ms < 4 {
		return int(ms)
	}
	octave := bits.Len32(ms) - 1
	return min(4*(octave-1)+int(ms>>(octave-2))&3, buckets-1)
}
