package h1

import (
	"context"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"outrigger/picker"
	"outrigger/sidecar/balance"
)

// conn is a client connection. Its goroutine owns everything but what mu
// guards and the atomics. While it is parked it has no goroutine.
//
// It is a context.Context that ends when the client hangs up or the server cuts
// it off.
type conn struct {
	s       *Server
	nc      net.Conn
	sock    sock
	peer    peerInfo
	alarm   alarm
	watched atomic.Uint64 // its number in the watcher, 0: none
	in      buffer
	*work   // while it has a request, or a part of one

	now    time.Duration // the engine's clock when it was last read
	headAt time.Duration // when the first byte of the request came
	served int           // requests so far

	ready    func(fd uintptr) bool // readable, bound once
	state    headState             // how simpleRequests ended
	lingers  bool                  // the client is to get what was sent before the connection is closed
	idleAt   atomic.Int64          // since when it waits for a request; 0: in one
	lasting  atomic.Bool           // its request has lasted until a tick
	finished atomic.Bool           // its client sends no more

	mu   sync.Mutex
	up   *upstream // the connection that a hang-up must wake
	gone bool
	left chan struct{} // closed when gone; made when somebody asks for it
}

// work is what a connection needs while it has a request. It is pooled: an
// idle connection has none, and a request allocates nothing.
type work struct {
	req, res Head
	rq       request
	out      []byte // what goes to the backend, kept whole for a retry
	buf      buffer // what goes to the client, w used only
	lease    balance.Lease
	key      balance.Key
	upload   upload
	chunks   chunkDecoder // of the answer
	credit   credit       // of the client that takes the answer
}

// maxKept is the most memory for a copied request that pooled work keeps.
const maxKept = 64 << 10

func newConn(s *Server, nc net.Conn) *conn {
	c := &conn{s: s, nc: nc, now: s.e.now()}
	c.alarm.conn, c.alarm.owner = nc, c
	c.alarm.sock, c.alarm.idle, c.alarm.perByte = &c.sock, s.cfg.Timeouts.Idle, s.cfg.byteTime()
	c.sock.init(nc, s.e.bufs)
	c.ready = c.readable
	c.peer = s.forward.peer(nc.RemoteAddr(), nc.LocalAddr())
	return c
}

// run serves requests until the connection ends or is parked.
func (c *conn) run() {
	parked := false
	defer func() {
		if p := recover(); p != nil {
			c.crashed(p)
		}
		if c.lingers {
			c.linger()
		}
		c.end(parked)
	}()
	for {
		st := c.simpleRequests()
		if st == headMore {
			st = c.readHead()
		}
		switch st {
		case headParked:
			parked = true
			return
		case headNone:
			return
		}
		if !c.serve() {
			return
		}
	}
}

// serve serves the request whose head was parsed. false: the connection is done.
func (c *conn) serve() bool {
	if !c.exchange() {
		c.clock()
		c.finish(0, "client_gone") // unless it was answered
		return false
	}
	c.alarm.off()
	c.rest()
	return true
}

// begin gives the connection what it needs for a request.
func (c *conn) begin() {
	if c.work == nil {
		c.work = c.s.e.works.Get().(*work)
		c.upload.c = c
	}
}

// rest gives it back, unless the next request has begun.
func (c *conn) rest() {
	if w := c.work; w != nil && c.in.len() == 0 {
		c.work = nil
		if w.upload.running {
			return // it is not ours alone
		}
		w.upload.c = nil
		if cap(w.out) > maxKept {
			w.out = nil
		}
		c.s.e.works.Put(w)
	}
}

func newWork() any {
	w := &work{}
	w.upload.init()
	return w
}

// end closes the connection and forgets it, or what a parked one has left here.
func (c *conn) end(parked bool) {
	e := c.s.e
	c.hangUp()
	e.reaper.remove(&c.alarm) // from here on nobody has it watched again
	if !parked {
		e.watch.remove(c)
	}
	_ = c.nc.Close()
	e.bufs.release(&c.in)
	c.rest()
	if !parked {
		c.s.ended()
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
	if c.work != nil {
		c.finish(0, "bug")
		c.lease.Done(picker.Result{Outcome: picker.Ignore})
		c.work = nil // whatever state it is in
	}
}

// hangUp is called when the client has hung up or is to be treated as if:
// whatever waits on its behalf is woken.
func (c *conn) hangUp() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.gone {
		return
	}
	c.gone = true
	if c.up != nil {
		c.up.alarm.fire()
	}
	if c.left != nil {
		close(c.left)
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

// Done implements context.Context.
func (c *conn) Done() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.left == nil {
		c.left = make(chan struct{})
		if c.gone {
			close(c.left)
		}
	}
	return c.left
}

// Err implements context.Context.
func (c *conn) Err() error {
	if c.isGone() {
		return context.Canceled
	}
	return nil
}

// Deadline implements context.Context; what is waited for has its own limits.
func (c *conn) Deadline() (time.Time, bool) { return time.Time{}, false }

// Value implements context.Context.
func (c *conn) Value(any) any { return nil }

// clock reads the engine's clock. It is read only after what may have taken
// time.
func (c *conn) clock() time.Duration {
	c.now = c.s.e.now()
	return c.now
}

// write sends b to the client, which has its credit for every part of it.
func (c *conn) write(b []byte) error {
	for {
		c.alarm.set(c.within(c.credit.offer(c.now)))
		n, err := c.sock.writeSome(b)
		if c.sock.waited() {
			c.clock()
		}
		c.credit.earn(c.now, n)
		if b = b[n:]; len(b) == 0 || err != nil {
			return err
		}
	}
}

// lastWords makes room for an answer that says why, after the connection's
// alarm has struck and its deadline is in the past for good.
func (c *conn) lastWords() { _ = c.nc.SetDeadline(time.Now().Add(lingerFor)) }

// within is the time d from now, or the request's deadline if that is sooner.
func (c *conn) within(d time.Duration) time.Duration { return c.rq.within(c.now, d) }

func (r *request) within(now, d time.Duration) time.Duration {
	if r.deadline > 0 && r.deadline < now+d {
		return r.deadline
	}
	return now + d
}
