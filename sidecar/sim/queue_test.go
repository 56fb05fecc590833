package sim

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// TestHeap pops events in the order of time, whatever was put in and replaced.
func TestHeap(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	var h heap4
	var all []time.Duration
	for range 20000 {
		at := time.Duration(r.IntN(5000))
		switch {
		case r.IntN(3) > 0 || len(h) == 0:
			h.push(event{at: at})
			all = append(all, at)
		case r.IntN(2) == 0:
			least := slices.Min(all)
			if e := h.pop(); e.at != least {
				t.Fatalf("popped %v, the first is %v", e.at, least)
			}
			i := slices.Index(all, least)
			all = slices.Delete(all, i, i+1)
		default: // the first one again, later
			least := slices.Min(all)
			if h[0].at != least {
				t.Fatalf("the first is at %v, want %v", h[0].at, least)
			}
			all[slices.Index(all, least)] = least + at
			h.sink(event{at: least + at})
		}
	}
	slices.Sort(all)
	for i, want := range all {
		if e := h.pop(); e.at != want {
			t.Fatalf("%d of %d left: popped %v, want %v", i, len(all), e.at, want)
		}
	}
}

// TestLane is first in, first out, over growth and wrapping.
func TestLane(t *testing.T) {
	r := rand.New(rand.NewPCG(2, 2))
	var l lane[int]
	in, out := 0, 0
	for range 20000 {
		if r.IntN(100) < 55 {
			l.push(in)
			in++
		} else if l.n > 0 {
			if got := *l.first(); got != out || l.pop() != out {
				t.Fatalf("first is %d, want %d", got, out)
			}
			out++
		}
		if l.n != in-out {
			t.Fatalf("%d in the lane, want %d", l.n, in-out)
		}
	}
}

func TestLaneKeepsNoPointers(t *testing.T) {
	var l lane[*int]
	l.push(new(int))
	l.pop()
	if l.ring[0] != nil {
		t.Error("what was taken out is still held")
	}
}
