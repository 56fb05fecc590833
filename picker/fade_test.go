package picker

import (
	"math"
	"testing"
	"time"
)

// leaving is the part of the weight that the endpoints from at on count with.
func leaving(eps []*Endpoint, at int) float64 {
	var all, left float64
	for i, e := range eps {
		w := e.counts()
		if all += w; i >= at {
			left += w
		}
	}
	return left / all
}

// TestFadeIsLinear: what falls linearly is the part of the requests, whatever
// the sizes of those that stay and of those that leave.
func TestFadeIsLinear(t *testing.T) {
	for _, c := range []struct {
		weights []int
		stay    int // that many do not fade
	}{
		{[]int{1, 1}, 1}, {[]int{1, 1, 1, 1, 1, 1, 1, 1, 1}, 1}, {[]int{9, 9, 9, 1}, 3}, {[]int{1, 5, 2, 2}, 2},
	} {
		eps := fleet(c.weights...)
		from := leaving(eps, c.stay)
		for _, e := range eps[c.stay:] {
			e.SetFade(now, 10*time.Second)
			if !e.Fading() || e.Ramp(now) != 1 {
				t.Fatalf("it begins at %v", e.Ramp(now))
			}
		}
		for second := range 11 {
			at := now + time.Duration(second)*time.Second
			if going := HoldRamps(eps, at); going != (second < 10) {
				t.Errorf("%v after %d s: going on %v", c.weights, second, going)
			}
			want := from * (1 - float64(second)/10)
			// Whole percents of a weight are what can be told apart.
			if got := leaving(eps, c.stay); math.Abs(got-want) > 0.08 {
				t.Errorf("%v after %d s: %.3f of the weight leaves, want %.3f", c.weights, second, got, want)
			}
		}
		e := eps[c.stay]
		if e.percent() != 1 || !e.Fading() {
			t.Errorf("at the end: %d %%", e.percent())
		}
		e.SetFade(now, 0)
		if e.percent() != 100 || e.Ramp(now) != 1 || e.Fading() || e.ramp.Load() != nil {
			t.Errorf("taken back: %v", e.Ramp(now))
		}
	}
}

// TestFadesAndSlowStarts: both at once, and in each other's place, without jumps.
func TestFadesAndSlowStarts(t *testing.T) {
	share := func(e *Endpoint, at time.Duration, want float64) {
		t.Helper()
		if got := e.Ramp(at); math.Abs(got-want) > 1e-9 {
			t.Errorf("share %v, want %v", got, want)
		}
	}
	eps := equal(3)
	a, b := eps[0], eps[1]
	b.SetRamp(now, 10*time.Second)
	HoldRamps(eps, now+4*time.Second)
	share(b, now+4*time.Second, 0.4)
	b.SetFade(now+4*time.Second, 10*time.Second) // from where it is
	share(b, now+4*time.Second, 0.4)
	HoldRamps(eps, now+9*time.Second)
	share(b, now+9*time.Second, 0.4*0.5*2/(2+0.5))
	b.SetRamp(now+9*time.Second, 10*time.Second) // it comes back from an ejection
	share(b, now+9*time.Second, 0.1)
	b.EndFade(now+9*time.Second, 10*time.Second)
	share(b, now+9*time.Second, 0.1)
	share(b, now+14*time.Second, 0.6)
	HoldRamps(eps, now+19*time.Second)
	if b.ramp.Load() != nil || b.percent() != 100 {
		t.Errorf("in the end %v", b.Ramp(now))
	}
	a.EndFade(now, time.Second) // which it is not in
	if a.ramp.Load() != nil {
		t.Error("the end of no fade begins a slow start")
	}
	a.SetFade(now, time.Second)
	a.EndFade(now, 0)
	if a.ramp.Load() != nil || a.Ramp(now) != 1 {
		t.Error("without slow start it is not at its full share at once")
	}
	for _, e := range eps { // all leave: for no one's sake
		e.SetFade(now, 10*time.Second)
	}
	HoldRamps(eps, now+5*time.Second)
	share(a, now+5*time.Second, 0.5)
}

// TestFadeBounds: whatever fades and whatever is new, nobody who stays gets more
// than twice the part that it will have when the others have left.
func TestFadeBounds(t *testing.T) {
	rand := seeded(7)
	for range 2000 {
		n := 2 + int(rand(12))
		eps, stay := make([]*Endpoint, 0, n), 0.0
		for range n {
			e := NewEndpoint("e", "e:1", 1+int(rand(9)), 0, nil)
			if rand(3) > 0 {
				e.SetRamp(now-time.Duration(rand(10))*time.Second, 10*time.Second)
			}
			if rand(2) > 0 {
				e.SetFade(now-time.Duration(rand(30))*time.Second, 30*time.Second)
			} else {
				stay += float64(e.Weight())
			}
			eps = append(eps, e)
		}
		HoldRamps(eps, now)
		var all float64
		for _, e := range eps {
			if p := e.percent(); p < 1 || p > 100 {
				t.Fatalf("%d %%", p)
			}
			all += e.counts()
		}
		for _, e := range eps {
			if got, most := e.counts()/all, 2*float64(e.Weight())/stay; !e.Fading() && got > most*1.03 {
				t.Fatalf("weight %d of %v has %.3f of the requests, at most %.3f", e.Weight(), stay, got, most)
			}
		}
	}
}

// TestFadeOfEveryPolicy: with requests that stay a while, an endpoint that fades
// gets less and less, and the others more alike.
func TestFadeOfEveryPolicy(t *testing.T) {
	const n, flying = 4, 60
	for seed, name := range Names() {
		t.Run(name, func(t *testing.T) {
			eps := equal(n)
			p := policy(t, name, seeded(uint64(seed+1)))
			var queue []held
			key := 0
			run := func(at time.Duration) (part float64) {
				k := rebuilt(p, eps, at)
				const picks = 4000
				for range picks {
					key++
					h, ok := acquire(k, Request{Now: at, Key: keyAt(key)})
					if !ok {
						t.Fatal("nothing picked")
					}
					if h.ep == eps[n-1] {
						part += 1. / picks
					}
					if queue = append(queue, h); len(queue) > flying {
						queue[0].end(k, at, Result{Outcome: Success, FirstByte: time.Millisecond})
						queue = queue[1:]
					}
				}
				return part
			}
			was := run(now)
			eps[n-1].SetFade(now, 10*time.Second)
			for _, after := range []time.Duration{3, 6, 9, 10} {
				part := run(now + after*time.Second)
				if most := 0.25*(1-float64(after)/10)*1.3 + 0.06; part > most || part > was+0.02 {
					t.Errorf("%d s after: %.3f of the requests, at most %.3f, and it was %.3f", after, part, most, was)
				}
				was = part
			}
		})
	}
}
