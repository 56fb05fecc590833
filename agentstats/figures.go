package agentstats

import (
	"math"
	"time"
)

// span is the time over which CPU figures are averaged: a plain mean over the last
// 250 ms (or over one interval, where that is longer) and nothing on top of it. It
// is what the simulation of PICKING.md averaged; a longer memory only delays news.
const span = 250 * time.Millisecond

// counters are cumulative CPU figures read at one moment. A window never mixes
// counters of different sources: it is reset when the sources change.
type counters struct {
	at     time.Duration   // monotonic
	used   time.Duration   // CPU time of the backend
	idle   time.Duration   // idle time, I/O wait included, of the CPUs it may run on
	levels []time.Duration // CPU time of each group with a quota, -1 where not counted
}

// rates are the same figures as cores, over the window.
type rates struct {
	used, idle float64
	levels     []float64 // NaN where not counted
}

// window turns counters into rates over the last span.
type window struct{ ring []counters }

func (w *window) reset() { w.ring = w.ring[:0] }

// push adds c and returns the rates since the youngest counters that are at least
// nine tenths of span old (a timer that fires early must not double the window), or
// false while there are none.
func (w *window) push(c counters) (rates, bool) {
	base := -1
	for i, old := range w.ring {
		if c.at-old.at >= span*9/10 {
			base = i
		}
	}
	w.ring = append(w.ring, c)
	if base < 0 {
		return rates{}, false
	}
	from := w.ring[base]
	w.ring = append(w.ring[:0], w.ring[base:]...)

	seconds := (c.at - from.at).Seconds()
	// Per-CPU idle time is not strictly monotonic in every kernel.
	rate := func(a, b time.Duration) float64 { return max(0, (b-a).Seconds()/seconds) }
	r := rates{used: rate(from.used, c.used), idle: rate(from.idle, c.idle)}
	for i := range c.levels {
		if from.levels[i] < 0 || c.levels[i] < 0 {
			r.levels = append(r.levels, math.NaN())
			continue
		}
		r.levels = append(r.levels, rate(from.levels[i], c.levels[i]))
	}
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
	cores := math.Min(float64(cpus), maxCores)
	for _, q := range quotas {
		cores = math.Min(cores, q)
	}
	if cores = round(cores); !(cores > 0) {
		return
	}
	r.Cores = Some(cores)
	if m == nil {
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
