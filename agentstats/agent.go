package agentstats

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
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
}

// Agent samples one backend and serves the newest report. It only reads: nothing a
// peer sends changes anything.
type Agent struct {
	cfg     Config
	env     Env
	sampler interface {
		sample(now time.Time) (Report, string)
	}
	conns atomic.Int64

	started time.Time
	newest  atomic.Pointer[served]
}

// served is one sample, encoded once for all pollers.
type served struct {
	report Report
	body   []byte
	at     time.Time
	state  string // what is watched, or why nothing is
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
	return &Agent{cfg: cfg, env: env, sampler: s, started: env.Now()}, nil
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
// there (yet) is none either: reports then say that it does not listen. Call it once.
func (a *Agent) Run(ctx context.Context) error {
	l, err := a.env.Listen("tcp", a.cfg.Listen)
	if err != nil {
		return fmt.Errorf("agent: cannot listen on %s: %w (set listen to a free port on an address of this host)", a.cfg.Listen, err)
	}
	a.take() // so that the first poll is answered
	a.env.Logger.Info("agent serves", "url", "http://"+l.Addr().String()+ReportPath)

	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	sampled := make(chan struct{})
	go func() {
		defer close(sampled)
		a.loop(ctx)
	}()

	srv := a.server()
	failed := make(chan error, 1)
	go func() {
		failed <- srv.Serve(&limitedListener{Listener: l, open: &a.conns, most: int64(a.cfg.MaxConns), log: a.env.Logger})
	}()
	select {
	case err = <-failed:
		err = fmt.Errorf("agent: serving on %s failed: %w", l.Addr(), err)
	case <-ctx.Done():
		err = a.shutdown(srv)
		<-failed //nolint:errcheck // shutting down is what ended it
	}
	cancel()
	<-sampled
	return err
}

func (a *Agent) shutdown(srv *http.Server) error {
	ctx, cancel := context.WithTimeout(context.Background(), shutdownGrace)
	defer cancel()
	err := srv.Shutdown(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		return srv.Close() // a peer in mid-request does not hold the agent up
	}
	return err
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
	// Counted from the start, so that setting the host's clock back does not make every
	// sidecar take the next reports for replays.
	r.At = a.started.Add(now.Sub(a.started)).UnixMilli()
	r.PollMS = pollAsked(a.conns.Load())
	body, err := Encode(r)
	if err != nil {
		a.env.Logger.Error("a sample was dropped", "error", err)
		return
	}
	a.newest.Store(&served{report: r, body: body, at: now, state: state})
}

// pollAsked is the poll interval that keeps this agent at 400 polls a second
// (PICKING.md): its sidecars / 400 s, at most 2 s; absent where that is below what
// any sidecar may be asked for. Open connections stand for sidecars, since each keeps
// exactly one.
func pollAsked(conns int64) Opt[int64] {
	ms := int64(math.Ceil(float64(conns) * 1000 / 400))
	if ms <= minPoll.Milliseconds() {
		return Opt[int64]{}
	}
	return Some(min(ms, maxPoll.Milliseconds()))
}
