//go:build !unix

package h1

import (
	"net"
	"syscall"
)

// newWire's connection always waits: no connection is used twice here.
func newWire(nc net.Conn) *wire { return &wire{Conn: nc} }

type oneshot struct{}

func (*oneshot) read(syscall.RawConn, []byte) (int, error)  { return 0, errNotNow }
func (*oneshot) write(syscall.RawConn, []byte) (int, error) { return 0, errNotNow }
