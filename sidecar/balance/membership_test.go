package balance

import (
	"context"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"outrigger/discovery"
	"outrigger/picker"
)

func TestSeenAndEmpty(t *testing.T) {
	r := newRig(t, nil)
	if r.Seen() {
		t.Error("seen before the first answer")
	}
	r.refuses(NoBackends)
	if s := r.Status(); s.Reason != "no_backends" || s.Capacity != "closed" || s.Seen {
		t.Errorf("before the first answer: reason %q, capacity %s, seen %v", s.Reason, s.Capacity, s.Seen)
	}
	r.Update(nil)
	if !r.Seen() {
		t.Error("an empty answer is an answer")
	}
	r.refuses(NoBackends)
	if s := r.Status(); s.Capacity != "open" {
		t.Errorf("capacity %s with nothing there", s.Capacity)
	}
	r.Update(instances(1))
	r.get().Done(ok)
	if s := r.Status(); s.Capacity != "closed" || s.Reason != "" || s.Ready != 1 {
		t.Errorf("with one there: %+v", s)
	}
}

// TestUpdateKeepsCounters: an endpoint is its instance's ID and address.
// Whatever else Consul says anew of it, it goes on.
func TestUpdateKeepsCounters(t *testing.T) {
	r := newRig(t, nil)
	r.Update(instances(3))
	was := r.member(1)
	held := r.getAt(1)
	r.getAt(1).Done(bad)
	r.getAt(1).Done(ok)
	set := instances(5)
	set[1].Weight, set[1].Tags, set[1].Health = 7, []string{"new"}, discovery.Warning
	slices.Reverse(set)
	r.Update(set)
	m := r.member(1)
	if m != was || m.ep.InFlight() != 1 || m.ep.Weight() != 7 || m.ep.Latency() != time.Millisecond {
		t.Errorf("the endpoint was not kept: same %v, %d in flight, weight %d", m == was, m.ep.InFlight(), m.ep.Weight())
	}
	if n := m.ep.Totals(); n.Requests != 2 || n.Failures != 1 {
		t.Errorf("totals %+v", n)
	}
	if got := m.inst.Load(); got.Tags[0] != "new" {
		t.Error("the instance's data is old")
	}
	r.getAt(1).Done(bad)
	r.getAt(1).Done(bad) // success between: these are the second and third in a row
	r.getAt(1).Done(bad)
	if r.member(1).br.Ejections() != 1 {
		t.Error("the breaker's count was lost")
	}
	held.Done(ok)
	r.quiet()
	for _, c := range r.conns {
		if c.retired.Load() != 0 {
			t.Errorf("%s retired", c.ep.ID)
		}
	}
	if len(r.conns) != 5 {
		t.Errorf("%d connection stores for 5 endpoints", len(r.conns))
	}
}

func TestAddressChangeIsNewEndpoint(t *testing.T) {
	r := newRig(t, nil)
	r.Update(instances(2))
	old := r.member(0)
	held := r.getAt(0)
	moved := instances(2)
	moved[0].Port = 9999
	r.Update(moved)
	m := r.member(0)
	if m == old || m.ep.Addr != "127.0.0.1:9999" || m.ep.InFlight() != 0 || m.ep.Totals() != (picker.Totals{}) {
		t.Fatalf("endpoint %s with %d in flight, want a new one", m.ep.Addr, m.ep.InFlight())
	}
	if old.conns.(*conns).retired.Load() != 1 || m.conns.(*conns).retired.Load() != 0 {
		t.Error("retired the wrong connections")
	}
	if held.Conns() != old.conns || held.Endpoint() != old.ep {
		t.Error("a lease moved to the new address")
	}
	held.Done(bad)
	if old.ep.InFlight() != 0 || old.ep.Totals().Failures != 1 || m.ep.Totals().Requests != 0 {
		t.Error("the lease's end was counted elsewhere")
	}
}

func TestRemovedEndpointDrains(t *testing.T) {
	r := newRig(t, nil)
	r.Update(instances(3))
	gone := r.member(2)
	held := []*Lease{r.getAt(2), r.getAt(2)}
	r.Update(instances(2))
	for range 100 {
		l := r.get()
		if l.Endpoint() == gone.ep {
			t.Fatal("a removed endpoint was leased")
		}
		l.Done(ok)
	}
	if gone.ep.InFlight() != 2 {
		t.Errorf("%d of 2 leases live on", gone.ep.InFlight())
	}
	for _, l := range held {
		l.Done(down) // it may well go away now: nothing is ejected
	}
	if gone.ep.InFlight() != 0 || r.guard.Ejected() != 0 {
		t.Errorf("%d in flight, %d ejected", gone.ep.InFlight(), r.guard.Ejected())
	}
	r.Update(instances(2))
	r.Update(nil)
	for _, c := range r.conns {
		if n := c.retired.Load(); n != 1 {
			t.Errorf("%s retired %d times", c.ep.ID, n)
		}
	}
	r.Update(instances(3))
	if back := r.member(2); back == gone || back.ep.Totals().Requests != 0 {
		t.Error("who returns after it left is a new endpoint")
	}
}

