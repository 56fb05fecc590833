package picker

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"
)

// busyFleet has unequal weights, limits, requests in flight and live figures.
func busyFleet(n int) []*Endpoint {
	eps := equal(n)
	for i, e := range eps {
		e.SetWeight(1 + i%10)
		e.SetLimit(1024)
		hold(e, i*7%13)
		e.SetLoad(live(4, 0.5+float64(i%8)/2, float64(i%20)))
	}
	return eps
}

// built returns a picker over them that knows what it can know.
func built(t testing.TB, name string, rand Rand, eps []*Endpoint) Picker {
	k := policy(t, name, rand).Build(eps)
	if o, ok := k.(Observer); ok {
		for _, e := range eps {
			o.Reported(e, now)
			o.Done(e, now, o.Sent(e, now), good)
		}
	}
	refresh(k, now)
	return k
}

// good is how requests end here.
var good = Result{Outcome: Success, FirstByte: 20 * time.Millisecond, Total: 21 * time.Millisecond}

// serveOne is what package balance does for a request, without the breakers.
func serveOne(k Picker, r Request) {
	if h, ok := acquire(k, r); ok {
		h.end(k, r.Now, good)
	}
}

var benchSizes = []int{10, 100, 1000, 10000}

// TestNothingAllocates, in any of the states that take another way through the
// code: busy, idle, with endpoints tried, without figures, nearly full, full.
func TestNothingAllocates(t *testing.T) {
	for _, name := range Names() {
		for _, n := range []int{1, 2, 10, 10000} {
			eps := busyFleet(n)
			k := built(t, name, seeded(1), eps)
			check := func(state string, r Request) {
				t.Helper()
				for what, f := range map[string]func(){
					"a pick":    func() { r.Key += 0x9e3779b97f4a7c15; k.Pick(r) },
					"a request": func() { r.Key += 0x9e3779b97f4a7c15; serveOne(k, r) },
				} {
					if a := testing.AllocsPerRun(20, f); a != 0 {
						t.Errorf("%s, %d endpoints, %s: %v allocations for %s", name, n, state, a, what)
					}
				}
			}
			check("busy", Request{Now: now})
			check("tried", Request{Now: now, Tried: triedOf(eps[0], eps[n/2])})
			check("expired", Request{Now: now + time.Hour})
			refresh(k, now+time.Hour)
			check("expired and refreshed", Request{Now: now + time.Hour})
			for _, e := range eps[1:] {
				e.SetLimit(1)
				fill(e)
			}
			check("one has room", Request{Now: now})
			eps[0].SetLimit(1)
			fill(eps[0])
			check("full", Request{Now: now})
		}
	}
}

// fleets are the states that a policy's cost may depend on.
var fleets = []struct {
	name string
	of   func(n int) []*Endpoint
}{
	{"busy", busyFleet},
	{"idle", equal},
	{"half_full", func(n int) []*Endpoint {
		eps := busyFleet(n)
		for i, e := range eps {
			if i%2 == 0 {
				e.SetLimit(1)
				hold(e, 1)
			}
		}
		return eps
	}},
}

// bench runs f for every policy, size and fleet, alone and from all cores.
func bench(b *testing.B, f func(k Picker, r Request)) {
	for _, name := range Names() {
		for _, n := range benchSizes {
			for _, fleet := range fleets {
				k := built(b, name, rand.Uint32N, fleet.of(n))
				run := fmt.Sprintf("%s/%d/%s", name, n, fleet.name)
				b.Run(run, func(b *testing.B) {
					b.ReportAllocs()
					r := Request{Now: now}
					for b.Loop() {
						r.Key += 0x9e3779b97f4a7c15
						f(k, r)
					}
				})
				b.Run(run+"/parallel", func(b *testing.B) {
					b.ReportAllocs()
					b.RunParallel(func(pb *testing.PB) {
						r := Request{Now: now, Key: rand.Uint64()}
						for pb.Next() {
							r.Key += 0x9e3779b97f4a7c15
							f(k, r)
						}
					})
				})
			}
		}
	}
}

func BenchmarkPick(b *testing.B) {
	bench(b, func(k Picker, r Request) { k.Pick(r) })
}

// BenchmarkRequest is pick, reservation, what the policy learns, and end.
func BenchmarkRequest(b *testing.B) {
	bench(b, serveOne)
}

// BenchmarkBuild is what a change of the set or of a weight costs, off the
// request path; the one before it is in use meanwhile.
func BenchmarkBuild(b *testing.B) {
	for _, name := range Names() {
		for _, n := range benchSizes {
			p, eps := policy(b, name, rand.Uint32N), busyFleet(n)
			b.Run(fmt.Sprintf("%s/%d", name, n), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					refresh(p.Build(eps), now)
				}
			})
		}
	}
}
