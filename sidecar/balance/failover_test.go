package balance

import (
	"fmt"
	"math"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"outrigger/discovery"
	"outrigger/picker"
)

// foRig is a service with a primary and fallbacks, whose instances are called by
// tier and number: 0/1, dr/0, last/2.
type foRig struct {
	*rig
	set    []discovery.Instance
	events []string
}

func foName(tier, i int) string {
	return []string{"n", discovery.InFallback("dr", "n"), discovery.InFallback("last", "n")}[tier] + fmt.Sprint("/", i)
}

func newFoRig(t *testing.T, change func(*Config), sizes ...int) *foRig {
	r := &foRig{rig: newRig(t, change)}
	r.env.Event = func(e Event) {
		if e.Kind == "tier" {
			r.events = append(r.events, e.Message)
		}
	}
	for tier, n := range sizes {
		for i := range n {
			inst := instance(100*tier + i)
			inst.ID, inst.Tier = foName(tier, i), tier
			r.set = append(r.set, inst)
		}
	}
	return r
}

// begin gives the first set and starts Run.
func (r *foRig) begin() {
	r.run()
	r.Update(r.set)
	synctest.Wait()
}

// health sets that of the first n instances of a tier and passing for the others.
func (r *foRig) critical(tier, n int) {
	r.set = slices.Clone(r.set)
	for i := range r.set {
		if x := &r.set[i]; x.Tier == tier {
			if x.Health = discovery.Passing; n > 0 {
				x.Health = discovery.Critical
			}
			n--
		}
	}
	r.Update(r.set)
	synctest.Wait()
}

func (r *foRig) ep(tier, i int) *picker.Endpoint { return r.snap.Load().byID[foName(tier, i)].ep }

func (r *foRig) wantTier(what string, tier int, failovers uint64, age time.Duration) {
	r.t.Helper()
	synctest.Wait()
	if s := r.Status(); s.Tier != tier || s.Failovers != failovers || s.TierFor != age {
		r.t.Errorf("%s: tier %d for %v after %d failovers, want tier %d for %v after %d", what, s.Tier, s.TierFor, s.Failovers, tier, age, failovers)
	}
}

func (r *foRig) wantEvents(want ...string) {
	r.t.Helper()
	synctest.Wait()
	if !slices.Equal(r.events, want) {
		r.t.Errorf("events %q, want %q", r.events, want)
	}
	r.events = nil
}

func (r *foRig) why(tier, i int) string {
	for _, e := range r.Status().Endpoints {
		if e.Instance.ID == foName(tier, i) {
			return e.Why
		}
	}
	return "not there"
}

func TestFailoverAndReturn(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newFoRig(t, func(c *Config) { roundRobin(c); c.Failover.Below = 1 }, 3, 2, 1)
		r.begin()
		r.wantReady("n/0 n/1 n/2")
		time.Sleep(time.Minute)
		r.wantTier("at first", 0, 0, time.Minute)
		if got := r.why(1, 0) + "; " + r.why(2, 0); got != "fallback: primary has 3 ready; fallback: primary has 3 ready" {
			t.Errorf("fallbacks stand by: %s", got)
		}
		r.critical(0, 2)
		r.wantReady("n/2")
		r.wantEvents()
		r.critical(0, 3)
		r.wantReady("@dr/n/0 @dr/n/1")
		r.wantEvents("primary has 0 ready, fewer than 1: using fallback dr")
		time.Sleep(5 * time.Second)
		r.wantTier("failed over", 1, 1, 5*time.Second)
		if s := r.Status(); s.Panic || s.Capacity != "closed" {
			t.Errorf("panic %v, capacity %s", s.Panic, s.Capacity)
		}
		if got := r.why(2, 0); got != "fallback: dr has 2 ready" {
			t.Errorf("the next fallback: %s", got)
		}
		r.critical(1, 2)
		r.wantReady("@last/n/0")
		r.wantEvents("the tiers before it have 0 ready, fewer than 1: using fallback last")
		r.wantTier("failed over again", 2, 2, 0)

		r.critical(1, 0)
		r.critical(0, 1)
		r.wantEvents("dr suffices again: fallback last is left within 30s", "primary suffices again: fallback dr is left within 30s")
		r.wantReady("n/1 n/2 @dr/n/0 @dr/n/1 @last/n/0")
		r.wantTier("returned", 0, 2, 0)
		was := 1.0
		for range 29 {
			time.Sleep(time.Second)
			synctest.Wait()
			parts := r.parts(400)
			left := parts[3] + parts[4] + parts[5]
			if left > was+0.05 {
				t.Errorf("the fallbacks' part grows from %.3f to %.3f", was, left)
			}
			was = left
		}
		if was > 0.06 {
			t.Errorf("at the end fallbacks still have %.3f", was)
		}
		time.Sleep(2 * time.Second)
		r.wantReady("n/1 n/2")
		if got := r.why(1, 0); got != "fallback: primary has 2 ready" {
			t.Errorf("left: %s", got)
		}
		r.wantEvents()
		for _, m := range r.snap.Load().all {
			if m.ep.Fading() || m.fadeEnd != 0 {
				t.Errorf("%s still fades", m.ep.ID)
			}
		}
		if d := r.Tick(); d != time.Hour {
			t.Errorf("the next rebuild is due in %v", d)
		}
		r.quiet()
	})
}

