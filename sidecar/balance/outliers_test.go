package balance

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"outrigger/discovery"
	"outrigger/picker"
)

// comparing makes a rig for comparisons of success rates: other
// reasons to eject are off, and so is the slow start.
func comparing(change func(*Config)) func(*Config) {
	return func(c *Config) {
		c.SlowStart = 0
		c.Breaker.ConsecutiveFailures = 1000
		c.Breaker.FailureRatio = 1
		c.Breaker.MinRequests = 1e6
		if change != nil {
			change(c)
		}
	}
}

// serve sends 200 requests to each of n endpoints that are ready, of which fails[i]
// end with result r at endpoint i.
func (r *rig) serve(n int, fails map[int]int, with picker.Result) {
	r.t.Helper()
	for i := range n {
		m := r.member(i)
		for k := range 200 {
			result := ok
			if k < fails[i] {
				result = with
			}
			if !m.ep.TryReserve() {
				r.t.Fatalf("no room at %d", i)
			}
			l := Lease{b: r.Balancer, m: m, start: r.Now()}
			l.probe, _ = m.br.Admit(r.Now())
			l.Done(result)
		}
	}
	synctest.Wait()
}

// begin has endpoint 0 fail once and waits until an interval runs.
func (r *rig) begin() {
	r.t.Helper()
	m := r.member(0)
	m.ep.TryReserve()
	l := Lease{b: r.Balancer, m: m, start: r.Now()}
	l.probe, _ = m.br.Admit(r.Now())
	l.Done(bad)
	synctest.Wait()
}

// interval lets the time of a comparison pass.
func (r *rig) interval() {
	time.Sleep(r.cfg.Breaker.SuccessRate.Interval + 2*time.Millisecond)
	synctest.Wait()
}

func (r *rig) wantEjected(why string, want uint64) {
	r.t.Helper()
	st := r.Status()
	if got := st.EjectedBy["success_rate"]; got != want {
		r.t.Errorf("%s: %d ejected for their success rate, want %d", why, got, want)
	}
	sum := uint64(0)
	for _, n := range st.EjectedBy {
		sum += n
	}
	if sum != want {
		r.t.Errorf("%s: ejections %v", why, st.EjectedBy)
	}
}

// TestOutlierIsEjected: one at 90 % among others at 99.5 %, and for longer each time.
func TestOutlierIsEjected(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, comparing(nil))
		r.env.Rand = func(uint32) uint32 { return 0 }
		var told []Event
		r.env.Event = func(e Event) { told = append(told, e) }
		r.run()
		r.Update(instances(4))
		fails := map[int]int{0: 1, 1: 20, 2: 1, 3: 1}
		for n, want := range []time.Duration{1, 2, 4, 8} {
			r.begin()
			r.serve(4, fails, bad)
			r.wantEjected("before the interval's end", uint64(n))
			r.interval()
			r.wantEjected("after it", uint64(n+1))
			r.wantReady("n/0 n/2 n/3")
			e := r.Status().Endpoints[1]
			if e.Breaker != "open" || e.Cause != "success_rate" {
				t.Errorf("%+v", e)
			}
			if d := r.member(1).br.Until() - r.Now(); d > want*time.Second || d < want*time.Second-5*time.Millisecond {
				t.Errorf("ejected for %v, want %d s", d, want)
			}
			r.expire(1)
			r.getAt(1).Done(ok)
			r.wantReady("n/0 n/1 n/2 n/3")
			want := fmt.Sprint("[id n/1 success_rate 90.0 % others 99.5 % requests 200 for ", want*time.Second, "]")
			if len(told) != n+1 || told[n].Kind != "outlier" || fmt.Sprint(told[n].Args) != want {
				t.Errorf("told %v, want the last to say %s", told, want)
			}
			r.interval() // it is judged only over intervals in which it served all along
		}
	})
}

// TestNoOutliers: what must not count does not.
func TestNoOutliers(t *testing.T) {
	const n = 4
	for name, c := range map[string]struct {
		change func(*Config)
		fails  map[int]int
		with   picker.Result
	}{
		"all fail alike":    {nil, map[int]int{0: 100, 1: 100, 2: 100, 3: 100}, bad},
		"most fail alike":   {nil, map[int]int{0: 100, 1: 100, 2: 100}, bad},
		"clients that left": {nil, map[int]int{1: 150}, skip},
		"overload":          {nil, map[int]int{1: 150}, picker.Result{Outcome: picker.Drop}},
		"it is off":         {func(c *Config) { c.Breaker.SuccessRate.Factor = 0 }, map[int]int{1: 150}, bad},
		"too few hosts":     {func(c *Config) { c.Breaker.SuccessRate.MinHosts = 5 }, map[int]int{1: 150}, bad},
		"too few requests":  {func(c *Config) { c.Breaker.SuccessRate.Volume = 1001 }, map[int]int{1: 150}, bad},
		"affinity":          {func(c *Config) { c.Pins = true }, map[int]int{1: 150}, bad},
		"no place":          {func(c *Config) { c.Breaker.MaxEjectedPercent = 20 }, map[int]int{1: 150}, bad},
	} {
		bubble(t, func(t *testing.T) {
			r := newRig(t, comparing(c.change))
			r.run()
			r.Update(instances(n))
			for range 3 {
				r.begin() // so that it is compared at all
				r.serve(n, c.fails, c.with)
				r.interval()
			}
			r.wantEjected(name, 0)
			if r.outliers.begun.Load() && (name == "it is off") {
				t.Error("it is off, and yet requests begin it")
			}
		})
	}
}

