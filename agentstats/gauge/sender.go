package gauge

import (
	"context"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
)

const (
	// sweep is how often gauges that stand still are looked for, and still how long they
	// must have done so to be repeated: together a Heartbeat.
	sweep = Heartbeat / 4
	still = Heartbeat - sweep
)

// SenderEnv is what a sender gets from its surroundings. All but Dial may be left out.
type SenderEnv struct {
	// Dial connects to the agent of an endpoint, TLS and all. It must honour ctx and is
	// called by many goroutines.
	Dial func(ctx context.Context, id string) (net.Conn, error)
	// Authorization returns the header's value for the agent of an endpoint, "" for none;
	// it is called by many goroutines. Default: none.
	Authorization func(id string) string
	// Now is a monotonic clock. Default: time since NewSender.
	Now func() time.Duration
	// Rand returns a uniform number in [0, n); called by many goroutines.
	Rand   func(n uint32) uint32
	Logger hclog.Logger // default: none
}

// Sender sends the gauges of one service's endpoints to their agents, one stream each.
// All methods are safe for concurrent use.
//
// One goroutine writes all frames, and wakes once per interval for all gauges that
// changed meanwhile; what is read is the figure of that moment. A gauge that is back at
// what was sent costs no frame, so requests shorter than the interval mostly cost none.
type Sender struct {
	cfg Config
	env SenderEnv

	changed atomic.Pointer[Gauge] // a stack of those to be looked at, linked by Gauge.next
	due     *time.Timer           // runs whenever the stack is not empty
	frames  atomic.Uint64
	dropped atomic.Uint64

	mu      sync.Mutex
	ctx     context.Context // of Run; nil before it
	closed  bool            // ctx has ended: no stream may start any more
	agents  map[string]string
	current map[string]*Gauge
	running map[*Gauge]struct{} // with a stream, or on the way to one
	streams sync.WaitGroup

	round []*Gauge // Run's own
}

// SenderStats counts since the sender was made, but for Streams.
type SenderStats struct {
	Streams int    // open now
	Frames  uint64 // sent
	Dropped uint64 // streams given up because their agent did not keep up or was gone
}

// NewSender returns a sender without gauges. cfg must be valid.
func NewSender(cfg Config, env SenderEnv) *Sender {
	if env.Now == nil {
		start := time.Now()
		env.Now = func() time.Duration { return time.Since(start) }
	}
	if env.Rand == nil {
		env.Rand = rand.Uint32N
	}
	if env.Authorization == nil {
		env.Authorization = func(string) string { return "" }
	}
	if env.Logger == nil {
		env.Logger = hclog.NewNullLogger()
	}
	s := &Sender{
		cfg: cfg, env: env, due: time.NewTimer(time.Hour),
		agents: map[string]string{}, current: map[string]*Gauge{}, running: map[*Gauge]struct{}{},
	}
	s.due.Stop()
	return s
}

// Gauge makes the gauge of an endpoint that has joined; inFlight reads its figure, at
// any time and from any goroutine. One with the same ID that was there takes no new
// agent. It has a stream from when SetAgents names its agent.
func (s *Sender) Gauge(id string, inFlight func() int) *Gauge {
	g := &Gauge{s: s, id: id, inFlight: inFlight}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.current[id] = g
	s.start(g)
	return g
}

// SetAgents says where the agents of all endpoints are, by the endpoints' IDs. A stream
// to another address is closed; who has no agent has none.
func (s *Sender) SetAgents(addrs map[string]string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.agents = addrs
	for _, g := range s.current {
		if g.cancel != nil && g.addr != addrs[g.id] {
			g.cancel()
			g.cancel = nil
			delete(s.running, g)
		}
		s.start(g)
	}
}

// start gives g a stream if it has none and should. s.mu is held.
func (s *Sender) start(g *Gauge) {
	addr := s.agents[g.id]
	if addr == "" || g.cancel != nil || s.ctx == nil || s.closed {
		return
	}
	ctx, cancel := context.WithCancel(s.ctx)
	g.addr, g.cancel = addr, cancel
	s.running[g] = struct{}{}
	s.streams.Go(func() {
		defer cancel()
		g.keep(ctx)
	})
}

// Run sends until ctx ends, and returns when every stream is closed. Call it once.
func (s *Sender) Run(ctx context.Context) {
	s.mu.Lock()
	s.ctx = ctx
	for _, g := range s.current {
		s.start(g)
	}
	s.mu.Unlock()
	defer s.end()
	beat := time.NewTicker(sweep)
	defer beat.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.due.C:
			s.flush()
		case <-beat.C:
			s.repeat()
		}
	}
}

func (s *Sender) end() {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.streams.Wait()
}

// push puts a gauge that is in no stack on it. The first one starts the clock, so that
// two flushes are never closer than the interval.
func (s *Sender) push(g *Gauge) {
	for {
		top := s.changed.Load()
		g.next = top
		if s.changed.CompareAndSwap(top, g) {
			if top == nil {
				s.due.Reset(s.cfg.Interval)
			}
			return
		}
	}
}

// flush sends what has changed.
func (s *Sender) flush() {
	now := s.env.Now()
	for g := s.changed.Swap(nil); g != nil; {
		next := g.next
		g.next = nil
		// First this, then the figure is read: a change from here on pushes it again.
		g.queued.Store(false)
		s.send(g, now, true)
		g = next
	}
}

// repeat sends again what has stood still. What has changed is left to flush, which
// keeps the interval.
func (s *Sender) repeat() {
	s.mu.Lock()
	for g := range s.running {
		s.round = append(s.round, g)
	}
	s.mu.Unlock()
	now := s.env.Now()
	for i, g := range s.round {
		s.send(g, now, false)
		s.round[i] = nil
	}
	s.round = s.round[:0]
}

// send writes a gauge's figure to its agent, if that is connected and the figure is
// news or has to be repeated. Only Run's goroutine calls it.
func (s *Sender) send(g *Gauge, now time.Duration, news bool) {
	l := g.link.Load()
	if l == nil {
		return
	}
	n := max(0, min(int64(g.inFlight()), MaxValue))
	if n != l.sent && news || n == l.sent && n != 0 && now-l.at >= still {
		l.sent, l.at = n, now
		if err := l.write(frame(n)); err != nil {
			g.link.CompareAndSwap(l, nil)
			l.fail(err)
			s.dropped.Add(1)
			return
		}
		s.frames.Add(1)
	}
	if n == 0 && news && g.retired.Load() {
		s.drop(g)
	}
}

// drop ends a gauge's stream for good.
func (s *Sender) drop(g *Gauge) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if g.cancel != nil {
		g.cancel()
		g.cancel = nil
	}
	delete(s.running, g)
}

// Stats returns the counts.
func (s *Sender) Stats() SenderStats {
	st := SenderStats{Frames: s.frames.Load(), Dropped: s.dropped.Load()}
	s.mu.Lock()
	defer s.mu.Unlock()
	for g := range s.running {
		if g.link.Load() != nil {
			st.Streams++
		}
	}
	return st
}