// TestFailoverAtOnce: no return time, no fade.
func TestFailoverAtOnce(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newFoRig(t, func(c *Config) { c.Failover.Return = 0 }, 1, 1)
		r.begin()
		r.critical(0, 1)
		r.wantReady("@dr/n/0")
		r.critical(0, 0)
		r.wantReady("n/0")
		r.wantTier("back", 0, 1, 0)
		// Nobody there at all is no reason to move.
		r.critical(1, 1)
		r.set = r.set[1:]
		r.Update(r.set)
		r.wantTier("nobody left", 0, 1, 0)
	})
}

func TestFailoverBelow(t *testing.T) {
	for _, c := range []struct {
		below            float64
		sizes, out       []int // instances and critical ones, by tier
		backups, drained int   // of the primary's, from the end
		tier             int
		ready            string
	}{
		{1, []int{4, 2}, []int{3}, 0, 0, 0, "n/3"},
		{2, []int{4, 2}, []int{2}, 0, 0, 0, "n/2 n/3"},
		{2, []int{4, 2}, []int{3}, 0, 0, 1, "n/3 @dr/n/0 @dr/n/1"},
		{1.5, []int{4, 2}, []int{3}, 0, 0, 1, "n/3 @dr/n/0 @dr/n/1"},
		{0.5, []int{4, 2}, []int{2}, 0, 0, 0, "n/2 n/3"},
		{0.5, []int{4, 2}, []int{3}, 0, 0, 1, "n/3 @dr/n/0 @dr/n/1"},
		{0.5, []int{4, 1, 1}, []int{4}, 0, 0, 1, "@dr/n/0"}, // half of dr's own
		{0.5, []int{4, 4, 1}, []int{4, 3}, 0, 0, 2, "@dr/n/3 @last/n/0"},
		{0.07, []int{100, 1}, []int{93}, 0, 0, 0, "n/93 n/94 n/95 n/96 n/97 n/98 n/99"},
		{5, []int{2, 1, 1}, []int{0}, 0, 0, 2, "n/0 n/1 @dr/n/0 @last/n/0"}, // never enough: all there are
		{5, []int{3}, []int{0}, 1, 0, 0, "n/0 n/1"},                         // there are no fallbacks
		{1, []int{3, 1}, []int{2}, 1, 0, 0, "n/2"},                          // the tier's own backup first
		{2, []int{3, 1}, []int{1}, 1, 0, 0, "n/1 n/2"},
		{0.5, []int{4, 1}, []int{1}, 0, 2, 0, "n/1"}, // who drains is not missed
		{0.5, []int{0, 1}, nil, 0, 0, 1, "@dr/n/0"},
	} {
		bubble(t, func(t *testing.T) {
			r := newFoRig(t, func(cfg *Config) { cfg.Failover.Below = c.below }, c.sizes...)
			for i := range r.set[:c.sizes[0]] {
				x := &r.set[i]
				x.Backup = i >= c.sizes[0]-c.backups
				if i >= c.sizes[0]-c.drained {
					x.Weight = 0
				}
			}
			r.begin()
			for tier, n := range c.out {
				r.critical(tier, n)
			}
			if s := r.Status(); r.readyIDs() != c.ready || s.Tier != c.tier || s.Panic {
				t.Errorf("below %v, %v of %v critical: tier %d, ready %q, panic %v; want tier %d, %q",
					c.below, c.out, c.sizes, s.Tier, r.readyIDs(), s.Panic, c.tier, c.ready)
			}
		})
	}
}

