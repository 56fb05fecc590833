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
//
// When more than half of a source's endpoints fall at once, whatever judges them fell,
// as when Consul's agents restart: such falls are counted and forgiven.

// maxFlapped bounds how many endpoints are remembered that have left.
const maxFlapped = 4096

// At once is within massTime; massLeast endpoints are what it takes at least.
const (
	massTime  = time.Second
	massLeast = 3
	maxFalls  = 1 << 17 // remembered for massTime
)

// fall is an endpoint's first fall within massTime, and what was known before it.
type fall struct {
	at     time.Duration
	before breaker.Flap
	tier   int // of its source
}

// follow counts the falls and returns since the last snapshot. The caller holds
// b.mu.
func (b *Balancer) follow(now time.Duration) {
	var back []*member
	for _, m := range b.order {
		health := m.inst.Load().Health
		fallen := health == discovery.Critical || m.check.Load().down()
		if fallen == m.fallen || health == discovery.Maintenance {
			continue
		}
		if m.fallen = fallen; fallen {
			b.fall(m, now)
		} else if m.flap.Load() != nil {
			back = append(back, m)
		}
	}
	b.forgive(now)
	b.rise(back, now)
}

// fall counts a fall of m. The caller holds b.mu.
func (b *Balancer) fall(m *member, now time.Duration) {
	var f breaker.Flap
	if was := m.flap.Load(); was != nil {
		f = *was
	}
	if was, ok := b.falls[m.ep.ID]; (!ok || now >= was.at+massTime) && len(b.falls) < maxFalls {
		if b.falls == nil {
			b.falls = map[string]fall{}
		}
		b.falls[m.ep.ID] = fall{now, f, m.inst.Load().Tier}
	}
	f = b.cfg.Damping.Fall(f, now)
	m.flap.Store(&f)
}

// forgive looks where more than half fell at once, and forgives them. The caller
// holds b.mu.
func (b *Balancer) forgive(now time.Duration) {
	maps.DeleteFunc(b.falls, func(_ string, f fall) bool { return now >= f.at+massTime })
	if len(b.falls) < massLeast {
		return
	}
	fell, listed := map[int]int{}, map[int]int{} // by tier
	for _, m := range b.order {
		if inst := m.inst.Load(); inst.Health != discovery.Maintenance && inst.Weight > 0 {
			listed[inst.Tier]++
		}
	}
	for id, f := range b.falls {
		fell[f.tier]++
		if b.members[id] == nil {
			listed[f.tier]++ // it was
		}
	}
	for id, f := range b.falls {
		if n := fell[f.tier]; n < massLeast || 2*n <= listed[f.tier] {
			continue
		}
		if m := b.members[id]; m != nil {
			if is := m.flap.Load(); is != nil {
				is := is.Forgiven(f.before)
				m.flap.Store(&is)
			}
		} else if is, ok := b.flapped[id]; ok {
			b.flapped[id] = is.Forgiven(f.before)
		}
	}
}

// rise lets endpoints in again, later those that fell often, and tells at the first
// time of a row. The caller holds b.mu.
func (b *Balancer) rise(back []*member, now time.Duration) {
	var held []*member
	var least, most time.Duration
	for _, m := range back {
		was := *m.flap.Load()
		f := b.cfg.Damping.Rise(was, now, b.env.Rand)
		m.flap.Store(&f)
		if f.Damped && !was.Damped {
			hold := f.Until - now
			least, most = sooner(least, hold), max(most, hold)
			held = append(held, m)
		}
	}
	switch len(held) {
	case 0:
	case 1:
		b.note(Event{
			Kind:    "damped",
			Message: fmt.Sprintf("endpoint changes state too often: back in %.0f s", most.Seconds()),
			Args:    []any{"id", held[0].ep.ID, "falls_total", held[0].flap.Load().Falls},
		})
	default: // one line, however many
		b.note(Event{
			Kind:    "damped",
			Message: fmt.Sprintf("%d endpoints change state too often: back in %.0f to %.0f s", len(held), least.Seconds(), most.Seconds()),
			Args:    []any{"endpoints", len(held), "one", held[0].ep.ID},
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
		b.fall(m, now)
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
