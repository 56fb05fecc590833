package h1

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"outrigger/picker"
	"outrigger/sidecar/balance"
)

// tlsPool is a pool of connections by TLS to addr, and what is logged of it.
// No engine runs.
func tlsPool(t testing.TB, cfg Config, addr string) (*pool, *logged) {
	t.Helper()
	l := &logged{}
	e, err := NewEngine(balance.RealEnv(nil).Now)
	if err != nil {
		t.Fatal(err)
	}
	p := e.Conns(cfg, l.logger())(&picker.Endpoint{Addr: addr}).(*pool)
	t.Cleanup(p.Retire)
	return p, l
}

func (p *pool) mustGet(t testing.TB, fresh bool) *upstream {
	t.Helper()
	u, err := p.get(context.Background(), fresh, patience)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

// hooked lets a test see and hold what a TLS server writes to the wire.
type hooked struct {
	net.Conn
	write func(c net.Conn, b []byte) (int, error)
}

func (h *hooked) Write(b []byte) (int, error) {
	if h.write != nil {
		return h.write(h.Conn, b)
	}
	return h.Conn.Write(b)
}

// tlsPair is a client's connection, made and kept as in a pool, and the server's
// end of it.
func tlsPair(t *testing.T, v uint16) (u *upstream, server *tls.Conn, under *hooked) {
	t.Helper()
	a := newAuthority(t)
	srv := a.server("127.0.0.1")
	srv.MaxVersion = v
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	ready := make(chan error, 1)
	go func() {
		nc, err := ln.Accept()
		if err == nil {
			_ = nc.SetDeadline(time.Now().Add(patience))
			under = &hooked{Conn: nc}
			server = tls.Server(under, srv)
			err = server.Handshake()
		}
		ready <- err
	}()
	p, _ := tlsPool(t, a.trusting(), ln.Addr().String())
	u = p.mustGet(t, true)
	if err := await(t, ready); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.NetConn().Close() })
	return u, server, under
}

func (u *upstream) finish() { u.alarm.off(); u.close() }

// A session ticket that lies unread does not make a connection unfit; whatever
// else lies there does.
func TestTLSQuiet(t *testing.T) {
	t.Parallel()
	never := func(*testing.T, *tls.Conn, *hooked) {}
	for name, v := range versions {
		for _, tt := range []struct {
			what  string
			do    func(t *testing.T, server *tls.Conn, under *hooked)
			quiet bool
		}{
			{"nothing", never, true},
			{"data", func(t *testing.T, s *tls.Conn, _ *hooked) { _, _ = io.WriteString(s, "x") }, false},
			{"much data", func(t *testing.T, s *tls.Conn, _ *hooked) { _, _ = s.Write(make([]byte, 100_000)) }, false},
			{"close_notify", func(t *testing.T, s *tls.Conn, _ *hooked) { _ = s.CloseWrite() }, false},
			{"an end without", func(t *testing.T, s *tls.Conn, _ *hooked) { _ = s.NetConn().(*hooked).Conn.(*net.TCPConn).CloseWrite() }, false},
			{"a part of a record's head", func(t *testing.T, s *tls.Conn, h *hooked) {
				h.write = func(c net.Conn, b []byte) (int, error) { _, _ = c.Write(b[:3]); return len(b), nil }
				_, _ = io.WriteString(s, "x")
			}, false},
			{"all of a record but a byte", func(t *testing.T, s *tls.Conn, h *hooked) {
				h.write = func(c net.Conn, b []byte) (int, error) { _, _ = c.Write(b[:len(b)-1]); return len(b), nil }
				_, _ = io.WriteString(s, "x")
			}, false},
			{"rubbish", func(t *testing.T, s *tls.Conn, h *hooked) {
				_, _ = h.Conn.Write([]byte("HTTP/1.1 408 Request Timeout\r\n\r\n"))
			}, false},
		} {
			u, server, under := tlsPair(t, v)
			if !u.quiet() {
				t.Errorf("TLS %s: not quiet at first", name)
			}
			tt.do(t, server, under)
			if !tt.quiet {
				// What was written is here when a peek sees it.
				peek := newPeeker(u.tls.wire.Conn)
				eventually(t, "something to read", func() bool { return !peek.quiet() })
			}
			if got := u.quiet(); got != tt.quiet {
				t.Errorf("TLS %s, %s: quiet is %v", name, tt.what, got)
			}
			if tt.quiet && !u.quiet() {
				t.Errorf("TLS %s, %s: not quiet when looked at again", name, tt.what)
			}
			u.finish()
		}
	}
}

// Data that came along in the read of the answer itself is noticed too, though
// the socket is empty.
func TestTLSReadAhead(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	for name, v := range versions {
		srv := a.server("127.0.0.1")
		srv.MaxVersion = v
		b := newBackend(t, func(b *backend, p *peer) {
			h := &hooked{Conn: p.nc}
			s := tls.Server(h, srv)
			buf := make([]byte, 1000)
			for {
				if _, err := s.Read(buf); err != nil {
					return
				}
				var held []byte // two records in one segment
				h.write = func(_ net.Conn, b []byte) (int, error) { held = append(held, b...); return len(b), nil }
				_, _ = io.WriteString(s, ok200("good"))
				_, _ = io.WriteString(s, ok200("evil"))
				_, _ = p.nc.Write(held)
				h.write = nil
			}
		})
		r := newRig(t, a.trusting(), balance.DefaultConfig(), b.addr)
		for i := range 3 {
			c := r.dial()
			c.send(get1("/"))
			c.want("GET", 200, "good")
			if n := b.accepted.Load(); n != int64(i+1) {
				t.Errorf("TLS %s: %d connections after %d requests", name, n, i+1)
			}
		}
	}
}

