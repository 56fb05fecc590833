package sidecar

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"outrigger/agentstats"
	"outrigger/discovery"
	"outrigger/picker"
)

const ms = time.Millisecond

// loadRig is loads in virtual time, with what they tell a balancer.
type loadRig struct {
	*loads
	t    *testing.T
	now  time.Duration
	own  int64
	draw uint32 // what chance says
	set  []picker.Load
	// unasked is the last one's Load.Unasked, which set leaves out.
	unasked bool
	log     bytes.Buffer
	ep      *picker.Endpoint
	timers  []timer
}

type timer struct {
	at time.Duration
	f  func()
}

func newLoadRig(t *testing.T, cfg ORCAConfig) *loadRig {
	t.Helper()
	r := &loadRig{t: t, now: time.Second, draw: 1}
	r.loads = newLoads(cfg, loadsEnv{
		Now: func() time.Duration { return r.now }, Rand: func(n uint32) uint32 { return r.draw % n },
		InFlight:  func(string) int64 { return r.own },
		Published: 90 * time.Second,
		After:     func(d time.Duration, f func()) { r.timers = append(r.timers, timer{r.now + d, f}) },
		Set: func(id string, l *picker.Load) {
			if id != "a" {
				t.Errorf("the balancer is told of %q", id)
			}
			plain := *l
			plain.Unasked, plain.Hearsay = false, false
			r.set, r.unasked = append(r.set, plain), l.Unasked
			r.ep.SetLoad(l)
		},
		Log: hclog.New(&hclog.LoggerOptions{Output: &r.log}),
	})
	inst := discovery.Instance{ID: "a", Address: "10.0.0.1", Port: 80}
	r.ep = picker.NewEndpoint("a", inst.HostPort(), 1, 0, nil)
	r.follow([]discovery.Instance{inst})
	return r
}

// after lets time pass and forgets what the balancer was told until then.
func (r *loadRig) after(d time.Duration) *loadRig {
	until := r.now + d
	for len(r.timers) > 0 && r.timers[0].at <= until { // one endpoint has one at a time
		x := r.timers[0]
		r.timers, r.now = r.timers[1:], x.at
		x.f()
	}
	r.now, r.set = until, nil
	return r
}

func (r *loadRig) says(value string) { r.declare(r.ep, r.now, int(r.own), []byte(value)) }

// polls hands over the answer to a poll that took no time, good for 1.5 s.
func (r *loadRig) polls(rep agentstats.Report) {
	rep.At = int64(r.now / ms)
	r.poll("a", agentstats.Sample{Report: rep, At: r.now, OwnInFlight: r.own, Expiry: 1500 * ms})
}

func (r *loadRig) publishes(rep agentstats.Report) {
	r.t.Helper()
	rep.Version = agentstats.Version
	if rep.At == 0 {
		rep.At = int64(r.now / ms)
	}
	b, err := agentstats.Encode(rep)
	if err != nil {
		r.t.Fatal(err)
	}
	r.publish("a", b, false)
}

// want holds that the balancer was told this once, or with nil nothing.
func (r *loadRig) want(change func(*picker.Load)) {
	r.t.Helper()
	if change == nil {
		if len(r.set) != 0 {
			r.t.Errorf("at %v the balancer was told %+v, want nothing", r.now, r.set)
		}
		return
	}
	l := picker.Load{
		At: r.now, InFlight: picker.Absent, Cores: picker.Absent, Avail: picker.Absent, CPU: picker.Absent,
		Mem: picker.Absent, Conc: picker.Absent, Err: picker.Absent, Listening: true,
	}
	change(&l)
	if len(r.set) != 1 || r.set[0] != l {
		r.t.Errorf("at %v the balancer was told\n%+v, want\n%+v", r.now, r.set, l)
	}
}

func some(v float64) agentstats.Opt[float64] { return agentstats.Some(v) }

