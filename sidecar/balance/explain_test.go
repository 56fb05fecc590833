package balance

import (
	"context"
	"fmt"
	"math/rand/v2"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"outrigger/discovery"
	"outrigger/picker"
)

// explain asks or fails the test.
func (r *rig) explain(q Question) Explanation {
	r.t.Helper()
	x, err := r.Explain(q)
	if err != nil {
		r.t.Fatal(err)
	}
	return x
}

// outs lists the candidates in order with what keeps them out.
func outs(p PolicyExplanation) string {
	var list []string
	for _, c := range p.Candidates {
		s := c.ID
		if c.Picked {
			s += "*"
		}
		if c.Out != "" {
			s += " " + c.Out
		}
		list = append(list, s)
	}
	return strings.Join(list, "; ")
}

// TestExplain has an endpoint in every state that there is.
func TestExplain(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, func(c *Config) {
			limit(3, 10, time.Second)(c)
			c.Picker.Policy = "resource"
			c.Breaker.MaxEjectedPercent = 100
		})
		r.run()
		set := instances(9)
		set[2].Health, set[3].Weight, set[4].Health = discovery.Critical, 0, discovery.Maintenance
		r.Update(set)
		r.eject(6)
		r.expire(6)
		probe := r.getAt(6)
		r.eject(5)
		held := []*Lease{r.getAt(0), r.getAt(7), r.getAt(7), r.getAt(7)}
		report := func(i int, mem float64) {
			r.SetLoad(set[i].ID, &picker.Load{At: r.Now(), Expires: r.Now() + 3*time.Second, Cores: 2, Avail: 2,
				InFlight: picker.Absent, Mem: mem, Conc: picker.Absent, Err: picker.Absent, Listening: true})
		}
		report(0, .1)
		report(8, .95)
		time.Sleep(500 * time.Millisecond)
		before := r.Status()
		x := r.explain(Question{})
		back := fmt.Sprintf("%.1f", (r.member(5).br.Until() - r.Now()).Seconds())
		// The policy draws, so either may be taken, but the order is that of scores.
		got := outs(x.Policy)
		plain := strings.Replace(got, "*", "", 1)
		if strings.Count(got, "*") != 1 || !strings.HasPrefix(plain, "n/1; n/0; ") || !strings.Contains(got, x.Policy.Pick+"*") {
			t.Errorf("takes %s of %s", x.Policy.Pick, got)
		}
		for _, want := range []string{
			"n/2 critical", "n/3 draining (weight 0)", "n/4 maintenance",
			"n/5 ejected, back in " + back + " s", "n/6 half-open, waiting for its probe", "n/7 at its limit of 3",
		} {
			if !strings.Contains(got, want) {
				t.Errorf("%q is missing in %s", want, got)
			}
		}
		if i := strings.Index(got, "n/8 "); i < 0 || !strings.Contains(got[i:], "memory") {
			t.Errorf("the veto and its reason are missing in %s", got)
		}
		if x.Service != "web" || x.Policy.Policy != "resource" || x.Reason != "" || x.RetryAfter != 0 ||
			x.Waits != 0 || x.Panic || x.Draining || x.Shadow != nil || x.Policy.Rule == "" || x.Policy.Mode != before.Mode {
			t.Errorf("%+v", x)
		}
		for _, c := range x.Policy.Candidates {
			switch c.ID {
			case "n/0":
				if c.InFlight != 1 || c.Limit != 3 || c.Weight != 1 || !c.HasLoad || c.LoadAge != 500*time.Millisecond || c.LoadExpired ||
					len(c.Terms) == 0 || c.Score <= 0 || c.Share <= 0 || c.Addr != "127.0.0.1:8000" || c.Predicted != 0 {
					t.Errorf("%+v", c)
				}
			case "n/5":
				if c.Terms != nil || c.Returns <= 0 {
					t.Errorf("%+v", c)
				}
			}
		}
		if after := r.Status(); !reflect.DeepEqual(before, after) {
			t.Errorf("explaining changed\n%+v to\n%+v", before, after)
		}

		x = r.explain(Question{Tried: []string{"n/1"}})
		if got := outs(x.Policy); x.Policy.Pick != "n/0" || !strings.HasPrefix(got, "n/0*; ") || !strings.Contains(got, "n/1 tried already") {
			t.Errorf("with one tried: %s", got)
		}
		time.Sleep(3 * time.Second)
		for _, c := range r.explain(Question{}).Policy.Candidates {
			if c.ID == "n/0" && !c.LoadExpired {
				t.Error("figures of three seconds and a half are still believed")
			}
		}
		for _, l := range append(held, probe) {
			l.Done(ok)
		}
	})
}

