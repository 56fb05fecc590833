package balance

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"outrigger/picker"
)

// TestShadowCounts by hand.
func TestShadowCounts(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r, _ := shadowRig(t, nil, []string{"n/0", "n/1"}, []string{"n/0", "n/0", "n/1", ""})
		if s := r.Status().Shadow; s != nil {
			t.Errorf("a shadow before its time: %+v", s)
		}
		r.Update(instances(2))
		check := func(want ShadowStatus) {
			t.Helper()
			want.Policy, want.Mode = "shadow", "fixed"
			if got := *r.Status().Shadow; got != want {
				t.Errorf("got %+v, want %+v", got, want)
			}
		}
		check(ShadowStatus{})
		if _, _, ok := r.Status().Shadow.Gain(); ok {
			t.Error("a gain of nothing")
		}
		ends := func(l *Lease, after time.Duration) {
			l.Done(picker.Result{Outcome: picker.Success, FirstByte: after})
		}
		ends(r.get(), 100*time.Millisecond) // n/0, both
		ends(r.get(), 300*time.Millisecond) // n/1, the shadow n/0
		check(ShadowStatus{Picks: 2, Disagreed: 1})
		for _, d := range r.Decisions(2) {
			if !d.Compared || d.Disagreed != (d.Endpoint == "n/1") {
				t.Errorf("%+v", d)
			}
		}
		a := r.get() // n/0, the shadow n/1: 0.1 s, and 0.3
		check(ShadowStatus{Picks: 3, Disagreed: 2, Predicted: 1, PolicySeconds: .1, ShadowSeconds: .3})
		b := r.get() // n/1, the shadow none
		check(ShadowStatus{Picks: 4, Disagreed: 3, None: 1, Predicted: 1, PolicySeconds: .1, ShadowSeconds: .3})
		c := r.get() // n/0, both, with one there: twice its time
		check(ShadowStatus{Picks: 5, Disagreed: 3, None: 1, Predicted: 2, PolicySeconds: .3, ShadowSeconds: .5})
		if gain, share, ok := r.Status().Shadow.Gain(); !ok || math.Abs(gain+.1) > 1e-6 || math.Abs(share+.2/.3) > 1e-6 {
			t.Errorf("gain %v, %v, %v", gain, share, ok)
		}
		if s := disagreed(r.Status().Shadow); s != .6 {
			t.Errorf("%v disagree", s)
		}
		for _, l := range []*Lease{a, b, c} {
			l.Done(skip)
		}
		if n := r.endpoint(0).Totals().Requests + r.endpoint(1).Totals().Requests; n != 5 {
			t.Errorf("%d requests were sent, want 5", n)
		}
		r.quiet()
	})
}

// TestShadowIsTold what the policy would be told, at the same moments.
func TestShadowIsTold(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r, sh := shadowRig(t, nil, []string{"n/0"}, []string{"n/1"})
		told := func(want string) {
			t.Helper()
			if got := sh.told(); got != want {
				t.Errorf("told %q, want %q", got, want)
			}
		}
		r.Update(instances(2))
		told("refresh 2")
		l := r.get()
		told("sent n/0 with 1")
		l.Done(bad)
		told("done n/0 with 1, 7.5, failure")
		r.SetLoad("n/1", &picker.Load{})
		told("report of n/1")
		r.SetLoad("n/1", &picker.Load{Unasked: true})
		told("")
		sh.mu.Lock()
		sh.due = true
		sh.mu.Unlock()
		told("")
		l = r.get() // finds it due
		told("sent n/0 with 1")
		if len(r.wake) != 1 {
			t.Error("nobody is asked to refresh it")
		}
		r.Tick()
		told("refresh 2")
		l.Done(ok)
	})
}

// TestShadowSeesTheSame fleet as the policy: the request is not counted yet,
// and what was tried is told.
func TestShadowSeesTheSame(t *testing.T) {
	r := newRig(t, func(c *Config) {
		limit(1, 0, time.Second)(c)
		c.Picker.Policy, c.Shadow.Policy = "p2c", "least_conn"
	})
	r.Update(instances(3))
	for range 100 {
		a, b := r.get(), r.get()
		c := r.get() // the last one that has room: nothing to disagree about
		if d := r.Decisions(1)[0]; !d.Compared || d.Disagreed {
			t.Fatalf("%+v", d)
		}
		if _, err := r.TryAcquire(Key{}); err == nil {
			t.Fatal("the shadow made room")
		}
		for _, l := range []*Lease{a, b, c} {
			l.Done(ok)
		}
	}
	if s := r.Status().Shadow; s.None != 0 || s.Picks != 300 {
		t.Errorf("%+v", s)
	}
	r.quiet()
}

