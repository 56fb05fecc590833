package picker

import (
	"fmt"
	"time"
)

// ResourceConfig tunes the resource policy.
type ResourceConfig struct {
	// Samples is how many endpoints a pick compares, 2 to 32.
	Samples int
	// MemoryVeto is the share of the memory limit, in (0, 1], from which an
	// endpoint gets nothing.
	MemoryVeto float64
}

// DefaultResourceConfig returns the settings that PICKING.md argues for.
func DefaultResourceConfig() ResourceConfig {
	return ResourceConfig{
		Samples:    8,    // what a pick compares in PICKING.md's sweep
		MemoryVeto: 0.92, // out-of-memory kills: 0 with this rule, 10 without it
	}
}

// Validate reports the first setting that is out of range.
func (c ResourceConfig) Validate() error {
	switch {
	case c.Samples < 2 || c.Samples > 32:
		return fmt.Errorf("samples is %d, allowed are 2 to 32", c.Samples)
	case !(c.MemoryVeto > 0 && c.MemoryVeto <= 1):
		return fmt.Errorf("memory_veto is %v, allowed is above 0 up to 1", c.MemoryVeto)
	}
	return nil
}

// resource compares a few weighted random samples by requests in flight per
// core that the backend could use, as its agent reports them.
//
//	n     = own in-flight + what others had there when the report was sampled
//	C     = max(0.05 cores, avail)
//	score = n / (C * weight), lowest wins; ties in proportion to C * weight
//	veto  = memory at or above MemoryVeto, or nobody listening
//
// An endpoint without a live report has the mean C, and as many requests of
// others per C * weight as the mean, of the sampled ones that have one: else
// every sidecar would take one that is silent for idle. Without any C among
// the samples it is weighted two-choice least-conn.
type resource struct {
	cfg  ResourceConfig
	rand Rand
}

func newResource(c ResourceConfig, rand Rand) Policy { return resource{c, rand} }

func (resource) Name() string { return "resource" }

func (p resource) Build(ready []*Endpoint) Picker {
	s := slots(ready)
	return &resourcePicker{cfg: p.cfg, rand: p.rand, slots: s, p2c: p2cPicker{s, newAlias(s), p.rand}}
}

type resourcePicker struct {
	cfg   ResourceConfig
	rand  Rand
	slots []slot
	p2c   p2cPicker
}

// minAvail is the least share of its cores that an endpoint counts as having,
// so that a saturated one is scored very low and not divided by zero.
const minAvail = 0.05

// live returns the report of e if there is one that has not expired.
func (p *resourcePicker) live(e *Endpoint, now time.Duration) *Load {
	if l := e.Load(); l != nil && now < l.Expires {
		return l
	}
	return nil
}

func (p *resourcePicker) vetoed(l *Load) bool {
	return l != nil && (l.Mem >= p.cfg.MemoryVeto || !l.Listening)
}

// Vetoes implements Vetoer.
func (p *resourcePicker) Vetoes(e *Endpoint, now time.Duration) bool {
	return p.vetoed(p.live(e, now))
}

// cores returns C of the formula, 0 when the report does not tell.
func cores(l *Load) float64 {
	switch {
	case l == nil:
		return 0
	case l.Avail >= 0:
		return max(minAvail*max(l.Cores, 0), l.Avail, minAvail)
	default:
		return max(l.Cores, 0)
	}
}

func (p *resourcePicker) Pick(r Request) (*Endpoint, bool) {
	if len(p.slots) == 0 {
		return nil, false
	}
	var idx [32]int32
	k := p.sample(&idx)

	mean, ok := p.means(idx[:k], r.Now)
	if !ok {
		if e, ok := p.p2c.Pick(r); ok && !p.Vetoes(e, r.Now) {
			return e, true
		}
		return p.any(&r)
	}
	if e := p.best(idx[:k], &r, mean); e != nil {
		return e, true
	}
	return p.any(&r)
}

// sample fills idx with different endpoints: all of them when there are no
// more than Samples, else weighted draws with repeats dropped.
func (p *resourcePicker) sample(idx *[32]int32) int {
	n := len(p.slots)
	if n <= p.cfg.Samples {
		for i := range n {
			idx[i] = int32(i)
		}
		return n
	}
	k := 0
draw:
	for range p.cfg.Samples {
		i := int32(p.p2c.alias.draw(p.rand))
		for _, j := range idx[:k] {
			if i == j {
				continue draw
			}
		}
		idx[k] = i
		k++
	}
	return k
}

// means is what stands in for figures that a report lacks.
type means struct{ cores, others float64 } // others: requests per core and weight

// means returns those of the sampled endpoints that may be picked; false when
// none of them tells its cores.
func (p *resourcePicker) means(idx []int32, now time.Duration) (m means, ok bool) {
	var known, sum, others, capacity float64
	for _, i := range idx {
		l := p.live(p.slots[i].ep, now)
		c := cores(l)
		if c <= 0 || p.vetoed(l) {
			continue
		}
		known, sum = known+1, sum+c
		if l.InFlight >= 0 {
			others += othersAt(l)
			capacity += c * float64(p.slots[i].w)
		}
	}
	if known == 0 {
		return means{}, false
	}
	m.cores = sum / known
	if capacity > 0 {
		m.others = others / capacity
	}
	return m, true
}

// othersAt returns what others had in flight by a report that tells.
func othersAt(l *Load) float64 { return max(0, l.InFlight-max(0, l.OwnInFlight)) }

func (p *resourcePicker) best(idx []int32, r *Request, mean means) *Endpoint {
	var best *Endpoint
	var bestScore, ties float64
	for _, i := range idx {
		s := &p.slots[i]
		l := p.live(s.ep, r.Now)
		if p.vetoed(l) || !r.takes(s.ep) {
			continue
		}
		c := cores(l)
		if c == 0 {
			c = mean.cores
		}
		c *= float64(s.w)
		n := float64(s.ep.inFlight.Load())
		if l != nil && l.InFlight >= 0 {
			n += othersAt(l)
		} else {
			n += mean.others * c
		}
		score := n / c
		switch {
		case best == nil || score < bestScore:
			best, bestScore, ties = s.ep, score, c
		case score == bestScore:
			ties += c
			if float64(p.rand(1<<31))/(1<<31)*ties < c {
				best = s.ep
			}
		}
	}
	return best
}

// any scans all endpoints when the samples were vetoed, full or tried.
func (p *resourcePicker) any(r *Request) (*Endpoint, bool) {
	veto := func(e *Endpoint) bool { return p.Vetoes(e, r.Now) }
	return scanUnless(veto, p.slots, r, p.rand)
}

func (p *resourcePicker) Mode(now time.Duration) string {
	live := 0
	for i := range p.slots {
		if cores(p.live(p.slots[i].ep, now)) > 0 {
			live++
		}
	}
	switch live {
	case 0:
		return "no live figures: weighted two-choice least-conn"
	case len(p.slots):
		return "in-flight per available core"
	default:
		return fmt.Sprintf("in-flight per available core, %d of %d with live figures", live, len(p.slots))
	}
}

// Explain implements Picker.
func (p *resourcePicker) Explain(r Request) Explanation {
	return explain(p.Mode(r.Now), p.slots, &r, byWeight(p.slots))
}
