package picker

import (
	"math"
	"time"
)

// at returns the place of e in this picker, false if it was not built over it.
func (p *resourcePicker) at(e *Endpoint) (int, bool) {
	i := int(e.mind.place.Load())
	return i, i < len(p.slots) && p.slots[i].ep == e
}

// Sent implements Observer: the congestion that the request meets, in requests
// per one that the backend serves without slowing down.
func (p *resourcePicker) Sent(e *Endpoint, now time.Duration) float32 {
	p.policy.aimd.flying.Add(1)
	return p.congestion(e, now)
}

func (p *resourcePicker) congestion(e *Endpoint, now time.Duration) float32 {
	i, ok := p.at(e)
	if !ok {
		return 0
	}
	t := p.table.Load()
	return t.crowd(&t.rated[i], now) / float32(t.why[i].conc)
}

// Done implements Observer.
func (p *resourcePicker) Done(e *Endpoint, now time.Duration, sent float32, r Result) {
	defer p.policy.aimd.flying.Add(-1)
	if t := p.table.Load(); r.Budget > 0 && !t.seeing {
		took := r.FirstByte // the rest is up to the client
		if took == 0 {
			took = r.Age
		}
		late := took > tooLate(r.Budget, t.calm)
		if r.Outcome != Ignore || late { // who left early says nothing
			p.policy.aimd.observe(now, len(p.slots), late || r.Outcome == Failure || r.Outcome == Drop)
		}
	}
	switch r.Outcome {
	case Success:
		p.paced(e, now, sent, r.FirstByte, false)
		e.mind.failures.observe(now, false)
	case Drop:
		e.ghosts.add(now, r.Age)
	case Failure:
		e.ghosts.add(now, r.Age)
		e.mind.failures.observe(now, true)
		p.urgent.Store(true)
	case Ignore:
		if r.FirstByte == 0 { // an answer would have taken longer still
			p.paced(e, now, sent, r.Age, true)
		}
	}
}

// paced takes in how long the request took; least says that it would have
// taken longer, which is news only where e was held to be faster.
func (p *resourcePicker) paced(e *Endpoint, now time.Duration, sent float32, took time.Duration, least bool) {
	if took <= 0 {
		return
	}
	crowd, thread := float64(sent+p.congestion(e, now))/2, 1.0
	if i, ok := p.at(e); ok {
		// With less than a core C tells already how slow it is.
		thread = p.table.Load().why[i].thread
	}
	ms := float64(took) / float64(time.Millisecond) * thread / max(1, crowd)
	mean, _ := e.mind.pace.get(now)
	g := p.table.Load().pace
	if least {
		// Bounded, for the reason may have been another: a client that uploads
		// slowly, or one that waits for news.
		if ms = min(ms, paceLeastMost*g); ms <= mean {
			return
		}
	} else if g > 0 {
		ms = min(ms, paceMostMore*max(mean, g))
	}
	e.mind.pace.observe(now, ms)
}

const (
	// paceLeastMost is how many times the mean of all a request counts as at most
	// that its client gave up.
	paceLeastMost = 10
	// paceMostMore is how many times the means one answer counts as at most: a
	// single long poll is no slow backend, the second of a sleeper is one.
	paceMostMore = 30
)

// Reported implements Observer: e joins the freshest unless it is there.
func (p *resourcePicker) Reported(e *Endpoint, now time.Duration) {
	i, ok := p.at(e)
	if !ok {
		return
	}
	t := p.table.Load()
	if (t.rated[i].state == vetoed) != p.Vetoes(e, now) {
		p.urgent.Store(true)
	}
	for j := range p.ring {
		if p.ring[j].Load() == int32(i) {
			return
		}
	}
	p.ring[p.ringAt.Add(1)%ringSize].Store(int32(i))
}

// oldTable is after how many times its term a table is of another situation.
const oldTable = 10

// Wait implements Forecaster, by PICKING.md's admission rule: g*b for each
// request more than the backend serves at once without slowing down. While
// fewer than half have fresh answers to polls it goes by a limit of own requests,
// and beyond it foretells a wait without end wherever one asks.
func (p *resourcePicker) Wait(e *Endpoint, now time.Duration) time.Duration {
	i, ok := p.at(e)
	if !ok {
		return 0
	}
	t := p.table.Load()
	if !t.seeing {
		if p.policy.aimd.full(len(p.slots)) {
			return math.MaxInt64
		}
		return 0
	}
	y := &t.why[i]
	n := t.crowd(&t.rated[i], now)
	if now-t.at > oldTable*p.every() {
		// After a pause: what was expected then is over, what is reported is not.
		o, age, ok := othersOf(e.others.Load(), now)
		l := e.Load()
		if _, young := hearsay(l, age); !ok || !young || now >= l.Expires {
			return 0
		}
		n = own(e, now) + o
	}
	over := (float64(n)+1)/y.conc - 1
	ms := t.pace * y.slowness / y.thread * max(0, over)
	if !(ms < 1e9) { // also of absurd figures
		return math.MaxInt64
	}
	return time.Duration(ms * float64(time.Millisecond))
}
