package sidecar

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"outrigger/agentstats"
	"outrigger/discovery"
	"outrigger/picker"
	"outrigger/sidecar/balance"
)

// What was declared ends with its time, also beside a report that lasts.
func TestLoadsToldExpires(t *testing.T) {
	r := newLoadRig(t, DefaultORCAConfig())
	r.publishes(agentstats.Report{Cores: some(4), Avail: some(4), Epoch: "one"})
	began := r.now
	r.after(time.Second).says("TEXT rps_fractional:10,eps:9,named_metrics.in_flight:50")
	if l := r.ep.Load(); l.Err != 0.9 || l.InFlight != 50 || !l.Hearsay || l.Expires != r.now+3*time.Second {
		t.Errorf("declared: %+v", l)
	}
	r.after(3 * time.Second)
	if l := r.ep.Load(); l.Err != picker.Absent || l.InFlight != picker.Absent || l.Hearsay || l.Cores != 4 || l.Expires != began+90*time.Second {
		t.Errorf("3 s later: %+v", l)
	}
	if len(r.timers) != 0 {
		t.Errorf("%d timers are left", len(r.timers))
	}
}

// A figure that a poll brought is no hearsay, whatever was declared beside it.
func TestLoadsPolledIsNoHearsay(t *testing.T) {
	r := newLoadRig(t, DefaultORCAConfig())
	lacks := full(7)
	lacks.Err = agentstats.Opt[float64]{}
	r.polls(lacks)
	r.after(ms).says(orcaAll)
	if l := r.ep.Load(); l.Hearsay || l.InFlight != 7 || l.Err != 0.25 {
		t.Errorf("%+v", l)
	}
}

// What is published before discovery shows the instance counts from then on.
func TestLoadsPublishedEarly(t *testing.T) {
	r := newLoadRig(t, DefaultORCAConfig())
	set := []discovery.Instance{{ID: "a", Address: "10.0.0.1", Port: 80}}
	r.follow(nil)
	r.publishes(full(1))
	was := r.now
	r.after(time.Second).follow(set)
	r.want(func(l *picker.Load) {
		l.At, l.Expires, l.Cores, l.Avail, l.CPU, l.Mem, l.Conc, l.Err, l.Epoch = was, was+90*time.Second, 4, 3, 0.5, 0.6, 40, 0.01, "one"
	})
	if len(r.early) != 0 {
		t.Error("it is kept")
	}
	r.follow(nil)
	r.publishes(full(1))
	r.after(time.Second).publish("a", nil, true)
	r.follow(set)
	r.want(nil)
	// Only so many, of which the oldest goes.
	for i := range 2 * maxEarly {
		r.now += ms
		r.publish(fmt.Sprint("x", i), []byte("{}"), false)
	}
	if _, ok := r.early[fmt.Sprint("x", maxEarly)]; !ok || len(r.early) != maxEarly {
		t.Errorf("%d are kept, the oldest of the last %d: %v", len(r.early), maxEarly, ok)
	}
}

// An endpoint's own agent's reports count, in order.
func TestLoadsPublishedOfAnother(t *testing.T) {
	r := newLoadRig(t, DefaultORCAConfig())
	r.follow([]discovery.Instance{{ID: "n/a", Address: "10.0.0.1", Port: 80}})
	var got []float64
	r.env.Set = func(_ string, l *picker.Load) { got = append(got, l.Cores) }
	publish := func(instance string, at int64, cores float64) {
		v, err := agentstats.Encode(agentstats.Report{Version: 1, At: at, Instance: instance, Cores: some(cores)})
		if err != nil {
			t.Fatal(err)
		}
		r.publish("n/a", v, false)
	}
	publish("b", 1000, 0.1)
	publish("a", 1000, 0.2)
	publish("a", 900, 0.3)
	publish("", 1100, 0.4)
	r.after(replays)
	publish("a", 900, 0.5) // the clock was set back
	if want := []float64{0.2, 0.4, 0.5}; fmt.Sprint(got) != fmt.Sprint(want) || r.stats().PublishedRefused != 1 {
		t.Errorf("%v, want %v; %+v", got, want, r.stats())
	}
}