// TestShadowHasNoEffect: the same leases with and without it, for every pair.
func TestShadowHasNoEffect(t *testing.T) {
	for _, policy := range picker.Names() {
		var first []string
		for _, shadow := range append([]string{""}, picker.Names()...) {
			if shadow == policy {
				continue
			}
			got := leasesWith(t, policy, shadow)
			if first == nil {
				first = got
			}
			if !slices.Equal(got, first) {
				t.Errorf("%s picks otherwise beside %s", policy, shadow)
			}
		}
	}
}

// leasesWith runs 300 requests of different lengths over 40 endpoints and
// returns where they went.
func leasesWith(t *testing.T, policy, shadow string) (ids []string) {
	t.Helper()
	var now time.Duration
	chance := func(seed uint64) picker.Rand {
		return func(n uint32) uint32 { // splitmix64
			seed += 0x9e3779b97f4a7c15
			z := (seed ^ seed>>30) * 0xbf58476d1ce4e5b9
			z = (z ^ z>>27) * 0x94d049bb133111eb
			return uint32((z >> 32) * uint64(n) >> 32)
		}
	}
	cfg := DefaultConfig()
	cfg.Service, cfg.Picker.Policy, cfg.Shadow.Policy = "web", policy, shadow
	b, err := New(cfg, Env{
		Now: func() time.Duration { return now + time.Second }, Rand: chance(1), ShadowRand: chance(2), Wake: func() {},
	})
	if err != nil {
		t.Fatal(err)
	}
	b.Update(instances(40))
	lengths := chance(3)
	type running struct {
		l   Lease
		end time.Duration
	}
	var all []running
	for i := range 300 {
		now += time.Millisecond
		all = slices.DeleteFunc(all, func(x running) bool {
			if x.end <= now {
				x.l.Done(picker.Result{Outcome: picker.Outcome(lengths(40) / 39), FirstByte: time.Duration(1+lengths(50)) * time.Millisecond})
			}
			return x.end <= now
		})
		if i%10 == 0 {
			b.Tick()
			b.SetLoad(fmt.Sprint("n/", i/10), &picker.Load{At: now, Expires: now + 5*time.Second, Cores: 2, Avail: float64(1+lengths(8)) / 4,
				InFlight: float64(lengths(20)), Mem: picker.Absent, Conc: picker.Absent, Err: picker.Absent, CPU: .5, Listening: true})
		}
		l, err := b.TryAcquire(Key{Hash: uint64(lengths(1 << 30))})
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, l.Endpoint().ID)
		all = append(all, running{l, now + time.Duration(1+lengths(100))*time.Millisecond})
	}
	if s := b.Status().Shadow; shadow == "" && s != nil || shadow != "" && (s.Picks != 300 || s.Predicted == 0) {
		t.Errorf("%s beside %s: %+v", shadow, policy, s)
	}
	return ids
}

// TestShadowGain: round robin over a fast and a slow endpoint would do better
// with peak_ewma, and the other way round worse. By how much is in the figures
// of the run itself.
func TestShadowGain(t *testing.T) {
	for _, c := range []struct {
		policy, shadow string
		better         bool
	}{{"round_robin", "peak_ewma", true}, {"peak_ewma", "round_robin", false}} {
		bubble(t, func(t *testing.T) {
			r := newRig(t, func(cfg *Config) { cfg.Picker.Policy, cfg.Shadow.Policy = c.policy, c.shadow })
			r.Update(instances(2))
			takes := map[string]time.Duration{"n/0": 10 * time.Millisecond, "n/1": 90 * time.Millisecond}
			for range 400 {
				l := r.get()
				time.Sleep(takes[l.Endpoint().ID])
				l.Done(picker.Result{Outcome: picker.Success, FirstByte: takes[l.Endpoint().ID]})
			}
			s := r.Status().Shadow
			seconds, share, ok := s.Gain()
			if !ok || (seconds > 0) != c.better || (share > 0) != c.better || s.Disagreed == 0 || disagreed(s) > .8 {
				t.Errorf("%s beside %s: gain %v s, %v, of %+v", c.shadow, c.policy, seconds, share, s)
			}
			// One at a time there is no queueing: every prediction is 10 or 90 ms.
			mean := s.PolicySeconds / float64(s.Predicted)
			if c.better && (math.Abs(mean-.05) > .002 || seconds < .03 || seconds > .041) {
				t.Errorf("mean %v s, gain %v s", mean, seconds)
			}
		})
	}
}

