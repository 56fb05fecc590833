package balance

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"outrigger/breaker"
	"outrigger/discovery"
	"outrigger/picker"
)

// TestRule holds every combination of what may take an endpoint out against the
// sentences at the top of health.go, without a panic and in one.
func TestRule(t *testing.T) {
	const all = 1 << 7
	for bits := range 2 * all {
		has := func(n int) bool { return bits&(1<<n) != 0 }
		zero, maint, crit, failing, ejects, damps, veto, panics := has(0), has(1), has(2), has(3), has(4), has(5), has(6), has(7)
		for _, refuses := range []bool{false, true} {
			if refuses && !ejects {
				continue // ejected for it, or not at all
			}
			bubble(t, func(t *testing.T) {
				r := newRig(t, func(c *Config) { c.Picker.Policy, c.SlowStart = "resource", 0 })
				r.run()
				set := instances(5)
				r.Update(set)
				switch {
				case refuses:
					r.eject(0)
				case ejects:
					for range 3 {
						r.getAt(0).Done(bad)
					}
				}
				if veto {
					r.SetLoad("n/0", &picker.Load{At: r.Now(), Expires: r.Now() + time.Hour, Cores: 1, Avail: 1, Mem: .99, Listening: true})
				}
				if failing {
					r.SetCheck("n/0", CheckState{Known: true, Error: "status 500"})
				}
				if damps {
					r.member(0).flap.Store(&breaker.Flap{Until: r.Now() + time.Hour})
				}
				if zero {
					set[0].Weight = 0
				}
				if crit {
					set[0].Health = discovery.Critical
				}
				if maint {
					set[0].Health = discovery.Maintenance
				}
				if panics {
					for i := range set[1:] {
						set[1+i].Health = discovery.Critical
					}
				}
				r.Update(set)
				synctest.Wait()

				well := !(crit && !maint) && !failing && !ejects && !damps
				want := !zero && !maint && !veto && (well || panics && !refuses)
				s := r.Status()
				what := fmt.Sprintf("weight 0 %v, maintenance %v, critical %v, check down %v, ejected %v, damped %v, veto %v, unreachable %v, others critical %v: %q",
					zero, maint, crit, failing, ejects, damps, veto, refuses, panics, s.Endpoints[0].Why)
				if s.Panic != panics {
					t.Fatalf("%s: panic %v, %d of %d healthy", what, s.Panic, s.PanicHealthy, s.PanicListed)
				}
				if e := s.Endpoints[0]; e.Ready != want || (e.Why == "") != want || (e.Despite != "") != (panics && !zero && !maint && !well && !refuses) {
					t.Errorf("%s: ready %v, want %v; despite %q", what, e.Ready, want, e.Despite)
				}
				for _, c := range r.explain(Question{}).Policy.Candidates {
					if c.ID == "n/0" && (c.Out == "") != want {
						t.Errorf("%s: explained as %q", what, c.Out)
					}
				}
				k := Key{}
				for i := range 4 {
					k.Tried.Add(r.endpoint(1 + i))
				}
				if got := r.CanRetry(k); got != want {
					t.Errorf("%s: CanRetry %v", what, got)
				}
				l, err := r.TryAcquire(k)
				if got := err == nil; got != want {
					t.Errorf("%s: leased %v", what, got)
				}
				l.Done(ok)
				r.quiet()
			})
		}
	}
}

// sick is a set in which the given endpoints are critical.
func sick(n int, critical ...int) []discovery.Instance {
	set := instances(n)
	for _, i := range critical {
		set[i].Health = discovery.Critical
	}
	return set
}

// TestPanicThreshold: at the share it holds, below it does not, for any share.
func TestPanicThreshold(t *testing.T) {
	for _, c := range []struct {
		threshold    float64
		of, critical int
		want         bool
	}{
		{.5, 1, 0, false}, {.5, 1, 1, true}, {.5, 2, 1, false}, {.5, 2, 2, true}, {.5, 3, 1, false}, {.5, 3, 2, true},
		{.5, 4, 2, false}, {.5, 4, 3, true}, {.5, 10, 5, false}, {.5, 10, 6, true},
		{1, 3, 0, false}, {1, 3, 1, true}, {.07, 100, 93, false}, {.07, 100, 94, true}, {.3, 10, 7, false}, {.3, 10, 8, true},
		{1e-12, 10, 9, false}, {1e-12, 10, 10, true}, {0, 10, 9, false}, {0, 10, 10, false},
	} {
		r := newRig(t, func(cfg *Config) { cfg.PanicThreshold = c.threshold })
		set := instances(c.of)
		for i := range c.critical {
			set[i].Health = discovery.Critical
		}
		// These do not count.
		for i := range 3 {
			set = append(set, instance(c.of+i))
		}
		set[c.of].Weight, set[c.of+1].Health, set[c.of+2].Health = 0, discovery.Maintenance, discovery.Critical
		set[c.of+2].Weight = 0
		r.Update(set)
		s := r.Status()
		ready := c.of - c.critical
		if c.want {
			ready = c.of
		}
		if s.Panic != c.want || s.PanicHealthy != c.of-c.critical || s.PanicListed != c.of || s.Ready != ready {
			t.Errorf("%+v: panic %v, %d of %d, %d ready", c, s.Panic, s.PanicHealthy, s.PanicListed, s.Ready)
		}
		if ready == 0 {
			r.refuses(NoBackends)
		} else {
			r.get().Done(ok)
		}
	}
}

