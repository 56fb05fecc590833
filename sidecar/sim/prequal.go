package sim

import (
	"math"
	"slices"
	"time"

	"outrigger/picker"
)

// Prequal: Wydrowski and others, "Load is not what you should balance", NSDI
// 2024, with asynchronous probing and the paper's parameters.
const (
	prequalPool   = 16
	prequalProbes = 3 // for each request
	prequalRemove = 1 // from the pool, likewise
	prequalDelta  = 1 // net growth that the reuse of probes aims at
	prequalHot    = 0.84
	prequalAge    = time.Second
	prequalRecent = 128 // answers that the distribution of RIF is taken from
	rifMost       = 1024
)

// probed is what a probe found.
type probed struct {
	backend int32
	rif     int // requests in flight
	latency time.Duration
}

// pooled is a probe's answer in a sidecar's pool.
type pooled struct {
	probed
	at   time.Duration
	uses int
}

type prequal struct {
	f       *fleet
	sidecar int32
	rand    picker.Rand

	pool    []pooled // oldest first
	removed int
	recent  lane[int]
	rifs    [rifMost]int32 // how many of recent have each figure
	seats   []seat
	byIndex map[int32]int // of seats
}

func newPrequal(f *fleet, sidecar int32, r picker.Rand) *prequal {
	return &prequal{f: f, sidecar: sidecar, rand: r}
}

func (p *prequal) Name() string { return "prequal" }

func (p *prequal) Build(ready []*picker.Endpoint) picker.Picker {
	p.seats = p.f.seats(ready)
	p.byIndex = make(map[int32]int, len(p.seats))
	for i, s := range p.seats {
		p.byIndex[s.backend] = i
	}
	return p
}

func (p *prequal) Mode(time.Duration) string { return "hot or cold by probes" }

func (p *prequal) Explain(picker.Request) picker.Explanation {
	return picker.Explanation{Rule: p.Mode(0)}
}

// Pick implements picker.Picker: the hot-cold lexicographic rule.
func (p *prequal) Pick(r picker.Request) (*picker.Endpoint, bool) {
	p.send()
	p.pool = slices.DeleteFunc(p.pool, func(x pooled) bool { return r.Now-x.at > prequalAge })
	for range prequalRemove {
		p.remove()
	}
	hot := p.threshold()
	best := -1
	for i := range p.pool {
		x := &p.pool[i]
		k, ok := p.byIndex[x.backend]
		if !ok || !p.seats[k].takes(&r) {
			continue
		}
		if best < 0 || better(x, &p.pool[best], hot) {
			best = i
		}
	}
	if best < 0 || len(p.pool) < 2 {
		return anyOf(p.seats, &r, p.rand)
	}
	x := &p.pool[best]
	e := p.seats[p.byIndex[x.backend]].Endpoint
	x.rif++
	if x.uses--; x.uses <= 0 {
		p.pool = slices.Delete(p.pool, best, best+1)
	}
	return e, true
}

// better says whether x is to be preferred to y: cold before hot, of the cold
// the lower latency, of the hot the lower RIF.
func better(x, y *pooled, hot int) bool {
	a, b := x.rif > hot, y.rif > hot
	switch {
	case a != b:
		return b
	case a:
		return x.rif < y.rif
	default:
		return x.latency < y.latency
	}
}

// threshold is the RIF above which a backend is hot.
func (p *prequal) threshold() int {
	left := int(math.Ceil(prequalHot * float64(p.recent.n)))
	for rif, n := range p.rifs {
		if left -= int(n); left <= 0 {
			return rif
		}
	}
	return rifMost
}

// remove takes the oldest and the worst in turns.
func (p *prequal) remove() {
	if len(p.pool) < 2 {
		return
	}
	p.removed++
	worst := 0
	if p.removed%2 == 0 {
		hot := p.threshold()
		for i := range p.pool {
			if better(&p.pool[worst], &p.pool[i], hot) {
				worst = i
			}
		}
	}
	p.pool = slices.Delete(p.pool, worst, worst+1)
}

// send has probes go to different backends.
func (p *prequal) send() {
	n := len(p.seats)
	var used [prequalProbes]int
	for i := range min(prequalProbes, n) {
		k := int(p.rand(uint32(n)))
		for slices.Contains(used[:i], k) {
			k = (k + 1) % n
		}
		used[i] = k
		p.f.wire.push(event{p.f.now + p.f.cfg.Network.Delay, evProbe, p.sidecar, p.seats[k].backend, 0})
	}
}

// probe has a backend answer.
func (f *fleet) probe(e event) {
	m := &f.machines[e.b]
	if m.down {
		return
	}
	found := probed{e.b, min(m.inFlight(), rifMost-1), 0}
	found.latency = m.seen.near(found.rif)
	if n := len(f.freeProb); n > 0 {
		e.c = f.freeProb[n-1]
		f.freeProb = f.freeProb[:n-1]
		f.probes[e.c] = found
	} else {
		e.c = int32(len(f.probes))
		f.probes = append(f.probes, found)
	}
	f.wire.push(event{f.now + f.cfg.Network.Delay, evProbed, e.a, e.b, e.c})
}

// probeBack puts an answer into the pool of the sidecar that asked.
func (f *fleet) probeBack(e event) {
	p := f.sidecars[e.a].policy.(*prequal)
	x := f.probes[e.c]
	f.freeProb = append(f.freeProb, e.c)
	if p.recent.n == prequalRecent {
		p.rifs[p.recent.pop()]--
	}
	p.recent.push(x.rif)
	p.rifs[x.rif]++
	if len(p.pool) == min(prequalPool, len(p.seats)) {
		p.pool = slices.Delete(p.pool, 0, 1)
	}
	p.pool = append(p.pool, pooled{x, f.clock(), p.uses()})
}

// uses is how often an answer may be used: b of the paper, rounded by chance.
func (p *prequal) uses() int {
	m, n := float64(min(prequalPool, len(p.seats))), float64(len(p.seats))
	rate := (1-m/n)*prequalProbes - prequalRemove
	if rate <= 0 {
		return math.MaxInt32 // few backends: until it is too old
	}
	b := max(1, (1+prequalDelta)/rate)
	whole := math.Floor(b)
	if float64(p.rand(1<<16))/(1<<16) < b-whole {
		whole++
	}
	return int(whole)
}

// latencies are a backend's last few, by how many were in flight.
type latencies struct{ by []recentFew }

type recentFew struct {
	d [32]time.Duration
	n int
}

func (l *latencies) add(rif int, d time.Duration) {
	rif = min(rif, rifMost-1)
	for len(l.by) <= rif {
		l.by = append(l.by, recentFew{})
	}
	x := &l.by[rif]
	x.d[x.n%len(x.d)] = d
	x.n++
}

// near returns the median of the latencies at the nearest figure that there
// are any of, 0 if there are none.
func (l *latencies) near(rif int) time.Duration {
	for off := range max(rif, len(l.by)) + 1 {
		for _, k := range [2]int{rif - off, rif + off} {
			if k >= 0 && k < len(l.by) && l.by[k].n > 0 {
				x := l.by[k]
				few := x.d[:min(x.n, len(x.d))]
				slices.Sort(few)
				return few[len(few)/2]
			}
		}
	}
	return 0
}
