package picker

import (
	"cmp"
	"math"
	"slices"
	"time"
)

// Constants of the ratings, from PICKING.md's simulations but where said.
const (
	refreshEvery  = 20 * time.Millisecond
	refreshUrgent = 2 * time.Millisecond // ours: a storm of failures is no storm of refreshes
	minAvail      = 0.05                 // of its cores: saturated is scored low, not divided by zero
	paceFastest   = 0.7
	paceSlowest   = 300
	paceTrust     = 5 // samples that the mean of all counts as
	// paceBlind is the least exponent of slowness. Without a report, latency holds
	// the congestion too, and is all there is to tell a large backend from a small
	// one. PICKING.md has 0; by test/sim, 90 % load, p99 with a fifth of the agents
	// silent, and with all: 0: 692 ms and a time-out, 0.3: 383 and 667, 0.5: 420
	// and 646, 1: 595 and 642.
	paceBlind    = 0.4
	wellFrom     = 0.98 // success share that is no reason for less
	minHealth    = 0.005
	memoryBand   = 0.12 // of the limit, below the veto
	minMemory    = 0.01
	staySmooth   = 0.1
	outlier      = 4 // ours: times what the middle endpoint has for its share
	outlierLeast = 4 // requests that are no outlier anywhere
	leastCores   = 0.001
	claimMost    = 8                      // ours: times the middle claim of capacity that one counts with
	claimFew     = 3                      // with fewer claims there is no middle that one of them cannot move
	firstStay    = 100 * time.Millisecond // ours, until there is a latency
)

// state is how a pick may use an endpoint.
type state uint8

const (
	isFresh state = iota // by its report
	isStale              // by own requests alone
	vetoed
)

// rated is an endpoint as a pick sees it, one cache line for two of them.
type rated struct {
	ep      *Endpoint
	cost    float32 // b/h
	perRoom float32 // 1/(C*weight), weight over the mean weight
	expect  float32 // E: what others have there on average
	share   float32 // weight*C*h/b: what part of all requests it should have
	state   state
}

// table is what Refresh computes. Immutable.
type table struct {
	rated      []rated
	fresh      drawer
	stale      drawer
	staleBelow uint32  // chance of the stale path, of 2^32
	perStay    float32 // 1/W, per millisecond
	at         time.Duration

	pace   float64 // g: mean time of a request on its own, on a whole core, in ms; 0: none known
	seeing bool    // at least half of the reports are fresh
	calm   time.Duration
	why    []rating
}

// rating is the reasoning behind a rated, for Explain and the learning.
type rating struct {
	fresh, cores, slowness, health float64
	conc                           float64 // requests it serves at once without slowing down, 1 and up
	thread                         float64 // cores that one request may use there, up to 1
}

// stay is W, the mean time that a request spends at a backend, in milliseconds:
// by this sidecar's latencies, for reports carry no throughput that Little's law
// would need.
// Written by Refresh alone.
type stay struct{ ms float64 }

// smooth takes a new mean in; 0 is none.
func (s *stay) smooth(ms float64) float64 {
	switch {
	case ms <= 0 && s.ms == 0:
		return float64(firstStay / time.Millisecond)
	case s.ms == 0:
		s.ms = ms
	case ms > 0:
		s.ms += staySmooth * (ms - s.ms)
	}
	return s.ms
}

// Due implements Refresher.
func (p *resourcePicker) Due(now time.Duration) bool {
	age := now - p.table.Load().at
	return age >= p.every() || age >= refreshUrgent && p.urgent.Load()
}

// every is the time between refreshes: with thousands of endpoints, longer, so
// that they take no more than about a hundredth of a core.
func (p *resourcePicker) every() time.Duration {
	return max(refreshEvery, time.Duration(len(p.slots))*10*time.Microsecond)
}

// Refresh implements Refresher: O(n), and it allocates the table anew, for
// picks may still read the old one.
func (p *resourcePicker) Refresh(now time.Duration) {
	p.urgent.Store(false)
	p.table.Store(newTable(p, now))
}

// means are over the endpoints that tell: by reports as far as they are fresh,
// by latency as far as there are samples.
type means struct {
	cores float64 // capacity
	avail float64 // capacity/cores
	pace  float64 // g, in ms
	stay  float64 // latency, in ms

	mostCores, mostConc float64 // what a claim of either counts as at most
}

func newTable(p *resourcePicker, now time.Duration) *table {
	t := &table{at: now, rated: make([]rated, len(p.slots)), why: make([]rating, len(p.slots))}
	p.seek(now)
	m := p.means(now)
	t.pace, t.calm = m.pace, p.policy.calm.observe(m.pace, now)
	t.perStay = float32(1 / p.policy.stay.smooth(m.stay))
	var all, stale float64
	var flying int64
	for i := range p.slots {
		flying += p.slots[i].ep.inFlight.Load()
		c := p.rate(t, i, m, now)
		all += float64(c.share)
		if c.state == isStale {
			stale += float64(c.share)
		}
	}
	if all > 0 {
		t.staleBelow = uint32(min(stale/all*(1<<32), 1<<32-1))
	}
	// Requests end at endpoints that have left or moved to another picker.
	p.policy.aimd.flying.Store(flying)
	t.expect(now)
	t.fresh, t.stale = newDrawer(t.rated, isFresh), newDrawer(t.rated, isStale)
	if t.stale.empty() {
		t.staleBelow = 0
	}
	return t
}

