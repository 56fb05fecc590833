package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/hashicorp/consul/api"

	"outrigger/agentstats"
	"outrigger/test/harness"
)

// Names of the fleet in Consul: with equal weights for the policy that is told
// what the backends have, with weights by quota for those that are not.
const (
	fleetService  = "fleet"
	fleetWeighted = "fleet-weighted"
)

// fleet is the machines of the balancing case and what runs on them.
type fleet struct {
	all      group // of the bench and all its processes, to tell what others use
	group    group // of all machines
	machines []*machine
	units    int // iterations of a unit of work
	consul   int // process
	stop     context.CancelFunc
}

// machine is a control group with a quota, with a backend and a neighbour in
// it, on one processor. Its agent runs outside: it costs the machine nothing,
// as small as it is against a real one.
type machine struct {
	cores           float64
	group, app, foe group
	port            int           // of the backend
	agent           int           // port
	agentCheck      int           // port of HAProxy's
	inFlight        *atomic.Int64 // by the backend itself, to see when it is idle
	noise           *atomic.Int64 // cores that the neighbour is to burn, in millionths
	procs           []*harness.Process
}

func (m *machine) addr() string { return "127.0.0.1:" + strconv.Itoa(m.port) }

// weight is what an operator would set: by the quota, and as large as HAProxy takes it
// (256), which rounds what agents say of it down.
func (m *machine) weight() int { return int(m.cores*1000 + 0.5) }

// fleetCPUs are the processors that the machines take turns on.
func fleetCPUs() []int { return harness.AllowedCPUs()[:2] }

// startFleet makes the machines. An error that is errNoCgroup tells that this
// one does not allow it.
func (b *bench) startFleet(ctx context.Context) (*fleet, error) {
	all, err := newGroup(fmt.Sprintf("outrigger-bench-%d", os.Getpid()))
	if err != nil {
		return nil, errors.Join(err, all.remove())
	}
	ctx, stop := context.WithCancel(ctx)
	f := &fleet{all: all, stop: stop, units: calibrate(), consul: b.consul.Process().PID()}
	if err := errors.Join(all.add(os.Getpid()), all.add(f.consul)); err != nil {
		return f, err
	}
	// Whatever else runs on this machine comes second for as long as the case takes.
	if err := all.shares(256 * 1024); err != nil {
		return f, err
	}
	if f.group, err = all.child("fleet"); err != nil {
		return f, err
	}
	// Light against the rest of the bench, so that a proxy, an agent or the generator
	// does not wait behind the backends for the processor, which on a machine of its
	// own it would not. What the backends may have, the quotas say.
	if err := f.group.shares(64); err != nil {
		return f, err
	}
	for i, cores := range fleetCores() {
		m := &machine{cores: cores}
		f.machines = append(f.machines, m)
		if err := b.startMachine(ctx, f, i); err != nil {
			return f, fmt.Errorf("machine %d: %w", i, err)
		}
	}
	return f, b.registerFleet(f)
}

func (b *bench) startMachine(ctx context.Context, f *fleet, i int) error {
	m := f.machines[i]
	var err error
	if m.group, err = f.group.child("machine" + strconv.Itoa(i)); err != nil {
		return err
	}
	if err := m.group.quota(m.cores, quotaPeriod); err != nil {
		return err
	}
	if m.app, err = m.group.child("app"); err != nil {
		return err
	}
	if m.foe, err = m.group.child("neighbour"); err != nil {
		return err
	}
	// The neighbour counts for itself what it burns; that it gets it is the weight's doing.
	if err := m.foe.shares(8 * 1024); err != nil {
		return err
	}
	cpu := []int{fleetCPUs()[i%2]}
	if err := b.startBackend(ctx, f, i, cpu); err != nil {
		return err
	}
	return errors.Join(b.startNeighbour(m, i, cpu), b.startAgent(ctx, i, m))
}

func (b *bench) startBackend(ctx context.Context, f *fleet, i int, cpu []int) error {
	m := f.machines[i]
	ports, err := harness.FreePorts(1)
	if err != nil {
		return err
	}
	m.port = ports[0]
	gauge := filepath.Join(b.static, "gauge"+strconv.Itoa(i))
	if m.inFlight, err = mapGauge(gauge); err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	name := "backend" + strconv.Itoa(i)
	log, err := os.Create(b.logPath(name))
	if err != nil {
		return err
	}
	defer log.Close() // the child has its own copy
	p, err := harness.StartProcess(harness.Spec{
		Name: name, Path: self, Args: burnPlan{addr: m.addr(), gauge: gauge, unit: f.units}.args(),
		CPUs: cpu, Env: append(os.Environ(), "GOMAXPROCS=1"), Stdout: log, Stderr: log,
	})
	if err != nil {
		return err
	}
	m.procs = append(m.procs, p)
	err = await(ctx, p, name, func() error {
		_, err := b.get(ctx, m.addr(), workPrefix+"1")
		return err
	})
	if err != nil {
		return fmt.Errorf("%w\n%s", err, b.logOf(name))
	}
	return m.app.add(p.PID())
}

