//go:build !linux

package h1

import "net"

// sock reads and writes a connection; sock_linux.go says what it is for.
type sock struct {
	nc   net.Conn
	bufs *buffers
	count
	held   []byte
	wrote  bool // a byte of what was held has gone out
	broken bool // not all of it could
}

func (s *sock) init(nc net.Conn, bufs *buffers) { s.nc, s.bufs = nc, bufs }

// fill writes what is held and reads once into f.
func (s *sock) fill(f *buffer) (int, error) { return s.fillPlain(f) }

// hold keeps b to be written at the beginning of the next fill.
func (s *sock) hold(b []byte, _ bool) { s.held, s.wrote = b, false }

// looksFirst is for Linux.
func (s *sock) looksFirst() bool { return false }

// Write implements io.Writer.
func (s *sock) Write(b []byte) (int, error) {
	n, err := s.nc.Write(b)
	s.put += int64(n)
	return n, err
}

// writeSome writes b.
func (s *sock) writeSome(b []byte) (int, error) { return s.Write(b) }

// simpleRequests is for Linux.
func (c *conn) simpleRequests() headState { return headMore }

// readable is for Linux.
func (c *conn) readable(uintptr) bool { return true }

// taken is for Linux.
func (s *sock) taken() int64 { return 0 }

// waited reports whether the last write may have taken time.
func (s *sock) waited() bool { return true }
