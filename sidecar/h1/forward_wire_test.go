package h1

import (
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"outrigger/sidecar/balance"
)

// The whole way: what a configuration says of forwarding is what a backend and
// a client see, for each request of a connection.
func TestForwardingOnTheWire(t *testing.T) {
	t.Parallel()
	b := says(t, lines("HTTP/1.1 200 OK", "Server: s", "Set-Cookie: c", "X-Env: theirs", "Content-Length: 2")+"ok")
	for _, r := range []struct {
		name string
		set  func(*ForwardConfig)
		want []string
	}{
		{"trusted", func(*ForwardConfig) {}, []string{"Host: backend", "traceparent: " + goodTrace, "X-Keep: k", "X-Forwarded-For: 1.1.1.1, 127.0.0.1",
			"X-Forwarded-Proto: http", "X-Forwarded-Host: a", "Forwarded: for=1.1.1.1, for=127.0.0.1;by=127.0.0.1;proto=http;host=a",
			"X-Set: s", "X-Add: a", "Via: 1.1 outrigger"}},
		{"not trusted", func(c *ForwardConfig) { c.Trust = []string{"10.0.0.0/8"} }, []string{"Host: backend", "traceparent: " + goodTrace, "X-Keep: k",
			"X-Forwarded-For: 127.0.0.1", "X-Forwarded-Proto: http", "X-Forwarded-Host: a", "Forwarded: for=127.0.0.1;by=127.0.0.1;proto=http;host=a",
			"X-Set: s", "X-Add: a", "Via: 1.1 outrigger"}},
	} {
		cfg := quick()
		everyMode(&cfg.Forward)
		cfg.Forward.Headers.Response.Set[0].Name = "X-Env"
		r.set(&cfg.Forward)
		rig := newRig(t, cfg, balance.DefaultConfig(), b.addr)
		c := rig.dial()
		for range 2 {
			c.send(get("traceparent: "+goodTrace, "Cookie: c", "X-Forwarded-For: 1.1.1.1", "X-Keep: k", "Forwarded: for=1.1.1.1", "X-Set: theirs"))
			a := c.want("GET", 200, "ok")
			if h := a.Header; h.Get("Server") != "" || h.Get("Set-Cookie") != "c" || h.Get("X-Add") != "a" || !slices.Equal(h["X-Env"], []string{"s"}) {
				t.Errorf("%s: the client got %v", r.name, h)
			}
			heads := b.got()
			if got, want := heads[len(heads)-1], lines(append([]string{"GET / HTTP/1.1"}, r.want...)...); got != want {
				t.Errorf("%s\n got %q\nwant %q", r.name, got, want)
			}
		}
	}
}

// Whoever has a clock says when an answer was made, if nobody did (RFC 9110
// section 6.6.1), ours included.
func TestDateOnTheWire(t *testing.T) {
	t.Parallel()
	b := newBackend(t, func(b *backend, p *peer) {
		b.head(p)
		p.send(ok200("none"))
		b.head(p)
		p.send(lines("HTTP/1.1 200 OK", "Date: theirs", "Content-Length: 0"))
		b.head(p)
		p.reset()
	})
	cfg := quick()
	cfg.Retry.Attempts = 0
	r := newRig(t, cfg, balance.DefaultConfig(), b.addr)
	c := r.dial()
	now := func(a reading) {
		t.Helper()
		at, err := http.ParseTime(a.Header.Get("Date"))
		if d := time.Since(at); err != nil || d < -time.Second || d > patience {
			t.Errorf("Date %q", a.Header["Date"])
		}
	}
	c.send(get())
	now(c.want("GET", 200, "none"))
	c.send(get())
	if d := c.want("GET", 200, "").Header["Date"]; !slices.Equal(d, []string{"theirs"}) {
		t.Errorf("Date %q", d)
	}
	c.send(post("Content-Length: 1") + "x")
	now(c.wantOwn(502, "reset"))
}

// A backend may not switch to a protocol that it was not asked for (RFC 9110
// section 7.8).
func TestSwitchToAnotherProtocol(t *testing.T) {
	t.Parallel()
	b := says(t, lines("HTTP/1.1 101 Switching Protocols", "Connection: upgrade", "Upgrade: other"))
	r := newRig(t, quick(), balance.DefaultConfig(), b.addr)
	c := r.dial()
	c.send(get("Connection: upgrade", "Upgrade: echo/1"))
	c.wantOwn(502, "bad_response")
	r.wantTotals(0, 1, 0)
}

// The addresses of a Unix socket's connections are those that peer knows.
func TestUnixPeer(t *testing.T) {
	ln, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	nc, err := net.Dial("unix", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	in, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	f := forwarderOf(func(c *ForwardConfig) {
		c.Forwarded, c.Fields = "append", ForwardFields{For: true, By: true}
	})
	if p := f.peer(in.RemoteAddr(), in.LocalAddr()); !p.trusted || p.ip != "unknown" || p.node != "for=unknown" {
		t.Errorf("%+v", p)
	}
}
