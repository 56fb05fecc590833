package h1

import (
	"strings"
	"testing"
	"time"

	"outrigger/sidecar/balance"
)

// switches is a backend that agrees to an upgrade and then runs f.
func switches(t *testing.T, f func(p *peer)) *backend {
	return newBackend(t, func(b *backend, p *peer) {
		h := b.head(p)
		if h == "" {
			return
		}
		if fieldOf(h, "Connection") != "Upgrade" || fieldOf(h, "Upgrade") != "echo/1" {
			t.Errorf("the backend got %q", h)
		}
		p.send(lines("HTTP/1.1 101 Switching Protocols", "Connection: upgrade", "Upgrade: echo/1", "X: 1") + "hello ")
		f(p)
	})
}

func echo(p *peer) {
	buf := make([]byte, 100)
	for {
		n, err := p.br.Read(buf)
		if err != nil {
			p.send("bye")
			return
		}
		p.send(string(buf[:n]))
	}
}

const switched = "HTTP/1.1 101 Switching Protocols\r\nX: 1\r\nConnection: Upgrade\r\nUpgrade: echo/1\r\n\r\n"

// The tunnel carries what was read ahead on either side, bytes both ways, and
// half-closes. The lease lives as long.
func TestUpgrade(t *testing.T) {
	t.Parallel()
	b := switches(t, echo)
	r := newRig(t, quick(), balance.DefaultConfig(), b.addr)
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
	if st := r.s.Stats(); r.inFlight() != 1 || st.Tunnels != 1 || st.Open != 1 {
		t.Errorf("%d in flight, %+v", r.inFlight(), st)
	}
	_ = c.nc.CloseWrite() // the backend hears of it, and may still answer
	if got, err := c.rest(); got != "bye" || err != nil {
		t.Errorf("%q %v", got, err)
	}
	r.wantTotals(1, 0, 0)
	if st := r.s.Stats(); st.Passed[1] != 1 || st.Tunnels != 0 {
		t.Errorf("%+v", st)
	}
}

// The other direction of a half-close: the backend ends first.
func TestUpgradeBackendEnds(t *testing.T) {
	t.Parallel()
	got := make(chan string, 1)
	b := switches(t, func(p *peer) {
		_ = p.nc.CloseWrite()
		s, _ := p.rest()
		got <- s
	})
	r := newRig(t, quick(), balance.DefaultConfig(), b.addr)
	c := r.dial()
	c.send(get("Connection: Upgrade", "Upgrade: echo/1"))
	c.head()
	if s, err := c.rest(); s != "hello " || err != nil {
		t.Errorf("%q %v", s, err)
	}
	c.send("still here")
	c.nc.Close()
	if s := await(t, got); s != "still here" {
		t.Errorf("the backend got %q", s)
	}
	r.wantTotals(1, 0, 0)
}

func TestUpgradeIdle(t *testing.T) {
	t.Parallel()
	cfg := quick()
	cfg.Timeouts.Tunnel = 8 * short
	b := switches(t, echo)
	r := newRig(t, cfg, balance.DefaultConfig(), b.addr)
	c := r.dial()
	c.send(get("Connection: Upgrade", "Upgrade: echo/1"))
	c.head()
	c.read(len("hello "))
	for range 12 { // bytes one way or the other keep it alive, longer than the idle time
		c.quietFor(short)
		c.send("x")
		if got := c.read(1); got != "x" {
			t.Fatalf("%q: the tunnel ended early", got)
		}
	}
	start := time.Now()
	c.rest()
	if took := time.Since(start); took < 7*short {
		t.Errorf("it ended %v after the last byte", took)
	}
	r.settled()
	r.eventually("the backend's connection is closed", func() bool { return b.open.Load() == 0 })
}

// Cutting the server ends tunnels too, and a backend that resets ends its
// client's side.
func TestUpgradeCut(t *testing.T) {
	t.Parallel()
	b := switches(t, func(p *peer) {
		p.read(1)
		p.reset()
	})
	r := newRig(t, quick(), balance.DefaultConfig(), b.addr)
	c := r.dial()
	c.send(get("Connection: Upgrade", "Upgrade: echo/1"))
	c.head()
	c.send("x")
	c.rest() // ends, or this waits for patience
	r.settled()
	r.eventually("the tunnel is over", func() bool { return r.s.Stats().Open == 0 })
	// The second is cut by the rig's clean-up.
	c = r.dial()
	c.send(get("Connection: Upgrade", "Upgrade: echo/1"))
	c.head()
	r.eventually("the tunnel stands", func() bool { return r.s.Stats().Tunnels == 1 })
}

// A backend that declines answers as ever.
func TestUpgradeDeclined(t *testing.T) {
	t.Parallel()
	b := newBackend(t, func(b *backend, p *peer) {
		for b.head(p) != "" {
			p.send(lines("HTTP/1.1 426 Upgrade Required", "Connection: upgrade", "Upgrade: other/2", "Content-Length: 2") + "no")
		}
	})
	r := newRig(t, quick(), balance.DefaultConfig(), b.addr)
	c := r.dial()
	for range 2 {
		c.send(get("Connection: Upgrade", "Upgrade: echo/1"))
		c.want("GET", 426, "no")
	}
	r.wantTotals(2, 0, 0)
	if n := b.accepted.Load(); n != 1 {
		t.Errorf("%d connections", n)
	}
}

// What is no upgrade to us goes through without it: with a body, to h2c, from
// HTTP/1.0.
func TestUpgradeNotPassed(t *testing.T) {
	t.Parallel()
	b := newBackend(t, func(b *backend, p *peer) {
		for h := b.head(p); h != ""; h = b.head(p) {
			if fieldOf(h, "Upgrade")+fieldOf(h, "Connection")+fieldOf(h, "HTTP2-Settings") != "" {
				t.Errorf("passed on: %q", h)
			}
			if fieldOf(h, "Content-Length") != "" {
				p.read(3)
			}
			p.send(ok200("plain"))
		}
	})
	r := newRig(t, quick(), balance.DefaultConfig(), b.addr)
	for _, req := range []string{
		get("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAAP__"),
		post("Connection: Upgrade", "Upgrade: echo/1", "Content-Length: 3") + "abc",
		lines("GET / HTTP/1.0", "Connection: Upgrade", "Upgrade: echo/1"),
		get("Upgrade: echo/1"),
	} {
		c := r.dial()
		c.send(req)
		c.want("GET", 200, "plain")
	}
	r.wantTotals(4, 0, 0)
}

// A 101 that was not asked for is an invalid answer.
func TestUnaskedSwitch(t *testing.T) {
	t.Parallel()
	b := says(t, lines("HTTP/1.1 101 Up", "Connection: upgrade", "Upgrade: x"))
	r := newRig(t, quick(), balance.DefaultConfig(), b.addr)
	c := r.dial()
	c.send(get1("/"))
	c.wantOwn(502, "bad_response")
	r.wantTotals(0, 1, 0)
}
