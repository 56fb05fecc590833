package balance

import (
	"fmt"
	"math"
	"time"

	"outrigger/breaker"
	"outrigger/discovery"
	"outrigger/picker"
)

// Tiers. A service has those of its sources (discovery.Instance.Tier: the primary
// and its fallbacks, see failover.go), and in each of them backups stand behind
// the others. An endpoint of a rank above 0 is used only when fewer endpoints of
// lower ranks take requests than are needed: one, or what Config.Failover says
// where there are fallbacks. The others are critical, in maintenance, draining,
// ejected, half-open or vetoed by the policy. Being at its limit does not count:
// a tier that is full queues and sheds, as HAProxy's does, for backups are often
// smaller or dearer, and overload must not spread to them. Then what is left of
// the lower ranks goes on serving beside it. Two exceptions:
//   - half-open endpoints of a lower rank go on getting their probes, or they
//     would never return;
//   - a request for which the ranks in use have nothing left but what it tried
//     already, or was ejected this moment, is given one of the next rank rather
//     than failed.
//
// All ranks count in the total of max_ejected_percent: a tier may be ejected as long as
// there are enough others to take over. For the panic threshold only those count that
// would serve, see panic.go.

// rank returns the rank that an instance belongs to.
func rank(inst *discovery.Instance) int {
	r := 2 * inst.Tier
	if inst.Backup {
		r++
	}
	return r
}

// choose makes the ready set and its picker from up: the endpoints that are not
// ejected, or all in a panic, when ranks do not count. It returns the set.
func (b *Balancer) choose(s *snapshot, up []*member, now time.Duration) []*picker.Endpoint {
	b.failover.any = hasFallbacks(b.order)
	var left []*member // who takes requests, of the ranks so far
	for s.tier = 0; !s.ignoring; {
		ready, above := tier(up, s.tier, left, now)
		if len(ready) == len(up) {
			break // nobody stands behind or was passed over
		}
		if len(ready) > 0 {
			b.unfade(ready, now)
			eps := b.build(s, ready, now)
			if left = s.serving(now); len(left) >= b.needed(s.tier/2) {
				s.standby = behind(up, s.tier)
				return b.settle(s, up, eps, now)
			}
			s.wakeForVetoes(now)
		}
		if above == 0 {
			break
		}
		s.tier = above
	}
	s.tier = math.MaxInt
	b.unfade(up, now)
	eps := b.build(s, up, now)
	if !s.anyTaking(now) {
		s.wakeForVetoes(now)
	}
	return b.settle(s, up, eps, now)
}

// wakeForVetoes has the next snapshot built when a veto runs out that makes this
// tier be passed over, or that makes the capacity breaker be open for want of
// anyone else: they end without notice when their reports expire.
func (s *snapshot) wakeForVetoes(now time.Duration) {
	for _, m := range s.ready {
		if l := m.ep.Load(); l != nil && l.Expires > now && s.spared(m, now) {
			s.due = sooner(s.due, l.Expires)
		}
	}
}

// build makes the snapshot's picker, over these, and returns their endpoints.
func (b *Balancer) build(s *snapshot, ready []*member, now time.Duration) []*picker.Endpoint {
	s.ready = ready
	b.align(ready)
	b.welcome(ready, now)
	eps := make([]*picker.Endpoint, len(ready))
	for i, m := range ready {
		eps[i] = m.ep
	}
	if picker.HoldRamps(eps, now) {
		s.due = sooner(s.due, now+b.step(ready, now))
	}
	s.use(b.policy.Build(eps))
	if s.refresher != nil {
		s.refresher.Refresh(now)
	}
	return eps
}

// sooner returns the earlier of two times, of which 0 is never.
func sooner(a, b time.Duration) time.Duration {
	if a == 0 || b != 0 && b < a {
		return b
	}
	return a
}

// tier returns the endpoints of up that are used when those of the rank at are
// the last that are needed, left being those of lower ranks that take requests,
// and the next higher rank that there is, 0 for none.
func tier(up []*member, at int, left []*member, now time.Duration) (ready []*member, above int) {
	for _, m := range up {
		stays := len(left) > 0 && left[0] == m // they are in up's order
		if stays {
			left = left[1:]
		}
		switch r := m.ep.Rank(); {
		case r > at:
			if above == 0 || r < above {
				above = r
			}
		case r == at, stays, m.br.State(now) == breaker.HalfOpen:
			ready = append(ready, m)
		}
	}
	return ready, above
}

// serving returns the endpoints that take requests, not only probes, in the
// order of the ready set.
func (s *snapshot) serving(now time.Duration) (list []*member) {
	for _, m := range s.ready {
		if m.br.State(now) == breaker.Closed && !s.spared(m, now) {
			list = append(list, m)
		}
	}
	return list
}

// spared reports whether m is left out as long as there are others, also of
// another tier: the policy's own veto of a closed port ends where all of a tier
// are closed.
func (s *snapshot) spared(m *member, now time.Duration) bool {
	if s.vetoer == nil {
		return false
	}
	l := m.ep.Load()
	return l != nil && now < l.Expires && !l.Listening || s.vetoes(m, now)
}

// behind returns the endpoints of a rank above at.
func behind(up []*member, at int) (list []*member) {
	for _, m := range up {
		if m.ep.Rank() > at {
			list = append(list, m)
		}
	}
	return list
}

// otherwise is none, but for a spare.
func (b *Balancer) otherwise(s *snapshot, k *Key, now time.Duration) (Lease, Reason, bool) {
	l, reason, ok := b.none(s, k, now)
	if !ok && reason == AllEjected {
		if m := b.spare(s, k, now); m != nil {
			if l, ok := b.reserve(s, m, k, now, 0); ok {
				return l, 0, true
			}
		}
	}
	return l, reason, ok
}

// spare returns an endpoint of the next rank behind those in use for a request
// that has tried all of them, or nil. Half-open ones are left to their tier's turn.
func (b *Balancer) spare(s *snapshot, k *Key, now time.Duration) (best *member) {
	if len(s.standby) == 0 {
		return nil
	}
	for _, m := range s.ready {
		if !k.Tried.Has(m.ep) && !s.vetoes(m, now) && m.br.State(now) != breaker.Open {
			return nil
		}
	}
	off := int(b.env.Rand(uint32(len(s.standby))))
	for i := range s.standby {
		m := s.standby[(off+i)%len(s.standby)]
		if (best == nil || m.ep.Rank() < best.ep.Rank()) &&
			m.br.State(now) == breaker.Closed && m.ep.HasRoom() && !k.Tried.Has(m.ep) && !s.vetoes(m, now) {
			best = m
		}
	}
	return best
}

// whyStandby says why an endpoint with nothing amiss is not ready, "" if it is.
func (s *snapshot) whyStandby(m *member) string {
	if m.ep.Rank() <= s.tier || m.ep.Fading() {
		return ""
	}
	switch inst := m.inst.Load(); {
	case inst.Tier > s.level:
		return fmt.Sprintf("fallback: %s has %d ready", s.levelName, s.inUse)
	case s.level > 0:
		return fmt.Sprintf("backup: %d of %s are ready", s.inUse, s.levelName)
	case s.inUse == 1:
		return "backup: 1 primary is ready"
	default:
		return fmt.Sprintf("backup: %d primaries are ready", s.inUse)
	}
}
