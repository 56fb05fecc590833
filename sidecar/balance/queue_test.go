package balance

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"outrigger/discovery"
)

func TestWaiterGetsFreedSlot(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, limit(1, 10, time.Second))
		r.Update(instances(1))
		l := r.get()
		c := r.ask(t.Context())
		time.Sleep(300 * time.Millisecond)
		pending(t, "a request without a slot", c)
		if s := r.Status(); s.Waiting != 1 {
			t.Errorf("%d wait", s.Waiting)
		}
		l.Done(ok)
		a := <-c
		if a.err != nil || a.waited != 300*time.Millisecond || a.lease.Start() != r.Now() {
			t.Fatalf("waited %v, lease from %v ago, %v", a.waited, r.Now()-a.lease.Start(), a.err)
		}
		a.lease.Done(ok)
		if s := r.Status(); s.Queued != 1 || s.Waiting != 0 || s.Requests != 2 {
			t.Errorf("queued %d, waiting %d, requests %d", s.Queued, s.Waiting, s.Requests)
		}
		r.quiet()
	})
}

func TestQueueIsBounded(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, limit(1, 3, time.Second))
		r.Update(instances(2))
		a, b := r.get(), r.get()
		var waiting []chan answer
		for range 3 {
			waiting = append(waiting, r.ask(t.Context()))
		}
		for range 2 {
			refused(t, (<-r.ask(t.Context())).err, QueueFull)
		}
		for _, c := range waiting {
			pending(t, "one of three", c)
		}
		if s := r.Status(); s.Overflowed != 2 || s.Waiting != 3 || s.Refused["queue_full"] != 2 {
			t.Errorf("overflowed %d, waiting %d", s.Overflowed, s.Waiting)
		}
		a.Done(ok)
		b.Done(ok)
		for _, c := range slices.Backward(waiting) { // newest first: the queue is full
			x := <-c
			if x.err != nil {
				t.Error(x.err)
			}
			x.lease.Done(ok)
		}
		r.quiet()
	})
}

func TestNoQueue(t *testing.T) {
	r := newRig(t, limit(1, 0, time.Second))
	r.Update(instances(1))
	defer r.get().Done(ok)
	_, err := r.Acquire(t.Context(), Key{})
	refused(t, err, Saturated)
	refused(t, r.Enqueue(&Waiter{Grant: func(Lease, error) { t.Error("granted") }}), Saturated)
}

func TestQueueTimeout(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, limit(1, 10, 50*time.Millisecond))
		r.Update(instances(1))
		l := r.get()
		c := r.ask(t.Context())
		time.Sleep(10 * time.Millisecond)
		d := r.ask(t.Context())
		for _, c := range []chan answer{c, d} {
			a := <-c
			refused(t, a.err, QueueTimeout)
			if a.waited != 50*time.Millisecond {
				t.Errorf("waited %v", a.waited)
			}
		}
		if s := r.Status(); s.TimedOut != 2 || s.Waiting != 0 {
			t.Errorf("timed out %d, waiting %d", s.TimedOut, s.Waiting)
		}
		l.Done(ok)
		r.get().Done(ok) // nobody else has the slot
		r.quiet()
	})
}

func TestClientLeavesQueue(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, limit(1, 10, time.Minute))
		r.Update(instances(1))
		l := r.get()
		stay := r.ask(t.Context())
		for range 100 { // many of them are no sign of overload
			ctx, leave := context.WithCancel(t.Context())
			c := r.ask(ctx)
			pending(t, "a request", c)
			time.Sleep(time.Millisecond)
			leave()
			if a := <-c; !errors.Is(a.err, context.Canceled) || a.waited != time.Millisecond {
				t.Fatalf("%v after %v", a.err, a.waited)
			}
		}
		if s := r.Status(); s.Waiting != 1 || s.TimedOut != 0 || s.Capacity != "closed" || s.CapacityTrips != 0 {
			t.Errorf("waiting %d, timed out %d, capacity %s", s.Waiting, s.TimedOut, s.Capacity)
		}
		l.Done(ok)
		a := <-stay
		if a.err != nil {
			t.Fatal(a.err)
		}
		a.lease.Done(ok)
		r.quiet()
	})
}

// TestQueueOrder: oldest first while at most half of the queue is in use,
// newest first beyond it.
func TestQueueOrder(t *testing.T) {
	for waiting, want := range map[int][]int{
		3: {0, 1, 2},
		4: {0, 1, 2, 3},
		6: {5, 4, 0, 1, 2, 3},
		8: {7, 6, 5, 4, 0, 1, 2, 3},
	} {
		bubble(t, func(t *testing.T) {
			r := newRig(t, limit(1, 8, time.Second))
			r.Update(instances(1))
			l := r.get()
			queue := make([]chan answer, waiting)
			for i := range queue {
				queue[i] = r.ask(t.Context())
			}
			for _, i := range want {
				l.Done(ok)
				synctest.Wait()
				if len(queue[i]) != 1 {
					t.Fatalf("%d waiting: it is not the turn of %d", waiting, i)
				}
				a := <-queue[i]
				l = &a.lease
			}
			l.Done(ok)
			r.quiet()
		})
	}
}

