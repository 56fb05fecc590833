package balance

import (
	"math"
	"testing"
	"testing/synctest"
	"time"

	"outrigger/discovery"
	"outrigger/picker"
)

// ramp is the share of its weight that endpoint i counts with.
func (r *rig) ramp(i int) float64 { return math.Round(100*r.Status().Endpoints[i].Ramp) / 100 }

func (r *rig) wantRamps(what string, want ...float64) {
	r.t.Helper()
	synctest.Wait()
	for i, w := range want {
		if got := r.ramp(i); got != w {
			r.t.Errorf("%s: endpoint %d at %v of its weight, want %v", what, i, got, w)
		}
	}
}

// parts makes n requests one after the other and returns each endpoint's part.
func (r *rig) parts(n int) []float64 {
	r.t.Helper()
	got := make([]float64, len(r.snap.Load().all))
	for range n {
		l := r.get()
		for i, m := range r.snap.Load().all {
			if m.ep == l.Endpoint() {
				got[i] += 1 / float64(n)
			}
		}
		l.Done(ok)
	}
	return got
}

func roundRobin(c *Config) { c.Picker.Policy = "round_robin" }

func TestSlowStartOfNewcomers(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, roundRobin)
		r.run()
		r.Update(instances(3))
		r.wantRamps("the first set", 1, 1, 1)
		time.Sleep(time.Minute)
		r.Update(instances(4))
		r.wantRamps("a newcomer", 1, 1, 1, 0.1)
		for _, c := range []struct {
			after time.Duration
			share float64 // of its weight
		}{
			{0, 0.1}, {2 * time.Second, 0.2}, {5 * time.Second, 0.5}, {9 * time.Second, 0.9}, {11 * time.Second, 1},
		} {
			time.Sleep(time.Minute + c.after - (r.Now() - time.Second))
			synctest.Wait()
			// What is picked follows in steps of a twentieth.
			if got, want := r.parts(1000)[3], c.share/(3+c.share); got < want*0.7-0.005 || got > want*1.1+0.005 {
				t.Errorf("after %v: part %.3f, want about %.3f", c.after, got, want)
			}
		}
		r.wantRamps("at the end", 1, 1, 1, 1)
		r.quiet()
	})
}

// TestSlowStartSteps: while something ramps, Tick asks to be called every
// twentieth of the slow start, and at least 100 ms apart; and then no more.
func TestSlowStartSteps(t *testing.T) {
	for length, step := range map[time.Duration]time.Duration{
		10 * time.Second: 500 * time.Millisecond, time.Second: 100 * time.Millisecond,
	} {
		bubble(t, func(t *testing.T) {
			wakes := 0
			r := newRig(t, func(c *Config) { c.SlowStart = length })
			r.env.Wake = func() { wakes++ }
			r.Update(instances(2))
			if wakes != 0 || r.Tick() != time.Hour {
				t.Errorf("woken %d times for a first set", wakes)
			}
			r.Update(instances(3))
			if wakes == 0 {
				t.Error("not woken for a newcomer")
			}
			steps := 0
			for start := r.Now(); ; steps++ {
				was := r.snap.Load()
				wait := r.Tick()
				if wait == time.Hour {
					if d := r.Now() - start; d < length || d > length+step {
						t.Errorf("%v: over after %v", length, d)
					}
					break
				}
				if built := r.snap.Load() != was; wait != step || built != (steps > 0) {
					t.Fatalf("%v: the next step is in %v, want %v; built %v at step %d", length, wait, step, built, steps)
				}
				time.Sleep(wait)
			}
			if want := int(length / step); steps != want {
				t.Errorf("%v: %d steps, want %d", length, steps, want)
			}
		})
	}
}

