package balance

import (
	"testing"
	"testing/synctest"
	"time"

	"outrigger/discovery"
)

// TestSlowStartInPanic: who only comes back because health is ignored, and was not
// gone for long, is warm and needed, and goes on as it is when the panic ends; a panic
// that comes and goes begins no slow start anew. Newcomers, and those whose own health
// returns, have theirs.
func TestSlowStartInPanic(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, func(c *Config) { c.Damping.Base = 0 })
		r.run()
		calm := func() { time.Sleep(2 * calm); synctest.Wait() }
		r.Update(instances(5))
		r.Update(sick(5, 0, 1, 2))
		r.wantRamps("the panic begins", 1, 1, 1, 1, 1)
		r.Update(sick(5, 1, 2))
		calm()
		r.wantRamps("the panic is over, for one that served in it", 1, 1, 1, 1, 1)
		r.wantReady("n/0 n/3 n/4")
		for range 5 {
			r.Update(sick(5, 0, 1, 2))
			r.Update(sick(5, 1, 2))
			calm()
		}
		r.wantRamps("one comes and goes", 1, 1, 1, 1, 1)
		time.Sleep(10 * time.Second)
		r.Update(sick(5, 1))
		r.wantRamps("one that was out without a panic", 1, 1, .1, 1, 1)
		time.Sleep(5 * time.Second)
		r.Update(sick(5, 0, 1, 3))
		r.Update(sick(5, 0, 1))
		r.wantRamps("a panic in its slow start", 1, 1, .5, 1, 1)
		time.Sleep(20 * time.Second)
		r.Update(sick(5, 0, 1, 2))
		r.wantRamps("who was out for two slow starts", 1, 1, 1, 1, 1)
		r.Update(sick(5, 0, 1))
		time.Sleep(31 * time.Second)
		r.Update(sick(5, 0, 1, 2))
		r.wantRamps("who was out for three", .1, .1, 1, 1, 1)
		time.Sleep(time.Minute)

		r.getAt(0).Done(down)
		r.wantReady("n/1 n/2 n/3 n/4")
		time.Sleep(10 * time.Second)
		r.Update(append(sick(5, 1, 2, 3, 4), instance(5)))
		r.wantReady("n/0 n/1 n/2 n/3 n/4 n/5")
		r.getAt(0).Done(ok) // it was ejected
		r.wantRamps("one that nobody could connect to is well again, and a newcomer", .1, 1, 1, 1, 1, .1)
	})
	bubble(t, func(t *testing.T) { // there is nobody but newcomers
		r := newRig(t, nil)
		r.run()
		r.Update(instances(1))
		critical := func(i int) discovery.Instance {
			c := instance(i)
			c.Health = discovery.Critical
			return c
		}
		r.Update([]discovery.Instance{critical(1), critical(2)})
		r.wantReady("n/1 n/2")
		r.wantRamps("newcomers that are critical and needed", .5, .5)
		r.Update([]discovery.Instance{instance(1), critical(2)})
		r.wantReady("n/1")
	})
}

// TestSlowStartAfterACheck: an endpoint that an active check took out returns as any
// other; the first result of a check is no return.
func TestSlowStartAfterACheck(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, nil)
		r.run()
		r.Update(instances(3))
		r.SetCheck("n/0", CheckState{Known: true, Up: true})
		r.wantRamps("first results", 1, 1, 1)
		r.SetCheck("n/0", CheckState{Known: true})
		r.wantReady("n/1 n/2")
		time.Sleep(10 * time.Second)
		r.SetCheck("n/0", CheckState{Known: true, Up: true})
		r.wantRamps("up again", .1, 1, 1)
	})
}

// TestSlowStartOfStandbys: fallbacks and backups get no requests while they stand by,
// so they begin with a part when they come in beside others.
func TestSlowStartOfStandbys(t *testing.T) {
	for name, change := range map[string]func(*discovery.Instance){
		"fallback": func(i *discovery.Instance) { i.Tier = 1 },
		"backup":   func(i *discovery.Instance) { i.Backup = true },
	} {
		bubble(t, func(t *testing.T) {
			r := newRig(t, func(c *Config) { c.PanicThreshold, c.Failover.Return = 0, 0 })
			r.run()
			set := func(critical ...int) []discovery.Instance {
				set := sick(5, critical...)
				change(&set[3])
				change(&set[4])
				return set
			}
			r.Update(set())
			time.Sleep(time.Hour)
			r.wantReady("n/0 n/1 n/2")
			if name == "fallback" {
				r.Update(set(0, 1))
				r.wantReady("n/2 n/3 n/4")
				r.wantRamps(name+" beside what is left", 1, 1, 1, .25, .25) // half of the weight stays
				time.Sleep(4 * time.Second)
				r.wantRamps(name+" beside what is left", 1, 1, 1, .4, .4)
				r.Update(set())
				r.wantReady("n/0 n/1 n/2")
				time.Sleep(time.Hour)
			}
			r.Update(set(0, 1, 2))
			r.wantReady("n/3 n/4")
			r.wantRamps(name+" alone: all alike", 1, 1, 1, .5, .5)
			r.get().Done(ok)
			time.Sleep(12 * time.Second)
			r.wantRamps(name+" for long", 1, 1, 1, 1, 1)
		})
	}
}
