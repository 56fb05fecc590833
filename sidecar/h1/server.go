package h1

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"

	"outrigger/picker"
	"outrigger/sidecar/access"
	"outrigger/sidecar/balance"
)

// Engine holds what all services share: buffers, the clock that strikes
// time-outs, the watch over clients that leave.
type Engine struct {
	now    func() time.Duration
	rand   picker.Rand // for pauses between tries
	bufs   *buffers
	works  sync.Pool // of *work
	crew   workers
	giver  giver
	reaper *reaper
	watch  *watcher
	pools  pools
}

// NewEngine returns an engine on the given monotonic clock. Run must be
// started for time-outs to strike.
func NewEngine(now func() time.Duration) (*Engine, error) {
	w, err := newWatcher()
	if err != nil {
		return nil, err
	}
	e := &Engine{now: now, rand: rand.Uint32N, bufs: newBuffers(), reaper: newReaper(now), watch: w}
	e.works.New = newWork
	e.crew.init()
	e.pools.set = map[*pool]struct{}{}
	e.reaper.needed = func() bool { return e.watch.resting() > 0 }
	e.reaper.onSweep(e.pools.sweep)
	e.reaper.onSweep(func(now time.Duration) {
		e.watch.sweepParked(now)
		e.giver.sweep(now, e.watch.resting())
	})
	return e, nil
}

// Run strikes time-outs until ctx ends. Once per engine.
func (e *Engine) Run(ctx context.Context) {
	defer close(e.crew.done)
	e.reaper.run(ctx)
}

// TunnelFunc carries an upgraded connection until both sides have ended, with
// the bytes that were read ahead of it. It closes neither connection.
type TunnelFunc func(client, backend net.Conn, fromClient, fromBackend []byte, idle time.Duration)

// Server serves one service's listener.
type Server struct {
	e        *Engine
	cfg      Config
	b        *balance.Balancer
	log      hclog.Logger
	tunnel   TunnelFunc
	forward  *forwarder
	keys     keyer
	affinity *affinity // nil: there is none
	observe  func(status int, took time.Duration)
	access   *access.Logger
	load     LoadFunc  // nil: nobody wants to know
	failure  [600]bool // by status
	stats    Stats

	draining atomic.Bool
	slots    chan struct{}
	closing  chan struct{} // closed when draining begins
	served   chan struct{} // closed when Serve has returned
	lastGrip atomic.Int64  // when a lack of descriptors or ports was logged last

	mu sync.Mutex
	ln net.Listener
	wg sync.WaitGroup // of client connections
}

// Options are the parts of a server that others supply.
type Options struct {
	Log    hclog.Logger
	Tunnel TunnelFunc
	// Access writes the access log; nil: there is none.
	Access *access.Logger
	// Observe is told the status and duration of every answer; may be nil.
	Observe func(status int, took time.Duration)
	// Load is told what backends say of their load; nil: the header is not looked for.
	Load LoadFunc
	// AffinityKey signs cookies, if the service has affinity.
	AffinityKey []byte
}

// NewServer returns a server for the balancer's service. cfg must be valid.
func (e *Engine) NewServer(cfg Config, b *balance.Balancer, o Options) *Server {
	s := &Server{
		e: e, cfg: cfg, b: b, log: o.Log, tunnel: o.Tunnel, observe: o.Observe, access: o.Access, load: o.Load,
		forward: newForwarder(cfg.Forward, e.rand, time.Now),
		slots:   make(chan struct{}, cfg.MaxConns),
		closing: make(chan struct{}),
		served:  make(chan struct{}),
	}
	s.keys = newKeyer(cfg.Hash, s.forward)
	s.affinity = newAffinity(cfg.Affinity, o.AffinityKey, time.Now)
	if s.log == nil {
		s.log = hclog.NewNullLogger()
	}
	if s.observe == nil {
		s.observe = func(int, time.Duration) {}
	}
	for _, st := range cfg.FailureStatuses {
		s.failure[st] = true
	}
	return s
}

