//go:build unix && !linux

package h1

import (
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// peeker looks whether an idle connection has anything to read: its end, or
// bytes that nobody asked for. Either way it must not carry a request.
type peeker struct{ raw syscall.RawConn }

func newPeeker(nc net.Conn) *peeker {
	p := &peeker{}
	if sc, ok := nc.(syscall.Conn); ok {
		p.raw, _ = sc.SyscallConn() // nil on error: never quiet
	}
	return p
}

// quiet reports whether the connection is open with nothing to read.
func (p *peeker) quiet() bool {
	if p.raw == nil {
		return false
	}
	clean := false
	err := p.raw.Read(func(fd uintptr) bool {
		_, _, e := unix.Recvfrom(int(fd), make([]byte, 1), unix.MSG_PEEK|unix.MSG_DONTWAIT)
		clean = e == unix.EAGAIN
		return true
	})
	return err == nil && clean
}
