package balance

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"outrigger/discovery"
	"outrigger/picker"
)

// tiered makes primaries, and then backups.
func tiered(primaries, backups int) []discovery.Instance {
	set := instances(primaries + backups)
	for i := range set {
		set[i].Backup = i >= primaries
	}
	return set
}

func (r *rig) wantWhy(i int, want string) {
	r.t.Helper()
	if e := r.Status().Endpoints[i]; e.Why != want || e.Ready != (want == "") {
		r.t.Errorf("endpoint %d: ready %v, why %q, want %q", i, e.Ready, e.Why, want)
	}
}

func TestBackupsStandBy(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, func(c *Config) { c.Breaker.MaxEjectedPercent, c.PanicThreshold = 100, .3 })
		r.run()
		set := tiered(3, 2)
		r.Update(set)
		r.wantReady("n/0 n/1 n/2")
		r.wantWhy(3, "backup: 3 primaries are ready")
		r.wantWhy(0, "")
		if s := r.Status(); s.Ready != 3 || s.Panic || s.Reason != "" || s.Capacity != "closed" {
			t.Errorf("%d ready, panic %v, reason %q, capacity %s", s.Ready, s.Panic, s.Reason, s.Capacity)
		}

		// Each way to be out counts, and the last one's brings the backups in.
		set[0].Health = discovery.Critical
		r.Update(set)
		r.wantReady("n/1 n/2")
		r.eject(1)
		r.wantReady("n/2")
		r.wantWhy(4, "backup: 1 primary is ready")
		held := r.getAt(2)
		set[2].Weight = 0
		r.Update(set)
		r.wantReady("n/3 n/4")
		r.wantWhy(3, "")
		for range 50 {
			l := r.get()
			if l.Endpoint() != r.endpoint(3) && l.Endpoint() != r.endpoint(4) {
				t.Fatalf("leased %s", l.Endpoint().ID)
			}
			l.Done(ok)
		}
		held.Done(ok)

		// The ejected one comes back by a probe, while backups do the work.
		r.expire(1)
		r.wantReady("n/1 n/3 n/4")
		onBackup := r.getAt(3)
		r.getAt(1).Done(ok)
		r.wantReady("n/1")
		r.wantWhy(3, "backup: 1 primary is ready")
		onBackup.Done(ok) // finishes where it is
		r.quiet()
	})
}

// TestFullTierDoesNotSpill: at their limits primaries are ready all the same.
func TestFullTierDoesNotSpill(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, limit(1, 10, time.Minute))
		r.run()
		r.Update(tiered(2, 2))
		a, b := r.getAt(0), r.getAt(1)
		r.refuses(Saturated)
		waits := r.ask(context.Background())
		pending(t, "a request to a full tier", waits)
		r.eject0(a)
		b.Done(ok)
		got := <-waits
		if got.err != nil || got.lease.Endpoint() != r.endpoint(1) {
			t.Errorf("the waiter got %v, %v", got.lease.Endpoint(), got.err)
		}
		got.lease.Done(ok)
		r.quiet()
	})
}

// eject0 ends a lease as one to an endpoint where nobody listens.
func (r *rig) eject0(l *Lease) {
	l.Done(down)
	synctest.Wait()
}

// TestOnlyBackups: a service of nothing else is served by them.
func TestOnlyBackups(t *testing.T) {
	r := newRig(t, nil)
	r.Update(tiered(0, 3))
	for i := range 3 {
		r.wantWhy(i, "")
		r.getAt(i).Done(ok)
	}
	r.quiet()
}

// TestPanicTakesAll: when everything is ejected, ranks do not count either.
func TestPanicTakesAll(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, func(c *Config) { c.Breaker.MaxEjectedPercent = 100 })
		r.run()
		r.Update(tiered(1, 1))
		r.eject(0)
		r.wantReady("n/1")
		if s := r.Status(); s.Panic || s.Capacity != "closed" || s.Ready != 1 {
			t.Errorf("panic %v, capacity %s, %d ready, with a backup there", s.Panic, s.Capacity, s.Ready)
		}
		for range 3 {
			r.getAt(1).Done(bad)
		}
		synctest.Wait()
		// The guard leaves the last one in.
		r.wantReady("n/1")
		set := tiered(1, 1)
		set[1].Health = discovery.Critical
		r.Update(set)
		// Nobody could connect to the first.
		r.wantReady("n/1")
		if s := r.Status(); !s.Panic || s.Endpoints[1].Despite != "critical" {
			t.Errorf("panic %v, despite %q", s.Panic, s.Endpoints[1].Despite)
		}
		r.eject0(r.getAt(1)) // and now to neither: there are no others
		r.wantReady("n/0 n/1")
		r.getAt(0).Done(ok)
	})
}

