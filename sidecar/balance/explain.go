package balance

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"outrigger/breaker"
	"outrigger/picker"
)

// Question is what a pick is explained for. The zero value is a first try
// without a key.
type Question struct {
	Hash  uint64   // affinity key
	Tried []string // IDs of endpoints that the request was sent to already, 6 at most
}

// Explanation is how a request would be served now. All of it is of one
// snapshot, its figures read one by one.
type Explanation struct {
	Service  string
	Draining bool
	Panic    bool // health is ignored, see Status.Panic
	Policy   PolicyExplanation
	Shadow   *PolicyExplanation // nil: there is none
	// Reason says why the policy takes no endpoint, "" if it takes one.
	Reason string
	// RetryAfter goes with it, in seconds, as a client would be told now.
	RetryAfter int
	// Waits is how long the request would wait in the queue before that.
	Waits time.Duration
}

// PolicyExplanation is how one policy picks.
type PolicyExplanation struct {
	Policy string
	Rule   string // what it compares
	Mode   string // how it picks now
	// Pick is the ID of the endpoint that a pick made now took, "" for none. It
	// is a pick like any other: chance has its part in most policies.
	Pick string
	// Candidates are those that may be picked, lowest score first and among
	// equals the likeliest, and then all that may not.
	Candidates []Candidate
}

// Candidate is one endpoint and its part in a pick.
type Candidate struct {
	ID, Addr string
	// Picked says that the pick made now took it.
	Picked bool
	// Out says why it cannot be picked, "" if it can.
	Out string
	// Share, Score and Terms are the policy's, see picker.Candidate. Terms is
	// nil for an endpoint that the policy was not even given.
	Share, Score float64
	Terms        []picker.Term

	Weight, InFlight, Limit int
	Ramp                    float64       // share of its weight that it counts with, below 1 in a slow start
	Latency                 time.Duration // moving average, 0: none yet
	HasLoad                 bool          // an agent's figures are there,
	LoadAge                 time.Duration // this old,
	LoadExpired             bool          // and too old to be used
	Returns                 time.Duration // until its ejection runs out
	// Foretold is how long a request sent there now would wait inside the backend
	// (picker.Forecaster), by which admission goes: one with a deadline gets no
	// slot where it is more than Config.MaxWait of the time left. What is picked
	// here has no deadline. Known where Foretells is set.
	Foretold  time.Duration
	Foretells bool
	// Predicted is ShadowStatus' T, known only where there is a shadow.
	Predicted time.Duration
}

// Explain tells how a request would be served now. It reserves nothing and
// counts nothing; a policy that goes round moves on by one. It allocates and
// takes its time, but is as safe as TryAcquire. The error is about the
// question: an ID that no endpoint has, or too many of them.
func (b *Balancer) Explain(q Question) (Explanation, error) {
	s, now := b.snap.Load(), b.env.Now()
	k := Key{Hash: q.Hash}
	tried := map[string]*member{}
	for _, id := range q.Tried {
		m := s.byID[id]
		if m == nil {
			return Explanation{}, fmt.Errorf("tried: service %q has no endpoint %q; /v1/status lists them", b.cfg.Service, id)
		}
		if tried[id] == nil {
			k.Tried.Add(m.ep)
		}
		tried[id] = m
	}
	remembered := 0
	for _, m := range tried {
		if k.Tried.Has(m.ep) {
			remembered++
		}
	}
	if remembered < len(tried) {
		return Explanation{}, fmt.Errorf("tried has %d endpoints, allowed are up to %d: a request remembers no more", len(tried), remembered)
	}
	x := Explanation{Service: b.cfg.Service, Draining: b.draining.Load(), Panic: s.ignoring}
	took := s.wouldTake(s.picker, &k, now)
	reason := s.reason
	if took == nil && len(s.ready) > 0 {
		_, reason, _ = b.none(s, &k, now) // takes none: k does not ask for one again
		if reason == AllEjected {
			took = b.spare(s, &k, now)
		}
	}
	x.Policy = s.explain(b.policy, s.picker, took, &k, now)
	if s.shadow != nil {
		p := s.shadow.picker
		sx := s.explain(b.shadow, p, s.wouldTake(p, &k, now), &k, now)
		x.Shadow = &sx
	}
	if x.Draining || took == nil {
		b.whatInstead(&x, reason, now)
	}
	return x, nil
}

