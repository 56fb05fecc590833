package picker

import (
	"fmt"
	"sync/atomic"
	"time"
)

// ResourceConfig tunes the resource policy.
type ResourceConfig struct {
	// Samples is how many endpoints a pick draws, 2 to 32, besides the eight
	// with the freshest reports.
	Samples int
	// MemoryVeto is the share of the memory limit, in (0, 1], from which an
	// endpoint gets nothing. From MemoryVeto-0.12 on it gets less and less.
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
	case c.Samples < 2 || c.Samples > maxSamples:
		return fmt.Errorf("samples is %d, allowed are 2 to %d", c.Samples, maxSamples)
	case !(c.MemoryVeto > 0 && c.MemoryVeto <= 1):
		return fmt.Errorf("memory_veto is %v, allowed is above 0 up to 1", c.MemoryVeto)
	}
	return nil
}

const maxSamples = 32

// resource is the sweep picker of PICKING.md. It compares the endpoints with
// the freshest reports and a few drawn in proportion to the capacity that is
// free, by how long a request would take there:
//
//	n     = own in-flight + ghosts + o*d + E*(1-d)
//	score = b * (1/4 + n/(C*weight)) / h, lowest wins
//
// o is what others had there by the newest report, d = exp(-age/W) the trust in
// it, and E what they have there on average: between reports the picture ages
// in a known way. C is the capacity, b the slowness and h the health, rated by
// Refresh (resource_rate.go). Endpoints with old reports or none are compared
// among themselves, as often as their share of the capacity asks for, by own
// requests alone.
type resource struct {
	cfg  ResourceConfig
	rand Rand
	stay stay
	calm calm
	aimd aimd
}

func newResource(c ResourceConfig, rand Rand) Policy { return &resource{cfg: c, rand: rand} }

func (*resource) Name() string { return "resource" }

// Build implements Policy. The picker compares by weight and own requests until
// its first Refresh.
func (p *resource) Build(ready []*Endpoint) Picker {
	s, sum := slots(ready), 0.0
	for i := range s {
		// In full: the ratings have the slow start in them.
		s[i].w = int64(s[i].ep.Weight())
		s[i].ep.mind.place.Store(int32(i))
		sum += float64(s[i].w)
	}
	k := &resourcePicker{policy: p, slots: s, unit: sum / float64(max(1, len(s)))}
	for i := range k.ring {
		k.ring[i].Store(nobody)
	}
	k.table.Store(newTable(k, 0))
	return k
}

// resourcePicker is safe for concurrent use as Picker, Refresher and Observer
// ask for.
type resourcePicker struct {
	policy *resource
	slots  []slot
	unit   float64 // mean weight: the score counts in it, whatever the scale
	table  atomic.Pointer[table]

	// free is the place of an endpoint without a veto, or nobody. See Vetoes.
	free   atomic.Int32
	urgent atomic.Bool // a failure or a veto: refresh before the time is up

	// ring holds the places of the endpoints that reported last, -1 for none.
	ring   [ringSize]atomic.Int32
	ringAt atomic.Uint32
}

// ringSize is how many of the freshest reports a pick looks at (PICKING.md).
const ringSize = 8

// dice are the random numbers of one pick: splitmix64 from a seed out of the
// policy's source, which costs more than a pick can pay 20 times.
type dice uint64

func (p *resource) dice() dice { return dice(p.rand(1<<31))<<31 | dice(p.rand(1<<31)) }

func (d *dice) next() uint64 {
	*d += 0x9e3779b97f4a7c15
	return mix(uint64(*d))
}

// best is the lowest score of a pick so far.
type best struct {
	like  float32 // from which part of it on a score is no better
	ep    *Endpoint
	score float32
	ties  float32
}

// likeness is from where scores by reports tie: less is noise of the latencies,
// and all sidecars would go for the same idle endpoint. It costs nothing (test/sim,
// 90 % load, 3 seeds, p99: 249 ms at 1, 251 at 0.95, 255 at 0.9, 274 at 0.8).
const likeness = 0.95

