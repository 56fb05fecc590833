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
// Panic is when these leave too few: see panic.go. It ignores Consul, check, ejection
// and damping. Listing, weight, maintenance and vetoes hold always.

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
	proven := false
	for _, m := range b.order {
		m.reason = m.out(now)
		m.proven = m.proven || m.reason <= damped
		proven = proven || m.proven && m.reason.listed()
	}
	for _, m := range b.order {
		m.counts = m.reason.listed() && (m.proven || !proven)
	}
	s.ignoring = b.panicking(s, now)
	for _, m := range b.order {
		m.entry = b.entry(s, m, now)
	}
	if s.ignoring {
		b.lastResort(now)
	}
	judged := 0
	for _, m := range b.order {
		if b.judge(s, m, now) {
			judged++
		}
		if m.entry != shut {
			up = append(up, m)
		}
		if s.ignoring && m.entry != full {
			s.keepOut(m)
		}
	}
	b.guard.SetTotal(judged)
	return up
}

// judge tells m's breaker whether its results may eject it: in a panic also those of
// endpoints that only the panic lets in.
func (b *Balancer) judge(s *snapshot, m *member, now time.Duration) bool {
	yes := m.reason.judged() || s.ignoring && b.inPanic(m.reason) && (m.entry == full || m.failedInPanic(now))
	m.br.SetEligible(yes)
	return yes
}

// keepOut has the rule hold for m in spite of the panic.
func (s *snapshot) keepOut(m *member) {
	if s.strict == nil {
		s.strict = map[*member]entry{}
	}
	s.strict[m] = m.entry
}

// entry is how m is taken in while there are others, and notes when that has to
// be looked at again.
func (b *Balancer) entry(s *snapshot, m *member, now time.Duration) entry {
	switch m.reason {
	case ejected:
		s.nextExpiry = sooner(s.nextExpiry, m.br.Until())
	case damped:
		s.nextExpiry = sooner(s.nextExpiry, m.flap.Load().Until)
	}
	if s.ignoring && m.counts && b.inPanic(m.reason) {
		return m.panicEntry(s, now)
	}
	switch m.reason {
	case inService:
		return full
	case halfOpen:
		return oneByOne
	}
	return shut
}

// CheckState is what active checks say of an endpoint.
type CheckState struct {
	Addr        string        // HOST:PORT of the instance that was asked; "": unknown
	Known       bool          // there has been a result
	Up          bool          // meaningful if Known
	Unreachable bool          // the last check could not connect to the port that requests go to
	Since       time.Duration // when this state began, on the balancer's clock
	Error       string        // why it is not up
}

// checked is a CheckState with how many requests had succeeded when it was told.
type checked struct {
	CheckState
	successes uint64
}

// down reports whether the check takes its endpoint out. One that is not known
// leaves that to the others.
func (c *checked) down() bool { return c != nil && c.Known && !c.Up }

// SetCheck stores what active checks say of the endpoint with this ID. It is
// dropped for an endpoint that has left, or is at another address by now.
func (b *Balancer) SetCheck(id string, state CheckState) {
	m := b.snap.Load().byID[id]
	if m == nil || state.Addr != "" && state.Addr != m.ep.Addr {
		return
	}
	c := checked{CheckState: state, successes: m.ep.Totals().Successes}
	was := m.check.Swap(&c)
	returned := c.Known && c.Up && m.br.Reached(b.env.Now())
	if was.down() != c.down() || was != nil && was.Unreachable != c.Unreachable || returned {
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
			Message: fmt.Sprintf("panic: %d of %d endpoints healthy, %s: health is ignored", s.healthy, s.listed, b.tooFew()),
			Args:    []any{"healthy", s.healthy, "listed", s.listed},
		})
	case was.ignoring && !s.ignoring:
		b.note(Event{Kind: "panic_over", Message: "panic is over", Args: []any{"healthy", s.healthy, "listed", s.listed}})
	}
}

func (b *Balancer) tooFew() string {
	switch {
	case b.cfg.PanicThreshold == 0:
		return "the others are ejected or damped"
	case b.failover.any:
		return "and no fallback has enough"
	}
	return fmt.Sprintf("below %.4g %%", 100*b.cfg.PanicThreshold)
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
