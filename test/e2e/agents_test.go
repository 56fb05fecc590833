package e2e

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"outrigger/sidecar/admin"
	"outrigger/test/harness"
)

// twoCPUs are two processors that this process may use.
func twoCPUs(t *testing.T) (a, b int) {
	t.Helper()
	if runtime.GOOS != "linux" || runtime.NumCPU() < 2 {
		t.Skip("takes Linux and two processors: one is burnt while the other is not")
	}
	text, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	_, list, _ := strings.Cut(string(text), "Cpus_allowed_list:")
	list, _, _ = strings.Cut(strings.TrimSpace(list), "\n")
	var cpus []int
	for part := range strings.SplitSeq(list, ",") {
		first, last, isRange := strings.Cut(part, "-")
		if !isRange {
			last = first
		}
		from, errFrom := strconv.Atoi(first)
		to, errTo := strconv.Atoi(last)
		if errFrom != nil || errTo != nil {
			t.Fatalf("cannot read the list of processors %q", list)
		}
		for c := from; c <= to; c++ {
			cpus = append(cpus, c)
		}
	}
	return cpus[0], cpus[1]
}

// agentRig is a service with two backends, each with its agent, behind a sidecar
// that balances over them by figures (service "resource") and, to compare, by
// its own count alone (service "control").
func agentRig(t *testing.T, a, b *backend, watch func(*backend) string) (s *sidecar, agents []*process) {
	t.Helper()
	name, agents := registerWithAgents(t, watch, a, b)
	discover := fmt.Sprintf("discover { service = %q }\n", name)
	s = startSidecar(t, sidecarSpec{services: []block{
		{"resource", discover + `policy "resource" {}`},
		{"control", discover + `policy "least_conn" {}`},
	}})
	s.awaitFigures("resource", a, b)
	return s, agents
}

// registerWithAgents registers backends as a service, each with an agent that is
// told by watch what to look at.
func registerWithAgents(t *testing.T, watch func(*backend) string, all ...*backend) (name string, agents []*process) {
	t.Helper()
	cat, name := sharedCatalog(t), uniqueService(t)
	for _, b := range all {
		agent, port := startAgent(t, b, watch(b))
		agents = append(agents, agent)
		cat.register(name, b, withMeta("outrigger_agent", strconv.Itoa(port)))
	}
	return name, agents
}

// awaitFigures waits until the sidecar has live figures of the backends.
func (s *sidecar) awaitFigures(service string, of ...*backend) {
	s.t.Helper()
	s.awaitService(service, "live figures of all", func(doc admin.ServiceDoc) bool {
		for _, b := range of {
			if figuresOf(doc, b) == nil {
				return false
			}
		}
		return !strings.Contains(doc.Mode, "no live")
	})
}

// byPort is how an agent usually finds its backend.
func byPort(b *backend) string { return fmt.Sprintf("port = %d", b.port) }

// eventuallyIfIdle is eventually with 20 s for what only shows on processors that have
// time to spare: it skips the test if they never had for long.
func eventuallyIfIdle(t *testing.T, what string, check func() error, cpus ...int) {
	t.Helper()
	quiet, most := 0, 0 // looks in a row at which all were idle for half of the time
	for end := time.Now().Add(slack(20 * time.Second)); ; {
		var idle []func() float64
		for _, cpu := range cpus {
			idle = append(idle, idleShare(t, cpu))
		}
		err := check()
		if err == nil {
			return
		}
		quiet++
		for _, share := range idle {
			if share() < 0.5 {
				quiet = 0
			}
		}
		most = max(most, quiet)
		switch {
		case time.Now().Before(end):
		case most < 3:
			t.Skipf("the machine is too busy to tell: the processors were never idle for long while waiting for %s; at last: %v", what, err)
		default:
			t.Fatalf("waited for %s; at last: %v", what, err)
		}
	}
}

// Something else burns the processor of one of two backends. A request costs
// next to no CPU, so that least_conn, which serves the same backends beside it,
// has no reason to move: what the resource policy moves, it moves by figures.
//
// Not parallel, for other tests burn too.
func TestAgentFiguresMoveTraffic(t *testing.T) {
	cpuA, cpuB := twoCPUs(t)
	a, b := startBackend(t, "a", cpuA), startBackend(t, "b", cpuB)
	a.sleep(100 * time.Millisecond)
	b.sleep(100 * time.Millisecond)
	s, _ := agentRig(t, a, b, byPort)
	load := startLoad(t, loadSpec{addr: s.addrs["resource"], clients: 10})
	control := startLoad(t, loadSpec{addr: s.addrs["control"], clients: 10})

	share := func() (byFigures, byCount float64) {
		before, beforeControl := load.snapshot(), control.snapshot()
		load.awaitMore(100)
		control.awaitMore(100)
		return shareOf(a, before, load.snapshot()), shareOf(a, beforeControl, control.snapshot())
	}
	eventuallyIfIdle(t, "both policies to treat the backends alike", func() error {
		if byFigures, byCount := share(); byFigures < 0.35 || byCount < 0.35 {
			return fmt.Errorf("a gets a share of %.2f from resource and %.2f from least_conn", byFigures, byCount)
		}
		return nil
	}, cpuA, cpuB)

	start(t, harness.Spec{
		Name: "burner", Path: suite.self, Args: []string{"4"}, Env: append(os.Environ(), childEnv+"=burner"), CPUs: []int{cpuA},
	})
	eventuallyIfIdle(t, "the resource policy to leave a alone", func() error {
		byFigures, byCount := share()
		said := fmt.Sprintf("a gets a share of %.2f from resource and %.2f from least_conn", byFigures, byCount)
		if doc := s.service("resource"); byFigures >= 0.6*byCount || byFigures >= 0.3 || availableCores(doc, a) >= availableCores(doc, b) {
			return errors.New(said)
		}
		t.Log(said)
		return nil
	}, cpuB)
	load.stop().clean(t)
	control.stop().clean(t)
}

