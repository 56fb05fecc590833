package agentstats

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"

	"outrigger/agentstats/agentcheck"
	"outrigger/agentstats/declared"
	"outrigger/agentstats/gauge"
	"outrigger/agentstats/orca"
	"outrigger/agentstats/publish"
	"outrigger/agentstats/register"
	"outrigger/agentstats/sockets"
)

// newCounting makes what tells the requests in the backend; board is nil where
// sidecars' gauges are not taken.
func (a *Agent) newCounting() (c *counting, board *gauge.Board, err error) {
	c = &counting{now: a.env.Now, log: a.env.Logger, polling: a.crowd.polling.Load}
	if a.cfg.InFlight.Kernel && a.cfg.Backend.Port != 0 {
		watch := sockets.DefaultConfig()
		watch.Port = a.cfg.Backend.Port
		c.conns = &connections{cfg: watch, space: func(pid int) string { return netSpace(a.cfg.ProcRoot, pid) }}
	} else if a.cfg.InFlight.Kernel && !a.cfg.InFlight.Declared.On() {
		a.env.Logger.Warn("the kernel cannot tell the requests in the backend without backend { port }; set it, or in_flight { kernel = false }")
	}
	if why := a.cfg.gaugesRefused(); why != "" {
		a.env.Logger.Warn("gauges of sidecars are not taken", "because", why)
	} else if a.cfg.InFlight.Gauges {
		board = gauge.NewBoard(gauge.BoardConfig{MaxStreams: a.cfg.InFlight.MaxGauges}, gauge.BoardEnv{
			Now: a.env.Now, Logger: a.env.Logger.Named("gauges"), Socket: plainSocket,
		})
		c.board = board
	}
	if a.cfg.InFlight.Declared.On() {
		d, err := declared.New(a.cfg.InFlight.Declared, declared.Env{Logger: a.env.Logger.Named("declared"), Now: a.env.Now, ORCA: orcaFigures})
		if err != nil {
			return nil, nil, fmt.Errorf("agent: %w", err)
		}
		c.declared = d
	}
	return c, board, nil
}

// plainSocket returns the TCP connection below a connection of the server's that passes
// its bytes on unchanged, nil for one that does not (TLS).
func plainSocket(c net.Conn) *net.TCPConn {
	for {
		switch x := c.(type) {
		case *net.TCPConn:
			return x
		case *limitedConn:
			c = x.Conn
		case *replayedConn:
			if len(x.first) > 0 {
				return nil
			}
			c = x.Conn
		default:
			return nil
		}
	}
}

// metrics serves the figures to Prometheus.
func (a *Agent) metrics() (http.Handler, error) {
	return metricsHandler(metricsSource{
		version: a.env.Version, instance: a.cfg.Instance,
		report: func() (Report, time.Duration, bool) {
			r, at, ok := a.current()
			return r, a.env.Now().Sub(at), ok
		},
		counts: func() counts {
			c := counts{
				polls: a.crowd.polls.Load(), open: a.crowd.open.Load(), polling: a.crowd.polling.Load(),
				turnedAway: a.crowd.turnedAway.Load(), refused: a.crowd.refused.Load(), samplesFailed: a.crowd.failed.Load(),
			}
			if p := a.parts.checks; p != nil {
				s := p.Stats()
				c.checks, c.checksTurnedAway = Some(int64(s.Answered)), Some(int64(s.TurnedAway))
			}
			c.partCounts = a.partCounts()
			return c
		},
	}, a.env.Logger)
}

// orcaFigures reads an endpoint-load-metrics header for package declared.
func orcaFigures(value []byte, named string) (inFlight, errShare float64, err error) {
	r, err := orca.Parse(value, named)
	if err != nil {
		return declared.Absent, declared.Absent, err
	}
	return r.InFlight, r.ErrShare(), nil // orca.Absent is declared.Absent
}

// parts are what an agent does besides sampling and serving; each may be nil.
type parts struct {
	registrar *register.Registrar
	publisher *publish.Publisher
	checks    *agentcheck.Server
}

var errNoConsul = errors.New("agent: register and publish need a Consul client, and there is none")

