package balance

import (
	"outrigger/breaker"
	"outrigger/discovery"
)

// eligible reports whether an instance may take requests but for its breaker.
func eligible(inst *discovery.Instance) bool {
	return inst.Weight > 0 && (inst.Health == discovery.Passing || inst.Health == discovery.Warning)
}

// rebuild makes a new snapshot. The caller holds b.mu, and lets waiters in
// after it has let go of it.
func (b *Balancer) rebuild() *snapshot {
	now := b.env.Now()
	s := &snapshot{all: b.order, byID: b.members, seen: b.snap.Load().seen || b.order != nil}
	var in, up []*member
	for _, m := range b.order {
		yes := eligible(m.inst.Load())
		m.br.SetEligible(yes)
		if yes {
			in = append(in, m)
		}
	}
	b.guard.SetTotal(len(in))
	closed := false
	for _, m := range in {
		switch m.br.State(now) {
		case breaker.Open:
			s.nextExpiry = sooner(s.nextExpiry, m.br.Until())
			continue
		case breaker.Closed:
			closed = true
		}
		up = append(up, m)
	}
	s.due = s.nextExpiry
	s.reason = AllEjected // what is left when a policy vetoes them all
	switch {
	case len(in) == 0:
		s.reason = NoBackends
	case !closed:
		// Nothing to lose by trying those that are ejected, and one probe at a
		// time is no service.
		up, s.ignoring = in, true
	}
	b.welcome(now)
	for _, m := range in {
		m.ep.SetLimit(b.limit(m, s.ignoring || m.br.State(now) == breaker.Closed))
	}
	eps := b.choose(s, up, now)
	s.byPin = b.pins(s.ready)
	if b.shadow != nil {
		s.shadow = newShadow(b.shadow.Build(eps))
		s.shadow.refresh(now)
	}
	b.snap.Store(s)
	if s.seen {
		b.capacity.SetReady(s.anyTaking(now))
	}
	return s
}

// limit is the endpoint's concurrency limit. From its ejection until it is in
// again there is room for one more than was there: the probe. So pickers pass
// over an endpoint whose probe is on its way. It only sinks meanwhile, for the
// probe itself must not make room for another.
func (b *Balancer) limit(m *member, in bool) int {
	if in {
		return b.cfg.MaxInFlight
	}
	one := m.ep.InFlight() + 1
	if was := m.ep.Limit(); was > 0 {
		return min(was, one)
	}
	return one
}
