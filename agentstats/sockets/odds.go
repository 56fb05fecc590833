package sockets

import "time"

// tieOdds learns how probable it is that an unresolved tie of some age is busy.
//
// A tie is either a request answered within one tick (idle since), or a response with
// the next request in the same tick (busy since). Of all services a share f ends within
// the tick they began in, of all pauses between requests a share g; such a tie of age a
// is still there with the probability G(a) that a pause lasts longer, or F(a) that a
// service does. By Bayes the odds of being busy are
//
//	g (1-f) F(a) / (f (1-g) G(a))
//
// times what the two signals say (see signal).
//
// F comes from idle connections, whose stamps give the time their last request took,
// and from requests followed from one look to the next; G likewise. f and g are the
// shares of ties among the idle and the busy. Requests that are the first of their
// connection, or follow a look that found it idle, tell f without any guess.
//
// An unresolved tie adds to f and g by its odds (an online form of expectation
// maximisation, Dempster, Laird and Rubin 1977), but only guessWeight times as much as
// what is known for sure: guesses that fed on themselves would end at all busy or all
// idle, whichever came first.
type tieOdds struct {
	service, pause   survivor
	idles, busies    float64 // looks at new states, clear by their stamps
	longs            float64 // services known to be longer than a tick before they ended
	idleTie, busyTie float64 // ties that acknowledgements or counters resolved
	idleOdd, busyOdd float64 // and those that nothing did, by their odds

	size   uint32  // segments that most responses take
	agreed float64 // votes for it
	counts signal
	acks   signal
}

const (
	// oddsMemory is the weight of evidence above which all of it is halved, so that the
	// last few hundred requests decide.
	oddsMemory  = 512
	guessWeight = 4
)

// follow takes note of what two looks at a connection tell of the request, or of the
// pause, that the first of them saw. c still holds the first.
func (o *tieOdds) follow(c *conn, r *record, v verdict, now time.Duration, seen bool) {
	in, out := r.dataIn-c.last.dataIn, r.dataOut-c.last.dataOut
	first := r.bytesOut == 0 && r.dataIn == 1
	next := seen && in == 1 && c.verdict == isIdle
	switch {
	case in > 0 || out > 0 || !seen:
		c.long = false
	case c.long:
		return
	}
	if v == isBusy && r.recvAge > 0 && (first || next) {
		c.long = true
		o.longs++
	}
	if !seen || c.tie || in != 1 || out == 0 || r.sentAge != r.recvAge {
		return
	}
	// One response, and one request in the same tick: either the request seen before was
	// answered and this one followed, or the pause ended and this one was answered.
	last := now - ms(r.sentAge) - c.looked
	if c.verdict == isBusy {
		o.service.add(uint32((last+ms(c.last.recvAge))/time.Millisecond), true, v.busy)
	} else {
		o.pause.add(uint32((last+ms(c.last.sentAge))/time.Millisecond), true, 1-v.busy)
	}
}

// learn takes a look at a connection whose counters have moved since the last one.
func (o *tieOdds) learn(c *conn, r *record, v verdict, h how, seen bool) {
	switch {
	case h == byStamps && v == isBusy:
		o.busies++
		o.pause.add(r.sentAge-r.recvAge, true, 1)
		o.service.add(r.recvAge, false, 1)
	case h == byStamps:
		if !seen || !c.long {
			o.idles++
		}
		o.service.add(r.recvAge-r.sentAge, true, 1)
		o.pause.add(r.sentAge, false, 1)
	case h == byAck && v == isBusy: // ties that are never left to the odds
		o.busies++
		o.service.add(r.recvAge, false, 1)
	case h == byAck:
		o.idles++
		o.pause.add(r.sentAge, false, 1)
	case h == byCount:
		o.busyTie += v.busy
		o.idleTie += 1 - v.busy
	case h == byOdds:
		o.busyOdd += v.busy
		o.idleOdd += 1 - v.busy
		o.poll(r)
	}
	if h == byCount {
		o.service.add(r.recvAge, false, v.busy)
		o.pause.add(r.sentAge, false, 1-v.busy)
	}
	if !v.tie && h != byNothing {
		o.resolved(c, r, v, h, seen)
	}
	if o.clear()+o.idleOdd+o.busyOdd > oddsMemory {
		for _, n := range []*float64{&o.idles, &o.busies, &o.longs, &o.idleTie, &o.busyTie, &o.idleOdd, &o.busyOdd} {
			*n /= 2
		}
	}
}

