package balance

import "time"

// Pin returns what a request must have as Key.Pin to be given the endpoint of
// this lease again: a hash of its instance's ID, the same in every sidecar. 0
// after Done.
func (l *Lease) Pin() uint64 {
	if l.m == nil {
		return 0
	}
	return l.m.pin
}

// pins returns the members by their pins, nil if nobody asks for them.
func (b *Balancer) pins(ready []*member) map[uint64]*member {
	if !b.cfg.Pins {
		return nil
	}
	byPin := make(map[uint64]*member, len(ready))
	for _, m := range ready {
		byPin[m.pin] = m
	}
	return byPin
}

// pinTo leases the endpoint that the request asks for, if it could have been
// picked: it is ready, has room and has not been tried, unless that was in vain
// for no fault of its own (Key.Again).
func (b *Balancer) pinTo(s *snapshot, k *Key, now time.Duration) (Lease, bool) {
	if k.Pin == 0 {
		return Lease{}, false
	}
	m := s.byPin[k.Pin]
	if m == nil || k.Tried.Has(m.ep) && !k.Again || s.vetoes(m, now) || s.tooLong(m.ep, b.maxWait(k, now), now) {
		return Lease{}, false
	}
	l, ok := b.reserve(s, m, k, now, howPinned)
	if ok {
		b.pinned.Add(1)
	}
	return l, ok
}
