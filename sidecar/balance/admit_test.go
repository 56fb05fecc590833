package balance

import (
	"testing"
	"testing/synctest"
	"time"

	"outrigger/picker"
)

// crowded reports n requests of others in a backend of one core.
func (r *rig) crowded(i int, n float64) {
	r.SetLoad(instance(i).ID, &picker.Load{
		At: r.Now(), Expires: r.Now() + time.Minute, InFlight: n, Cores: 1, Avail: 1,
		CPU: picker.Absent, Mem: picker.Absent, Conc: 1, Err: picker.Absent, Listening: true,
	})
}

// foretelling is a rig with the resource policy that has seen what a request
// takes on its own: 100 ms.
func foretelling(t *testing.T, share float64, queue int) *rig {
	r := newRig(t, func(c *Config) {
		c.Picker.Policy, c.MaxWait, c.Queue.Length = "resource", share, queue
	})
	r.Update(instances(2))
	r.run()
	for i := range 2 {
		r.crowded(i, 0)
		l := r.getAt(i)
		time.Sleep(100 * time.Millisecond)
		l.Done(picker.Result{Outcome: picker.Success, FirstByte: 100 * time.Millisecond})
	}
	r.refresh()
	return r
}

// refresh makes the balancer rate its endpoints anew, as the next request
// would soon have it do.
func (r *rig) refresh() {
	time.Sleep(time.Second)
	r.rouse()
	synctest.Wait()
}

// TestForetoldWait: a request that would spend too much of its time waiting
// inside the best backend is turned away at once, one without a time-out never.
func TestForetoldWait(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := foretelling(t, 0.15, 0)
		r.crowded(0, 20)
		r.crowded(1, 20)
		r.refresh()
		r.crowded(0, 20)
		r.crowded(1, 20)
		soon := Key{Deadline: r.Now() + 10*time.Second} // 2 s of waiting foretold, 1.5 s allowed
		_, err := r.TryAcquire(soon)
		refused(t, err, Saturated)
		for what, k := range map[string]Key{"no deadline": {}, "a late deadline": {Deadline: r.Now() + 20*time.Second}} {
			l, err := r.TryAcquire(k)
			if err != nil {
				t.Fatalf("%s: %v", what, err)
			}
			l.Done(skip)
		}
		r.crowded(1, 3) // one with room is enough
		if l, err := r.TryAcquire(soon); err != nil || l.Endpoint() != r.endpoint(1) {
			t.Errorf("leased %v, %v", l.Endpoint(), err)
		} else {
			l.Done(skip)
		}
		r.quiet()
	})
}

func TestForetoldWaitOff(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := foretelling(t, 0, 0)
		r.crowded(0, 1000)
		r.crowded(1, 1000)
		l, err := r.TryAcquire(Key{Deadline: r.Now() + time.Second})
		if err != nil {
			t.Fatal(err)
		}
		l.Done(skip)
	})
}

// TestForetoldWaitQueues: who is turned away for it may wait, and gets in when
// a report says that there is room.
func TestForetoldWaitQueues(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := foretelling(t, 0.15, 10)
		r.crowded(0, 50)
		r.crowded(1, 50)
		got := make(chan Lease, 1)
		w := &Waiter{Key: Key{Deadline: r.Now() + 10*time.Second}, Grant: func(l Lease, err error) {
			if err != nil {
				t.Error(err)
			}
			got <- l
		}}
		if _, waits, err := r.Ask(w); !waits || err != nil {
			t.Fatalf("waits %v, %v", waits, err)
		}
		if len(got) != 0 {
			t.Fatal("it got in though nothing had changed")
		}
		r.crowded(0, 0)
		synctest.Wait()
		l := <-got
		if l.Endpoint() != r.endpoint(0) {
			t.Errorf("leased %v", l.Endpoint())
		}
		l.Done(skip)
		r.quiet()
	})
}

// TestAsk: at once, in the queue, and refused, each counted once.
func TestAsk(t *testing.T) {
	r := newRig(t, limit(1, 1, time.Second))
	r.Update(instances(1))
	granted := 0
	var second Lease
	first, waits, err := r.Ask(&Waiter{})
	if err != nil || waits || !first.Held() {
		t.Fatalf("first: waits %v, %v", waits, err)
	}
	w := &Waiter{Grant: func(l Lease, err error) { second, granted = l, granted+1 }}
	if l, waits, err := r.Ask(w); err != nil || !waits || l.Held() {
		t.Fatalf("second: held %v, waits %v, %v", l.Held(), waits, err)
	}
	_, waits, err = r.Ask(&Waiter{})
	refused(t, err, QueueFull)
	if waits {
		t.Error("a refused request waits")
	}
	first.Done(ok)
	if granted != 1 || !second.Held() {
		t.Fatalf("granted %d times", granted)
	}
	second.Done(ok)
	if s := r.Status(); s.Requests != 2 || s.Queued != 1 || s.Refused["queue_full"] != 1 || s.Refused["saturated"] != 0 {
		t.Errorf("requests %d, queued %d, refused %v", s.Requests, s.Queued, s.Refused)
	}
	r.quiet()
}
