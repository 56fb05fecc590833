package agentstats

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// sweepEvery is how often connections are looked through for idle ones.
const sweepEvery = time.Second

// batchEvery is the pause after polls were answered, for which those that come wait:
// with 2,000 a second eight of them then share one wake-up and one look at the backend.
// The first poll after a quiet moment never waits, and none does below batchFrom
// sidecars, whose polls are 4 ms and more apart.
const (
	batchEvery = 4 * time.Millisecond
	batchFrom  = 128
)

// fastLoop answers polls on one goroutine over epoll instances of its own, which
// themselves wait in Go's. A connection costs it some 100 bytes where one of net/http's
// costs 20 KiB and more, and a poll two system calls. They never block, so they are
// made without telling Go's scheduler, which would wake its monitor thread each time:
// twice the price of a poll.
type fastLoop struct {
	a    *Agent
	rest *handedOver
	file *os.File // the outer epoll instance: of the inner one and the timer
	poll syscall.RawConn
	out  int // its descriptor
	ep   int // the inner instance: of the listener and all connections
	tick int // the timer of batches
	ln   int // the listener's descriptor, which is not ours to close

	conns  map[int32]*fastConn
	begun  int // bytes of requests that are not complete, of all connections
	events [128]unix.EpollEvent
	in     [maxHeaderBytes]byte
	answer []byte
	body   []byte
}

// fastConn is one connection: a descriptor that Go's own poller does not know.
type fastConn struct {
	seen   time.Time // opened, polled, or began with what head is
	polled bool
	head   []byte // of a request that is not complete yet
}

// maxBegun bounds fastLoop.begun: a few hundred of the longest heads, and tens of
// thousands of those that somebody began with to keep the agent busy.
const maxBegun = 1 << 20

// fastPath prepares to serve a listener: with what ends when ctx does. ok is false
// where it cannot.
func (a *Agent) fastPath(ctx context.Context, l net.Listener, rest *handedOver) (serve func() error, ok bool) {
	tcp, isTCP := l.(*net.TCPListener)
	if !isTCP {
		return nil, false
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return nil, false
	}
	f := &fastLoop{a: a, rest: rest, out: -1, ep: -1, tick: -1, conns: map[int32]*fastConn{}}
	if err := f.open(raw); err != nil {
		f.release()
		a.env.Logger.Warn("polls are answered the slow way", "error", err)
		return nil, false
	}
	context.AfterFunc(ctx, func() { _ = f.file.Close() })
	return func() error { return f.serve(ctx, l) }, true
}

// open makes the descriptors and has them wait for each other.
func (f *fastLoop) open(listener syscall.RawConn) error {
	var err error
	if f.ep, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return err
	}
	if f.tick, err = unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_CLOEXEC|unix.TFD_NONBLOCK); err != nil {
		return err
	}
	if f.out, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return err
	}
	if err := unix.SetNonblock(f.out, true); err != nil { // or Go would not wait for it
		return err
	}
	f.file = os.NewFile(uintptr(f.out), "agent polls")
	if f.poll, err = f.file.SyscallConn(); err != nil {
		return err
	}
	var added error
	err = listener.Control(func(fd uintptr) {
		f.ln = int(fd)
		added = epollWatch(f.ep, f.ln, unix.EPOLL_CTL_ADD, unix.EPOLLIN)
	})
	return errors.Join(err, added,
		epollWatch(f.out, f.tick, unix.EPOLL_CTL_ADD, unix.EPOLLIN|unix.EPOLLET),
		epollWatch(f.out, f.ep, unix.EPOLL_CTL_ADD, unix.EPOLLIN|unix.EPOLLONESHOT),
		f.file.SetReadDeadline(f.a.deadline(sweepEvery)))
}

func epollWatch(ep, fd, op int, events uint32) error {
	return unix.EpollCtl(ep, op, fd, &unix.EpollEvent{Events: events, Fd: int32(fd)})
}

