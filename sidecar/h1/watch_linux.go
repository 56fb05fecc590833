package h1

import (
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// watcher is an epoll instance of our own beside the runtime's. In it a client
// connection is watched for one of two things:
//
//   - its peer's hanging up, while it waits for a backend or streams: without a
//     read, and at no cost per request, as it is registered once, and only when
//     a request has lasted until a tick of the reaper;
//   - its next request, while it is parked: idle, without a goroutine.
//
// A half-close counts as hanging up, as it does for net/http and NGINX: from
// here it looks the same as a client that is gone.
type watcher struct {
	epfd int
	mu   sync.Mutex
	next uint64
	subs map[uint64]*conn
}

// canPark tells that idle connections can be parked on this system.
const canPark = true

// watched is a connection's place in the watcher; under its mu.
type watched struct {
	id     uint64 // 0: not registered
	parked bool
	hup    bool
}

func newWatcher() (*watcher, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, err
	}
	w := &watcher{epfd: fd, subs: map[uint64]*conn{}}
	go w.run()
	return w, nil
}

const (
	forHangUp  = unix.EPOLLRDHUP | unix.EPOLLET&0xffffffff
	forRequest = unix.EPOLLIN | unix.EPOLLRDHUP | unix.EPOLLONESHOT
)

// hangUp has c.hangUp called when its peer hangs up, which may have happened
// already. A connection that cannot be watched is found out when it is written
// to.
func (w *watcher) hangUp(c *conn) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !c.watched.hup && w.arm(c, forHangUp) {
		c.watched.hup = true
	}
}

// park makes c a parked connection, whose wake is called when there is something
// to read, which may be the case already. From then on it belongs to whoever
// claims it. false: it cannot be watched.
func (w *watcher) park(c *conn) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	c.watched.hup = false
	if !w.arm(c, forRequest) {
		return false
	}
	c.watched.parked = true
	c.parked.Store(true)
	return true
}

// arm registers c, or changes what it is registered for. The number travels in
// the event's 64 data bits, not the descriptor, which the kernel may have given
// to another connection by then. mu is held.
func (w *watcher) arm(c *conn, events uint32) bool {
	sc, ok := c.nc.(syscall.Conn)
	if !ok {
		return false
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return false
	}
	op := unix.EPOLL_CTL_MOD
	if c.watched.id == 0 {
		op = unix.EPOLL_CTL_ADD
		w.next++
		c.watched.id = w.next
		w.subs[w.next] = c
	}
	id := c.watched.id
	ev := unix.EpollEvent{Events: events, Fd: int32(uint32(id)), Pad: int32(uint32(id >> 32))}
	failed := raw.Control(func(fd uintptr) { err = unix.EpollCtl(w.epfd, op, int(fd), &ev) })
	if failed == nil && err == nil {
		return true
	}
	if op == unix.EPOLL_CTL_ADD {
		delete(w.subs, id)
		c.watched.id = 0
	}
	return false
}

// remove ends the watch of a connection that is about to be closed, which makes
// the kernel forget it.
func (w *watcher) remove(c *conn) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.subs, c.watched.id)
}

// run ends when the process does: an engine lives as long.
func (w *watcher) run() {
	events := make([]unix.EpollEvent, 128)
	for {
		n, err := unix.EpollWait(w.epfd, events, -1)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return
		}
		w.mu.Lock() // also keeps the connections from ending meanwhile
		for _, ev := range events[:n] {
			c := w.subs[uint64(uint32(ev.Fd))|uint64(uint32(ev.Pad))<<32]
			switch {
			case c == nil:
			case c.watched.parked:
				c.watched.parked = false
				c.wake()
			default:
				c.hangUp()
			}
		}
		w.mu.Unlock()
	}
}
