//go:build unix

package gauge

import "syscall"

// rawWriter writes to a socket without ever waiting for it, which no deadline of
// net.Conn does for free. Not for concurrent use.
type rawWriter struct {
	conn syscall.RawConn
	buf  [frameSize]byte
	n    int
	err  error
	once func(fd uintptr) bool // made here, so that a write allocates nothing
}

func newRawWriter(c syscall.RawConn) *rawWriter {
	w := &rawWriter{conn: c}
	w.once = func(fd uintptr) bool {
		for {
			w.n, w.err = writeNow(fd, w.buf[:])
			if w.err != syscall.EINTR {
				return true
			}
		}
	}
	return w
}

func (w *rawWriter) write(f [frameSize]byte) error {
	w.buf = f
	if err := w.conn.Write(w.once); err != nil {
		return err
	}
	if w.err == syscall.EAGAIN || w.err == nil && w.n < frameSize {
		return errStalled
	}
	return w.err
}