// release closes what open made.
func (f *fastLoop) release() {
	if f.file != nil {
		_ = f.file.Close()
	} else if f.out >= 0 {
		_ = unix.Close(f.out)
	}
	for _, fd := range []int{f.ep, f.tick} {
		if fd >= 0 {
			_ = unix.Close(fd)
		}
	}
}

// deadline is on the real clock, whatever the agent's is: it is the kernel's business.
func (a *Agent) deadline(d time.Duration) time.Time { return time.Now().Add(d) }

func (f *fastLoop) serve(ctx context.Context, l net.Listener) error {
	defer func() {
		for fd, c := range f.conns {
			f.close(fd, c)
		}
		f.release()
		_ = l.Close()
	}()
	for {
		err := f.poll.Read(f.ready)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			f.sweep()
			err = f.file.SetReadDeadline(f.a.deadline(sweepEvery))
		}
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			return fmt.Errorf("agent: waiting for polls: %w", err)
		}
	}
}

// ready handles what there is. It returns false: wait for more. With many sidecars the
// timer is set after polls and nothing else is waited for; after a timer that found
// none, everything is.
func (f *fastLoop) ready(uintptr) bool {
	if _, errno := epollNow(f.out, f.events[:]); errno != 0 && errno != unix.EINTR {
		return true // closed; the caller finds out
	}
	if f.batch() && f.a.crowd.polling.Load() >= batchFrom {
		pause := unix.ItimerSpec{Value: unix.NsecToTimespec(int64(batchEvery))}
		if unix.TimerfdSettime(f.tick, 0, &pause, nil) == nil {
			return false
		}
	}
	// Level-triggered: what has come meanwhile is told at once.
	_ = epollWatch(f.out, f.ep, unix.EPOLL_CTL_MOD, unix.EPOLLIN|unix.EPOLLONESHOT)
	return false
}

// batch handles all that the inner instance has, and tells whether that was anything.
// Connections are edge-triggered, so what was taken here is not reported again.
func (f *fastLoop) batch() (any bool) {
	for {
		n, errno := epollNow(f.ep, f.events[:])
		if errno == unix.EINTR {
			continue
		}
		for i := range n {
			fd := f.events[i].Fd
			if int(fd) == f.ln {
				f.accept()
			} else if c := f.conns[fd]; c != nil {
				f.readable(fd, c)
			}
		}
		any = any || n > 0
		if n < len(f.events) {
			return any
		}
	}
}