// TestPanicTold: its begin and its end are told once each, without locks, counted and
// shown; decisions made in it say so.
func TestPanicTold(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, func(c *Config) { c.Damping.Base = 0 })
		var told []string
		r.env.Event = func(e Event) {
			r.Status()
			r.SetCheck("n/0", CheckState{})
			r.mu.Lock() // the rig's, and the balancer's by what follows
			defer r.mu.Unlock()
			r.SetSelf(discovery.Self{})
			told = append(told, fmt.Sprint(e.Kind, e.Warn, ": ", e.Message, " ", e.Args))
		}
		r.run()
		r.Update(instances(5))
		for range 3 {
			r.Update(sick(5, 0, 1, 2, 3))
			r.Update(sick(5, 0, 1, 2, 4))
			synctest.Wait()
		}
		r.get().Done(ok)
		if d := r.Decisions(1)[0]; !d.Panic {
			t.Errorf("%+v", d)
		}
		if x := r.explain(Question{}); !x.Panic || strings.Contains(outs(x.Policy), "critical") {
			t.Errorf("explained: %s", outs(x.Policy))
		}
		r.Update(sick(5, 0, 1))
		r.Update(sick(5, 0, 1))
		time.Sleep(calm)
		synctest.Wait()
		r.Update(sick(5, 0))
		r.get().Done(ok)
		if d := r.Decisions(1)[0]; d.Panic {
			t.Errorf("%+v", d)
		}
		if n := r.Status().Panics; n != 1 {
			t.Errorf("%d panics", n)
		}
		r.Update(sick(5, 0, 1, 2))
		want := "panictrue: panic: 1 of 5 endpoints healthy, below 50 %: health is ignored [healthy 1 listed 5]; " +
			"panic_overfalse: panic is over [healthy 3 listed 5]; " +
			"panictrue: panic: 2 of 5 endpoints healthy, below 50 %: health is ignored [healthy 2 listed 5]"
		if got := strings.Join(told, "; "); got != want {
			t.Errorf("told\n%s\nwant\n%s", got, want)
		}
	})
}

// TestPanicLeavesOutTheUnreachable, for as long as there are others; it is tried again
// by one request at a time.
func TestPanicLeavesOutTheUnreachable(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, func(c *Config) { c.SlowStart = 0 })
		r.run()
		r.Update(sick(3, 0, 1, 2))
		r.wantReady("n/0 n/1 n/2")
		timeout := picker.Result{Outcome: picker.Failure, NoConn: true}
		r.getAt(0).Done(timeout)
		r.wantReady("n/1 n/2")
		r.wantWhy(0, "critical, and nobody could connect")
		r.getAt(1).Done(timeout)
		r.wantReady("n/2")
		r.getAt(2).Done(bad) // it was reached
		r.wantReady("n/2")
		r.getAt(2).Done(timeout)
		r.wantReady("n/0 n/1 n/2") // there are no others
		r.getAt(2).Done(ok)
		r.Update(sick(3, 0, 1, 2)) // it may be told a second later
		r.wantReady("n/2")
		for r.readyIDs() == "n/2" { // until it is old news
			time.Sleep(time.Second)
			synctest.Wait()
		}
		if d := r.Now() - time.Second; d < r.cfg.Breaker.MaxEjection || d > r.cfg.Breaker.MaxEjection+time.Second {
			t.Errorf("tried again after %v", d)
		}
		r.wantReady("n/0 n/1 n/2")
		r.wantWhy(0, "")
		one := r.getAt(0)
		r.wantWhy(0, "critical, and nobody could connect: one request tries")
		if e := r.Status().Endpoints[0]; e.Limit != 1 || e.Despite != "" {
			t.Errorf("while one tries: %+v", e)
		}
		other := r.getAt(1)
		for range 20 {
			l := r.get()
			if l.Endpoint() != r.endpoint(2) {
				t.Fatalf("a second request tries %s", l.Endpoint().ID)
			}
			l.Done(ok)
		}
		one.Done(timeout)
		r.wantReady("n/1 n/2")
		other.Done(ok)
		synctest.Wait()
		if e := r.Status().Endpoints[1]; !e.Ready || e.Limit != r.cfg.MaxInFlight || e.Despite != "critical" {
			t.Errorf("after it has answered: %+v", e)
		}
		r.quiet()
	})
}

