// Package tunnel carries bytes between two connections that speak a protocol
// of their own: upgraded HTTP connections, such as WebSockets.
package tunnel

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// bufSize is what one read may bring. Tunnels are long-lived and mostly idle,
// so it is small against a page of video and large against a message.
const bufSize = 16 << 10

// Run copies in both directions until both have ended, or one fails, or no
// byte has moved either way for idle. fromClient and fromBackend were read
// ahead and go first. The end of one direction is passed on as a half-close,
// so that the other may finish. Run closes neither connection; their deadlines
// are spent when it returns.
func Run(client, backend net.Conn, fromClient, fromBackend []byte, idle time.Duration) {
	t := &tunnel{idle: idle, conns: [2]net.Conn{client, backend}}
	t.touch()
	var crash any // a panic there is the caller's to recover from
	var wg sync.WaitGroup
	wg.Go(func() {
		defer func() {
			if crash = recover(); crash != nil {
				t.end()
			}
		}()
		t.copy(backend, client, fromClient)
	})
	t.copy(client, backend, fromBackend)
	wg.Wait()
	if crash != nil {
		panic(crash)
	}
}

type tunnel struct {
	idle  time.Duration
	last  atomic.Int64 // UnixNano of the last byte either way
	conns [2]net.Conn
	// over is set before the deadlines are moved to the past: whoever moves one
	// forward looks at it afterwards.
	over atomic.Bool
}

func (t *tunnel) touch() { t.last.Store(time.Now().UnixNano()) }

// copy moves bytes one way until the source ends or either side fails. A
// failure ends the other direction too.
func (t *tunnel) copy(dst, src net.Conn, first []byte) {
	err := t.write(dst, first)
	if err == nil {
		err = t.loop(dst, src)
	}
	if err == nil {
		if cw, ok := dst.(interface{ CloseWrite() error }); ok && cw.CloseWrite() == nil {
			return
		}
	}
	t.end()
}

// end makes all I/O on both connections fail from now on.
func (t *tunnel) end() {
	t.over.Store(true)
	for _, c := range t.conns {
		_ = c.SetDeadline(time.Unix(1, 0)) // fails only on a closed connection
	}
}

func (t *tunnel) loop(dst, src net.Conn) error {
	buf := make([]byte, bufSize)
	for {
		if err := src.SetReadDeadline(time.Unix(0, t.last.Load()).Add(t.idle)); err != nil {
			return err
		}
		if t.over.Load() {
			return net.ErrClosed
		}
		n, err := src.Read(buf)
		if n > 0 {
			t.touch()
			if werr := t.write(dst, buf[:n]); werr != nil {
				return werr
			}
		}
		switch {
		case err == nil:
		case errors.Is(err, io.EOF):
			return nil
		case errors.Is(err, os.ErrDeadlineExceeded) && t.lively():
			// The other direction kept the tunnel alive meanwhile.
		default:
			return err
		}
	}
}

// lively reports whether a byte has moved within the idle time.
func (t *tunnel) lively() bool {
	return !t.over.Load() && time.Since(time.Unix(0, t.last.Load())) < t.idle
}

func (t *tunnel) write(dst net.Conn, b []byte) error {
	if len(b) == 0 {
		return nil
	}
	if err := dst.SetWriteDeadline(time.Now().Add(t.idle)); err != nil {
		return err
	}
	if t.over.Load() {
		return net.ErrClosed
	}
	_, err := dst.Write(b)
	t.touch()
	return err
}
