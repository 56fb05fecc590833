package sim

import (
	"math"
	"math/rand/v2"
	"time"
)

// job is a request as a backend has it. It outlives the client's patience.
type job struct {
	request, try int32
	backend      int32
	epoch        int32 // of the backend, when it came
	phase        phase
	work         float64 // seconds of CPU at speed 1 that are left when it begins to compute
	came         time.Duration
	met          int32 // how many were in the backend when it came, itself included
}

type phase uint8

const (
	phaseFree phase = iota
	phaseWire
	phaseBacklog
	phaseWaits // without CPU
	phaseComputes
)

// answer is how a backend ends a job.
type answer int32

const (
	answerGood    answer = iota
	answerReset          // the connection broke
	answerStatus         // a status that counts as failure
	answerRefused        // nobody listens
	answerShed           // a 503 of the backend's own
)

// machine is a backend and what runs beside it. Requests that compute share its
// cores evenly (processor sharing), each at most one core. With n of them each
// gets work done at `rate`; `done` is how much one would have got that has been
// there for ever, so a job that begins at done = d ends at done = d + work, and
// only the first of those ends has to be looked at.
type machine struct {
	*Backend
	index     int32
	neighbour Neighbour
	r         *rand.Rand // of the neighbour

	jobs     []share // computing: a heap by their ends
	backlog  lane[int32]
	waits    int // jobs that wait without CPU
	coming   int // on the wire towards it
	version  int32
	epoch    int32
	down     bool
	known    bool // to discovery
	stolen   float64
	done     float64
	rate     float64
	at       time.Duration // of done and of the sums
	warmFrom time.Duration
	served   float64 // since warmFrom
	leaked   float64 // share of the memory

	sum   sums
	agent agent
	seen  latencies // for Prequal

	requests, dropped, kills, most int
	measured                       sums // at the start of the measured time
}

// sums are integrals over time, in seconds.
type sums struct {
	used     float64 // cores
	avail    float64 // cores that the neighbour leaves
	inFlight float64
	backlog  float64
}

// share is a computing job and its end on machine.done.
type share struct {
	end float64
	job int32
}

// inFlight is what a client would see: worked on, waiting, and in the backlog.
func (m *machine) inFlight() int { return len(m.jobs) + m.waits + m.backlog.n }

// room returns the cores that the neighbour leaves.
func (m *machine) room() float64 { return m.Cores * (1 - m.stolen) }

// advance brings the sums up to the time now.
func (m *machine) advance(now time.Duration) {
	dt := (now - m.at).Seconds()
	if dt <= 0 {
		return
	}
	m.at = now
	m.done += m.rate * dt
	m.sum.used += dt * min(float64(len(m.jobs)), m.room())
	m.sum.avail += dt * m.room()
	m.sum.inFlight += dt * float64(m.inFlight())
	m.sum.backlog += dt * float64(m.backlog.n)
	if m.leaked > 0 {
		m.leaked = max(0, m.leaked-dt*m.Memory.Reclaim)
	}
}

// slow is how many times slower than when warm it is.
func (m *machine) slow() float64 {
	if m.Cold.Slow <= 1 {
		return 1
	}
	x := 0.0
	if m.Cold.Time > 0 {
		x += (m.at - m.warmFrom).Seconds() / m.Cold.Time.Seconds()
	}
	if m.Cold.Requests > 0 {
		x += m.served / m.Cold.Requests
	}
	return 1 + (m.Cold.Slow-1)*math.Exp(-x)
}

// next computes the rate anew and returns when the first job will be done;
// false if there is none. To be called after advance, whenever something has
// changed.
func (m *machine) next() (time.Duration, bool) {
	m.version++
	if len(m.jobs) == 0 {
		m.done, m.rate = 0, 0
		return 0, false
	}
	m.rate = m.Speed / m.slow() * min(1, m.room()/float64(len(m.jobs)))
	left := max(0, m.jobs[0].end-m.done) / m.rate * float64(time.Second)
	return m.at + time.Duration(math.Ceil(left)), true
}

// memory is its working set as a share of the limit.
func (m *machine) memory() float64 {
	return m.Memory.Base + m.leaked + m.Memory.PerRequest*float64(m.inFlight())
}

// burst has the neighbour come or go and returns when that changes again.
func (m *machine) burst(now time.Duration) time.Duration {
	n := m.neighbour
	if m.stolen > 0 || n.Max == 0 {
		m.stolen = 0
		return now + exponential(m.r, n.Off)
	}
	m.stolen = n.Min + (n.Max-n.Min)*m.r.Float64()
	return now + exponential(m.r, n.On)
}

// begin has the neighbour as it is at a time drawn by chance.
func (m *machine) begin() time.Duration {
	n := m.neighbour
	if m.r.Float64()*float64(n.On+n.Off) < float64(n.Off) {
		return exponential(m.r, n.Off)
	}
	m.stolen = n.Min + (n.Max-n.Min)*m.r.Float64()
	return exponential(m.r, n.On)
}

// compute adds a job to those that share the cores.
func (m *machine) compute(i int32, work float64) {
	h := append(m.jobs, share{})
	e := share{m.done + work, i}
	at := len(h) - 1
	for at > 0 && h[(at-1)/2].end > e.end {
		h[at] = h[(at-1)/2]
		at = (at - 1) / 2
	}
	h[at] = e
	m.jobs = h
}

// ready removes the first job to be done.
func (m *machine) ready() int32 {
	h := m.jobs
	first, e := h[0].job, h[len(h)-1]
	h = h[:len(h)-1]
	m.jobs = h
	at := 0
	for len(h) > 0 {
		c := 2*at + 1
		if c >= len(h) {
			break
		}
		if c+1 < len(h) && h[c+1].end < h[c].end {
			c++
		}
		if e.end <= h[c].end {
			break
		}
		h[at] = h[c]
		at = c
	}
	if len(h) > 0 {
		h[at] = e
	}
	return first
}
