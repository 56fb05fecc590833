package h1

import (
	"bytes"
	"crypto/tls"
	"io"
	"strings"
	"testing"

	"outrigger/sidecar/balance"
)

// versions are the protocols that are spoken.
var versions = map[string]uint16{"1.2": tls.VersionTLS12, "1.3": tls.VersionTLS13} // read-only

// Requests of many kinds go over one connection, whatever TLS itself says in
// between.
func TestTLS(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	for name, v := range versions {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			srv := a.server("127.0.0.1")
			srv.MaxVersion = v
			srv.NextProtos = []string{"h2", "http/1.1"}
			big := strings.Repeat("0123456789abcdef", 1<<16)
			b := newTLSBackend(t, srv, func(b *tlsBackend, p *tlsPeer) {
				for {
					switch h := b.head(p.peer); {
					case h == "":
						return
					case strings.HasPrefix(h, "POST"):
						if got := p.read(len(big)); got != big {
							t.Errorf("the backend got a body of %d bytes", len(got))
						}
						p.send(ok200(big))
					default:
						p.send(ok200("hello"))
					}
				}
			})
			r := newRig(t, a.trusting(), balance.DefaultConfig(), b.addr)
			c := r.dial()
			for range 3 {
				c.send(get1("/"))
				c.want("GET", 200, "hello")
				go c.send(post("Content-Length: 1048576") + big)
				c.want("POST", 200, big)
			}
			st := b.last()
			if n := b.accepted.Load(); n != 1 || st.NegotiatedProtocol != "http/1.1" || st.Version != v || st.ServerName != "" {
				t.Errorf("%d connections, %q, version %x, SNI %q", n, st.NegotiatedProtocol, st.Version, st.ServerName)
			}
			r.wantTotals(6, 0, 0)
		})
	}
}

// A session is resumed, one per endpoint: those of the other would be of no use.
func TestTLSResumption(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	for name, v := range versions {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			once := func() *tlsBackend {
				srv := a.server("web.service.consul")
				srv.MaxVersion = v
				return newTLSBackend(t, srv, func(b *tlsBackend, p *tlsPeer) {
					if b.head(p.peer) != "" {
						p.send(lines("HTTP/1.1 200 OK", "Connection: close", "Content-Length: 2") + "ok")
						_ = p.tc.CloseWrite()
						p.head()
					}
				})
			}
			b1, b2 := once(), once()
			cfg := a.trusting()
			cfg.TLS.ServerName = "web.service.consul"
			bcfg := balance.DefaultConfig()
			bcfg.Picker.Policy = "round_robin"
			r := newRig(t, cfg, bcfg, b1.addr, b2.addr)
			for range 6 {
				c := r.dial()
				c.send(get1("/"))
				c.want("GET", 200, "ok")
			}
			for i, b := range []*tlsBackend{b1, b2} {
				if all, resumed := b.accepted.Load(), b.resumed.Load(); all != 3 || resumed != 2 {
					t.Errorf("endpoint %d: %d of %d connections were resumed", i, resumed, all)
				}
				if st := b.last(); st.ServerName != "web.service.consul" || st.Version != v {
					t.Errorf("SNI %q, version %x", st.ServerName, st.Version)
				}
			}
		})
	}
}

