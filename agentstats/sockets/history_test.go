package sockets

import (
	"encoding/binary"
	"time"
)

// peer is a synthetic connection in virtual time: it keeps the counters and stamps
// that the kernel would, in ticks of 4 ms.
type peer struct {
	n       uint32 // its cookie
	rec     record
	sent    time.Duration
	recv    time.Duration
	ack     time.Duration
	owed    time.Duration // when the kernel acknowledges by itself, 0: it need not
	pending int           // requests received and not answered: the truth
}

const tick = 4 * time.Millisecond

func newPeer(n uint32) *peer {
	p := &peer{n: n}
	p.rec = record{family: 2, state: stateEstablished, inode: 1, hasInfo: true, segsIn: 1, sndbuf: 1 << 20}
	binary.BigEndian.PutUint16(p.rec.id[:], 80)
	binary.NativeEndian.PutUint32(p.rec.id[40:], n)
	return p
}

// request receives the segments of one request; they acknowledge all that was sent.
func (p *peer) request(now time.Duration, segments uint32) {
	p.pending++
	p.data(now, segments)
}

func (p *peer) data(now time.Duration, segments uint32) {
	p.rec.dataIn += segments
	p.rec.segsIn += segments
	p.rec.bytesIn += uint64(100 * segments)
	p.rec.unacked, p.rec.wqueue = 0, 0
	p.recv, p.ack = now, now
	p.owed = now + 40*time.Millisecond
}

// respond sends the segments of a response.
func (p *peer) respond(now time.Duration, segments uint32) {
	p.pending--
	p.piece(now, segments)
}

func (p *peer) piece(now time.Duration, segments uint32) {
	p.settle(now)
	p.owed = 0
	p.rec.dataOut += segments
	p.rec.segsOut += segments
	p.rec.bytesOut += uint64(1000 * segments)
	p.rec.unacked, p.rec.wqueue = segments, 1000*segments
	p.sent = now
}

// settle sends the delayed ACK that is due.
func (p *peer) settle(now time.Duration) {
	if p.owed > 0 && p.owed <= now {
		p.rec.segsOut++
		p.owed = 0
	}
}

// bare receives an ACK without data.
func (p *peer) bare(now time.Duration) {
	p.rec.segsIn++
	p.rec.unacked, p.rec.wqueue = 0, 0
	p.ack = now
}

// fin receives the end of the client's data.
func (p *peer) fin(now time.Duration) {
	p.rec.state = stateCloseWait
	p.rec.segsIn++
	p.rec.bytesIn++
	p.rec.rqueue++
	p.ack = now
}

func (p *peer) look(now time.Duration) *record {
	p.settle(now)
	r := p.rec
	age := func(at time.Duration) uint32 {
		return uint32((now.Truncate(tick) - at.Truncate(tick)) / time.Millisecond)
	}
	r.sentAge, r.recvAge, r.ackAge = age(p.sent), age(p.recv), age(p.ack)
	return &r
}

// search shows the estimator every connection, as one search does.
func search(e *estimator, now time.Duration, all ...*peer) Sample {
	e.beginDump()
	for _, p := range all {
		e.see(p.look(now), now)
	}
	e.endDump()
	return e.sum(0)
}