func TestExplainErrors(t *testing.T) {
	r := newRig(t, nil)
	r.Update(instances(9))
	for want, tried := range map[string][]string{
		`tried: service "web" has no endpoint "n/99"; /v1/status lists them`:      {"n/0", "n/99"},
		"tried has 8 endpoints, allowed are up to 6: a request remembers no more": {"n/0", "n/1", "n/0", "n/1", "n/2", "n/3", "n/4", "n/5", "n/6", "n/7"},
	} {
		if _, err := r.Explain(Question{Tried: tried}); err == nil || err.Error() != want {
			t.Errorf("%v: %v", tried, err)
		}
	}
	if _, err := r.Explain(Question{Tried: []string{"n/0", "n/1", "n/2", "n/3", "n/4", "n/5", "n/4", "n/0", "n/1"}}); err != nil {
		t.Error(err)
	}
}

// TestExplainNone: without an endpoint it says what a client would get, as one
// then does, and counts nothing.
func TestExplainNone(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, limit(1, 1, 20*time.Millisecond))
		r.run()
		none := func(want Reason, waits time.Duration) {
			t.Helper()
			before := r.Status()
			x := r.explain(Question{})
			if x.Reason != want.String() || x.RetryAfter < 1 || x.RetryAfter > 30 || x.Waits != waits || x.Policy.Pick != "" && want != Draining {
				t.Errorf("%+v, want %v after %v", x, want, waits)
			}
			if after := r.Status(); !reflect.DeepEqual(before, after) || len(r.Denials(1000)) > 20 {
				t.Errorf("explaining changed\n%+v to\n%+v", before, after)
			}
		}
		none(NoBackends, 0)
		r.refuses(NoBackends)
		r.Update(instances(2))
		held := []*Lease{r.get(), r.get()}
		none(QueueTimeout, 20*time.Millisecond)
		waits := r.ask(context.Background())
		none(QueueFull, 0)
		_, err := r.Acquire(context.Background(), Key{})
		refused(t, err, QueueFull)
		refused(t, (<-waits).err, QueueTimeout)
		r.cfg.Queue.Length = 0
		none(Saturated, 0)
		for _, l := range held {
			l.Done(ok)
		}
		r.Update(instances(1))
		x := r.explain(Question{Tried: []string{"n/0"}})
		if x.Reason != "all_ejected" || outs(x.Policy) != "n/0 tried already" {
			t.Errorf("when all are tried: %+v", x)
		}
		r.Drain()
		none(Draining, 0)
		r.refuses(Draining)
	})
}

// TestExplainPanic: with everything ejected the ejected are candidates.
func TestExplainPanic(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, nil)
		r.run()
		r.Update(instances(3))
		r.panics()
		x := r.explain(Question{})
		if !x.Panic || x.Policy.Pick == "" || x.Reason != "" || strings.Contains(outs(x.Policy), "ejected") {
			t.Errorf("%+v", x)
		}
	})
}

// TestExplainOldSnapshot: a breaker may have opened since.
func TestExplainOldSnapshot(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, nil) // nobody calls Tick
		r.Update(instances(2))
		r.getAt(1).Done(down)
		for range 20 {
			x := r.explain(Question{})
			if x.Policy.Pick != "n/0" || !strings.HasPrefix(outs(x.Policy), "n/0*; n/1 ejected, back in ") {
				t.Errorf("takes %s of %s", x.Policy.Pick, outs(x.Policy))
			}
		}
		x := r.explain(Question{Tried: []string{"n/0"}})
		if x.Policy.Pick != "" || x.Reason != "all_ejected" {
			t.Errorf("%+v", x)
		}
		time.Sleep(time.Minute)
		x = r.explain(Question{Tried: []string{"n/0"}})
		if x.Policy.Pick != "n/1" || x.Reason != "" {
			t.Errorf("once it is over: %+v", x)
		}
	})
}

// TestExplainBackup: who stands behind is told, and is taken when all others
// were tried; a shadow has the same tier, and the same locality.
func TestExplainBackup(t *testing.T) {
	r := newRig(t, func(c *Config) { c.Shadow.Policy, c.Locality.Prefer = "p2c", []string{"datacenter"} })
	set := instances(3)
	set[2].Backup = true
	r.Update(set)
	x := r.explain(Question{Tried: []string{"n/0"}})
	for _, p := range []*PolicyExplanation{&x.Policy, x.Shadow} {
		if got := outs(*p); got != "n/1*; n/0 tried already; n/2 backup: 2 primaries are ready" {
			t.Errorf("%s: %s", p.Policy, got)
		}
	}
	if x := r.explain(Question{Tried: []string{"n/0", "n/1"}}); x.Policy.Pick != "n/2" || x.Reason != "" {
		t.Errorf("%+v", x)
	}
}

