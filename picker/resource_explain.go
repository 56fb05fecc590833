package picker

import (
	"fmt"
	"time"
)

// Explain implements Picker.
func (p *resourcePicker) Explain(r Request) Explanation {
	t := p.table.Load()
	x := Explanation{Candidates: make([]Candidate, len(t.rated))}
	stale := float64(t.staleBelow) / (1 << 32)
	x.Rule = fmt.Sprintf("lowest slowness*(1/4 + n/capacity)/health among the %d freshest reports and %d draws; "+
		"%.1f %% of picks are among endpoints without a fresh report, by own requests",
		ringSize, p.policy.cfg.Samples, 100*stale)
	var fresh, old float64
	for _, c := range t.rated {
		switch c.state {
		case isFresh:
			fresh += float64(c.share)
		case isStale:
			old += float64(c.share)
		}
	}
	for i := range t.rated {
		c := &t.rated[i]
		y := &x.Candidates[i]
		*y = p.candidate(t, i, r)
		switch {
		case c.state == isFresh && fresh > 0:
			y.Share = (1 - stale) * float64(c.share) / fresh
		case c.state == isStale && old > 0:
			y.Share = stale * float64(c.share) / old
		}
	}
	return x
}

func (p *resourcePicker) candidate(t *table, i int, r Request) Candidate {
	c, y := &t.rated[i], &t.why[i]
	e := c.ep
	n := own(e, r.Now)
	terms := []Term{
		{"own_in_flight", float64(e.InFlight())},
		{"ghosts", float64(e.ghosts.count(r.Now))},
	}
	if c.state != isStale {
		others, age, ok := othersOf(e.others.Load(), r.Now)
		trust := float32(0)
		if ok {
			trust = t.trust(age)
			terms = append(terms, Term{"others_reported", float64(others)}, Term{"others_age_ms", float64(age)})
		} else {
			terms = append(terms, Term{"others_reported", Absent}, Term{"others_age_ms", Absent})
		}
		terms = append(terms, Term{"trust", float64(trust)}, Term{"others_expected", float64(c.expect)})
		n = t.crowd(c, r.Now)
	}
	pace, samples := e.mind.pace.get(r.Now)
	terms = append(terms,
		Term{"n", float64(n)},
		Term{"capacity_cores", y.cores}, Term{"sustained", y.conc}, Term{"weight", float64(p.slots[i].w)},
		Term{"slowness", y.slowness}, Term{"pace_ms", pace}, Term{"pace_samples", samples},
		Term{"health", y.health}, Term{"failing", e.mind.failures.get(r.Now)}, Term{"slow_start", e.Ramp(r.Now)},
		Term{"freshness", y.fresh}, Term{"rated_age_ms", float64(r.Now-t.at) / float64(time.Millisecond)},
	)
	out := r.whyNot(e)
	if p.Vetoes(e, r.Now) {
		out = "vetoed: " + vetoReason(e.Load())
	}
	return Candidate{Endpoint: e, Score: float64(c.score(n)), Terms: terms, Out: out}
}

func vetoReason(l *Load) string {
	if !l.Listening {
		return "its agent sees nobody listen"
	}
	return fmt.Sprintf("memory at %.0f %% of its limit", 100*l.Mem)
}

// Vetoes implements Vetoer: memory, or nobody listening, by a report that has
// not expired. That nobody listens counts only while another endpoint is not
// vetoed: one wrong port in the agents' configuration must not end a service
// that works, and a connection that is refused ejects at once.
func (p *resourcePicker) Vetoes(e *Endpoint, now time.Duration) bool {
	full, deaf := p.policy.cfg.vetoes(e.Load(), now)
	return full || deaf && p.others(now)
}

// vetoes reports whether the memory is full, and whether nobody listens.
func (c *ResourceConfig) vetoes(l *Load, now time.Duration) (full, deaf bool) {
	if l == nil || now >= l.Expires {
		return false, false
	}
	return l.Mem >= c.MemoryVeto, !l.Listening
}

// others reports whether an endpoint is free of any veto, which e is not. That
// there is none holds until the next Refresh.
func (p *resourcePicker) others(now time.Duration) bool {
	i := p.free.Load()
	if i == nobody {
		return false
	}
	return int(i) < len(p.slots) && p.isFree(int(i), now) || p.seek(now)
}

// seek looks for an endpoint without a veto, keeps its place and reports whether
// there is one.
func (p *resourcePicker) seek(now time.Duration) bool {
	for i := range p.slots {
		if p.isFree(i, now) {
			p.free.Store(int32(i))
			return true
		}
	}
	p.free.Store(nobody)
	return false
}

func (p *resourcePicker) isFree(i int, now time.Duration) bool {
	full, deaf := p.policy.cfg.vetoes(p.slots[i].ep.Load(), now)
	return !full && !deaf
}

// nobody stands for the place of an endpoint that is not there.
const nobody = -1

// Mode implements Picker.
func (p *resourcePicker) Mode(now time.Duration) string {
	known := 0
	for _, s := range p.slots {
		if l := s.ep.Load(); l != nil && now < l.Expires {
			known++
		}
	}
	switch known {
	case 0:
		return "no live figures: weighted least-conn over a few draws"
	case len(p.slots):
		return "requests per free capacity"
	default:
		return fmt.Sprintf("requests per free capacity, %d of %d with live figures", known, len(p.slots))
	}
}
