package sockets

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"
)

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

// TestHeadAndBody holds the estimate of clients that acknowledge the head of a response
// and send the next request with the body's acknowledgement, every response alike: every
// look is a tie. The idle ones among them had requests answered within a tick.
func TestHeadAndBody(t *testing.T) {
	for _, late := range []bool{false, true} {
		for _, every := range []time.Duration{20 * msec, 50 * msec, 250 * msec} {
			e, r := newEstimator(), rand.New(rand.NewPCG(7, 8))
			var peers []*peer
			var next []time.Duration
			for i := range 24 {
				peers = append(peers, newPeer(uint32(i+1)))
				next = append(next, time.Duration(r.Int64N(int64(300*msec))))
			}
			advance := func(until time.Duration) {
				for i, p := range peers {
					for ; next[i] <= until; next[i] += 300 * msec {
						// Busy ones are answered and ask again; idle ones ask and are answered.
						if i < 12 && p.pending > 0 || i >= 12 {
							if i >= 12 {
								p.request(next[i], 1)
							}
							p.respond(next[i], 2)
							p.bare(next[i])
						}
						if i < 12 {
							p.request(next[i], 1)
						} else {
							p.bare(next[i])
						}
						p.rec.segsOut++ // the kernel acknowledges the request at once
						p.owed = 0
					}
				}
			}
			from := time.Duration(0)
			if late {
				from = 5 * sec
			}
			var busy, idle, unsure float64
			n := 0
			for now := from; now < from+10*sec; now += every {
				advance(now)
				search(e, now, peers...)
				if now < from+sec {
					continue
				}
				n++
				for i := range e.conns {
					c := &e.conns[i]
					if c.last.id.cookie() <= 12 {
						busy += c.busy
					} else {
						idle += c.busy
					}
				}
				unsure += e.sum(0).Unsure
			}
			busy, idle, unsure = busy/float64(n), idle/float64(n), unsure/float64(n)
			t.Logf("late %v, every %v: busy %.2f of 12, idle %.2f of 0, unsure %.2f", late, every, busy, idle, unsure)
			if busy < 11 || idle > 1 {
				t.Errorf("late %v, every %v: busy %.2f of 12, idle %.2f of 0", late, every, busy, idle)
			}
		}
	}
}

// TestNoEvidence holds that ties of which nothing can be known are said to be unsure,
// however often they are looked at, and neither busy nor idle.
func TestNoEvidence(t *testing.T) {
	e, r := newEstimator(), rand.New(rand.NewPCG(9, 10))
	var peers []*peer
	for i := range 12 {
		peers = append(peers, newPeer(uint32(i+1)))
	}
	for at := range 100 {
		now := time.Duration(at) * 300 * msec
		for _, p := range peers {
			if p.pending > 0 {
				p.respond(now, 1+r.Uint32N(20))
				p.bare(now)
			}
			p.request(now, 1)
			p.rec.segsOut++
			p.owed = 0
		}
		if at < 20 {
			continue
		}
		for age := 30 * msec; age < 300*msec; age += 60 * msec {
			s := search(e, now+age, peers...)
			if s.Ties < 12 || s.Unsure < 0.2*float64(s.Ties) || s.InFlight < 2 || s.InFlight > 11 {
				t.Fatalf("response %d, %v old: %+v", at, age, s)
			}
		}
	}
}