func TestSlowStartOfThoseThatReturn(t *testing.T) {
	away := map[string]func(*discovery.Instance){
		"maintenance": func(i *discovery.Instance) { i.Health, i.Weight = discovery.Maintenance, 0 },
		"weight 0":    func(i *discovery.Instance) { i.Weight = 0 },
		"moved":       func(i *discovery.Instance) { i.Port = 1 },
	}
	for name, change := range away {
		bubble(t, func(t *testing.T) {
			r := newRig(t, nil)
			r.run()
			r.Update(instances(3))
			set := instances(3)
			change(&set[1])
			r.Update(set)
			time.Sleep(time.Second)
			r.Update(instances(3))
			r.wantRamps(name, 1, 0.1, 1)
			time.Sleep(5 * time.Second)
			r.wantRamps(name, 1, 0.5, 1)
			set = instances(3)
			set[1].Weight, set[1].Health, set[0].Weight = 7, discovery.Warning, 3
			r.Update(set)
			r.wantRamps("another weight and health", 1, 0.5, 1)
			time.Sleep(6 * time.Second)
			r.wantRamps(name, 1, 1, 1)
		})
	}
	for _, c := range []struct{ out, first, later float64 }{ // in seconds
		{.2, .98, 1}, {3, .7, 1}, {8, .2, .7}, {9.5, .1, .55}, {20, .1, .5}, {3600, .1, .5},
	} {
		bubble(t, func(t *testing.T) { // out for a while, and by nobody's wish
			r := newRig(t, nil)
			r.run()
			r.Update(instances(4))
			r.Update(sick(4, 1))
			r.SetCheck("n/2", CheckState{Known: true})
			time.Sleep(time.Duration(c.out * float64(time.Second)))
			r.Update(instances(4))
			r.SetCheck("n/2", CheckState{Known: true, Up: true})
			r.wantRamps("critical", 1, c.first, c.first, 1)
			time.Sleep(5 * time.Second)
			r.wantRamps("critical", 1, c.later, c.later, 1)
		})
	}
	bubble(t, func(t *testing.T) { // critical from the start
		r := newRig(t, nil)
		r.run()
		set := instances(2)
		set[0].Health = discovery.Critical
		r.Update(set)
		r.wantRamps("critical", 1, 1)
		time.Sleep(time.Minute)
		r.Update(instances(2))
		r.wantRamps("first passing", 0.1, 1)
	})
}

func TestSlowStartAfterEjection(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, roundRobin)
		r.run()
		r.Update(instances(3))
		r.eject(1)
		r.expire(1)
		r.wantRamps("half-open", 1, 1, 1) // it has its limit of one
		r.getAt(1).Done(ok)
		r.wantRamps("back", 1, 0.1, 1)
		if got := r.parts(1000)[1]; got < 0.03 || got > 0.07 {
			t.Errorf("part %.3f, want about 0.048", got)
		}
		time.Sleep(3 * time.Second)
		r.wantRamps("back for 3 s", 1, 0.3, 1)
		r.eject(1)
		r.expire(1)
		r.getAt(1).Done(ok)
		r.wantRamps("back again", 1, 0.1, 1)
		time.Sleep(11 * time.Second)
		r.wantRamps("in the end", 1, 1, 1)
	})
}

func TestSlowStartAfterRestart(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, nil)
		r.run()
		r.Update(instances(3))
		report := func(epoch string) {
			r.SetLoad("n/1", &picker.Load{At: r.Now(), Expires: r.Now() + time.Second, Cores: 1, Avail: 1, Listening: true, Epoch: epoch})
		}
		for _, epoch := range []string{"a", "a", "", "a"} {
			report(epoch)
			r.wantRamps("the same process", 1, 1, 1)
		}
		report("b")
		r.wantRamps("another process", 1, 0.1, 1)
		if got := r.parts(2000)[1]; got > 0.08 {
			t.Errorf("part %.3f of another process", got)
		}
		time.Sleep(4 * time.Second)
		report("b")
		r.wantRamps("the same process", 1, 0.4, 1)
		r.Update(sick(3, 1))
		time.Sleep(time.Second)
		r.Update(instances(3))
		r.wantRamps("out for a second of its slow start", 1, 0.3, 1)
		time.Sleep(time.Minute)
		r.Update(sick(3, 1))
		time.Sleep(time.Second)
		report("c")
		r.Update(instances(3))
		r.wantRamps("another process while it was out", 1, 0.1, 1)
	})
}

