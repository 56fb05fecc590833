package balance

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"outrigger/discovery"
)

// noChance has nothing added to holds and ejections.
func (r *rig) noChance() { r.env.Rand = func(uint32) uint32 { return 0 } }

// TestFlapDamping: an endpoint that falls every ten seconds is let in ever later,
// whichever way it falls, visibly; others are not.
func TestFlapDamping(t *testing.T) {
	ways := map[string]func(r *rig, down bool){
		"critical": func(r *rig, down bool) {
			set := instances(4)
			if down {
				set[1].Health = discovery.Critical
			}
			r.Update(set)
		},
		"check": func(r *rig, down bool) { r.SetCheck("n/1", CheckState{Known: true, Up: !down}) },
		"left": func(r *rig, down bool) {
			set := instances(4)
			if down {
				set = append(set[:1], set[2:]...)
			}
			r.Update(set)
		},
		"critical, left, critical, back": func(r *rig, down bool) {
			set := instances(4)
			set[1].Health = discovery.Critical
			r.Update(set)
			if down {
				r.Update(append(instances(4)[:1], instances(4)[2:]...))
				return
			}
			r.SetCheck("n/1", CheckState{Known: true})
			synctest.Wait()
			r.Update(instances(4)) // the check is down still
			synctest.Wait()
			r.SetCheck("n/1", CheckState{Known: true, Up: true})
		},
	}
	for name, change := range ways {
		bubble(t, func(t *testing.T) {
			r := newRig(t, nil)
			r.noChance()
			told := 0
			r.env.Event = func(e Event) {
				if e.Kind != "damped" || e.Warn || e.Message != "endpoint changes state too often: back in 4 s" || fmt.Sprint(e.Args) != "[id n/1 falls_total 3]" {
					t.Errorf("%s: told %+v", name, e)
				}
				told++
			}
			r.run()
			r.Update(instances(4))
			for i, want := range []float64{0, 0, 3.5, 6.3, 11, 18.4, 29.7, 46.6, 60, 60} {
				time.Sleep(9 * time.Second)
				change(r, true)
				synctest.Wait()
				time.Sleep(time.Second)
				change(r, false)
				synctest.Wait()
				e := r.Status().Endpoints[1]
				if got := e.Damped.Seconds(); got < want*.97 || got > want*1.03 || e.Falls != uint64(i+1) || e.Ready != (want == 0) {
					t.Fatalf("%s, return %d: held back for %.2f s, want %.1f; %+v", name, i+1, got, want, e)
				}
				if want > 0 {
					if text := fmt.Sprintf("damped for changing state too often, back in %.1f s", e.Damped.Seconds()); e.Why != text {
						t.Errorf("%s: why %q, want %q", name, e.Why, text)
					}
					if x := outs(r.explain(Question{}).Policy); !strings.Contains(x, "n/1 damped for") {
						t.Errorf("%s: explained as %s", name, x)
					}
				}
			}
			if told != 1 {
				t.Errorf("%s: told %d times", name, told)
			}
			time.Sleep(59 * time.Second)
			r.wantReady("n/0 n/2 n/3")
			time.Sleep(2 * time.Second)
			r.wantReady("n/0 n/1 n/2 n/3")
			if got := r.ramp(1); got < .1 || got > .2 {
				t.Errorf("%s: back at %v of its weight", name, got)
			}
			// Nothing but time clears it, and that does.
			for _, e := range r.Status().Endpoints {
				if e.Instance.ID == "n/1" && e.Flaps < 4 || e.Instance.ID != "n/1" && e.Falls+uint64(e.Flaps) != 0 {
					t.Errorf("%s: %+v", name, e)
				}
			}
			time.Sleep(4 * time.Minute)
			change(r, true)
			synctest.Wait()
			time.Sleep(30 * time.Second)
			change(r, false)
			synctest.Wait()
			if e := r.Status().Endpoints[1]; e.Damped > 5*time.Second || e.Falls != 11 {
				t.Errorf("%s: after five minutes held back for %v, %d falls", name, e.Damped, e.Falls)
			}
		})
	}
}