func (b *bench) startNeighbour(m *machine, i int, cpu []int) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	gauge := filepath.Join(b.static, "noise"+strconv.Itoa(i))
	if m.noise, err = mapGauge(gauge); err != nil {
		return err
	}
	p, err := harness.StartProcess(harness.Spec{
		Name: neighbourCommand, Path: self, Args: []string{neighbourCommand, gauge}, CPUs: cpu, Env: append(os.Environ(), "GOMAXPROCS=1"),
	})
	if err != nil {
		return err
	}
	m.procs = append(m.procs, p)
	return m.foe.add(p.PID())
}

// startAgent starts the machine's agent.
func (b *bench) startAgent(ctx context.Context, i int, m *machine) error {
	ports, err := harness.FreePorts(1)
	if err != nil {
		return err
	}
	m.agentCheck = ports[0]
	p, port, err := b.spawnAgent(ctx, "agent"+strconv.Itoa(i), fmt.Sprintf(
		"  backend {\n    pid = %d\n    port = %d\n  }\n  agent_check { listen = %q }\n", m.procs[0].PID(), m.port, "127.0.0.1:"+strconv.Itoa(m.agentCheck)))
	m.agent = port
	if p != nil {
		m.procs = append(m.procs, p)
	}
	return err
}

// registerFleet makes both services known.
func (b *bench) registerFleet(f *fleet) error {
	client, err := b.consul.Client()
	if err != nil {
		return err
	}
	for i, m := range f.machines {
		for name, weight := range map[string]int{fleetService: 1, fleetWeighted: m.weight()} {
			r := &api.AgentServiceRegistration{
				ID: fmt.Sprintf("%s-%d", name, i), Name: name, Address: "127.0.0.1", Port: m.port,
				Weights: &api.AgentWeights{Passing: weight, Warning: weight},
			}
			if name == fleetService {
				r.Meta = map[string]string{agentstats.MetaKey: strconv.Itoa(m.agent)}
			}
			if err := client.Agent().ServiceRegister(r); err != nil {
				return fmt.Errorf("register a backend in Consul: %w", err)
			}
		}
	}
	return nil
}

// make noise as the scene says, until ctx ends.
func (f *fleet) disturb(ctx context.Context, s scene) {
	type change struct {
		at      time.Duration
		machine *machine
		cores   float64
	}
	var changes []change
	for i, m := range f.machines {
		for _, x := range s.bursts[i] {
			changes = append(changes, change{x.from, m, x.share * m.cores}, change{x.to, m, 0})
		}
	}
	slices.SortStableFunc(changes, func(a, b change) int { return cmp.Compare(a.at, b.at) })
	start := time.Now()
	for _, c := range changes {
		if pause(ctx, c.at-time.Since(start)) != nil {
			break
		}
		c.machine.disturb(c.cores)
	}
	f.calm()
}

func (m *machine) disturb(cores float64) { m.noise.Store(int64(cores * 1e6)) }

// calm silences all neighbours.
func (f *fleet) calm() {
	for _, m := range f.machines {
		m.disturb(0)
	}
}

// drain waits until the backends have worked off what clients gave up on.
func (f *fleet) drain(ctx context.Context) error {
	for quiet := 0; quiet < 5; quiet++ {
		for _, m := range f.machines {
			if m.inFlight.Load() > 0 {
				quiet = 0
			}
		}
		if err := pause(ctx, 20*time.Millisecond); err != nil {
			return err
		}
	}
	return nil
}

// close ends everything; the groups can go when nobody is in them.
func (f *fleet) close() error {
	f.stop()
	var errs []error
	for _, m := range f.machines {
		for _, p := range m.procs {
			p.Kill() // they have nothing to save
		}
		for _, g := range []group{m.app, m.foe, m.group} {
			errs = append(errs, g.remove())
		}
	}
	// Consul may be gone already, where a signal has ended all.
	_ = f.all.leave(f.consul)
	return errors.Join(append(errs, f.all.leave(os.Getpid()), f.group.remove(), f.all.remove())...)
}
