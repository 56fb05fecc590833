package sockets

import (
	"math/rand/v2"
	"testing"
	"time"
)

const (
	msec = time.Millisecond
	sec  = time.Second
)

// step is something that happens at a time, on the clock of a tick of 4 ms.
type step struct {
	at time.Duration
	do func(p *peer, now time.Duration)
}

func req(segments uint32) func(*peer, time.Duration) {
	return func(p *peer, now time.Duration) { p.request(now, segments) }
}

func resp(segments uint32) func(*peer, time.Duration) {
	return func(p *peer, now time.Duration) { p.respond(now, segments) }
}

func nothing(*peer, time.Duration)    {}
func bare(p *peer, now time.Duration) { p.bare(now) }
func fin(p *peer, now time.Duration)  { p.fin(now) }

func TestHistories(t *testing.T) {
	for _, c := range []struct {
		name  string
		steps []step
		want  float64 // at the last look, which is at the time of the last step
	}{
		{"opened, nothing sent", nil, 0},
		{"first request", []step{{sec, req(1)}}, 1},
		{"first request, much later", []step{{sec, req(1)}, {time.Hour, nothing}}, 1},
		{"answered", []step{{sec, req(1)}, {sec + 30*msec, resp(1)}, {sec + 31*msec, nothing}}, 0},
		{"answered within a tick, no ACK yet", []step{{sec, req(3)}, {sec + 1*msec, resp(1)}, {sec + 2*msec, nothing}}, 0},
		{"answered within a tick, ACK later", []step{{sec, req(3)}, {sec + 1*msec, resp(1)}, {sec + 40*msec, bare}}, 0},
		{"the only segment was answered and acknowledged within a tick", []step{{sec, req(1)}, {sec + 1*msec, resp(1)}, {sec + 2*msec, bare}}, 0},
		{"second request follows at once", []step{{sec, req(1)}, {sec + 200*msec, resp(1)}, {sec + 201*msec, req(1)}, {sec + 300*msec, nothing}}, 1},
		{"ACK first, second request in the same tick, looked at in between", []step{
			{sec, req(1)}, {sec + 99*msec, nothing}, {sec + 200*msec, resp(1)}, {sec + 201*msec, bare}, {sec + 202*msec, req(1)}, {sec + 203*msec, nothing}}, 1},
		{"looked at idle, then a request answered within a tick and acknowledged", []step{
			{sec, req(1)}, {sec + 9*msec, resp(1)}, {sec + 50*msec, nothing}, {2 * sec, req(1)}, {2*sec + msec, resp(2)}, {2*sec + 2*msec, bare}}, 0},
		{"upload in pieces", []step{{sec, req(10)}, {sec + 500*msec, func(p *peer, now time.Duration) { p.data(now, 30) }}}, 1},
		{"100-continue", []step{{sec, req(1)}, {sec + msec, func(p *peer, now time.Duration) { p.piece(now, 1) }},
			{sec + 20*msec, func(p *peer, now time.Duration) { p.data(now, 5) }}}, 1},
		{"client gave up", []step{{sec, req(1)}, {sec + 100*msec, fin}, {9 * sec, nothing}}, 1},
		{"health check that only connects", []step{{sec, fin}, {2 * sec, nothing}}, 0},
		{"idle, closed by the client", []step{{sec, req(1)}, {sec + 9*msec, resp(1)}, {2 * sec, fin}}, 0},
		{"unread request behind a response in the same tick", []step{{sec, req(1)}, {sec + 100*msec, resp(1)},
			{sec + 101*msec, bare}, {sec + 102*msec, func(p *peer, now time.Duration) { p.request(now, 1); p.rec.rqueue = 100 }}}, 1},
		{"body that is never read", []step{{sec, func(p *peer, now time.Duration) { p.request(now, 9); p.rec.rqueue = 900 }},
			{sec + 9*msec, resp(1)}, {9 * sec, nothing}}, 0},
		{"slow reader, full buffer", []step{{sec, req(1)}, {sec + 9*msec, func(p *peer, now time.Duration) {
			p.respond(now, 9)
			p.rec.notsent, p.rec.sndbufUsed = 500000, 900000
		}}, {5 * sec, nothing}}, 1},
		{"slow reader, the writer is done", []step{{sec, req(1)}, {sec + 9*msec, func(p *peer, now time.Duration) {
			p.respond(now, 9)
			p.rec.notsent, p.rec.sndbufUsed = 5000, 300000
		}}, {5 * sec, nothing}}, 0},
		{"stream", append([]step{{sec, req(1)}}, pieces(20, 20*msec)...), 1},
		{"stream that has ended", append([]step{{sec, req(1)}}, append(pieces(20, 20*msec), step{3 * sec, nothing})...), 0},
		{"news every 5 s", append([]step{{sec, req(1)}}, append(pieces(5, 5*sec), step{27 * sec, nothing})...), 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			e, p := newEstimator(), newPeer(1)
			s := search(e, 0, p)
			for _, st := range c.steps {
				st.do(p, st.at)
				// Steps in the tick of the next one are not looked at, but for looks.
				s = search(e, st.at, p)
			}
			if s.InFlight != c.want || s.Ties != 0 && c.want != 0 {
				t.Errorf("in flight %v (%d busy, %d ties), want %v", s.InFlight, s.Busy, s.Ties, c.want)
			}
		})
	}
}

