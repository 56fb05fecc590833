package sockets

import "testing"

// TestSignal holds what a signal is worth: its prior where nothing is known, and what it
// proved to be once it was right or wrong, whichever the prior was.
func TestSignal(t *testing.T) {
	ratio := func(s *signal, said says) float64 { return s.ratio(said, &countPrior) }
	var s signal
	if n := ratio(&s, saysNothing); n != 1 {
		t.Errorf("silence is worth %v, want 1", n)
	}
	if busy, idle := ratio(&s, saysBusy), ratio(&s, saysIdle); busy < 10 || idle > 0.1 {
		t.Errorf("unproven it is worth %v and %v", busy, idle)
	}
	for range 20 { // it says the same of either
		s.learn(saysBusy, isBusy)
		s.learn(saysBusy, isIdle)
	}
	if n := ratio(&s, saysBusy); n < 0.8 || n > 1.3 {
		t.Errorf("it is worth %v where it means nothing", n)
	}
	s = signal{}
	for range 10000 {
		s.learn(saysBusy, isBusy)
		s.learn(saysIdle, isIdle)
	}
	if busy, idle := ratio(&s, saysBusy), ratio(&s, saysIdle); busy < 500 || idle > 0.002 {
		t.Errorf("proven it is worth %v and %v", busy, idle)
	}
}

// TestAddUp holds what counters say: nothing where both verdicts, or none, fit.
func TestAddUp(t *testing.T) {
	known := tieOdds{size: 2, agreed: sizeBelief}
	for _, c := range []struct {
		in, out      uint32
		known, never says
	}{
		{0, 0, saysNothing, saysNothing},
		{1, 0, saysBusy, saysNothing},
		{1, 2, saysIdle, saysNothing},
		{2, 2, saysBusy, saysNothing},
		{2, 4, saysIdle, saysNothing},
		{3, 4, saysBusy, saysBusy},
		{3, 6, saysIdle, saysNothing}, // 2 of 3, or 3 of 2
		{50, 98, saysBusy, saysBusy},
		{50, 100, saysIdle, saysIdle},
		{50, 99, saysNothing, saysNothing},
		{50, 3, saysNothing, saysNothing},
		{1 << 31, 1 << 31, saysNothing, saysNothing},
		{1, ^uint32(0), saysNothing, saysNothing},
	} {
		if got := known.addUp(c.in, c.out); got != c.known {
			t.Errorf("%d received, %d sent, 2 per response: says %d, want %d", c.in, c.out, got, c.known)
		}
		if got := new(tieOdds).addUp(c.in, c.out); got != c.never {
			t.Errorf("%d received, %d sent, size unknown: says %d, want %d", c.in, c.out, got, c.never)
		}
	}
}

// TestSurvival holds that a time still running is not taken for one that ended.
func TestSurvival(t *testing.T) {
	var s survivor
	for range 100 {
		s.add(30, false, 1)
	}
	if p := s.survival(20, 0.5); p < 0.99 {
		t.Errorf("%v last longer than 20 ms of 100 that have lasted 30", p)
	}
	if p := s.survival(300, 0.5); p != 0.5 {
		t.Errorf("%v last longer than 300 ms, of which nothing is known; 0.5 beforehand", p)
	}
	for range 50 {
		s.add(100, true, 1)
		s.add(400, true, 1)
	}
	if p := s.survival(200, 0); p < 0.48 || p > 0.5 {
		t.Errorf("%v last longer than 200 ms, want nearly one half", p)
	}
	if p := s.survival(5000, 0); p != 0 {
		t.Errorf("%v last longer than 5 s", p)
	}
}
