package balance

import (
	"fmt"
	"time"

	"outrigger/breaker"
	"outrigger/discovery"
)

// The one rule of health.
//
// An endpoint gets new requests when all of these say yes: it is listed (or kept)
// with a weight above 0 and not in maintenance; Consul says passing or warning;
// its active check is not down; it is not damped; it is not ejected; the policy has
// no veto. Each can take it out, none can overrule another: a good check does not
// end an ejection, Consul's "passing" does not silence a failing check, an agent's
// figures never bring anything in.
//
// Panic: when fewer than Config.PanicThreshold of the listed endpoints get a yes
// from Consul, check, ejection and damping, these four are ignored, except for
// endpoints that nobody could connect to at the last try, as long as there are
// others. Listing, weight, maintenance and vetoes hold always. There is no panic
// while a fallback source can do the work.
//
// The exception is for a status may lie, while a refused connection cannot:
// sending there serves nobody (envoy #14968).

// outReason is what takes an endpoint out: the first that applies, from the last
// one here to the first.
type outReason uint8

const (
	inService outReason = iota
	halfOpen            // one request at a time tries whether the ejection is over
	ejected
	damped
	checkDown
	critical
	weightZero // from here on it is not listed
	maintenance
)

var outNames = [...]string{"", "half-open", "ejected", "damped", "check down", "critical", "draining", "maintenance"}

// out applies the rule but for the veto, which is the picker's. It is as safe as
// TryAcquire.
func (m *member) out(now time.Duration) outReason {
	switch inst := m.inst.Load(); {
	case inst.Health == discovery.Maintenance:
		return maintenance
	case inst.Weight <= 0:
		return weightZero
	case inst.Health > discovery.Warning:
		return critical
	}
	if m.check.Load().down() {
		return checkDown
	}
	if f := m.flap.Load(); f != nil && now < f.Until {
		return damped
	}
	switch m.br.State(now) {
	case breaker.Open:
		return ejected
	case breaker.HalfOpen:
		return halfOpen
	}
	return inService
}

// listed reports whether the endpoint counts in the panic threshold, and may be
// used in a panic.
func (o outReason) listed() bool { return o < weightZero }

// judged reports whether the endpoint's results may eject it: others have not
// taken it out.
func (o outReason) judged() bool { return o <= ejected }

// entry is how the snapshot takes an endpoint in.
type entry uint8

const (
	shut     entry = iota
	oneByOne       // with room for one request that tries it
	full
)

// allow applies the rule, with panic, to every endpoint, and returns those that
// may be picked. The caller holds b.mu.
func (b *Balancer) allow(s *snapshot, now time.Duration) (up []*member) {
	judged := 0
	for _, m := range b.order {
		m.reason = m.out(now)
		m.br.SetEligible(m.reason.judged())
		if m.reason.judged() {
			judged++
		}
	}
	b.guard.SetTotal(judged)
	s.ignoring = b.panicking(s)
	others := false
	for _, m := range b.order {
		m.entry = b.entry(s, m, now)
		others = others || m.entry == full
	}
	for _, m := range b.order {
		if s.ignoring && !others && b.inPanic(m.reason) {
			m.entry = full // there are no others
		}
		if m.entry != shut {
			up = append(up, m)
		}
		if s.ignoring && m.entry != full {
			s.keepOut(m)
		}
	}
	return up
}

// keepOut has the rule hold for m in spite of the panic.
func (s *snapshot) keepOut(m *member) {
	if s.strict == nil {
		s.strict = map[*member]entry{}
	}
	s.strict[m] = m.entry
}

// panicking counts, and decides whether health is ignored. While a fallback source
// has what Config.Failover asks for, or is well as a whole, there is nothing to
// panic for.
func (b *Balancer) panicking(s *snapshot) bool {
	let := 0               // by Consul and the checks
	var listed, well []int // by tier
	for _, m := range b.order {
		if !m.reason.listed() {
			continue
		}
		s.listed++
		if m.reason <= damped {
			let++
		}
		tier := max(0, m.inst.Load().Tier)
		for len(well) <= tier {
			listed, well = append(listed, 0), append(well, 0)
		}
		listed[tier]++
		if m.reason == inService {
			well[tier]++
			s.healthy++
		}
	}
	if b.cfg.PanicThreshold == 0 {
		// Nothing to lose by trying those that are ejected, and one probe at a
		// time is no service.
		return let > 0 && s.healthy == 0
	}
	b.failover.any = len(well) > 1
	have := 0
	for tier, n := range well {
		if have += n; tier > 0 && n > 0 && (have >= b.needed(tier) || n == listed[tier]) {
			return false
		}
	}
	const inexact = 1e-9 // 0.07 * 100 is above 7
	return s.healthy == 0 && s.listed > 0 ||
		float64(s.healthy) < b.cfg.PanicThreshold*float64(s.listed)-inexact
}

