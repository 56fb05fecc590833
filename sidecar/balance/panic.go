package balance

import (
	"time"

	"outrigger/breaker"
)

// Panic: Consul, check, ejection and damping are ignored when they leave too few of
// the endpoints that would serve. Those are, of each tier of sources, the primaries
// if any is well, else the backups if any is well; well is who gets a yes from all
// four and did not refuse the last connection. It is a panic when
//   - fewer than Config.PanicThreshold of the first tier's are well, and
//   - no tier has what Config.Failover asks for, with those before it, or is well as
//     a whole. Without fallbacks there is no other tier to look for it.
//
// So the ill health of what stands behind never matters, and a backup or a fallback
// that does the work leaves nothing to panic for, however small it is.
//
// It lets in all that count, with these exceptions:
//   - Who refused the last connection, or let it time out, is left out as long as there
//     are others: a status may lie, a refused connection cannot (envoy #14968).
//   - Who fails under the panic's own traffic is ejected as ever, within
//     max_ejected_percent. Only ejections from before are ignored.
//   - Newcomers do not count: who joined after the first set (of the sidecar's start, or
//     of its snapshot file) and has not been passing and up since is most likely
//     starting. They come in only when all others are out and refuse connections, and
//     count only when there are no others at all. (Envoy's
//     ignore_new_hosts_until_first_hc.)
//
// It ends when there have been enough for calm, so that those that return one after
// the other do not turn it off and on, or at once when nobody is out.

// calm is long enough for a row of returns, and short beside a slow start.
const calm = time.Second

// share is how many endpoints there are to be well, and how many are.
type share struct{ listed, well int }

// panicking decides whether health is ignored. The caller holds b.mu.
func (b *Balancer) panicking(s *snapshot, now time.Duration) bool {
	b.failover.any = hasFallbacks(b.order)
	out := b.anyOut()
	few, was := b.few(s, now, out) && out, b.snap.Load().ignoring
	b.guard.SetPanic(few || was)
	if few && !was {
		for _, m := range b.order {
			m.ejections = m.br.Ejections()
		}
	}
	if few || !was || !out {
		b.calmAt = 0
		return few
	}
	if b.calmAt == 0 {
		b.calmAt = now + calm
	}
	if now >= b.calmAt {
		b.calmAt = 0
		return false
	}
	s.due = sooner(s.due, b.calmAt)
	return true
}

// anyOut reports whether there is anybody whom a panic might let in.
func (b *Balancer) anyOut() bool {
	for _, m := range b.order {
		if m.counts && m.reason != inService && b.inPanic(m.reason) {
			return true
		}
	}
	return false
}

// few reports whether too few are well. s.healthy and s.listed become those that
// decided it. Who refuses connections is asked for only if somebody is out:
// breakers then tell when it is over.
func (b *Balancer) few(s *snapshot, now time.Duration, out bool) bool {
	var ranks []share // two of each tier
	for _, m := range b.order {
		if !m.counts {
			continue
		}
		r := max(0, m.ep.Rank())
		for len(ranks) <= r {
			ranks = append(ranks, share{}, share{})
		}
		ranks[r].listed++
		if m.reason != inService {
			continue
		}
		if out {
			if _, refuses := m.unreachable(now); refuses {
				continue
			}
		}
		ranks[r].well++
	}
	if b.cfg.PanicThreshold == 0 {
		for _, r := range ranks {
			s.healthy, s.listed = s.healthy+r.well, s.listed+r.listed
		}
		// Nothing to lose by trying those that are ejected, and one probe at a
		// time is no service.
		return s.healthy == 0
	}
	for tier := range len(ranks) / 2 {
		of := serving(ranks[2*tier], ranks[2*tier+1])
		s.healthy, s.listed = s.healthy+of.well, s.listed+of.listed
		switch {
		case of.well == 0: // it is no help
		case of.well == of.listed, tier == 0 && b.cfg.suffices(of), b.failover.any && s.healthy >= b.needed(tier):
			return false
		}
	}
	return true
}

// serving returns those of a tier that would serve.
func serving(primaries, backups share) share {
	switch {
	case primaries.well > 0:
		return primaries
	case backups.well > 0:
		return backups
	}
	return share{listed: primaries.listed + backups.listed}
}

func (c *Config) suffices(of share) bool {
	const inexact = 1e-9 // 0.07 * 100 is above 7
	return float64(of.well) >= c.PanicThreshold*float64(of.listed)-inexact
}

// inPanic reports whether a panic ignores what takes an endpoint out.
func (b *Balancer) inPanic(o outReason) bool {
	if b.cfg.PanicThreshold == 0 {
		return o <= damped
	}
	return o.listed()
}

// panicEntry is how a panic takes m in while there are others.
func (m *member) panicEntry(s *snapshot, now time.Duration) entry {
	if m.failedInPanic(now) {
		if m.br.State(now) == breaker.HalfOpen {
			return oneByOne
		}
		s.nextExpiry = sooner(s.nextExpiry, m.br.Until())
		return shut
	}
	again, yes := m.unreachable(now)
	switch {
	case !yes:
		return full
	case m.reason == inService, m.reason == halfOpen:
		return oneByOne
	case m.reason == ejected: // it will have its probe
		return shut
	case again <= now:
		return oneByOne
	}
	s.due = sooner(s.due, again)
	return shut
}

// failedInPanic reports whether m is ejected for what it did in this panic.
func (m *member) failedInPanic(now time.Duration) bool {
	return m.br.Ejections() > m.ejections && m.br.State(now) != breaker.Closed
}

// lastResort lets in others where a panic has nobody whole: newcomers that can be
// reached if all others are out, else all that count.
func (b *Balancer) lastResort(now time.Duration) {
	out := true
	for _, m := range b.order {
		if m.entry == full {
			return
		}
		out = out && !(m.counts && m.reason == inService)
	}
	found := false
	for _, m := range b.order {
		if !out || m.counts || !b.inPanic(m.reason) || m.failedInPanic(now) {
			continue
		}
		if _, refuses := m.unreachable(now); !refuses {
			m.entry, found = full, true
		}
	}
	for _, m := range b.order {
		if !found && m.counts && b.inPanic(m.reason) {
			m.entry = full
		}
	}
}

// unreachable reports whether nobody could connect at the last try, and when to
// try again. The later of a check and a request has the word.
func (m *member) unreachable(now time.Duration) (again time.Duration, yes bool) {
	c := m.check.Load()
	if c.down() && c.Unreachable && m.ep.Totals().Successes == c.successes {
		return now + time.Hour, true // the check tries by itself, and tells
	}
	return m.br.Unreachable()
}

// ignores reports whether health is ignored for m: there is a panic, and m is not
// one of those that are left out of it.
func (s *snapshot) ignores(m *member) bool {
	if !s.ignoring {
		return false
	}
	_, held := s.strict[m]
	return !held
}

// admits reports whether a ready endpoint takes requests now: it may have been
// ejected since the snapshot.
func (s *snapshot) admits(m *member, now time.Duration) bool {
	return m.br.State(now) != breaker.Open || s.ignores(m)
}
