package faults

import (
	"slices"
	"strings"
	"testing"
	"time"

	"outrigger/sidecar/balance"
	"outrigger/sidecar/h1"
)

// fault is what befalls connections to backends.
type fault struct {
	name   string
	toxics []toxic // none: the proxy is closed, and refuses connections
	// faithful: all bytes arrive in the end, so there is not one error.
	faithful bool
	// cuts: also connections that began during the fault may break off in the
	// middle of an answer. Else only what was on its way when it struck may.
	cuts bool
	// silent: the fault shows only by a time-out.
	silent  bool
	strikes int
	sick    []int // how many backends of three, in turn
}

var backendFaults = []fault{ // read-only
	{name: "latency", faithful: true, strikes: 1, sick: []int{1, 3}, toxics: []toxic{
		down("latency", map[string]int{"latency": 30, "jitter": 20}), up("latency", map[string]int{"latency": 10, "jitter": 10})}},
	{name: "bandwidth", faithful: true, strikes: 1, sick: []int{1, 3}, toxics: []toxic{
		down("bandwidth", map[string]int{"rate": 3000}), up("bandwidth", map[string]int{"rate": 1000})}},
	{name: "slow_close", faithful: true, strikes: 1, sick: []int{1, 3}, toxics: []toxic{
		down("slow_close", map[string]int{"delay": 100}), up("slow_close", map[string]int{"delay": 100})}},
	{name: "slicer", faithful: true, strikes: 1, sick: []int{1, 3}, toxics: []toxic{
		down("slicer", map[string]int{"average_size": 1000, "size_variation": 700, "delay": 20}),
		up("slicer", map[string]int{"average_size": 40, "size_variation": 30, "delay": 5})}},
	{name: "refused", strikes: 2, sick: []int{1, 2, 3}},
	{name: "reset_at_once", strikes: 1, sick: []int{1, 2, 3}, toxics: []toxic{down("reset_peer", map[string]int{"timeout": 0})}},
	{name: "reset_later", strikes: 1, sick: []int{1, 2, 3}, toxics: []toxic{down("reset_peer", map[string]int{"timeout": 50})}},
	{name: "reset_request", strikes: 2, sick: []int{1, 2, 3}, toxics: []toxic{up("reset_peer", map[string]int{"timeout": 0})}},
	{name: "timeout_and_close", strikes: 1, sick: []int{1, 2, 3}, toxics: []toxic{down("timeout", map[string]int{"timeout": 60})}},
	{name: "timeout_request", strikes: 1, sick: []int{1}, toxics: []toxic{up("timeout", map[string]int{"timeout": 60})}},
	{name: "timeout_for_ever", silent: true, strikes: 1, sick: []int{1, 3}, toxics: []toxic{down("timeout", map[string]int{"timeout": 0})}},
	{name: "cut_answer", cuts: true, strikes: 1, sick: []int{1, 2, 3}, toxics: []toxic{down("limit_data", map[string]int{"bytes": 100_000})}},
	{name: "cut_answer_by_reset", cuts: true, strikes: 1, sick: []int{1, 3}, toxics: []toxic{
		down("limit_data", map[string]int{"bytes": 70_000}), up("reset_peer", nil).dormant()}},
	{name: "cut_request", strikes: 1, sick: []int{1, 2, 3}, toxics: []toxic{up("limit_data", map[string]int{"bytes": 30_000})}},
}

// Backends fall ill under load, one, two, all, and get well again. Clients see
// what cannot be hidden from them, never a wrong or shortened answer, and
// afterwards nothing is left of it.
func TestBackendFaults(t *testing.T) {
	needToxiproxy(t)
	turn := 0
	for _, f := range backendFaults {
		for _, n := range f.sick {
			sick := []int{turn % 3, (turn + 1) % 3, (turn + 2) % 3}[:n]
			turn++
			t.Run(f.name+"_"+[]string{"one", "two", "all"}[n-1], func(t *testing.T) {
				newOutbreak(t, f, sick).run()
			})
		}
	}
}

