package balance

import (
	"errors"
	"time"

	"outrigger/breaker"
	"outrigger/picker"
)

// Key is what a request asks by. The zero value asks for any endpoint.
type Key struct {
	Hash  uint64       // for the policy (picker.Request.Key), 0 for none
	Pin   uint64       // of the endpoint to be preferred (Lease.Pin), 0 for none
	Tried picker.Tried // endpoints that this request was sent to already
	// Again lets the request have an endpoint it tried when there is no other:
	// right after a pooled connection died, when the endpoint may be well.
	Again bool
	// Deadline on the balancer's clock cuts a wait in the queue short; 0: none.
	Deadline time.Duration

	queued bool // it has waited in the queue
}

// Lease is the permission to send one request to one endpoint. It ends with
// Done, at the end of the response body, on cancel, error and upgrade close
// alike. The zero value is no lease. Not to be copied once in use, and not for
// concurrent use.
type Lease struct {
	b     *Balancer
	m     *member
	probe breaker.Probe
	start time.Duration
	until time.Duration // the request's deadline; 0: none
	sent  float32       // what the picker wants to hear again at the end
	aside float32       // what the shadow does
}

// Held reports whether the lease is live.
func (l *Lease) Held() bool { return l.m != nil }

// Endpoint returns the leased endpoint, nil after Done.
func (l *Lease) Endpoint() *picker.Endpoint {
	if l.m == nil {
		return nil
	}
	return l.m.ep
}

// Conns returns the engine's connection store beside the endpoint.
func (l *Lease) Conns() Conns { return l.m.conns }

// Start returns when the lease was granted, on the balancer's clock.
func (l *Lease) Start() time.Duration { return l.start }

// Done ends the lease: in-flight goes down, latency and breaker hear the
// result, and one waiter gets the slot. A second call is a no-op.
func (l *Lease) Done(r picker.Result) {
	m, b := l.m, l.b
	if m == nil {
		return
	}
	l.m = nil
	now := b.env.Now()
	r.Age = now - l.start
	if l.until > 0 {
		r.Budget = max(0, l.until-l.start)
	}
	s := b.snap.Load()
	if s.observer != nil {
		s.observer.Done(m.ep, now, l.sent, r)
	}
	s.shadow.done(m, now, l.aside, r)
	m.ep.Finish(now, r)
	m.inFlightChanged()
	m.br.Report(l.probe, verdict(r), now)
	if r.Outcome == picker.Failure {
		b.failed()
	}
	l.probe = breaker.Probe{}
	if b.queue.waiting.Load() > 0 {
		b.grant()
	}
}

func verdict(r picker.Result) breaker.Verdict {
	switch r.Outcome {
	case picker.Success:
		return breaker.Good
	case picker.Failure:
		if r.Down {
			return breaker.Gone
		}
		if r.NoConn {
			return breaker.NoConn
		}
		return breaker.Bad
	default:
		return breaker.Neutral // overload is not a fault, nor is a client that left
	}
}

// ErrNoOther is the error of Retry: no endpoint but those tried takes the
// request now, or the budget is spent. What the client is told then depends on
// what became of the first try.
var ErrNoOther = errors.New("no other endpoint for a retry")

// TryAcquire leases an endpoint if one has room now. It never waits and, when
// it succeeds, never allocates (a half-open probe apart: gobreaker's closure).
// The error is always a *Refusal.
func (b *Balancer) TryAcquire(k Key) (Lease, error) {
	l, reason, ok := b.admit(&k)
	if !ok {
		return Lease{}, b.refuse(reason, &k)
	}
	return l, nil
}

// admit counts a new request and tries once.
func (b *Balancer) admit(k *Key) (Lease, Reason, bool) {
	now := b.env.Now()
	b.requests.Add(now)
	if b.draining.Load() {
		return Lease{}, Draining, false
	}
	l, reason, ok := b.try(k, now)
	if k.Pin != 0 && (!ok || l.m.pin != k.Pin) {
		b.pinMissed.Add(1)
	}
	return l, reason, ok
}

// Retry leases another endpoint than those in k.Tried for one more try of a
// request, if the service's retry budget allows. It never waits: the client
// has waited already. The error is ErrNoOther.
func (b *Balancer) Retry(k Key) (Lease, error) {
	now := b.env.Now()
	if b.budget.Exhausted(now) {
		b.budgetSpent.Add(1)
		return Lease{}, ErrNoOther
	}
	l, _, ok := b.try(&k, now)
	if !ok {
		return Lease{}, ErrNoOther
	}
	b.budget.Spend(now)
	b.retries.Add(1)
	return l, nil
}

