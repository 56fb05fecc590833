package balance

import (
	"time"

	"outrigger/picker"
)

// rampStep is the time between two rebuilds while endpoints are in their slow
// start: a twentieth of it, as policies weigh at Build.
func (c *Config) rampStep() time.Duration { return max(100*time.Millisecond, c.SlowStart/20) }

// welcome begins the slow start of the endpoints that take requests now and did
// not when the last snapshot was built: new ones, and those that return from
// whatever took them out. Not of those in the first set (seen is false), which
// have served others all along, nor of those that only a panic brings back: they
// are warm, and needed at once. Who served in a panic goes on as it is when that
// is over. The caller holds b.mu.
func (b *Balancer) welcome(seen bool, now time.Duration) {
	for _, m := range b.order {
		was := m.taking
		m.taking = m.entry == full
		if m.taking && !was && seen && (m.reason == inService || !m.served) {
			m.ep.SetRamp(now, b.cfg.SlowStart)
		}
		m.served = m.served || m.taking
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