func TestSlowStartOff(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, func(c *Config) { c.SlowStart = 0 })
		r.run()
		r.Update(instances(2))
		r.Update(instances(3))
		l := &picker.Load{Epoch: "a"}
		r.SetLoad("n/0", l)
		r.SetLoad("n/0", &picker.Load{Epoch: "b"})
		r.wantRamps("off", 1, 1, 1)
		if d := r.Tick(); d != time.Hour {
			t.Errorf("the next step is in %v", d)
		}
	})
}

// TestSlowStartOfAll: a service that returns as a whole, or is replaced but for
// one, does not lean on chance survivors.
func TestSlowStartOfAll(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, roundRobin)
		r.run()
		set := instances(4)
		r.Update(set)
		for i := range set {
			set[i].Health = discovery.Critical
		}
		r.Update(set)
		r.Update(instances(4))
		for i, part := range r.parts(1000) {
			if part < 0.24 || part > 0.26 {
				t.Errorf("all return: endpoint %d has %.3f", i, part)
			}
		}
		time.Sleep(time.Minute)
		moved := instances(10)
		r.Update(moved)
		time.Sleep(time.Minute)
		for i := range moved[1:] {
			moved[1+i].Port += 100
		}
		r.Update(moved)
		synctest.Wait()
		if got := r.parts(2000)[0]; got < 0.15 || got > 0.205 {
			t.Errorf("nine of ten are replaced: the tenth has %.3f of the requests, want twice its 0.1 at most", got)
		}
	})
}

// TestSlowStartEveryPolicy: an idle newcomer among busy endpoints is neither
// flooded nor starved, whatever the policy.
func TestSlowStartEveryPolicy(t *testing.T) {
	for _, name := range picker.Names() {
		bubble(t, func(t *testing.T) {
			r := newRig(t, func(c *Config) { c.Picker.Policy = name })
			r.run()
			r.Update(instances(3))
			var held []Lease
			key := uint64(0)
			work := func(n int) { // requests that last 100 others
				for range n {
					key += 0x9e3779b97f4a7c15
					l, err := r.TryAcquire(Key{Hash: key})
					if err != nil {
						t.Fatalf("%s: %v", name, err)
					}
					if held = append(held, l); len(held) > 100 {
						held[0].Done(picker.Result{Outcome: picker.Success, FirstByte: 100 * time.Millisecond})
						held = held[1:]
					}
					time.Sleep(time.Millisecond)
				}
			}
			work(500)
			r.Update(instances(4))
			most := 0
			for range 100 {
				work(10)
				most = max(most, r.endpoint(3).InFlight())
			}
			total := r.endpoint(3).Totals().Requests
			if most > 15 || total == 0 {
				t.Errorf("%s: in its first second the newcomer had %d in flight, the others about 30; it finished %d requests", name, most, total)
			}
			work(12000)
			if n := r.endpoint(3).InFlight(); n < 12 || n > 40 {
				t.Errorf("%s: %d of 100 in flight in the end", name, n)
			}
			for i := range held {
				held[i].Done(ok)
			}
			r.quiet()
		})
	}
}

// TestRestless: an agent that tells of another process with every report does
// not have the snapshot built anew for each, and its endpoint gets on a little.
func TestRestless(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, roundRobin)
		r.run()
		r.Update(instances(3))
		built, most := 0, 0.0
		for i := range 300 { // 30 s, of which a ramp takes 10 and steps of half a second
			s := r.snap.Load()
			r.SetLoad(instance(0).ID, &picker.Load{At: r.Now(), Expires: r.Now() + time.Minute, Epoch: string(rune('a' + i)), Listening: true})
			time.Sleep(100 * time.Millisecond)
			synctest.Wait()
			if r.snap.Load() != s {
				built++
			}
			if i > 10 {
				most = max(most, r.ramp(0))
			}
		}
		if built > 80 {
			t.Errorf("%d snapshots built", built)
		}
		if most < 0.4 || most > 0.6 {
			t.Errorf("it came to %v of its weight", most)
		}
		// A real restart later on begins anew.
		time.Sleep(time.Minute)
		r.wantRamps("settled", 1, 1, 1)
		r.SetLoad(instance(0).ID, &picker.Load{At: r.Now(), Expires: r.Now() + time.Minute, Epoch: "last", Listening: true})
		r.wantRamps("restarted", 0.1, 1, 1)
	})
}
