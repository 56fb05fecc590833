package balance

import (
	"fmt"
	"sync/atomic"
	"time"

	"outrigger/breaker"
	"outrigger/picker"
)

// outliers is when endpoints are compared by their success rates. Nothing is done
// for a request, nor by the clock, while none fails: the first failure begins an
// interval, at whose end the endpoints' counters are compared with those at its
// beginning. Another follows while there are failures.
type outliers struct {
	begun atomic.Bool   // there was a failure; set by requests
	end   time.Duration // of the interval that runs; 0: none does. Under Balancer.mu
}

// tallied is what an endpoint's counters were when the interval began.
type tallied struct {
	fit       bool // to be compared at its end
	ejections uint64
	totals    picker.Totals
}

// compares reports whether endpoints are compared at all. Not where a request's key
// or a cookie says which one serves it: what fails there may be the client, and would
// go on to the next endpoint, to have that ejected as well.
func (c *Config) compares() bool {
	return c.Breaker.SuccessRate.Factor > 0 && !c.Pins && c.Picker.Policy != "consistent_hash"
}

// notCompared is added to the mode of a service whose traffic rules it out.
const notCompared = "; success rates are not compared"

// failed is told of every request that an endpoint failed.
func (b *Balancer) failed() {
	if b.compares && !b.outliers.begun.Load() && b.outliers.begun.CompareAndSwap(false, true) {
		b.rouse()
	}
}

// compare begins an interval or ends one, if that is due, and ejects those that
// failed too much more than the others. It returns when it is due again, 0 for
// never. The caller holds b.mu.
func (b *Balancer) compare(s *snapshot, now time.Duration) time.Duration {
	o, cfg := &b.outliers, &b.cfg.Breaker.SuccessRate
	switch {
	case !o.begun.Load() || now < o.end:
		return o.end
	case len(b.order) < cfg.MinHosts:
		// Whatever adds endpoints calls again.
		o.end = 0
		return 0
	case o.end == 0:
		for _, m := range b.order {
			m.tally(now)
		}
	default:
		// Cleared before the counters are read: a failure that ends meanwhile is in
		// them, or begins the next interval.
		o.begun.Store(false)
		if !b.eject(s, now) {
			o.end = 0
			return 0
		}
		o.begun.Store(true)
	}
	o.end = now + cfg.Interval
	return o.end
}

// eject compares the endpoints, ejects the outliers, and reports whether any
// request failed. Judged is who took requests all along: whoever was ejected
// meanwhile, has just joined or was in the first half of a slow start, when few and
// cold requests say little, is left to the next interval.
func (b *Balancer) eject(s *snapshot, now time.Duration) (failures bool) {
	var rates []breaker.Rate
	var of []*member
	for _, m := range b.order {
		was := m.tallied
		m.tally(now)
		is := &m.tallied
		failures = failures || is.totals.Failures != was.totals.Failures
		if was.fit && is.fit && was.ejections == is.ejections {
			of = append(of, m)
			rates = append(rates, breaker.Rate{
				Successes: is.totals.Successes - was.totals.Successes,
				Failures:  is.totals.Failures - was.totals.Failures,
			})
		}
	}
	if s.ignoring {
		return failures // health is ignored, and so is this
	}
	for _, i := range b.cfg.Breaker.SuccessRate.Outliers(rates) {
		if of[i].br.Eject() {
			b.noteOutlier(of[i], rates, i)
		}
	}
	return failures
}

// noteOutlier tells why m, which has the rate i, was ejected. The caller holds b.mu.
func (b *Balancer) noteOutlier(m *member, rates []breaker.Rate, i int) {
	var others breaker.Rate
	for j, r := range rates {
		if j != i {
			others.Successes += r.Successes
			others.Failures += r.Failures
		}
	}
	percent := func(r breaker.Rate) string {
		return fmt.Sprintf("%.1f %%", 100*float64(r.Successes)/float64(r.Successes+r.Failures))
	}
	b.note(Event{
		Kind: "outlier", Message: "endpoint fails more often than the others: ejected",
		Args: []any{"id", m.ep.ID, "success_rate", percent(rates[i]), "others", percent(others),
			"requests", rates[i].Successes + rates[i].Failures, "for", (m.br.Until() - b.env.Now()).Round(time.Millisecond)},
	})
}

// tally notes the endpoint's counters of the time now. The caller holds
// Balancer.mu.
func (m *member) tally(now time.Duration) {
	m.tallied = tallied{
		fit:       m.taking && m.br.State(now) == breaker.Closed && m.ep.RampAge(now) >= 0.5,
		ejections: m.br.Ejections(),
		totals:    m.ep.Totals(),
	}
}
