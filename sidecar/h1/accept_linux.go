package h1

import (
	"net"
	"net/netip"
	"os"
	"sync/atomic"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// acceptor is a TCP listener whose calls do not tell the scheduler: with a
// connection for every request, the runtime's watch over system calls (its
// sysmon thread) was a tenth of the cost. Options that an accepted socket needs
// are set on the listener, from which it inherits them.
type acceptor struct {
	*os.File
	raw  syscall.RawConn
	addr *net.TCPAddr
	take func(fd uintptr) bool // made once
	shut atomic.Bool

	fd    int // of the connection just accepted
	from  unix.RawSockaddrAny
	errno syscall.Errno
}

// quickListener returns a listener in the place of ln, which it takes over, or
// ln itself if it is none of TCP.
func quickListener(ln net.Listener) net.Listener {
	tcp, ok := ln.(*net.TCPListener)
	if !ok {
		return ln
	}
	addr, ok := tcp.Addr().(*net.TCPAddr)
	if !ok {
		return ln
	}
	f, err := tcp.File()
	if err != nil {
		return ln
	}
	raw, err := f.SyscallConn()
	if err == nil {
		var set error
		err = raw.Control(func(fd uintptr) {
			set = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
		})
		if err == nil {
			err = set
		}
	}
	if err != nil {
		_ = f.Close()
		return ln
	}
	_ = tcp.Close() // the socket listens on, by f
	a := &acceptor{File: f, raw: raw, addr: addr}
	a.take = a.accept
	return a
}

// Accept implements net.Listener.
func (a *acceptor) Accept() (net.Conn, error) {
	if err := a.raw.Read(a.take); err != nil {
		if a.shut.Load() {
			err = net.ErrClosed
		}
		return nil, err
	}
	if a.errno != 0 {
		return nil, os.NewSyscallError("accept4", a.errno)
	}
	return &accepted{File: os.NewFile(uintptr(a.fd), "client"), listener: a.addr, remote: addrPort(&a.from)}, nil
}

func (a *acceptor) accept(fd uintptr) bool {
	for {
		size := uint32(unsafe.Sizeof(a.from))
		n, _, e := unix.RawSyscall6(unix.SYS_ACCEPT4, fd, uintptr(unsafe.Pointer(&a.from)), uintptr(unsafe.Pointer(&size)),
			unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0, 0)
		switch e {
		case unix.EAGAIN:
			return false
		case unix.EINTR, unix.ECONNABORTED: // this one left before its turn
			continue
		}
		a.fd, a.errno = int(n), e
		return true
	}
}

// Close implements net.Listener.
func (a *acceptor) Close() error {
	a.shut.Store(true)
	return a.File.Close()
}

// Addr implements net.Listener.
func (a *acceptor) Addr() net.Addr { return a.addr }

// accepted is a client connection that came by an acceptor. It does what a
// net.TCPConn would do here.
type accepted struct {
	*os.File
	listener *net.TCPAddr
	remote   netip.AddrPort
}

// RemoteAddr implements net.Conn.
func (c *accepted) RemoteAddr() net.Addr { return net.TCPAddrFromAddrPort(c.remote) }

// LocalAddr implements net.Conn.
func (c *accepted) LocalAddr() net.Addr {
	if !c.listener.IP.IsUnspecified() {
		return c.listener
	}
	var sa unix.RawSockaddrAny
	size := uint32(unsafe.Sizeof(sa))
	_ = c.control(func(fd uintptr) error {
		_, _, e := unix.RawSyscall(unix.SYS_GETSOCKNAME, fd, uintptr(unsafe.Pointer(&sa)), uintptr(unsafe.Pointer(&size)))
		if e != 0 {
			return e
		}
		return nil
	})
	if a := addrPort(&sa); a.IsValid() {
		return net.TCPAddrFromAddrPort(a)
	}
	return c.listener
}

// CloseWrite ends our direction.
func (c *accepted) CloseWrite() error {
	return c.control(func(fd uintptr) error { return unix.Shutdown(int(fd), unix.SHUT_WR) })
}

// SetLinger is net.TCPConn's.
func (c *accepted) SetLinger(sec int) error {
	return c.control(func(fd uintptr) error {
		return unix.SetsockoptLinger(int(fd), unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1, Linger: int32(sec)})
	})
}

func (c *accepted) control(f func(fd uintptr) error) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	if err := raw.Control(func(fd uintptr) { failed = f(fd) }); err != nil {
		return err
	}
	return failed
}

// addrPort reads what the kernel wrote; the zero value for what is no address.
func addrPort(sa *unix.RawSockaddrAny) netip.AddrPort {
	port := func(p *uint16) uint16 {
		b := (*[2]byte)(unsafe.Pointer(p)) // in the network's order
		return uint16(b[0])<<8 | uint16(b[1])
	}
	switch sa.Addr.Family {
	case unix.AF_INET:
		in := (*unix.RawSockaddrInet4)(unsafe.Pointer(sa))
		return netip.AddrPortFrom(netip.AddrFrom4(in.Addr), port(&in.Port))
	case unix.AF_INET6:
		in := (*unix.RawSockaddrInet6)(unsafe.Pointer(sa))
		return netip.AddrPortFrom(netip.AddrFrom16(in.Addr).Unmap(), port(&in.Port))
	}
	return netip.AddrPort{}
}
