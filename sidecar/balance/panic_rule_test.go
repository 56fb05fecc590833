package balance

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"outrigger/discovery"
	"outrigger/picker"
)

var timeout = picker.Result{Outcome: picker.Failure, NoConn: true}

// wantPanic checks whether there is one, and on what count.
func (r *rig) wantPanic(what string, want bool, healthy, listed int) {
	r.t.Helper()
	synctest.Wait()
	if s := r.Status(); s.Panic != want || s.PanicHealthy != healthy || s.PanicListed != listed {
		r.t.Errorf("%s: panic %v with %d of %d, want %v with %d of %d", what, s.Panic, s.PanicHealthy, s.PanicListed, want, healthy, listed)
	}
}

// traffic sends n requests, ten milliseconds apart, ends them as result says, and
// returns how many went where.
func (r *rig) traffic(n int, result func(id string) picker.Result) map[string]int {
	r.t.Helper()
	got := map[string]int{}
	for range n {
		l := r.get()
		id := l.Endpoint().ID
		got[id]++
		l.Done(result(id))
		time.Sleep(10 * time.Millisecond)
	}
	return got
}

// TestStandbysDoNotPanic: the ill health of those that stand behind is nothing to a
// primary that suffices, and is no reason to use them.
func TestStandbysDoNotPanic(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newFoRig(t, nil, 2, 3)
		r.begin()
		r.critical(1, 3)
		r.wantPanic("fallbacks are critical", false, 2, 2)
		r.wantReady("n/0 n/1")
	})
	bubble(t, func(t *testing.T) {
		r := newRig(t, nil)
		r.run()
		set := tiered(2, 3)
		for i := range 3 {
			set[2+i].Health = discovery.Critical
		}
		r.Update(set)
		r.wantPanic("backups are critical", false, 2, 2)
		r.wantReady("n/0 n/1")
	})
}

// TestBackupsInPanic: backups serve when no primary is well, and a panic is for them
// then; while one primary is, it is for the primaries.
func TestBackupsInPanic(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, nil)
		r.run()
		set := tiered(5, 3)
		for i := range 4 {
			set[i].Health = discovery.Critical
		}
		r.Update(set)
		r.wantPanic("one primary is well", true, 1, 5)
		set[4].Health = discovery.Critical
		r.Update(set)
		time.Sleep(calm)
		r.wantPanic("none is", false, 3, 3)
		r.wantReady("n/5 n/6 n/7")
		set[5].Health, set[6].Health = discovery.Critical, discovery.Critical
		r.Update(set)
		r.wantPanic("one backup is", true, 1, 3)
		set[7].Health = discovery.Critical
		r.Update(set)
		r.wantPanic("nobody is", true, 0, 8)
		r.wantReady("n/0 n/1 n/2 n/3 n/4 n/5 n/6 n/7")
	})
}

// TestPanicUsesNoFallback: a fallback that only a panic used does not fade after it.
func TestPanicUsesNoFallback(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newFoRig(t, nil, 4, 6)
		r.begin()
		r.critical(1, 6)
		r.critical(0, 3)
		r.wantPanic("all are sick", true, 1, 10)
		r.critical(1, 0)
		r.critical(0, 0)
		time.Sleep(calm)
		r.wantPanic("all are well", false, 4, 4)
		r.wantReady("n/0 n/1 n/2 n/3")
		r.wantTier("it was never left", 0, 0, calm)
	})
}

// TestDeadFallback: one that nobody can connect to does no work, whatever Consul says.
func TestDeadFallback(t *testing.T) {
	for _, c := range []struct {
		fallbacks int
		fails     picker.Result
	}{{1, down}, {2, timeout}, {4, timeout}} {
		bubble(t, func(t *testing.T) {
			r := newFoRig(t, nil, 5, c.fallbacks)
			r.begin()
			r.critical(0, 5)
			r.wantPanic("the fallback seems well", false, c.fallbacks, 5+c.fallbacks)
			result := func(id string) picker.Result {
				if strings.HasPrefix(id, "@") {
					return c.fails
				}
				return ok
			}
			r.traffic(30, result)
			if s := r.Status(); !s.Panic {
				t.Fatalf("%d dead fallbacks: no panic, %d of %d", c.fallbacks, s.PanicHealthy, s.PanicListed)
			}
			got := r.traffic(1000, result)
			dead := 0
			for id, n := range got {
				if strings.HasPrefix(id, "@") {
					dead += n
				}
			}
			if dead > 300 {
				t.Errorf("%d dead fallbacks get %d of 1000", c.fallbacks, dead)
			}
		})
	}
}

