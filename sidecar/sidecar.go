package sidecar

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/consul/api"
	"github.com/hashicorp/go-hclog"

	"outrigger/discovery"
	"outrigger/sidecar/admin"
	"outrigger/sidecar/balance"
	"outrigger/sidecar/h1"
	"outrigger/sidecar/tunnel"
)

// Sidecar is an assembled proxy. New, then Run once.
type Sidecar struct {
	cfg      Config
	log      hclog.Logger
	engine   *h1.Engine
	services []*service
	admin    *admin.Server
	client   *api.Client
	gate     *discovery.Gate
	store    *discovery.Store // nil: nothing is kept on disk
	probes   *discovery.ProbeLimit
	draining atomic.Bool
}

// probesAtOnce bounds the probes of all services: a token that lost its rights loses
// the instances of all of them at once.
const probesAtOnce = 64

// New assembles a sidecar and opens its listeners, so that a port that is taken
// shows at once. It does not speak to Consul yet.
func New(cfg Config, log hclog.Logger, version string) (*Sidecar, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	env := balance.RealEnv(nil) // one clock for all: figures' ages are told on it too
	engine, err := h1.NewEngine(env.Now)
	if err != nil {
		return nil, fmt.Errorf("starting the HTTP engine: %w", err)
	}
	client, gate, err := discovery.NewGatedClient(cfg.Consul, log.Named("consul"))
	if err != nil {
		return nil, err
	}
	sc := &Sidecar{cfg: cfg, log: log, engine: engine, client: client, gate: gate, probes: discovery.NewProbeLimit(probesAtOnce)}
	sc.store = discovery.NewStore(cfg.StateDir, discovery.Env{Logger: log.Named("discovery")})
	keys, err := newAffinityKeys(cfg, log)
	if err != nil {
		return nil, err
	}
	for _, text := range cfg.Agents.Warnings() {
		log.Named("agents").Warn(text)
	}
	o := admin.Options{Version: version, Log: log.Named("admin"), Draining: sc.draining.Load}
	o.Consul = func() admin.Consul {
		g := gate.Status()
		return admin.Consul{
			Limit: g.Limit, InUse: g.InUse, Waiting: g.Waiting, Readers: g.Readers, HTTP2: g.HTTP2,
			LongestWait: g.LongestWait, BusyConnections: g.BusyConnections, BusyRate: g.BusyRate,
		}
	}
	for _, c := range cfg.Services {
		c.Discover.NodeMeta = c.Balance.Locality.NodeMeta()
		s, err := sc.newService(c, env, log)
		if err != nil {
			return nil, errors.Join(err, sc.closeListeners())
		}
		sc.services = append(sc.services, s)
		o.Services = append(o.Services, s.describe())
	}
	sc.admin, err = admin.New(cfg.Admin, o)
	if err == nil {
		_, err = sc.admin.Listen()
	}
	if err != nil {
		return nil, errors.Join(err, sc.closeListeners())
	}
	for _, s := range sc.services {
		s.server = engine.NewServer(s.http, s.balancer, h1.Options{
			Log: s.log, Tunnel: tunnel.Run, Observe: sc.admin.Observe(s.cfg.Name), Access: s.access,
			AffinityKey: keys.of(&s.cfg), Load: s.loads.hear(),
		})
	}
	return sc, nil
}

func (sc *Sidecar) closeListeners() error {
	var errs []error
	for _, s := range sc.services {
		errs = append(errs, s.ln.Close(), s.access.Close(context.Background()))
	}
	return errors.Join(errs...)
}

// Run serves until ctx ends, then stops accepting, lets what is in flight
// finish within the grace time, and returns nil. An error means that it could
// not go on serving, or that the grace time ran out with requests in flight.
func (sc *Sidecar) Run(ctx context.Context) error {
	// What serves requests outlives ctx until they are done.
	inner, stop := context.WithCancel(context.WithoutCancel(ctx))
	var wg sync.WaitGroup
	defer wg.Wait()
	defer stop()
	failed := make(chan error, 1+4*len(sc.services)) // room for all who may send

	wg.Go(func() { sc.engine.Run(inner) })
	wg.Go(func() { sc.locate(inner) })
	wg.Go(func() {
		if err := sc.admin.Serve(inner); err != nil {
			failed <- fmt.Errorf("admin listener: %w", err)
		}
	})
	for _, s := range sc.services {
		sc.log.Info("serving", "service", s.cfg.Name, "listen", listenText(s.ln.Addr()), "policy", s.cfg.Balance.Picker.Policy)
		wg.Go(func() { s.run(inner, failed) })
	}
	sc.log.Info("admin listener", "addr", sc.admin.Addr())

	var err error
	select {
	case <-ctx.Done():
		sc.log.Info("shutting down", "grace", sc.cfg.Grace)
	case err = <-failed:
		sc.log.Error("shutting down", "error", err)
	}
	return errors.Join(err, sc.shutdown())
}

// shutdown drains all listeners within the grace time.
func (sc *Sidecar) shutdown() error {
	sc.draining.Store(true)
	ctx, cancel := context.WithTimeout(context.Background(), sc.cfg.Grace)
	defer cancel()
	errs := make([]error, len(sc.services))
	var wg sync.WaitGroup
	for i, s := range sc.services {
		wg.Go(func() {
			if err := s.server.Shutdown(ctx); err != nil {
				errs[i] = fmt.Errorf("service %q: requests were cut when the grace time of %v ran out", s.cfg.Name, sc.cfg.Grace)
			}
		})
	}
	wg.Wait()
	err := errors.Join(errs...)
	if err == nil {
		sc.log.Info("every request has finished")
	}
	sc.closeLogs()
	return err
}

// logGrace is how long the last lines of an access log may take to be written.
const logGrace = time.Second

func (sc *Sidecar) closeLogs() {
	ctx, cancel := context.WithTimeout(context.Background(), logGrace)
	defer cancel()
	for _, s := range sc.services {
		if err := s.access.Close(ctx); err != nil {
			s.log.Warn("the end of the access log may be missing", "error", err)
		}
	}
}

// ReopenLogs opens the access logs anew, after they were moved away. It may be
// called at any time.
func (sc *Sidecar) ReopenLogs() {
	for _, s := range sc.services {
		s.access.Reopen()
	}
}

// Addr returns where a service listens; nil for an unknown one.
func (sc *Sidecar) Addr(name string) net.Addr {
	for _, s := range sc.services {
		if s.cfg.Name == name {
			return s.ln.Addr()
		}
	}
	return nil
}

// AdminAddr returns where the admin listener listens.
func (sc *Sidecar) AdminAddr() net.Addr { return sc.admin.Addr() }
