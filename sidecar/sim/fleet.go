package sim

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"time"

	"outrigger/discovery"
	"outrigger/picker"
	"outrigger/sidecar/balance"
)

// clockStart is what the balancers' clock reads at the start of the run: like
// balance.RealEnv, no time stamp is 0.
const clockStart = time.Second

// fleet is the state of a run.
type fleet struct {
	cfg      *Config
	now      time.Duration
	interval time.Duration // of polls

	sidecars []sidecar
	machines []machine
	ids      []string // of the backends in discovery
	index    map[string]int32

	// What is to come. The heap holds what may come at any time, polls what each
	// sidecar asks each agent, the lanes what has one and the same delay.
	heap     heap4
	polls    heap4
	wire     lane[event]
	answers  lane[delivery]
	patience lane[event]
	queueing lane[event]
	roused   lane[int32] // sidecars whose balancer wants a Tick now

	requests []*request
	free     []int32
	jobs     []job
	freeJobs []int32
	probes   []probed // what probes on their way back have found
	freeProb []int32

	arrivals *poisson
	reports  *rand.Rand
	faults   *rand.Rand
	prequal  bool // backends keep what probes ask for

	feedback feedback // of the answer that is being taken
	stats    stats
	events   uint64
	got      uint64
}

// sidecar is one of the fleet's.
type sidecar struct {
	b      *balance.Balancer
	polls  *rand.Rand
	phase  time.Duration // of its grid of polls
	roused bool
	tickAt time.Duration // of the tick that the heap holds; 0: none
	policy picker.Policy // of a baseline
	asked  []bool        // polls of these backends are under way
}

// link tells which backend a lease is on, where an engine keeps connections.
type link struct{ backend int32 }

func (link) Retire() {}

// feedback is what a backend sends with an answer, for C3.
type feedback struct {
	inFlight float64
	service  float64 // seconds of CPU time, at the backend's speed
}

func newFleet(c *Config) (*fleet, error) {
	f := &fleet{
		cfg: c, interval: c.Agents.interval(c.Sidecars),
		arrivals: newPoisson(c), reports: stream(c.Seed, streamReports), faults: stream(c.Seed, streamFaults),
		prequal: c.Baseline == "prequal",
		index:   make(map[string]int32, len(c.Backends)),
	}
	f.stats.init(c)
	for i := range c.Backends {
		id := fmt.Sprintf("sim/backend-%d", i)
		f.ids = append(f.ids, id)
		f.index[id] = int32(i)
	}
	f.machines = make([]machine, len(c.Backends))
	for i := range f.machines {
		f.startMachine(int32(i))
	}
	f.sidecars = make([]sidecar, c.Sidecars)
	for i := range f.sidecars {
		if err := f.startSidecar(i); err != nil {
			return nil, err
		}
	}
	f.members()
	for _, t := range memberTimes(c) {
		f.heap.push(event{at: t, kind: evMembers})
	}
	f.arrive()
	return f, nil
}

func (f *fleet) startMachine(i int32) {
	c, m := f.cfg, &f.machines[i]
	*m = machine{Backend: &c.Backends[i], index: i, neighbour: c.Neighbour, r: stream(c.Seed, streamNeighbours+uint64(i))}
	if m.Backend.Neighbour != nil {
		m.neighbour = *m.Backend.Neighbour
	}
	if m.neighbour.On > 0 {
		f.heap.push(event{at: m.begin(), kind: evNeighbour, a: i})
	}
	m.warmFrom = m.Joins
	a := &m.agent
	a.restart(0)
	a.avail, a.cpu = picker.Absent, picker.Absent
	share := c.Agents.Silent // spread evenly: n of every so many
	a.silent = m.Agent.Silent || math.Floor(float64(i+1)*share+1e-9) > math.Floor(float64(i)*share+1e-9)
	f.heap.push(event{at: time.Duration(m.r.Int64N(int64(c.Agents.Span))), kind: evAgent, a: i})
	if c.Agents.Broadcast {
		f.heap.push(event{at: m.Joins + time.Duration(m.r.Int64N(int64(f.interval))), kind: evPush, a: i})
	}
}

