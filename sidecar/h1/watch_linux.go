package h1

import (
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// watcher is an epoll instance of our own beside the runtime's. In it client
// connections are watched for one of two things:
//
//   - their peer's hanging up, while they wait for a backend or stream: without
//     a read, and at no cost per request, as a connection is registered once,
//     and only when a request has lasted until a tick of the reaper;
//   - the next request, while they are parked.
//
// A half-close counts as hanging up, as it does for net/http and NGINX: from
// here it looks the same as a client that is gone.
type watcher struct {
	epfd int
	mu   sync.Mutex
	next uint64
	subs map[uint64]*conn
	rest map[uint64]parked
}

func newWatcher() (*watcher, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, err
	}
	w := &watcher{epfd: fd, subs: map[uint64]*conn{}, rest: map[uint64]parked{}}
	go w.run()
	return w, nil
}

// hangUp has c.hangUp called when its peer hangs up, which may have happened
// already. A connection that cannot be watched is found out when it is written
// to.
func (w *watcher) hangUp(c *conn) {
	if c.watched.Load() != 0 {
		return
	}
	raw := rawConn(c)
	if raw == nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.next++
	if raw.Control(func(fd uintptr) {
		if w.add(int(fd), w.next, unix.EPOLLRDHUP|unix.EPOLLET&0xffffffff) == nil {
			w.subs[w.next] = c
			c.watched.Store(w.next)
		}
	}) != nil {
		return // closed meanwhile
	}
}

// noMore is the number of a connection that is to be watched no more.
const noMore = ^uint64(0)

func rawConn(c *conn) syscall.RawConn {
	if sc, ok := c.nc.(syscall.Conn); ok {
		if raw, err := sc.SyscallConn(); err == nil {
			return raw
		}
	}
	return nil
}

// add registers fd. The number travels in the event's 64 data bits, not the
// descriptor, which the kernel may have given to another connection by then.
func (w *watcher) add(fd int, id uint64, events uint32) error {
	ev := unix.EpollEvent{Events: events, Fd: int32(uint32(id)), Pad: int32(uint32(id >> 32))}
	return unix.EpollCtl(w.epfd, unix.EPOLL_CTL_ADD, fd, &ev)
}

// drop undoes add: closing alone would not, while another descriptor is open on
// the same socket.
func (w *watcher) drop(fd int) {
	_ = unix.EpollCtl(w.epfd, unix.EPOLL_CTL_DEL, fd, nil)
}

// remove ends the watch of a connection that is about to be closed.
func (w *watcher) remove(c *conn) {
	w.mu.Lock()
	id := c.watched.Swap(noMore)
	delete(w.subs, id)
	w.mu.Unlock()
	if raw := rawConn(c); id != 0 && id != noMore && raw != nil {
		_ = raw.Control(func(fd uintptr) { w.drop(int(fd)) })
	}
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
			id := uint64(uint32(ev.Fd)) | uint64(uint32(ev.Pad))<<32
			if c := w.subs[id]; c != nil {
				c.peerFinished()
			} else if p, ok := w.rest[id]; ok {
				w.take(id)
				go p.wake()
			}
		}
		w.mu.Unlock()
	}
}