// A ticket may come at any time, even in pieces.
func TestTLSLateTicket(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	b := newBackend(t, func(b *backend, p *peer) {
		h := &hooked{Conn: p.nc}
		var held []byte
		srv := a.server("127.0.0.1")
		// Then Go's server writes its ticket apart, after the client's Finished.
		srv.ClientAuth = tls.RequestClientCert
		s := tls.Server(h, srv)
		writes := 0
		h.write = func(c net.Conn, b []byte) (int, error) {
			if writes++; writes > 1 {
				held = append(held, b...)
				return len(b), nil
			}
			return c.Write(b)
		}
		if err := s.Handshake(); err != nil || len(held) == 0 {
			t.Errorf("%v; %d bytes held back", err, len(held))
			return
		}
		h.write = nil
		p.br = bufio.NewReader(s)
		b.head(p)
		// The answer would have to come after the ticket: records are numbered.
		for i := range held {
			_, _ = p.nc.Write(held[i : i+1])
		}
		_, _ = io.WriteString(s, ok200("one"))
		for b.head(p) != "" {
			_, _ = io.WriteString(s, ok200("more"))
		}
	})
	r := newRig(t, a.trusting(), balance.DefaultConfig(), b.addr)
	c := r.dial()
	c.send(get1("/"))
	c.want("GET", 200, "one")
	c.send(get1("/"))
	c.want("GET", 200, "more")
	if n := b.accepted.Load(); n != 1 {
		t.Errorf("%d connections", n)
	}
}

// To close waits for nothing, even if the other side takes nothing; and says
// goodbye if there is room.
func TestTLSClose(t *testing.T) {
	t.Parallel()
	u, server, _ := tlsPair(t, tls.VersionTLS13)
	u.quiet() // reads the ticket: with it unread, closing resets
	u.finish()
	if n, err := server.Read(make([]byte, 1)); n != 0 || err != io.EOF {
		t.Errorf("the server read %d bytes, %v", n, err)
	}

	u, _, _ = tlsPair(t, tls.VersionTLS13)
	fill(t, u.tls.wire.Conn)
	done := make(chan struct{})
	go func() { u.finish(); close(done) }()
	select {
	case <-done:
	case <-time.After(2 * time.Second): // crypto/tls itself would wait 5 s
		t.Error("closing waits for the other side to read")
	}

	// A struck connection is cut: a goodbye would make it look whole.
	u, _, under := tlsPair(t, tls.VersionTLS13)
	u.quiet()
	u.alarm.fire()
	u.close()
	if b, err := io.ReadAll(under.Conn); len(b) != 0 || err != nil {
		t.Errorf("after the cut came %x, %v", b, err)
	}
}

// fill writes until there is no more room.
func fill(t *testing.T, nc net.Conn) {
	t.Helper()
	b := make([]byte, 1<<16)
	for {
		_ = nc.SetWriteDeadline(time.Now().Add(short))
		if _, err := nc.Write(b); errors.Is(err, os.ErrDeadlineExceeded) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
	_ = nc.SetWriteDeadline(time.Time{})
}

// Where records end is known however the bytes are cut up.
func FuzzTLSFollow(f *testing.F) {
	f.Add([]byte("\x17\x03\x03\x00\x02ab\x17\x03\x03\x00\x00\x15\x03\x03\x00\x01"), uint8(3))
	f.Add([]byte(strings.Repeat("\x17\x03\x03\x01\x00"+strings.Repeat("x", 256), 3)), uint8(7))
	f.Fuzz(func(t *testing.T, b []byte, step uint8) {
		var w wire
		for rest := b; len(rest) > 0; {
			k := min(len(rest), int(step)+1)
			w.follow(rest[:k])
			rest = rest[k:]
		}
		rest := b
		for len(rest) >= recordHead {
			n := recordHead + int(rest[3])<<8 + int(rest[4])
			if n > len(rest) {
				break
			}
			rest = rest[n:]
		}
		if w.whole() != (len(rest) == 0) {
			t.Errorf("%x in steps of %d: whole is %v, %d bytes of a record are left", b, int(step)+1, w.whole(), len(rest))
		}
	})
}

func BenchmarkTLSQuiet(b *testing.B) {
	a := newAuthority(b)
	back := tlsSays(b, a.server("127.0.0.1"), ok200("ok"))
	p, _ := tlsPool(b, a.trusting(), back.addr)
	u := p.mustGet(b, true)
	defer u.finish()
	b.ReportAllocs()
	for b.Loop() {
		if !u.quiet() {
			b.Fatal("not quiet")
		}
	}
}