// Serve accepts connections until Shutdown, which may even come first. It takes
// the listener over and closes it. When accepting fails (out of descriptors, most likely)
// it says so and tries again. Once per server.
func (s *Server) Serve(ln net.Listener) {
	defer close(s.served)
	ln = quickListener(ln)
	defer ln.Close()
	s.mu.Lock()
	late := s.draining.Load()
	s.ln = ln
	s.mu.Unlock()
	if late {
		return
	}
	pause := 5 * time.Millisecond
	for s.slot() {
		nc, err := ln.Accept()
		if err != nil {
			<-s.slots
			if s.draining.Load() || errors.Is(err, net.ErrClosed) {
				return
			}
			s.log.Error("accepting a client connection failed; trying again", "error", err, "in", pause)
			time.Sleep(pause)
			pause = min(2*pause, time.Second)
			continue
		}
		pause = 5 * time.Millisecond
		s.start(nc)
	}
}

// slot takes a place for one more connection, waiting for one if need be.
// false: there is none, and draining has begun.
func (s *Server) slot() bool {
	select {
	case s.slots <- struct{}{}:
		return true
	default:
	}
	select {
	case s.slots <- struct{}{}:
		return true
	case <-s.closing:
		return false
	}
}

func (s *Server) start(nc net.Conn) {
	c := newConn(s, nc)
	s.stats.accepted.Add(1)
	s.stats.open.Add(1)
	s.wg.Add(1)
	s.e.reaper.add(&c.alarm)
	s.e.crew.run(c)
}

// ended is called when a connection has ended.
func (s *Server) ended() {
	s.stats.open.Add(-1)
	<-s.slots
	s.wg.Done()
}

const (
	// backlogGrace is how long a listener that shuts down still takes what the
	// kernel has accepted for it: closing it would reset those clients.
	backlogGrace = 20 * time.Millisecond
	// idleGrace is how long a kept-alive connection may stay idle then: its
	// client may be about to send, and gets an answer with "Connection: close".
	idleGrace = time.Second
)

// Shutdown stops accepting, lets requests in flight finish and closes
// connections as they become idle. When ctx ends first, the balancer drains, the
// rest is cut and ctx.Err() returned.
func (s *Server) Shutdown(ctx context.Context) error {
	s.mu.Lock()
	ln := s.ln
	if !s.draining.Swap(true) {
		close(s.closing)
	}
	s.mu.Unlock()
	if ln != nil {
		d, ok := ln.(interface{ SetDeadline(time.Time) error })
		if !ok || d.SetDeadline(time.Now().Add(backlogGrace)) != nil {
			_ = ln.Close()
		}
		<-s.served // from here on no connection is added
	}
	done := make(chan struct{})
	go func() {
		s.wg.Wait()
		close(done)
	}()
	tick := time.NewTicker(reapEvery)
	defer tick.Stop()
	for {
		select {
		case <-done:
			return nil
		case <-ctx.Done():
			s.b.Drain()
			s.cut(done)
			return ctx.Err()
		case <-tick.C:
			now := s.e.now()
			s.each(func(c *conn) { c.closeIdle(now) })
			s.e.watch.closeParked(func(p *parked) bool { return p.s == s && now-p.idleAt >= idleGrace && !p.readable() })
		}
	}
}

// cut ends all connections until done: one that is being woken shows a little
// later.
func (s *Server) cut(done <-chan struct{}) {
	tick := time.NewTicker(reapEvery)
	defer tick.Stop()
	for {
		s.each(func(c *conn) { c.cut() })
		s.e.watch.closeParked(func(p *parked) bool { return p.s == s })
		select {
		case <-done:
			return
		case <-tick.C:
		}
	}
}

// bug logs a panic that was kept from taking other connections along.
func (s *Server) bug(p any) {
	s.log.Error("a connection ended by a bug in Outrigger; please report it", "panic", p, "stack", string(debug.Stack()))
}

// gripEvery bounds how often a lack of descriptors or ports is logged.
const gripEvery = time.Second

// grip logs that this machine, and no backend, keeps a connection from being
// made.
func (s *Server) grip(err error) {
	now, last := int64(s.e.now()), s.lastGrip.Load()
	if (last == 0 || now-last >= int64(gripEvery)) && s.lastGrip.CompareAndSwap(last, now) {
		s.log.Warn("out of a resource of this machine: requests are refused, no backend is blamed", "error", err)
	}
}

// each calls f with every client connection. f must not end any itself.
func (s *Server) each(f func(*conn)) {
	s.e.reaper.each(func(c *conn) {
		if c.s == s {
			f(c)
		}
	})
}

// Stats returns the server's counters.
func (s *Server) Stats() StatsSnapshot { return s.stats.snapshot() }