// full is a report with all that a policy knows.
func full(inFlight float64) agentstats.Report {
	return agentstats.Report{
		InFlight: some(inFlight), Cores: some(4), Avail: some(3), CPU: some(0.5), Mem: some(0.6), Conc: some(40), Err: some(0.01),
		Epoch: "one", Listening: agentstats.Some(true),
	}
}

const orcaAll = "TEXT cpu_utilization:1.5, mem_utilization:0.97, rps_fractional:100, eps:25, named_metrics.in_flight:9"

func TestLoadsOfAgentsAlone(t *testing.T) {
	r := newLoadRig(t, DefaultORCAConfig())
	r.own = 3
	r.polls(full(7))
	r.want(func(l *picker.Load) {
		*l = picker.Load{At: r.now, Expires: r.now + 1500*ms, InFlight: 7, OwnInFlight: 3, Cores: 4, Avail: 3, CPU: 0.5, Mem: 0.6,
			Conc: 40, Err: 0.01, Epoch: "one", Listening: true}
	})
	r.after(500 * ms).polls(agentstats.Report{Listening: agentstats.Some(false)})
	r.want(func(l *picker.Load) { l.Expires, l.OwnInFlight, l.Listening, l.Epoch = r.now+1500*ms, 3, false, "one" })
}

// Without an agent, what the app declares is all there is.
func TestLoadsOfORCAAlone(t *testing.T) {
	r := newLoadRig(t, DefaultORCAConfig())
	r.own = 2
	r.says(orcaAll)
	r.want(func(l *picker.Load) {
		l.Expires, l.InFlight, l.OwnInFlight, l.CPU, l.Err = r.now+3*time.Second, 9, 2, 1, 0.25
	})
	for name, value := range map[string]string{
		"nothing": "TEXT", "CPU, which no policy heeds": "TEXT cpu_utilization:0.5", "others": "TEXT named_metrics.x:1",
		"memory, of which we do not know the limit": "TEXT mem_utilization:1",
	} {
		r := newLoadRig(t, DefaultORCAConfig())
		r.says(value)
		if r.want(nil); t.Failed() {
			t.Fatal(name)
		}
	}
	cfg := DefaultORCAConfig()
	cfg.Memory, cfg.InFlight, cfg.Expiry = true, "busy", time.Second
	r = newLoadRig(t, cfg)
	r.says("TEXT mem_utilization:0.9,named_metrics.in_flight:1")
	r.want(func(l *picker.Load) { l.Expires, l.Mem = r.now+time.Second, 0.9 })
	r.after(ms).says(`JSON {"named_metrics":{"busy":4}}`)
	r.want(func(l *picker.Load) { l.Expires, l.InFlight = r.now+time.Second, 4 })
}

// What an agent tells stands; what it leaves out is filled in for as long as it
// is true.
func TestLoadsFillWhatAnAgentLacks(t *testing.T) {
	r := newLoadRig(t, DefaultORCAConfig())
	r.polls(full(7))
	if r.unasked {
		t.Error("an answer to a poll does not count among the freshest reports")
	}
	r.after(100 * ms).says(orcaAll)
	r.want(nil) // the agent knows better

	lacks := full(0)
	lacks.InFlight, lacks.CPU, lacks.Mem, lacks.Err = agentstats.Opt[float64]{}, agentstats.Opt[float64]{}, agentstats.Opt[float64]{}, agentstats.Opt[float64]{}
	base := func(l *picker.Load) { l.Cores, l.Avail, l.Conc, l.Epoch = 4, 3, 40, "one" }
	said := r.now
	r.after(100 * ms).polls(lacks)
	expires := r.now + 1500*ms
	r.want(func(l *picker.Load) {
		base(l)
		l.At, l.Expires, l.InFlight, l.CPU, l.Err = said, expires, 9, 1, 0.25 // dated as the in-flight is
	})
	r.after(50 * ms)
	r.own = 5
	r.says("TEXT named_metrics.in_flight:12")
	r.want(func(l *picker.Load) {
		base(l)
		l.Expires, l.InFlight, l.OwnInFlight = expires, 12, 5 // until the agent's report expires
	})
	for range 6 { // until what was declared has expired
		r.after(499 * ms).polls(lacks)
	}
	r.want(nil) // it still holds, and until then
	if l := r.ep.Load(); l.InFlight != 12 || l.Expires != r.now-6*499*ms+3*time.Second {
		t.Errorf("%+v", l)
	}
	r.after(6 * ms)
	if l := r.ep.Load(); l.InFlight != picker.Absent || l.Expires != r.now-6*ms+1500*ms {
		t.Errorf("after what was declared: %+v", l)
	}
	r.after(499 * ms).polls(lacks)
	r.want(func(l *picker.Load) { base(l); l.Expires, l.OwnInFlight = r.now+1500*ms, 5 })
}

