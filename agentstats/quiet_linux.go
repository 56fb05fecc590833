package agentstats

import (
	"io"
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// quietConn reads and writes a TCP connection with system calls of which Go's
// scheduler is not told. They never block, since the descriptor is non-blocking, and
// the ordinary ones wake the scheduler's monitor thread out of its sleep in a process
// that does little else. Deadlines and Close work as ever. One reader and one writer.
type quietConn struct {
	net.Conn
	raw syscall.RawConn

	in, out     []byte
	read, wrote int
	rerr, werr  unix.Errno
	doRead      func(fd uintptr) bool
	doWrite     func(fd uintptr) bool
}

// quiet returns the connection in its quiet form where it has one.
func quiet(c net.Conn) net.Conn {
	tcp, ok := c.(*net.TCPConn)
	if !ok {
		return c
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return c
	}
	q := &quietConn{Conn: c, raw: raw}
	q.doRead = func(fd uintptr) bool { // made once: a closure per call would be garbage
		q.read, q.rerr = readNow(int32(fd), q.in)
		return q.rerr != unix.EAGAIN && q.rerr != unix.EINTR
	}
	q.doWrite = func(fd uintptr) bool {
		var n int
		n, q.werr = writeNow(int32(fd), q.out[q.wrote:])
		q.wrote += n
		return q.werr != unix.EAGAIN && q.werr != unix.EINTR && (q.werr != 0 || q.wrote == len(q.out))
	}
	return q
}

func (q *quietConn) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	q.in = p
	if err := q.raw.Read(q.doRead); err != nil {
		return 0, err
	}
	switch {
	case q.rerr != 0:
		return 0, &net.OpError{Op: "read", Net: "tcp", Source: q.LocalAddr(), Addr: q.RemoteAddr(), Err: q.rerr}
	case q.read == 0:
		return 0, io.EOF
	}
	return q.read, nil
}

func (q *quietConn) Write(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	q.out, q.wrote = p, 0
	if err := q.raw.Write(q.doWrite); err != nil {
		return q.wrote, err
	}
	if q.werr != 0 {
		return q.wrote, &net.OpError{Op: "write", Net: "tcp", Source: q.LocalAddr(), Addr: q.RemoteAddr(), Err: q.werr}
	}
	return q.wrote, nil
}
