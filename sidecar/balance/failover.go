package balance

import (
	"fmt"
	"math"
	"slices"
	"time"

	"outrigger/breaker"
	"outrigger/picker"
)

// Failover. The tiers of a service's sources are used in their order, each only
// as far as those before it have too little (see tiers.go). When they have enough
// again, the fallback is left gradually: for Config.Failover.Return its endpoints
// stay ready and their share of the requests fades, while those that returned are
// in their slow start. A fall meanwhile ends the fade where it is.
//
// A fallback that is well is believed before a primary that is called sick: when all of
// the primary turns critical at once, as after a restart of its agent, the traffic
// moves to the fallback, for however short a time and however small the fallback is. So
// it has to be able to carry the load. A panic neither begins nor ends the use of a
// tier.

// failover is which tiers are in use. Under Balancer.mu.
type failover struct {
	any   bool          // there are fallbacks
	tier  int           // the last one that is needed
	since time.Duration // when that began
	count uint64        // how often a later one came to be needed
}

func hasFallbacks(order []*member) bool {
	return slices.ContainsFunc(order, func(m *member) bool { return m.inst.Load().Tier > 0 })
}

// needed returns how many endpoints have to take requests, of this tier and those
// before it, for the next one not to be used. Newcomers that are still starting (see
// panic.go) ask for nothing. The caller holds b.mu.
func (b *Balancer) needed(tier int) int {
	if !b.failover.any {
		return 1
	}
	need := b.cfg.Failover.Below
	if need < 1 {
		listed := 0
		for _, m := range b.order {
			inst := m.inst.Load()
			if inst.Tier == tier && !inst.Backup && m.counts {
				listed++
			}
		}
		need *= float64(listed)
	}
	const inexact = 1e-9 // 0.07 * 100 is above 7
	return max(1, int(math.Ceil(need-inexact)))
}

// settle notes which tier is in use, with the fades that a change of that begins
// and ends, and returns the endpoints of the ready set. The caller holds b.mu.
func (b *Balancer) settle(s *snapshot, up []*member, eps []*picker.Endpoint, now time.Duration) []*picker.Endpoint {
	f := &b.failover
	if f.since == 0 {
		f.since = now
	}
	s.inUse = len(s.ready)
	if f.any || f.tier > 0 {
		serving := s.serving(now)
		level := b.level(s, serving)
		if s.levelName = b.tierName(level); level != f.tier {
			b.tellTier(f.tier, level, serving)
			if level > f.tier {
				f.count++
			}
			f.tier, f.since = level, now
		}
		if ready := b.fade(s, up, level, now); len(ready) > s.inUse {
			s.standby = slices.DeleteFunc(s.standby, func(m *member) bool { return m.fadeEnd > 0 })
			eps = b.build(s, ready, now)
		}
	}
	s.level, s.levelSince, s.failovers = f.tier, f.since, f.count
	return eps
}

// level returns the last tier that is needed. When nobody takes requests, or in a
// panic, that is what it was: neither says anything of where it is better.
func (b *Balancer) level(s *snapshot, serving []*member) int {
	if s.ignoring || len(serving) == 0 {
		return b.failover.tier
	}
	if s.tier < math.MaxInt {
		return s.tier / 2
	}
	last := 0
	for _, m := range serving {
		last = max(last, m.inst.Load().Tier)
	}
	return last
}

// unfade ends the fades of endpoints that are needed again.
func (b *Balancer) unfade(needed []*member, now time.Duration) {
	for _, m := range needed {
		if m.fadeEnd > 0 {
			m.ep.EndFade(now, b.cfg.SlowStart)
			m.fadeEnd = 0
		}
	}
}

// fade begins the fades of endpoints that were used and are not needed any more,
// and returns the ready set with those that fade.
func (b *Balancer) fade(s *snapshot, up []*member, level int, now time.Duration) (ready []*member) {
	needed := s.ready
	for _, m := range b.order { // in whose order the others are
		is, isUp := len(needed) > 0 && needed[0] == m, len(up) > 0 && up[0] == m
		if is {
			needed = needed[1:]
		}
		if isUp {
			up = up[1:]
		}
		switch {
		case is:
			m.used = m.used || !s.ignoring // a panic uses all
			ready = append(ready, m)
		case isUp && m.used && m.inst.Load().Tier > level && b.fades(s, m, now):
			ready = append(ready, m)
		default:
			if m.fadeEnd > 0 {
				m.ep.SetFade(now, 0)
			}
			m.used, m.fadeEnd = false, 0
		}
	}
	return ready
}

// fades reports whether m is in its fade, which begins now if it has not yet.
func (b *Balancer) fades(s *snapshot, m *member, now time.Duration) bool {
	if m.br.State(now) != breaker.Closed || s.spared(m, now) {
		return false
	}
	if m.fadeEnd == 0 {
		m.fadeEnd = now + b.cfg.Failover.Return
		m.ep.SetFade(now, b.cfg.Failover.Return)
	}
	if now >= m.fadeEnd {
		return false
	}
	s.due = sooner(s.due, m.fadeEnd)
	return true
}

// step is the time to the next rebuild while endpoints of the ready set are in
// their slow start or fade.
func (b *Balancer) step(ready []*member, now time.Duration) time.Duration {
	step := time.Hour
	for _, m := range ready {
		if m.fadeEnd > 0 {
			step = min(step, max(100*time.Millisecond, b.cfg.Failover.Return/20))
		}
		if m.ep.RampAge(now) < 1 {
			step = min(step, b.cfg.rampStep())
		}
	}
	return step
}

// tierName is what messages call a tier.
func (b *Balancer) tierName(tier int) string {
	if tier == 0 {
		return "primary"
	}
	for _, m := range b.order {
		if inst := m.inst.Load(); inst.Tier == tier {
			return inst.Fallback()
		}
	}
	return fmt.Sprint("fallback ", tier) // all of it has left
}

// tellTier notes that another tier is in use. The caller holds b.mu.
func (b *Balancer) tellTier(from, to int, serving []*member) {
	ready := 0
	for _, m := range serving {
		if m.inst.Load().Tier < max(from, to) {
			ready++
		}
	}
	args := []any{"tier", b.tierName(to), "before", b.tierName(from), "ready", ready}
	if to < from {
		b.note(Event{Kind: "tier", Args: args, Message: fmt.Sprintf("%s suffices again: fallback %s is left within %s",
			b.tierName(to), b.tierName(from), b.cfg.Failover.Return)})
		return
	}
	need, who := b.needed(to-1), "primary has"
	if to > 1 {
		who = "the tiers before it have"
	}
	b.note(Event{Kind: "tier", Warn: true, Args: append(args, "needed", need), Message: fmt.Sprintf("%s %d ready, fewer than %d: using fallback %s",
		who, ready, need, b.tierName(to))})
}
