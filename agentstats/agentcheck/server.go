package agentcheck

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
)

const (
	// One check is a packet each way; who needs longer is broken or hostile.
	ioTimeout = time.Second
	// An agent-send of more is read no further.
	maxSent = 4 << 10
	// Between two tries to accept while that fails.
	retry = 100 * time.Millisecond
)

// Env is what a server gets from its surroundings. State is required.
type Env struct {
	State  func() State // the newest; asked at each check, concurrently
	Logger hclog.Logger // default: none
	// Now is the clock; its times carry a monotonic reading. Default: time.Now.
	Now func() time.Time
	// Listen opens the listener for Config.Listen. Default: net.Listen.
	Listen func(network, address string) (net.Listener, error)
}

// Stats counts since the start. Open is of now.
type Stats struct {
	Answered   uint64 // checks
	TurnedAway uint64 // connections above Config.MaxConns
	Open       int64
}

// Server answers HAProxy's checks.
type Server struct {
	cfg Config
	env Env

	listener net.Listener // of Open; Run closes it

	answered, turnedAway atomic.Uint64
	open                 atomic.Int64
}

// New returns a server that Run makes listen.
func New(cfg Config, env Env) (*Server, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if cfg.Listen == "" || env.State == nil {
		return nil, errors.New("agent_check: an address and a state to tell are required")
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
	return &Server{cfg: cfg, env: env}, nil
}

// Stats may be called at any time, by anyone.
func (s *Server) Stats() Stats {
	return Stats{Answered: s.answered.Load(), TurnedAway: s.turnedAway.Load(), Open: s.open.Load()}
}

// Line is the answer to a check made now, with its newline. Safe for concurrent use.
func (s *Server) Line() string { return s.cfg.line(s.env.State()) }

// Open opens the listener, so that a port that is taken is known before anything else
// begins. Run closes it. Call it once, before Run.
func (s *Server) Open() (err error) {
	if s.listener, err = s.env.Listen("tcp", s.cfg.Listen); err != nil {
		return fmt.Errorf("agent_check: cannot listen on %s: %w (set listen to a free port on an address of this host)", s.cfg.Listen, err)
	}
	return nil
}

// Run answers until ctx ends, which is no error, and opens the listener if Open did not.
// To be heard, a drain has to last as long as HAProxy's agent-inter before ctx ends. Call
// it once.
func (s *Server) Run(ctx context.Context) error {
	if s.listener == nil {
		if err := s.Open(); err != nil {
			return err
		}
	}
	l := s.listener
	s.env.Logger.Info("HAProxy's agent-check is answered", "address", l.Addr().String())
	var wg sync.WaitGroup
	defer wg.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { _ = l.Close() })
	defer stop()
	var said time.Time
	complain := func(what string, args ...any) {
		if now := s.env.Now(); said.IsZero() || now.Sub(said) >= time.Minute {
			said = now
			s.env.Logger.Warn(what, args...)
		}
	}
	for {
		c, err := l.Accept()
		switch {
		case err == nil:
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, net.ErrClosed):
			return fmt.Errorf("agent_check: serving on %s failed: %w", l.Addr(), err)
		default: // out of file descriptors, say: those that are open will end
			complain("a check could not be accepted", "error", err)
			pause(ctx, retry)
			continue
		}
		if s.open.Add(1) > int64(s.cfg.MaxConns) {
			s.open.Add(-1)
			s.turnedAway.Add(1)
			_ = c.Close()
			complain("checks are turned away: as many as max_conns allows are open", "max_conns", s.cfg.MaxConns, "peer", c.RemoteAddr())
			continue
		}
		wg.Go(func() {
			defer s.open.Add(-1)
			s.answer(c)
		})
	}
}

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

// answer sends the line at once, whether or not something is going to be asked, and
// then reads until the peer closes. Closed with bytes unread, or before they come, the
// connection would be reset, and the line might be lost with it.
func (s *Server) answer(c net.Conn) {
	defer c.Close()
	if c.SetDeadline(time.Now().Add(ioTimeout)) != nil {
		return
	}
	if _, err := io.WriteString(c, s.Line()); err != nil {
		return
	}
	s.answered.Add(1)
	if half, ok := c.(interface{ CloseWrite() error }); ok && half.CloseWrite() == nil {
		_, _ = io.CopyN(io.Discard, c, maxSent) // whatever it is, and however it ends
	}
}
