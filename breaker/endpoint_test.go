package breaker

import (
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func TestConsecutiveFailuresTrip(t *testing.T) {
	for _, n := range []int{1, 3, 7} {
		bubble(t, func(t *testing.T, w *world) {
			cfg := DefaultConfig()
			cfg.ConsecutiveFailures = n
			e := w.endpoint(t, cfg)
			e.send(times(n-1, Bad)...)
			e.want(Closed)
			e.send(Bad)
			e.want(Open)
			if e.Ejections() != 1 || w.changes.Load() != 1 {
				t.Errorf("%d ejections, %d changes told", e.Ejections(), w.changes.Load())
			}
		})
	}
}

func TestSuccessBetweenResets(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		cfg := DefaultConfig()
		cfg.MinRequests = 1e6
		e := w.endpoint(t, cfg)
		e.send(times(50, Bad, Bad, Good)...)
		e.want(Closed)
		e.send(times(50, Bad, Neutral, Bad, Neutral, Good)...)
		e.want(Closed)
		e.send(Bad, Neutral, Bad, Neutral, Bad) // what is neutral resets nothing
		e.want(Open)
	})
}

func ratioOnly() Config {
	cfg := DefaultConfig()
	cfg.ConsecutiveFailures = 1000
	return cfg
}

func TestRatioTrips(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		e := w.endpoint(t, ratioOnly())
		e.send(times(10, Bad, Good)...) // 20 requests, but trips are for failures
		e.want(Closed)
		e.send(Bad)
		e.want(Open)
	})
	bubble(t, func(t *testing.T, w *world) {
		e := w.endpoint(t, ratioOnly())
		e.send(times(200, Bad, Good, Good)...) // a third
		e.want(Closed)
	})
	bubble(t, func(t *testing.T, w *world) { // the window starts to fill at the first failure
		e := w.endpoint(t, ratioOnly())
		e.send(times(1000, Good)...)
		e.send(times(19, Bad)...)
		e.want(Closed)
		e.send(Bad)
		e.want(Open)
	})
}

func TestWindowForgets(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) { // failures in a row
		e := w.endpoint(t, DefaultConfig())
		e.send(Bad, Bad)
		time.Sleep(e.cfg.Window + e.cfg.BucketPeriod)
		e.send(Bad, Bad)
		e.want(Closed)
		e.send(Bad)
		e.want(Open)
	})
	bubble(t, func(t *testing.T, w *world) { // and the ratio, bucket by bucket
		e := w.endpoint(t, ratioOnly())
		for range 300 {
			e.send(Bad)
			time.Sleep(700 * time.Millisecond) // 15 in a window, of which 20 would trip
		}
		e.want(Closed)
		for range 60 { // 34 in a window
			if e.State(w.clock()) == Open {
				return
			}
			e.send(Bad)
			time.Sleep(300 * time.Millisecond)
		}
		t.Error("20 failures within a window did not trip")
	})
}

// TestEjectionGrows: 1, 2, 4 ... 30 s, each with up to a quarter more.
func TestEjectionGrows(t *testing.T) {
	for name, chance := range map[string]func(uint32) uint32{"least": least, "most": most} {
		bubble(t, func(t *testing.T, w *world) {
			w.rand = chance
			e := w.endpoint(t, DefaultConfig())
			e.send(Bad, Bad, Bad)
			for i, seconds := range []float64{1, 2, 4, 8, 16, 30, 30, 30} {
				got, want := e.openFor().Seconds(), seconds
				if name == "most" {
					want *= 1.25
				}
				if got > want || got < want-0.001 {
					t.Fatalf("%s: ejection %d lasts %v s, want %v", name, i+1, got, want)
				}
				e.want(Open)
				time.Sleep(e.openFor() - 1)
				e.want(Open)
				time.Sleep(time.Nanosecond)
				e.Report(e.probe(), Bad, w.clock())
				if e.Ejections() != uint64(i+2) {
					t.Fatalf("%d ejections", e.Ejections())
				}
			}
		})
	}
}

// TestOpenForStaysInBounds: for every base that the configuration allows,
// however long the streak.
func TestOpenForStaysInBounds(t *testing.T) {
	for _, base := range []time.Duration{10 * time.Millisecond, time.Second, 30 * time.Second, 10 * time.Minute, time.Hour} {
		for _, longest := range []time.Duration{base, time.Hour} {
			c := newCircuit(Env{Rand: least}, time.Second, time.Second, base, longest)
			last := base
			for n := 1; n <= 200; n++ {
				d := c.openFor(n)
				if d < last || d > longest || n == 1 && d != base || n == 200 && d != longest {
					t.Fatalf("base %v, longest %v: ejection %d lasts %v after %v", base, longest, n, d, last)
				}
				last = d
			}
		}
	}
}

func TestEjectionIsForgiven(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		e := w.endpoint(t, DefaultConfig())
		trip := func(want time.Duration) {
			t.Helper()
			e.send(Bad, Bad, Bad)
			if e.openFor() != want {
				t.Fatalf("ejected for %v, want %v", e.openFor(), want)
			}
			e.waitOut()
			e.Report(e.probe(), Good, w.clock())
			e.want(Closed)
		}
		trip(time.Second)
		trip(2 * time.Second)
		time.Sleep(e.cfg.MaxEjection - time.Millisecond)
		trip(4 * time.Second)
		time.Sleep(e.cfg.MaxEjection)
		trip(time.Second)
		trip(2 * time.Second)
	})
}

