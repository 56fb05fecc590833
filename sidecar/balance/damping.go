package balance

import (
	"fmt"
	"maps"
	"time"

	"outrigger/breaker"
	"outrigger/discovery"
)

// Flap damping. An endpoint falls when Consul calls it critical, when its active
// check goes down and when it leaves the set, which is one fall where they follow
// one another. It returns when neither is so any more, and is then held back as
// breaker.DampConfig says. An ejection is no fall, for its time grows by itself, nor
// is maintenance or weight 0, which an operator sets.

// maxFlapped bounds how many endpoints are remembered that have left.
const maxFlapped = 4096

// follow counts the falls and returns since the last snapshot. The caller holds
// b.mu.
func (b *Balancer) follow(now time.Duration) {
	for _, m := range b.order {
		health := m.inst.Load().Health
		fallen := health == discovery.Critical || m.check.Load().down()
		if fallen == m.fallen || health == discovery.Maintenance {
			continue
		}
		m.fallen = fallen
		if fallen {
			m.fall(b.cfg.Damping, now)
		} else if f := m.flap.Load(); f != nil {
			b.rise(m, *f, now)
		}
	}
}

func (m *member) fall(c breaker.DampConfig, now time.Duration) {
	var f breaker.Flap
	if was := m.flap.Load(); was != nil {
		f = *was
	}
	f = c.Fall(f, now)
	m.flap.Store(&f)
}

// rise lets an endpoint in again, later if it fell often, and tells at the first
// time of a row.
func (b *Balancer) rise(m *member, was breaker.Flap, now time.Duration) {
	f := b.cfg.Damping.Rise(was, now, b.env.Rand)
	m.flap.Store(&f)
	if f.Damped && !was.Damped {
		b.note(Event{
			Kind:    "damped",
			Message: fmt.Sprintf("endpoint changes state too often: back in %.0f s", (f.Until - now).Seconds()),
			Args:    []any{"id", m.ep.ID, "changes", f.Falls},
		})
	}
}

// heir gives a member that joins the memory of the one with its ID before it, or
// nil if that one has left. The caller holds b.mu.
func (b *Balancer) heir(m, before *member, inst *discovery.Instance) {
	if before != nil { // at another address
		m.fallen = before.fallen
		m.flap.Store(before.flap.Load())
		return
	}
	m.fallen = inst.Health == discovery.Critical
	if f, ok := b.flapped[inst.ID]; ok {
		delete(b.flapped, inst.ID)
		m.fallen = true
		m.flap.Store(&f)
	}
}

// leaves counts a member's leaving as a fall and remembers it by its ID. The caller
// holds b.mu.
func (b *Balancer) leaves(m *member, now time.Duration) {
	if !m.fallen {
		m.fall(b.cfg.Damping, now)
	}
	b.forget(now)
	if len(b.flapped) < maxFlapped {
		if b.flapped == nil {
			b.flapped = map[string]breaker.Flap{}
		}
		if f := m.flap.Load(); f != nil {
			b.flapped[m.ep.ID] = *f
		}
	}
}

// forget drops those that left long ago, and where there are too many also those
// that fell but once: instances whose IDs never come again. It looks at all of them
// eight times in a half-life at most. The caller holds b.mu.
func (b *Balancer) forget(now time.Duration) {
	if now < b.forgetAt {
		return
	}
	b.forgetAt = now + b.cfg.Damping.HalfLife/8
	for _, least := range []float64{0.1, 1} {
		if least < 1 || len(b.flapped) >= maxFlapped*3/4 {
			maps.DeleteFunc(b.flapped, func(_ string, f breaker.Flap) bool { return b.cfg.Damping.Penalty(f, now) < least })
		}
	}
}
