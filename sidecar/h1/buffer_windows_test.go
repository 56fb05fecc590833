//go:build windows

package h1

import (
	"errors"
	"net"
	"syscall"
)

// writeBuffer is net.TCPConn's SetWriteBuffer, for any socket.
func writeBuffer(nc net.Conn, size int) (err error) {
	raw, err := nc.(syscall.Conn).SyscallConn()
	if err != nil {
		return err
	}
	failed := raw.Control(func(fd uintptr) {
		err = syscall.SetsockoptInt(syscall.Handle(fd), syscall.SOL_SOCKET, syscall.SO_SNDBUF, size)
	})
	return errors.Join(failed, err)
}
