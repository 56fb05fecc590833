package agentstats

import (
	"context"
	"fmt"
	"math"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/consul/api"
	"github.com/hashicorp/go-hclog"

	"outrigger/agentstats/gauge"
)

// ReportPath is where an agent serves its newest report.
const ReportPath = "/v1/report"

// Bounds of one connection. A poll is one small request each way, so a peer that
// needs longer is broken or hostile; a sidecar's longest pause between polls, 10 s of
// backoff, has to fit in the idle time.
const (
	ioTimeout      = 5 * time.Second
	idleTimeout    = 30 * time.Second
	maxHeaderBytes = 4 << 10
	shutdownGrace  = time.Second
)

// Env is what an agent gets from its surroundings. Every field may be left out.
type Env struct {
	Logger  hclog.Logger // default: none
	Version string       // the program's version, sent with each report
	// Now is the clock; its times carry a monotonic reading. Default: time.Now.
	Now func() time.Time
	// Listen opens the listener for Config.Listen. Default: net.Listen.
	Listen func(network, address string) (net.Listener, error)
	// Consul is a client of the Consul agent on the backend's host; required where the
	// agent registers or publishes. It bounds what it reads (discovery.NewClient's do).
	Consul *api.Client
	// Hurry ends when the drain after Run's ctx is to be cut short: the backend is
	// deregistered at once then. Default: never.
	Hurry context.Context
	// OwnProcess says that the agent is all there is in this process, so that it gives
	// memory back when it has started.
	OwnProcess bool
}

// Agent samples one backend and serves the newest report. It reads: what peers send
// changes nothing but the gauges, which are taken as gaugesRefused allows.
type Agent struct {
	cfg     Config
	env     Env
	sampler interface {
		sample(now time.Time) (Report, string)
	}
	crowd crowd
	guard guard
	// live takes the figures that an answer has as they are at that moment; nil: those of
	// the sample are all there is. It is called for one poll at a time as a rule, and the
	// polls that come meanwhile wait.
	live   func() Live
	routes []route // what is served besides reports and health; not to be changed after Run

	counting *counting
	board    *gauge.Board // counting's; nil: gauges are not taken
	parts    parts
	draining atomic.Bool

	started time.Time
	newest  atomic.Pointer[served]
}

// NewAgent checks the configuration and opens what it samples. On systems other than
// Linux it returns an error that says so.
func NewAgent(cfg Config, env Env) (*Agent, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if env.Logger == nil {
		env.Logger = hclog.NewNullLogger()
	}
	if env.Now == nil {
		env.Now = time.Now
	}
	if env.Listen == nil {
		env.Listen = net.Listen
	}
	s, err := newSampler(cfg, env.Logger)
	if err != nil {
		return nil, err
	}
	a := &Agent{cfg: cfg, env: env, sampler: s, guard: newGuard(cfg.Token), started: env.Now()}
	var board *gauge.Board
	if a.counting, board, err = a.newCounting(); err != nil {
		return nil, err
	}
	a.live = a.counting.look
	if board != nil {
		a.board = board
		a.routes = append(a.routes, route{"GET " + gauge.Path, board})
	}
	if err = a.newParts(); err != nil {
		return nil, err
	}
	m, err := a.metrics()
	if err != nil {
		return nil, fmt.Errorf("agent: %w", err)
	}
	a.routes = append(a.routes, route{"GET " + MetricsPath, m})
	return a, nil
}

// Report returns the newest report; false before Run took the first sample. Safe for
// concurrent use.
func (a *Agent) Report() (Report, bool) {
	s := a.newest.Load()
	if s == nil {
		return Report{}, false
	}
	return s.report, true
}

// Run samples and serves until ctx ends, which is no error. A backend that is not
// there (yet) is none either: reports then say that it does not listen. Where it is
// registered, it is taken out of Consul then and drained, which Config.Register.Drain
// bounds, and served until that is done. An error of the agent's own changes nothing in
// Consul: the backend may be well. Call it once.
func (a *Agent) Run(ctx context.Context) error {
	l, err := a.env.Listen("tcp", a.cfg.Listen)
	if err != nil {
		return fmt.Errorf("agent: cannot listen on %s: %w (set listen to a free port on an address of this host)", a.cfg.Listen, err)
	}
	if p := a.parts.checks; p != nil { // before anything is told of a backend
		if err := p.Open(); err != nil {
			_ = l.Close()
			return fmt.Errorf("agent: %w", err)
		}
	}
	defer a.counting.close()
	if s, ok := a.sampler.(interface{ close() }); ok {
		defer s.close()
	}
	a.take() // so that the first poll is answered
	if a.env.OwnProcess {
		trim()
	}
	a.env.Logger.Info("agent serves", "url", a.cfg.TLS.scheme()+"://"+l.Addr().String()+ReportPath)

	// What serves outlives ctx until the backend is drained.
	inner, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	failed := make(chan error, 4)
	var running sync.WaitGroup
	running.Go(func() { a.loop(inner) })
	running.Go(func() {
		if err := a.serve(inner, l); err != nil {
			failed <- err
		}
	})
	a.runParts(inner, &running, func(err error) { failed <- err })
	select {
	case err = <-failed:
	case <-ctx.Done():
		a.draining.Store(true)
		err = a.leave()
	}
	stop()
	running.Wait()
	return err
}

// leave takes the backend out of service, in Consul or before HAProxy, and returns when
// it may end or Env.Hurry does.
func (a *Agent) leave() error {
	hurry := a.env.Hurry
	if hurry == nil {
		hurry = context.Background()
	}
	if r := a.parts.registrar; r != nil {
		return r.Shutdown(hurry)
	}
	if a.parts.checks != nil {
		t := time.NewTimer(a.cfg.AgentCheck.Drain)
		defer t.Stop()
		select {
		case <-hurry.Done():
		case <-t.C:
		}
	}
	return nil
}

func (a *Agent) loop(ctx context.Context) {
	tick := time.NewTicker(a.cfg.Interval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			a.take()
		}
	}
}

// take samples, encodes and publishes. A sample that cannot be encoded leaves the
// last one in place, whose time then tells its age.
func (a *Agent) take() {
	now := a.env.Now()
	r, state := a.sampler.sample(now)
	r.Version = Version
	r.Instance = a.cfg.Instance
	r.AgentVersion = a.env.Version
	r.At = a.stamp(now)
	if err := a.counting.tick(now, &r, a.pid()); !err.IsZero() {
		r.Err = err
	}
	r.PollMS = pollAsked(a.crowd.polling.Load())
	s, err := prepare(r, now, state, a.live != nil)
	if err != nil {
		a.crowd.failed.Add(1)
		a.env.Logger.Error("a sample was dropped", "error", err)
		return
	}
	a.newest.Store(s)
}

// pid is the backend's process, 0 where there is none.
func (a *Agent) pid() int {
	if s, ok := a.sampler.(interface{ pid() int }); ok {
		return s.pid()
	}
	return 0
}

// pollAsked is the poll interval that keeps this agent at 400 polls a second
// (PICKING.md): its sidecars / 400 s, at most 2 s; absent where that is below what
// any sidecar may be asked for. sidecars are counted by their connections, of which
// each keeps exactly one; those that never polled do not count.
func pollAsked(sidecars int64) Opt[int64] {
	ms := int64(math.Ceil(float64(sidecars) * 1000 / 400))
	if ms <= minPoll.Milliseconds() {
		return Opt[int64]{}
	}
	return Some(min(ms, maxPoll.Milliseconds()))
}