// TestRefusingIsNotWell: an endpoint in service that refuses is no reason to leave out
// one that is critical, and gets one request at a time beside it.
func TestRefusingIsNotWell(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, nil)
		r.run()
		r.Update(sick(2, 0))
		r.wantReady("n/1")
		r.getAt(1).Done(down)
		r.wantPanic("the other refuses", true, 0, 2)
		r.wantReady("n/0 n/1")
		if n := r.Status().Endpoints[1].Limit; n != 1 {
			t.Errorf("the one that refuses has a limit of %d", n)
		}
		time.Sleep(time.Second)
		r.getAt(1).Done(ok)
		r.wantReady("n/0 n/1")
		time.Sleep(calm)
		r.wantPanic("it answers", false, 1, 2)
		r.wantReady("n/1")
	})
	bubble(t, func(t *testing.T) { // nobody is out: nothing to ignore
		r := newRig(t, nil)
		r.run()
		r.Update(instances(1))
		for range 10 {
			r.getAt(0).Done(down)
			r.wantPanic("a single one", false, 1, 1)
			r.getAt(0).Done(ok)
		}
	})
}

// TestNewcomers: who joins critical is most likely starting. It does not count, and is
// not used while another can be.
func TestNewcomers(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newFoRig(t, func(c *Config) { c.Failover.Below = .5 }, 3, 1)
		r.begin()
		time.Sleep(time.Minute)
		grown := append(r.set[:3:3], sick(7, 3, 4, 5, 6)[3:]...)
		grown = append(grown, r.set[3])
		r.Update(grown)
		r.wantPanic("scaling out", false, 3, 3)
		r.wantReady("n/0 n/1 n/2") // and no fallback
	})
	bubble(t, func(t *testing.T) {
		r := newRig(t, nil)
		r.run()
		r.Update(instances(3))
		time.Sleep(time.Minute)
		r.Update(sick(7, 3, 4, 5, 6))
		r.wantPanic("scaling out", false, 3, 3)
		r.Update(sick(7, 1, 2, 3, 4, 5, 6))
		r.wantPanic("two of the old fall", true, 1, 3)
		r.wantReady("n/0 n/1 n/2")
		r.wantWhy(3, "critical")
		r.Update(sick(7, 0, 1, 2, 3, 4, 5, 6))
		r.wantReady("n/0 n/1 n/2")
		for i := range 3 {
			r.getAt(i).Done(timeout)
		}
		r.wantReady("n/3 n/4 n/5 n/6") // nobody else can be
		r.getAt(3).Done(timeout)
		r.getAt(4).Done(timeout)
		r.getAt(5).Done(timeout)
		r.wantReady("n/6")
		r.getAt(6).Done(timeout)
		r.wantReady("n/0 n/1 n/2")
		r.Update(sick(7, 0, 1, 2, 4, 5, 6)) // one has proved well, and counts
		r.wantPanic("a newcomer was well", true, 0, 4)
		r.Update(sick(7, 3, 4, 5, 6)[3:])
		r.wantPanic("only it counts of those that are left", true, 0, 1)
		r.Update(sick(7, 4, 5, 6)[4:])
		r.wantPanic("no others at all", true, 0, 3)
	})
	r := newRig(t, nil)
	r.Update(sick(3, 1, 2))
	r.wantPanic1(true, 1, 3) // the first set counts
}

func (r *rig) wantPanic1(want bool, healthy, listed int) {
	r.t.Helper()
	if s := r.Status(); s.Panic != want || s.PanicHealthy != healthy || s.PanicListed != listed {
		r.t.Errorf("panic %v with %d of %d", s.Panic, s.PanicHealthy, s.PanicListed)
	}
}

// TestPanicEjects: who fails what a panic sends it is ejected within
// max_ejected_percent, and returns by a probe; the panic goes on as it is.
func TestPanicEjects(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, nil)
		told := 0
		r.env.Event = func(e Event) { told++ }
		r.run()
		r.Update(sick(5, 0, 1, 2, 3)) // 0 and 1 mean it
		r.wantReady("n/0 n/1 n/2 n/3 n/4")
		for i := range 2 {
			for range 3 {
				r.getAt(i).Done(bad)
			}
		}
		r.wantReady("n/2 n/3 n/4")
		if why := r.Status().Endpoints[0].Why; !strings.HasPrefix(why, "ejected, back in ") {
			t.Errorf("out because %q", why)
		}
		for range 5 { // no place for a third
			r.getAt(2).Done(bad)
		}
		r.wantReady("n/2 n/3 n/4")
		r.expire(1)
		l := r.getAt(1)
		r.wantWhy(1, "half-open, waiting for its probe")
		if n := r.Status().Endpoints[1].Limit; n != 1 {
			t.Errorf("half-open with a limit of %d", n)
		}
		l.Done(ok)
		synctest.Wait()
		if e := r.Status().Endpoints[1]; !e.Ready || e.Limit != r.cfg.MaxInFlight {
			t.Errorf("after a good probe: %+v", e)
		}
		result := func(id string) picker.Result {
			if id < "n/1" {
				return bad
			}
			return ok
		}
		if n := r.traffic(2000, result)["n/0"]; n > 50 {
			t.Errorf("one that always fails gets %d of 2000", n)
		}
		r.wantPanic("all the time", true, 1, 5)
		if told != 1 {
			t.Errorf("%d events", told)
		}
		r.Update(instances(5))
		r.wantPanic("over", true, 4, 5) // one is ejected: in a moment
		time.Sleep(calm)
		r.wantPanic("over", false, 4, 5)
		r.quiet()
	})
}