func (f *fleet) startSidecar(i int) error {
	c, s := f.cfg, &f.sidecars[i]
	s.polls = stream(c.Seed, streamPolls+uint64(i))
	s.asked = make([]bool, len(c.Backends))
	if c.Agents.Grid > 0 {
		s.phase = time.Duration(s.polls.Int64N(int64(c.Agents.Grid)))
	}
	chance := stream(c.Seed, streamSidecars+uint64(i))
	env := balance.Env{
		Now:  f.clock,
		Rand: chance.Uint32N,

		ShadowRand: stream(c.Seed, streamShadows+uint64(i)).Uint32N,
		Wake: func() {
			if !s.roused {
				s.roused = true
				f.roused.push(int32(i))
			}
		},
		NewConns: func(ep *picker.Endpoint) balance.Conns { return link{f.index[ep.ID]} },
	}
	if c.Baseline != "" {
		env.Policy = func(_ picker.Config, r picker.Rand) (picker.Policy, error) {
			s.policy = f.baseline(int32(i), r)
			return s.policy, nil
		}
	}
	var err error
	s.b, err = balance.New(c.Balance, env)
	return err
}

// clock is what balancers read.
func (f *fleet) clock() time.Duration { return f.now + clockStart }

// memberTimes returns when backends join and leave, in order.
func memberTimes(c *Config) []time.Duration {
	var all []time.Duration
	for i := range c.Backends {
		for _, t := range []time.Duration{c.Backends[i].Joins, c.Backends[i].Leaves} {
			if t > 0 {
				all = append(all, t)
			}
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// members tells every sidecar which backends there are now.
func (f *fleet) members() {
	var set []discovery.Instance
	for i := range f.machines {
		m := &f.machines[i]
		m.known = f.now >= m.Joins && (m.Leaves == 0 || f.now < m.Leaves)
		if m.known {
			set = append(set, discovery.Instance{
				ID: f.ids[i], Service: f.cfg.Balance.Service, Node: "sim",
				Address: fmt.Sprintf("10.%d.%d.%d", i>>16, i>>8&255, i&255), Port: 8080,
				Weight: max(1, m.Weight),
			})
		}
	}
	for i := range f.sidecars {
		s := &f.sidecars[i]
		s.b.Update(set)
		if !f.cfg.Agents.Broadcast {
			f.startPolls(int32(i), s)
		}
	}
}

// startPolls begins polls of the backends that are new, each at a random moment
// of the next interval.
func (f *fleet) startPolls(i int32, s *sidecar) {
	for k := range f.machines {
		if f.machines[k].known && !s.asked[k] {
			s.asked[k] = true
			at := f.now + time.Duration(s.polls.Int64N(int64(f.interval)))
			f.polls.push(event{at: f.onGrid(s, at), kind: evPoll, a: i, b: int32(k)})
		}
	}
}

// arrive puts the next arrival on the heap.
func (f *fleet) arrive() {
	if at, ok := f.arrivals.next(); ok {
		f.heap.push(event{at: at, kind: evArrival})
	}
}

// tick does what a balancer's Run does.
func (f *fleet) tick(i int32) {
	s := &f.sidecars[i]
	s.roused = false
	wait := s.b.Tick()
	if wait >= time.Hour {
		return
	}
	if at := f.now + wait; s.tickAt == 0 || s.tickAt > at {
		s.tickAt = at
		f.heap.push(event{at: at, kind: evTick, a: i})
	}
}

// listens reports whether connections to a backend are accepted.
func (f *fleet) listens(m *machine) bool {
	return !m.down && !(m.Fault.Kind == Refuse && m.Fault.Share == 1 && f.faulty(m))
}

// faulty reports whether the time of a backend's fault is now.
func (f *fleet) faulty(m *machine) bool {
	x := &m.Fault
	return x.Kind != NoFault && f.now >= x.From && (x.Until == 0 || f.now < x.Until)
}
