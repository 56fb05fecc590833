package sockets

import "time"

// conn is what is remembered of one connection between samples.
type conn struct {
	id     sockID
	family uint8
	last   record
	looked time.Duration // when last was taken, on the estimator's clock
	moved  time.Duration // when its counters last changed
	dump   uint64        // the search that saw it last
	atDump float64       // busy, as that search found it

	verdict
	long   bool // the request in it is known to take longer than a tick
	rhythm rhythm
	stream stream
}

// verdict is whether a connection holds a request.
type verdict struct {
	busy float64 // probability
	tie  bool    // busy is a guess: an unresolved tie
}

var (
	isBusy = verdict{busy: 1}
	isIdle = verdict{}
)

// how tells by what a verdict was reached; only some kinds teach.
type how uint8

const (
	byNothing how = iota // unread bytes, a full send buffer, a stream
	byFirst              // no request yet, or the first one
	byStamps             // the stamps of data received and sent differ
	byAck                // a tie, resolved by acknowledgements
	byCount              // a tie, resolved by segment counters
	byOdds               // a tie, not resolved
)

// judge applies the rule of the package documentation to a new look at a connection
// of which c holds the last one (seen false: there is none).
func judge(c *conn, r *record, seen bool, o *tieOdds) (verdict, how) {
	switch {
	case r.bytesIn == 0:
		return isIdle, byFirst
	case r.bytesOut == 0 && r.notsent == 0:
		return isBusy, byFirst
	case r.rqueue > 0 && r.recvAge <= r.sentAge:
		return isBusy, byNothing
	case r.rqueue > 0:
		// Pipelined, or a body that the backend answered without reading and never will.
		return verdict{busy: o.lasts(r.sentAge), tie: true}, byNothing
	case r.writerWaits():
		return isBusy, byNothing
	case r.recvAge < r.sentAge:
		return isBusy, byStamps
	case r.recvAge > r.sentAge:
		if c.stream.goesOn(r) {
			return isBusy, byNothing
		}
		return isIdle, byStamps
	}
	return judgeTie(c, r, seen, o)
}

// ackMax is well above the longest delay of an ACK (TCP_DELACK_MAX, 200 ms) and not above
// the shortest time after which keep-alive probes may begin (1 s), which count as well.
const ackMax = 900

// ackDue is when data that no response has acknowledged is acknowledged by the kernel.
const ackDue = 250

// judgeTie decides between a request that was answered within one tick of the clock
// and one that followed the last response within it.
func judgeTie(c *conn, r *record, seen bool, o *tieOdds) (verdict, how) {
	switch {
	case r.dataIn == 1:
		return isIdle, byCount // one segment, and it was answered
	case r.unacked > 0, r.ackAge < r.recvAge && r.recvAge-r.ackAge < ackMax:
		return isIdle, byAck
	}
	in, out := r.dataIn-c.last.dataIn, r.dataOut-c.last.dataOut
	switch {
	case r.segsOut == r.dataOut && r.recvAge >= ackDue:
		return isIdle, byCount // the kernel never acknowledged but by responses
	case !seen:
	case out > 0 && r.segsIn-c.last.segsIn == in:
		return isBusy, byAck // no bare ACK: requests have acknowledged the responses
	case in > 0 && out == 0:
		return isBusy, byCount
	case in == 0 && out == 0 && r.segsOut != c.last.segsOut && r.recvAge < ackMax:
		return isBusy, byCount // a delayed ACK, which a response would have carried
	case c.tie:
	case in == 0 && out == 0:
		return c.verdict, byNothing
	case in == 1 && c.busy == 0 && c.last.sentAge > 0, in == 0: // a response in pieces may have had more to come
		return isIdle, byCount
	case in == 1 && out == 1 && c.busy == 1:
		return isBusy, byCount
	}
	if v, ok := c.rhythm.verdict(r); ok {
		return v, byCount
	}
	return verdict{busy: o.busy(c, r, seen), tie: true}, byOdds
}

// writerWaits tells whether a writer would have to wait for room: the kernel wakes it
// when a third of the send buffer is free (sk_stream_min_wspace in include/net/sock.h).
func (r *record) writerWaits() bool {
	return r.notsent > 0 && r.sndbuf > 0 && uint64(r.sndbufUsed)*3 > uint64(r.sndbuf)*2
}

// same tells whether neither side sent data between two looks.
func (r *record) same(q *record) bool {
	return r.bytesIn == q.bytesIn && r.dataIn == q.dataIn &&
		r.dataOut == q.dataOut && r.bytesOut+uint64(r.notsent) == q.bytesOut+uint64(q.notsent)
}

// stream follows a response that is written piece by piece.
type stream struct {
	pieces uint8         // looks that found the same response longer
	at     time.Duration // when its last known piece was sent
	gap    time.Duration // the mean time between pieces
}

// maxGap is the longest pause in a response that does not count as its end: longer
// ones are news streams, which keep a connection but not the backend.
const maxGap = time.Second

// next takes a new look, after c.last and before it is replaced.
func (s *stream) next(c *conn, r *record, now time.Duration) {
	at := now - ms(r.sentAge)
	switch {
	case r.dataIn != c.last.dataIn || r.bytesIn != c.last.bytesIn:
		*s = stream{}
	case r.dataOut != c.last.dataOut:
		if s.pieces > 0 || c.last.recvAge > c.last.sentAge {
			gap := min(max(at-s.at, 0), maxGap)
			if s.gap > 0 {
				gap = (s.gap + gap) / 2
			}
			s.gap = gap
			s.pieces = min(s.pieces+1, streamPieces)
		}
	}
	s.at = at
}

// streamPieces make a response a stream. Two or three are a head and a body, of which
// Nagle's algorithm and the client's delayed ACK may hold the last back for 40 ms.
const streamPieces = 3

// goesOn tells whether a stream is still being written, by the pace it had: a piece
// later than twice the mean gap ends it.
func (s *stream) goesOn(r *record) bool {
	return s.pieces == streamPieces && ms(r.sentAge) <= 2*s.gap && ms(r.sentAge) < maxGap
}

func ms(n uint32) time.Duration { return time.Duration(n) * time.Millisecond }
