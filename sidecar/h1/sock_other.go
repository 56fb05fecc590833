//go:build !linux

package h1

import "net"

// sock reads and writes a connection; see sock_linux.go for what it is for.
type sock struct {
	nc   net.Conn
	bufs *buffers
}

func (s *sock) init(nc net.Conn, bufs *buffers) { s.nc, s.bufs = nc, bufs }

func (s *sock) fill(f *buffer) (int, error) {
	s.bufs.attach(f)
	return f.fill(s.nc)
}

// Write implements io.Writer.
func (s *sock) Write(b []byte) (int, error) { return s.nc.Write(b) }

// waited reports whether the last write may have taken time.
func (s *sock) waited() bool { return true }
