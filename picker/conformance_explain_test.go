package picker

import (
	"math"
	"testing"
	"time"
)

// uneven is a set in which endpoints differ in all that a pick may look at.
// At least one takes requests.
func uneven(n int, rand Rand) []*Endpoint {
	eps := equal(n)
	for i, e := range eps {
		e.SetWeight(1 + int(rand(4)))
		e.SetLimit(8)
		hold(e, int(rand(9)))
		e.mind.peak.answered(now, time.Duration(1+keyAt(i)%1e9), &PeakEWMAConfig{Decay: 1e10, Unknown: 1e9})
	}
	eps[rand(uint32(n))].SetLimit(100)
	return eps
}

// explainLists: every endpoint that can be picked at some time is there once,
// with figures that are figures, and shares that are shares.
func explainLists(t *testing.T, p Policy) {
	for _, n := range sizes[:len(sizes)-1] {
		eps := uneven(n, seeded(uint64(n)))
		if n > 2 {
			eps[1].SetWeight(0)
		}
		x := build(p, eps).Explain(Request{Now: now, Key: 5})
		if x.Rule == "" {
			t.Error("no rule")
		}
		seen := map[*Endpoint]int{}
		var sum float64
		whole := 0
		for _, c := range x.Candidates {
			seen[c.Endpoint]++
			sum += c.Share
			if c.Share == 1 {
				whole++
			}
			if !(c.Share >= 0 && c.Share <= 1) || math.IsNaN(c.Score) || len(c.Terms) == 0 {
				t.Errorf("%d endpoints: candidate %+v", n, c)
			}
			names := map[string]bool{}
			for _, term := range c.Terms {
				if term.Name == "" || names[term.Name] || math.IsNaN(term.Value) || math.IsInf(term.Value, 0) {
					t.Errorf("%d endpoints: terms %+v", n, c.Terms)
				}
				names[term.Name] = true
			}
		}
		if whole != len(x.Candidates) && math.Abs(sum-1) > 1e-6 {
			t.Errorf("%d endpoints: the shares' sum is %v, and not all are 1", n, sum)
		}
		for i, e := range eps {
			if want := min(1, e.Weight()); seen[e] != want {
				t.Errorf("%d endpoints: %d of weight %d is listed %d times", n, i, e.Weight(), seen[e])
			}
		}
	}
}

// explainOut: tried and full endpoints are out with a reason, and no other is.
func explainOut(t *testing.T, p Policy) {
	eps := equal(6)
	eps[2].SetLimit(1)
	fill(eps[2])
	r := Request{Now: now, Key: 9, Tried: triedOf(eps[4])}
	k := build(p, eps)
	for _, c := range k.Explain(r).Candidates {
		if out := c.Endpoint == eps[2] || c.Endpoint == eps[4]; out != (c.Out != "") {
			t.Errorf("%s is out because %q", c.Endpoint.ID, c.Out)
		}
	}
	got := count(t, k, eps, 500, Request{Now: now, Tried: r.Tried})
	if got[2] != 0 || got[4] != 0 {
		t.Errorf("picked one that is out: %v", got)
	}
	for _, e := range eps {
		e.SetLimit(1)
		fill(e)
	}
	for _, c := range k.Explain(r).Candidates {
		if c.Out == "" {
			t.Errorf("%s is full and not out", c.Endpoint.ID)
		}
	}
}

// explainAgrees: over random states a pick never takes what is out, takes
// something if anything is in, and where all are compared takes the lowest
// score.
func explainAgrees(t *testing.T, p Policy) {
	rand := seeded(77)
	for _, n := range sizes[:len(sizes)-1] {
		for round := range 1 + 300/n {
			eps := uneven(n, rand)
			r := Request{Now: now, Key: keyAt(round)}
			for range rand(3) {
				r.Tried.Add(eps[rand(uint32(n))])
			}
			k := build(p, eps)
			// What happens after the build counts as what was before it.
			var open []held
			for i := range min(n, 50) {
				h, ok := acquire(k, Request{Now: now, Key: keyAt(i)})
				if ok && rand(3) > 0 {
					open = append(open, h)
				} else if ok {
					h.end(k, now, Result{Outcome: Success, FirstByte: time.Duration(1 + rand(1e8))})
				}
			}
			agree(t, p, k, r)
			for _, h := range open {
				h.end(k, now, Result{Outcome: Drop})
			}
			agree(t, p, k, r)
		}
	}
}

func agree(t *testing.T, p Policy, k Picker, r Request) {
	t.Helper()
	x := k.Explain(r)
	in, all := 0, true
	least := math.Inf(1)
	by := map[*Endpoint]Candidate{}
	for _, c := range x.Candidates {
		by[c.Endpoint] = c
		all = all && c.Share == 1
		if c.Out == "" {
			in++
			least = min(least, c.Score)
		}
	}
	if two := p.Name() == "p2c" || p.Name() == "peak_ewma"; two && len(x.Candidates) == 2 {
		all = true
	}
	for range 5 {
		e, ok := k.Pick(r)
		if ok != (in > 0) {
			t.Fatalf("of %d endpoints: picked one: %v, %d are in", len(x.Candidates), ok, in)
		}
		if !ok {
			return
		}
		c, known := by[e]
		if !known || c.Out != "" {
			t.Fatalf("of %d: picked %s, listed %v, out because %q", len(x.Candidates), e.ID, known, c.Out)
		}
		if all && c.Score != least {
			t.Errorf("of %d: picked %s with a score of %v, the lowest is %v", len(x.Candidates), e.ID, c.Score, least)
		}
	}
}

func explainChangesNothing(t *testing.T, p Policy) {
	eps := fleet(2, 3)
	k := build(p, eps)
	before := k.Explain(Request{Now: now, Key: 3})
	for range 20 {
		k.Explain(Request{Now: now + 1e9, Key: 3})
	}
	after := k.Explain(Request{Now: now, Key: 3})
	for i, c := range before.Candidates {
		d := after.Candidates[i]
		if c.Endpoint != d.Endpoint || c.Score != d.Score || c.Out != d.Out || c.Share != d.Share {
			t.Errorf("explained as %+v, then as %+v", c, d)
		}
		for j, x := range c.Terms {
			if d.Terms[j] != x {
				t.Errorf("%s was %v, then %v", x.Name, x.Value, d.Terms[j])
			}
		}
	}
	for _, e := range eps {
		if e.InFlight() != 0 || e.mind.peak.word.Load() != 0 {
			t.Error("explaining left a trace in the endpoint")
		}
	}
}
