package balance

import (
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"outrigger/picker"
)

func TestLeaseEndsOnce(t *testing.T) {
	r := newRig(t, limit(2, 10, time.Second))
	r.Update(instances(1))
	a, b := r.get(), r.get()
	if !a.Held() || a.Endpoint() != r.endpoint(0) || a.Conns() != r.member(0).conns || a.Start() <= 0 {
		t.Error("a lease does not tell what it is for")
	}
	a.Done(ok)
	if a.Held() || a.Endpoint() != nil {
		t.Error("held after its end")
	}
	a.Done(bad)
	a.Done(ok)
	if n := r.endpoint(0).InFlight(); n != 1 {
		t.Errorf("%d in flight, want 1", n)
	}
	if n := r.endpoint(0).Totals(); n.Requests != 1 || n.Failures != 0 {
		t.Errorf("totals %+v", n)
	}
	b.Done(ok)
	var zero Lease
	zero.Done(ok)
	if zero.Held() || zero.Endpoint() != nil {
		t.Error("the zero value is a lease")
	}
	r.quiet()
}

// TestResultsReachTheBreaker: only the backend's own failures count.
func TestResultsReachTheBreaker(t *testing.T) {
	for name, c := range map[string]struct {
		result picker.Result
		ejects int // after how many, 0: never
	}{
		"success": {ok, 0}, "failure": {bad, 3}, "nobody listens": {down, 1},
		"overload": {picker.Result{Outcome: picker.Drop}, 0}, "client left": {skip, 0},
		"down but not a failure": {picker.Result{Outcome: picker.Ignore, Down: true}, 0},
	} {
		r := newRig(t, nil)
		r.Update(instances(2))
		for i := 1; i <= 30; i++ {
			r.getAt(0).Done(c.result)
			if r.guard.Ejected() > 0 {
				if i != c.ejects {
					t.Errorf("%s: ejected after %d, want %d", name, i, c.ejects)
				}
				break
			}
		}
		if c.ejects > 0 != (r.guard.Ejected() > 0) {
			t.Errorf("%s: %d ejected after 30", name, r.guard.Ejected())
		}
	}
}

// TestLimitNeverOvershot counts holders beside the balancer. While every
// endpoint is well the only reason to refuse is that all are at their limit.
func TestLimitNeverOvershot(t *testing.T) {
	for _, policy := range picker.Names() {
		for _, n := range []int{1, 3} {
			max := 3 - (n+1)/2 // 2 of one, 1 of three
			r := newRig(t, func(c *Config) {
				limit(max, 0, time.Second)(c)
				c.Picker.Policy = policy
			})
			r.Update(instances(n))
			holders := make(map[*picker.Endpoint]*atomic.Int64)
			for i := range n {
				holders[r.endpoint(i)] = new(atomic.Int64)
			}
			var wg sync.WaitGroup
			var served atomic.Int64
			for range 8 {
				wg.Go(func() {
					for range 1500 {
						l, err := r.TryAcquire(Key{})
						if err != nil {
							refused(t, err, Saturated)
							continue
						}
						h := holders[l.Endpoint()]
						if n := h.Add(1); n > int64(max) {
							t.Errorf("%s: %d holders at a limit of %d", policy, n, max)
						}
						served.Add(1)
						h.Add(-1)
						l.Done(ok)
					}
				})
			}
			wg.Wait()
			r.quiet()
			if served.Load() == 0 {
				t.Errorf("%s: nothing was served", policy)
			}
			if s := r.Status(); s.Requests != uint64(served.Load()) || s.Requests+s.Refused["saturated"] != 8*1500 {
				t.Errorf("%s: served %d, status says %d and %d refused", policy, served.Load(), s.Requests, s.Refused["saturated"])
			}
		}
	}
}

// TestFreeSlotIsFound: with half as many slots again as requests none is
// refused, however they race for them.
func TestFreeSlotIsFound(t *testing.T) {
	for _, policy := range picker.Names() {
		r := newRig(t, func(c *Config) {
			limit(3, 0, time.Second)(c)
			c.Picker.Policy = policy
		})
		r.Update(instances(4))
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				for range 1500 {
					l, err := r.TryAcquire(Key{})
					if err != nil {
						t.Errorf("%s: %v with a slot for everyone", policy, err)
						return
					}
					l.Done(ok)
				}
			})
		}
		wg.Wait()
		r.quiet()
	}
}