// An agent that falls silent leaves what does not change, and the epoch: its
// return is no restart, that of another process is.
func TestLoadsOutliveTheAgent(t *testing.T) {
	r := newLoadRig(t, DefaultORCAConfig())
	r.polls(full(7))
	was := r.ep.Load()
	r.after(1500 * ms).says("TEXT named_metrics.in_flight:3")
	r.want(func(l *picker.Load) {
		l.Expires, l.InFlight, l.Cores, l.Conc, l.Epoch = r.now+3*time.Second, 3, 4, 40, "one"
	})
	now := r.ep.Load()
	if now.Restarted(was) {
		t.Error("silence is a restart")
	}
	r.after(100 * ms).polls(full(8))
	if r.ep.Load().Restarted(now) {
		t.Error("the agent's return is a restart")
	}
	r.after(1500 * ms).says("TEXT named_metrics.in_flight:3")
	was = r.ep.Load()
	second := full(1)
	second.Epoch, second.InFlight = "two", agentstats.Opt[float64]{}
	r.after(100 * ms).polls(second)
	if now := r.ep.Load(); !now.Restarted(was) || now.InFlight != picker.Absent {
		t.Errorf("another process: %+v after %+v", now, was)
	}
}

// In-flight of a broadcast is adopted one time in ten and kept in between; the
// other figures count each time.
func TestLoadsOfPublishedReports(t *testing.T) {
	r := newLoadRig(t, DefaultORCAConfig())
	base := func(l *picker.Load) {
		l.Expires, l.Cores, l.Avail, l.CPU, l.Mem, l.Conc, l.Err, l.Epoch = r.now+90*time.Second, 4, 3, 0.5, 0.6, 40, 0.01, "one"
	}
	r.publishes(full(7))
	if !r.unasked {
		t.Error("a broadcast counts among the freshest reports")
	}
	r.want(base)
	r.draw, r.own = 10, 2
	r.after(time.Second).publishes(full(8))
	adopted := r.now
	r.want(func(l *picker.Load) { base(l); l.InFlight, l.OwnInFlight = 8, 2 })
	r.draw, r.own = 3, 4
	r.after(30 * time.Second).publishes(full(9))
	r.want(func(l *picker.Load) { base(l); l.At, l.InFlight, l.OwnInFlight = adopted, 8, 2 })
	// What the app declares is younger.
	r.after(time.Second).says("TEXT named_metrics.in_flight:1")
	r.want(func(l *picker.Load) { base(l); l.Expires = r.now + 3*time.Second; l.InFlight, l.OwnInFlight = 1, 4 })
	r.after(60 * time.Second).publishes(full(9)) // the adopted one has expired
	r.want(base)
	// A poll counts before it.
	r.after(time.Second).polls(full(3))
	r.after(ms).publishes(full(4))
	r.want(nil)
	r.after(1500 * ms).publishes(full(5))
	r.want(base)
}