// An agent that sees its backend not listen takes it out, for the policy that
// goes by agents. It is told of a second port here, so that the backend can
// close that one and serve on.
func TestAgentVetoes(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("takes Linux: an agent samples nothing elsewhere")
	}
	all := startBackends(t, "a", "b")
	a, door := all[0], freePort(t)
	open := "/ctl/door?at=" + loopback(door)
	a.control(open)
	s, _ := agentRig(t, a, all[1], func(be *backend) string {
		port := be.port
		if be == a {
			port = door
		}
		return fmt.Sprintf("pid = %d\nport = %d", be.proc.PID(), port)
	})
	listening := func(want bool) {
		t.Helper()
		s.awaitService("resource", fmt.Sprintf("a's agent to say that listening is %v", want), func(doc admin.ServiceDoc) bool {
			f := figuresOf(doc, a)
			return f != nil && f.Listening == want
		})
	}
	// Idle backends alike but for a hair all go to the faster one: only requests
	// that overlap, and take about the same time everywhere, show who may be picked.
	for _, be := range all {
		be.sleep(20 * time.Millisecond)
	}
	load := startLoad(t, loadSpec{addr: s.addrs["resource"], clients: 8})
	both := func() {
		t.Helper()
		load.awaitFrom(a, 20)
		load.awaitFrom(all[1], 20)
	}
	listening(true)
	both()
	a.control("/ctl/door")
	listening(false)
	s.awaitService("resource", "what a has to end", func(doc admin.ServiceDoc) bool {
		return !slices.ContainsFunc(doc.Endpoints, func(e admin.EndpointDoc) bool { return e.Address == a.addr() && e.InFlight > 0 })
	})
	before := a.received()
	load.awaitMore(100)
	if n := a.received() - before; n > 0 {
		t.Errorf("a got %d requests from resource while its agent sees it not listen, want none", n)
	}
	if by := getMany(t, s.addrs["control"], 60); by["a"] == 0 || by["b"] == 0 {
		t.Errorf("answers from control while a's agent sees it not listen: %v, want some from both", by)
	}
	a.control(open)
	listening(true)
	both()
	load.stop().clean(t)
}

// With the agents dead the figures run out, status says so, and traffic goes on.
func TestAgentsKilled(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("takes Linux: an agent samples nothing elsewhere")
	}
	all := startBackends(t, "a", "b")
	s, agents := agentRig(t, all[0], all[1], byPort)
	load := startLoad(t, loadSpec{addr: s.addrs["resource"], clients: 4, think: 5 * time.Millisecond})
	load.awaitMore(50)
	for _, agent := range agents {
		agent.Kill()
	}
	doc := s.awaitService("resource", "the mode without figures", func(doc admin.ServiceDoc) bool {
		return strings.HasPrefix(doc.Mode, "no live figures")
	})
	for _, e := range doc.Endpoints {
		if e.Figures == nil || !e.Figures.Expired || e.Agent == nil || e.Agent.FailuresTotal == 0 {
			t.Errorf("with its agent killed %s has figures %+v, agent %+v; want expired ones and failed polls", e.ID, e.Figures, e.Agent)
		}
	}
	load.awaitFrom(all[0], 20)
	load.awaitFrom(all[1], 20)
	load.stop().clean(t)
}

// idleShare begins to watch a processor; the function tells which share of the
// time since then it had nothing to do.
func idleShare(t *testing.T, cpu int) func() float64 {
	t.Helper()
	read := func() (idle, total float64) {
		text, err := os.ReadFile("/proc/stat")
		if err != nil {
			t.Fatal(err)
		}
		_, line, _ := strings.Cut(string(text), fmt.Sprintf("\ncpu%d ", cpu))
		line, _, _ = strings.Cut(line, "\n")
		for i, field := range strings.Fields(line) { // user nice system idle iowait ..., see proc(5)
			v, err := strconv.ParseFloat(field, 64)
			if err != nil {
				t.Fatalf("/proc/stat: %v", err)
			}
			if total += v; i == 3 || i == 4 {
				idle += v
			}
		}
		return idle, total
	}
	idle0, total0 := read()
	return func() float64 {
		idle, total := read()
		return (idle - idle0) / max(1, total-total0)
	}
}

// availableCores of a backend in status, -1 without live figures.
func availableCores(doc admin.ServiceDoc, b *backend) float64 {
	if f := figuresOf(doc, b); f != nil && f.AvailableCores != nil {
		return *f.AvailableCores
	}
	return -1
}

// figuresOf returns a backend's live figures from status, nil if it has none.
func figuresOf(doc admin.ServiceDoc, b *backend) *admin.FiguresDoc {
	for _, e := range doc.Endpoints {
		if f := e.Figures; e.Address == b.addr() && f != nil && !f.Expired && f.AgeSeconds >= 0 && f.CPU != nil &&
			e.Agent != nil && e.Agent.PollsTotal > 0 {
			return f
		}
	}
	return nil
}

// shareOf is the share of the answers between two tallies that b gave.
func shareOf(b *backend, before, after tally) float64 {
	return float64(after.byBackend[b.name]-before.byBackend[b.name]) / float64(after.ok-before.ok)
}
