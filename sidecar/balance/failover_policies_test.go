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