func (a *Agent) newParts() (err error) {
	p := &a.parts
	if a.cfg.Register.Service != "" {
		if p.registrar, err = a.newRegistrar(); err != nil {
			return err
		}
		if err := checkInstance(a.cfg.Instance, p.registrar.ID()); err != nil {
			return fmt.Errorf("agent: %w", err)
		}
		a.cfg.Instance = p.registrar.ID()
	}
	if a.cfg.Publish.To != "" {
		if p.publisher, err = a.newPublisher(); err != nil {
			return err
		}
	}
	if a.cfg.AgentCheck.Listen != "" {
		p.checks, err = agentcheck.New(a.cfg.AgentCheck, agentcheck.Env{
			State: a.checkState, Logger: a.env.Logger.Named("agent_check"), Now: a.env.Now, Listen: a.env.Listen,
		})
	}
	return err
}

func (a *Agent) newRegistrar() (*register.Registrar, error) {
	if a.env.Consul == nil {
		return nil, errNoConsul
	}
	cfg, meta := a.cfg.registration(), map[string]string{}
	if loopback(a.cfg.Listen) && cfg.Address == "" {
		a.env.Logger.Warn("sidecars on other hosts cannot poll this agent", "listen", a.cfg.Listen)
	}
	if at := cfg.AgentMeta(a.cfg.Listen); at != "" {
		meta[MetaKey] = at
	}
	return register.New(cfg, register.Env{
		Client: a.env.Consul, Logger: a.env.Logger.Named("register"), Meta: meta, Now: a.env.Now,
		InFlight: func() (float64, bool) { return a.counting.look().InFlight.Get() },
	})
}

func (a *Agent) newPublisher() (*publish.Publisher, error) {
	if a.env.Consul == nil {
		return nil, errNoConsul
	}
	service, instance := a.cfg.Publish.Service, a.cfg.Instance
	if service == "" {
		service = a.cfg.Register.Service
	}
	if r := a.parts.registrar; r != nil && service == a.cfg.Register.Service {
		instance = r.ID() // by which sidecars know it, whatever it is called in reports
	}
	return publish.New(a.cfg.Publish.Config, publish.Env{
		Client: a.env.Consul, Logger: a.env.Logger.Named("publish"), Service: service, Instance: instance, Now: a.env.Now,
		Report: func() ([]byte, time.Time, bool) {
			r, at, ok := a.current()
			if !ok {
				return nil, at, false
			}
			b, err := Encode(r)
			return b, at, err == nil
		},
	})
}

// checkState is what HAProxy is told.
func (a *Agent) checkState() agentcheck.State {
	s := agentcheck.State{
		Draining: a.draining.Load(), Avail: agentcheck.Unknown, Cores: agentcheck.Unknown, Mem: agentcheck.Unknown,
		MemStall: agentcheck.Unknown, Err: agentcheck.Unknown, Conc: agentcheck.Unknown,
	}
	r, _, ok := a.current()
	if !ok {
		s.Unknown = true
		return s
	}
	listening, known := r.Listening.Get()
	s.Down, s.Unheard = known && !listening, !known
	s.Avail, s.Cores, s.Mem = r.Avail.Or(s.Avail), r.Cores.Or(s.Cores), r.Mem.Or(s.Mem)
	s.Err, s.Conc = r.Err.Or(s.Err), r.Conc.Or(s.Conc)
	if r.Pressure.Scope == "group" {
		s.MemStall = r.Pressure.Memory.Full.Or(s.MemStall)
	}
	return s
}

// current returns the newest sample with the live figures of this moment, and the
// sample's time; false while there is none that may be given.
func (a *Agent) current() (Report, time.Time, bool) {
	s, now := a.newest.Load(), a.env.Now()
	if a.stale(s, now) != "" {
		return Report{}, time.Time{}, false
	}
	r := s.report
	if a.live != nil {
		l := a.live()
		r.InFlight, r.InFlightSource, r.Conc = l.InFlight, l.Source, l.Conc
		r.AcceptQueue, r.AcceptLimit = l.AcceptQueue, l.AcceptLimit
		if e := a.counting.errShare(); !e.IsZero() {
			r.Err = e // the sample may be of when nobody asked
		}
	}
	return r, s.at, true
}

// runParts runs them until ctx ends and they have; a failure goes to failed.
func (a *Agent) runParts(ctx context.Context, running *sync.WaitGroup, failed func(error)) {
	start := func(run func(context.Context) error) {
		running.Go(func() {
			if err := run(ctx); err != nil && ctx.Err() == nil {
				failed(err)
			}
		})
	}
	if p := a.parts.registrar; p != nil {
		start(p.Run)
	}
	if p := a.parts.publisher; p != nil {
		start(p.Run)
	}
	if p := a.parts.checks; p != nil {
		start(p.Run)
	}
}
