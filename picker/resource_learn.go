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
	i, ok := p.at(e)
	if !ok {
		return 0
	}
	t := p.table.Load()
	return t.crowd(&t.rated[i], now) / float32(t.why[i].conc)
}

// Done implements Observer.
func (p *resourcePicker) Done(e *Endpoint, now time.Duration, sent float32, r Result) {
	if r.Budget > 0 && r.Outcome != Ignore && !p.table.Load().seeing {
		e.mind.aimd.observe(now, r.Age, r.Budget, e.inFlight.Load(), r.Outcome != Success)
	}
	switch r.Outcome {
	case Success:
		if r.FirstByte > 0 {
			crowd := float64(sent+p.Sent(e, now)) / 2
			e.mind.pace.observe(now, float64(r.FirstByte)/float64(time.Millisecond)/max(1, crowd))
		}
		e.mind.failures.observe(now, false)
	case Drop:
		e.ghosts.add(now, r.Age)
	case Failure:
		e.ghosts.add(now, r.Age)
		e.mind.failures.observe(now, true)
		p.urgent.Store(true)
	}
}

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

// Wait implements Forecaster, by PICKING.md's admission rule: g*b for each
// request more than the backend serves at once without slowing down. While
// fewer than half of the reports are fresh it goes by a limit of own requests,
// and beyond it foretells a wait without end.
func (p *resourcePicker) Wait(e *Endpoint, now time.Duration) time.Duration {
	i, ok := p.at(e)
	if !ok {
		return 0
	}
	t := p.table.Load()
	if !t.seeing {
		if float64(e.inFlight.Load()) >= e.mind.aimd.limit() {
			return math.MaxInt64
		}
		return 0
	}
	y := &t.why[i]
	over := (float64(t.crowd(&t.rated[i], now))+1)/y.conc - 1
	return time.Duration(t.pace * y.slowness * max(0, over) * float64(time.Millisecond))
}