// inPanic reports whether a panic ignores what takes an endpoint out.
func (b *Balancer) inPanic(o outReason) bool {
	if b.cfg.PanicThreshold == 0 {
		return o <= damped
	}
	return o.listed()
}

// entry is how m is taken in while there are others, and notes when that has to
// be looked at again.
func (b *Balancer) entry(s *snapshot, m *member, now time.Duration) entry {
	switch m.reason {
	case inService:
		return full
	case ejected:
		s.nextExpiry = sooner(s.nextExpiry, m.br.Until())
	case damped:
		s.nextExpiry = sooner(s.nextExpiry, m.flap.Load().Until)
	}
	if s.ignoring && b.inPanic(m.reason) {
		again, yes := m.unreachable(now)
		if !yes {
			return full
		}
		if m.reason > ejected { // the others have their probe
			if again <= now {
				return oneByOne
			}
			s.due = sooner(s.due, again)
		}
	}
	if m.reason == halfOpen {
		return oneByOne
	}
	return shut
}

// unreachable reports whether nobody could connect at the last try, and when to
// try again.
func (m *member) unreachable(now time.Duration) (again time.Duration, yes bool) {
	if c := m.check.Load(); c.down() && c.Unreachable {
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

// CheckState is what active checks say of an endpoint.
type CheckState struct {
	Addr        string        // HOST:PORT of the instance that was asked; "": unknown
	Known       bool          // there has been a result
	Up          bool          // meaningful if Known
	Unreachable bool          // the last check could not connect
	Since       time.Duration // when this state began, on the balancer's clock
	Error       string        // why it is not up
}

// down reports whether the check takes its endpoint out. One that is not known
// leaves that to the others.
func (c *CheckState) down() bool { return c != nil && c.Known && !c.Up }

// SetCheck stores what active checks say of the endpoint with this ID. It is
// dropped for an endpoint that has left.
func (b *Balancer) SetCheck(id string, c CheckState) {
	m := b.snap.Load().byID[id]
	if m == nil {
		return
	}
	was := m.check.Swap(&c)
	if was.down() != c.down() || was != nil && was.Unreachable != c.Unreachable {
		b.post()
	}
}

// Event is a change of a service's health that an operator should know of.
type Event struct {
	Kind    string // "panic", "panic_over", "tier", "damped", "outlier"
	Warn    bool   // else it is for information
	Message string // with the facts as Args, for a logger
	Args    []any  // keys and values in turns
}

// tellPanic notes the begin and the end of a panic. The caller holds b.mu.
func (b *Balancer) tellPanic(was, s *snapshot) {
	switch {
	case s.ignoring && !was.ignoring:
		b.panics.Add(1)
		b.note(Event{
			Kind: "panic", Warn: true,
			Message: fmt.Sprintf("panic: %d of %d endpoints healthy, %s: health is ignored", s.healthy, s.listed, b.cfg.tooFew()),
			Args:    []any{"healthy", s.healthy, "listed", s.listed},
		})
	case was.ignoring && !s.ignoring:
		b.note(Event{Kind: "panic_over", Message: "panic is over", Args: []any{"healthy", s.healthy, "listed", s.listed}})
	}
}

func (c *Config) tooFew() string {
	if c.PanicThreshold == 0 {
		return "the others are ejected or damped"
	}
	return fmt.Sprintf("below %.4g %%", 100*c.PanicThreshold)
}

// note has Env.Event told of e once the lock is let go of. The caller holds b.mu.
func (b *Balancer) note(e Event) {
	if b.env.Event != nil {
		b.events = append(b.events, e)
	}
}

// tell calls Env.Event with what was noted, in order. Who finds another at it
// leaves his to him.
func (b *Balancer) tell() {
	if b.env.Event == nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.telling {
		return
	}
	b.telling = true
	for len(b.events) > 0 {
		list := b.events
		b.events = nil
		b.mu.Unlock()
		for _, e := range list {
			b.env.Event(e)
		}
		b.mu.Lock()
	}
	b.telling = false
}
