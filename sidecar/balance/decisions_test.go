package balance

import (
	"context"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"outrigger/picker"
)

// TestRingSkipsTorn takes writers apart: a slot tells of a ticket only if both
// of its words are that ticket's.
func TestRingSkipsTorn(t *testing.T) {
	const late = ringSize + 5 // the same slot as ticket 5, a lap later
	var r ring
	has := func(ticket, want uint64) {
		t.Helper()
		when, data, ok := r.get(ticket)
		if ok != (want != 0) || ok && (data != want || when != time.Duration(want)*time.Microsecond) {
			t.Errorf("ticket %d: %v, %d, %v; want %d", ticket, when, data, ok, want)
		}
	}
	write := func(ticket, data uint64, words ...int) {
		slot, lap := r.at(ticket)
		for _, w := range words {
			slot[w].Store(lap | data)
		}
	}
	has(5, 0)
	write(5, 50, 0)
	has(5, 0) // half of it
	write(5, 50, 1)
	has(5, 50)
	has(late, 0)
	write(late, 60, 0)
	has(5, 0) // torn
	has(late, 0)
	write(5, 50, 0) // a writer that slept for a lap
	write(late, 60, 1)
	has(5, 0)
	has(late, 0)
	write(late, 60, 0)
	has(late, 60)
	has(5, 0)

	seen := map[*[2]atomic.Uint64]bool{}
	for ticket := range uint64(ringSize) {
		slot, _ := r.at(ticket)
		seen[slot] = true
	}
	if len(seen) != ringSize {
		t.Errorf("%d of %d slots are in use", len(seen), ringSize)
	}
}

// TestRingConcurrently: whatever is read is of one record, and of its ticket.
func TestRingConcurrently(t *testing.T) {
	var r ring
	var last atomic.Uint64
	var wg sync.WaitGroup
	ended := make(chan struct{})
	for range 4 {
		wg.Go(func() {
			for range 20000 {
				ticket := last.Add(1)
				r.put(ticket, time.Duration(ticket)*time.Microsecond, ticket*3)
			}
		})
	}
	var readers sync.WaitGroup
	var read atomic.Int64
	for range 2 {
		readers.Go(func() {
			for {
				newest := last.Load()
				for ticket := newest; ticket > 0 && newest-ticket < ringSize; ticket-- {
					when, data, ok := r.get(ticket)
					if !ok {
						continue
					}
					read.Add(1)
					if data != ticket*3 || when != time.Duration(ticket)*time.Microsecond {
						t.Errorf("ticket %d reads %v and %d", ticket, when, data)
						return
					}
				}
				select {
				case <-ended:
					return
				default:
				}
			}
		})
	}
	wg.Wait()
	close(ended)
	readers.Wait()
	n := 0
	r.newest(last.Load(), ringSize, func(time.Duration, uint64) { n++ })
	// A writer that was overtaken by a lap may have spoilt a slot or two.
	if n < ringSize-8 || read.Load() == 0 {
		t.Errorf("%d of %d are there at the end, %d were read", n, ringSize, read.Load())
	}
}