// A backend that is not who it should be gets nothing of a request; another one
// does.
func TestTLSNotTrusted(t *testing.T) {
	t.Parallel()
	a, other := newAuthority(t), newAuthority(t)
	old := a.server("127.0.0.1")
	old.MaxVersion = tls.VersionTLS12
	for name, tt := range map[string]struct {
		srv  *tls.Config
		edit func(*TLSConfig)
	}{
		"another authority":    {other.server("127.0.0.1"), nil},
		"another address":      {a.server("127.0.0.2", "localhost"), nil},
		"another name":         {a.server("127.0.0.1", "db.service.consul"), func(c *TLSConfig) { c.ServerName = "web.service.consul" }},
		"an old version":       {old, func(c *TLSConfig) { c.MinVersion = "1.3" }},
		"the system's vouches": {a.server("127.0.0.1"), func(c *TLSConfig) { c.CAFile = "" }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := tlsSays(t, tt.srv, ok200("wrong"))
			good := tlsSays(t, a.server("127.0.0.1"), ok200("good"))
			cfg := a.trusting()
			if tt.edit != nil {
				tt.edit(&cfg.TLS)
			}
			r := newRig(t, cfg, balance.DefaultConfig(), b.addr)
			c := r.dial()
			c.send(post("Content-Length: 3") + "abc")
			c.wantOwn(503, "unreachable")
			if n := len(b.got()); n != 0 || b.accepted.Load() == 0 {
				t.Errorf("the backend got %d requests on %d connections", n, b.accepted.Load())
			}
			r.wantTotals(0, 1, 0)
			if tt.edit == nil {
				r.set(b.addr, good.addr)
				for range 6 {
					c.send(post("Content-Length: 3") + "abc")
					c.want("POST", 200, "good")
				}
			}
			cfg.TLS.InsecureSkipVerify = true
			if name != "an old version" {
				r := newRig(t, cfg, balance.DefaultConfig(), b.addr)
				c := r.dial()
				c.send(get1("/"))
				c.want("GET", 200, "wrong")
			}
		})
	}
}

// A backend that speaks no TLS, or hangs up, is one that cannot be reached.
func TestTLSNoHandshake(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	for name, b := range map[string]*backend{
		"plain HTTP": newBackend(t, func(_ *backend, p *peer) { p.read(5); p.send(lines("HTTP/1.1 400 Bad Request")) }),
		"hangs up":   newBackend(t, func(_ *backend, p *peer) { p.read(5) }),
		"resets":     newBackend(t, func(_ *backend, p *peer) { p.read(5); p.reset() }),
	} {
		r := newRig(t, a.trusting(), balance.DefaultConfig(), b.addr)
		c := r.dial()
		c.send(get1("/"))
		t.Log(name)
		c.wantOwn(503, "unreachable")
		r.wantTotals(0, 1, 0)
	}
}

// The time to connect is for the handshake too, and a client that leaves ends
// it.
func TestTLSHandshakeStalls(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	silent := func() *backend { return newBackend(t, func(_ *backend, p *peer) { _, _ = p.rest() }) }

	b := silent()
	cfg := a.trusting()
	cfg.Timeouts.Connect = short
	r := newRig(t, cfg, balance.DefaultConfig(), b.addr)
	c := r.dial()
	c.send(get1("/"))
	c.wantOwn(503, "unreachable")
	r.wantTotals(0, 1, 0)

	b = silent()
	r = newRig(t, a.trusting(), balance.DefaultConfig(), b.addr)
	c = r.dial()
	c.send(get1("/"))
	r.eventually("the handshake has begun", func() bool { return b.open.Load() == 1 })
	_ = c.nc.Close()
	r.eventually("the handshake is over", func() bool { return b.open.Load() == 0 })
	r.wantTotals(0, 0, 1)
}

// RFC 9112 section 9.8: what ends without close_notify is cut off, however it
// is framed.
func TestTLSTruncation(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	for name, v := range versions {
		srv := a.server("127.0.0.1")
		srv.MaxVersion = v
		for _, tt := range []struct {
			answer  string
			goodbye bool
			whole   bool
		}{
			{lines("HTTP/1.1 200 OK") + "hello", true, true},
			{lines("HTTP/1.1 200 OK") + "hello", false, false},
			{lines("HTTP/1.1 200 OK", "Content-Length: 5", "Connection: close") + "hello", false, true},
			{lines("HTTP/1.1 200 OK", "Content-Length: 6") + "hello", true, false},
			{lines("HTTP/1.1 200 OK", "Transfer-Encoding: chunked") + "5\r\nhello\r\n", true, false},
			{lines("HTTP/1.1 200 OK", "Transfer-Encoding: chunked", "Connection: close") + "5\r\nhello\r\n0\r\n\r\n", false, true},
		} {
			b := newTLSBackend(t, srv, func(b *tlsBackend, p *tlsPeer) {
				b.head(p.peer)
				p.send(tt.answer)
				if tt.goodbye {
					_ = p.tc.CloseWrite()
				}
				_ = p.nc.CloseWrite()
				_, _ = p.rest()
			})
			r := newRig(t, a.trusting(), balance.DefaultConfig(), b.addr)
			for _, request := range []string{get1("/"), "GET / HTTP/1.0\r\n\r\n"} {
				c := r.dial()
				c.send(request)
				if got := c.anything("GET"); got.body != "hello" || (got.err == nil) != tt.whole {
					t.Errorf("TLS %s, %q to %q, goodbye %v: %q, %v", name, tt.answer, request[:14], tt.goodbye, got.body, got.err)
				}
			}
		}
	}
}

