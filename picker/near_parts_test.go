package picker

import (
	"slices"
	"testing"
	"time"
)

// TestNearVetoedHidesNobody: a group that is idle because all of it is vetoed
// does not keep requests from the one behind it.
func TestNearVetoedHidesNobody(t *testing.T) {
	for name, c := range map[string]struct {
		mem  float64 // of the middle group
		want int     // the distance of the least crowded that takes requests
	}{"well": {0.1, 1}, "short of memory": {0.95, 2}} {
		eps := placed(0, 0, 1, 1, 2, 2)
		for i, e := range eps {
			l := live(4, 4, 0)
			if i < 2 {
				l.InFlight = 400
			}
			if e.Distance() == 1 {
				l.Mem = c.mem
			}
			e.SetLoad(l)
		}
		k := build(nearOf(t, "resource", 3), eps)
		var at [3]int
		for range 1000 {
			e, ok := k.Pick(Request{Now: now})
			if !ok {
				t.Fatal("nothing picked")
			}
			at[e.Distance()]++
		}
		if at[0] != 0 || at[c.want] < 900 || name != "well" && at[1] != 0 {
			t.Errorf("%s: picks by distance %v, want them at %d", name, at, c.want)
		}
	}
}

// TestNearRepeats: with the same chance, the same picks, build for build.
func TestNearRepeats(t *testing.T) {
	for _, name := range Names() {
		var first []string
		for run := range 30 {
			p := nearOf(t, name, 7)
			eps := placed(0, 0, 0, 1, 1, 1, 2, 2, 2)
			for i, e := range eps {
				took := time.Duration(10*(1+i)) * time.Millisecond
				for range 5 {
					e.latency.Observe(now, took)
				}
			}
			k := build(p, eps)
			for range 3 {
				k = build(p, eps)
			}
			var got []string
			for i := range 40 {
				h, ok := acquire(k, Request{Now: now, Key: keyAt(i)})
				if !ok {
					t.Fatal("nothing picked")
				}
				got = append(got, h.ep.ID)
			}
			if run == 0 {
				first = got
			} else if !slices.Equal(first, got) {
				t.Errorf("%s: run %d picked\n%v, the first\n%v", name, run, got, first)
				break
			}
		}
	}
}

// TestNearLearnsApart: how long requests stay near says nothing of how long
// they stay far away, and neither is lost with a new picker or with the others.
func TestNearLearnsApart(t *testing.T) {
	p := nearOf(t, "resource", 1).(*nearest)
	eps := placed(0, 0, 1, 1)
	k := build(p, eps)
	for i, e := range eps {
		took := []time.Duration{10 * time.Millisecond, time.Second}[i/2]
		for range 50 {
			k.(Observer).Done(e, now, 0, Result{Outcome: Success, FirstByte: took, Total: took})
			e.Finish(now, Result{Outcome: Success, FirstByte: took})
			hold(e, 1)
		}
	}
	stays := func(when string) {
		t.Helper()
		for d, want := range []float64{10, 1000} {
			if got := p.at(d).(*resource).stay.ms; got < 0.9*want || got > 1.1*want {
				t.Errorf("%s: at distance %d requests stay %.1f ms, want %v", when, d, got, want)
			}
		}
	}
	for range 5 {
		build(p, eps)
	}
	stays("rebuilt")
	for _, some := range [][]*Endpoint{eps[:2], eps[2:], nil} {
		for range 5 {
			build(p, some)
		}
	}
	stays("with one distance and with none")
	if far, ok := build(p, eps[2:]).(*resourcePicker); !ok || far.policy != p.at(1) {
		t.Error("with one distance alone another policy is asked")
	}
	if p.at(0) != p.at(0) || p.at(0) == p.at(1) {
		t.Error("a distance has a policy of its own, and keeps it")
	}
}
