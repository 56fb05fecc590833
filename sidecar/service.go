package sidecar

import (
	"context"
	"fmt"
	"net"
	"sync"

	"github.com/hashicorp/go-hclog"

	"outrigger/agentstats"
	"outrigger/agentstats/publish"
	"outrigger/discovery"
	"outrigger/sidecar/access"
	"outrigger/sidecar/admin"
	"outrigger/sidecar/balance"
	"outrigger/sidecar/h1"
)

// service is one listener with everything behind it.
type service struct {
	cfg      ServiceConfig
	http     h1.Config
	log      hclog.Logger
	source   discovery.Source
	balancer *balance.Balancer
	poller   *agentstats.Poller
	gauges   *gauges
	watcher  *publish.Watcher // nil: reports are not read from Consul
	checks   *checks
	kept     bool // what its source says is kept on disk
	loads    *loads
	ln       net.Listener
	server   *h1.Server
	access   *access.Logger    // nil: there is none
	badAgent map[string]string // by instance ID: what was logged of its agent's address
}

func (sc *Sidecar) newService(c ServiceConfig, env balance.Env, log hclog.Logger) (*service, error) {
	s := &service{cfg: c, http: c.engine(), log: log.With("service", c.Name), badAgent: map[string]string{}}
	s.checks = newChecks(&c, env, s.log)
	s.source = sc.newSource(s, log.Named("discovery"))
	s.kept = sc.store != nil && c.Source.Kind != "file"
	env.Event = s.event
	c.Balance.Pins = c.HTTP.Affinity.Cookie != ""
	env.NewConns = sc.engine.Conns(s.http, s.log)
	agentLog := s.log.Named("agents")
	own := func(id string) int64 { return s.balancer.InFlight(id) } // which is made last
	s.poller = agentstats.NewPoller(sc.cfg.Agents, agentstats.PollEnv{Now: env.Now, Rand: env.Rand, InFlight: own, Logger: agentLog})
	s.gauges = newGauges(sc.cfg.Gauges, env, s.poller.Dial, s.poller.Authorization, agentLog)
	env.NewGauge = s.gauges.hook()
	var err error
	if s.balancer, err = balance.New(c.Balance, env); err != nil {
		return nil, fmt.Errorf("service %q: %w", c.Name, err)
	}
	s.loads = newLoads(c.ORCA, loadsEnv{
		Now: env.Now, Rand: env.Rand, InFlight: own, Set: s.balancer.SetLoad, Published: sc.cfg.Published.Expiry, Log: agentLog,
	})
	if sc.cfg.Published.Enabled && c.Source.Kind == "consul" {
		s.watcher, err = publish.NewWatcher(c.Discover.Service, sc.cfg.Published.WatchConfig, publish.WatchEnv{
			Client: sc.client, Datacenter: c.Discover.Datacenter, Logger: agentLog,
		})
		if err != nil {
			return nil, fmt.Errorf("service %q: %w", c.Name, err)
		}
	}
	if s.ln, err = listen(&c); err != nil {
		return nil, fmt.Errorf("service %q: %w", c.Name, err)
	}
	if c.oneKey(s.ln.Addr()) {
		s.log.Warn(`consistent_hash hashes the client's address, but all clients here are this machine's and none is believed about whom it serves (forward trust is empty): all requests have one key; hash on = "header", "cookie", "path" or "query"`)
	}
	s.access, err = access.New(c.Access, access.Options{Service: c.Name, Rand: env.Rand, Log: s.log.Named("access")})
	if err != nil {
		_ = s.ln.Close()
		return nil, fmt.Errorf("service %q: %w", c.Name, err)
	}
	return s, nil
}

// run follows Consul, polls agents and serves until ctx ends. The listener is
// the server's to close (Shutdown).
func (s *service) run(ctx context.Context, failed chan<- error) {
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { s.balancer.Run(ctx) })
	wg.Go(func() {
		if err := s.source.Watch(ctx, s.apply); err != nil && ctx.Err() == nil {
			failed <- fmt.Errorf("service %q: discovery: %w", s.cfg.Name, err)
		}
	})
	wg.Go(func() {
		if err := s.poller.Run(ctx, s.loads.poll); err != nil && ctx.Err() == nil {
			failed <- fmt.Errorf("service %q: polling agents: %w", s.cfg.Name, err)
		}
	})
	wg.Go(func() { s.gauges.run(ctx) })
	if s.checks != nil {
		wg.Go(func() {
			if err := s.checks.run(ctx, s.balancer.SetCheck); err != nil && ctx.Err() == nil {
				failed <- fmt.Errorf("service %q: health checks: %w", s.cfg.Name, err)
			}
		})
	}
	if s.watcher != nil {
		wg.Go(func() {
			if err := s.watcher.Run(ctx, s.loads.publish); err != nil && ctx.Err() == nil {
				failed <- fmt.Errorf("service %q: reading published reports: %w", s.cfg.Name, err)
			}
		})
	}
	s.server.Serve(s.ln)
}

