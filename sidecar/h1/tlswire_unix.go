//go:build unix

package h1

import (
	"io"
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

func newWire(nc net.Conn) *wire {
	w := &wire{Conn: nc}
	if sc, ok := nc.(syscall.Conn); ok {
		w.raw, _ = sc.SyscallConn() // nil on error
	}
	return w
}

// oneshot is one system call on a socket, which Go has made non-blocking.
type oneshot struct {
	b   []byte
	n   int
	err error
}

func (o *oneshot) read(raw syscall.RawConn, b []byte) (int, error) {
	o.b = b
	err := raw.Read(o.tryRead)
	o.b = nil
	if err == nil {
		err = o.err
	}
	if err == nil && o.n == 0 && len(b) > 0 {
		err = io.EOF
	}
	return max(o.n, 0), err
}

func (o *oneshot) write(raw syscall.RawConn, b []byte) (int, error) {
	o.b = b
	err := raw.Write(o.tryWrite)
	o.b = nil
	if err == nil {
		err = o.err
	}
	if err == nil && o.n < len(b) {
		err = errNotNow
	}
	return max(o.n, 0), err
}

func (o *oneshot) tryRead(fd uintptr) bool {
	o.try(func() (int, error) { return unix.Read(int(fd), o.b) })
	return true
}

func (o *oneshot) tryWrite(fd uintptr) bool {
	o.try(func() (int, error) { return unix.Write(int(fd), o.b) })
	return true
}

func (o *oneshot) try(call func() (int, error)) {
	for {
		o.n, o.err = call()
		switch o.err {
		case unix.EINTR:
			continue
		case unix.EAGAIN:
			o.err = errNotNow
		}
		return
	}
}
