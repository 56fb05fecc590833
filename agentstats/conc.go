package agentstats

import (
	"math"
	"time"
)

// Constants of the estimate of conc (PICKING.md, "Inputs").
const (
	phiMemory = 10 * time.Second
	phiLeast  = 0.005 // cores per request; below it, what the app burns in the background drowns it
	phiMost   = 1     // a request uses at most one core
	phiBusy   = 0.8   // of avail: a fuller window has requests in it that wait, not work
	longQueue = 0.5   // mean accept queue above which in-flight beyond it sustains nothing
)

// concEstimator estimates Report.Conc, the concurrency a backend sustains without
// slowing: avail / phi, where phi is the cores that one request in flight keeps busy,
// the mean cores used over the mean in-flight (PICKING.md, "conc"). The zero value
// knows nothing yet. Not for concurrent use.
type concEstimator struct {
	used, inFlight float64 // fading sums of both; only their ratio means anything
	avail, queue   float64 // of the last window
	at             time.Time
}

// reset forgets everything: the next life of a backend need not be like the last.
func (c *concEstimator) reset() { *c = concEstimator{} }

// observe takes one window that ended at now: the means over it of the cores that
// the backend used and could have used, of the requests in it, and of its accept
// queue (0 where unknown). A window in which nothing ran, or nothing was in flight,
// says nothing of what a request needs, and one fuller than phiBusy too little of it.
func (c *concEstimator) observe(now time.Time, used, avail, meanInFlight, meanQueue float64) {
	dt := span
	if !c.at.IsZero() {
		// A gap, while the in-flight was unknown, weighs no more than the memory.
		dt = min(now.Sub(c.at), phiMemory)
	}
	if dt <= 0 || !usable(used) || !usable(avail) || !usable(meanInFlight) || !usable(meanQueue) {
		return
	}
	c.at, c.avail, c.queue = now, avail, meanQueue
	if used == 0 || meanInFlight == 0 || used >= phiBusy*avail {
		return
	}
	keep := math.Exp(-dt.Seconds() / phiMemory.Seconds())
	c.used = c.used*keep + used*(1-keep)
	c.inFlight = c.inFlight*keep + meanInFlight*(1-keep)
}

// usable tells whether v can be a measured amount.
func usable(v float64) bool { return v >= 0 && v <= math.MaxFloat64 }

// value returns conc given the in-flight and the accept queue of this moment, and
// false while no window has told enough.
func (c *concEstimator) value(inFlight, queue float64) (float64, bool) {
	if !(c.inFlight > 0) {
		return 0, false
	}
	conc := c.avail / min(phiMost, max(phiLeast, c.used/c.inFlight))
	if c.queue > longQueue {
		conc = min(conc, max(0, inFlight-queue))
	}
	return conc, true
}

// meanGauge is the mean over time of a gauge that is only seen now and then: between
// two samples it is taken to have moved in a straight line. The zero value is ready.
// Not for concurrent use.
type meanGauge struct {
	area  float64 // value times seconds since from
	from  time.Time
	at    time.Time // of the last sample
	last  float64
	known bool // a sample was taken in this window
}

// reset forgets what was sampled: the gauge has become unknown, or another's.
func (g *meanGauge) reset() { *g = meanGauge{} }

// add takes a sample. One that is older than the last is ignored.
func (g *meanGauge) add(now time.Time, v float64) {
	if !usable(v) {
		return
	}
	if g.at.IsZero() {
		g.from, g.at, g.last, g.known = now, now, v, true
		return
	}
	dt := now.Sub(g.at).Seconds()
	if dt < 0 {
		return
	}
	g.area += (g.last + v) / 2 * dt
	g.at, g.last, g.known = now, v, true
}

// take returns the mean since the last take and begins the next window. It is false
// without a sample in the window. After the last sample the gauge is taken to stand
// still; a now from before it means the moment of that sample.
func (g *meanGauge) take(now time.Time) (float64, bool) {
	if !g.known {
		g.reset() // a value from before the window says nothing of the next either
		return 0, false
	}
	if now.Before(g.at) {
		now = g.at
	}
	mean := g.last
	if length := now.Sub(g.from).Seconds(); length > 0 {
		mean = (g.area + g.last*now.Sub(g.at).Seconds()) / length
	}
	g.area, g.from, g.at, g.known = 0, now, now, false
	return mean, true
}
