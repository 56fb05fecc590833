package gauge

import (
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// bindLosses has the kernel give a connection up when nothing was acknowledged for as
// long as the agent counts its last frame. By itself it would go on for a quarter of an
// hour, and after a break of the network send again only minutes later.
func bindLosses(conn net.Conn) {
	if t, ok := conn.(interface{ NetConn() net.Conn }); ok { // TLS
		conn = t.NetConn()
	}
	c, ok := conn.(syscall.Conn)
	if !ok {
		return
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return
	}
	// Without it the stream works, but for that.
	_ = raw.Control(func(fd uintptr) {
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(Expiry.Milliseconds()))
	})
}