// TestDecisions: each way to a lease is told, the newest first.
func TestDecisions(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, func(c *Config) {
			limit(2, 10, time.Minute)(c)
			c.Budget.MinPerSecond = 100
		})
		r.run()
		if d := r.Decisions(10); len(d) != 0 {
			t.Errorf("a new service has decided %v", d)
		}
		r.Update(instances(2))
		first := r.getAt(0)
		time.Sleep(time.Second)
		second := r.getAt(0)
		var tried picker.Tried
		tried.Add(r.endpoint(0))
		retry, err := r.Retry(Key{Tried: tried})
		if err != nil {
			t.Fatal(err)
		}
		fourth := r.get() // of endpoint 1, which alone has room
		waits := r.ask(t.Context())
		pending(t, "a fifth", waits)
		time.Sleep(time.Second)
		first.Done(ok)
		synctest.Wait()
		granted := <-waits
		want := []Decision{
			{Endpoint: "n/0", InFlight: 2, Queued: true},
			{Age: time.Second, Endpoint: "n/1", InFlight: 2},
			{Age: time.Second, Endpoint: "n/1", InFlight: 1, Tries: 1},
			{Age: time.Second, Endpoint: "n/0", InFlight: 2, Tries: 1},
			{Age: 2 * time.Second, Endpoint: "n/0", InFlight: 1, Tries: 1},
		}
		check := func(want []Decision) {
			t.Helper()
			got := r.Decisions(len(want))
			if len(got) != len(want) {
				t.Fatalf("%d decisions, want %d", len(got), len(want))
			}
			for i, w := range want {
				w.Addr = "127.0.0.1:800" + w.Endpoint[2:]
				if got[i] != w {
					t.Errorf("decision %d is %+v, want %+v", i, got[i], w)
				}
			}
		}
		check(want)
		check(want[:2])
		if all := r.Decisions(1000); len(all) != 5 {
			t.Errorf("%d decisions in all, want 5", len(all))
		}
		for _, l := range []*Lease{second, &retry, fourth, &granted.lease} {
			l.Done(ok)
		}

		// One more try at the only endpoint, which was tried.
		r.Update(instances(1))
		l, err := r.Retry(Key{Tried: tried, Again: true})
		if err != nil {
			t.Fatal(err)
		}
		l.Done(ok)
		got := r.Decisions(3)
		if !got[0].Again || got[0].Tries != 1 || got[0].Left {
			t.Errorf("a try of the same endpoint: %+v", got[0])
		}
		if got[2].Endpoint != "n/1" || !got[2].Left {
			t.Errorf("at an endpoint that has left: %+v", got[2])
		}
	})
}

func TestDecisionsProbeAndPanic(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, nil)
		r.run()
		r.Update(instances(3))
		r.eject(0)
		r.expire(0)
		r.getAt(0).Done(ok)
		if d := r.Decisions(2); !d[0].Probe || d[0].Panic || d[1].Probe {
			t.Errorf("a probe and what ejected it: %+v", d)
		}
		r.panics()
		r.get().Done(ok)
		if d := r.Decisions(1); !d[0].Panic || d[0].Probe {
			t.Errorf("in panic: %+v", d)
		}
	})
}

// panics has the two first of three endpoints ejected and the third leave.
func (r *rig) panics() {
	r.t.Helper()
	synctest.Wait()
	r.eject(0)
	r.eject(1)
	r.Update(instances(2))
	synctest.Wait()
	if s := r.Status(); !s.Panic {
		r.t.Fatalf("no panic: %+v", s)
	}
}

// TestDenials: 503s are told, and thousands of picks do not wash them out.
func TestDenials(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, limit(1, 1, 50*time.Millisecond))
		r.run()
		r.refuses(NoBackends)
		r.Update(instances(2))
		held := []*Lease{r.get(), r.get()}
		r.refuses(Saturated)
		waits := r.ask(context.Background())
		var tried picker.Tried
		tried.Add(r.endpoint(1))
		_, err := r.Acquire(context.Background(), Key{Tried: tried})
		refused(t, err, QueueFull)
		a := <-waits
		refused(t, a.err, QueueTimeout)
		for _, l := range held {
			l.Done(ok)
		}
		r.Refuse(Unreachable)
		r.Drain()
		_, err = r.Acquire(context.Background(), Key{})
		refused(t, err, Draining)
		r.draining.Store(false)
		time.Sleep(time.Second)
		for range 5000 {
			r.get().Done(ok)
		}
		want := []Denial{
			{Age: time.Second, Reason: Draining, Ready: 2},
			{Age: time.Second, Reason: Unreachable, Ready: 2},
			{Age: time.Second, Reason: QueueTimeout, Queued: true, Ready: 2},
			{Age: time.Second + 50*time.Millisecond, Reason: QueueFull, Tries: 1, Waiting: 1, Ready: 2},
			{Age: time.Second + 50*time.Millisecond, Reason: Saturated, Ready: 2},
			{Age: time.Second + 50*time.Millisecond, Reason: NoBackends},
		}
		got := r.Denials(100)
		if len(got) != len(want) {
			t.Fatalf("%d denials: %+v", len(got), got)
		}
		for i, w := range want {
			if s := got[i].RetryAfter; s < 1 || s > 30 {
				t.Errorf("denial %d: retry after %d s", i, s)
			}
			w.RetryAfter = got[i].RetryAfter
			if got[i] != w {
				t.Errorf("denial %d is %+v, want %+v", i, got[i], w)
			}
		}
		for range 1000 {
			r.Refuse(Unreachable)
		}
		if got := r.Denials(1000); len(got) != ringSize {
			t.Errorf("%d are kept, want %d", len(got), ringSize)
		}
	})
}