// wouldTake is try by the picker p without a reservation, nil if there is none.
func (s *snapshot) wouldTake(p picker.Picker, k *Key, now time.Duration) *member {
	r := picker.Request{Key: k.Hash, Now: now, Tried: k.Tried}
	for range races {
		ep, ok := p.Pick(r)
		if !ok {
			return nil
		}
		if m := ep.Owner.(*member); s.admits(m, now) {
			return m
		}
		r.Tried.Add(ep)
	}
	for _, m := range s.ready {
		if !k.Tried.Has(m.ep) && m.ep.HasRoom() && !vetoes(p, m, now) && s.admits(m, now) {
			return m
		}
	}
	return nil
}

func vetoes(p picker.Picker, m *member, now time.Duration) bool {
	v, ok := p.(picker.Vetoer)
	return ok && v.Vetoes(m.ep, now)
}

// whatInstead says what a request gets that gets no endpoint for this reason,
// as Acquire does, without counting it.
func (b *Balancer) whatInstead(x *Explanation, reason Reason, now time.Duration) {
	switch waiting := int(b.queue.waiting.Load()); {
	case x.Draining:
		reason = Draining
	case reason != Saturated || b.cfg.Queue.Length == 0 || b.capacity.State(now) == breaker.Open:
	case waiting >= b.cfg.Queue.Length:
		reason = QueueFull
	default:
		reason, x.Waits = QueueTimeout, b.cfg.Queue.Timeout
	}
	x.Reason, x.RetryAfter = reason.String(), b.retryAfter(reason, now)
}

// explain joins what a policy says with what the balancer knows.
func (s *snapshot) explain(policy picker.Policy, p picker.Picker, took *member, k *Key, now time.Duration) PolicyExplanation {
	px := p.Explain(picker.Request{Key: k.Hash, Now: now, Tried: k.Tried})
	x := PolicyExplanation{Policy: policy.Name(), Rule: px.Rule, Mode: p.Mode(now)}
	if took != nil {
		x.Pick = took.ep.ID
	}
	given := make(map[*picker.Endpoint]*picker.Candidate, len(px.Candidates))
	for i := range px.Candidates {
		given[px.Candidates[i].Endpoint] = &px.Candidates[i]
	}
	for _, m := range s.all {
		c := m.candidate(s, p, given[m.ep], k, now)
		c.Picked = m == took
		x.Candidates = append(x.Candidates, c)
	}
	slices.SortStableFunc(x.Candidates, func(a, b Candidate) int {
		switch {
		case a.Out != "" && b.Out != "":
			return 0
		case a.Out != "":
			return 1
		case b.Out != "":
			return -1
		}
		return cmp.Or(cmp.Compare(a.Score, b.Score), cmp.Compare(b.Share, a.Share))
	})
	return x
}

// candidate describes m to the picker p; c is what that says of it, nil if it
// was not given it.
func (m *member) candidate(s *snapshot, p picker.Picker, c *picker.Candidate, k *Key, now time.Duration) Candidate {
	e := m.status(s, now)
	out := Candidate{
		ID: m.ep.ID, Addr: m.ep.Addr, Weight: e.Instance.Weight, InFlight: e.InFlight, Limit: e.Limit, Ramp: e.Ramp,
		Latency: e.Latency, HasLoad: e.Load != nil, LoadAge: e.LoadAge, Returns: e.Returns,
	}
	out.LoadExpired = e.Load != nil && now >= e.Load.Expires
	if s.shadow != nil {
		out.Predicted = time.Duration(m.predict(now) * float64(time.Second))
	}
	if f, ok := p.(picker.Forecaster); ok {
		out.Foretold, out.Foretells = f.Wait(m.ep, now), c != nil
	}
	why := m.why(&e, s, now) // without the veto, which is one picker's own
	if c == nil {
		out.Out = cmp.Or(why, m.whyNotGiven(s, p, now))
		return out
	}
	out.Share, out.Score, out.Terms = c.Share, c.Score, c.Terms
	switch {
	case k.Tried.Has(m.ep):
		out.Out = "tried already"
	case why != "":
		out.Out = why
	case c.Out == "" && vetoes(p, m, now):
		out.Out = vetoText(e.Load)
	default:
		out.Out = c.Out
	}
	return out
}

// whyNotGiven is why an endpoint with nothing amiss is not in the picker p.
func (m *member) whyNotGiven(s *snapshot, p picker.Picker, now time.Duration) string {
	if vetoes(p, m, now) { // all of its tier were
		return vetoText(m.ep.Load())
	}
	if why := s.whyStandby(m); why != "" {
		return why
	}
	return "back at any moment" // its ejection is over, and the next snapshot has it
}
