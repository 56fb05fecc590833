package agentstats

import (
	"math"
	"time"
)

// span is the time over which CPU, pressure and network figures are averaged: a plain
// mean over the last 250 ms (or over one interval, where that is longer) and nothing
// on top of it, taken from the kernel's running totals, not from its own averages. It
// is what the simulation of PICKING.md averaged; a longer memory only delays news.
const span = 250 * time.Millisecond

// maxLevels bounds the groups with a quota that are watched; deeper nests of quotas
// than this are not found in the wild, and the loosest of them are left out.
const maxLevels = 8

// unknown marks a counter that could not be read.
const unknown = -1

// What the kernel counts stalls of, in the order of stalls.
const (
	stallCPU = iota
	stallMemory
	stallIO
	resources
)

// stalls are the cumulative stall times of the resources, some and full; unknown where
// the kernel has none.
type stalls [resources][2]time.Duration

var noStalls = stalls{{unknown, unknown}, {unknown, unknown}, {unknown, unknown}}

// counters are cumulative figures read at one moment; each may be unknown. A window
// never mixes counters of different sources: it is reset when the sources change.
type counters struct {
	at     time.Duration            // monotonic
	used   time.Duration            // CPU time of the backend
	idle   time.Duration            // idle time, I/O wait included, of the CPUs it may run on
	levels [maxLevels]time.Duration // CPU time of each group with a quota
	stalls stalls
	rx, tx int64 // bytes
}

// rates are the same figures per second, over the window: cores, shares of time and
// bytes a second. NaN where a counter was unknown at either end.
type rates struct {
	used, idle float64
	levels     [maxLevels]float64
	stalls     [resources][2]float64
	rx, tx     float64
}

// window turns counters into rates over the last span.
type window struct{ ring []counters }

func (w *window) reset() { w.ring = w.ring[:0] }

// push adds c and returns the rates since the youngest counters that are at least
// nine tenths of span old (a timer that fires early must not double the window), or
// false while there are none.
func (w *window) push(c counters) (rates, bool) {
	base := -1
	for i := range w.ring {
		if c.at-w.ring[i].at >= span*9/10 {
			base = i
		}
	}
	if base < 0 {
		w.ring = append(w.ring, c)
		return rates{}, false
	}
	from := w.ring[base]
	w.ring = append(append(w.ring[:0], w.ring[base:]...), c)

	seconds := (c.at - from.at).Seconds()
	per := func(a, b int64, unit float64) float64 {
		if a < 0 || b < 0 {
			return math.NaN()
		}
		// Per-CPU idle time is not strictly monotonic in every kernel.
		return max(0, float64(b-a)/unit/seconds)
	}
	rate := func(a, b time.Duration) float64 { return per(int64(a), int64(b), float64(time.Second)) }
	r := rates{used: rate(from.used, c.used), idle: rate(from.idle, c.idle)}
	for i := range c.levels {
		r.levels[i] = rate(from.levels[i], c.levels[i])
	}
	for i := range c.stalls {
		for j := range c.stalls[i] {
			r.stalls[i][j] = rate(from.stalls[i][j], c.stalls[i][j])
		}
	}
	r.rx, r.tx = per(from.rx, c.rx, 1), per(from.tx, c.tx, 1)
	return r, true
}

// cpuFigures fills cores, used, cpu and avail. cpus is the number of CPUs the backend
// may run on, quotas the cores each of its groups may use, in the order of
// rates.levels; r is nil where nothing has been measured yet.
//
// avail = min(used + idle, and for each quota what the rest of its group leaves of
// it). What a neighbour takes counts as gone even where the scheduler would give the
// backend a share of it back: the definition of PICKING.md.
//
// A measured overshoot (a quota is enforced per 100 ms period, ticks are 10 ms) is
// clamped to cores.
func (r *Report) cpuFigures(cpus int, quotas []float64, m *rates) {
	if cpus < 1 {
		return
	}
	cores := math.Min(float64(cpus), maxCores)
	for _, q := range quotas {
		cores = math.Min(cores, q)
	}
	if cores = round(cores); !(cores > 0) {
		return
	}
	r.Cores = Some(cores)
	if m == nil || math.IsNaN(m.used) || math.IsNaN(m.idle) {
		return
	}
	used := math.Min(m.used, cores)
	avail := used + math.Min(m.idle, float64(cpus))
	for i, q := range quotas {
		others := 0.0
		if level := m.levels[i]; !math.IsNaN(level) {
			others = math.Max(0, level-m.used)
		}
		avail = math.Min(avail, q-others)
	}
	r.Used = Some(math.Min(round(used), cores))
	r.Avail = Some(math.Min(round(math.Max(0, avail)), cores))
	r.CPU = Some(math.Min(round(used/cores), 1))
}

// pressureFigures fills pressure. A stall cannot last longer than the window; kernel
// and agent read their clocks a moment apart.
func (r *Report) pressureFigures(scope string, m *rates) {
	share := func(v float64) Opt[float64] {
		if math.IsNaN(v) {
			return Opt[float64]{}
		}
		return Some(round(math.Min(v, 1)))
	}
	var p Pressure
	for i, to := range [resources]*Stall{stallCPU: &p.CPU, stallMemory: &p.Memory, stallIO: &p.IO} {
		*to = Stall{Some: share(m.stalls[i][0]), Full: share(m.stalls[i][1])}
	}
	if p != (Pressure{}) {
		p.Scope = scope
		r.Pressure = p
	}
}

// networkFigures fills rx and tx.
func (r *Report) networkFigures(m *rates) {
	if !math.IsNaN(m.rx) && !math.IsNaN(m.tx) {
		r.RxBytes = Some(math.Min(math.Round(m.rx), maxInteger))
		r.TxBytes = Some(math.Min(math.Round(m.tx), maxInteger))
	}
}

// memLevel is one limit on the backend's memory: bytes in use under it, and its size.
type memLevel struct{ used, limit int64 }

// memFigures fills mem_bytes, mem_limit and mem from the backend's own working set
// and every limit that applies to it.
func (r *Report) memFigures(own int64, limits []memLevel) {
	r.MemBytes = Some(min(own, maxInteger))
	for _, l := range limits {
		if l.limit < 1 || l.limit > maxInteger {
			continue
		}
		ratio := math.Min(round(float64(max(0, l.used))/float64(l.limit)), maxMem)
		if ratio >= r.Mem.Or(0) {
			r.Mem = Some(ratio)
		}
		if l.limit <= r.MemLimit.Or(math.MaxInt64) {
			r.MemLimit = Some(l.limit)
		}
	}
}

// round keeps four decimals: finer than anything the kernel's ticks can tell.
func round(v float64) float64 { return math.Round(v*1e4) / 1e4 }