// means looks at every endpoint once.
func (p *resourcePicker) means(now time.Duration) (m means) {
	p.bound(&m)
	var known, samples float64
	var paces []paceOf
	for _, s := range p.slots {
		if l := s.ep.Load(); l != nil && l.Cores > 0 {
			w := max(freshness(l, now), 1e-6)
			known += w
			m.cores += w * min(capacity(l), m.mostCores)
			m.avail += w * capacity(l) / l.Cores
		}
		if mean, n := s.ep.mind.pace.get(now); n > 0 {
			samples += n
			paces = append(paces, paceOf{mean, n})
			m.stay += n * float64(s.ep.latency.Value()) / float64(time.Millisecond)
		}
	}
	if known > 0 {
		m.cores, m.avail = m.cores/known, m.avail/known
	}
	if samples > 0 {
		m.pace, m.stay = middle(paces, samples), m.stay/samples
	}
	return m
}

// bound sets what a claim of capacity counts as at most: a lie would draw requests
// until latencies tell, which takes a slowness of as many times. Fleets differ less.
func (p *resourcePicker) bound(m *means) {
	m.mostCores, m.mostConc = math.Inf(1), math.Inf(1)
	var cores, concs []float64
	for _, s := range p.slots {
		if l := s.ep.Load(); l != nil && l.Cores > 0 {
			cores = append(cores, capacity(l))
			concs = append(concs, max(1, capacity(l), l.Conc))
		}
	}
	if n := len(cores); n >= claimFew {
		slices.Sort(cores)
		slices.Sort(concs)
		m.mostCores, m.mostConc = claimMost*cores[(n-1)/2], claimMost*concs[(n-1)/2]
	}
}

// paceOf is an endpoint's pace and the samples behind it.
type paceOf struct{ ms, samples float64 }

// middle returns the pace that half of the samples are within. The mean, which
// PICKING.md has, would take a few answers of a sleeper for what is normal, and
// all others for fast.
func middle(all []paceOf, samples float64) float64 {
	slices.SortFunc(all, func(a, b paceOf) int { return cmp.Compare(a.ms, b.ms) })
	var sum float64
	for _, x := range all {
		if sum += x.samples; sum >= samples/2 {
			return x.ms
		}
	}
	return all[len(all)-1].ms
}

// capacity is C of a report that tells cores.
func capacity(l *Load) float64 {
	if l.Avail < 0 {
		return l.Cores
	}
	return max(minAvail*l.Cores, l.Avail)
}

// rate fills in the place i of the table.
func (p *resourcePicker) rate(t *table, i int, m means, now time.Duration) *rated {
	s, c, y := p.slots[i], &t.rated[i], &t.why[i]
	l := s.ep.Load()
	c.ep, c.state = s.ep, isFresh
	y.fresh = freshness(l, now)
	switch {
	case p.Vetoes(s.ep, now):
		c.state = vetoed
	case y.fresh < 1:
		c.state = isStale
	}
	y.cores = m.cores
	if l != nil && l.Cores > 0 {
		y.cores = capacity(l)*y.fresh + l.Cores*m.avail*(1-y.fresh)
	}
	if y.cores <= 0 {
		y.cores = 1 // nobody tells: all are alike but for their weights
	}
	y.cores = max(leastCores, min(y.cores, m.mostCores))
	y.thread, y.conc = 1, max(1, y.cores)
	if l != nil && l.Cores > 0 {
		// By the limit, which always holds: what a neighbour takes now need not
		// slow down work that waits more than it computes.
		y.thread = min(1, max(leastCores, l.Cores))
	}
	if l != nil && l.Conc > 0 {
		y.conc = max(y.conc, min(l.Conc, m.mostConc))
	}
	y.slowness = math.Pow(slowness(s.ep, m.pace, now), max(paceBlind, y.fresh))
	y.health = p.health(s.ep, l, now)

	room := y.cores * float64(s.w) / p.unit
	c.cost = float32(y.slowness / y.health)
	c.perRoom = float32(1 / room)
	if c.state != vetoed {
		c.share = float32(room / y.slowness * y.health)
	}
	return c
}

// freshness is 1 until a report expires, then halves with each further such
// time; 0 without one.
func freshness(l *Load, now time.Duration) float64 {
	switch {
	case l == nil:
		return 0
	case now < l.Expires:
		return 1
	}
	return math.Exp2(-float64(now-l.Expires) / float64(max(l.Expires-l.At, time.Millisecond)))
}

// slowness is b of the formula: how much longer this endpoint takes for a
// request on its own than all do on average, g. Few samples are drawn towards
// g, the less the further out they are: a sleeper is known from its first.
func slowness(e *Endpoint, g float64, now time.Duration) float64 {
	m, n := e.mind.pace.get(now)
	if n == 0 || g <= 0 {
		return 1
	}
	prior := float64(paceTrust)
	if m > 2*g {
		// As the samples fade the prior comes back: who was slow is tried again.
		prior *= min(1, 2*g/m/min(1, n))
	}
	x := (n*m + prior*g) / (n + prior)
	return min(paceSlowest, max(paceFastest, x/g))
}

// health is h of the formula.
func (p *resourcePicker) health(e *Endpoint, l *Load, now time.Duration) float64 {
	h, success := e.Ramp(now), 1-e.mind.failures.get(now)
	if l != nil && now < l.Expires {
		if l.Err > 0 {
			success = min(success, 1-l.Err)
		}
		if over := l.Mem - (p.policy.cfg.MemoryVeto - memoryBand); over > 0 {
			h *= max(minMemory, 1-over/memoryBand)
		}
	}
	if success < wellFrom {
		h *= max(minHealth, success*success*success)
	}
	return h
}