func TestHalfOpenAdmitsOne(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		e := w.endpoint(t, DefaultConfig())
		e.send(Bad, Bad, Bad)
		e.waitOut()
		var probes atomic.Int64
		var wg sync.WaitGroup
		got := make(chan Probe, 100)
		for range 100 {
			wg.Go(func() {
				if p, ok := e.Admit(w.clock()); ok {
					probes.Add(1)
					got <- p
				}
			})
		}
		wg.Wait()
		if probes.Load() != 1 {
			t.Fatalf("%d probes at once", probes.Load())
		}
		e.want(HalfOpen)
		time.Sleep(time.Minute) // it is not given up on: its lease ends some time
		if _, ok := e.Admit(w.clock()); ok {
			t.Error("a second probe")
		}
		e.Report(<-got, Good, w.clock())
		e.want(Closed)
		e.send(times(10, Good)...)
		if e.Ejections() != 1 || w.changes.Load() != 3 {
			t.Errorf("%d ejections, %d changes told", e.Ejections(), w.changes.Load())
		}
	})
}

// TestNeutralProbeFreesItsSlot: else the endpoint would be lost for ever.
func TestNeutralProbeFreesItsSlot(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		e := w.endpoint(t, DefaultConfig())
		e.send(Bad, Bad, Bad)
		e.waitOut()
		for range 20 {
			p := e.probe()
			if _, ok := e.Admit(w.clock()); ok {
				t.Fatal("a second probe")
			}
			e.Report(p, Neutral, w.clock())
			e.want(HalfOpen)
			time.Sleep(time.Second)
		}
		e.Report(e.probe(), Good, w.clock())
		e.want(Closed)
	})
}

// TestLateResultsAreDropped: requests that began before an ejection and end
// while it lasts, while its probe is out, or after it, say nothing new.
func TestLateResultsAreDropped(t *testing.T) {
	for _, late := range []Verdict{Good, Bad, Gone, Neutral} {
		bubble(t, func(t *testing.T, w *world) {
			e := w.endpoint(t, DefaultConfig())
			admit := func() Probe {
				p, ok := e.Admit(w.clock())
				if !ok {
					t.Fatal("turned away while closed")
				}
				return p
			}
			var begun []Probe
			for range 15 {
				begun = append(begun, admit())
			}
			end := func() {
				for _, p := range begun[:5] {
					e.Report(p, late, w.clock())
				}
				begun = begun[5:]
			}
			e.send(Bad, Bad, Bad)
			until := e.Until()
			end()
			e.want(Open)
			if e.Until() != until {
				t.Errorf("late results moved the expiry")
			}
			time.Sleep(e.openFor())
			probe := e.probe()
			end()
			e.want(HalfOpen)
			e.Report(probe, Good, w.clock())
			end()
			e.want(Closed)
			e.send(Bad, Bad) // the count starts from nothing
			e.want(Closed)
			e.send(Bad)
			e.want(Open)
		})
	}
}

// TestPanicResultsAreDropped: a request sent to an ejected endpoint because all
// were, against Admit's word.
func TestPanicResultsAreDropped(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		e := w.endpoint(t, DefaultConfig())
		e.send(Bad, Bad, Bad)
		p, ok := e.Admit(w.clock())
		if ok {
			t.Fatal("admitted while open")
		}
		for _, v := range []Verdict{Good, Bad, Gone, Neutral} {
			e.Report(p, v, w.clock())
			e.want(Open)
		}
		e.waitOut()
		e.Report(e.probe(), Good, w.clock())
		for range 5 {
			e.Report(p, Bad, w.clock()) // ends after the return
		}
		e.want(Closed)
	})
}

func TestGoneEjectsAtOnce(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		e := w.endpoint(t, DefaultConfig())
		e.send(times(100, Good)...)
		e.send(Gone)
		e.want(Open)
		e.waitOut()
		e.Report(e.probe(), Gone, w.clock())
		if e.openFor() != 2*time.Second {
			t.Errorf("ejected again for %v", e.openFor())
		}
	})
}

// TestHealthyIsFree: no allocation and no lock, which the test itself holds
// (were it taken, the test would hang).
func TestHealthyIsFree(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		e := w.endpoint(t, DefaultConfig())
		free := func(what string) {
			t.Helper()
			e.c.mu.Lock()
			defer e.c.mu.Unlock()
			if a := testing.AllocsPerRun(1000, func() { e.send(Good, Neutral) }); a != 0 {
				t.Errorf("%s: %v allocations", what, a)
			}
		}
		free("new")
		e.send(Bad, Good)
		if !e.dirty.Load() {
			t.Error("successes after a failure are not counted")
		}
		time.Sleep(e.cfg.Window + 1)
		e.send(Good)
		free("a window after a failure")
		e.send(Gone)
		e.waitOut()
		e.Report(e.probe(), Good, w.clock())
		free("back from an ejection")
	})
}

// TestInjectedClock: ejections follow the injected clock, not the machine's.
func TestInjectedClock(t *testing.T) {
	var now atomic.Int64
	now.Store(int64(time.Hour))
	w := &world{clock: func() time.Duration { return time.Duration(now.Load()) }, rand: least}
	e := w.endpoint(t, DefaultConfig())
	e.send(Bad, Bad, Bad)
	e.want(Open)
	now.Add(int64(time.Second) - 1)
	e.want(Open)
	now.Add(1)
	e.Report(e.probe(), Good, w.clock())
	e.want(Closed)
}
