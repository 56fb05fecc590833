package gauge

import (
	"errors"
	"io"
	"net"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// puller reads streams when the sum is asked for and not before. A frame then costs the
// agent part of a system call, and none wakes it: woken from idleness, Go's scheduler
// alone spends some 50 to 100 us. The descriptors are unknown to Go's own poller and
// never block, so the calls are made without telling the scheduler either.
//
// All of it is under Board.mu.
type puller struct {
	ep      int
	streams map[int32]*stream
	events  [128]unix.EpollEvent
	buf     [4096]byte
}

// pulled is what a stream has when it is pulled.
type pulled struct {
	fd   int32
	rest [frameSize]byte // the beginning of a frame
	have int
}

// newPuller returns nil where it cannot.
func newPuller() *puller {
	ep, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil
	}
	return &puller{ep: ep, streams: map[int32]*stream{}}
}

// adopt takes a stream whose bytes are those of a TCP connection, which it closes: a
// duplicate of the descriptor lives on. It reports whether it did.
func (p *puller) adopt(s *stream, c *net.TCPConn) bool {
	raw, err := c.SyscallConn()
	if err != nil {
		return false
	}
	fd := -1
	if raw.Control(func(old uintptr) { fd, err = unix.FcntlInt(old, unix.F_DUPFD_CLOEXEC, 0) }) != nil || err != nil {
		return false
	}
	if unix.EpollCtl(p.ep, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLRDHUP, Fd: int32(fd)}) != nil {
		_ = unix.Close(fd)
		return false
	}
	_ = c.Close()
	s.pulled = &pulled{fd: int32(fd)}
	p.streams[int32(fd)] = s
	return true
}

// drop closes a stream's descriptor.
func (p *puller) drop(s *stream) {
	delete(p.streams, s.pulled.fd)
	_ = unix.Close(int(s.pulled.fd)) // which also takes it out of the epoll instance
}

func (p *puller) close() { _ = unix.Close(p.ep) }

// pull reads once from each stream on which something came. Of one that floods, the
// rest waits in the kernel, and in the end at its sender.
func (b *Board) pull(now time.Time) {
	p := b.puller
	if p == nil || len(p.streams) == 0 {
		return
	}
	for looked := 0; looked < len(p.streams); {
		n := p.wait()
		for i := range n {
			s := p.streams[p.events[i].Fd]
			if s == nil {
				continue
			}
			switch v, err := p.read(s.pulled); {
			case err == nil:
				b.put(s, v, now)
			case !errors.Is(err, unix.EAGAIN): // else half a frame, or nothing after all
				b.part(s, err)
			}
		}
		looked += n
		if n < len(p.events) {
			return
		}
	}
}

// wait returns how many events there are.
func (p *puller) wait() int {
	n, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(p.ep), uintptr(unsafe.Pointer(&p.events[0])), uintptr(len(p.events)), 0, 0, 0)
	if errno != 0 {
		return 0 // it was interrupted: the next ask comes soon
	}
	return int(n)
}

// read returns the newest gauge of one read; EAGAIN means that none is whole.
func (p *puller) read(s *pulled) (int64, error) {
	have := copy(p.buf[:], s.rest[:s.have])
	n, _, errno := unix.RawSyscall(unix.SYS_READ, uintptr(s.fd), uintptr(unsafe.Pointer(&p.buf[have])), uintptr(len(p.buf)-have))
	switch {
	case errno == unix.EINTR:
		return 0, unix.EAGAIN
	case errno != 0:
		return 0, errno
	case n == 0:
		return 0, io.EOF
	}
	v, whole, err := newest(p.buf[:have+int(n)])
	s.have = copy(s.rest[:], p.buf[whole:have+int(n)])
	if err == nil && whole == 0 {
		err = unix.EAGAIN
	}
	return v, err
}
