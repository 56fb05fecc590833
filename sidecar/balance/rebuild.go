package balance

// rebuild makes a new snapshot. The caller holds b.mu, and lets waiters in and
// calls tell after it has let go of it.
func (b *Balancer) rebuild() *snapshot {
	now, was := b.env.Now(), b.snap.Load()
	s := &snapshot{all: b.order, byID: b.members, seen: was.seen || b.order != nil}
	b.follow(now)
	up := b.allow(s, now)
	s.due = sooner(s.due, s.nextExpiry)
	s.reason = AllEjected // what is left when a policy vetoes them all
	if len(up) == 0 {
		s.reason = NoBackends
	}
	b.tellPanic(was, s)
	for _, m := range b.order {
		if m.entry != shut || m.reason.judged() {
			m.ep.SetLimit(b.limit(m, m.entry == full))
		}
	}
	eps := b.choose(s, up, now)
	b.took(s, now)
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