// resolved teaches the signals what they should have said.
func (o *tieOdds) resolved(c *conn, r *record, v verdict, h how, seen bool) {
	if h == byCount {
		if seen {
			o.acks.learn(ackSays(c, r, seen), v)
		}
		if r.dataIn > 1 {
			return // perhaps by the very same counters
		}
	}
	said, _ := o.countSays(c, r)
	o.counts.learn(said, v)
	n, out := c.rhythm.since(r)
	if v == isBusy {
		n--
	}
	if n > 0 && n < 1<<30 {
		o.vote(n, out)
	}
}

// poll lets a connection vote of which nothing is sure, before anything else is: it is
// either idle or busy, and of many requests only one can be what makes the counters add
// up by chance.
func (o *tieOdds) poll(r *record) {
	if r.dataIn < manyRequests || r.dataIn > 1<<30 || o.clear() >= enough {
		return
	}
	n := r.dataIn
	if r.dataOut%n != 0 {
		n--
	}
	o.vote(n, r.dataOut)
}

// clear is how many looks have told something for sure.
func (o *tieOdds) clear() float64 { return o.idles + o.busies + o.longs + o.idleTie + o.busyTie }

// vote takes note that n responses took so many segments.
func (o *tieOdds) vote(n, segments uint32) {
	switch {
	case segments == o.size*n:
		o.agreed = min(o.agreed+1, sizeVotes)
	case o.agreed >= 1:
		o.agreed--
	case segments%n == 0:
		o.size, o.agreed = segments/n, 1
	}
}

// quiet is the age at which a tie of which nothing is known is held to be idle: few
// services take longer. It is 10 s.
const quiet = 10000

// unsure is how probable it is that a tie is misjudged that is busy with probability p.
func (o *tieOdds) unsure(age uint32, p float64) float64 {
	if age < quiet && o.clear() < enough && o.agreed < sizeBelief {
		return 0.5
	}
	return min(p, 1-p)
}

// enough is how many clear looks make odds more than a guess.
const enough = 3

// busy is the probability that the unresolved tie r of the connection c is busy.
func (o *tieOdds) busy(c *conn, r *record, seen bool) float64 {
	g := share(o.busyTie, o.busies, o.busyOdd)
	f := share(o.idleTie, o.idles+o.longs, o.idleOdd)
	count, most := o.countSays(c, r)
	signals := min(max(o.counts.ratio(count, &countPrior), 1/most), most) * o.acks.ratio(ackSays(c, r, seen), &ackPrior)
	busy := g * (1 - f) * o.lasts(r.sentAge) * signals
	if busy == 0 {
		return 0
	}
	return busy / (busy + f*(1-g)*o.pause.survival(r.sentAge, 1))
}

// lasts is the probability that a service lasts longer than age ms: one of which nothing
// is known lasts up to a second, while a pause may last for ever.
func (o *tieOdds) lasts(age uint32) float64 {
	return o.service.survival(age, max(0, 1-float64(age)/1000))
}

// share is that of ties, from those that are known, what is known to be none, and guesses.
// One look of each kind beforehand: knowing nothing, both are even.
func share(ties, others, guesses float64) float64 {
	ties += min(guesses, guessWeight*(ties+others))
	return (ties + 1) / (ties + others + 2)
}
