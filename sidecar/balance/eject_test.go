package balance

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"outrigger/discovery"
	"outrigger/picker"
)

// readyIDs are the endpoints that the snapshot has as ready.
func (r *rig) readyIDs() string {
	var ids []string
	for _, m := range r.snap.Load().ready {
		ids = append(ids, m.ep.ID)
	}
	return strings.Join(ids, " ")
}

func (r *rig) wantReady(ids string) {
	r.t.Helper()
	synctest.Wait()
	if got := r.readyIDs(); got != ids {
		r.t.Fatalf("ready are %q, want %q", got, ids)
	}
}

// expire sleeps until endpoint i's ejection has run out and Run has seen it,
// which looks once a millisecond at most.
func (r *rig) expire(i int) {
	time.Sleep(r.member(i).br.Until() - r.Now() + time.Millisecond)
	synctest.Wait()
}

func TestEjectionAndReturn(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, nil)
		r.run()
		r.Update(instances(3))
		for range 3 {
			r.getAt(1).Done(bad)
		}
		r.wantReady("n/0 n/2")
		for range 100 {
			l := r.get()
			if l.Endpoint() == r.endpoint(1) {
				t.Fatal("leased an ejected endpoint")
			}
			l.Done(ok)
		}
		s := r.Status()
		e := s.Endpoints[1]
		if e.Ready || e.Breaker != "open" || !strings.HasPrefix(e.Why, "ejected, back in 1.") || e.Returns < time.Second ||
			e.Ejections != 1 || s.EjectedEndpoints != 1 || s.Ready != 2 || s.Panic {
			t.Errorf("status %+v, service %+v", e, s)
		}
		time.Sleep(r.member(1).br.Until() - r.Now() - time.Millisecond)
		r.wantReady("n/0 n/2")
		r.expire(1)
		r.wantReady("n/0 n/1 n/2")
		if e := r.Status().Endpoints[1]; !e.Ready || e.Breaker != "half-open" || e.Limit != 1 {
			t.Errorf("after its expiry: %+v", e)
		}
		probe := r.getAt(1)
		for range 50 { // one probe at a time; the others do the work
			l := r.get()
			if l.Endpoint() == r.endpoint(1) {
				t.Fatal("a second request on a half-open endpoint")
			}
			l.Done(ok)
		}
		if e := r.Status().Endpoints[1]; e.Ready || e.Why != "half-open, waiting for its probe" {
			t.Errorf("while its probe is out: %+v", e)
		}
		probe.Done(ok)
		r.wantReady("n/0 n/1 n/2")
		if e := r.Status().Endpoints[1]; !e.Ready || e.Breaker != "closed" || e.Limit != r.cfg.MaxInFlight || e.InFlight != 0 {
			t.Errorf("after its return: %+v", e)
		}
		if r.guard.Ejected() != 0 {
			t.Errorf("%d ejected", r.guard.Ejected())
		}
		r.quiet()
	})
}

func TestFailedProbeEjectsLonger(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, nil)
		r.run()
		r.Update(instances(2))
		r.eject(0)
		for _, seconds := range []time.Duration{1, 2, 4, 8, 16, 30, 30} {
			d := r.member(0).br.Until() - r.Now()
			if d < seconds*time.Second || d > seconds*time.Second*5/4 {
				t.Errorf("ejected for %v, want %d s and up to a quarter more", d, seconds)
			}
			r.expire(0)
			r.wantReady("n/0 n/1")
			r.getAt(0).Done(skip) // a probe whose client left: another may try
			r.getAt(0).Done(bad)
			r.wantReady("n/1")
		}
	})
}

