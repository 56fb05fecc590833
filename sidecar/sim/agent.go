package sim

import (
	"math"
	"strconv"
	"time"

	"outrigger/picker"
)

// Memories of an agent's averages (PICKING.md, "Inputs").
const (
	phiMemory = 10 * time.Second
	errMemory = 5 * time.Second
	phiLeast  = 0.005
	phiMost   = 1
	phiBusy   = 0.8 // of avail: a fuller window says nothing of what sustains
	longQueue = 0.5 // mean accept queue above which in-flight beyond it sustains nothing
)

// agent is what an agent knows of its backend.
type agent struct {
	silent bool
	before sums // at the last sample
	at     time.Duration

	cpu, avail, queue float64 // over the last span
	used, inFlight    float64 // moving averages, for phi
	weight            float64 // of those; 0: none yet
	total, failed     float64 // requests, fading
	ended             float64 // requests since the last sample
	meanQPS, meanCPU  float64 // moving averages, for gRPC's weights

	counted float64 // in-flight when it was last looked at
	looked  time.Duration
	name    string // epoch
}

// sample closes a span. The machine has been advanced.
func (m *machine) sample(now time.Duration) {
	a := &m.agent
	dt := (now - a.at).Seconds()
	if dt <= 0 {
		return
	}
	used := min(m.Cores, (m.sum.used-a.before.used)/dt)
	inFlight := (m.sum.inFlight - a.before.inFlight) / dt
	a.avail = min(m.Cores, (m.sum.avail-a.before.avail)/dt) // a sum may be off in its last digit
	a.queue = (m.sum.backlog - a.before.backlog) / dt
	a.cpu = used / m.Cores
	slow := math.Exp(-dt / wrrMemory.Seconds())
	a.meanQPS = a.meanQPS*slow + a.ended/dt*(1-slow)
	a.meanCPU = a.meanCPU*slow + used/a.avail*(1-slow)
	a.ended = 0
	if used > 0 && used < phiBusy*a.avail {
		keep := math.Exp(-dt / phiMemory.Seconds())
		a.used = a.used*keep + used*(1-keep)
		a.inFlight = a.inFlight*keep + inFlight*(1-keep)
		a.weight = a.weight*keep + 1 - keep
	}
	fade := math.Exp(-dt / errMemory.Seconds())
	a.total, a.failed = a.total*fade, a.failed*fade
	a.before, a.at = m.sum, now
}

// conc is the concurrency that the backend sustains without slowing, Absent
// until it is known.
func (m *machine) conc(inFlight float64) float64 {
	a := &m.agent
	if a.weight == 0 || a.inFlight <= 0 {
		return picker.Absent
	}
	c := a.avail / min(phiMost, max(phiLeast, a.used/a.inFlight))
	if a.queue > longQueue {
		c = min(c, max(0, inFlight-float64(m.backlog.n)))
	}
	return c
}

// count tells the agent how a request ended.
func (a *agent) count(how answer) {
	a.ended++
	a.total++
	if how == answerReset || how == answerStatus {
		a.failed++
	}
}

// restart forgets what was of the backend's last life.
func (a *agent) restart(epoch int32) {
	a.used, a.inFlight, a.weight = 0, 0, 0
	a.total, a.failed = 0, 0
	a.name = "epoch " + strconv.Itoa(int(epoch))
}

// report is what the agent of m answers now; nil: nothing.
func (f *fleet) report(m *machine) *picker.Load {
	a, c := &m.agent, &f.cfg.Agents
	if a.silent || c.Loss > 0 && f.reports.Float64() < c.Loss {
		return nil
	}
	m.advance(f.now)
	if f.now-a.looked >= c.Stale {
		a.counted, a.looked = float64(m.inFlight()), f.now
	}
	l := &picker.Load{
		InFlight: a.counted, Cores: m.Cores, Avail: a.avail, CPU: a.cpu,
		Mem: m.memory(), Conc: m.conc(a.counted), Err: 0,
		Epoch: a.name, Listening: f.listens(m),
	}
	if a.total > 0.01 { // else it is of long ago
		l.Err = a.failed / a.total
	}
	if m.Agent.Lies {
		l.InFlight, l.Avail, l.CPU, l.Mem, l.Err = 0, m.Cores, 0, 0, 0
		l.Conc = picker.Absent
	}
	if c.Noise > 0 {
		f.blur(l)
	}
	if c.NoInFlight || m.Agent.NoInFlight {
		l.InFlight = picker.Absent
		l.Conc = picker.Absent // it is made of in-flight
	}
	if c.NoErrors || m.Agent.NoErrors {
		l.Err = picker.Absent
	}
	return l
}

// blur puts noise on the figures that are measured (memory and errors are
// counted exactly), within the bounds that a sidecar accepts.
func (f *fleet) blur(l *picker.Load) {
	for _, v := range []*float64{&l.InFlight, &l.Avail, &l.CPU, &l.Conc} {
		if *v > 0 {
			*v *= max(0, 1+f.cfg.Agents.Noise*f.reports.NormFloat64())
		}
	}
	l.Avail, l.CPU = min(l.Avail, l.Cores), min(l.CPU, 1)
}

// deliver brings a report to a sidecar.
func (f *fleet) deliver(d delivery) {
	l := d.load
	l.At = f.clock() - f.cfg.Network.Delay
	l.Expires = l.At + 3*f.interval
	if d.own >= 0 {
		l.OwnInFlight = float64(d.own)
	} else {
		l.OwnInFlight = float64(f.sidecars[d.sidecar].b.InFlight(f.ids[d.backend]))
	}
	f.got++
	f.sidecars[d.sidecar].b.SetLoad(f.ids[d.backend], l)
}

// delivery is a report on the wire.
type delivery struct {
	at               time.Duration
	sidecar, backend int32
	own              int32 // the sidecar's requests there by its poll; -1: nobody polled
	load             *picker.Load
}

// interval is how often a sidecar polls each endpoint.
func (a *Agents) interval(sidecars int) time.Duration {
	if !a.Asks {
		return a.Interval
	}
	asked := time.Duration(float64(sidecars) / 400 * float64(time.Second))
	return max(a.Interval, min(max(asked, 100*time.Millisecond), 2*time.Second))
}

// poll sends a sidecar's poll of a backend and returns when the next is due.
func (f *fleet) poll(e *event) time.Duration {
	s := &f.sidecars[e.a]
	own := s.b.InFlight(f.ids[e.b])
	f.wire.push(event{f.now + f.cfg.Network.Delay, evPoll, e.a, e.b, int32(own)})
	spread := f.cfg.Agents.Jitter * (2*s.polls.Float64() - 1)
	return f.onGrid(s, f.now+time.Duration(float64(f.interval)*(1+spread)))
}

// onGrid returns the moment of the sidecar's grid that is nearest, so that the
// mean interval stays what it is.
func (f *fleet) onGrid(s *sidecar, at time.Duration) time.Duration {
	g := f.cfg.Agents.Grid
	if g <= 0 {
		return at
	}
	return max(f.now+1, (at-s.phase+g/2)/g*g+s.phase)
}

// push has a backend's agent broadcast one report to every sidecar.
func (f *fleet) push(m *machine) {
	l := f.report(m)
	if l == nil {
		return
	}
	for i := range f.sidecars {
		c := *l
		f.answers.push(delivery{f.now + f.cfg.Network.Delay, int32(i), m.index, -1, &c})
	}
}