func (f *fastLoop) accept() {
	for {
		fd, _, err := unix.Accept4(f.ln, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
		switch err {
		case nil:
		case unix.EAGAIN:
			return
		case unix.EINTR, unix.ECONNABORTED:
			continue
		default:
			f.a.crowd.complain("a connection could not be accepted", "error", err)
			time.Sleep(5 * time.Millisecond) // out of files: polls of the others go on
			return
		}
		if !f.a.crowd.enter() {
			_ = unix.Close(fd)
			continue
		}
		c := &fastConn{seen: time.Now()}
		f.conns[int32(fd)] = c
		if err := epollWatch(f.ep, fd, unix.EPOLL_CTL_ADD, unix.EPOLLIN|unix.EPOLLRDHUP|unix.EPOLLET); err != nil {
			f.close(int32(fd), c)
		}
	}
}

// readable answers one poll, or passes the connection on once a request's head is
// there: until then it costs a few bytes here and thousands there.
func (f *fastLoop) readable(fd int32, c *fastConn) {
	for {
		n, errno := readNow(fd, f.in[:])
		switch {
		case errno == unix.EINTR:
			continue
		case errno == unix.EAGAIN:
			return
		case errno != 0 || n == 0:
			f.close(fd, c)
			return
		}
		req := f.in[:n]
		if len(c.head) > 0 {
			req = append(c.head, req...)
		}
		own, ok := f.a.guard.parsePoll(req)
		switch {
		case ok:
			f.forget(c)
			f.reply(fd, c, own)
			return
		case judgeable(req):
			f.handOver(fd, c, req)
			return
		case !f.begin(c, req):
			f.a.crowd.turnedAway.Add(1)
			f.a.crowd.complain("connections are turned away: too many requests are begun and not ended")
			f.close(fd, c)
			return
		}
		// Connections are edge-triggered: there may be more, or the end.
	}
}

// begin keeps what there is of a request, unless that is too much of them all.
func (f *fastLoop) begin(c *fastConn, req []byte) bool {
	if len(c.head) == 0 {
		c.seen = time.Now()
	}
	if f.begun+len(req)-len(c.head) > maxBegun {
		return false
	}
	f.begun += len(req) - len(c.head)
	c.head = append([]byte(nil), req...)
	return true
}

// forget lets go of what begin kept.
func (f *fastLoop) forget(c *fastConn) {
	f.begun -= len(c.head)
	c.head = nil
}

func (f *fastLoop) reply(fd int32, c *fastConn, own Opt[int64]) {
	c.seen = time.Now()
	if !c.polled {
		c.polled = true
		f.a.crowd.polling.Add(1)
	}
	f.answer = f.a.answer(f.answer[:0], &f.body, own)
	// A poller that asks one thing at a time has room for an answer.
	if n, errno := writeNow(fd, f.answer); errno != 0 || n < len(f.answer) {
		f.close(fd, c)
	}
}

// handOver passes a connection to net/http's server, with what was read of it.
func (f *fastLoop) handOver(fd int32, c *fastConn, first []byte) {
	if !f.a.crowd.hand() {
		f.close(fd, c)
		return
	}
	first = append([]byte(nil), first...)
	f.forget(c)
	delete(f.conns, fd)
	if c.polled {
		f.a.crowd.polling.Add(-1)
	}
	err := unix.EpollCtl(f.ep, unix.EPOLL_CTL_DEL, int(fd), nil)
	file := os.NewFile(uintptr(fd), "")
	conn, ferr := net.FileConn(file) // on a descriptor of its own
	_ = file.Close()
	if err = errors.Join(err, ferr); err != nil {
		if conn != nil {
			_ = conn.Close()
		}
		f.a.crowd.open.Add(-1)
		f.a.crowd.handed.Add(-1)
		return
	}
	l := &limitedConn{Conn: &replayedConn{Conn: conn, first: first}, crowd: &f.a.crowd}
	l.handed.Store(true)
	f.rest.give(l)
}

func (f *fastLoop) close(fd int32, c *fastConn) {
	f.forget(c)
	delete(f.conns, fd)
	_ = unix.Close(int(fd))
	f.a.crowd.open.Add(-1)
	if c.polled {
		f.a.crowd.polling.Add(-1)
	}
}

// sweep closes connections on which nothing comes.
func (f *fastLoop) sweep() {
	now := time.Now()
	for fd, c := range f.conns {
		limit := idleTimeout
		if !c.polled || len(c.head) > 0 {
			limit = ioTimeout
		}
		if now.Sub(c.seen) > limit {
			f.close(fd, c)
		}
	}
}

// The calls below never block: the descriptors are non-blocking and the timeout is 0.

func epollNow(ep int, events []unix.EpollEvent) (int, unix.Errno) {
	n, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(ep), uintptr(unsafe.Pointer(&events[0])), uintptr(len(events)), 0, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(n), 0
}

func readNow(fd int32, b []byte) (int, unix.Errno) {
	n, _, errno := unix.RawSyscall(unix.SYS_READ, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)))
	if errno != 0 {
		return 0, errno
	}
	return int(n), 0
}

func writeNow(fd int32, b []byte) (int, unix.Errno) {
	n, _, errno := unix.RawSyscall(unix.SYS_WRITE, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)))
	if errno != 0 {
		return 0, errno
	}
	return int(n), 0
}