// pieces is a response of n pieces, each looked at 4 ms after it was sent.
func pieces(n int, every time.Duration) []step {
	var all []step
	for i := range n {
		at := sec + time.Duration(i+1)*every
		all = append(all, step{at, func(p *peer, now time.Duration) { p.piece(now, 1) }}, step{at + 4*msec, nothing})
	}
	return all
}

// TestFirstLook judges histories that were not followed, but seen at their end only.
func TestFirstLook(t *testing.T) {
	p := newPeer(1)
	for i := range 50 {
		at := time.Duration(i) * 20 * msec
		p.request(at, 1)
		p.respond(at+20*msec, 1) // the next request comes in the same tick
	}
	at := 50 * 20 * msec
	p.request(at, 1)
	e := newEstimator()
	if s := search(e, at+msec, p); s.Ties != 1 || s.InFlight <= 0 || s.InFlight >= 1 {
		t.Errorf("in flight %v of an unknown client that reuses at once, want a tie", s.InFlight)
	}
	if s := search(e, at+41*msec, p); s.InFlight != 1 {
		t.Errorf("in flight %v once the kernel has acknowledged by itself, want 1", s.InFlight)
	}
	p.respond(at+42*msec, 1)
	if s := search(newEstimator(), at+43*msec, p); s.InFlight != 0 {
		t.Errorf("in flight %v after the answer, want 0", s.InFlight)
	}
	// A keep-alive probe is no delayed ACK.
	idle := newPeer(2)
	for range 2 {
		idle.request(at, 1)
		idle.respond(at, 1)
		idle.bare(at)
	}
	e = newEstimator()
	search(e, at+15*sec, idle)
	idle.rec.segsOut++
	idle.bare(at + 15*sec)
	if s := search(e, at+15*sec+msec, idle); s.InFlight != 0 {
		t.Errorf("in flight %v of an idle connection after a keep-alive probe, want 0", s.InFlight)
	}
}

// TestRhythm holds every verdict that the segment counters give against the truth.
func TestRhythm(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for per := uint32(1); per <= 5; per++ {
		var h rhythm
		p := newPeer(1)
		said := 0
		for i := range 2000 {
			now := time.Duration(i) * msec
			for range r.IntN(4) {
				if p.pending == 0 {
					p.request(now, 1)
				} else {
					p.respond(now, per)
				}
			}
			rec := p.look(now)
			if v, ok := h.verdict(rec); ok {
				said++
				if (v == isBusy) != (p.pending > 0) {
					t.Fatalf("%d segments per response, look %d: busy %v, truth %d", per, i, v, p.pending)
				}
			}
			if r.IntN(3) == 0 {
				h.learn(rec, p.pending > 0)
			}
		}
		if said < 1500 {
			t.Errorf("%d segments per response: %d verdicts of 2000 looks", per, said)
		}
	}
	// Responses of no fixed size must not be believed in.
	var h rhythm
	p := newPeer(1)
	wrong := 0
	for i := range 2000 {
		now := time.Duration(i) * msec
		if p.pending == 0 {
			p.request(now, 1)
		} else {
			p.respond(now, 1+r.Uint32N(40))
		}
		if v, ok := h.verdict(p.look(now)); ok && (v == isBusy) != (p.pending > 0) {
			wrong++
		}
		h.learn(p.look(now), p.pending > 0)
	}
	if wrong > 20 {
		t.Errorf("%d wrong verdicts of 2000 on responses of random size", wrong)
	}
}
