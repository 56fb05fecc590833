package picker

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// tally is what a stress test knows of an endpoint beside its own counters.
type tally struct {
	holders  atomic.Int64
	byResult [4]atomic.Uint64
}

// storm is a policy under everything that may happen at once.
type storm struct {
	t       *testing.T
	p       Policy
	eps     []*Endpoint
	most    []int64 // that the endpoint's limit ever is
	tallies map[*Endpoint]*tally
	current atomic.Pointer[Picker]
	clock   atomic.Int64
	stop    atomic.Bool
}

func newStorm(t *testing.T, p Policy, n int) *storm {
	s := &storm{t: t, p: p, eps: equal(n), most: make([]int64, n), tallies: map[*Endpoint]*tally{}}
	s.clock.Store(int64(now))
	for i, e := range s.eps {
		s.most[i] = int64(2 + i%3)
		e.SetLimit(int(s.most[i]))
		s.tallies[e] = &tally{}
	}
	s.rebuild()
	return s
}

func (s *storm) now() time.Duration { return time.Duration(s.clock.Add(int64(20 * time.Microsecond))) }

func (s *storm) picker() Picker { return *s.current.Load() }

func (s *storm) rebuild() {
	HoldRamps(s.eps, s.now())
	k := s.p.Build(s.eps)
	refresh(k, s.now())
	s.current.Store(&k)
}

// move changes all that the balancer may change, on one goroutine as there.
func (s *storm) move() {
	rand := seeded(8)
	n := uint32(len(s.eps))
	for !s.stop.Load() {
		k := s.picker()
		i := rand(n)
		e := s.eps[i]
		switch rand(6) {
		case 0:
			e.SetWeight(int(rand(4)))
			s.eps[0].SetWeight(1) // not all drain
			s.rebuild()
		case 1:
			if i%2 == 1 { // of the others no overshoot is missed
				e.SetLimit(1 + int(rand(uint32(s.most[i]))))
			}
		case 2:
			l := live(4, float64(rand(5)), float64(rand(20)))
			l.At = s.now()
			l.Expires = l.At + lifetime
			e.SetLoad(l)
			if o, ok := k.(Observer); ok {
				o.Reported(e, s.now())
			}
		case 3:
			if r, ok := k.(Refresher); ok && r.Due(s.now()) {
				r.Refresh(s.now())
			}
		case 4:
			k.Mode(s.now())
			k.Explain(Request{Now: s.now(), Key: keyAt(int(i))})
		case 5:
			e.SetRamp(s.now(), time.Duration(rand(2))*time.Millisecond)
		}
	}
}

// use picks, reserves and ends; the last few requests are left in flight.
func (s *storm) use(g, rounds int) (open []held) {
	for i := range rounds {
		k := s.picker()
		h, ok := acquire(k, Request{Now: s.now(), Key: keyAt(g<<20 | i)})
		if ok {
			s.holding(h.ep)
			open = append(open, h)
		}
		if len(open) > 3 || !ok && len(open) > 0 {
			s.end(open[:1], Outcome(i%4))
			open = open[1:]
		}
		if i%97 == 0 {
			if e := s.eps[i%len(s.eps)]; e.TryReserve() {
				s.holding(e)
				s.tallies[e].holders.Add(-1)
				e.Cancel()
			}
		}
	}
	return open
}

func (s *storm) holding(e *Endpoint) {
	most := int64(2)
	for i := range s.eps {
		if s.eps[i] == e {
			most = s.most[i]
		}
	}
	if n := s.tallies[e].holders.Add(1); n > most {
		s.t.Errorf("%s: %d hold a slot, the limit never was above %d", e.ID, n, most)
	}
}

func (s *storm) end(open []held, o Outcome) {
	for _, h := range open {
		x := s.tallies[h.ep]
		x.holders.Add(-1)
		x.byResult[o].Add(1)
		r := Result{Outcome: o, FirstByte: time.Duration(1+len(h.ep.ID)) * time.Millisecond}
		if o == Failure {
			r.FirstByte, r.Down = 0, len(h.ep.ID)%2 == 0
		}
		h.end(s.picker(), s.now(), r)
	}
}

// TestStress: pickers are built, refreshed, used and replaced while everything
// they read moves. No limit is ever overshot, and when the storm is over the
// counters are right and so is what a pick believes.
func TestStress(t *testing.T) {
	for _, name := range Names() {
		for _, n := range []int{3, 12, 80} {
			t.Run(fmt.Sprint(name, "/", n), func(t *testing.T) {
				s := newStorm(t, policy(t, name, seeded(8)), n)
				var mover, users sync.WaitGroup
				mover.Go(s.move)
				open := make([][]held, 8)
				for g := range open {
					users.Go(func() { open[g] = s.use(g, 1500) })
				}
				users.Wait()
				s.stop.Store(true)
				mover.Wait()
				s.calm(open)
			})
		}
	}
}

func (s *storm) calm(open [][]held) {
	t := s.t
	left := 0
	for _, o := range open {
		left += len(o)
	}
	for i, e := range s.eps {
		if int64(e.InFlight()) != s.tallies[e].holders.Load() {
			t.Errorf("endpoint %d: %d in flight, %d hold a slot", i, e.InFlight(), s.tallies[e].holders.Load())
		}
	}
	// No reservation or limit moves any more: nothing repairs by chance what a
	// structure that is kept up to date may have missed.
	for i := range 50 {
		agree(t, s.p, s.picker(), Request{Now: s.now(), Key: keyAt(i)})
	}
	if left == 0 {
		t.Error("the storm left nothing in flight")
	}
	for i, o := range open {
		s.end(o, Outcome(i%4))
	}
	var served uint64
	for i, e := range s.eps {
		x := s.tallies[e]
		want := Totals{
			Successes: x.byResult[Success].Load(), Failures: x.byResult[Failure].Load(),
			Drops: x.byResult[Drop].Load(), Ignored: x.byResult[Ignore].Load(),
		}
		want.Requests = want.Successes + want.Failures + want.Drops + want.Ignored
		served += want.Requests
		if got := e.Totals(); got != want || e.InFlight() != 0 {
			t.Errorf("endpoint %d: totals %+v, want %+v; %d in flight", i, got, want, e.InFlight())
		}
	}
	if served < 1000 {
		t.Errorf("%d requests were served", served)
	}
	agree(t, s.p, s.picker(), Request{Now: s.now(), Key: 1})
}