// The time-outs strike reads and writes under TLS.
func TestTLSTimeouts(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	b := newTLSBackend(t, a.server("127.0.0.1"), func(b *tlsBackend, p *tlsPeer) {
		switch h := b.head(p.peer); {
		case strings.HasPrefix(h, "GET /part"):
			p.send(lines("HTTP/1.1 200 OK", "Content-Length: 10") + "12345")
			_, _ = p.rest()
		default:
			_, _ = p.rest()
		}
	})
	cfg := a.trusting()
	cfg.Timeouts.FirstByte, cfg.Timeouts.Idle = short, short
	cfg.Retry.Attempts = 0
	r := newRig(t, cfg, balance.DefaultConfig(), b.addr)
	c := r.dial()
	c.send(get1("/"))
	c.wantOwn(504, "first_byte_timeout")
	c = r.dial()
	c.send(get1("/part"))
	if got := c.answer("GET"); got.err == nil || got.body != "12345" {
		t.Errorf("%q %v", got.body, got.err)
	}
	r.wantTotals(0, 2, 0)
}

// A backend that does not read: the upload's write is struck, and to close the
// connection waits for nothing.
func TestTLSBlockedWrite(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	over := make(chan struct{})
	b := newTLSBackend(t, a.server("127.0.0.1"), func(b *tlsBackend, p *tlsPeer) {
		b.head(p.peer)
		<-over
	})
	t.Cleanup(func() { close(over) })
	cfg := a.trusting()
	cfg.Timeouts.Idle = 3 * short
	r := newRig(t, cfg, balance.DefaultConfig(), b.addr)
	c := r.dial()
	go func() {
		c.send(post("Content-Length: 1000000000"))
		piece := strings.Repeat("x", 1<<16)
		for err := error(nil); err == nil; {
			_, err = io.WriteString(c.nc, piece)
		}
	}()
	if got := c.answer("GET"); got.StatusCode != 504 || got.err != nil {
		t.Errorf("%d %q, %v", got.StatusCode, got.body, got.err)
	}
	if len(b.got()) != 1 {
		t.Error("the backend got no request")
	}
	r.wantTotals(0, 1, 0)
}

// Upgraded connections, half-closes both ways.
func TestTLSTunnel(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	b := newTLSBackend(t, a.server("127.0.0.1"), func(b *tlsBackend, p *tlsPeer) {
		if b.head(p.peer) == "" {
			return
		}
		p.send(lines("HTTP/1.1 101 Switching Protocols", "Connection: upgrade", "Upgrade: echo/1", "X: 1") + "hello ")
		var got bytes.Buffer
		buf := make([]byte, 32<<10)
		for {
			n, err := p.br.Read(buf)
			if err != nil { // must be close_notify's io.EOF
				if err != io.EOF {
					t.Errorf("the client's end reached the backend as %v", err)
				}
				break
			}
			got.Write(buf[:n])
			p.send(string(buf[:n]))
		}
		p.send("bye")
		_ = p.tc.CloseWrite()
	})
	r := newRig(t, a.trusting(), balance.DefaultConfig(), b.addr)
	c := r.dial()
	c.send(get("Connection: keep-alive, Upgrade", "Upgrade: echo/1") + "early ")
	if got := c.head(); got != switched {
		t.Fatalf("%q", got)
	}
	if got := c.read(len("hello early ")); got != "hello early " {
		t.Errorf("%q", got)
	}
	for _, s := range []string{"a", "\x00\xff", strings.Repeat("long", 50_000)} {
		go c.send(s)
		if got := c.read(len(s)); got != s {
			t.Errorf("%.40q", got)
		}
	}
	_ = c.nc.CloseWrite()
	if got, err := c.rest(); got != "bye" || err != nil {
		t.Errorf("%q %v", got, err)
	}
	r.wantTotals(1, 0, 0)
}