// TestBadClient: a client that always fails makes an outlier of whoever its key is
// given to. Nobody is ejected for that, and the mode says so.
func TestBadClient(t *testing.T) {
	for policy, off := range map[string]bool{"consistent_hash": true, "random": false} {
		bubble(t, func(t *testing.T) {
			r := newRig(t, comparing(func(c *Config) { c.Picker.Policy = policy }))
			r.run()
			r.Update(instances(6))
			send := func(k Key, with picker.Result) {
				l, err := r.TryAcquire(k)
				if err != nil {
					t.Fatal(err)
				}
				l.Done(with)
			}
			for i := range 6000 {
				send(Key{Hash: picker.Hash(fmt.Sprint(i % 1000))}, ok)
				if i%20 == 0 {
					send(Key{Hash: picker.Hash("bad")}, bad)
				}
				time.Sleep(2 * time.Millisecond)
			}
			r.interval()
			st := r.Status()
			if said := strings.HasSuffix(st.Mode, notCompared); said != off {
				t.Errorf("%s: mode %q", policy, st.Mode)
			}
			r.wantEjected(policy, 0) // spread over all, it harms nobody
		})
	}
}

// TestOutliersInPanic: health is ignored, so nobody loses it.
func TestOutliersInPanic(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, comparing(nil))
		r.run()
		r.Update(instances(4))
		r.begin()
		r.serve(4, map[int]int{1: 100, 2: 1}, bad)
		s := *r.snap.Load()
		s.ignoring = true
		r.snap.Store(&s)
		r.interval()
		r.wantEjected("in a panic", 0)
	})
}

// TestNewcomersAreNotCompared: nor is one that joined, rejoined elsewhere or was in
// the first half of its slow start when the interval began. Its counters start
// anew with it.
func TestNewcomersAreNotCompared(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, comparing(func(c *Config) { c.SlowStart = 30 * time.Second }))
		r.run()
		r.Update(instances(4)) // the first set serves others already
		r.begin()
		moved := instances(5)
		moved[1].Port = 9999
		r.Update(moved)
		fails := map[int]int{1: 150, 4: 150}
		r.serve(5, fails, bad)
		r.interval()
		r.wantEjected("joined in the interval", 0)
		r.serve(5, fails, bad)
		r.interval()
		r.wantEjected("in the first half of their slow start when it began", 0)
		r.serve(5, fails, bad)
		r.interval()
		r.wantEjected("after it", 2)
		r.wantReady("n/0 n/2 n/3")
	})
}

// TestEjectedMeanwhile: what an endpoint was ejected for by other means is not
// held against it again.
func TestEjectedMeanwhile(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, comparing(nil))
		r.env.Rand = func(uint32) uint32 { return 0 }
		r.run()
		r.Update(instances(4))
		r.begin()
		r.serve(4, map[int]int{1: 100}, bad)
		r.eject(1)
		r.expire(1)
		r.getAt(1).Done(ok)
		r.wantReady("n/0 n/1 n/2 n/3")
		r.interval()
		if st := r.Status(); st.EjectedBy["success_rate"] != 0 || st.EjectedBy["unreachable"] != 1 {
			t.Errorf("%v", st.EjectedBy)
		}
	})
}

// TestComparedOnlyAfterFailures: without any nothing is due, whatever the traffic.
func TestComparedOnlyAfterFailures(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, comparing(nil))
		r.Update(instances(3))
		r.serve(3, nil, ok)
		if d := r.Tick(); d != time.Hour {
			t.Errorf("due in %v without a failure", d)
		}
		r.serve(3, map[int]int{1: 1}, bad)
		interval := r.cfg.Breaker.SuccessRate.Interval
		if d := r.Tick(); d != interval {
			t.Errorf("due in %v after one, want %v", d, interval)
		}
		r.serve(3, map[int]int{1: 1}, bad)
		time.Sleep(interval)
		if d := r.Tick(); d != interval {
			t.Errorf("due in %v after more, want %v", d, interval)
		}
		time.Sleep(interval)
		if d := r.Tick(); d != time.Hour {
			t.Errorf("due in %v after an interval without, want never", d)
		}
		// Too few to compare, until one joins.
		r.Update(instances(2))
		r.serve(2, map[int]int{1: 1}, bad)
		if d := r.Tick(); d != time.Hour {
			t.Errorf("due in %v with two endpoints", d)
		}
		select {
		case <-r.wake:
		default:
		}
		r.Update(instances(3))
		if len(r.wake) != 1 {
			t.Error("nobody looks again when there are enough endpoints")
		}
		if d := r.Tick(); d != interval {
			t.Errorf("due in %v with three", d)
		}
	})
}

// BenchmarkCompare is of 10,000 endpoints: the time that a comparison holds the lock.
func BenchmarkCompare(b *testing.B) {
	r := newRig(b, comparing(nil))
	var set []discovery.Instance
	for i := range 10_000 {
		set = append(set, discovery.Instance{ID: fmt.Sprint("n/", i), Address: "127.0.0.1", Port: 1 + i, Weight: 1})
	}
	r.Update(set)
	b.ReportAllocs()
	for n := time.Duration(1); b.Loop(); n++ {
		r.failed()
		r.Balancer.mu.Lock()
		r.compare(r.snap.Load(), n*time.Minute)
		r.Balancer.mu.Unlock()
	}
}