// CanRetry reports whether Retry would likely lease one now: a request that is
// to pause before its next try should not pause for nothing. Like Retry, it
// counts a try that the budget forbids.
func (b *Balancer) CanRetry(k Key) bool {
	now := b.env.Now()
	if b.budget.Exhausted(now) {
		b.budgetSpent.Add(1)
		return false
	}
	s := b.snap.Load()
	for _, m := range s.ready {
		if (k.Again || !k.Tried.Has(m.ep)) && m.ep.HasRoom() && !s.vetoes(m, now) &&
			s.admits(m, now) {
			return true
		}
	}
	return b.spare(s, &k, now) != nil
}

// races bounds how often a pick that somebody else was quicker to take is made
// again before every endpoint is asked in turn.
const races = 4

// try leases an endpoint if one has room at the time now.
func (b *Balancer) try(k *Key, now time.Duration) (Lease, Reason, bool) {
	s := b.snap.Load()
	if len(s.ready) == 0 {
		return Lease{}, s.reason, false
	}
	if s.refresher != nil && s.refresher.Due(now) || s.shadow.due(now) {
		b.rouse()
	}
	if l, ok := b.pinTo(s, k, now); ok {
		return l, 0, true
	}
	r := picker.Request{Key: k.Hash, Now: now, Tried: k.Tried, MaxWait: b.maxWait(k, now)}
	tooLong := false
	for range races {
		ep, ok := s.picker.Pick(r)
		if !ok {
			return b.otherwise(s, k, now)
		}
		if s.tooLong(ep, r.MaxWait, now) {
			tooLong = true
			r.Tried.Add(ep)
			continue
		}
		if k.Tried.Has(ep) {
			continue // forgotten by r.Tried, which is bounded
		}
		c := s.shadow.compare(ep, &r)
		m := ep.Owner.(*member)
		if l, ok := b.reserve(s, m, k, now, c.how); ok {
			b.compared.count(c)
			return l, 0, true
		}
		r.Tried.Add(ep)
	}
	if tooLong {
		return Lease{}, Saturated, false // the best few would have it wait
	}
	off := int(b.env.Rand(uint32(len(s.ready))))
	for i := range s.ready {
		m := s.ready[(off+i)%len(s.ready)]
		if k.Tried.Has(m.ep) || !m.ep.HasRoom() || s.vetoes(m, now) {
			continue
		}
		if l, ok := b.reserve(s, m, k, now, 0); ok {
			return l, 0, true
		}
	}
	return b.otherwise(s, k, now)
}

// maxWait is PICKING.md's admission rule: a request that would spend more of
// its time waiting inside the backend had better be told at once. 0: no limit.
func (b *Balancer) maxWait(k *Key, now time.Duration) time.Duration {
	if k.Deadline == 0 || b.cfg.MaxWait == 0 {
		return 0
	}
	return max(1, time.Duration(b.cfg.MaxWait*float64(k.Deadline-now)))
}

func (s *snapshot) tooLong(ep *picker.Endpoint, most, now time.Duration) bool {
	return most > 0 && s.forecaster != nil && s.forecaster.Wait(ep, now) > most
}

// reserve takes a slot and the breaker's permission, both or neither. how goes
// into the record of the decision.
func (b *Balancer) reserve(s *snapshot, m *member, k *Key, now time.Duration, how uint64) (Lease, bool) {
	if !m.ep.TryReserve() {
		return Lease{}, false
	}
	probe, ok := m.br.Admit(now)
	if !ok && !s.ignores(m) {
		m.ep.Cancel()
		m.inFlightChanged() // who read it meanwhile saw one too many
		return Lease{}, false
	}
	m.inFlightChanged()
	b.decided(b.granted.Add(1), s, m, k, now, how)
	l := Lease{b: b, m: m, probe: probe, start: now, until: k.Deadline}
	if s.observer != nil {
		l.sent = s.observer.Sent(m.ep, now)
	}
	l.aside = s.shadow.sent(m, now)
	return l, true
}

// none says why no endpoint took the request, or gives it one it tried before
// if it wants that.
func (b *Balancer) none(s *snapshot, k *Key, now time.Duration) (Lease, Reason, bool) {
	reason := AllEjected
	for _, m := range s.ready {
		tried := k.Tried.Has(m.ep)
		if tried && !k.Again || s.vetoes(m, now) {
			continue
		}
		if tried {
			if l, ok := b.reserve(s, m, k, now, howAgain); ok {
				return l, 0, true
			}
		}
		// It had no room, whether or not it has now: others come and go.
		if s.admits(m, now) {
			reason = Saturated
		}
	}
	return Lease{}, reason, false
}
