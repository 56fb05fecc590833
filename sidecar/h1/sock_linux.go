package h1

import (
	"io"
	"net"
	"os"
	"sync/atomic"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// sock reads and writes a socket by raw system calls: none of them blocks, so
// the scheduler need not hear of each. A connection that is no plain socket
// (TLS) is read and written as any other.
//
// One goroutine may read while another writes.
type sock struct {
	nc   net.Conn
	raw  syscall.RawConn // nil: not a plain socket
	bufs *buffers
	count

	in   *buffer // of the read under way
	n    int
	rerr syscall.Errno
	out  []byte // left of the write under way
	werr syscall.Errno
	slow bool // the last write had to wait
	// queued is what the kernel held of the write under way when it was last
	// looked at, -1 without one that waits.
	queued  atomic.Int64
	held    []byte
	wrote   bool                  // a byte of what was held has gone out
	broken  bool                  // not all of it could
	suspect bool                  // nothing may be there to read before what is held is written
	stale   bool                  // something was
	rd, wr  func(fd uintptr) bool // made once, so that I/O allocates nothing
}

func (s *sock) init(nc net.Conn, bufs *buffers) {
	s.nc, s.bufs = nc, bufs
	s.queued.Store(-1)
	sc, ok := nc.(syscall.Conn)
	if !ok {
		return
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return // closed; the first read will say so
	}
	s.raw, s.rd, s.wr = raw, s.read, s.write
}

// fill reads once into f, after making room as buffer.fill does. f needs no
// memory while there is nothing to read: it gets some with the first byte.
func (s *sock) fill(f *buffer) (int, error) {
	if s.raw == nil {
		return s.fillPlain(f)
	}
	s.in = f
	err := s.raw.Read(s.rd)
	if s.stale {
		s.stale, s.held = false, nil
		return 0, errStale
	}
	if s.held != nil && err == nil { // it did not fit into the socket's buffer
		var n int
		n, err = s.Write(s.held)
		s.wrote = s.wrote || n > 0
		s.held = nil
		if s.broken = err != nil; !s.broken || s.wrote {
			err = s.raw.Read(s.rd) // of a peer that took not all there may be an answer
		}
	}
	s.held = nil
	if err != nil {
		return 0, err
	}
	switch {
	case s.rerr != 0:
		return 0, os.NewSyscallError("read", s.rerr)
	case s.n == 0:
		return 0, io.EOF
	}
	return s.n, nil
}

// hold keeps b to be written at the beginning of the next fill: what answers it
// comes later, so that no read is made that is bound to find nothing. suspect
// has that fill fail with errStale, and nothing written, if there is something
// to read before: from a kept-alive connection nothing may have come.
func (s *sock) hold(b []byte, suspect bool) {
	s.held, s.wrote, s.broken, s.suspect = b, false, false, suspect
}

// looksFirst reports whether hold's suspicion is looked into.
func (s *sock) looksFirst() bool { return s.raw != nil }

// mute reports whether there is nothing to read, not even the end. The call is
// raw because it never blocks: no need to tell the scheduler.
func mute(fd uintptr) bool {
	var one [1]byte
	_, _, e := unix.RawSyscall6(unix.SYS_RECVFROM, fd, uintptr(unsafe.Pointer(&one)), 1, unix.MSG_PEEK|unix.MSG_DONTWAIT, 0, 0)
	return e == unix.EAGAIN
}

// sendHeld writes what is held and reports whether all of it went out.
func (s *sock) sendHeld(fd uintptr) bool {
	n, _, e := unix.RawSyscall6(unix.SYS_SENDTO, fd, uintptr(unsafe.Pointer(unsafe.SliceData(s.held))), uintptr(len(s.held)),
		unix.MSG_NOSIGNAL, 0, 0)
	if e != 0 {
		return false // Write will say why
	}
	s.wrote = n > 0
	s.put += int64(n)
	if s.held = s.held[n:]; len(s.held) > 0 {
		return false
	}
	s.held = nil
	return true
}

func (s *sock) read(fd uintptr) bool {
	if s.held != nil {
		if s.suspect && !mute(fd) {
			s.stale = true
			return true
		}
		return !s.sendHeld(fd)
	}
	s.bufs.attach(s.in)
	b := s.in.room()
	for {
		n, _, e := unix.RawSyscall(unix.SYS_READ, fd, uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)))
		switch e {
		case 0:
			s.n, s.rerr = int(n), 0
			s.in.w += int(n)
			s.got += int64(n)
			return true
		case unix.EINTR:
		case unix.EAGAIN:
			if s.in.len() == 0 {
				s.bufs.release(s.in)
			}
			return false
		default:
			s.n, s.rerr = 0, e
			return true
		}
	}
}

// Write implements io.Writer.
func (s *sock) Write(b []byte) (n int, err error) {
	for n < len(b) && err == nil {
		var k int
		k, err = s.writeSome(b[n:])
		n += k
	}
	return n, err
}

// writeSome writes as much of b as the socket takes now, once it takes any.
func (s *sock) writeSome(b []byte) (int, error) {
	if s.raw == nil {
		n, err := s.nc.Write(b)
		s.put += int64(n)
		return n, err
	}
	s.out, s.werr, s.slow = b, 0, false
	err := s.raw.Write(s.wr)
	if s.slow {
		s.queued.Store(-1)
	}
	n := len(b) - len(s.out)
	s.out = nil
	s.put += int64(n)
	if err == nil && s.werr != 0 {
		err = os.NewSyscallError("write", s.werr)
	}
	return n, err
}

func (s *sock) write(fd uintptr) bool {
	for begun := false; ; {
		n, _, e := unix.RawSyscall6(unix.SYS_SENDTO, fd, uintptr(unsafe.Pointer(unsafe.SliceData(s.out))), uintptr(len(s.out)),
			unix.MSG_NOSIGNAL, 0, 0)
		switch e {
		case 0:
			begun = true
			if s.out = s.out[n:]; len(s.out) == 0 {
				return true
			}
		case unix.EINTR:
		case unix.EAGAIN:
			if s.slow = true; !begun {
				s.queued.Store(unsent(fd))
			}
			return begun
		default:
			s.werr = e
			return true
		}
	}
}

// taken returns how many bytes the peer's kernel has taken of a write that
// waits, since the last look. Anyone may call it.
func (s *sock) taken() int64 {
	before := s.queued.Load()
	if s.raw == nil || before < 0 {
		return 0
	}
	now := int64(-1)
	if s.raw.Control(func(fd uintptr) { now = unsent(fd) }) != nil || now < 0 || !s.queued.CompareAndSwap(before, now) {
		return 0
	}
	return before - now
}

// unsent is how many bytes of a socket have not been acknowledged; -1: unknown.
func unsent(fd uintptr) int64 {
	n, err := unix.IoctlGetInt(int(fd), unix.SIOCOUTQ)
	if err != nil {
		return -1
	}
	return int64(n)
}

// waited reports whether the last write may have taken time.
func (s *sock) waited() bool { return s.raw == nil || s.slow }
