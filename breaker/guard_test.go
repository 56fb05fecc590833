package breaker

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sony/gobreaker/v2"
)

// service makes n breakers behind one guard.
func (w *world) service(t testing.TB, cfg Config, n int) ([]*one, *Guard) {
	g := NewGuard(cfg.MaxEjectedPercent)
	g.SetTotal(n)
	eps := make([]*one, n)
	for i := range eps {
		eps[i] = &one{NewEndpoint(&cfg, g, w.env()), t, w, g}
	}
	return eps, g
}

// TestGuardCaps: failing endpoints are ejected up to the share, rounded down,
// those that refuse connections but for the last one; never the last one.
func TestGuardCaps(t *testing.T) {
	for _, c := range []struct{ total, percent, failing, gone int }{
		{1, 50, 0, 0}, {1, 100, 0, 0}, {2, 50, 1, 1}, {2, 49, 0, 1}, {3, 50, 1, 2}, {4, 50, 2, 3}, {5, 50, 2, 4},
		{10, 0, 0, 9}, {10, 10, 1, 9}, {10, 99, 9, 9}, {10, 100, 9, 9},
	} {
		for v, want := range map[Verdict]int{Bad: c.failing, Gone: c.gone} {
			bubble(t, func(t *testing.T, w *world) {
				cfg := DefaultConfig()
				cfg.MaxEjectedPercent = c.percent
				eps, g := w.service(t, cfg, c.total)
				for _, e := range eps {
					for range 50 {
						if e.State(w.clock()) == Closed {
							e.send(v)
						}
					}
				}
				out := 0
				for _, e := range eps {
					if e.State(w.clock()) == Open {
						out++
					}
				}
				if out != want || g.Ejected() != want {
					t.Errorf("%d endpoints, %d %%, verdict %d: %d are out, the guard says %d, want %d",
						c.total, c.percent, v, out, g.Ejected(), want)
				}
			})
		}
	}
}

// TestGuardFreesPlaces: who was spared for lack of a place is ejected by the
// next failure once there is one, for it went on being counted.
func TestGuardFreesPlaces(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		eps, g := w.service(t, DefaultConfig(), 2)
		eps[0].send(Bad, Bad, Bad)
		eps[1].send(times(30, Bad)...)
		eps[1].send(Gone, Gone)
		if eps[1].State(w.clock()) != Closed || g.Ejected() != 1 {
			t.Fatal("the last endpoint was ejected")
		}
		eps[0].waitOut()
		eps[1].send(Bad) // half-open is still out
		if g.Ejected() != 1 {
			t.Fatalf("%d of 2 out", g.Ejected())
		}
		eps[0].Report(eps[0].probe(), Good, w.clock())
		eps[1].send(Bad)
		if eps[1].State(w.clock()) != Open || g.Ejected() != 1 {
			t.Error("a free place was not taken")
		}
	})
}

// TestFailureBelowTripTakesNoPlace, not even for a moment: it would spare
// another endpoint that fails at the same time.
func TestFailureBelowTripTakesNoPlace(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		eps, g := w.service(t, DefaultConfig(), 2)
		var saw int
		trip := eps[0].c.trip
		eps[0].c.trip = func(n gobreaker.Counts, gone bool) bool {
			yes := trip(n, gone)
			saw += g.Ejected()
			return yes
		}
		eps[0].send(Bad, Bad)
		if saw != 0 || g.Ejected() != 0 {
			t.Error("a place was held without an ejection")
		}
		eps[1].send(Gone)
		if eps[1].State(w.clock()) != Open {
			t.Error("not ejected at once")
		}
	})
}

func TestRetireFreesPlaces(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		eps, g := w.service(t, DefaultConfig(), 6)
		closed, open, probed, failed := eps[0], eps[1], eps[2], eps[3]
		late, _ := closed.Admit(w.clock())
		for _, e := range eps[1:4] {
			e.send(Gone)
		}
		time.Sleep(time.Second)
		good, bad := probed.probe(), failed.probe()
		for _, e := range eps[:4] {
			e.Retire()
			e.Retire()
		}
		if g.Ejected() != 0 {
			t.Fatalf("%d places are held after all have left", g.Ejected())
		}
		closed.Report(late, Gone, w.clock())
		closed.send(Bad, Bad, Bad, Gone)
		open.Report(open.probe(), Neutral, w.clock())
		probed.Report(good, Good, w.clock())
		failed.Report(bad, Bad, w.clock())
		if g.Ejected() != 0 || closed.State(w.clock()) != Closed {
			t.Errorf("results after the end: %d places, %v", g.Ejected(), closed.State(w.clock()))
		}
	})
}

