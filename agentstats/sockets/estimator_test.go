package sockets

import (
	"math"
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

// crowd is synthetic clients in virtual time.
type crowd struct {
	peers    []*peer
	next     []time.Duration
	service  func(*rand.Rand) time.Duration
	pause    func(*rand.Rand) time.Duration
	ownAcks  bool
	segments uint32 // a response takes 1 to this many
	active   int
	r        *rand.Rand
}

func (c *crowd) advance(until time.Duration) {
	for i, p := range c.peers[:c.active] {
		for c.next[i] <= until {
			now := c.next[i]
			if p.pending > 0 {
				p.respond(now, 1+c.r.Uint32N(c.segments))
				if c.ownAcks {
					p.bare(now + 50*time.Microsecond)
				}
				c.next[i] = now + max(c.pause(c.r), 100*time.Microsecond)
			} else {
				p.request(now, 1)
				c.next[i] = now + max(c.service(c.r), 100*time.Microsecond)
			}
		}
	}
}

func (c *crowd) truth() (n float64) {
	for _, p := range c.peers {
		n += float64(p.pending)
	}
	return n
}

// TestCrowds holds the estimate against the truth over populations in which nothing but
// the odds can resolve the ties: clients acknowledge by themselves and at once, and
// responses are of random size.
func TestCrowds(t *testing.T) {
	exp := func(mean time.Duration) func(*rand.Rand) time.Duration {
		return func(r *rand.Rand) time.Duration { return time.Duration(r.ExpFloat64() * float64(mean)) }
	}
	fixed := func(d time.Duration) func(*rand.Rand) time.Duration {
		return func(*rand.Rand) time.Duration { return d }
	}
	for _, c := range []struct {
		name           string
		service, pause func(*rand.Rand) time.Duration
		active, idle   int
		every          time.Duration
		bound          float64 // of the relative bias
	}{
		{"1 ms, at once", exp(msec), fixed(0), 20, 0, 7 * msec, 0.6},
		{"1 ms, pauses of 20 ms", exp(msec), exp(20 * msec), 60, 0, 7 * msec, 0.2},
		{"5 ms, pauses of 5 ms", exp(5 * msec), exp(5 * msec), 40, 40, 7 * msec, 0.4},
		{"30 ms, at once", exp(30 * msec), fixed(0), 70, 0, 7 * msec, 0.1},
		{"30 ms constant, at once", fixed(30 * msec), fixed(0), 70, 0, 7 * msec, 0.1},
		{"30 ms, pauses of 30 ms", exp(30 * msec), exp(30 * msec), 70, 100, 7 * msec, 0.1},
		{"30 ms, pauses of 1 ms, 95 % idle", exp(30 * msec), exp(msec), 10, 190, 7 * msec, 0.1},
		{"200 ms, at once, looks 250 ms apart", exp(200 * msec), fixed(0), 50, 50, 250 * msec, 0.6},
		{"5 s, at once", exp(5 * sec), fixed(0), 30, 30, 20 * msec, 0.05},
		{"5 s, pauses of 1 s", exp(5 * sec), exp(sec), 30, 0, 20 * msec, 0.05},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := &crowd{service: c.service, pause: c.pause, ownAcks: true, segments: 20, active: c.active, r: rand.New(rand.NewPCG(5, 6))}
			for i := range c.active + c.idle {
				p := newPeer(uint32(i + 1))
				if i >= c.active { // two requests, answered within a tick, and never another
					for at := range 2 {
						now := time.Duration(at) * 10 * msec
						p.request(now, 1)
						p.respond(now, 1+w.r.Uint32N(20))
						p.bare(now)
					}
				}
				w.peers = append(w.peers, p)
				w.next = append(w.next, time.Duration(w.r.Int64N(int64(20*msec))))
			}
			e := newEstimator()
			var est, truth, ties float64
			n := 0
			for now := 30 * msec; now < 20*sec; now += c.every + time.Duration(w.r.Int64N(int64(msec))) {
				w.advance(now)
				s := search(e, now, w.peers...)
				if now > 3*sec {
					est, truth, ties, n = est+s.InFlight, truth+w.truth(), ties+float64(s.Ties), n+1
				}
			}
			bias := (est - truth) / max(truth, 1)
			t.Logf("%-36s truth %6.2f estimate %6.2f ties %6.2f bias %+.1f %%", c.name, truth/float64(n), est/float64(n), ties/float64(n), 100*bias)
			if math.Abs(bias) > c.bound {
				t.Errorf("bias %+.1f %%, at most %.0f %% is expected", 100*bias, 100*c.bound)
			}
		})
	}
}
