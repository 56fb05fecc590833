package agentcheck

import (
	"fmt"
	"math"
)

// Unknown marks a figure of a State that is not known: unknown is not zero.
const Unknown = -1

// State is what there is to say of the backend. Every float64 may be Unknown; so is
// what is no number.
type State struct {
	// Unknown says that nothing is known of the backend now, such as before the first
	// sample: HAProxy then hears nothing but of a drain, and keeps what it has.
	Unknown  bool
	Down     bool // it is known that nobody listens on the backend's port
	Unheard  bool // it is not known whether somebody does: neither "up" nor "down" is said
	Draining bool // the agent takes the backend out of service

	Avail float64 // cores that the backend could use now
	Cores float64 // cores that it may use at most
	Mem   float64 // memory in use over its limit
	// MemStall is the share of time in which everything waited for memory: PSI's full.
	MemStall float64
	Err      float64 // share of requests that fail, as the backend says
	Conc     float64 // concurrency that it sustains
}

// Bounds of the weight, from PICKING.md's sweep picker, which a HAProxy with these
// weights imitates as far as it can: its leastconn takes the server with the fewest
// connections for its weight, sweep the one with the fewest requests for its capacity.
const (
	leastCapacity = 0.05 // of the cores: C = max(0.05 cores, avail)
	memFrom       = 0.80 // h *= max(0.01, (0.92-mem)/0.12) above 0.80
	memFull       = 0.92
	leastMem      = 0.01
	okShare       = 0.98 // h = max(0.005, s^3) below it
	leastOK       = 0.005
)

// percent is the weight in percent, at least 1:
//
//	100 avail/cores x (1 - memory stall) x h
//
// The first factor is capacity: what of its limit the backend could have now, in use
// or not, so what a neighbour or a host with too little takes is missing. How busy the
// backend is with its own requests does not count: HAProxy sees these as connections,
// and the idle share instead (the usual agent-check, 100 - CPU) takes weight from a
// server for being used well, at all HAProxies at once. While all of it waits for
// memory the backend has no capacity, and CPU figures do not show that. Pressure on
// CPU and of disks is not counted, being there whenever a backend is busy.
//
// h is PICKING.md's rule of memory near its limit and of errors. It does not veto, as
// there, but ends at 1 percent. What is not known takes nothing away.
//
// Nothing is averaged beyond the 250 ms of the figures: this weight does not follow the
// load that it moves, so it does not swing, and a memory only delays news. In
// TestWeights (neighbours that come and go, agent-inter 2 s) a roundrobin at 70 % of
// capacity has 3.4 % of its requests take over 1 s with fixed weights, 0.9 % with these
// (averaged over 1 or 4 s: 1.3 or 2.3 times as many) and 24 % with the idle share; a
// leastconn at 90 %, which sees by itself who is slow, 0.03, 0.03 and 32 %.
func (c Config) percent(s State) float64 {
	p := 100.0
	cores, avail := s.Cores, s.Avail
	if cores > 0 && !math.IsInf(cores, 1) {
		if !(avail >= 0) {
			avail = cores
		}
		avail = min(max(avail, leastCapacity*cores), cores)
		if p = 100 * avail / cores; c.PercentPerCore > 0 {
			p = float64(c.PercentPerCore) * avail
		}
	}
	if s.MemStall > 0 {
		p *= 1 - min(s.MemStall, 1)
	}
	if s.Mem > memFrom {
		p *= max(leastMem, (memFull-s.Mem)/(memFull-memFrom))
	}
	if ok := 1 - min(s.Err, 1); ok < okShare {
		p *= max(leastOK, ok*ok*ok)
	}
	return min(max(p, 1), maxPercent)
}

// line is the answer to a check, with its newline.
func (c Config) line(s State) string {
	switch {
	case s.Unknown && s.Draining && c.Admin:
		return "drain\n"
	case s.Unknown && s.Draining:
		return "0%\n"
	case s.Unknown:
		return "\n"
	}
	percent := c.percent(s)
	if s.Draining && !c.Admin || s.Down && !c.Health {
		percent = 0
	}
	text := fmt.Sprintf("%.0f%%", percent)
	if n := math.Ceil(s.Conc * c.MaxConnFactor); n >= 1 && n <= math.MaxInt32 {
		text += fmt.Sprintf(" maxconn:%.0f", n)
	}
	switch {
	case c.Admin && s.Draining:
		text = "drain " + text
	case c.Admin:
		text = "ready " + text
	}
	switch {
	case c.Health && s.Down: // HAProxy shows what follows the sharp
		text = "down " + text + " # nobody listens on the backend's port"
	case c.Health && !s.Unheard:
		text = "up " + text
	}
	return text + "\n"
}
