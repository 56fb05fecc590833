package conform

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"

	"outrigger/sidecar/balance"
	"outrigger/sidecar/h1"
)

// memConn is a client's connection in memory. Its input ends when the engine
// asks for more than there is: so an exchange ends by itself, with no time-out
// and no race against the client's leaving.
type memConn struct {
	in    []byte
	cuts  []byte // sizes of the pieces that it comes in, less one
	out   bytes.Buffer
	reset bool
	once  sync.Once
	done  chan struct{}
}

func (c *memConn) Read(b []byte) (int, error) {
	if len(c.in) == 0 {
		return 0, io.EOF
	}
	n := len(c.in)
	if len(c.cuts) > 0 {
		n, c.cuts = min(n, 1+int(c.cuts[0])), c.cuts[1:]
	}
	n = copy(b, c.in[:n])
	c.in = c.in[n:]
	return n, nil
}

func (c *memConn) Write(b []byte) (int, error) { return c.out.Write(b) }

// SetLinger notes that the connection is to be reset, as a TCP connection would
// be: how else would a client know that a body without a length was cut?
func (c *memConn) SetLinger(int) error {
	c.reset = true
	return nil
}

func (c *memConn) Close() error {
	c.once.Do(func() { close(c.done) })
	return nil
}

func (*memConn) LocalAddr() net.Addr              { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 80} }
func (*memConn) RemoteAddr() net.Addr             { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 4} }
func (*memConn) SetDeadline(time.Time) error      { return nil }
func (*memConn) SetReadDeadline(time.Time) error  { return nil }
func (*memConn) SetWriteDeadline(time.Time) error { return nil }

// memListener hands memConns to a server.
type memListener struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func (l *memListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *memListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

func (*memListener) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 80} }

// fuzzRig is one Outrigger before one backend for all inputs of a target.
type fuzzRig struct {
	sv *service
	ln *memListener
}

func newFuzzRig(f *testing.F, cfg h1.Config, backend string) *fuzzRig {
	ctx, cancel := context.WithCancel(context.Background())
	f.Cleanup(cancel)
	g, err := newEngine(ctx)
	if err != nil {
		f.Fatal(err)
	}
	bcfg := balance.DefaultConfig()
	bcfg.Breaker.ConsecutiveFailures, bcfg.Breaker.MinRequests = 1000, 1e6 // most inputs are failures
	sv, err := g.service(ctx, cfg, bcfg, backend)
	if err != nil {
		f.Fatal(err)
	}
	r := &fuzzRig{sv: sv, ln: &memListener{conns: make(chan net.Conn), closed: make(chan struct{})}}
	go sv.s.Serve(r.ln)
	f.Cleanup(func() { _ = r.ln.Close() })
	return r
}

// exchange has the bytes served and returns the connection when it is over.
func (r *fuzzRig) exchange(t *testing.T, in, cuts []byte) *memConn {
	t.Helper()
	c := &memConn{in: in, cuts: cuts, done: make(chan struct{})}
	r.ln.conns <- c
	select {
	case <-c.done:
	case <-time.After(patience):
		t.Fatalf("%q: still going on after %v", in, patience)
	}
	for end := time.Now().Add(patience); r.sv.b.Status().Endpoints[0].InFlight > 0; time.Sleep(50 * time.Microsecond) {
		if time.Now().After(end) {
			t.Fatalf("%q: a lease is still held", in)
		}
	}
	return c
}

// recorder is a backend that reads requests with net/http and with the parser
// of this package, holds one against the other, and answers with an echo.
type recorder struct {
	ln net.Listener

	mu     sync.Mutex
	heads  uint64   // requests that began
	echoes []string // of whole requests, in order
	faults []string
}

func newRecorder(f *testing.F) *recorder {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { _ = ln.Close() })
	r := &recorder{ln: ln}
	go func() {
		for {
			nc, err := ln.Accept()
			if err != nil {
				return
			}
			go r.serve(nc)
		}
	}()
	return r
}

func (r *recorder) fault(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.faults = append(r.faults, fmt.Sprintf(format, args...))
}

// echoOf names a request: what an answer to it must hold.
func echoOf(method, target, host string, body []byte) string {
	return fmt.Sprintf("%s %q %q %x", method, target, host, sha256.Sum256(body))
}

func (r *recorder) serve(nc net.Conn) {
	defer nc.Close()
	var raw bytes.Buffer
	br := bufio.NewReaderSize(io.TeeReader(nc, &raw), 64<<10)
	for {
		raw.Reset()
		q, err := http.ReadRequest(br)
		if err != nil {
			if raw.Len() > 0 {
				r.fault("net/http refuses %q: %v", raw.Bytes(), err)
			}
			return
		}
		r.mu.Lock()
		r.heads++
		r.mu.Unlock()
		if q.Header.Get("Expect") != "" {
			_, _ = io.WriteString(nc, "HTTP/1.1 100 Continue\r\n\r\n")
		}
		body, err := io.ReadAll(q.Body)
		if err != nil {
			return // cut off by the proxy, for its client's sake
		}
		if br.Buffered() > 0 {
			r.fault("%d octets behind the request %q", br.Buffered(), raw.Bytes())
			return
		}
		if why := unlike(raw.Bytes(), q, body); why != "" {
			r.fault("%q: %s", raw.Bytes(), why)
		}
		echo := echoOf(q.Method, q.RequestURI, q.Host, body)
		r.mu.Lock()
		r.echoes = append(r.echoes, echo)
		r.mu.Unlock()
		text := echo
		if q.Method == "HEAD" {
			text = ""
		}
		if _, err := fmt.Fprintf(nc, "HTTP/1.1 200 OK\r\nEcho: %s\r\nContent-Length: %d\r\n\r\n%s", echo, len(echo), text); err != nil {
			return
		}
	}
}

// unlike says how this package reads a request otherwise than net/http.
func unlike(raw []byte, q *http.Request, body []byte) string {
	w := newWire(bytes.NewReader(raw))
	m, err := w.head(true)
	if m == nil || err != nil {
		return fmt.Sprint("no whole head: ", err)
	}
	w.rest(m, "")
	rest, _ := io.ReadAll(w.br)
	switch {
	case len(m.faults) > 0:
		return m.faults[0]
	case !m.whole || len(rest) > 0:
		return fmt.Sprintf("whole %v, %q is left", m.whole, rest)
	case m.method != q.Method || m.target() != q.RequestURI || m.body != string(body):
		return fmt.Sprintf("%q with %q", m.start, m.body)
	}
	return ""
}

// take returns what was recorded since the last call, once as many requests
// have begun as are due.
func (r *recorder) take(t *testing.T, heads uint64) (echoes []string) {
	t.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(50 * time.Microsecond) {
		r.mu.Lock()
		if r.heads >= heads || len(r.faults) > 0 {
			break
		}
		r.mu.Unlock()
		if time.Now().After(end) {
			t.Fatalf("%d requests were forwarded, the backend saw fewer", heads)
		}
	}
	defer r.mu.Unlock()
	if len(r.faults) > 0 {
		t.Fatalf("at the backend: %s", r.faults[0])
	}
	if r.heads != heads {
		t.Fatalf("%d requests were forwarded, the backend saw %d", heads, r.heads)
	}
	echoes, r.echoes = r.echoes, nil
	return echoes
}
