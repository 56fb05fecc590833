package balance

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"outrigger/picker"
)

// TestDrainStress: a request that queues while Drain sweeps is swept or served.
func TestDrainStress(t *testing.T) {
	bubble(t, func(t *testing.T) {
		for range 200 {
			r := newRig(t, limit(1, 100, time.Minute))
			r.Update(instances(1))
			l := r.get()
			var wg sync.WaitGroup
			for range 8 {
				wg.Go(func() {
					start := time.Now()
					_, err := r.Acquire(context.Background(), Key{})
					refused(t, err, Draining)
					if time.Since(start) != 0 {
						t.Error("forgotten in the queue")
					}
				})
			}
			wg.Go(r.Drain)
			wg.Wait()
			l.Done(ok)
			r.quiet()
		}
	})
}

// TestQueueConservesWork: whenever everybody sleeps, either nobody waits in the
// queue or every slot is taken.
func TestQueueConservesWork(t *testing.T) {
	for _, c := range []struct{ endpoints, limit, goroutines int }{{1, 1, 16}, {2, 2, 64}, {5, 1, 40}} {
		bubble(t, func(t *testing.T) {
			const rounds, hold = 30, time.Millisecond
			r := newRig(t, limit(c.limit, 1000, time.Minute))
			r.Update(instances(c.endpoints))
			var busy atomic.Int64
			var wg sync.WaitGroup
			busy.Store(int64(c.goroutines))
			for range c.goroutines {
				wg.Go(func() {
					defer busy.Add(-1)
					for range rounds {
						l, err := r.Acquire(context.Background(), Key{})
						if err != nil {
							t.Error(err)
							return
						}
						if n := l.Endpoint().InFlight(); n > c.limit {
							t.Errorf("%d in flight at a limit of %d", n, c.limit)
						}
						time.Sleep(hold)
						l.Done(ok)
					}
				})
			}
			looks := 0
			for time.Sleep(hold / 2); busy.Load() > 0; time.Sleep(hold) {
				synctest.Wait()
				if r.queue.waiting.Load() == 0 {
					continue
				}
				looks++
				for _, m := range r.snap.Load().all {
					if m.ep.HasRoom() {
						t.Errorf("%d wait, and %s has room", r.queue.waiting.Load(), m.ep.ID)
					}
				}
			}
			wg.Wait()
			if full := c.goroutines * rounds / (c.endpoints * c.limit); looks < full/2 {
				t.Errorf("somebody waited at %d moments of about %d", looks, full)
			}
			r.quiet()
		})
	}
}

// TestQueueNoLostWakeups races enqueueing against the end of leases with
// nothing between them. Who misses its wake-up sleeps to the time-out, which
// only then can come: the clock stands still as long as anybody runs.
func TestQueueNoLostWakeups(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, limit(1, 1000, time.Minute))
		r.Update(instances(2))
		var wg sync.WaitGroup
		start := time.Now()
		for range 32 {
			wg.Go(func() {
				for range 600 {
					l, err := r.Acquire(context.Background(), Key{})
					if err != nil {
						t.Error(err)
						return
					}
					l.Done(ok)
				}
			})
		}
		wg.Wait()
		if time.Since(start) != 0 {
			t.Errorf("somebody slept, for %v", time.Since(start))
		}
		r.quiet()
	})
}

// TestQueueLeaksNothing has grants, time-outs and leaving clients meet at the
// same instants: every lease ends up with exactly one owner.
func TestQueueLeaksNothing(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, func(c *Config) {
			limit(2, 16, 3*time.Millisecond)(c)
			c.Breaker.Capacity.MinQueued = 1e6
		})
		r.Update(instances(2))
		var wg sync.WaitGroup
		var served, refusedN, left atomic.Int64
		const goroutines, rounds = 40, 200
		for range goroutines {
			wg.Go(func() {
				for range rounds {
					ctx, cancel := context.WithTimeout(context.Background(), time.Duration(1+rand.IntN(4))*time.Millisecond)
					l, err := r.Acquire(ctx, Key{})
					var no *Refusal
					switch {
					case err == nil:
						time.Sleep(time.Duration(rand.IntN(4)) * time.Millisecond)
						l.Done(ok)
						l.Done(ok)
						served.Add(1)
					case errors.As(err, &no):
						refusedN.Add(1)
						time.Sleep(time.Millisecond)
					case errors.Is(err, context.DeadlineExceeded):
						left.Add(1)
					default:
						t.Errorf("error %v", err)
					}
					cancel()
				}
			})
		}
		wg.Wait()
		r.quiet()
		s := r.Status()
		if s.Requests != uint64(served.Load()) || served.Load()+refusedN.Load()+left.Load() != goroutines*rounds {
			t.Errorf("%d leases granted, %d served, %d refused, %d left", s.Requests, served.Load(), refusedN.Load(), left.Load())
		}
		if served.Load() == 0 || refusedN.Load() == 0 || left.Load() == 0 {
			t.Errorf("not all cases met: %d served, %d refused, %d left", served.Load(), refusedN.Load(), left.Load())
		}
	})
}

// TestFailureStress: backends fail and heal under load while requests are
// retried on others. At its end nothing is in flight, nobody waits, every
// breaker can close again and no place among the ejected is lost.
func TestFailureStress(t *testing.T) {
	bubble(t, func(t *testing.T) {
		const n = 5
		r := newRig(t, func(c *Config) {
			limit(4, 1000, time.Minute)(c)
			c.Breaker.BaseEjection, c.Breaker.MaxEjection = 10*time.Millisecond, 100*time.Millisecond
			c.Budget.Ratio = 1
		})
		r.run()
		r.Update(instances(n))
		var sick [n]atomic.Int32
		var stop atomic.Bool
		var users, movers sync.WaitGroup
		movers.Go(func() {
			for !stop.Load() {
				sick[rand.IntN(n)].Store(int32(rand.IntN(3)))
				time.Sleep(5 * time.Millisecond)
			}
		})
		results := []picker.Result{ok, bad, down}
		var failed, answered atomic.Int64
		for range 24 {
			users.Go(func() {
				for range 200 {
					l, err := r.Acquire(context.Background(), Key{})
					if err != nil {
						t.Error(err)
						return
					}
					var k Key
					for {
						ep := l.Endpoint()
						time.Sleep(time.Duration(rand.IntN(2000)) * time.Microsecond)
						how := results[sick[ep.ID[2]-'0'].Load()]
						l.Done(how)
						if how == ok {
							answered.Add(1)
							break
						}
						k.Tried.Add(ep)
						if l, err = r.Retry(k); err != nil {
							failed.Add(1)
							break
						}
					}
				}
			})
		}
		users.Wait()
		stop.Store(true)
		movers.Wait()
		r.quiet()
		if answered.Load() == 0 {
			t.Error("nothing was answered")
		}
		for i := range sick {
			sick[i].Store(0)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		for i := range n {
			for range 3 {
				r.getAt(i).Done(ok)
				synctest.Wait()
			}
		}
		s := r.Status()
		if s.EjectedEndpoints != 0 || s.Ready != n || s.Panic {
			t.Errorf("%d ejected, %d ready, panic %v", s.EjectedEndpoints, s.Ready, s.Panic)
		}
		var ejections uint64
		for _, e := range s.Endpoints {
			if e.Limit != 4 || e.Breaker != "closed" {
				t.Errorf("%s: limit %d, %s", e.Instance.ID, e.Limit, e.Breaker)
			}
			ejections += e.Ejections
		}
		if ejections == 0 {
			t.Error("nothing was ejected")
		}
	})
}
