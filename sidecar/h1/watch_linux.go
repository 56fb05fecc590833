package h1

import (
	"net"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// watcher tells when a peer hangs up, without a read and at no cost per
// request: a second epoll instance in which every client connection is
// registered once, edge-triggered, for its peer's FIN or RST alone.
//
// A half-close counts as hanging up, as it does for net/http and NGINX: from
// here it looks the same as a client that is gone.
type watcher struct {
	epfd int
	mu   sync.Mutex
	next uint64
	subs map[uint64]func()
}

func newWatcher() (*watcher, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, err
	}
	w := &watcher{epfd: fd, subs: map[uint64]func(){}}
	go w.run()
	return w, nil
}

// add calls hungUp once when the peer of nc hangs up, from the watcher's
// goroutine: it must be quick. The returned function ends the watch.
func (w *watcher) add(nc net.Conn, hungUp func()) (remove func()) {
	sc, ok := nc.(syscall.Conn)
	if !ok {
		return func() {}
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return func() {}
	}
	w.mu.Lock()
	w.next++
	id := w.next
	w.subs[id] = hungUp
	w.mu.Unlock()
	// The number travels in the event's 64 data bits, not the descriptor,
	// which the kernel may have given to another connection by then.
	ev := unix.EpollEvent{Events: unix.EPOLLRDHUP | unix.EPOLLET&0xffffffff, Fd: int32(uint32(id)), Pad: int32(uint32(id >> 32))}
	_ = raw.Control(func(fd uintptr) {
		_ = unix.EpollCtl(w.epfd, unix.EPOLL_CTL_ADD, int(fd), &ev) // unwatched at worst
	})
	return func() { // the kernel forgets the descriptor when it is closed
		w.mu.Lock()
		delete(w.subs, id)
		w.mu.Unlock()
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
		for _, ev := range events[:n] {
			id := uint64(uint32(ev.Fd)) | uint64(uint32(ev.Pad))<<32
			w.mu.Lock()
			f := w.subs[id]
			delete(w.subs, id)
			w.mu.Unlock()
			if f != nil {
				f()
			}
		}
	}
}
