package h1

import (
	"context"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"

	"outrigger/sidecar/balance"
)

// Engine holds what all services share: buffers, the clock that strikes
// time-outs, the watch over clients that leave.
type Engine struct {
	now    func() time.Duration
	bufs   *buffers
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
	e := &Engine{now: now, bufs: newBuffers(), reaper: newReaper(now), watch: w}
	e.pools.set = map[*pool]struct{}{}
	e.reaper.onSweep(e.pools.sweep)
	return e, nil
}

// Run strikes time-outs until ctx ends. One per engine.
func (e *Engine) Run(ctx context.Context) { e.reaper.run(ctx) }

// TunnelFunc carries an upgraded connection until both sides have ended, with
// the bytes that were read ahead of it. It closes neither connection.
type TunnelFunc func(client, backend net.Conn, fromClient, fromBackend []byte, idle time.Duration)

// Server serves one service's listener.
type Server struct {
	e       *Engine
	cfg     Config
	b       *balance.Balancer
	log     hclog.Logger
	tunnel  TunnelFunc
	observe func(status int, took time.Duration)
	failure [600]bool // by status
	stats   Stats

	draining atomic.Bool
	slots    chan struct{}

	mu    sync.Mutex
	conns map[*conn]struct{}
	ln    net.Listener
	wg    sync.WaitGroup
}

// Options are the parts of a server that others supply.
type Options struct {
	Log    hclog.Logger
	Tunnel TunnelFunc
	// Observe is told the status and duration of every answer; may be nil.
	Observe func(status int, took time.Duration)
}

// NewServer returns a server for the balancer's service. cfg must be valid.
func (e *Engine) NewServer(cfg Config, b *balance.Balancer, o Options) *Server {
	s := &Server{
		e: e, cfg: cfg, b: b, log: o.Log, tunnel: o.Tunnel, observe: o.Observe,
		slots: make(chan struct{}, cfg.MaxConns),
		conns: map[*conn]struct{}{},
	}
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

// Serve accepts connections until Shutdown, or until accepting fails for good.
func (s *Server) Serve(ln net.Listener) error {
	s.mu.Lock()
	s.ln = ln
	s.mu.Unlock()
	pause := 5 * time.Millisecond
	for {
		s.slots <- struct{}{}
		nc, err := ln.Accept()
		if err != nil {
			<-s.slots
			if s.draining.Load() || errors.Is(err, net.ErrClosed) {
				return nil
			}
			// Out of descriptors, most likely: they come back.
			s.log.Error("accepting a client connection failed; trying again", "error", err, "in", pause)
			time.Sleep(pause)
			pause = min(2*pause, time.Second)
			continue
		}
		pause = 5 * time.Millisecond
		s.start(nc)
	}
}

func (s *Server) start(nc net.Conn) {
	c := newConn(s, nc)
	s.mu.Lock()
	s.conns[c] = struct{}{}
	s.mu.Unlock()
	s.stats.accepted.Add(1)
	s.stats.open.Add(1)
	s.wg.Add(1)
	go func() {
		defer s.wg.Done()
		c.serve()
		s.mu.Lock()
		delete(s.conns, c)
		s.mu.Unlock()
		s.stats.open.Add(-1)
		<-s.slots
	}()
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
// connections as they become idle. When ctx ends first, the rest is cut and
// ctx.Err() returned.
func (s *Server) Shutdown(ctx context.Context) error {
	s.mu.Lock()
	ln := s.ln
	s.mu.Unlock()
	s.draining.Store(true)
	if d, ok := ln.(interface{ SetDeadline(time.Time) error }); ok && d.SetDeadline(time.Now().Add(backlogGrace)) == nil {
		time.Sleep(backlogGrace)
	}
	if ln != nil {
		_ = ln.Close()
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
			s.each(func(c *conn) { c.cut() })
			<-done
			return ctx.Err()
		case <-tick.C:
			now := s.e.now()
			s.each(func(c *conn) { c.closeIdle(now) })
		}
	}
}

func (s *Server) each(f func(*conn)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		f(c)
	}
}

// Stats returns the server's counters.
func (s *Server) Stats() StatsSnapshot { return s.stats.snapshot() }
