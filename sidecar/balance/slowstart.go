package balance

import (
	"time"

	"outrigger/picker"
)

// rampStep is the time between two rebuilds while endpoints are in their slow
// start: a twentieth of it, as policies weigh at Build.
func (c *Config) rampStep() time.Duration { return max(100*time.Millisecond, c.SlowStart/20) }

// coldAfter is after how many slow starts without requests an endpoint is cold even
// to a panic.
const coldAfter = 3

// past is what an endpoint did when it last took requests like any other. Under
// Balancer.mu.
type past struct {
	served    bool          // it ever did
	ejections uint64        // until then
	share     float64       // of its weight that it had come to
	end       time.Duration // when it was over
	whole     bool          // an operator has taken it out since
}

// welcome begins the slow start of those of the ready set that take requests now and
// did not when the last snapshot was built: new ones, and those that return from
// whatever took them out, or come into use only now. Not of those in the first set,
// which have served others all along, nor of those that only a panic brings back
// soon: they are warm, and needed at once. Who served in a panic goes on as it is when
// that is over. The caller holds b.mu.
func (b *Balancer) welcome(ready []*member, now time.Duration) {
	length := b.cfg.SlowStart
	if length == 0 || !b.snap.Load().seen {
		return
	}
	for _, m := range ready {
		if m.taking || m.entry != full || m.reason != inService && m.past.served && now-m.past.end < coldAfter*length {
			continue
		}
		if share := m.warmth(now, length); share < 1 {
			m.ep.SetRamp(now-time.Duration(share*float64(length)), length)
		}
	}
}

// warmth is the share of its weight that an endpoint returns with: what it had when
// it went out, less what a slow start gains in the time that it was out, so that a
// blip costs next to nothing. Nothing where it failed (it was ejected) or was taken out
// by an operator, most likely to be restarted, or has been since (restarted).
func (m *member) warmth(now, length time.Duration) float64 {
	if p := &m.past; p.served && !p.whole && p.ejections == m.br.Ejections() {
		share := p.share - float64(now-p.end)/float64(length)
		return max(0, min(share, m.ep.RampAge(now)))
	}
	return 0
}

// took notes who takes requests by the snapshot. The caller holds b.mu.
func (b *Balancer) took(s *snapshot, now time.Duration) {
	ready := s.ready
	for _, m := range b.order { // in whose order ready is
		was := m.taking
		m.taking = len(ready) > 0 && ready[0] == m
		if m.taking {
			ready = ready[1:]
		}
		m.taking = m.taking && m.entry == full
		switch {
		case m.taking:
			m.past = past{served: true, ejections: m.br.Ejections(), share: min(m.ep.Ramp(now), m.ep.RampAge(now))}
		case was:
			m.past.end = now
			fallthrough
		default:
			m.past.whole = m.past.whole || !m.reason.listed()
		}
	}
}

// restarted begins the slow start of an endpoint whose agent's newest report
// tells of another process than the one before. Not anew in the first half of a
// slow start: an agent that tells of another with every report must not have the
// snapshot rebuilt for each, nor keep its endpoint at the least share for ever.
func (b *Balancer) restarted(m *member, old, l *picker.Load) {
	now := b.env.Now()
	if b.cfg.SlowStart == 0 || !l.Restarted(old) || m.ep.RampAge(now) < 0.5 {
		return
	}
	m.ep.SetRamp(now, b.cfg.SlowStart)
	b.post()
}
