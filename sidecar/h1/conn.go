package h1

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"outrigger/picker"
	"outrigger/sidecar/balance"
)

// conn is a client connection. Its goroutine owns everything but what mu
// guards and the atomics. It is reused from request to request, so that a
// request allocates nothing.
type conn struct {
	s     *Server
	nc    net.Conn
	ip    string
	alarm alarm
	in    buffer

	ctx    context.Context // ends when the client hangs up or the server cuts
	cancel context.CancelFunc
	idleAt atomic.Int64 // since when it waits for a request; 0: in one

	mu   sync.Mutex
	up   *upstream // the connection that a hang-up must wake
	gone bool

	req, res Head
	rq       request
	out      []byte // what goes to the backend, kept whole for a retry
	buf      buffer // what goes to the client, w used only
	lease    balance.Lease
	key      balance.Key
	upload   upload
	chunks   chunkDecoder // of the answer
}

// request is what must be known of a request after its head has gone from the
// buffer.
type request struct {
	start      time.Duration
	deadline   time.Duration // 0: none
	minor      int
	head       bool // HEAD
	idempotent bool
	keepAlive  bool
	upgrade    bool
	expect     bool
	json       bool // the client prefers JSON
	streams    bool // its body is sent as it comes, so it cannot be sent twice
}

func newConn(s *Server, nc net.Conn) *conn {
	c := &conn{s: s, nc: nc}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	c.alarm.conn = nc
	if a, ok := nc.RemoteAddr().(*net.TCPAddr); ok {
		c.ip = a.IP.String()
	} else {
		c.ip = "unknown" // RFC 7239 section 6.2
	}
	c.upload.init(c)
	return c
}

func (c *conn) serve() {
	e := c.s.e
	e.reaper.add(&c.alarm)
	unwatch := e.watch.add(c.nc, c.hangUp)
	defer func() {
		if p := recover(); p != nil {
			c.crashed(p)
		}
		unwatch()
		c.cancel()
		e.reaper.remove(&c.alarm)
		_ = c.nc.Close()
		e.bufs.release(&c.in)
	}()
	e.bufs.attach(&c.in)
	for c.readHead() && c.exchange() {
		c.alarm.off()
	}
}

// crashed keeps a bug met on one connection from taking the others along: the
// lease and the backend's connection are given up.
func (c *conn) crashed(p any) {
	c.s.bug(p)
	c.mu.Lock()
	u := c.up
	c.up = nil
	c.mu.Unlock()
	if u != nil {
		c.upload.stop()
		u.close()
	}
	c.lease.Done(picker.Result{Outcome: picker.Ignore})
}

// hangUp is called by the watcher when the client has hung up: whatever waits
// on its behalf is woken.
func (c *conn) hangUp() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.gone = true
	if c.up != nil {
		c.up.alarm.fire()
	}
	c.cancel()
}

// cut ends the connection at once, tunnels too.
func (c *conn) cut() {
	c.hangUp()
	_ = c.nc.Close()
}

// closeIdle ends a connection that has waited for a request for idleGrace.
func (c *conn) closeIdle(now time.Duration) {
	if at := time.Duration(c.idleAt.Load()); at != 0 && now-at >= idleGrace {
		_ = c.nc.SetReadDeadline(longAgo)
	}
}

// attach makes u the connection that a hang-up wakes. false: it happened.
func (c *conn) attach(u *upstream) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.up = u
	return !c.gone
}

// detach undoes attach and reports whether the client is still there. After
// it, u is nobody else's.
func (c *conn) detach() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.up = nil
	return !c.gone
}

func (c *conn) isGone() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.gone
}