func TestRetry(t *testing.T) {
	r := newRig(t, limit(2, 10, time.Second))
	r.Update(instances(3))
	var k Key
	first := r.get()
	seen := []*picker.Endpoint{first.Endpoint()}
	k.Tried.Add(first.Endpoint())
	first.Done(bad)
	for range 2 {
		l, err := r.Retry(k)
		if err != nil {
			t.Fatal(err)
		}
		if slices.Contains(seen, l.Endpoint()) {
			t.Fatalf("retried on %s, which was tried", l.Endpoint().ID)
		}
		seen = append(seen, l.Endpoint())
		k.Tried.Add(l.Endpoint())
		l.Done(bad)
	}
	none := func(what string) {
		t.Helper()
		if l, err := r.Retry(k); !errors.Is(err, ErrNoOther) || l.Held() {
			t.Errorf("%s: %v", what, err)
		}
	}
	none("all tried")
	k.Again = true // a pooled connection had died
	l, err := r.Retry(k)
	if err != nil {
		t.Fatalf("once more on one that was tried: %v", err)
	}
	l.Done(ok)
	// Another is still better than one that was tried.
	k.Tried = picker.Tried{}
	k.Tried.Add(r.endpoint(0))
	k.Tried.Add(r.endpoint(1))
	for range 5 {
		l, err := r.Retry(k)
		if err != nil || l.Endpoint() != r.endpoint(2) {
			t.Fatalf("retry on %v, %v", l.Endpoint(), err)
		}
		l.Done(ok)
	}
	if s := r.Status(); s.Retries != 8 || s.BudgetSpent != 0 || s.Requests != 9 {
		t.Errorf("%d retries, %d forbidden, %d leases", s.Retries, s.BudgetSpent, s.Requests)
	}
	// All others full: nobody waits in a retry.
	a, b := r.getAt(2), r.getAt(2)
	k.Again = false
	none("the only other is full")
	a.Done(ok)
	b.Done(ok)
	r.Update(nil)
	none("no backends")
	r.quiet()
}

func TestRetryBudget(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, nil) // 10 % and 3 a second, over 10 s
		r.Update(instances(2))
		retry := func() (n int) {
			for range 1000 {
				l, err := r.Retry(Key{})
				if err != nil {
					return n
				}
				l.Done(ok)
				n++
			}
			return n
		}
		for range 200 {
			r.get().Done(ok)
		}
		if n := retry(); n != 50 {
			t.Errorf("%d retries for 200 requests, want 50", n)
		}
		if s := r.Status(); s.Retries != 50 || s.BudgetSpent != 1 {
			t.Errorf("%d retries, %d forbidden", s.Retries, s.BudgetSpent)
		}
		time.Sleep(10 * time.Second)
		if n := retry(); n != 30 {
			t.Errorf("%d retries after an idle window, want 30", n)
		}
	})
}

// TestRetryWithoutOtherSpendsNothing: the budget is for retries that are made.
func TestRetryWithoutOtherSpendsNothing(t *testing.T) {
	r := newRig(t, nil)
	r.Update(instances(1))
	var k Key
	k.Tried.Add(r.endpoint(0))
	for range 100 {
		if _, err := r.Retry(k); !errors.Is(err, ErrNoOther) {
			t.Fatal(err)
		}
	}
	if s := r.Status(); s.Retries != 0 || s.BudgetSpent != 0 {
		t.Errorf("%d retries, %d forbidden", s.Retries, s.BudgetSpent)
	}
}

// TestVetoIsKept: with the policy's veto on the only endpoint with room, the
// request is refused; it is not slipped in where choosing failed.
func TestVetoIsKept(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, func(c *Config) {
			limit(1, 10, 50*time.Millisecond)(c)
			c.Picker.Policy = "resource"
		})
		r.Update(instances(2))
		load := func(i int, mem float64) {
			r.SetLoad(instance(i).ID, &picker.Load{
				At: r.Now(), Expires: r.Now() + time.Hour, InFlight: picker.Absent, OwnInFlight: picker.Absent,
				Cores: 2, Avail: 2, Mem: mem, Listening: true,
			})
		}
		load(0, 0.99)
		load(1, 0.1)
		l := r.get()
		if l.Endpoint() != r.endpoint(1) {
			t.Fatal("leased the one that runs out of memory")
		}
		r.refuses(Saturated)
		var wg sync.WaitGroup
		for range 8 { // lost races must not open a way round it
			wg.Go(func() {
				for range 500 {
					if l, err := r.TryAcquire(Key{}); err == nil {
						t.Errorf("leased %s", l.Endpoint().ID)
					}
				}
			})
		}
		wg.Wait()
		l.Done(ok)
		load(1, 0.99)
		r.refuses(AllEjected) // at once: waiting would not help
		waiter := r.ask(t.Context())
		if len(waiter) == 0 {
			t.Fatal("waits though all are vetoed")
		}
		refused(t, (<-waiter).err, AllEjected)
		load(1, 0.1)
		l = r.get()
		waiter = r.ask(t.Context())
		pending(t, "the second request", waiter)
		load(0, 0.1) // the veto falls: there is a slot
		a := <-waiter
		if a.err != nil || a.waited != 0 {
			t.Errorf("waited %v for a slot that was there: %v", a.waited, a.err)
		}
		a.lease.Done(ok)
		l.Done(ok)
		r.quiet()
	})
}