// TestPanicWithProbes: one that is ejected because nobody listens has its probes in a
// panic as out of it, and its breaker's no holds.
func TestPanicWithProbes(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, func(c *Config) { c.SlowStart = 0 })
		r.env.Rand = func(uint32) uint32 { return 0 }
		r.run()
		r.Update(instances(5))
		r.eject(0)
		r.Update(sick(5, 1, 2, 3))
		r.wantReady("n/1 n/2 n/3 n/4")
		if s := r.Status(); !s.Panic || s.PanicHealthy != 1 {
			t.Fatalf("%+v", s)
		}
		r.wantWhy(0, "ejected, back in 1.0 s, and nobody could connect")
		r.expire(0)
		r.wantReady("n/0 n/1 n/2 n/3 n/4")
		probe := r.getAt(0)
		r.wantWhy(0, "half-open, waiting for its probe")
		old := r.snap.Load()
		probe.Done(down)
		r.wantReady("n/1 n/2 n/3 n/4")
		if old.admits(r.member(0), r.Now()) {
			t.Error("a request with the snapshot before would be let in")
		}
		r.expire(0)
		r.getAt(0).Done(ok)
		r.wantReady("n/0 n/1 n/2 n/3 n/4")
		if s := r.Status(); !s.Panic || s.PanicHealthy != 2 || s.Endpoints[0].Breaker != "closed" || s.Endpoints[0].Limit != r.cfg.MaxInFlight {
			t.Errorf("%+v", s)
		}
		r.quiet()
	})
}

// TestNoneOverrules: a good check and Consul's "passing" end no ejection, an answer
// ends no failing check.
func TestNoneOverrules(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, nil)
		r.run()
		r.Update(instances(4))
		r.eject(0)
		r.SetCheck("n/0", CheckState{Known: true, Up: true})
		r.Update(sick(4, 0))
		r.Update(instances(4))
		r.wantReady("n/1 n/2 n/3")
		held := r.getAt(1)
		r.SetCheck("n/1", CheckState{Known: true})
		synctest.Wait()
		held.Done(ok)
		r.Update(instances(4))
		r.wantReady("n/2 n/3")
		r.SetLoad("n/1", &picker.Load{At: r.Now(), Expires: r.Now() + time.Hour, Listening: true})
		r.wantReady("n/2 n/3")
	})
}

// TestThresholdZero: health is then ignored only where all that Consul and checks let
// through are ejected or damped, and Consul's critical never.
func TestThresholdZero(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, func(c *Config) { c.PanicThreshold = 0 })
		r.run()
		r.Update(instances(4))
		r.eject(0)
		r.eject(1)
		set := sick(4, 2)
		r.Update(set)
		r.wantReady("n/3")
		r.member(3).flap.Store(&breaker.Flap{Until: r.Now() + time.Hour})
		r.Update(set)
		r.wantReady("n/3") // damped; the others are unreachable besides
		if s := r.Status(); !s.Panic || s.Endpoints[3].Despite != "damped" {
			t.Errorf("%+v", s)
		}
		set[3].Health = discovery.Critical
		r.Update(set)
		r.wantReady("n/0 n/1")
		r.wantWhy(3, "critical")
		set[0].Health, set[1].Health = discovery.Critical, discovery.Critical
		r.Update(set)
		r.wantReady("")
		r.refuses(NoBackends)
		if s := r.Status(); s.Panic || s.Capacity != "open" {
			t.Errorf("panic %v, capacity %s", s.Panic, s.Capacity)
		}
	})
}

// TestFallbackLeavesNothingToPanicFor: with the primary tier gone and a fallback that
// has enough, health is not ignored; with too few of it, it is.
func TestFallbackLeavesNothingToPanicFor(t *testing.T) {
	for _, c := range []struct {
		below       float64
		well        int // of 2
		wantPanic   bool
		description string
	}{
		{1, 2, false, "one is enough"}, {1, 1, false, "one is enough and one is left"}, {1, 0, true, "none is left"},
		{2, 1, true, "two are needed"}, {.5, 1, false, "half is enough"}, {.6, 1, true, "more than half is needed"},
	} {
		r := newRig(t, func(cfg *Config) { cfg.Failover.Below = c.below })
		set := sick(8, 0, 1, 2, 3, 4, 5)
		set[6].Tier, set[7].Tier = 1, 1
		for i := c.well; i < 2; i++ {
			set[6+i].Health = discovery.Critical
		}
		r.Update(set)
		if s := r.Status(); s.Panic != c.wantPanic {
			t.Errorf("%s: panic %v", c.description, s.Panic)
		}
	}
}