// TestRecordsSaturate: what does not fit is the most that does.
func TestRecordsSaturate(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, limit(0, 0, time.Second))
		r.Update(instances(1))
		var k Key
		for range 20 {
			k.Tried.Add(picker.NewEndpoint("x", "x", 1, 0, nil))
		}
		for range 1<<inFlightBits + 10 {
			r.get()
		}
		l, err := r.TryAcquire(k)
		if err != nil {
			t.Fatal(err)
		}
		if d := r.Decisions(1)[0]; d.InFlight != 1<<inFlightBits-1 || d.Tries != 7 || d.Endpoint != "n/0" || d.Queued || d.Disagreed {
			t.Errorf("%+v", d)
		}
		l.Done(ok)
	})
}

// TestNamesOfTheDeparted: serials come round, and only so many names are kept.
func TestNamesOfTheDeparted(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, nil)
		r.serials = 1<<serialBits - 2
		r.Update(instances(1))
		r.get().Done(ok)
		r.Update(instances(1)[:0])
		for i := range 2 * ringSize {
			one := instance(i + 1)
			one.ID = "other"
			one.Port = 9000 + i
			r.Update(append(instances(1)[:0], one))
		}
		if d := r.Decisions(1)[0]; d.Endpoint != "" || !d.Left {
			t.Errorf("of an endpoint that left long ago: %+v", d)
		}
		r.get().Done(ok)
		if d := r.Decisions(1)[0]; d.Endpoint != "other" || d.Left || d.Addr != "127.0.0.1:9511" {
			t.Errorf("after the serials came round: %+v", d)
		}
	})
}

// TestRecordsUnderStress reads while picks, refusals and membership go on.
func TestRecordsUnderStress(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, limit(1, 2, time.Millisecond))
		r.Update(instances(4))
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				for ctx.Err() == nil {
					l, err := r.Acquire(ctx, Key{Hash: rand.Uint64()})
					time.Sleep(time.Duration(1+rand.IntN(1000)) * time.Microsecond)
					if err == nil {
						l.Done(ok)
					}
				}
			})
		}
		wg.Go(func() {
			for ctx.Err() == nil {
				r.Update(instances(1 + rand.IntN(6)))
				time.Sleep(100 * time.Microsecond)
			}
		})
		for ctx.Err() == nil {
			for _, d := range r.Decisions(ringSize) {
				if d.InFlight != 1 || d.Endpoint == "" && !d.Left || d.Age > time.Second {
					t.Errorf("%+v", d)
				}
			}
			for _, d := range r.Denials(ringSize) {
				if d.Reason > Draining || d.RetryAfter < 1 || d.RetryAfter > 30 || d.Waiting > 2 || d.Ready > 6 {
					t.Errorf("%+v", d)
				}
			}
			if x, err := r.Explain(Question{Hash: 7}); err != nil || len(x.Policy.Candidates) > 6 {
				t.Errorf("%+v, %v", x, err)
			}
			time.Sleep(50 * time.Microsecond)
		}
		wg.Wait()
	})
}