// TestIneligibleHoldsNoPlace: a backend that dies is ejected and soon critical
// in Consul. It is not in the total then, and must not use up the places of
// those that are.
func TestIneligibleHoldsNoPlace(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		eps, g := w.service(t, DefaultConfig(), 3)
		eps[0].send(Gone)
		eps[0].SetEligible(true) // as it was
		if g.Ejected() != 1 {
			t.Fatalf("%d places", g.Ejected())
		}
		eps[0].SetEligible(false)
		g.SetTotal(2)
		eps[1].send(Gone)
		if eps[1].State(w.clock()) != Open || g.Ejected() != 1 {
			t.Fatalf("one of two left is %v, %d places", eps[1].State(w.clock()), g.Ejected())
		}
		// It comes back, still ejected: its place is counted, free or not.
		eps[0].SetEligible(true)
		g.SetTotal(3)
		if g.Ejected() != 2 || eps[0].State(w.clock()) != Open {
			t.Fatalf("%d places", g.Ejected())
		}
		eps[2].send(times(10, Gone)...)
		if g.Ejected() != 2 {
			t.Fatal("the last one was ejected")
		}
		time.Sleep(time.Second)
		for i, e := range eps[:2] {
			e.Report(e.probe(), Good, w.clock())
			if g.Ejected() != 1-i {
				t.Errorf("%d places", g.Ejected())
			}
		}
		// What ends while it is out of sight ejects nothing, and its probe's
		// slot is freed.
		eps[0].send(Gone)
		time.Sleep(eps[0].openFor())
		p := eps[0].probe()
		eps[0].SetEligible(false)
		eps[0].Report(p, Bad, w.clock())
		if g.Ejected() != 0 || eps[0].State(w.clock()) != Open {
			t.Errorf("%d places, %v", g.Ejected(), eps[0].State(w.clock()))
		}
		eps[0].SetEligible(true)
		eps[0].waitOut()
		eps[0].Report(eps[0].probe(), Good, w.clock())
		eps[0].want(Closed)
	})
}

// TestGuardNeverOvershoots has many compete for the one place of a pair.
func TestGuardNeverOvershoots(t *testing.T) {
	g := NewGuard(50)
	g.SetTotal(2)
	var inside, got atomic.Int64
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for range 5000 {
				if !g.enter(i%2 == 0) {
					continue
				}
				if n := inside.Add(1); n > 1 {
					t.Errorf("%d hold the one place", n)
				}
				got.Add(1)
				inside.Add(-1)
				g.leave()
			}
		})
	}
	wg.Wait()
	if g.Ejected() != 0 || got.Load() == 0 {
		t.Errorf("%d places held after %d all left", g.Ejected(), got.Load())
	}
}

// TestGuardConcurrently: however many fail at once, the cap holds.
func TestGuardConcurrently(t *testing.T) {
	for _, v := range []Verdict{Bad, Gone} {
		t.Run(fmt.Sprint(v), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				start := time.Now()
				w := &world{clock: func() time.Duration { return time.Since(start) + time.Second }, rand: least}
				const n = 20
				eps, g := w.service(t, DefaultConfig(), n)
				var worst atomic.Int64
				var wg sync.WaitGroup
				for _, e := range eps {
					for range 3 {
						wg.Go(func() {
							for range 20 {
								p, ok := e.Admit(w.clock())
								if ok {
									e.Report(p, v, w.clock())
								}
								worst.Store(max(worst.Load(), int64(g.Ejected())))
							}
						})
					}
				}
				wg.Wait()
				want := n / 2
				if v == Gone {
					want = n - 1
				}
				if g.Ejected() != want || worst.Load() > int64(want) {
					t.Errorf("%d out, at worst %d, want %d", g.Ejected(), worst.Load(), want)
				}
			})
		})
	}
}