// perFault is the least number of requests that end under a fault, unless each
// takes a time-out to end.
const perFault = 100

// outbreak is one fault befalling some of three backends.
type outbreak struct {
	*rig
	fault
	proxies []*proxy
	ill     []int
	l       *load
	before  balance.Status // when the fault struck first
	stats   h1.StatsSnapshot
}

func newOutbreak(t *testing.T, f fault, ill []int) *outbreak {
	o := &outbreak{fault: f, ill: ill}
	var addrs []string
	for _, b := range suite.backends {
		p := suite.toxic.proxy(t, b)
		o.proxies = append(o.proxies, p)
		addrs = append(addrs, p.addr)
	}
	o.rig = newRig(t, quick(), balancing(), addrs...)
	var more []kind
	if f.faithful {
		more = append(more, untilEOF)
	}
	o.stats = o.s.Stats()
	o.l = newLoad(t, o.addr, 0, more...)
	t.Cleanup(func() { o.l.end() })
	return o
}

func (o *outbreak) run() {
	o.await("all are well and in use", func() bool { return o.used(o.b.Status(), balance.Status{}, 2) })
	o.l.next()
	o.before = o.b.Status()
	for range o.strikes {
		last := o.b.Status()
		o.set(true)
		o.await("the fault is felt", func() bool {
			return o.felt(last) && (o.silent || o.l.now().sum("", "") >= perFault)
		})
		o.set(false)
	}
	start, ejections := time.Now(), o.ejections()
	o.l.clean.Store(0)
	o.await("all are well again", func() bool { return o.well() && o.l.clean.Load() >= 3*clients })
	recovery := time.Since(start)
	more := o.ejections() - ejections
	o.l.next()
	healthy := o.b.Status()
	o.await("all are in use again", func() bool { return o.used(o.b.Status(), healthy, 3) })
	stages := o.l.end()
	o.checkIdle()

	during := stages[1]
	o.t.Logf("during: %v; recovered within %v, %d more ejections", during, recovery.Round(time.Millisecond), more)
	for i, y := range []tally{stages[0], stages[2]} {
		if n := y.sum("", ok); n != y.sum("", "") {
			o.t.Errorf("without a fault (%s it): %v", []string{"before", "after"}[i], y)
		}
	}
	// A probe that was under way when the fault ended may fail, and no other.
	if most := uint64(len(o.ill)); more > most {
		o.t.Errorf("%d ejections after the end of the fault, want at most %d", more, most)
	}
	o.bounds(during)
	o.blame()
	o.reconcile(stages)
}

// set lets the ill fall ill, or get well.
func (o *outbreak) set(ill bool) {
	for _, i := range o.ill {
		p := o.proxies[i]
		switch {
		case len(o.toxics) == 0:
			p.enable(o.t, !ill)
		case ill:
			for _, x := range o.toxics {
				p.add(o.t, x)
			}
		default:
			for _, x := range slices.Backward(o.toxics) {
				p.remove(o.t, x)
			}
		}
	}
}

// felt reports whether each ill backend has been struck since then: it failed,
// or, where nothing fails, served under the fault for a while.
func (o *outbreak) felt(since balance.Status) bool {
	st := o.b.Status()
	for _, i := range o.ill {
		now, then := st.Endpoints[i].Totals, since.Endpoints[i].Totals
		if o.faithful && now.Successes-then.Successes < 15 || !o.faithful && now.Failures == then.Failures {
			return false
		}
	}
	return true
}

// used reports whether each backend has answered n requests since then.
func (o *outbreak) used(st, since balance.Status, n uint64) bool {
	for i, e := range st.Endpoints {
		had := uint64(0)
		if since.Endpoints != nil {
			had = since.Endpoints[i].Totals.Successes
		}
		if e.Totals.Successes-had < n {
			return false
		}
	}
	return true
}

func (o *outbreak) well() bool {
	st := o.b.Status()
	return st.Ready == len(o.ids) && !slices.ContainsFunc(st.Endpoints, func(e balance.EndpointStatus) bool { return e.Breaker != "closed" })
}