// TestNoFalls: a deploy of everything, maintenance, weight 0, an ejection, another
// address and a first check are none or one, and nobody is held back.
func TestNoFalls(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, nil)
		r.run()
		first := sick(4, 3) // registered, and its check has not passed yet
		r.Update(first)
		for range 5 {
			set := instances(4)
			set[0].Health, set[0].Weight = discovery.Maintenance, 0
			set[1].Weight = 0
			set[2].Port = 9000
			r.Update(set)
			r.Update(instances(4))
			synctest.Wait()
			r.SetCheck("n/3", CheckState{Known: true, Up: true})
		}
		r.eject(2)
		r.expire(2)
		r.getAt(2).Done(ok)
		synctest.Wait()
		for _, e := range r.Status().Endpoints {
			if e.Falls != 0 || !e.Ready {
				t.Errorf("%+v", e)
			}
		}
		r.Update(nil) // an outage of everything, and back
		time.Sleep(5 * time.Second)
		r.Update(instances(4))
		for _, e := range r.Status().Endpoints {
			if e.Falls != 1 || !e.Ready {
				t.Errorf("after all left: %+v", e)
			}
		}
	})
}

// TestDampedMoves: its memory goes with an endpoint to another address.
func TestDampedMoves(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, nil)
		r.run()
		for range 5 {
			r.Update(instances(3))
			r.Update(sick(3, 0))
		}
		set := instances(3)
		set[0].Port = 9000
		r.Update(set)
		if e := r.Status().Endpoints[0]; e.Falls != 5 || e.Damped < 10*time.Second || e.Instance.Port != 9000 {
			t.Errorf("%+v", e)
		}
	})
}

// TestDampedInPanic: when too many are held back, they are not.
func TestDampedInPanic(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, nil)
		r.run()
		r.Update(instances(3))
		for range 6 {
			r.Update(sick(3, 0, 1))
			time.Sleep(time.Second)
			r.Update(instances(3))
		}
		r.wantReady("n/0 n/1 n/2")
		if s := r.Status(); !s.Panic || s.Endpoints[0].Despite != "damped" || s.Endpoints[0].Damped <= 0 {
			t.Errorf("%+v", s)
		}
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		if s := r.Status(); s.Panic || s.Ready != 3 {
			t.Errorf("panic %v, %d ready", s.Panic, s.Ready)
		}
	})
}

// TestFlapMemoryIsBounded: whoever leaves for ever is forgotten, and a flood of IDs
// neither grows it nor drives out who falls often.
func TestFlapMemoryIsBounded(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, nil)
		flapper := instance(0)
		remembered := func() int { return len(r.flapped) }
		for range 6 {
			r.Update([]discovery.Instance{flapper})
			r.Update([]discovery.Instance{})
		}
		stay := make([]discovery.Instance, 501) // or their falls were forgiven
		for j := range stay {
			stay[j] = instance(100_000 + j)
			stay[j].Port = 1 + j
		}
		time.Sleep(massTime)
		for i := range 40 { // each a deploy under new IDs
			set := make([]discovery.Instance, 500)
			for j := range set {
				set[j] = instance(1000 + 500*i + j)
				set[j].Port = 1000 + (500*i+j)%60000
			}
			r.Update(append(set, stay...))
			r.Update(stay)
			if remembered() > maxFlapped {
				t.Fatalf("%d are remembered", remembered())
			}
			time.Sleep(5 * time.Second)
		}
		if r.Update([]discovery.Instance{flapper}); r.Status().Endpoints[0].Falls != 6 {
			t.Errorf("the one that fell often: %+v", r.Status().Endpoints[0])
		}
		if remembered() < 1000 {
			t.Errorf("only %d are remembered", remembered())
		}
		time.Sleep(time.Hour)
		r.Update([]discovery.Instance{flapper, instance(1)})
		r.Update([]discovery.Instance{flapper})
		if n := remembered(); n != 1 {
			t.Errorf("an hour later %d are remembered", n)
		}
	})
}

