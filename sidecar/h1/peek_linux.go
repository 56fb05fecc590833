package h1

import (
	"net"
	"syscall"
)

// peeker looks whether an idle connection has anything to read: its end, or
// bytes that nobody asked for. Either way it must not carry a request.
type peeker struct {
	raw   syscall.RawConn
	look  func(fd uintptr) bool // made once, so that a look allocates nothing
	clean bool
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
		p.clean = mute(fd)
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
