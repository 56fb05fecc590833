package balance

import (
	"time"

	"outrigger/breaker"
	"outrigger/picker"
)

// rampStep is the time between two rebuilds while endpoints are in their slow
// start: a twentieth of it, as policies weigh at Build.
func (c *Config) rampStep() time.Duration { return max(100*time.Millisecond, c.SlowStart/20) }

// welcome begins the slow start of the endpoints that take requests now and did
// not when the last snapshot was built: new ones, and those that return from an
// ejection, from critical, maintenance or weight 0. Not of those in the first
// set, which have served others all along. The caller holds b.mu.
func (b *Balancer) welcome(now time.Duration) {
	seen := b.snap.Load().seen
	for _, m := range b.order {
		was := m.taking
		m.taking = eligible(m.inst.Load()) && m.br.State(now) == breaker.Closed
		if m.taking && !was && seen {
			m.ep.SetRamp(now, b.cfg.SlowStart)
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
