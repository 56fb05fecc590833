package balance

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
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

// TestFailoverEveryPolicy: on the way back nobody gets more than twice what it
// would have without those that come and go, and nobody is starved.
func TestFailoverEveryPolicy(t *testing.T) {
	for _, name := range picker.Names() {
		for _, sizes := range [][]int{{3, 3}, {2, 8}, {6, 2}} {
			bubble(t, func(t *testing.T) {
				r := newFoRig(t, func(c *Config) { c.Picker.Policy = name }, sizes...)
				r.begin()
				var held []Lease
				key := uint64(0)
				const flying = 120
				parts := func(n int) []float64 { // requests that last 120 others
					got := make([]float64, len(r.set))
					for range n {
						key += 0x9e3779b97f4a7c15
						l, err := r.TryAcquire(Key{Hash: key})
						if err != nil {
							t.Fatalf("%s: %v", name, err)
						}
						got[slices.IndexFunc(r.set, func(i discovery.Instance) bool { return i.ID == l.Endpoint().ID })] += 1 / float64(n)
						if held = append(held, l); len(held) > flying {
							held[0].Done(picker.Result{Outcome: picker.Success, FirstByte: flying * time.Millisecond})
							held = held[1:]
						}
						time.Sleep(time.Millisecond)
					}
					return got
				}
				parts(1000)
				r.critical(0, sizes[0])
				parts(1000)
				time.Sleep(10 * time.Second) // its slow start
				parts(1000)
				r.critical(0, 0)
				var first, last float64
				for second := range 30 {
					got := parts(1000)
					for i, p := range got {
						// 0.3 of it is chance and what policies make of being new.
						if most := 2.3 / float64(sizes[r.set[i].Tier]); p > most {
							t.Errorf("%s, %v, second %d: %s has %.3f of the requests, at most %.3f", name, sizes, second, r.set[i].ID, p, most)
						}
					}
					last = 0
					for _, p := range got[sizes[0]:] {
						last += p
					}
					if second == 0 {
						first = last
					}
				}
				if first < 0.15 || last > 0.35 {
					t.Errorf("%s, %v: the fallback's part goes from %.3f to %.3f", name, sizes, first, last)
				}
				time.Sleep(time.Second)
				got := parts(1500)
				for i, p := range got {
					if r.set[i].Tier > 0 && p > 0 || r.set[i].Tier == 0 && p < 0.4/float64(sizes[0]) {
						t.Errorf("%s, %v: at the end %s has %.3f", name, sizes, r.set[i].ID, p)
					}
				}
				for i := range held {
					held[i].Done(ok)
				}
				r.quiet()
			})
		}
	}
}

// TestFailoverKeys: consistent_hash moves a key once on the way there and once on
// the way back, and to where it was.
func TestFailoverKeys(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newFoRig(t, func(c *Config) {
			c.Picker.Policy, c.Picker.Hash.Balance, c.Failover.Below = "consistent_hash", 0, 2
		}, 4, 4)
		r.begin()
		const keys = 2000
		where := func() (at [keys]string) {
			synctest.Wait()
			for i := range at {
				l, err := r.TryAcquire(Key{Hash: picker.Hash(fmt.Sprint(i))})
				if err != nil {
					t.Fatal(err)
				}
				at[i] = l.Endpoint().ID
				l.Done(ok)
			}
			return at
		}
		home := where()
		r.critical(0, 3)
		for i, at := range where() {
			if home[i] == foName(0, 3) && at != home[i] && !strings.HasPrefix(at, "@dr/") {
				t.Errorf("key %d went from what is left to %s", i, at)
			}
		}
		away := where()
		r.critical(0, 0)
		half := where()
		moves := 0
		for i := range half {
			if half[i] != away[i] {
				moves++
				if half[i] != home[i] {
					t.Errorf("key %d went from %s to %s, its home is %s", i, away[i], half[i], home[i])
				}
			}
		}
		if moves < keys/10 {
			t.Errorf("%d keys came home at once", moves)
		}
		time.Sleep(10 * time.Second)
		if where() != half {
			t.Error("keys move during the fade")
		}
		time.Sleep(21 * time.Second)
		if where() != home {
			t.Error("some keys did not come home")
		}
	})
}

// TestFailoverLocality: distances count inside a tier, so that a fallback that is
// near does not keep what belongs to the primary, nor one that is far get nothing.
func TestFailoverLocality(t *testing.T) {
	for _, near := range []int{0, 1} { // the tier that is near
		bubble(t, func(t *testing.T) {
			r := newFoRig(t, func(c *Config) {
				c.Picker.Policy, c.SlowStart = "random", 0
				c.Locality.Prefer, c.Locality.Node, c.Locality.Datacenter = []string{"node"}, "here", "dc1"
				c.Failover.Below = 2
			}, 3, 2)
			for i := range r.set {
				r.set[i].Datacenter, r.set[i].Node = "dc1", "there"
				if r.set[i].Tier == near {
					r.set[i].Node = "here"
				}
			}
			r.begin()
			r.critical(0, 2)
			r.wantReady("n/2 @dr/n/0 @dr/n/1")
			for i, p := range r.parts(3000)[2:] {
				if math.Abs(p-1./3) > 0.06 {
					t.Errorf("tier %d near: endpoint %d has %.3f of the requests, want a third", near, 2+i, p)
				}
			}
			for _, e := range r.Status().Endpoints {
				if want := map[bool]string{true: "node", false: "elsewhere"}[e.Instance.Tier == near]; e.Distance != want {
					t.Errorf("%s is called %q, want %q", e.Instance.ID, e.Distance, want)
				}
			}
			r.critical(0, 0)
			time.Sleep(31 * time.Second)
			r.wantReady("n/0 n/1 n/2")
			if d := r.ep(0, 0).Distance(); d != near {
				t.Errorf("alone, the primary is at distance %d, want %d", d, near)
			}
		})
	}
}