// TestVetoIsKeptInRaces: those who lose races for slots while the only other
// endpoint is vetoed go without.
func TestVetoIsKeptInRaces(t *testing.T) {
	r := newRig(t, func(c *Config) {
		limit(1, 0, time.Second)(c)
		c.Picker.Policy = "resource"
	})
	r.Update(instances(3))
	r.SetLoad(instance(0).ID, &picker.Load{Expires: time.Hour, Cores: 2, Avail: 2, Mem: 0.99, Listening: true})
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			for range 1000 {
				l, err := r.TryAcquire(Key{})
				if err != nil {
					refused(t, err, Saturated)
					continue
				}
				if l.Endpoint() == r.endpoint(0) {
					t.Error("leased what is vetoed")
				}
				l.Done(ok)
			}
		})
	}
	wg.Wait()
	r.quiet()
}

// late is a picker that always looked a moment too early: what it picks has
// been taken since. It vetoes one endpoint.
type late struct{ full, vetoed *picker.Endpoint }

func (l late) Pick(picker.Request) (*picker.Endpoint, bool)      { return l.full, true }
func (l late) Mode(time.Duration) string                         { return "too late" }
func (l late) Explain(picker.Request) picker.Explanation         { return picker.Explanation{} }
func (l late) Vetoes(e *picker.Endpoint, now time.Duration) bool { return e == l.vetoed }

// TestLostRaces: who loses race after race is given what is free elsewhere, if
// it was not tried and is not vetoed.
func TestLostRaces(t *testing.T) {
	r := newRig(t, limit(1, 0, time.Second))
	r.Update(instances(4))
	full := r.getAt(0)
	s := *r.snap.Load()
	slow := late{r.endpoint(0), r.endpoint(1)}
	s.picker, s.vetoer = slow, slow
	r.snap.Store(&s)
	var k Key
	k.Tried.Add(r.endpoint(2))
	l, err := r.TryAcquire(k)
	if err != nil || l.Endpoint() != r.endpoint(3) {
		t.Fatalf("leased %v, %v", l.Endpoint(), err)
	}
	if _, err := r.TryAcquire(k); err == nil {
		t.Error("leased what was tried, vetoed or full")
	}
	m, err := r.TryAcquire(Key{})
	if err != nil || m.Endpoint() != r.endpoint(2) {
		t.Fatalf("leased %v, %v", m.Endpoint(), err)
	}
	r.refuses(Saturated)
	for _, l := range []*Lease{full, &l, &m} {
		l.Done(ok)
	}
	r.quiet()
}

// TestHealthyPathDoesNotAllocate, with any policy.
func TestHealthyPathDoesNotAllocate(t *testing.T) {
	for _, policy := range picker.Names() {
		r := newRig(t, func(c *Config) {
			c.Picker.Policy = policy
			c.Budget.MinPerSecond = 10000
		})
		r.Update(instances(10))
		ctx := t.Context()
		for what, f := range map[string]func() (Lease, error){
			"TryAcquire": func() (Lease, error) { return r.TryAcquire(Key{}) },
			"Acquire":    func() (Lease, error) { return r.Acquire(ctx, Key{Hash: 7}) },
			"Retry":      func() (Lease, error) { return r.Retry(Key{}) },
		} {
			if a := testing.AllocsPerRun(500, func() {
				l, err := f()
				if err != nil {
					t.Fatal(err)
				}
				l.Done(ok)
			}); a != 0 {
				t.Errorf("%s, %s: %v allocations", policy, what, a)
			}
		}
	}
}
