package picker

import (
	"math"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

func hashing(change func(*HashConfig)) consistentHash {
	c := DefaultHashConfig()
	if change != nil {
		change(&c)
	}
	return newConsistentHash(c, seeded(7))
}

// take picks for a key as a balancer does: it reserves, and tells the observer.
func take(t testing.TB, p *hashPicker, key uint64) *Endpoint {
	t.Helper()
	e, ok := p.Pick(Request{Key: key, Now: now})
	if !ok || !e.TryReserve() {
		t.Fatalf("no endpoint for key %d", key)
	}
	p.Sent(e, now)
	return e
}

func give(p *hashPicker, e *Endpoint) {
	e.Finish(now, Result{})
	p.Done(e, now, 0, Result{})
}

func TestSameKeySameEndpoint(t *testing.T) {
	eps := fleet(1, 2, 3, 4)
	p := hashing(nil).Build(eps)
	q := hashing(nil).Build([]*Endpoint{eps[3], eps[1], eps[0], eps[2]})
	got := make([]int, len(eps))
	for key := uint64(1); key <= 5000; key++ {
		a, _ := p.Pick(Request{Key: key, Now: now})
		b, _ := q.Pick(Request{Key: key, Now: now + time.Hour})
		if a != b {
			t.Fatalf("key %d: %s here, %s there", key, a.ID, b.ID)
		}
		got[slices.Index(eps, a)]++
	}
	for i, n := range got {
		if want := 5000 * (i + 1) / 10; n < want/2 || n > want*2 {
			t.Errorf("%d keys at the endpoint of weight %d of 10", n, i+1)
		}
	}
}

func TestNoKeyIsDrawnByWeight(t *testing.T) {
	eps := fleet(1, 2, 3, 4)
	fits(t, "without a key", count(t, hashing(nil).Build(eps), eps, 5000, Request{Now: now}), sharesOf(eps))
}

// TestTriedGoesOn: without the endpoints that were tried, a key goes to the one
// it would have if they were not there.
func TestTriedGoesOn(t *testing.T) {
	eps := equal(6)
	p := hashing(nil).Build(eps)
	for key := uint64(1); key < 300; key++ {
		r, rest := Request{Key: key, Now: now}, slices.Clone(eps)
		for range eps {
			e, ok := p.Pick(r)
			want, _ := hashing(nil).Build(rest).Pick(Request{Key: key, Now: now})
			if !ok || e != want {
				t.Fatalf("key %d after %d tries: %v, want %s", key, r.Tried.Len(), e, want.ID)
			}
			r.Tried.Add(e)
			rest = slices.DeleteFunc(rest, func(x *Endpoint) bool { return x == e })
		}
		if e, ok := p.Pick(r); ok {
			t.Fatalf("all tried, but picked %s", e.ID)
		}
	}
}

// TestBound: under one hot key no endpoint gets more than its bound, the key
// comes home when its endpoint has room, and others' keys stay where they are.
func TestBound(t *testing.T) {
	for _, weights := range [][]int{{1, 1, 1, 1, 1}, {1, 2, 3, 4}, {1, 1}, {5}} {
		for _, balance := range []float64{1.01, 1.25, 2} {
			eps := fleet(weights...)
			p := hashing(func(c *HashConfig) { c.Balance = balance }).Build(eps).(*hashPicker)
			home, _ := p.Pick(Request{Key: 42, Now: now})
			var leases []*Endpoint
			for n := range 200 {
				e := take(t, p, 42)
				leases = append(leases, e)
				most := int(math.Ceil(balance * float64(n+1) * float64(e.Weight()) / p.weight))
				if e.InFlight() > most {
					t.Fatalf("weights %v, balance %v: %d of %d in flight at %s of weight %d, at most %d", weights, balance, e.InFlight(), n+1, e.ID, e.Weight(), most)
				}
			}
			if balance*float64(home.Weight()) < p.weight && home.InFlight() == 200 {
				t.Errorf("weights %v, balance %v: nothing spilled", weights, balance)
			}
			for _, e := range leases {
				give(p, e)
			}
			if e, _ := p.Pick(Request{Key: 42, Now: now}); e != home || p.total.Load() != 0 {
				t.Errorf("weights %v: the key is at %s, not %s, with %d in flight", weights, e.ID, home.ID, p.total.Load())
			}
		}
	}
}

func TestUnbounded(t *testing.T) {
	p := hashing(func(c *HashConfig) { c.Balance = 0 }).Build(equal(5)).(*hashPicker)
	home := take(t, p, 42)
	for range 100 {
		if e := take(t, p, 42); e != home {
			t.Fatalf("spilled to %s", e.ID)
		}
	}
	if p.Due(now) {
		t.Error("there is nothing to sum up")
	}
}

// TestSpillIsClockwise: what spills goes to the next endpoint, that is where the
// key would belong without the first, and to the same one each time.
func TestSpillIsClockwise(t *testing.T) {
	eps := equal(8)
	p := hashing(nil).Build(eps).(*hashPicker)
	for key := uint64(1); key < 100; key++ {
		home, _ := p.Pick(Request{Key: key, Now: now})
		second, _ := p.Pick(Request{Key: key, Now: now, Tried: triedOf(home)})
		hold(home, 5)
		for _, e := range eps {
			hold(e, 5)
		}
		p.Refresh(now)
		if e, _ := p.Pick(Request{Key: key, Now: now}); e != second {
			t.Errorf("key %d spills to %s, want %s", key, e.ID, second.ID)
		}
		for _, e := range eps {
			e.inFlight.Store(0)
		}
	}
}

// TestRampIsInTheBoundAlone: a slow start moves no key, but the endpoint gets
// less at once; and the others' bounds make up for it.
func TestRampIsInTheBoundAlone(t *testing.T) {
	eps := equal(4)
	p := hashing(nil).Build(eps).(*hashPicker)
	for i := range eps {
		eps[i].SetRamp(now, 10*time.Second)
		p.Refresh(now)
		q := hashing(nil).Build(eps).(*hashPicker)
		if !slices.Equal(p.ring.points, q.ring.points) {
			t.Fatal("a slow start moved points")
		}
		for range 400 {
			take(t, p, uint64(1+p.total.Load()))
		}
		if n := eps[i].InFlight(); n < 12 || n > 18 { // 1.25 * 400 * 0.1/3.1
			t.Errorf("%d of 400 in flight at an endpoint that starts with a tenth of its weight", n)
		}
		for _, e := range eps {
			e.inFlight.Store(0)
		}
		eps[i].SetRamp(0, 0)
		p.Refresh(now)
	}
	// All at once: shares are what they are without.
	for _, e := range eps {
		e.SetRamp(now, 10*time.Second)
	}
	p.Refresh(now)
	for range 400 {
		take(t, p, uint64(1+p.total.Load()))
	}
	for _, e := range eps {
		if n := e.InFlight(); n > 125 || n < 50 {
			t.Errorf("%d of 400 at one of four that start together", n)
		}
	}
}

// TestSetsAreKept: the ring is made anew for another set alone.
func TestSetsAreKept(t *testing.T) {
	eps := fleet(1, 2, 3, 4)
	p := hashing(nil)
	ring := func(eps ...*Endpoint) *uint64 { return &p.Build(eps).(*hashPicker).ring.points[0] }
	all := ring(eps...)
	eps[1].SetRamp(now, time.Second)
	HoldRamps(eps, now)
	if ring(eps...) != all {
		t.Error("made anew for a slow start")
	}
	some := ring(eps[1:]...)
	if ring(eps...) != all || ring(eps[1:]...) != some {
		t.Error("made anew for a set of a moment ago")
	}
	eps[0].SetWeight(5)
	heavy := ring(eps...)
	if heavy == all {
		t.Error("not made anew for another weight")
	}
	if twin := NewEndpoint(eps[3].ID, "127.0.0.1:1", 4, 0, nil); ring(eps[0], eps[1], eps[2], twin) == heavy {
		t.Error("not made anew for another endpoint of the same ID")
	}
	for i := range 10 {
		ring(eps[:1+i%4]...)
	}
	if n := len(p.sets.recent); n > 4 {
		t.Errorf("%d sets are kept", n)
	}
	for range 3 {
		eps[0].SetWeight(eps[0].Weight() + 60000) // large
		ring(eps...)
	}
	if n := len(p.sets.recent); n > 2 {
		t.Errorf("%d large sets are kept", n)
	}
}

// TestRecount: what Sent and Done miss is found by the next Refresh.
func TestRecount(t *testing.T) {
	eps := equal(2)
	p := hashing(nil).Build(eps).(*hashPicker)
	if !p.Due(now) {
		t.Error("not due long after the build")
	}
	p.Refresh(now)
	if p.Due(now+recountEvery-1) || !p.Due(now+recountEvery) {
		t.Error("due at another time than after recountEvery")
	}
	hold(eps[0], 7)
	for range 100 { // ends of requests at endpoints that have left
		p.Done(eps[0], now, 0, Result{})
	}
	home, ok := p.Pick(Request{Key: 1, Now: now})
	if !ok || home == nil {
		t.Fatal("no pick with a sum that has drifted below zero")
	}
	p.Refresh(now)
	if p.total.Load() != 7 {
		t.Errorf("%d in flight, want 7", p.total.Load())
	}
}

// TestBoundUnderConcurrency: with many goroutines at once the bound is missed by
// no more than there are of them, and the sum is right at the end.
func TestBoundUnderConcurrency(t *testing.T) {
	const workers, held = 8, 40
	eps := equal(5)
	p := hashing(nil).Build(eps).(*hashPicker)
	var wg sync.WaitGroup
	worst := make([]int, workers)
	for w := range workers {
		wg.Go(func() {
			var mine []*Endpoint
			for i := range 3000 {
				e, ok := p.Pick(Request{Key: 42, Now: now})
				if !ok || !e.TryReserve() {
					t.Error("no endpoint")
					return
				}
				p.Sent(e, now)
				if i%500 == 0 {
					p.Reported(e, now)
				}
				most := int(math.Ceil(1.25 * float64(workers*held+1) / 5))
				worst[w] = max(worst[w], e.InFlight()-most)
				if mine = append(mine, e); len(mine) == held {
					give(p, mine[0])
					mine = mine[1:]
				}
			}
			for _, e := range mine {
				give(p, e)
			}
		})
	}
	wg.Wait()
	if over := slices.Max(worst); over > workers {
		t.Errorf("over the bound by %d with %d at once", over, workers)
	}
	if p.total.Load() != 0 {
		t.Errorf("%d in flight at the end", p.total.Load())
	}
}

func TestHashExplain(t *testing.T) {
	eps := fleet(1, 2, 1, 1, 0)
	p := hashing(func(c *HashConfig) { c.On, c.Name = "header", "X-User" }).Build(eps).(*hashPicker)
	r := Request{Key: 42, Now: now}
	home, _ := p.Pick(r)
	hold(home, 9)
	p.Refresh(now)
	next, _ := p.Pick(r)
	r.Tried.Add(next)
	third, _ := p.Pick(r)
	third.SetLimit(1)
	fill(third)
	p.Refresh(now)
	got, _ := p.Pick(r)
	x := p.Explain(r)
	if x.Rule != p.Mode(now) || !strings.Contains(x.Rule, "header X-User") || !strings.Contains(x.Rule, "1.25") {
		t.Errorf("rule %q", x.Rule)
	}
	if len(x.Candidates) != 4 {
		t.Fatalf("%d candidates, want 4", len(x.Candidates))
	}
	for i, want := range []struct {
		e     *Endpoint
		out   string
		share float64
	}{{home, "bound of", 0}, {next, "tried", 0}, {third, "limit", 0}, {got, "", 1}} {
		c := x.Candidates[i]
		if c.Endpoint != want.e || !strings.Contains(c.Out, want.out) || (c.Out == "") != (want.out == "") || c.Share != want.share || c.Score != float64(i) {
			t.Errorf("candidate %d: %s, share %v, score %v, out %q; want %s, %q", i, c.Endpoint.ID, c.Share, c.Score, c.Out, want.e.ID, want.out)
		}
		if names := []string{c.Terms[0].Name, c.Terms[1].Name, c.Terms[2].Name, c.Terms[3].Name}; !slices.Equal(names, []string{"in_flight", "weight", "bound", "points_passed"}) {
			t.Errorf("terms %v", names)
		}
	}
	if x := p.Explain(Request{Now: now}); !strings.HasPrefix(x.Rule, "no key") || len(x.Candidates) != 4 {
		t.Errorf("without a key: %+v", x)
	}
	if x := hashing(nil).Build(nil).Explain(r); len(x.Candidates) != 0 {
		t.Errorf("of nothing: %+v", x)
	}
	for _, e := range eps {
		if e != third {
			hold(e, 100)
		}
	}
	p.Refresh(now)
	r.Tried = triedOf(eps...)
	if x := p.Explain(r); slices.ContainsFunc(x.Candidates, func(c Candidate) bool { return c.Out == "" || c.Share > 0 }) {
		t.Errorf("all tried: %+v", x)
	}
	r.Tried = triedOf(home, next, got)
	third.SetLimit(0)
	hold(third, 300)
	if x := p.Explain(r); !strings.Contains(x.Rule, "least in-flight") || x.Candidates[2].Out != "" || x.Candidates[2].Share != 1 || x.Candidates[0].Out == "" {
		t.Errorf("the only one left is over its bound: %+v", x)
	}
	for _, e := range eps {
		e.inFlight.Store(0)
	}
	p.Refresh(now)
	open := hashing(func(c *HashConfig) { c.Balance = 0 }).Build(eps).Explain(Request{Key: 42, Now: now})
	if c := open.Candidates[0]; c.Endpoint != home || c.Terms[2].Value != Absent || c.Share != 1 {
		t.Errorf("unbounded: %+v", c)
	}
}

// TestHashPickDoesNotAllocate with a key, in the states that take another way.
func TestHashPickDoesNotAllocate(t *testing.T) {
	for _, n := range []int{1, 2, 10, 1000} {
		eps := busyFleet(n)
		p := hashing(nil).Build(eps)
		r := Request{Key: 42, Now: now}
		check := func(state string) {
			t.Helper()
			if a := testing.AllocsPerRun(50, func() { r.Key++; p.Pick(r) }); a != 0 {
				t.Errorf("%d endpoints, %s: %v allocations", n, state, a)
			}
		}
		check("busy")
		eps[0].SetRamp(now, time.Minute)
		p.(Refresher).Refresh(now)
		check("ramping")
		for _, e := range eps[1:] {
			e.SetLimit(1)
			fill(e)
		}
		check("one has room")
		fill(eps[0])
		check("full")
	}
}