// TestNewRoomWakesWaiters: whatever makes room lets waiters in at once.
func TestNewRoomWakesWaiters(t *testing.T) {
	for name, makeRoom := range map[string]func(r *rig){
		"an endpoint joins": func(r *rig) { r.Update(instances(3)) },
		"an endpoint turns healthy": func(r *rig) {
			set := instances(2)
			r.Update(set)
		},
		"an ejection ends": func(r *rig) { time.Sleep(r.member(1).br.Until() - r.Now()) },
	} {
		bubble(t, func(t *testing.T) {
			r := newRig(t, limit(1, 10, time.Minute))
			r.run()
			set := instances(2)
			r.Update(set)
			if name == "an ejection ends" {
				r.eject(1)
			} else {
				set = instances(2)
				set[1].Health = discovery.Critical
				r.Update(set)
			}
			l := r.get()
			c := r.ask(t.Context())
			pending(t, "a request", c)
			makeRoom(r)
			synctest.Wait()
			if len(c) != 1 {
				t.Fatalf("%s: the waiter sleeps on", name)
			}
			a := <-c
			if a.err != nil {
				t.Fatal(a.err)
			}
			a.lease.Done(ok)
			l.Done(ok)
			r.quiet()
		})
	}
}

func TestDrain(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, limit(1, 10, time.Minute))
		r.Update(instances(2))
		l, m := r.get(), r.get()
		queue := []chan answer{r.ask(t.Context()), r.ask(t.Context())}
		r.Drain()
		for _, c := range queue {
			a := <-c
			refused(t, a.err, Draining)
			if a.waited != 0 {
				t.Errorf("waited %v", a.waited)
			}
		}
		r.refuses(Draining)
		refused(t, (<-r.ask(t.Context())).err, Draining)
		refused(t, r.enqueue1(t), Draining)
		l.Done(ok)
		r.refuses(Draining)
		retry, err := r.Retry(Key{}) // of a request that was let in before
		if err != nil {
			t.Fatal(err)
		}
		retry.Done(ok)
		m.Done(ok)
		if s := r.Status(); !s.Draining || s.Waiting != 0 || s.TimedOut != 0 {
			t.Errorf("draining %v, %d wait, %d timed out", s.Draining, s.Waiting, s.TimedOut)
		}
		r.quiet()
	})
}

// enqueue1 queues a waiter of its own and returns what it was told.
func (r *rig) enqueue1(t testing.TB) error {
	t.Helper()
	told := make(chan error, 2)
	if err := r.Enqueue(&Waiter{Grant: func(_ Lease, err error) { told <- err }}); err != nil {
		return err
	}
	synctest.Wait()
	if len(told) != 1 {
		t.Fatalf("told %d times", len(told))
	}
	return <-told
}

// TestCapacityOpen: once most who queue fail nobody queues, and a request that
// finds a free slot still passes.
func TestCapacityOpen(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, limit(1, 100, 50*time.Millisecond))
		r.Update(instances(1))
		l := r.get()
		var queue []chan answer
		for range 20 {
			queue = append(queue, r.ask(t.Context()))
		}
		for _, c := range queue {
			refused(t, (<-c).err, QueueTimeout)
		}
		if s := r.Status(); s.Capacity != "open" || s.CapacityTrips != 1 || s.CapacityFor <= 0 {
			t.Fatalf("capacity %s for %v after %d trips", s.Capacity, s.CapacityFor, s.CapacityTrips)
		}
		c := r.ask(t.Context())
		if len(c) != 1 {
			t.Fatal("queued while the capacity breaker is open")
		}
		refused(t, (<-c).err, Saturated)
		l.Done(ok)
		for range 100 {
			a := <-r.ask(t.Context())
			if a.err != nil {
				t.Fatalf("a free slot was refused: %v", a.err)
			}
			a.lease.Done(ok)
		}
		// Half-open one may queue; served, it closes.
		l = r.get()
		time.Sleep(2 * time.Second)
		probe := r.ask(t.Context())
		pending(t, "the probe", probe)
		refused(t, (<-r.ask(t.Context())).err, Saturated)
		l.Done(ok)
		a := <-probe
		if a.err != nil || r.Status().Capacity != "closed" {
			t.Fatalf("%v, capacity %s", a.err, r.Status().Capacity)
		}
		c = r.ask(t.Context())
		pending(t, "with the breaker closed a request", c)
		a.lease.Done(ok)
		a = <-c
		a.lease.Done(ok)
		r.quiet()
	})
}

// TestWaiterCallback is the way of a simulator: Enqueue and Cancel, no
// goroutine. Grant is called once, or Cancel says true.
func TestWaiterCallback(t *testing.T) {
	r := newRig(t, limit(1, 10, time.Second))
	r.Update(instances(1))
	l := r.get()
	var got []string
	waiter := func(name string) *Waiter {
		return &Waiter{Grant: func(x Lease, err error) {
			if err != nil {
				name += " " + err.(*Refusal).Reason.String()
			} else {
				defer x.Done(ok) // grants the next
			}
			got = append(got, name)
		}}
	}
	a, b, c := waiter("a"), waiter("b"), waiter("c")
	for _, w := range []*Waiter{a, b, c} {
		if err := r.Enqueue(w); err != nil {
			t.Fatal(err)
		}
	}
	if !r.Cancel(b, true) || r.Cancel(b, true) {
		t.Error("a waiter can be cancelled once")
	}
	l.Done(ok)
	if len(got) != 2 || got[0] != "a" || got[1] != "c" {
		t.Errorf("granted %v", got)
	}
	if r.Cancel(a, false) {
		t.Error("cancelled after its grant")
	}
	// Room that is there when it is queued is given before Enqueue returns.
	d := waiter("d")
	if err := r.Enqueue(d); err != nil || got[len(got)-1] != "d" {
		t.Errorf("%v, granted %v", err, got)
	}
	l = r.get()
	if err := r.Enqueue(waiter("e")); err != nil {
		t.Fatal(err)
	}
	r.Drain()
	if got[len(got)-1] != "e draining" {
		t.Errorf("told %v", got)
	}
	l.Done(ok)
	r.quiet()
}