// What is logged of an untrusted value is one bounded line.
func TestLoadsComplainBriefly(t *testing.T) {
	for _, value := range []string{
		`{"version":1,"at":` + strings.Repeat("9", 16000) + `}`,
		`{"version":7,"at":-1,"in_flight":-1,"mem":9}`,
		"{\"version\":1,\"at\":1,\"epoch\":\"\\u001b[31m\\n\",\"in_flight\":-1,\"mem\":9}",
	} {
		r := newLoadRig(t, DefaultORCAConfig())
		r.publish("a", []byte(value), false)
		if s := r.log.String(); strings.Count(s, "\n") != 1 || len(s) > 4*maxComplaint || strings.ContainsAny(s, "\x1b") {
			t.Errorf("%.60s: %d bytes: %.600q", value, len(s), s)
		}
	}
}

// surge is a service of the policy resource in virtual time.
type surge struct {
	t   *testing.T
	b   *balance.Balancer
	s   *loads
	now time.Duration
	n   int
}

func newSurge(t *testing.T, n int, draw func(uint32) uint32) *surge {
	r := &surge{t: t, now: time.Second, n: n}
	env := balance.RealEnv(nil)
	env.Now, env.Wake = func() time.Duration { return r.now }, func() {}
	cfg := balance.DefaultConfig()
	cfg.Picker.Policy, cfg.Queue.Length = "resource", 0
	var err error
	if r.b, err = balance.New(cfg, env); err != nil {
		t.Fatal(err)
	}
	r.s = newLoads(DefaultORCAConfig(), loadsEnv{
		Now: env.Now, Rand: draw, InFlight: r.b.InFlight, Set: r.b.SetLoad, Published: 90 * time.Second,
		After: func(time.Duration, func()) {}, Log: hclog.NewNullLogger(),
	})
	var set []discovery.Instance
	for i := range n {
		set = append(set, discovery.Instance{ID: fmt.Sprint("n/", i), Address: "10.0.0.1", Port: 80 + i, Weight: 1, Health: discovery.Passing})
	}
	r.b.Update(set)
	r.s.follow(set)
	r.b.Tick()
	for range 200 { // learn the pace
		r.try()
		r.now += ms
		r.b.Tick()
	}
	return r
}

// try sends a request of 20 ms that has a second, and reports whether it is let in.
func (r *surge) try() bool {
	l, err := r.b.TryAcquire(balance.Key{Deadline: r.now + time.Second})
	if err != nil {
		return false
	}
	r.now += 20 * ms
	l.Done(picker.Result{Outcome: picker.Success, FirstByte: 20 * ms, Total: 20 * ms})
	return true
}

func (r *surge) publish(n float64) {
	for i := range r.n {
		v, err := agentstats.Encode(agentstats.Report{Version: 1, At: int64(r.now / ms), InFlight: some(n), Cores: some(2), Avail: some(2), Conc: some(2)})
		if err != nil {
			r.t.Fatal(err)
		}
		r.s.publish(fmt.Sprint("n/", i), v, false)
	}
}

func (r *surge) declare() {
	for i := range r.n {
		ep := &picker.Endpoint{ID: fmt.Sprint("n/", i), Addr: fmt.Sprint("10.0.0.1:", 80+i)}
		r.s.declare(ep, r.now, 0, []byte("TEXT named_metrics.in_flight:60"))
	}
}

// After a surge of which nobody polled, nobody is turned away by what was true then.
func TestLoadsAfterASurge(t *testing.T) {
	for name, feed := range map[string]func(*surge){
		"published": func(r *surge) { r.publish(60); r.publish(60) },
		"declared":  (*surge).declare,
	} {
		r := newSurge(t, 3, func(uint32) uint32 { return 0 })
		feed(r)
		at := r.now
		for _, d := range []time.Duration{0, time.Second, 2 * time.Second, 2900 * ms, 10 * time.Second, 89 * time.Second} {
			r.now = at + d
			r.b.Tick()
			r.now += 21 * ms
			r.b.Tick()
			for range 20 {
				if !r.try() {
					t.Fatalf("%s: refused %v after", name, d)
				}
			}
		}
	}
	for seed := range uint64(5) {
		r := newSurge(t, 10, rand.New(rand.NewPCG(seed, 1)).Uint32N)
		for range 12 {
			r.publish(60)
			r.now += 5 * time.Second
		}
		end, next := r.now, r.now
		for r.now < end+60*time.Second {
			if r.now >= next {
				r.publish(0)
				next = r.now + 30*time.Second
			}
			r.b.Tick()
			if !r.try() {
				t.Fatalf("seed %d: refused %v after the surge", seed, r.now-end)
			}
			r.now += 80 * ms
		}
	}
}