// TestHalfOpenLimit: from its ejection on an endpoint has room for what was
// there and one more, whatever its own limit, and the probe makes no room for
// a second.
func TestHalfOpenLimit(t *testing.T) {
	for _, max := range []int{0, 5} {
		bubble(t, func(t *testing.T) {
			r := newRig(t, limit(max, 0, time.Second))
			r.run()
			r.Update(instances(2))
			want := func(limit int) {
				t.Helper()
				synctest.Wait()
				if got := r.endpoint(0).Limit(); got != limit {
					t.Fatalf("limit %d with %d in flight, want %d", got, r.endpoint(0).InFlight(), limit)
				}
			}
			want(max)
			hang := []*Lease{r.getAt(0), r.getAt(0), r.getAt(0)}
			r.eject(0)
			want(4)
			hang[0].Done(bad) // late: dropped
			r.expire(0)
			want(3)
			probe := r.getAt(0)
			r.Update(instances(2)) // a rebuild meanwhile
			want(3)
			hang[1].Done(ok)
			r.Update(instances(2))
			want(3)
			k := Key{}
			k.Tried.Add(r.endpoint(1))
			if l, err := r.TryAcquire(k); err == nil {
				t.Fatalf("a second probe, on %s", l.Endpoint().ID)
			}
			if n := r.endpoint(0).InFlight(); n != 2 {
				t.Fatalf("%d in flight: the breaker's no kept the slot", n)
			}
			probe.Done(ok)
			want(max)
			hang[2].Done(ok)
			r.quiet()
		})
	}
}

// TestReturnAfterCritical: an endpoint that is ejected, turns critical and
// healthy again before its ejection runs out is back when it does.
func TestReturnAfterCritical(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, func(c *Config) { c.Breaker.BaseEjection = 10 * time.Second })
		r.run()
		r.Update(instances(3))
		r.eject(0)
		until := r.member(0).br.Until()
		set := instances(3)
		set[0].Health = discovery.Critical
		r.Update(set)
		time.Sleep(time.Second)
		r.post() // Run sees a world without ejections
		synctest.Wait()
		time.Sleep(time.Second)
		r.Update(instances(3))
		r.wantReady("n/1 n/2")
		time.Sleep(until - r.Now())
		r.wantReady("n/0 n/1 n/2")
	})
}

// TestDeadHoldNoPlaces: endpoints that died and are critical in Consul do not
// keep others from being ejected.
func TestDeadHoldNoPlaces(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, nil)
		r.run()
		set := instances(4)
		r.Update(set)
		r.eject(0)
		r.eject(1)
		set[0].Health, set[1].Health = discovery.Critical, discovery.Critical
		r.Update(set)
		if r.Status().EjectedEndpoints != 0 {
			t.Errorf("%d ejected of two that are well", r.Status().EjectedEndpoints)
		}
		r.eject(2) // the third of four to die
		r.wantReady("n/3")
		r.eject(3) // the last is never ejected; when all refuse, all are tried
		r.wantReady("n/0 n/1 n/2 n/3")
		r.getAt(3).Done(ok)
		r.Update(set)
		r.wantReady("n/3")
		set[2].Health = discovery.Critical
		r.Update(set)
		r.wantReady("n/3")
		r.Update(instances(4)) // all come back: the ejected are still so
		r.wantReady("n/3")
		for i := range 3 {
			r.expire(i)
			r.getAt(i).Done(ok)
		}
		r.wantReady("n/0 n/1 n/2 n/3")
		if r.Status().EjectedEndpoints != 0 {
			t.Errorf("%d ejected when all are back", r.Status().EjectedEndpoints)
		}
	})
}

