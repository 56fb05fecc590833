package gauge

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync/atomic"
	"syscall"
	"time"
)

// maxHead bounds the head of an agent's answer in bytes; ours has under 100.
const maxHead = 4 << 10

// writeWait is the longest wait for a connection that has no descriptor of its own
// (TLS), whose buffer is full.
const writeWait = 10 * time.Millisecond

var (
	errStalled = errors.New("the agent does not read what it is sent")
	errSpoke   = errors.New("the agent sent bytes nobody asked for")
)

// refusedError is an answer that is no 101 of ours.
type refusedError string

func (e refusedError) Error() string { return string(e) }

// link is one open stream. write is for one goroutine, the rest for any.
type link struct {
	conn net.Conn
	raw  *rawWriter // nil: conn must be written to through its own Write
	why  atomic.Pointer[error]

	// The sender's, as write is.
	buf  [frameSize]byte
	sent int64         // what the agent has
	at   time.Duration // since when
}

// open dials the agent and shakes hands.
func (s *Sender) open(ctx context.Context, id string) (*link, error) {
	ctx, cancel := context.WithTimeout(ctx, handshakeTimeout)
	defer cancel()
	conn, err := s.env.Dial(ctx, id)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	err = s.upgrade(conn, id)
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	l := &link{conn: conn}
	if c, ok := conn.(syscall.Conn); ok {
		if raw, err := c.SyscallConn(); err == nil {
			l.raw = newRawWriter(raw)
		}
	}
	bindLosses(conn)
	return l, nil
}

// upgrade asks for the stream. The request goes through net/http, which lets no
// header's value become another header.
func (s *Sender) upgrade(conn net.Conn, id string) error {
	req, err := http.NewRequest(http.MethodGet, "http://"+host(conn)+Path, nil)
	if err != nil {
		return err
	}
	req.Header.Set("Connection", "Upgrade")
	req.Header.Set("Upgrade", Protocol)
	req.Header.Set("User-Agent", "outrigger")
	if auth := s.env.Authorization(id); auth != "" {
		req.Header.Set("Authorization", auth)
	}
	if err := req.Write(conn); err != nil {
		return err
	}
	r := bufio.NewReaderSize(io.LimitReader(conn, maxHead), 512)
	resp, err := http.ReadResponse(r, req)
	if err != nil {
		return fmt.Errorf("opening a gauge stream: %w", err)
	}
	switch {
	case resp.StatusCode != http.StatusSwitchingProtocols:
		return refusedError(fmt.Sprintf("the agent answered %d %s", resp.StatusCode, http.StatusText(resp.StatusCode)))
	case !token(resp.Header["Connection"], "upgrade") || !token(resp.Header["Upgrade"], Protocol):
		return refusedError("the agent switched to another protocol than " + Protocol)
	case r.Buffered() > 0:
		return errSpoke
	}
	return nil
}

func host(conn net.Conn) string {
	if a, ok := conn.RemoteAddr().(*net.TCPAddr); ok {
		return a.AddrPort().String()
	}
	return "agent"
}

// write sends one frame whole and at once, or not at all.
func (l *link) write(f [frameSize]byte) error {
	if l.raw != nil {
		return l.raw.write(f)
	}
	if err := l.conn.SetWriteDeadline(time.Now().Add(writeWait)); err != nil {
		return err
	}
	l.buf = f
	if _, err := l.conn.Write(l.buf[:]); err != nil {
		return err
	}
	return l.conn.SetWriteDeadline(time.Time{}) // or its timer would wake us
}

// wait returns why the stream ended, when it did.
func (l *link) wait() error {
	var b [1]byte
	_, err := l.conn.Read(b[:])
	if why := l.why.Load(); why != nil {
		return *why
	}
	if err == nil {
		return errSpoke
	}
	return err
}

// fail has wait return err. It never blocks.
func (l *link) fail(err error) {
	l.why.CompareAndSwap(nil, &err)
	_ = l.conn.SetReadDeadline(time.Unix(1, 0))
}

func (l *link) close() { _ = l.conn.Close() }
