package h1

import (
	"net"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// peeker looks whether an idle connection has anything to read: its end, or
// bytes that nobody asked for. Either way it must not carry a request.
type peeker struct {
	raw   syscall.RawConn
	look  func(fd uintptr) bool // made once, so that a look allocates nothing
	clean bool
	one   [1]byte
}

func newPeeker(nc net.Conn) *peeker {
	p := &peeker{}
	sc, ok := nc.(syscall.Conn)
	if !ok {
		return p
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return p
	}
	p.raw = raw
	p.look = func(fd uintptr) bool {
		// Raw, because it never blocks: no need to tell the scheduler.
		_, _, e := unix.RawSyscall6(unix.SYS_RECVFROM, fd, uintptr(unsafe.Pointer(&p.one)), 1,
			unix.MSG_PEEK|unix.MSG_DONTWAIT, 0, 0)
		p.clean = e == unix.EAGAIN
		return true
	}
	return p
}

// quiet reports whether the connection is open with nothing to read.
func (p *peeker) quiet() bool {
	if p.raw == nil {
		return true // not a socket: nothing to look at
	}
	p.clean = false
	return p.raw.Read(p.look) == nil && p.clean
}