// TestRetryGoesToABackup: a request whose try killed the last primary is not
// failed, though the next snapshot is yet to come.
func TestRetryGoesToABackup(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, nil) // Run is not started: there is no next snapshot
		r.Update(tiered(1, 2))
		l := r.get()
		var k Key
		k.Tried.Add(l.Endpoint())
		if !r.CanRetry(k) {
			t.Error("no retry foreseen")
		}
		l.Done(down)
		again, err := r.Retry(k)
		if err != nil || again.Endpoint() == r.endpoint(0) {
			t.Fatalf("retry: %v", err)
		}
		k.Tried.Add(again.Endpoint())
		again.Done(bad)
		third, err := r.Retry(k)
		if err != nil {
			t.Fatalf("second retry: %v", err)
		}
		k.Tried.Add(third.Endpoint())
		third.Done(bad)
		if _, err := r.Retry(k); err == nil || r.CanRetry(k) {
			t.Error("a fourth endpoint was found")
		}
		// A first try meets the ejected one alone, and goes to a backup as well.
		r.get().Done(ok)
		x, err := r.Explain(Question{})
		if err != nil || x.Policy.Pick == "" || x.Policy.Pick == "n/0" || x.Reason != "" {
			t.Errorf("explained: pick %q, reason %q, %v", x.Policy.Pick, x.Reason, err)
		}
		r.quiet()
	})
	// While a primary is merely full, a retry stays away.
	r := newRig(t, limit(1, 0, time.Second))
	r.Update(tiered(2, 1))
	a, b := r.getAt(0), r.getAt(1)
	var k Key
	k.Tried.Add(a.Endpoint())
	if _, err := r.Retry(k); err == nil || r.CanRetry(k) {
		t.Error("a retry went to the backup of a tier that is full")
	}
	a.Done(ok)
	b.Done(ok)
}

// TestVetoedTier: primaries that the policy vetoes are no primaries, for as long
// as their reports are believed.
func TestVetoedTier(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, func(c *Config) { c.Picker.Policy = "resource" })
		r.run()
		r.Update(tiered(2, 1))
		report := func(id string, mem float64, life time.Duration) {
			r.SetLoad(id, &picker.Load{At: r.Now(), Expires: r.Now() + life, Cores: 1, Avail: 1, Mem: mem, Listening: true})
			synctest.Wait()
		}
		report("n/0", 0.99, time.Hour)
		r.wantReady("n/0 n/1")
		report("n/1", 0.99, 3*time.Second)
		r.wantReady("n/2")
		r.wantWhy(0, "memory at 99 % of its limit")
		r.wantWhy(2, "")
		if s := r.Status(); s.Capacity != "closed" || s.Ready != 1 {
			t.Errorf("capacity %s, %d ready", s.Capacity, s.Ready)
		}
		r.get().Done(ok)
		time.Sleep(3*time.Second + time.Millisecond) // no report comes: the veto ends by itself
		r.wantReady("n/0 n/1")
		report("n/1", 0.99, time.Hour)
		r.wantReady("n/2")
		report("n/1", 0.2, time.Hour)
		r.wantReady("n/0 n/1")
		// All vetoed: all are there for whose veto falls first.
		report("n/1", 0.99, time.Hour)
		report("n/2", 0.99, time.Hour)
		r.wantReady("n/0 n/1 n/2")
		r.refuses(AllEjected)
		if s := r.Status(); s.Capacity != "open" {
			t.Errorf("capacity %s with all vetoed", s.Capacity)
		}
	})
}

// TestDeafTier: primaries whose agents see nobody listen give way to backups; with
// nobody else there, they are tried.
func TestDeafTier(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, func(c *Config) { c.Picker.Policy = "resource" })
		r.run()
		r.Update(tiered(2, 1))
		deaf := func(id string, life time.Duration) {
			r.SetLoad(id, &picker.Load{At: r.Now(), Expires: r.Now() + life, Cores: 1, Avail: 1, Mem: picker.Absent})
			synctest.Wait()
		}
		deaf("n/0", time.Hour)
		r.wantReady("n/0 n/1")
		r.wantWhy(0, "its agent sees nobody listen")
		deaf("n/1", 3*time.Second)
		r.wantReady("n/2")
		time.Sleep(3*time.Second + time.Millisecond)
		r.wantReady("n/0 n/1")
		deaf("n/1", time.Hour)
		deaf("n/2", time.Hour)
		r.wantReady("n/0 n/1 n/2")
		for i := range 3 {
			r.wantWhy(i, "")
		}
		r.get().Done(ok)
		if s := r.Status(); s.Capacity != "closed" {
			t.Errorf("capacity %s with all deaf", s.Capacity)
		}
	})
}

// TestBackupChanges: an instance changes its tier like anything else.
func TestBackupChanges(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, nil)
		r.run()
		r.Update(tiered(2, 0))
		was := r.member(1)
		r.Update(tiered(1, 1))
		r.wantReady("n/0")
		r.Update(tiered(2, 0))
		r.wantReady("n/0 n/1")
		if r.member(1) != was {
			t.Error("it is another endpoint")
		}
	})
}

// TestVetoesExpire: when everyone is vetoed the capacity breaker is open, and
// closes when the reports run out that say so, though no other one comes.
func TestVetoesExpire(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, func(c *Config) { c.Picker.Policy = "resource" })
		r.run()
		r.Update(instances(2))
		for i := range 2 {
			r.SetLoad(instance(i).ID, &picker.Load{
				At: r.Now(), Expires: r.Now() + time.Duration(3+i)*time.Second, InFlight: 0, Cores: 1, Avail: 1,
				CPU: picker.Absent, Mem: 0.95, Conc: picker.Absent, Err: picker.Absent, Listening: true,
			})
		}
		synctest.Wait()
		r.refuses(AllEjected)
		time.Sleep(3*time.Second - time.Millisecond)
		if s := r.Status(); s.Capacity == "closed" {
			t.Error("the capacity breaker is closed though all are vetoed")
		}
		time.Sleep(2 * time.Millisecond)
		synctest.Wait()
		if s := r.Status(); s.Capacity != "closed" {
			t.Errorf("the first report has expired, and capacity is %s", s.Capacity)
		}
		r.get().Done(ok)
		time.Sleep(time.Second)
		synctest.Wait()
		if due := r.snap.Load().due; due != 0 {
			t.Errorf("another rebuild is due at %v, with nothing to end", due)
		}
		r.quiet()
	})
}
