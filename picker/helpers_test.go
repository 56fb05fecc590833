package picker

import (
	"fmt"
	"math"
	"slices"
	"sync/atomic"
	"testing"
	"time"
)

// seeded returns a reproducible Rand that many goroutines may share:
// splitmix64 over an atomic counter.
func seeded(seed uint64) Rand {
	var state atomic.Uint64
	state.Store(seed)
	return func(n uint32) uint32 {
		z := state.Add(0x9e3779b97f4a7c15)
		z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
		z = (z ^ z>>27) * 0x94d049bb133111eb
		return uint32((z >> 32) * uint64(n) >> 32)
	}
}

// policy returns the named policy with defaults.
func policy(t testing.TB, name string, rand Rand) Policy {
	t.Helper()
	c := DefaultConfig()
	c.Policy = name
	p, err := New(c, rand)
	if err != nil {
		t.Fatal(err)
	}
	if p.Name() != name {
		t.Fatalf("policy %q calls itself %q", name, p.Name())
	}
	return p
}

// fleet makes an endpoint without a limit for each weight.
func fleet(weights ...int) []*Endpoint {
	eps := make([]*Endpoint, len(weights))
	for i, w := range weights {
		eps[i] = NewEndpoint(fmt.Sprint("n/", i), fmt.Sprint("127.0.0.1:", 8000+i), w, 0, nil)
	}
	return eps
}

// equal makes n endpoints of weight 1.
func equal(n int) []*Endpoint {
	w := make([]int, n)
	for i := range w {
		w[i] = 1
	}
	return fleet(w...)
}

// hold puts n more requests in flight at e, whatever its limit.
func hold(e *Endpoint, n int) {
	e.inFlight.Add(int64(n))
	e.touched()
}

// fill brings e to its limit.
func fill(e *Endpoint) {
	for e.TryReserve() {
	}
}

// now is the time of picks in tests that do not move it.
const now = 100 * time.Second

// lifetime is how long the reports of live are believed.
const lifetime = 3 * time.Second

// live is a report of this moment: cores idle, nobody else there.
func live(cores, avail, inFlight float64) *Load {
	return &Load{
		At: now, InFlight: inFlight, OwnInFlight: 0, Cores: cores, Avail: avail,
		CPU: Absent, Mem: Absent, Conc: avail, Err: Absent, Listening: true,
		Expires: now + lifetime,
	}
}

// rampTo puts e at the given share of its weight in a slow start, as of now.
func rampTo(e *Endpoint, share float64) {
	const length = 100 * time.Second
	e.SetRamp(now-time.Duration(share*float64(length)), length)
}

// keyAt is a different key for each i, never 0 (which is none).
func keyAt(i int) uint64 {
	z := (uint64(i) + 1) * 0x9e3779b97f4a7c15
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	return (z ^ z>>27) | 1
}

// build makes a picker as the balancer does.
func build(p Policy, ready []*Endpoint) Picker {
	HoldRamps(ready, now)
	k := p.Build(ready)
	refresh(k, now)
	return k
}

func refresh(k Picker, now time.Duration) {
	if r, ok := k.(Refresher); ok {
		r.Refresh(now)
	}
}

// held is a request that was given a slot, as the balancer's lease.
type held struct {
	ep    *Endpoint
	sent  float32
	since time.Duration
}

// acquire picks and reserves once.
func acquire(k Picker, r Request) (held, bool) {
	e, ok := k.Pick(r)
	if !ok || !e.TryReserve() {
		return held{}, false
	}
	h := held{ep: e, since: r.Now}
	if o, ok := k.(Observer); ok {
		h.sent = o.Sent(e, r.Now)
	}
	return h, true
}

// end ends the request; k may be another picker than that which picked.
func (h held) end(k Picker, now time.Duration, r Result) {
	r.Age = now - h.since
	if o, ok := k.(Observer); ok {
		o.Done(h.ep, now, h.sent, r)
	}
	h.ep.Finish(now, r)
}

// count picks n times without reserving and counts by position in eps. Each
// pick has a key of its own unless r brings one.
func count(t testing.TB, p Picker, eps []*Endpoint, n int, r Request) []int {
	t.Helper()
	at := make(map[*Endpoint]int, len(eps))
	for i, e := range eps {
		at[e] = i
	}
	got := make([]int, len(eps))
	keyed := r.Key != 0
	for j := range n {
		if !keyed {
			r.Key = keyAt(j)
		}
		e, ok := p.Pick(r)
		if !ok {
			t.Fatal("no endpoint picked")
		}
		i, known := at[e]
		if !known {
			t.Fatalf("picked %q, which is not in the set", e.ID)
		}
		got[i]++
	}
	return got
}

// fits fails unless the counts fit the shares by a chi-square test. Seeds are
// fixed, so it gives the same answer on every run; the bound is that which
// chance exceeds once in 30,000 (Wilson and Hilferty's approximation, z = 4).
func fits(t testing.TB, what string, got []int, share []float64) {
	t.Helper()
	var n, total float64
	for i := range got {
		n += float64(got[i])
		total += share[i]
	}
	var chi2 float64
	free := -1.0
	for i := range got {
		want := n * share[i] / total
		if want == 0 {
			if got[i] != 0 {
				t.Errorf("%s: %d picks of position %d, want none", what, got[i], i)
			}
			continue
		}
		free++
		chi2 += (float64(got[i]) - want) * (float64(got[i]) - want) / want
	}
	if free < 1 {
		return
	}
	h := 2 / (9 * free)
	if bound := free * math.Pow(1-h+4*math.Sqrt(h), 3); chi2 > bound {
		t.Errorf("%s: counts %v do not fit the shares %v: chi-square %.1f, at most %.1f", what, got, share, chi2, bound)
	}
}

// sharesOf are the endpoints' weights as shares for fits.
func sharesOf(eps []*Endpoint) []float64 {
	s := make([]float64, len(eps))
	for i, e := range eps {
		s[i] = float64(e.Weight())
	}
	return s
}

func triedOf(eps ...*Endpoint) (t Tried) {
	for _, e := range eps {
		t.Add(e)
	}
	return t
}

// steady keeps so many requests open that for each new one another ends, drawn
// at random, and counts rounds of them once all are open.
func steady(t testing.TB, k Picker, eps []*Endpoint, open, rounds int) []int {
	t.Helper()
	rand := seeded(uint64(open))
	got := make([]int, len(eps))
	var leases []held
	for i := range open + rounds {
		h, ok := acquire(k, Request{Now: now, Key: keyAt(i)})
		if !ok {
			t.Fatal("no endpoint picked")
		}
		if i < open {
			leases = append(leases, h)
			continue
		}
		j := rand(uint32(open))
		leases[j].end(k, now, Result{Outcome: Ignore})
		leases[j] = h
		got[slices.Index(eps, h.ep)]++
	}
	for _, h := range leases {
		h.end(k, now, Result{Outcome: Ignore})
	}
	return got
}