// TestPanic: when all that are left are ejected, ejections are ignored, until
// one of them has proved well.
func TestPanic(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, func(c *Config) { c.Breaker.MaxEjectedPercent, c.PanicThreshold = 100, 0.3 })
		r.env.Rand = func(uint32) uint32 { return 0 } // ejections last 1 s sharp
		r.run()
		r.Update(instances(3))
		for i := range 2 { // each was reached
			for range 3 {
				r.getAt(i).Done(bad)
			}
			time.Sleep(100 * time.Millisecond)
		}
		r.wantReady("n/2")
		r.Update(instances(2)) // the one that was well leaves
		r.wantReady("n/0 n/1")
		panicking := func(want bool) {
			t.Helper()
			synctest.Wait()
			if s := r.Status(); s.Panic != want || s.Capacity != "closed" {
				t.Fatalf("panic %v, capacity %s", s.Panic, s.Capacity)
			}
		}
		several := func() {
			t.Helper()
			var held []*Lease
			got := map[*picker.Endpoint]bool{}
			for range 20 {
				l := r.get()
				got[l.Endpoint()] = true
				held = append(held, l)
			}
			if len(got) != 2 {
				t.Errorf("%d of 2 endpoints are tried", len(got))
			}
			for _, l := range held {
				l.Done(skip)
			}
		}
		panicking(true)
		if s := r.Status(); s.Ready != 2 || s.Endpoints[0].Breaker != "open" || s.Endpoints[0].Limit != r.cfg.MaxInFlight {
			t.Errorf("%+v", s)
		}
		several()
		for range 10 { // results in a panic move no breaker
			r.getAt(1).Done(bad)
			r.getAt(0).Done(ok)
		}
		panicking(true)
		r.expire(0) // one is half-open: requests still pass beside its probe
		panicking(true)
		several()
		if e := r.Status().Endpoints[0]; e.Breaker != "half-open" {
			t.Fatalf("breaker %s", e.Breaker)
		}
		for r.Status().Endpoints[0].Breaker != "closed" {
			r.getAt(0).Done(ok)
		}
		panicking(true)
		time.Sleep(calm)
		panicking(false)
		r.wantReady("n/0 n/1") // to be probed
		r.expire(1)
		r.getAt(1).Done(ok)
		panicking(false)
		r.wantReady("n/0 n/1")
		r.quiet()
	})
}

// TestLastIsNeverEjected: with one endpoint failing is better than refusing.
func TestLastIsNeverEjected(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, nil)
		r.run()
		r.Update(instances(1))
		for range 100 {
			r.get().Done(down)
			synctest.Wait()
		}
		if s := r.Status(); s.Ready != 1 || s.Panic || s.EjectedEndpoints != 0 {
			t.Errorf("%+v", s)
		}
	})
}

// TestRunEnds: with its context, and it leaves no goroutine (the bubble checks).
func TestRunEnds(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, nil)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			r.Run(ctx)
			close(done)
		}()
		r.Update(instances(2))
		synctest.Wait()
		cancel()
		<-done
	})
}

// TestTick tells a simulator when to come again.
func TestTick(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, nil)
		r.Update(instances(2))
		if d := r.Tick(); d != time.Hour {
			t.Errorf("nothing is due, next tick in %v", d)
		}
		r.eject(0)
		d := r.Tick()
		if d != r.member(0).br.Until()-r.Now() {
			t.Errorf("next tick in %v, the ejection ends in %v", d, r.member(0).br.Until()-r.Now())
		}
		r.wantReady("n/1")
		time.Sleep(d)
		if d := r.Tick(); d != time.Hour {
			t.Errorf("next tick in %v", d)
		}
		r.wantReady("n/0 n/1")
	})
}

// TestAlternatingConnects: an address of which a part refuses connections does not have
// the snapshot built anew with every request.
func TestAlternatingConnects(t *testing.T) {
	timeout := picker.Result{Outcome: picker.Failure, NoConn: true}
	for name, c := range map[string]struct {
		n, critical, most int
	}{
		"one":                 {1, 0, 22},
		"one, and in a panic": {1, 1, 22},
		"ten":                 {10, 0, 0},
		"ten, and in a panic": {10, 6, 220},
		"ten, and one is out": {10, 1, 220},
	} {
		bubble(t, func(t *testing.T) {
			r := newRig(t, func(c *Config) { c.Breaker.ConsecutiveFailures, c.Breaker.MinRequests = 1000, 1e6 })
			r.run()
			set := instances(c.n)
			for i := range c.critical {
				set[i].Health = discovery.Critical
			}
			r.Update(set)
			built, s := 0, r.snap.Load()
			for i := range 3000 { // in 10 s
				l, err := r.TryAcquire(Key{})
				if err != nil {
					t.Fatalf("%s: %v", name, err)
				}
				l.Done([]picker.Result{timeout, ok, ok}[(i/c.n)%3])
				time.Sleep(10 * time.Second / 3000)
				synctest.Wait()
				if now := r.snap.Load(); now != s {
					built, s = built+1, now
				}
			}
			if built > c.most {
				t.Errorf("%s: built %d times, want %d at most", name, built, c.most)
			}
		})
	}
}