func TestLoadsForgetWhatIsNotPublishedAnyMore(t *testing.T) {
	r := newLoadRig(t, DefaultORCAConfig())
	r.publishes(full(7))
	was := r.now
	r.after(time.Second).publish("a", nil, true)
	r.want(func(l *picker.Load) {
		l.At, l.Expires, l.Cores, l.Avail, l.CPU, l.Mem, l.Conc, l.Err, l.Epoch = was, r.now, 4, 3, 0.5, 0.6, 40, 0.01, "one"
	})
	r.after(time.Second).publish("a", nil, true)
	r.want(nil)
	r.after(ms).polls(full(3))
	r.after(ms).publishes(full(7))
	r.after(ms).publish("a", nil, true)
	r.want(nil)
}

// A published report of before is none of another process.
func TestLoadsKnowOldReports(t *testing.T) {
	r := newLoadRig(t, DefaultORCAConfig())
	old, second := full(7), full(8)
	old.At, second.Epoch = int64(r.now/ms), "two"
	r.polls(full(7))
	r.after(100 * ms).publishes(old)
	r.after(900 * ms).polls(second)
	was := r.ep.Load()
	r.after(1600 * ms).publishes(old)
	r.want(nil)
	r.says("TEXT named_metrics.in_flight:1") // which has a picture made
	if l := r.ep.Load(); l.Restarted(was) || l.Epoch != "two" {
		t.Errorf("%+v after %+v", l, was)
	}
	// The agent's clock went back an hour, and polls do not get through.
	r.after(2 * time.Minute).publishes(old)
	if len(r.set) != 1 {
		t.Error("an agent whose clock was set back is silenced")
	}
}

// Garbage costs a line and counts, and changes nothing.
func TestLoadsOfGarbage(t *testing.T) {
	r := newLoadRig(t, DefaultORCAConfig())
	for range 5 {
		r.says("TEXT named_metrics.in_flight:-1")
		r.says("\x00<script>")
		r.publish("a", []byte(`{"version":1,"at":1,"in_flight":-1}`), false)
		r.publish("a", nil, false)
	}
	r.want(nil)
	if got := r.stats(); got != (loadStats{DeclaredRefused: 10, PublishedRefused: 10}) {
		t.Errorf("%+v", got)
	}
	if n := strings.Count(r.log.String(), "\n"); n != 2 || !strings.Contains(r.log.String(), "outside 0 to") || !strings.Contains(r.log.String(), "published") {
		t.Errorf("log:\n%s", &r.log)
	}
	r.says(orcaAll)
	if len(r.set) != 1 || r.stats().Declared != 1 {
		t.Error("after garbage nothing is believed")
	}
}

// What leaves is forgotten, what moves begins anew.
func TestLoadsFollowTheSet(t *testing.T) {
	r := newLoadRig(t, DefaultORCAConfig())
	r.polls(full(7))
	was, leaving := r.ep, r.byID["a"]
	r.follow([]discovery.Instance{{ID: "a", Address: "10.0.0.1", Port: 80, Weight: 5}})
	if r.byID["a"] != leaving {
		t.Error("an endpoint that stays is forgotten")
	}
	moved := discovery.Instance{ID: "a", Address: "10.0.0.1", Port: 81}
	r.follow([]discovery.Instance{moved, {ID: "a", Address: "10.0.0.9"}})
	r.after(ms).says(orcaAll)
	r.want(nil) // a late answer from where it was
	r.ep = picker.NewEndpoint("a", moved.HostPort(), 1, 0, nil)
	r.after(1500 * ms).says("TEXT named_metrics.in_flight:3")
	r.want(func(l *picker.Load) { l.Expires, l.InFlight = r.now+3*time.Second, 3 }) // no cores, no epoch of before

	r.follow(nil)
	r.after(ms).says(orcaAll)
	r.polls(full(1))
	r.publishes(full(1))
	r.publish("a", nil, true)
	r.want(nil)
	// Somebody had looked it up just before.
	r.byID["a"] = leaving
	r.polls(full(1))
	r.want(nil)
	if was.Load() == nil {
		t.Error("what was told before has vanished")
	}
}
