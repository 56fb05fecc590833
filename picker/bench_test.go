package picker

import (
	"fmt"
	"math/rand/v2"
	"testing"
)

// busyFleet has unequal weights, limits, requests in flight and live figures.
func busyFleet(n int) []*Endpoint {
	eps := equal(n)
	for i, e := range eps {
		e.SetWeight(1 + i%4)
		e.SetLimit(1024)
		hold(e, i*7%13)
		e.SetLoad(live(4, 0.5+float64(i%8)/2, float64(i%20)))
	}
	return eps
}

// TestPickDoesNotAllocate, in any of the states that take another way through
// the code: idle, busy, nearly all full, all full, tried, and without figures.
func TestPickDoesNotAllocate(t *testing.T) {
	for _, name := range Names() {
		for _, n := range []int{1, 2, 10, 1000} {
			eps := busyFleet(n)
			k := policy(t, name, seeded(1)).Build(eps)
			check := func(state string, r Request) {
				t.Helper()
				if a := testing.AllocsPerRun(50, func() { k.Pick(r) }); a != 0 {
					t.Errorf("%s, %d endpoints, %s: %v allocations", name, n, state, a)
				}
			}
			check("busy", Request{Now: now})
			check("tried", Request{Now: now, Tried: triedOf(eps[0], eps[n/2])})
			check("expired", Request{Now: now * 2})
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

func BenchmarkPick(b *testing.B) {
	for _, name := range Names() {
		for _, n := range []int{10, 100, 10000} {
			k := policy(b, name, rand.Uint32N).Build(busyFleet(n))
			b.Run(fmt.Sprintf("%s/%d", name, n), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					k.Pick(Request{Now: now})
				}
			})
			b.Run(fmt.Sprintf("%s/%d/parallel", name, n), func(b *testing.B) {
				b.ReportAllocs()
				b.RunParallel(func(pb *testing.PB) {
					for pb.Next() {
						k.Pick(Request{Now: now})
					}
				})
			})
		}
	}
}

// BenchmarkReserve is pick, reservation and end together, as a request does.
func BenchmarkReserve(b *testing.B) {
	for _, name := range Names() {
		k := policy(b, name, rand.Uint32N).Build(busyFleet(10))
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if e, ok := k.Pick(Request{Now: now}); ok && e.TryReserve() {
						e.Finish(now, Result{Outcome: Success, FirstByte: 1e6})
					}
				}
			})
		})
	}
}

func BenchmarkBuild(b *testing.B) {
	for _, name := range Names() {
		for _, n := range []int{100, 10000} {
			p, eps := policy(b, name, rand.Uint32N), busyFleet(n)
			b.Run(fmt.Sprintf("%s/%d", name, n), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					p.Build(eps)
				}
			})
		}
	}
}