// TestFailoverPanic: health is ignored only when no tier can do the work.
func TestFailoverPanic(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newFoRig(t, func(c *Config) { c.Failover.Below = 3 }, 10, 2, 1)
		r.begin()
		panics := func(what string, want bool) {
			t.Helper()
			if s := r.Status(); s.Panic != want {
				t.Errorf("%s: panic %v with %s", what, s.Panic, r.readyIDs())
			}
		}
		r.critical(0, 9)
		panics("fallbacks are well", false)
		r.wantReady("n/9 @dr/n/0 @dr/n/1")
		r.critical(0, 10)
		r.wantReady("@dr/n/0 @dr/n/1 @last/n/0")
		r.critical(2, 1)
		panics("one is, small as it is", false)
		r.wantReady("@dr/n/0 @dr/n/1")
		r.critical(1, 2)
		panics("none is", true)
		r.wantTier("in a panic as before it", 1, 2, 0)
		r.critical(1, 1)
		panics("fewer than are needed, and not all of it", true)
		r.critical(2, 0)
		panics("all of one is, since now", true)
		time.Sleep(calm)
		synctest.Wait()
		panics("all of one is", false)
		r.wantReady("@dr/n/1 @last/n/0")
	})
}

// TestFailoverRetry: a retry goes to the next tier, not to any.
func TestFailoverRetry(t *testing.T) {
	for range 10 {
		bubble(t, func(t *testing.T) {
			r := newFoRig(t, nil, 2, 1, 3)
			r.set[1].Backup = true
			r.Update(r.set) // Run is not started: there is no next snapshot
			var k Key
			for _, want := range []string{"n/0", "n/1", "@dr/n/0", "@last/"} {
				l, err := r.Retry(k)
				if err != nil || !strings.HasPrefix(l.Endpoint().ID, want) {
					t.Fatalf("leased %v, %v; want %s", l.Endpoint(), err, want)
				}
				k.Tried.Add(l.Endpoint())
				l.Done(down)
			}
			r.quiet()
		})
	}
}

// TestFailoverStorm: whatever happens in whatever order, somebody is ready where
// somebody could be, and the states agree with each other.
func TestFailoverStorm(t *testing.T) {
	for seed := range uint64(12) {
		bubble(t, func(t *testing.T) {
			rnd := rand.New(rand.NewPCG(seed, 1))
			r := newFoRig(t, func(c *Config) {
				c.Picker.Policy = picker.Names()[int(seed)%len(picker.Names())]
				c.Failover.Below = []float64{1, 2, 0.5, 3}[seed%4]
				c.Failover.Return = []time.Duration{0, 3 * time.Second, 30 * time.Second}[seed%3]
				c.Damping.Base = 0
			}, 4, 3, 2)
			r.begin()
			for range 300 {
				set := slices.Clone(r.set)
				for i := range set {
					switch rnd.IntN(8) {
					case 0:
						set[i].Health = discovery.Critical
					case 1:
						set[i].Weight = 1 - set[i].Weight
					case 2:
						set[i].Backup = !set[i].Backup
					case 3, 4, 5:
						set[i].Health, set[i].Weight = discovery.Passing, 1
					}
				}
				r.set = set
				r.Update(slices.DeleteFunc(slices.Clone(set), func(discovery.Instance) bool { return rnd.IntN(12) == 0 }))
				for range rnd.IntN(6) {
					if l, err := r.TryAcquire(Key{Hash: rnd.Uint64()}); err == nil {
						l.Done([]picker.Result{ok, ok, bad, down}[rnd.IntN(4)])
					}
				}
				time.Sleep(time.Duration(rnd.IntN(3000)) * time.Millisecond)
				synctest.Wait()
				r.check()
			}
			r.quiet()
		})
	}
}

// check holds what must always be true of a snapshot.
func (r *foRig) check() {
	r.t.Helper()
	s, now := r.snap.Load(), r.Now()
	in := map[*member]bool{}
	for _, m := range s.ready {
		if in[m] {
			r.t.Errorf("%s is ready twice", m.ep.ID)
		}
		in[m] = true
	}
	fading := 0
	for _, m := range s.all {
		st := m.status(s, now)
		switch {
		case m.ep.Fading() != (m.fadeEnd > 0), m.ep.Fading() && !in[m], m.ep.Fading() && st.Instance.Tier <= s.level && !s.ignoring:
			r.t.Errorf("%s: fading %v until %v, ready %v, tier in use %d", m.ep.ID, m.ep.Fading(), m.fadeEnd, in[m], s.level)
		case m.out(now) == inService && !in[m] && st.Why == "":
			r.t.Errorf("%s: nothing amiss and not ready, and nobody says why", m.ep.ID)
		case m.out(now) == inService && len(s.ready) == 0:
			r.t.Errorf("%s: nothing amiss, and nobody is ready", m.ep.ID)
		case m.ep.Fading():
			fading++
		}
		if x := m.ep.Ramp(now); !(x > 0 && x <= 1) {
			r.t.Errorf("%s has %v of its weight", m.ep.ID, x)
		}
	}
	if s.inUse != len(s.ready)-fading {
		r.t.Errorf("%d in use of %d ready with %d fading", s.inUse, len(s.ready), fading)
	}
	for _, m := range s.standby {
		if in[m] {
			r.t.Errorf("%s is ready and stands by", m.ep.ID)
		}
	}
}