// TestMassFalls: when more than half fall at once it is whatever judges them that
// fell, whichever way, and nobody is held back for it; with fewer, or one after the
// other, it is theirs.
func TestMassFalls(t *testing.T) {
	for name, c := range map[string]struct {
		n, fall int
		apart   time.Duration
		held    bool
	}{
		"all":                   {10, 10, 0, false},
		"six of ten":            {10, 6, 0, false},
		"five of ten":           {10, 5, 0, true},
		"all within a second":   {10, 10, 90 * time.Millisecond, false},
		"all, but over seconds": {10, 10, 600 * time.Millisecond, true},
		"two of two":            {2, 2, 0, true},
		"three of three":        {3, 3, 0, false},
	} {
		ways := map[string]func(r *rig, i int, out []bool){
			"critical": func(r *rig, _ int, out []bool) {
				set := instances(c.n)
				for i := range set {
					if out[i] {
						set[i].Health = discovery.Critical
					}
				}
				r.Update(set)
			},
			"left": func(r *rig, _ int, out []bool) {
				set := []discovery.Instance{}
				for i, x := range instances(c.n) {
					if !out[i] {
						set = append(set, x)
					}
				}
				r.Update(set)
			},
			"check": func(r *rig, i int, out []bool) {
				r.SetCheck(instance(i).ID, CheckState{Known: true, Up: !out[i]})
				synctest.Wait()
			},
		}
		for way, do := range ways {
			bubble(t, func(t *testing.T) {
				r := newRig(t, nil)
				r.run()
				r.Update(instances(c.n))
				out := make([]bool, c.n)
				set := func(to bool, apart time.Duration) {
					for i := range c.fall {
						if out[i] = to; apart > 0 || way == "check" {
							do(r, i, out)
							time.Sleep(apart)
						}
					}
					if apart == 0 && way != "check" {
						do(r, 0, out)
					}
				}
				for range 4 {
					set(true, c.apart)
					time.Sleep(3 * time.Second)
					set(false, 0)
					time.Sleep(3 * time.Second)
				}
				synctest.Wait()
				held := 0
				for i, e := range r.Status().Endpoints {
					if e.Damped > 0 {
						held++
					}
					want := uint64(0)
					if i < c.fall {
						want = 4
					}
					if e.Falls != want { // forgiven is not forgotten
						t.Errorf("%s, %s: endpoint %d fell %d times, want %d", name, way, i, e.Falls, want)
					}
				}
				if want := map[bool]int{true: c.fall}[c.held]; held != want {
					t.Errorf("%s, %s: %d are held back, want %d", name, way, held, want)
				}
			})
		}
	}
}

// TestMassFallForgivesItself alone: falls from before still count.
func TestMassFallForgivesItself(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, nil)
		r.noChance()
		r.run()
		r.Update(instances(4))
		for range 4 {
			r.Update(sick(4, 0))
			time.Sleep(2 * time.Second)
			r.Update(instances(4))
		}
		time.Sleep(20 * time.Second)
		before := r.Status().Endpoints[0]
		r.Update(sick(4, 0, 1, 2))
		r.Update(instances(4))
		after := r.Status().Endpoints
		if before.Flaps < 3 || after[0].Flaps != before.Flaps || after[0].Damped == 0 || after[0].Falls != 5 {
			t.Errorf("before %.2f, after %.2f, held back for %v, fell %d times", before.Flaps, after[0].Flaps, after[0].Damped, after[0].Falls)
		}
		if after[1].Flaps != 0 || after[1].Falls != 1 {
			t.Errorf("the others: %+v", after[1])
		}
	})
}

// TestMassFallOfOneSource: each has a judge of its own.
func TestMassFallOfOneSource(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, nil)
		r.run()
		set := func(critical ...int) []discovery.Instance {
			set := sick(10, critical...)
			for i := range 7 {
				set[3+i].Tier = 1
			}
			return set
		}
		r.Update(set())
		for range 5 {
			r.Update(set(0, 1, 2, 3, 4, 5))
			time.Sleep(2 * time.Second)
			r.Update(set())
			time.Sleep(2 * time.Second)
		}
		for i, e := range r.Status().Endpoints {
			if held := e.Damped > 0; held != (i >= 3 && i <= 5) {
				t.Errorf("endpoint %d: held back for %v", i, e.Damped)
			}
		}
	})
}

// TestManyDampedAtOnce are told of by one line.
func TestManyDampedAtOnce(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, nil)
		r.noChance()
		var told []string
		r.env.Event = func(e Event) {
			if e.Kind == "damped" {
				told = append(told, fmt.Sprint(e.Message, e.Args))
			}
		}
		r.run()
		r.Update(instances(10))
		for range 3 {
			r.Update(sick(10, 0, 1, 2, 3))
			time.Sleep(2 * time.Second)
			r.Update(instances(10))
			time.Sleep(2 * time.Second)
		}
		want := "4 endpoints change state too often: back in 4 to 4 s[endpoints 4 one n/0]"
		if len(told) != 1 || told[0] != want {
			t.Errorf("told %q, want %q", told, want)
		}
	})
}
