package h1

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/textproto"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"outrigger/test/harness"
)

// peer is one end of a TCP connection that a test speaks on byte by byte: a
// client before the server, or a backend behind it. Its methods give up after
// patience.
type peer struct {
	t  testing.TB
	nc *net.TCPConn
	br *bufio.Reader
	n  int // which connection of its backend, from 1
}

func newPeer(t testing.TB, nc net.Conn) *peer {
	_ = nc.SetDeadline(time.Now().Add(patience))
	return &peer{t: t, nc: nc.(*net.TCPConn), br: bufio.NewReaderSize(nc, 64<<10)}
}

// send writes s. An error is the caller's to notice by what it reads.
func (p *peer) send(s string) { _, _ = io.WriteString(p.nc, s) }

// drip writes s byte by byte, each in a segment of its own as far as the
// kernel goes along (no Nagle).
func (p *peer) drip(s string) {
	for i := range len(s) {
		p.send(s[i : i+1])
	}
}

// head reads a head with its empty line. What came before the end of the
// connection is returned if there is one.
func (p *peer) head() string {
	var b strings.Builder
	for {
		l, err := p.br.ReadString('\n')
		b.WriteString(l)
		if err != nil || l == "\r\n" {
			return b.String()
		}
	}
}

// read reads n bytes, fewer at the end.
func (p *peer) read(n int) string {
	b := make([]byte, n)
	n, _ = io.ReadFull(p.br, b)
	return string(b[:n])
}

// rest reads to the end. nil is a clean end.
func (p *peer) rest() (string, error) {
	b, err := io.ReadAll(p.br)
	return string(b), err
}

// end says how the connection ends: "eof", "reset", "more" (with bytes before
// that) or "open" when it did not within patience.
func (p *peer) end() string {
	b, err := p.br.Peek(1)
	switch {
	case len(b) > 0:
		return "more"
	case err == io.EOF:
		return "eof"
	case errors.Is(err, syscall.ECONNRESET):
		return "reset"
	case errors.Is(err, os.ErrDeadlineExceeded):
		return "open"
	default:
		return err.Error()
	}
}

// reset closes with an RST.
func (p *peer) reset() {
	_ = p.nc.SetLinger(0)
	_ = p.nc.Close()
}

// quietFor reports whether nothing comes for d.
func (p *peer) quietFor(d time.Duration) bool {
	_ = p.nc.SetReadDeadline(time.Now().Add(d))
	defer p.nc.SetReadDeadline(time.Now().Add(patience))
	_, err := p.br.Peek(1)
	return errors.Is(err, os.ErrDeadlineExceeded)
}

// reading is a response as a client sees it, interim ones left out.
type reading struct {
	*http.Response
	body string
	err  error // of the body
}

// answer reads the answer to a request of the method.
func (p *peer) answer(method string) reading {
	p.t.Helper()
	a := p.anything(method)
	if a.StatusCode == 0 {
		p.t.Errorf("no answer: %v", a.err)
	}
	return a
}

// anything reads what may be an answer.
func (p *peer) anything(method string) reading {
	res, err := http.ReadResponse(p.br, &http.Request{Method: method})
	if err != nil {
		return reading{Response: &http.Response{Header: http.Header{}}, err: err}
	}
	b, err := io.ReadAll(res.Body)
	return reading{res, string(b), err}
}

// want reads a complete answer and checks status and body.
func (p *peer) want(method string, status int, body string) reading {
	p.t.Helper()
	a := p.answer(method)
	if a.err != nil || a.StatusCode != status || a.body != body {
		p.t.Errorf("got %d %q (%v), want %d %q", a.StatusCode, a.body, a.err, status, body)
	}
	return a
}

// wantOwn reads an answer that the proxy made itself.
func (p *peer) wantOwn(status int, reason string) reading {
	p.t.Helper()
	a := p.answer("GET")
	if a.err != nil || a.StatusCode != status || a.Header.Get("Outrigger-Reason") != reason {
		p.t.Errorf("got %d %q %q (%v), want %d with the reason %q", a.StatusCode, a.Header.Get("Outrigger-Reason"), a.body, a.err, status, reason)
	}
	return a
}

func (p *peer) wantEnd(how string) {
	p.t.Helper()
	if got := p.end(); got != how {
		p.t.Errorf("the connection: %s, want %s", got, how)
	}
}

// dial opens a client connection to the server. It is closed with the test.
func (r *rig) dial() *peer {
	r.t.Helper()
	nc, err := net.Dial("tcp", r.addr())
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { nc.Close() })
	return newPeer(r.t, nc)
}

// backend is a scripted server: every connection runs the script in its own
// goroutine and is closed after it.
type backend struct {
	t        testing.TB
	addr     string
	accepted atomic.Int64 // connections ever
	open     atomic.Int64
	closed   atomic.Int64 // ended by the other side or the script
	ln       net.Listener

	mu    sync.Mutex
	heads []string
}

func newBackend(t testing.TB, script func(b *backend, p *peer)) *backend {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b := &backend{t: t, addr: ln.Addr().String(), ln: ln}
	go func() {
		for {
			nc, err := ln.Accept()
			if err != nil {
				return
			}
			b.open.Add(1)
			p := newPeer(t, nc)
			p.n = int(b.accepted.Add(1))
			go func() {
				script(b, p)
				_ = nc.Close()
				b.open.Add(-1)
				b.closed.Add(1)
			}()
		}
	}()
	t.Cleanup(func() {
		_ = ln.Close()
		eventually(t, "the backend's connections are closed", func() bool { return b.open.Load() == 0 })
	})
	return b
}

// head reads a request head and keeps it for got. "" at the end.
func (b *backend) head(p *peer) string {
	h := p.head()
	if h != "" {
		b.mu.Lock()
		b.heads = append(b.heads, h)
		b.mu.Unlock()
	}
	return h
}

// got returns the request heads so far.
func (b *backend) got() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return append([]string(nil), b.heads...)
}

// says is a backend that answers every request without a body alike.
func says(t testing.TB, answer string) *backend {
	return newBackend(t, func(b *backend, p *peer) {
		for b.head(p) != "" {
			p.send(answer)
		}
	})
}

// named is a backend that says its name.
func named(t testing.TB, name string) *backend {
	return says(t, ok200(name))
}

func ok200(body string) string {
	return lines("HTTP/1.1 200 OK", fmt.Sprintf("Content-Length: %d", len(body))) + body
}

// nobody returns an address at which nothing listens.
func nobody(t testing.TB) string {
	addr, err := harness.FreeAddr()
	if err != nil {
		t.Fatal(err)
	}
	return addr
}

// fieldOf returns a field of a raw head.
func fieldOf(head, name string) string {
	_, rest, _ := strings.Cut(head, "\r\n")
	h, err := textproto.NewReader(bufio.NewReader(strings.NewReader(rest))).ReadMIMEHeader()
	if err != nil {
		return err.Error()
	}
	return h.Get(name)
}

// give sends on ch, unless nobody takes it for patience.
func give(t testing.TB, ch chan<- bool) {
	t.Helper()
	select {
	case ch <- true:
	case <-time.After(patience):
		t.Error("nobody waited for the test to go on")
	}
}

// await receives from ch, unless nothing comes for patience.
func await[T any](t testing.TB, ch <-chan T) (v T) {
	t.Helper()
	select {
	case v = <-ch:
	case <-time.After(patience):
		t.Error("waited in vain for the other side of the test")
	}
	return v
}
