package sim

import (
	"math"
	"slices"
	"time"
)

// Run simulates one fleet. The error is Config.Validate's; the configuration
// is not changed. Runs share nothing and may go on concurrently.
func Run(cfg Config) (*Result, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	f, err := newFleet(&cfg)
	if err != nil {
		return nil, err
	}
	for f.step() {
	}
	return f.result(), nil
}

// changes returns when the rate of arrivals changes, from 0 on.
func changes(c *Config) []time.Duration {
	at := []time.Duration{0}
	for _, s := range c.Load.Surges {
		at = append(at, s.From, s.From+s.For)
	}
	slices.Sort(at)
	return slices.Compact(at)
}

// never is later than any event.
const never = time.Duration(math.MaxInt64)

// step lets the next thing happen; false at the end of the run. Of things at
// one time the order is fixed: what balancers asked for at once, answers and
// requests on the wire, reports, time-outs, the rest.
func (f *fleet) step() bool {
	if f.roused.n > 0 {
		f.tick(f.roused.pop())
		return true
	}
	at, from := never, -1
	look := func(n int, t time.Duration) {
		if t < at {
			at, from = t, n
		}
	}
	if f.wire.n > 0 {
		look(0, f.wire.first().at)
	}
	if f.answers.n > 0 {
		look(1, f.answers.first().at)
	}
	if f.patience.n > 0 {
		look(2, f.patience.first().at)
	}
	if f.queueing.n > 0 {
		look(3, f.queueing.first().at)
	}
	if len(f.heap) > 0 {
		look(4, f.heap[0].at)
	}
	if len(f.polls) > 0 {
		look(5, f.polls[0].at)
	}
	if from < 0 || f.stats.over(at) {
		return false
	}
	f.now = at
	f.events++
	f.stats.upTo(f, at)
	switch from {
	case 0:
		f.onWire(f.wire.pop())
	case 1:
		f.deliver(f.answers.pop())
	case 2:
		f.gaveUp(f.patience.pop())
	case 3:
		f.waitedOut(f.queueing.pop())
	case 4:
		f.happen(f.heap.pop())
	case 5:
		f.polled()
	}
	return true
}

// polled sends the first poll that is due.
func (f *fleet) polled() {
	e := &f.polls[0]
	if !f.machines[e.b].known { // it has left
		f.sidecars[e.a].asked[e.b] = false
		f.polls.pop()
		return
	}
	next := *e
	next.at = f.poll(e)
	f.polls.sink(next)
}

// onWire takes what has crossed the network.
func (f *fleet) onWire(e event) {
	switch e.kind {
	case evRequest:
		f.reaches(e.a)
	case evReply:
		f.replied(e)
	case evPoll:
		if l := f.report(&f.machines[e.b]); l != nil {
			f.answers.push(delivery{f.now + f.cfg.Network.Delay, e.a, e.b, e.c, l})
		}
	case evProbe:
		f.probe(e)
	case evProbed:
		f.probeBack(e)
	}
}

// happen takes an event of the heap.
func (f *fleet) happen(e event) {
	switch e.kind {
	case evArrival:
		f.arrive()
		f.newRequest()
	case evReturn:
		f.ask(f.requests[e.a])
	case evTick:
		if s := &f.sidecars[e.a]; s.tickAt == e.at {
			s.tickAt = 0
			f.tick(e.a)
		}
	case evDone:
		f.finished(e.a, e.b)
	case evComputes:
		f.computes(e.a)
	case evNeighbour:
		m := &f.machines[e.a]
		m.advance(f.now)
		f.heap.push(event{at: m.burst(f.now), kind: evNeighbour, a: e.a})
		f.retime(m)
	case evAgent:
		m := &f.machines[e.a]
		m.advance(f.now)
		m.sample(f.now)
		f.heap.push(event{at: f.now + f.cfg.Agents.Span, kind: evAgent, a: e.a})
		if m.Cold.Slow > 1 {
			f.retime(m) // it has warmed meanwhile
		}
	case evPush:
		f.broadcast(e)
	case evRestart:
		f.restart(&f.machines[e.a])
	case evMembers:
		f.members()
	}
}

// broadcast has a backend's agent push, and again later while it is there.
func (f *fleet) broadcast(e event) {
	m := &f.machines[e.a]
	if m.known {
		f.push(m)
	}
	spread := f.cfg.Agents.Jitter * (2*f.reports.Float64() - 1)
	f.heap.push(event{at: f.now + time.Duration(float64(f.interval)*(1+spread)), kind: evPush, a: e.a})
}
