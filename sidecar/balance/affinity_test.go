package balance

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"outrigger/discovery"
	"outrigger/picker"
)

// pinning makes a balancer whose requests may ask for endpoints.
func pinning(change func(*Config)) func(*Config) {
	return func(c *Config) {
		c.Pins = true
		if change != nil {
			change(c)
		}
	}
}

// pinOf is what asks for endpoint i.
func pinOf(i int) uint64 { return picker.Hash(instance(i).ID) }

// gets leases with the key and says which endpoint it was.
func (r *rig) gets(k Key) *Lease {
	r.t.Helper()
	l, err := r.TryAcquire(k)
	if err != nil {
		r.t.Fatalf("no lease: %v", err)
	}
	if l.Pin() != picker.Hash(l.Endpoint().ID) {
		r.t.Errorf("%s has the pin %x", l.Endpoint().ID, l.Pin())
	}
	return &l
}

// wantPins checks the counters.
func (r *rig) wantPins(pinned, missed uint64) {
	r.t.Helper()
	if st := r.Status(); st.Pinned != pinned || st.PinMissed != missed {
		r.t.Errorf("%d pinned and %d missed, want %d and %d", st.Pinned, st.PinMissed, pinned, missed)
	}
}

func TestPin(t *testing.T) {
	for _, policy := range picker.Names() {
		r := newRig(t, pinning(func(c *Config) { c.Picker.Policy = policy }))
		r.Update(instances(5))
		for i := range 5 {
			for range 4 { // in flight at once: no policy would
				l := r.gets(Key{Pin: pinOf(i)})
				if l.Endpoint() != r.endpoint(i) {
					t.Errorf("%s: asked for %d, got %s", policy, i, l.Endpoint().ID)
				}
				defer func() {
					if l.Done(ok); l.Pin() != 0 {
						t.Error("a lease that is over has a pin")
					}
				}()
			}
		}
		r.gets(Key{}).Done(ok)
		r.wantPins(20, 0)
		r.gets(Key{Pin: 12345}).Done(ok)
		r.wantPins(20, 1)
	}
}

func TestPinsAreOffByDefault(t *testing.T) {
	r := newRig(t, nil)
	r.Update(instances(1))
	r.gets(Key{Pin: pinOf(0)}).Done(ok)
	r.wantPins(0, 0) // it got the endpoint, by the policy
}

// A pin is to an endpoint that is ready, has room and has not been tried.
func TestPinToOneThatIsNotReady(t *testing.T) {
	elsewhere := func(t *testing.T, r *rig, k Key, what string) {
		t.Helper()
		for range 5 {
			l := r.gets(k)
			if l.Endpoint() == r.endpoint(0) {
				t.Errorf("%s, but pinned to", what)
			}
			l.Done(ok)
		}
	}
	k := Key{Pin: pinOf(0)}
	bubble(t, func(t *testing.T) {
		r := newRig(t, pinning(func(c *Config) { c.MaxInFlight = 2 }))
		r.run()
		r.Update(instances(3))
		var tried picker.Tried
		tried.Add(r.endpoint(0))
		elsewhere(t, r, Key{Pin: k.Pin, Tried: tried}, "tried")
		l := r.gets(Key{Pin: k.Pin, Tried: tried, Again: true})
		if l.Endpoint() != r.endpoint(0) {
			t.Error("tried in vain for no fault of its own, but given up")
		}
		m := r.gets(k)
		elsewhere(t, r, k, "at its limit")
		l.Done(ok)
		m.Done(ok)
		r.wantPins(2, 10)

		set := instances(3)
		set[0].Weight = 0
		r.Update(set)
		elsewhere(t, r, k, "draining")
		set[0].Weight, set[0].Health = 1, discovery.Critical
		r.Update(set)
		elsewhere(t, r, k, "critical")
		r.Update(instances(3)[1:])
		for range 5 {
			r.gets(k).Done(ok)
		}
		r.Update(instances(3))
		r.gets(k).Done(ok)
		r.wantPins(3, 25)

		r.eject(0)
		elsewhere(t, r, k, "ejected")
		r.wantPins(3, 30)
		time.Sleep(time.Minute) // half-open: one probe
		synctest.Wait()
		probe := r.gets(k)
		if probe.Endpoint() != r.endpoint(0) {
			t.Error("the pinned request is not the probe")
		}
		elsewhere(t, r, k, "waiting for its probe")
		probe.Done(ok)
		synctest.Wait()
		r.gets(k).Done(ok)
		r.wantPins(5, 35)
		r.quiet()
	})
}

func TestPinToOneThatIsVetoed(t *testing.T) {
	r := newRig(t, pinning(func(c *Config) { c.Picker.Policy = "resource" }))
	r.Update(instances(2))
	full := &picker.Load{At: r.Now(), Expires: r.Now() + time.Hour, Mem: 0.99, Cores: 1, Avail: 1,
		CPU: picker.Absent, Conc: picker.Absent, Err: picker.Absent, Listening: true}
	r.SetLoad(instance(0).ID, full)
	l := r.gets(Key{Pin: pinOf(0)})
	if l.Endpoint() != r.endpoint(1) {
		t.Error("pinned to an endpoint that the policy leaves out")
	}
	l.Done(ok)
	r.wantPins(0, 1)
}

// One that waits is given the first slot there is, and has missed its pin.
func TestPinInTheQueue(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, pinning(limit(1, 10, time.Second)))
		r.run()
		r.Update(instances(2))
		a, b := r.getAt(0), r.getAt(1)
		out := make(chan Lease)
		go func() {
			l, err := r.Acquire(context.Background(), Key{Pin: pinOf(0)})
			if err != nil {
				t.Error(err)
			}
			out <- l
		}()
		synctest.Wait()
		b.Done(ok)
		l := <-out
		if l.Endpoint() != r.endpoint(1) {
			t.Errorf("got %s", l.Endpoint().ID)
		}
		l.Done(ok)
		a.Done(ok)
		r.wantPins(0, 1)
		r.quiet()
	})
}

// A request that is tried again keeps its key, but not its endpoint.
func TestPinOfARetry(t *testing.T) {
	r := newRig(t, pinning(nil))
	r.Update(instances(2))
	k := Key{Pin: pinOf(0)}
	l := r.gets(k)
	k.Tried.Add(l.Endpoint())
	l.Done(bad)
	again, err := r.Retry(k)
	if err != nil || again.Endpoint() != r.endpoint(1) {
		t.Fatalf("%v, %v", again.Endpoint(), err)
	}
	again.Done(ok)
	r.wantPins(1, 0)
}

func TestPinDoesNotAllocate(t *testing.T) {
	r := newRig(t, pinning(nil))
	r.Update(instances(100))
	k := Key{Pin: pinOf(7)}
	if n := testing.AllocsPerRun(100, func() {
		l, _ := r.TryAcquire(k)
		l.Done(ok)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