func TestSlowdown(t *testing.T) {
	const now = 10 * time.Second
	figures := func(inFlight, own, cores, avail, conc float64) *picker.Load {
		return &picker.Load{Expires: now + 1, InFlight: inFlight, OwnInFlight: own, Cores: cores, Avail: avail, Conc: conc}
	}
	for _, c := range []struct {
		name     string
		load     *picker.Load
		own      int
		more     int
		slowdown float64
	}{
		{"nobody there", nil, 0, 1, 1},
		{"no report", nil, 2, 1, 3},
		{"an old report", &picker.Load{Expires: now, InFlight: 100, Cores: 8, Avail: 8, Conc: 8}, 2, 1, 3},
		{"others", figures(7, 3, -1, -1, -1), 2, 0, 6},
		{"fewer than its own", figures(1, 3, -1, -1, -1), 2, 0, 2},
		{"own unknown", figures(3, -1, -1, -1, -1), 2, 0, 5},
		{"cores", figures(-1, -1, 4, -1, -1), 5, 1, 1.5},
		{"cores to spare", figures(-1, -1, 4, -1, -1), 1, 1, 1},
		{"available", figures(-1, -1, 4, 2, -1), 5, 1, 3},
		{"what it sustains", figures(-1, -1, 4, 2, 3), 5, 1, 2},
		{"next to nothing", figures(-1, -1, 4, .001, -1), 0, 1, 1},
		{"less than a core", figures(-1, -1, 4, .5, -1), 2, 1, 3},
		{"nothing", figures(-1, -1, 0, 0, 0), 3, 1, 4},
	} {
		e := picker.NewEndpoint("x", "x", 1, 0, nil)
		for range c.own {
			e.TryReserve()
		}
		if c.load != nil {
			e.SetLoad(c.load)
		}
		if got := slowdown(e, c.more, now); math.Abs(got-c.slowdown) > 1e-9 {
			t.Errorf("%s: %v, want %v", c.name, got, c.slowdown)
		}
	}
}

func TestPace(t *testing.T) {
	var p picker.EWMA
	if p.Value() != 0 {
		t.Error("an average of nothing")
	}
	near := func(want float64) {
		t.Helper()
		if got := p.Value().Seconds(); math.Abs(got-want) > 1e-4*want {
			t.Errorf("average %v, want %v", got, want)
		}
	}
	p.Observe(time.Second, 100*time.Millisecond)
	near(.1)
	p.Observe(time.Second, 740*time.Millisecond) // at once: a 64th
	near(.11)
	p.Observe(11*time.Second, 1110*time.Millisecond) // after the time constant
	near(.11 + 1 - 1/math.E)
	p.Observe(10*time.Second, p.Value()) // from before
	near(.11 + 1 - 1/math.E)
}

// TestShadowedPathDoesNotAllocate, whatever the shadow.
func TestShadowedPathDoesNotAllocate(t *testing.T) {
	for i, shadow := range picker.Names() {
		r := newRig(t, func(c *Config) {
			c.Picker.Policy, c.Shadow.Policy = picker.Names()[(i+1)%len(picker.Names())], shadow
		})
		r.Update(instances(40))
		if a := testing.AllocsPerRun(500, func() {
			l, err := r.TryAcquire(Key{Hash: 7})
			if err != nil {
				t.Fatal(err)
			}
			l.Done(ok)
		}); a != 0 {
			t.Errorf("%s: %v allocations", shadow, a)
		}
	}
}

// TestShadowSurvives membership, ejections and reports, and reads of its status.
func TestShadowSurvives(t *testing.T) {
	for i, shadow := range picker.Names() {
		r := newRig(t, func(c *Config) {
			limit(2, 2, time.Millisecond)(c)
			c.Picker.Policy, c.Shadow.Policy = picker.Names()[(i+2)%len(picker.Names())], shadow
		})
		r.Update(instances(50))
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				for n := 0; ctx.Err() == nil; n++ {
					l, err := r.Acquire(ctx, Key{Hash: uint64(n)})
					if err != nil {
						continue
					}
					l.Done([]picker.Result{ok, bad, ok, down, skip}[n%5])
				}
			})
		}
		for n := 1; ctx.Err() == nil; n++ {
			r.Update(instances(n % 50))
			r.Tick()
			if s := r.Status().Shadow; s.Disagreed > s.Picks || s.None > s.Disagreed || disagreed(s) > 1 {
				t.Errorf("%s: %+v", shadow, s)
			}
		}
		wg.Wait()
		cancel()
		r.quiet()
	}
}

func TestShadowConfig(t *testing.T) {
	c := DefaultConfig()
	if c.Shadow.Policy != "" {
		t.Errorf("a shadow %q by default", c.Shadow.Policy)
	}
	for want, change := range map[string]func(*Config){
		`policy "x" is not`:                                     func(c *Config) { c.Shadow.Policy = "x" },
		`shadow is "least_conn", as is the policy`:              func(c *Config) { c.Shadow.Policy = "least_conn" },
		"decay is 0s, allowed are 100ms to 10m (in the shadow)": func(c *Config) { c.Shadow.Policy, c.Shadow.PeakEWMA.Decay = "p2c", 0 },
	} {
		c := DefaultConfig()
		change(&c)
		if err := c.Validate(); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("error %v, want %q", err, want)
		}
		if b, err := New(c, RealEnv(nil)); err == nil || b != nil {
			t.Errorf("New took what Validate says is wrong: %s", want)
		}
	}
}