// readHead reads and parses the next request head, or answers why it cannot.
// false: the connection is done.
func (c *conn) readHead() bool {
	s := c.s
	now := s.e.now()
	c.idleAt.Store(int64(now))
	defer c.idleAt.Store(0)
	c.alarm.set(now + s.cfg.Timeouts.Idle)
	began := c.in.len() > 0
	if began {
		c.alarm.set(now + s.cfg.Timeouts.Head)
	}
	seen := 0
	for {
		c.skipEmptyLines()
		n, err := FindHead(c.in.unread(), max(0, seen-2))
		if n > 0 {
			return c.parse(n)
		}
		if err == nil && c.in.len() >= s.cfg.Limits.Head {
			err = tooLong(c.in.unread())
		}
		if err != nil {
			return c.reject(err)
		}
		seen = c.in.len()
		if err := c.fillIn(); err != nil {
			if c.lastLook(err) {
				continue
			}
			return c.noHead(err, seen > 0)
		}
		if !began {
			began = true
			c.idleAt.Store(0)
			c.alarm.set(s.e.now() + s.cfg.Timeouts.Head)
		}
	}
}

// fillIn reads from the client. A deadline that closeIdle set just as a request
// began is lifted.
func (c *conn) fillIn() error {
	for {
		k, err := c.in.fill(c.nc)
		if k > 0 || err == nil {
			return nil
		}
		if !c.s.draining.Load() || c.idleAt.Load() != 0 || c.alarm.struck() || c.upload.stopping.Load() ||
			!errors.Is(err, os.ErrDeadlineExceeded) || c.nc.SetReadDeadline(time.Time{}) != nil {
			return err
		}
	}
}

// lastLook reports whether a request has come while closeIdle was ending the
// connection: closing now would lose it.
func (c *conn) lastLook(err error) bool {
	return c.s.draining.Load() && !c.alarm.struck() && errors.Is(err, os.ErrDeadlineExceeded) &&
		c.nc.SetReadDeadline(time.Time{}) == nil && !newPeeker(c.nc).quiet()
}

// skipEmptyLines drops CRLFs before a request line (RFC 9112 section 2.2).
func (c *conn) skipEmptyLines() {
	for c.in.len() >= 2 && c.in.b[c.in.r] == '\r' && c.in.b[c.in.r+1] == '\n' {
		c.in.skip(2)
	}
}

func tooLong(b []byte) error {
	for _, ch := range b {
		if ch == '\n' {
			return &ParseError{431, "the header section is too long"}
		}
	}
	return &ParseError{414, "the request line is too long"}
}

// noHead ends a connection on which no whole head came.
func (c *conn) noHead(err error, partial bool) bool {
	if partial && errors.Is(err, os.ErrDeadlineExceeded) && !c.isGone() {
		c.lastWords()
		return c.reject(&ParseError{408, "the head took too long"})
	}
	if partial && errors.Is(err, io.EOF) {
		c.s.stats.clientErrors.Add(1) // cut off; there is nobody to tell
	}
	return false
}

func (c *conn) parse(n int) bool {
	head := c.in.unread()[:n]
	if n > c.s.cfg.Limits.Head {
		return c.reject(tooLong(head))
	}
	if err := c.req.ParseRequest(head, c.s.cfg.Limits); err != nil {
		return c.reject(err)
	}
	c.in.skip(n)
	return true
}

// reject answers a request that is invalid and ends the connection: where the
// next request would begin is anybody's guess.
func (c *conn) reject(err error) bool {
	c.s.stats.clientErrors.Add(1)
	status, what := 400, err.Error()
	var pe *ParseError
	if errors.As(err, &pe) {
		status = pe.Status
	}
	c.rq = request{start: c.s.e.now(), minor: 1}
	c.reply(answer{status: status, text: what})
	return false
}

// write sends b to the client, which has the idle time to take all of it: b is
// at most a buffer's worth.
func (c *conn) write(b []byte) error {
	c.armClient()
	_, err := c.nc.Write(b)
	return err
}

// armClient gives the client the idle time for its next move, within the
// request's own deadline.
func (c *conn) armClient() {
	c.alarm.set(c.within(c.s.cfg.Timeouts.Idle))
}

// lastWords makes room for an answer that says why, after the connection's
// alarm has struck and its deadline is in the past for good.
func (c *conn) lastWords() { _ = c.nc.SetDeadline(time.Now().Add(lingerFor)) }

// within is the time d from now, or the request's deadline if that is sooner.
func (c *conn) within(d time.Duration) time.Duration {
	at := c.s.e.now() + d
	if dl := c.rq.deadline; dl > 0 && dl < at {
		return dl
	}
	return at
}
