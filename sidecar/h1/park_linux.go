package h1

import (
	"net"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// canPark tells that idle connections can be parked on this system.
const canPark = true

// parked is what is left of a connection that rests: a descriptor of our own on
// its socket, without a goroutine, without Go's poller, of a tenth of the size.
type parked struct {
	s      *Server
	fd     int
	idleAt time.Duration
	served int
	// Of a connection that came by an acceptor.
	listener *net.TCPAddr
	remote   netip.AddrPort
}

// park turns c into a parked connection, if it can. From then on c is dead.
func (w *watcher) park(c *conn) bool {
	raw := rawConn(c)
	if raw == nil {
		return false
	}
	fd := -1
	if err := raw.Control(func(old uintptr) {
		fd, _ = unix.FcntlInt(old, unix.F_DUPFD_CLOEXEC, 0)
	}); err != nil || fd < 0 {
		return false
	}
	w.remove(c)
	p := parked{s: c.s, fd: fd, idleAt: time.Duration(c.idleAt.Load()), served: c.served}
	if a, ok := c.nc.(*accepted); ok {
		p.remote, p.listener = a.remote, a.listener
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.next++
	if w.add(fd, w.next, unix.EPOLLIN|unix.EPOLLRDHUP|unix.EPOLLONESHOT) != nil {
		_ = unix.Close(fd)
		c.watched.Store(0)
		return false
	}
	w.rest[w.next] = p
	return true
}

// take makes the caller the owner of a parked connection. mu is held.
func (w *watcher) take(id uint64) {
	w.drop(w.rest[id].fd)
	delete(w.rest, id)
}

// wake makes it a connection again, whose next request is there to be read.
func (p parked) wake() {
	f := os.NewFile(uintptr(p.fd), "client")
	var nc net.Conn = &accepted{File: f, listener: p.listener, remote: p.remote}
	if p.listener == nil {
		var err error
		nc, err = net.FileConn(f)
		_ = f.Close()
		if err != nil {
			p.s.grip(err)
			p.s.ended()
			return
		}
	}
	c := newConn(p.s, nc)
	c.served = p.served
	c.idleAt.Store(int64(p.idleAt))
	c.alarm.set(p.idleAt + p.s.cfg.Timeouts.Idle)
	p.s.e.reaper.add(&c.alarm)
	p.s.e.crew.run(c)
}

func (p parked) close() {
	_ = unix.Close(p.fd)
	p.s.ended()
}

// closeParked closes the parked connections for which f says so.
func (w *watcher) closeParked(f func(p *parked) bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for id, p := range w.rest {
		if f(&p) {
			w.take(id)
			p.close()
		}
	}
}

// sweepParked closes those that have rested for too long.
func (w *watcher) sweepParked(now time.Duration) {
	w.closeParked(func(p *parked) bool { return now-p.idleAt >= p.s.cfg.Timeouts.Idle })
}

// readable reports whether a request has come that the watcher is about to hear
// of.
func (p *parked) readable() bool {
	n, err := unix.Poll([]unix.PollFd{{Fd: int32(p.fd), Events: unix.POLLIN}}, 0)
	return err != nil || n > 0
}

// resting is how many connections are parked.
func (w *watcher) resting() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.rest)
}