func TestNotPicked(t *testing.T) {
	r := newRig(t, nil)
	set := instances(5)
	set[0].Health = discovery.Critical
	set[1].Health, set[1].Weight = discovery.Maintenance, 0
	set[2].Weight = 0
	set[3].Health = discovery.Warning
	r.Update(set)
	for range 200 {
		l := r.get()
		if ep := l.Endpoint(); ep != r.endpoint(3) && ep != r.endpoint(4) {
			t.Fatalf("leased %s", ep.ID)
		}
		l.Done(ok)
	}
	if s := r.Status(); s.Panic || s.PanicHealthy != 2 || s.PanicListed != 3 {
		t.Errorf("panic %v, %d of %d healthy", s.Panic, s.PanicHealthy, s.PanicListed)
	}
	for i, want := range []string{"critical", "maintenance", "draining (weight 0)", "", ""} {
		if e := r.Status().Endpoints[i]; e.Why != want || e.Ready != (want == "") {
			t.Errorf("endpoint %d: ready %v, why %q, want %q", i, e.Ready, e.Why, want)
		}
	}
	// Draining lets leases end, and takes no new one.
	held := r.getAt(4)
	set[4].Weight, set[3].Weight, set[0].Weight = 0, 0, 0
	r.Update(set)
	r.refuses(NoBackends)
	held.Done(ok)
	set[3].Weight, set[0].Weight = 1, 1
	set[4].Weight = 2
	r.Update(set)
	r.getAt(4).Done(ok)
	for _, c := range r.conns {
		if c.retired.Load() != 0 {
			t.Error("an endpoint that is still registered lost its connections")
		}
	}
}

func TestDoubleIDs(t *testing.T) {
	r := newRig(t, nil)
	twice := instances(2)
	twice = append(twice, instance(0))
	twice[2].Port = 1
	r.Update(twice)
	if n := len(r.Status().Endpoints); n != 2 || r.endpoint(0).Addr != "127.0.0.1:8000" {
		t.Errorf("%d endpoints, the first at %s", n, r.endpoint(0).Addr)
	}
}

func TestLoadsByID(t *testing.T) {
	r := newRig(t, nil)
	r.Update(instances(2))
	l := &picker.Load{Cores: 2}
	r.SetLoad("n/1", l)
	r.SetLoad("n/7", l) // has left: dropped
	if r.endpoint(1).Load() != l || r.endpoint(0).Load() != nil {
		t.Error("the figures went elsewhere")
	}
	defer r.getAt(1).Done(ok)
	if r.InFlight("n/1") != 1 || r.InFlight("n/0") != 0 || r.InFlight("n/7") != 0 {
		t.Error("in-flight by ID is wrong")
	}
}

// TestMembershipStress changes the set under load. No lease is lost, nobody is
// leased who was never there, and each store of connections is retired once if
// its endpoint has left, else not at all.
func TestMembershipStress(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, limit(3, 1000, time.Minute))
		r.Update(instances(6))
		r.run()
		var stop atomic.Bool
		var movers, users sync.WaitGroup
		movers.Go(func() {
			for !stop.Load() {
				set := instances(6)
				rand.Shuffle(len(set), func(i, j int) { set[i], set[j] = set[j], set[i] })
				for i := range set {
					set[i].Weight = rand.IntN(3)
					set[i].Port += 100 * rand.IntN(2)
					set[i].Health = discovery.Health(rand.IntN(3))
				}
				set[0].Weight, set[0].Health = 1, discovery.Passing
				r.Update(set[:1+rand.IntN(6)])
				time.Sleep(time.Millisecond)
			}
		})
		for range 24 {
			users.Go(func() {
				for range 200 {
					l, err := r.Acquire(context.Background(), Key{})
					if err != nil {
						t.Errorf("refused with one endpoint there: %v", err)
						return
					}
					if n := l.Endpoint().InFlight(); n > 3 {
						t.Errorf("%d in flight at a limit of 3", n)
					}
					time.Sleep(time.Duration(rand.IntN(1500)) * time.Microsecond)
					l.Done([]picker.Result{ok, ok, ok, ok, skip}[rand.IntN(5)])
				}
			})
		}
		users.Wait()
		stop.Store(true)
		movers.Wait()
		r.quiet()
		here := map[*picker.Endpoint]bool{}
		for _, m := range r.snap.Load().all {
			here[m.ep] = true
		}
		for _, c := range r.conns {
			want := int32(1)
			if here[c.ep] {
				want = 0
			}
			if c.retired.Load() != want || c.ep.InFlight() != 0 {
				t.Errorf("%s at %s: retired %d times, want %d; %d in flight", c.ep.ID, c.ep.Addr, c.retired.Load(), want, c.ep.InFlight())
			}
		}
	})
}

// TestCheckOfAnotherAddress: a verdict that comes late says nothing of who has the ID
// now.
func TestCheckOfAnotherAddress(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, nil)
		r.run()
		moved := instances(3)
		moved[0].Port = 9000
		r.Update(instances(3))
		r.Update(moved)
		for addr, ready := range map[string]string{"127.0.0.1:8000": "n/0 n/1 n/2", "127.0.0.1:9000": "n/1 n/2"} {
			r.SetCheck("n/0", CheckState{Known: true, Up: true})
			r.SetCheck("n/0", CheckState{Addr: addr, Known: true, Error: "status 500"})
			synctest.Wait()
			r.wantReady(ready)
		}
	})
}