// TestPanicIgnoresEjectionsBefore it.
func TestPanicIgnoresEjectionsBefore(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, nil)
		r.run()
		r.Update(instances(4))
		for range 3 {
			r.getAt(0).Done(bad)
		}
		r.wantReady("n/1 n/2 n/3")
		r.Update(sick(4, 1, 2))
		r.wantPanic("half are critical", true, 1, 4)
		r.wantReady("n/0 n/1 n/2 n/3")
		time.Sleep(r.member(0).br.Until() - r.Now() + time.Millisecond)
		r.getAt(0).Done(bad) // its probe, in the panic
		r.wantReady("n/1 n/2 n/3")
	})
}

// TestCheckAndRequestsDisagree: the later of a check and a request says whether an
// endpoint can be reached.
func TestCheckAndRequestsDisagree(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, roundRobin)
		r.run()
		r.Update(instances(9))
		refused := CheckState{Known: true, Unreachable: true, Error: "connection refused"}
		for i := range 9 {
			r.SetCheck(instance(i).ID, refused)
		}
		r.wantPanic("no check gets through", true, 0, 9)
		for range 9 {
			r.get().Done(ok)
		}
		r.Update(instances(10))
		r.wantReady("n/0 n/1 n/2 n/3 n/4 n/5 n/6 n/7 n/8 n/9")
	})
	bubble(t, func(t *testing.T) {
		r := newRig(t, nil)
		r.run()
		r.Update(sick(3, 0, 1, 2))
		up := CheckState{Known: true, Up: true}
		r.SetCheck("n/1", up)
		r.getAt(0).Done(timeout)
		r.getAt(1).Done(timeout)
		r.wantReady("n/2")
		r.SetCheck("n/0", up)
		r.wantReady("n/0 n/2")
		r.SetCheck("n/1", CheckState{Known: true, Up: true, Since: 1})
		r.wantReady("n/0 n/1 n/2")
		time.Sleep(time.Second)
		r.getAt(0).Done(timeout)
		r.wantReady("n/1 n/2")
	})
}

// TestPanicEndsInCalm: returns one after the other turn it off once, and not at the
// first moment of enough.
func TestPanicEndsInCalm(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, nil)
		r.run()
		r.Update(instances(10))
		gone := []int{0, 1, 2, 3, 4, 5, 6, 7, 8, 9}
		r.Update(sick(10, gone...))
		for i := 1; i <= 6; i++ {
			r.Update(sick(10, gone[i:]...))
			r.wantPanic("while they return", true, i, 10)
			time.Sleep(calm / 2)
		}
		r.wantPanic("after calm", false, 6, 10)
		r.Update(sick(10, gone[4:]...))
		r.wantPanic("it begins at once", true, 4, 10)
		r.Update(sick(10, gone[5:]...))
		time.Sleep(calm / 2)
		r.Update(sick(10, gone[4:]...))
		time.Sleep(calm)
		r.Update(sick(10, gone[5:]...))
		time.Sleep(calm / 2)
		r.wantPanic("the calm begins anew", true, 5, 10)
		r.Update(instances(10))
		synctest.Wait()
		if s := r.Status(); s.Panic {
			t.Error("panic with nobody out")
		}
	})
}

// TestPanicLeavesOutWhoEnds: most of a service ends at once and in good order, listeners
// first. What they still answer does not bring them into the panic: each request would
// be refused there, and retries are bounded.
func TestPanicLeavesOutWhoEnds(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, nil)
		r.run()
		r.Update(instances(5))
		var running []*Lease
		for i := range 3 {
			running = append(running, r.getAt(i))
		}
		for i := range 3 {
			r.getAt(i).Done(down)
			running[i].Done(ok)
			synctest.Wait()
		}
		r.wantPanic("three of five refuse connections", true, 2, 5)
		r.wantReady("n/3 n/4")
		r.quiet()
	})
}