func (o *outbreak) ejections() (n uint64) {
	for _, e := range o.b.Status().Endpoints {
		n += e.Ejections
	}
	return n
}

// bounds holds what clients may see of a fault.
func (o *outbreak) bounds(y tally) {
	o.t.Helper()
	none := func(kind, what, why string) {
		o.t.Helper()
		if n := y.sum(kind, what); n > 0 {
			o.t.Errorf("%d times %q for %s: %s", n, what, kind, why)
		}
	}
	atMost := func(most int, kind, what, why string) {
		o.t.Helper()
		if n := y.sum(kind, what); n > most {
			o.t.Errorf("%d times %q for %s, want at most %d: %s", n, what, kind, most, why)
		}
	}
	none("", left, "no client leaves")
	if o.faithful {
		for e, n := range y {
			if e.what != ok {
				o.t.Errorf("%s %s: %d times, though not a byte was lost", e.kind, e.what, n)
			}
		}
		return
	}
	// At most one request of each client is on its way when a fault strikes.
	struck := clients * o.strikes
	if !o.cuts {
		atMost(struck, "", cut, "only what was on its way can be cut")
		atMost(struck, "", again, "only what was on its way can be cut")
	}
	if len(o.ill) == len(o.ids) {
		return // nobody is left who could help
	}
	none("", "503", "a backend is well")
	if o.silent {
		// With the fault toxiproxy ends the connections that had it: a 502 then.
		atMost(clients+o.probes(), "", "50", "three failures eject, then there are probes alone")
		none("GET", "502", "it may be sent again, and a backend is well")
		return
	}
	none("", "504", "nothing was silent for so long")
	none("GET", "502", "it may be sent again, and a backend is well")
	if len(o.toxics) == 0 {
		// A connection that is refused costs nobody anything; one that breaks
		// under a POST does.
		atMost(struck, "POST", "502", "only what was on its way can break")
	}
}

// probes is how many requests may have been spent on finding out whether the
// ill are well.
func (o *outbreak) probes() (n int) {
	for i, e := range o.b.Status().Endpoints {
		n += int(e.Ejections - o.before.Endpoints[i].Ejections)
	}
	return n
}

// blame holds that nobody fails but the ill.
func (o *outbreak) blame() {
	o.t.Helper()
	for i, e := range o.b.Status().Endpoints {
		if e.Totals.Failures > 0 && (o.faithful || !slices.Contains(o.ill, i)) {
			o.t.Errorf("%s was well, and is blamed: %+v", o.ids[i], e.Totals)
		}
	}
}

// reconcile holds that the server's books agree with what the clients saw, to
// the last request.
func (o *outbreak) reconcile(stages []tally) {
	o.t.Helper()
	var answered, broken, refused, requests int
	for _, y := range stages {
		answered += y.sum("", ok)
		broken += y.sum("", cut) + y.sum("", again)
		for e, n := range y {
			requests += n
			if strings.HasPrefix(e.what, "5") {
				refused += n
			}
		}
	}
	was, st := o.stats, o.s.Stats()
	if n := int(st.Passed[2] - was.Passed[2]); n != answered+broken {
		o.t.Errorf("%d answers passed on, but clients saw %d whole and %d cut", n, answered, broken)
	}
	if n := int(st.Aborted - was.Aborted); n != broken {
		o.t.Errorf("%d answers cut short, but clients saw %d", n, broken)
	}
	if n := int(st.Own[5] - was.Own[5]); n != refused {
		o.t.Errorf("%d answers of our own, but clients saw %d", n, refused)
	}
	if st.ClientErrors != was.ClientErrors || st.ClientGone != was.ClientGone || st.Own[4] != was.Own[4] {
		o.t.Errorf("clients are blamed: %+v", st)
	}
	if tries := o.b.Status().Requests; tries > 3*uint64(requests) {
		o.t.Errorf("%d tries for %d requests, want at most 3 for each", tries, requests)
	}
}