// TestFailoverFlaps: whatever the primary does, the share of the fallback's
// endpoints never jumps.
func TestFailoverFlaps(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newFoRig(t, func(c *Config) { c.Failover.Below, c.Damping.Base = 2, 0 }, 3, 3)
		r.begin()
		share := func() float64 { synctest.Wait(); return r.ep(1, 0).Ramp(r.Now()) }
		last, least := 1.0, 1.0
		watch := func(d time.Duration) {
			t.Helper()
			for range d / (100 * time.Millisecond) {
				time.Sleep(100 * time.Millisecond)
				now := share()
				if math.Abs(now-last) > 0.11 {
					t.Errorf("at %v the share goes from %.2f to %.2f", r.Now(), last, now)
				}
				last, least = now, min(least, now)
			}
		}
		r.critical(0, 2)
		r.wantReady("n/2 @dr/n/0 @dr/n/1 @dr/n/2")
		time.Sleep(12 * time.Second) // its slow start
		if share() != 1 {
			t.Errorf("it begins with %v", share())
		}
		for range 5 {
			r.critical(0, 0)
			watch(12 * time.Second)
			down := last
			r.critical(0, 2)
			if d := share(); math.Abs(d-down) > 0.01 {
				t.Errorf("a fall takes the share from %.2f to %.2f", down, d)
			}
			watch(2 * time.Second)
			up := last
			if up < down {
				t.Errorf("2 s after a fall it is at %.2f, from %.2f", up, down)
			}
			r.critical(0, 0)
			if d := share(); math.Abs(d-up) > 0.01 {
				t.Errorf("a return takes the share from %.2f to %.2f", up, d)
			}
			watch(time.Second)
			r.critical(0, 2)
			watch(3 * time.Second)
		}
		if least > 0.6 {
			t.Errorf("it never came below %.2f", least)
		}
		watch(time.Minute)
		if last != 1 {
			t.Errorf("in the end it has %.2f", last)
		}
		r.critical(0, 0)
		watch(29 * time.Second)
		if !r.ep(1, 0).Fading() || last > 0.05 {
			t.Errorf("at the end of a fade it has %.2f", last)
		}
		time.Sleep(2 * time.Second)
		r.wantReady("n/0 n/1 n/2")
		r.critical(0, 3)
		if s := share(); s != 0.5 { // as all that there are
			t.Errorf("used again it has %.2f", s)
		}
	})
}

// TestFadingEndpointFails: who is out during the fade does not come back for
// what is left of it.
func TestFadingEndpointFails(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newFoRig(t, nil, 2, 2)
		r.begin()
		r.critical(0, 2)
		r.critical(0, 0)
		r.wantReady("n/0 n/1 @dr/n/0 @dr/n/1")
		r.critical(1, 1)
		r.wantReady("n/0 n/1 @dr/n/1")
		r.critical(1, 0)
		r.wantReady("n/0 n/1 @dr/n/1")
		joins := instance(150)
		joins.ID, joins.Tier = foName(1, 50), 1
		r.Update(append(slices.Clone(r.set), joins))
		r.wantReady("n/0 n/1 @dr/n/1")
		if r.ep(1, 0).Fading() || !r.ep(1, 1).Fading() {
			t.Error("who fades?")
		}
		r.Update(r.set[:2]) // the fallback leaves as a whole
		r.wantReady("n/0 n/1")
		r.wantTier("it left", 0, 1, 0)
	})
}