// offer takes c if it is better. The first of a tie stays: draws are in
// proportion to share already.
func (b *best) offer(c *rated, score float32) {
	if b.ep == nil || score < b.score*b.like {
		b.ep, b.score, b.ties = c.ep, score, c.share
	}
}

// among is offer where everyone is compared: ties are drawn by share.
func (b *best) among(c *rated, score float32, d *dice) {
	if b.ep == nil || score != b.score {
		b.offer(c, score)
		return
	}
	b.ties += c.share
	if float32(d.next()>>40)/(1<<24)*b.ties < c.share {
		b.ep = c.ep
	}
}

// Pick implements Picker.
func (p *resourcePicker) Pick(r Request) (*Endpoint, bool) {
	t := p.table.Load()
	switch len(t.rated) {
	case 0:
		return nil, false
	case 1:
		if c := &t.rated[0]; r.takes(c.ep) && !p.Vetoes(c.ep, r.Now) {
			return c.ep, true
		}
		return nil, false
	}
	d := p.policy.dice()
	// A veto may be newer than the table.
	if uint32(d.next()) >= t.staleBelow {
		if e := p.fresh(t, &r, &d); e != nil && !p.Vetoes(e, r.Now) {
			return e, true
		}
	}
	if e := p.stale(t, &r, &d); e != nil && !p.Vetoes(e, r.Now) {
		return e, true
	}
	if e := p.fresh(t, &r, &d); e != nil && !p.Vetoes(e, r.Now) {
		return e, true
	}
	veto := func(e *Endpoint) bool { return p.Vetoes(e, r.Now) }
	return scanUnless(veto, p.slots, &r, p.policy.rand)
}

// fresh returns the best among the draws and the ring, nil if none takes r.
// The draws come first: where all are idle, they decide.
func (p *resourcePicker) fresh(t *table, r *Request, d *dice) *Endpoint {
	b := best{like: likeness}
	for n := p.policy.cfg.Samples; n > 0 && !t.fresh.empty(); n-- {
		if c := &t.rated[t.fresh.draw(d)]; r.takes(c.ep) {
			b.offer(c, c.score(t.crowd(c, r.Now)))
		}
	}
	for i := range p.ring {
		at := p.ring[i].Load()
		if uint32(at) >= uint32(len(t.rated)) {
			continue
		}
		if c := &t.rated[at]; c.state == isFresh && r.takes(c.ep) {
			b.offer(c, c.score(t.crowd(c, r.Now)))
		}
	}
	return b.ep
}

// stale returns the best by own requests, nil if none takes r: of all where
// they are few, for own requests are known exactly, else of the draws.
func (p *resourcePicker) stale(t *table, r *Request, d *dice) *Endpoint {
	b := best{like: 1}
	n := len(t.stale.places)
	if n <= p.policy.cfg.Samples {
		for _, at := range t.stale.places {
			if c := &t.rated[at]; r.takes(c.ep) {
				b.among(c, c.score(own(c.ep, r.Now)), d)
			}
		}
		return b.ep
	}
	for range p.policy.cfg.Samples {
		if c := &t.rated[t.stale.draw(d)]; r.takes(c.ep) {
			b.offer(c, c.score(own(c.ep, r.Now)))
		}
	}
	return b.ep
}

// own is what this sidecar has at e, ghosts included.
func own(e *Endpoint, now time.Duration) float32 {
	return float32(e.inFlight.Load() + e.ghosts.count(now))
}

// crowd is n of the formula: how many requests c has now, from everyone.
func (t *table) crowd(c *rated, now time.Duration) float32 {
	n := own(c.ep, now) + c.expect
	if o, age, ok := othersOf(c.ep.others.Load(), now); ok {
		n += (o - c.expect) * t.trust(age)
	}
	return n
}

// trust is exp(-age/W), as the reciprocal of the first terms of the series.
func (t *table) trust(age float32) float32 {
	x := age * t.perStay
	return 1 / (1 + x*(1+x*(1./2+x*(1./6+x*(1./24)))))
}

// score is the formula's. Idle counts as a quarter of a request, so that a
// small idle endpoint and a large one do not tie.
func (c *rated) score(n float32) float32 { return c.cost * (0.25 + n*c.perRoom) }
