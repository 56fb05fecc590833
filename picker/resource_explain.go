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
// not expired.
func (p *resourcePicker) Vetoes(e *Endpoint, now time.Duration) bool {
	return p.policy.cfg.vetoes(e.Load(), now)
}

func (c *ResourceConfig) vetoes(l *Load, now time.Duration) bool {
	return l != nil && now < l.Expires && (l.Mem >= c.MemoryVeto || !l.Listening)
}

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
