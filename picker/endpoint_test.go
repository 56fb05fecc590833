package picker

import (
	"math"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func TestTryReserveLimit(t *testing.T) {
	e := NewEndpoint("a", "127.0.0.1:1", 1, 3, nil)
	for i := range 3 {
		if !e.HasRoom() || !e.TryReserve() {
			t.Fatalf("no room for request %d of 3", i+1)
		}
	}
	if e.HasRoom() || e.TryReserve() || e.InFlight() != 3 {
		t.Fatalf("over the limit: %d in flight", e.InFlight())
	}
	e.SetLimit(2) // those above it are left to finish
	e.Cancel()
	if e.TryReserve() {
		t.Error("reserved at the lowered limit")
	}
	e.Cancel()
	if !e.TryReserve() {
		t.Error("no room below the lowered limit")
	}
	e.SetLimit(0)
	for range 1000 {
		if !e.TryReserve() {
			t.Fatal("refused without a limit")
		}
	}
	if e.InFlight() != 1002 {
		t.Errorf("%d in flight, want 1002", e.InFlight())
	}
}

func TestNegativeSettingsAreZero(t *testing.T) {
	e := NewEndpoint("a", "127.0.0.1:1", -3, -1, nil)
	if e.Weight() != 0 || e.Limit() != 0 || !e.TryReserve() {
		t.Errorf("weight %d, limit %d", e.Weight(), e.Limit())
	}
}

// TestTryReserveNeverOvershoots counts holders beside the endpoint: at no
// moment are there more than the limit.
func TestTryReserveNeverOvershoots(t *testing.T) {
	neverOvershoots(t, 1, func() {})
	neverOvershoots(t, 5, runtime.Gosched) // lets others try while it is full
}

func neverOvershoots(t *testing.T, limit int, hold func()) {
	const goroutines, rounds = 16, 3000
	e := NewEndpoint("a", "127.0.0.1:1", 1, limit, nil)
	var holders, got atomic.Int64
	var wg sync.WaitGroup
	for g := range goroutines {
		wg.Go(func() {
			for i := range rounds {
				if !e.TryReserve() {
					continue
				}
				if n := holders.Add(1); n > int64(limit) {
					t.Errorf("%d holders at a limit of %d", n, limit)
				}
				got.Add(1)
				hold()
				holders.Add(-1)
				if (g+i)%3 == 0 {
					e.Cancel()
				} else {
					e.Finish(now, Result{Outcome: Outcome(i % 4)})
				}
			}
		})
	}
	wg.Wait()
	if e.InFlight() != 0 || got.Load() == 0 {
		t.Errorf("%d in flight after %d reservations all ended", e.InFlight(), got.Load())
	}
	if n := e.Totals(); n.Requests != n.Successes+n.Failures+n.Drops+n.Ignored {
		t.Errorf("totals do not add up: %+v", n)
	}
}

func TestFinishCounts(t *testing.T) {
	e := NewEndpoint("a", "127.0.0.1:1", 1, 0, nil)
	for o, times := range map[Outcome]int{Success: 4, Failure: 3, Drop: 2, Ignore: 1} {
		for range times {
			e.TryReserve()
			e.Finish(now, Result{Outcome: o})
		}
	}
	want := Totals{Requests: 10, Successes: 4, Failures: 3, Drops: 2, Ignored: 1}
	if e.Totals() != want || e.InFlight() != 0 {
		t.Errorf("totals %+v, in flight %d", e.Totals(), e.InFlight())
	}
	for o, name := range map[Outcome]string{Success: "success", Failure: "failure", Drop: "drop", Ignore: "ignore"} {
		if o.String() != name {
			t.Errorf("outcome %d is called %q", o, o)
		}
	}
}

// TestLatencySamples: only a success with a known first byte is a sample.
// Failing fast must not look like being fast.
func TestLatencySamples(t *testing.T) {
	e := NewEndpoint("a", "127.0.0.1:1", 1, 0, nil)
	finish := func(o Outcome, first time.Duration) {
		e.TryReserve()
		e.Finish(now, Result{Outcome: o, FirstByte: first, Total: time.Second})
	}
	finish(Success, 0)
	finish(Failure, time.Millisecond)
	finish(Drop, time.Millisecond)
	finish(Ignore, time.Millisecond)
	if e.Latency() != 0 {
		t.Fatalf("latency %v without a sample", e.Latency())
	}
	finish(Success, 80*time.Millisecond)
	finish(Failure, time.Millisecond)
	if e.Latency() != 80*time.Millisecond {
		t.Errorf("latency %v, want the one sample of 80ms", e.Latency())
	}
}

func TestTried(t *testing.T) {
	eps := equal(maxTried + 2)
	var s Tried
	if s.Len() != 0 || s.Has(eps[0]) || s.Has(nil) {
		t.Error("the zero value is not empty")
	}
	for i, e := range eps {
		s.Add(e)
		if s.Len() != i+1 {
			t.Errorf("length %d after %d", s.Len(), i+1)
		}
		for j, x := range eps {
			if want := j <= i && j > i-maxTried; s.Has(x) != want {
				t.Errorf("after %d: has %d is %v", i, j, s.Has(x))
			}
		}
	}
	other := s
	other.Add(eps[0])
	if s.Has(eps[0]) {
		t.Error("copies share memory")
	}
}

func near(got time.Duration, wantMs float64) bool {
	return math.Abs(float64(got)/1e6-wantMs) < wantMs*1e-3
}

func TestEwma(t *testing.T) {
	var m EWMA
	if m.Value() != 0 {
		t.Fatal("a value without a sample")
	}
	m.Observe(now, 100*time.Millisecond)
	if !near(m.Value(), 100) {
		t.Fatalf("the first sample reads %v", m.Value())
	}
	// One memory later the old mean weighs 1/e.
	m.Observe(now+latencyMemory, 200*time.Millisecond)
	if want := 200 - 100/math.E; !near(m.Value(), want) {
		t.Errorf("after one memory %v, want %.1f ms", m.Value(), want)
	}
	// Long after, only the new one counts.
	m.Observe(now+100*latencyMemory, 10*time.Millisecond)
	if !near(m.Value(), 10) {
		t.Errorf("after a hundred memories %v, want 10ms", m.Value())
	}
	// A burst within one millisecond moves it by the least weight each.
	m.Observe(now+100*latencyMemory, 74*time.Millisecond)
	if !near(m.Value(), 11) {
		t.Errorf("one of a burst: %v, want 11ms", m.Value())
	}
	for range 1000 {
		m.Observe(now+100*latencyMemory, 74*time.Millisecond)
	}
	if !near(m.Value(), 74) {
		t.Errorf("a burst that lasts: %v, want 74ms", m.Value())
	}
}

// TestEwmaAtZero: neither a zero clock nor a sample below its resolution reads
// as "none yet".
func TestEwmaAtZero(t *testing.T) {
	var m EWMA
	m.Observe(0, time.Nanosecond)
	m.Observe(0, 64*time.Millisecond)
	if !near(m.Value(), 1) {
		t.Errorf("%v, want 1/64 of 64ms", m.Value())
	}
}

// TestEwmaLateSample: requests that end together may be observed in either
// order; the one with the earlier clock must not pass for one 49 days later
// and wipe the mean out.
func TestEwmaLateSample(t *testing.T) {
	var m EWMA
	m.Observe(now+time.Millisecond, 10*time.Millisecond)
	m.Observe(now, 650*time.Millisecond)
	if !near(m.Value(), 20) {
		t.Errorf("%v after a late sample, want 10 + 640/64 = 20ms", m.Value())
	}
}

// TestEwmaClockWraps: the stamp is 32 bits of milliseconds.
func TestEwmaClockWraps(t *testing.T) {
	var m EWMA
	wrap := (1 << 32) * time.Millisecond
	m.Observe(wrap-5*time.Second, 100*time.Millisecond)
	m.Observe(wrap+5*time.Second, 200*time.Millisecond)
	if want := 200 - 100/math.E; !near(m.Value(), want) {
		t.Errorf("over the wrap %v, want %.1f ms", m.Value(), want)
	}
}

func TestEwmaConcurrent(t *testing.T) {
	var m EWMA
	var clock atomic.Int64
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for range 5000 {
				at := now + time.Duration(clock.Add(1))*100*time.Microsecond
				m.Observe(at, time.Duration(10+g)*time.Millisecond)
				if v := m.Value(); v < 10*time.Millisecond-time.Microsecond || v > 17*time.Millisecond+time.Microsecond {
					t.Errorf("%v is outside of all samples", v)
				}
			}
		})
	}
	wg.Wait()
}

// TestRestarted: only two reports that both tell of a process can tell of two.
func TestRestarted(t *testing.T) {
	for _, c := range []struct {
		old, new string
		want     bool
	}{{"a", "b", true}, {"a", "a", false}, {"a", "", false}, {"", "a", false}, {"", "", false}} {
		old, l := live(1, 1, 0), live(1, 1, 0)
		old.Epoch, l.Epoch = c.old, c.new
		if got := l.Restarted(old); got != c.want {
			t.Errorf("epoch %q after %q: restarted %v", c.new, c.old, got)
		}
		e := equal(1)[0]
		e.SetLoad(old)
		for range 10 {
			e.mind.failures.observe(now, true)
		}
		e.SetLoad(l)
		if got := e.mind.failures.get(now); got == 0 != c.want {
			t.Errorf("epoch %q after %q: failing %v", c.new, c.old, got)
		}
	}
	if live(1, 1, 0).Restarted(nil) {
		t.Error("restarted by its first report")
	}
}
