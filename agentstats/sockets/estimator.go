package sockets

import "time"

// estimator turns looks at connections into a sample. It does no I/O and reads no
// clock; times are since any fixed moment. Not for concurrent use.
type estimator struct {
	conns     []conn
	byCookie  map[uint64]int // into conns
	listeners []record
	odds      tieOdds

	dumps uint64
	left  float64 // requests that the last search saw on connections gone since
}

func newEstimator() *estimator { return &estimator{byCookie: map[uint64]int{}} }

// beginDump starts a search: every socket of the port follows through see.
func (e *estimator) beginDump() {
	e.dumps++
	e.left = 0
	e.listeners = e.listeners[:0]
}

// endDump forgets the connections that the search did not see.
func (e *estimator) endDump() {
	for i := len(e.conns) - 1; i >= 0; i-- {
		if e.conns[i].dump != e.dumps {
			e.forget(i)
		}
	}
}

// see takes a socket from a search.
func (e *estimator) see(r *record, now time.Duration) {
	switch {
	case r.state == stateListen:
		e.listeners = append(e.listeners, *r)
		return
	case r.state != stateEstablished && r.state != stateCloseWait || !r.hasInfo:
		return
	}
	i, known := e.byCookie[r.id.cookie()]
	if !known {
		i = len(e.conns)
		e.conns = append(e.conns, conn{id: r.id, family: r.family})
		e.byCookie[r.id.cookie()] = i
	}
	c := &e.conns[i]
	e.look(c, r, now, known)
	c.dump, c.atDump = e.dumps, c.busy
}

// look judges a connection anew and learns from it.
func (e *estimator) look(c *conn, r *record, now time.Duration, seen bool) {
	if r.state == stateCloseWait {
		// The FIN takes a sequence number, which the kernel counts as a byte.
		r.bytesIn -= min(r.bytesIn, 1)
		r.rqueue -= min(r.rqueue, 1)
	}
	moved := !seen || !r.same(&c.last)
	if seen {
		c.stream.next(c, r, now)
	}
	v, h := judge(c, r, seen, &e.odds)
	if moved {
		c.moved = now
	}
	e.odds.follow(c, r, v, now, seen)
	if moved || c.tie && !v.tie {
		e.odds.learn(c, r, v, h, seen)
		if h == byFirst && r.dataIn <= 1 || h == byStamps || h == byAck {
			c.rhythm.learn(r, v == isBusy)
		}
	}
	c.verdict, c.last, c.looked = v, *r, now
}

// Connections that have been idle for long are asked for less often: what they may
// hide is a request younger than this.
const (
	longIdle  = time.Second
	idleEvery = 15 * time.Millisecond
)

func (c *conn) due(now time.Duration) bool {
	return c.busy >= 0.01 || now-c.moved <= longIdle || now-c.looked >= idleEvery
}

// due is the number of connections to ask for.
func (e *estimator) due(now time.Duration) (n int) {
	for i := range e.conns {
		if e.conns[i].due(now) {
			n++
		}
	}
	return n
}

// closed forgets the connection with that cookie, which was found gone between searches.
func (e *estimator) closed(cookie uint64) {
	if i, ok := e.byCookie[cookie]; ok {
		e.left += e.conns[i].atDump
		e.forget(i)
	}
}

// forget drops the connection at i; the last one takes its place.
func (e *estimator) forget(i int) {
	last := len(e.conns) - 1
	delete(e.byCookie, e.conns[i].id.cookie())
	if i != last {
		e.conns[i] = e.conns[last]
		e.byCookie[e.conns[i].id.cookie()] = i
	}
	e.conns = e.conns[:last]
}

// sum adds up the sample. opened is at most as many connections as the backend may
// have accepted since the last search.
func (e *estimator) sum(opened float64) Sample {
	s := Sample{Established: len(e.conns), Listening: len(e.listeners) > 0}
	for i := range e.conns {
		c := &e.conns[i]
		s.InFlight += c.busy
		switch {
		case c.tie:
			s.Ties++
			s.Unsure += e.odds.unsure(c.last.recvAge, c.busy)
		case c.busy == 1:
			s.Busy++
		}
		if c.last.inode == 0 {
			s.Unaccepted++
		}
	}
	// Connections opened since the last search are not seen yet. In a steady state they
	// hold as many requests as those held that have been closed since.
	s.New = min(e.left, opened)
	s.InFlight += s.New
	for i := range e.listeners {
		s.AcceptQueue += int64(e.listeners[i].rqueue)
		s.AcceptLimit += int64(e.listeners[i].wqueue)
	}
	return s
}
