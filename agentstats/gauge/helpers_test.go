package gauge

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
)

// patience bounds a wait for something that happens at once unless it is broken.
const patience = 20 * time.Second

// eventually waits for real things (sockets, processes).
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within %s: %s", patience, what)
		}
	}
}

// clock is a wall clock that a test moves.
type clock struct{ off atomic.Int64 }

var epoch = time.Now()

func (c *clock) now() time.Time          { return epoch.Add(time.Duration(c.off.Load())) }
func (c *clock) advance(d time.Duration) { c.off.Add(int64(d)) }

// lines keeps a log.
type lines struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *lines) count(text string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.buf.String(), text)
}

func (l *lines) logger() hclog.Logger {
	return hclog.New(&hclog.LoggerOptions{Output: l, Level: hclog.Debug})
}

// agent is a board behind a real HTTP server with an agent's timeouts.
type agent struct {
	*Board
	addr string
	srv  *http.Server
	once sync.Once
}

func serve(t testing.TB, b *Board, l net.Listener) *agent {
	t.Helper()
	mux := http.NewServeMux()
	mux.Handle("GET "+Path, b)
	a := &agent{Board: b, addr: l.Addr().String(), srv: &http.Server{
		Handler: mux, ReadTimeout: 5 * time.Second, WriteTimeout: 5 * time.Second, IdleTimeout: 30 * time.Second,
		MaxHeaderBytes: 4 << 10, ErrorLog: hclog.NewNullLogger().StandardLogger(nil),
	}}
	go a.srv.Serve(l)
	t.Cleanup(a.stop)
	return a
}

// stop is what a restart or an end does to the streams.
func (a *agent) stop() {
	a.once.Do(func() {
		a.srv.Close()
		a.Close()
	})
}

func listen(t testing.TB, addr string) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// bothWays runs a test with streams that are read when somebody asks (where the system
// can), and with streams that have readers.
func bothWays(t *testing.T, f func(t *testing.T, env BoardEnv)) {
	t.Run("pulled", func(t *testing.T) { f(t, BoardEnv{}) })
	t.Run("followed", func(t *testing.T) {
		f(t, BoardEnv{Socket: func(net.Conn) *net.TCPConn { return nil }})
	})
}

// tcpAgent serves a board on loopback.
func tcpAgent(t testing.TB, env BoardEnv) *agent {
	t.Helper()
	return serve(t, NewBoard(BoardConfig{MaxStreams: 100}, env), listen(t, "127.0.0.1:0"))
}

func (a *agent) total() float64 {
	total, _, _ := a.Sum(a.env.Now())
	return total
}

// sums fails unless the sum is exactly this, now.
func sums(t *testing.T, b *Board, now time.Time, total float64, streams int) {
	t.Helper()
	if got, n, _ := b.Sum(now); got != total || n != streams {
		t.Errorf("the sum is %v of %d streams, want %v of %d", got, n, total, streams)
	}
}

const request = "GET /v1/gauge HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: outrigger-gauge\r\n\r\n"

// raw opens a stream by hand.
func raw(t testing.TB, addr string) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	io.WriteString(c, request)
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil || resp.StatusCode != 101 || resp.Header.Get("Upgrade") != Protocol {
		t.Fatalf("a stream was answered %+v, %v", resp, err)
	}
	return c
}

func put(t testing.TB, c net.Conn, v int64) {
	t.Helper()
	f := frame(v)
	if _, err := c.Write(f[:]); err != nil {
		t.Fatal(err)
	}
}

// ends waits for a board to end a connection.
func (a *agent) ends(t testing.TB, c net.Conn) {
	t.Helper()
	eventually(t, "the connection ends", func() bool {
		a.total()
		c.SetReadDeadline(time.Now().Add(time.Millisecond))
		var b [1]byte
		n, err := c.Read(b[:])
		if n != 0 {
			t.Fatal("it was sent something")
		}
		return !errors.Is(err, os.ErrDeadlineExceeded)
	})
}

// pipes is a network of agents in memory, for virtual time.
type pipes struct {
	mu    sync.Mutex
	hosts map[string]*pipeListener
	dials map[string]int
}

func newPipes() *pipes { return &pipes{hosts: map[string]*pipeListener{}, dials: map[string]int{}} }

type pipeListener struct {
	net     *pipes
	id      string
	waiting chan net.Conn
	gone    chan struct{}
	once    sync.Once
}

type pipeAddr string

func (pipeAddr) Network() string  { return "pipe" }
func (a pipeAddr) String() string { return string(a) }

func (p *pipes) listen(id string) *pipeListener {
	p.mu.Lock()
	defer p.mu.Unlock()
	l := &pipeListener{net: p, id: id, waiting: make(chan net.Conn), gone: make(chan struct{})}
	p.hosts[id] = l
	return l
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.waiting:
		return c, nil
	case <-l.gone:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Close() error {
	l.once.Do(func() {
		close(l.gone)
		l.net.mu.Lock()
		defer l.net.mu.Unlock()
		if l.net.hosts[l.id] == l {
			delete(l.net.hosts, l.id)
		}
	})
	return nil
}

func (l *pipeListener) Addr() net.Addr { return pipeAddr(l.id) }

func (p *pipes) dial(ctx context.Context, id string) (net.Conn, error) {
	p.mu.Lock()
	p.dials[id]++
	l := p.hosts[id]
	p.mu.Unlock()
	if l == nil {
		return nil, fmt.Errorf("nobody is at %s", id)
	}
	near, far := net.Pipe()
	select {
	case l.waiting <- far:
		return near, nil
	case <-l.gone:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (p *pipes) dialled(id string) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.dials[id]
}

// flow is an endpoint whose in-flight a test moves as requests would.
type flow struct {
	*Gauge
	n atomic.Int64
}

func newFlow(s *Sender, id string) *flow {
	f := &flow{}
	f.Gauge = s.Gauge(id, func() int { return int(f.n.Load()) })
	return f
}

func (f *flow) add(d int64) {
	f.n.Add(d)
	f.Changed()
}

// start runs a sender until the test ends.
func start(t testing.TB, s *Sender) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.Run(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		<-done
	})
}

func newReader(c net.Conn) *bufio.Reader { return bufio.NewReader(c) }
