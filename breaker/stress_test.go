package breaker

import (
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// TestStress has every endpoint of a service fail and heal under many
// requests. Whatever happens, at its end the guard holds a place for each
// breaker that is not closed, and no more, and it never held more than its cap.
func TestStress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const n, goroutines, rounds = 8, 32, 300
		start := time.Now()
		w := &world{clock: func() time.Duration { return time.Since(start) + time.Second }, rand: rand.Uint32N}
		cfg := DefaultConfig()
		cfg.BaseEjection, cfg.MaxEjection = 20*time.Millisecond, 200*time.Millisecond
		cfg.Window, cfg.BucketPeriod = time.Second, 100*time.Millisecond
		g := NewGuard(cfg.MaxEjectedPercent)
		g.SetTotal(n - 1) // that the last one may come back beside
		var eps [n]*Endpoint
		for i := range eps {
			eps[i] = NewEndpoint(&cfg, g, w.env())
		}
		var wg sync.WaitGroup
		for range goroutines {
			wg.Go(func() {
				for range rounds {
					i := rand.IntN(n)
					p, ok := eps[i].Admit(w.clock())
					time.Sleep(time.Duration(rand.IntN(5)) * time.Millisecond)
					v := []Verdict{Good, Good, Bad, Bad, Gone, Neutral}[rand.IntN(6)]
					if i == 0 {
						v = Gone
					}
					if ok || rand.IntN(4) == 0 {
						eps[i].Report(p, v, w.clock())
					}
					if got := g.Ejected(); got < 0 || got >= n {
						t.Errorf("%d of %d ejected", got, n)
					}
				}
			})
		}
		wg.Go(func() { // Consul's health comes and goes as well
			for range rounds {
				eps[n-1].SetEligible(rand.IntN(2) == 0)
				time.Sleep(3 * time.Millisecond)
			}
			eps[n-1].SetEligible(true)
		})
		wg.Wait()
		open, ejections := 0, uint64(0)
		for _, e := range eps {
			if State(e.c.state.Load()) != Closed {
				open++
			}
			ejections += e.Ejections()
		}
		if g.Ejected() != open || ejections < n {
			t.Errorf("the guard holds %d places, %d breakers are not closed (%d ejections)", g.Ejected(), open, ejections)
		}
		for _, e := range eps {
			time.Sleep(max(0, e.Until()-w.clock()))
			if p, ok := e.Admit(w.clock()); ok {
				e.Report(p, Good, w.clock())
			}
			if s := e.State(w.clock()); s != Closed {
				t.Errorf("state %v after a success: a probe was lost", s)
			}
		}
		if g.Ejected() != 0 {
			t.Errorf("%d places are taken by nobody", g.Ejected())
		}
	})
}