// apply takes a full set from discovery to the balancer and the poller.
func (s *service) apply(set []discovery.Instance) {
	s.balancer.Update(set)
	s.loads.follow(set)
	s.checks.follow(set)
	targets := make([]agentstats.Target, 0, len(set))
	for _, inst := range set {
		addr, ok, err := agentstats.AgentAddr(inst.Meta, inst.Address)
		if err != nil {
			s.complain(inst.ID, err)
		} else if ok {
			targets = append(targets, agentstats.Target{ID: inst.ID, Addr: addr, Instance: inst.ServiceID(), Backend: inst.Address})
		}
	}
	s.poller.SetTargets(targets)
	s.gauges.setTargets(targets)
	s.log.Debug("membership", "instances", len(set), "with_agent", len(targets))
}

// event logs what the balancer has to say.
func (s *service) event(e balance.Event) {
	if e.Warn {
		s.log.Warn(e.Message, e.Args...)
		return
	}
	s.log.Info(e.Message, e.Args...)
}

// complain logs a bad agent address once, not with every change of the set.
func (s *service) complain(id string, err error) {
	if s.badAgent[id] == err.Error() {
		return
	}
	if len(s.badAgent) > 10000 { // instances come and go; forgetting means logging again
		clear(s.badAgent)
	}
	s.badAgent[id] = err.Error()
	s.log.Warn("the instance's agent is not polled", "instance", id, "error", err)
}

// describe is what the admin listener sees of the service.
func (s *service) describe() admin.Service {
	var snapshots func() admin.Snapshots
	if s.kept {
		snapshots = func() admin.Snapshots {
			d := s.source.Status().Disk
			return admin.Snapshots{Writes: d.Writes, ReadErrors: d.ReadErrors, WriteErrors: d.WriteErrors, Bytes: int64(d.Bytes), Age: d.Age}
		}
	}
	return admin.Service{
		Name: s.cfg.Name, Listen: listenText(s.ln.Addr()),
		Status:    s.balancer.Status,
		Explain:   s.balancer.Explain,
		Key:       s.http.Hash.Hash,
		Decisions: s.balancer.Decisions,
		Denials:   s.balancer.Denials,
		Discovery: s.source.Status,
		Traffic: func() admin.Traffic {
			t := s.server.Stats()
			return admin.Traffic{
				Accepted: t.Accepted, Open: t.Open, Tunnels: t.Tunnels,
				Passed: t.Passed, Own: t.Own,
				ClientErrors: t.ClientErrors, ClientGone: t.ClientGone, Aborted: t.Aborted,
				RetryCauses: h1.Causes(), Retries: t.Retries[:],
				LogWritten: s.access.Written(), LogDropped: s.access.Dropped(), LogErrors: s.access.Errors(),
			}
		},
		Agents: func(id string) admin.AgentStatus {
			st, ok := s.poller.Status(id)
			return admin.AgentStatus{
				Polled: ok, Addr: st.Addr, Polls: st.Polls,
				Failures: st.Failures, Rejected: st.Rejected + st.Replayed, Repeated: st.Repeated, LastError: st.LastError,
				Report: st.Report, Expires: st.Expires,
			}
		},
		Loads:     s.hearsay,
		Checks:    s.checks.describe(s.balancer.Now),
		Snapshots: snapshots,
	}
}

// hearsay is what came of endpoints besides answers to polls.
func (s *service) hearsay() admin.Loads {
	got, sent := s.loads.stats(), s.gauges.stats()
	l := admin.Loads{
		Declared: got.Declared, DeclaredRefused: got.DeclaredRefused, PublishedRefused: got.PublishedRefused,
		Gauges: s.gauges != nil, Streams: sent.Streams, Frames: sent.Frames, StreamsEnded: sent.Dropped,
	}
	if s.watcher != nil {
		w := s.watcher.Status()
		l.Published, l.Reports, l.Reads, l.ReadFails = true, w.Reports, w.Reads, w.Errors
	}
	return l
}