// TestExplainEveryPolicy: any policy beside any shadow, keyed and not.
func TestExplainEveryPolicy(t *testing.T) {
	for i, policy := range picker.Names() {
		r := newRig(t, func(c *Config) {
			c.Picker.Policy = policy
			c.Shadow.Policy = picker.Names()[(i+1)%len(picker.Names())]
		})
		r.Update(instances(40))
		for _, q := range []Question{{}, {Hash: 12345}, {Hash: 1, Tried: []string{"n/3"}}} {
			x := r.explain(q)
			for _, p := range []*PolicyExplanation{&x.Policy, x.Shadow} {
				if len(p.Candidates) != 40 || p.Pick == "" || p.Rule == "" || x.Reason != "" {
					t.Errorf("%s: %d candidates, takes %q", p.Policy, len(p.Candidates), p.Pick)
				}
				if q.Tried != nil && (p.Pick == "n/3" || !strings.Contains(outs(*p), "n/3 tried already")) {
					t.Errorf("%s: %s", p.Policy, outs(*p))
				}
			}
		}
	}
}

// TestExplainRaces with everything that may change meanwhile.
func TestExplainRaces(t *testing.T) {
	for _, policy := range picker.Names() {
		r := newRig(t, func(c *Config) {
			limit(2, 2, time.Millisecond)(c)
			c.Picker.Policy = policy
			c.Shadow.Policy = "random"
			if policy == "random" {
				c.Shadow.Policy = "resource"
			}
		})
		r.Update(instances(5))
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		loop := func(f func()) {
			wg.Go(func() {
				for ctx.Err() == nil {
					f()
				}
			})
		}
		loop(func() {
			set := instances(1 + rand.IntN(40))
			set[0].Weight = rand.IntN(3)
			r.Update(set)
		})
		loop(func() { r.Tick() })
		loop(func() {
			if l, err := r.TryAcquire(Key{Hash: rand.Uint64()}); err == nil {
				l.Done([]picker.Result{ok, bad, down, skip}[rand.IntN(4)])
			}
		})
		loop(func() {
			r.SetLoad("n/0", &picker.Load{At: r.Now(), Expires: r.Now() + time.Second, Cores: 1, Avail: rand.Float64(),
				InFlight: 1, Mem: rand.Float64(), Conc: picker.Absent, Err: picker.Absent, Listening: true})
		})
		for i := range 40 {
			x, err := r.Explain(Question{Hash: uint64(i)})
			if err != nil || (x.Policy.Pick == "") != (x.Reason != "") {
				t.Errorf("%s: %+v, %v", policy, x, err)
			}
			r.Decisions(10)
			r.Denials(10)
		}
		cancel()
		wg.Wait()
	}
}

// TestExplainForetells: what admission goes by is there for each endpoint that
// the policy was given, where the policy can tell.
func TestExplainForetells(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := foretelling(t, 0.15, 0)
		set := instances(3)
		set[2].Health = discovery.Critical
		r.Update(set)
		r.crowded(0, 20)
		r.crowded(1, 0)
		r.refresh()
		r.crowded(0, 20)
		r.crowded(1, 0)
		wait := func(i int) time.Duration { return r.snap.Load().forecaster.Wait(r.endpoint(i), r.Now()) }
		for _, c := range r.explain(Question{}).Policy.Candidates {
			switch c.ID {
			case "n/0":
				if !c.Foretells || c.Foretold != wait(0) || c.Foretold < time.Second {
					t.Errorf("%s: %v, %v", c.ID, c.Foretells, c.Foretold)
				}
				// Just what TryAcquire goes by.
				_, err := r.TryAcquire(Key{Deadline: r.Now() + c.Foretold*100/16, Tried: triedAll(r, 1)})
				refused(t, err, Saturated)
				l, err := r.TryAcquire(Key{Deadline: r.Now() + c.Foretold*100/14, Tried: triedAll(r, 1)})
				if err != nil {
					t.Fatal(err)
				}
				l.Done(skip)
			case "n/1":
				if !c.Foretells || c.Foretold != 0 {
					t.Errorf("%s: %v, %v", c.ID, c.Foretells, c.Foretold)
				}
			default:
				if c.Foretells {
					t.Errorf("%s: %v", c.ID, c.Foretold)
				}
			}
		}
	})
	r := newRig(t, nil)
	r.Update(instances(1))
	if c := r.explain(Question{}).Policy.Candidates[0]; c.Foretells {
		t.Error("least_conn foretells", c.Foretold)
	}
}

func triedAll(r *rig, list ...int) (tried picker.Tried) {
	for _, i := range list {
		tried.Add(r.endpoint(i))
	}
	return tried
}
