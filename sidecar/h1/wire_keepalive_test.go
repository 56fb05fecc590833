package h1

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"outrigger/sidecar/balance"
)

// get1 is a GET of a path that the default backends do not look at.
func get1(path string) string { return lines("GET "+path+" HTTP/1.1", "Host: a") }

func TestKeepAliveBothSides(t *testing.T) {
	t.Parallel()
	b := newBackend(t, func(b *backend, p *peer) {
		for h := b.head(p); h != ""; h = b.head(p) {
			p.send(ok200(strings.Fields(h)[1]))
		}
	})
	r := newRig(t, quick(), balance.DefaultConfig(), b.addr)
	c := r.dial()
	for i := range 5 {
		path := fmt.Sprint("/", i)
		c.send(get1(path))
		a := c.want("GET", 200, path)
		if a.Header.Get("Connection") != "" || a.Header.Get("Via") != "1.1 outrigger" {
			t.Error(a.Header)
		}
	}
	if n := b.accepted.Load(); n != 1 {
		t.Errorf("%d connections to the backend for one client", n)
	}
	want := lines("GET /0 HTTP/1.1", "Host: a", "X-Forwarded-For: 127.0.0.1", "Via: 1.1 outrigger")
	if got := b.got()[0]; got != want {
		t.Errorf("the backend got %q, want %q", got, want)
	}
	r.wantTotals(5, 0, 0)
	if st := r.s.Stats(); st.Accepted != 1 || st.Passed[2] != 5 {
		t.Errorf("%+v", st)
	}
}

// Answers to pipelined requests come in the order of the requests (RFC 9112
// section 9.3.2), however the bytes are cut on both sides.
func TestPipelining(t *testing.T) {
	t.Parallel()
	for _, drip := range []bool{false, true} {
		send := func(p *peer, s string) {
			if drip {
				p.drip(s)
			} else {
				p.send(s)
			}
		}
		b := newBackend(t, func(b *backend, p *peer) {
			for h := b.head(p); h != ""; h = b.head(p) {
				var body string
				switch {
				case strings.Contains(h, "Content-Length: 3"):
					body = p.read(3)
				case strings.Contains(h, "chunked"):
					body = p.read(len("3\r\nabc\r\n0\r\n\r\n"))
				}
				s := strings.Fields(h)[1] + body
				switch {
				case strings.HasPrefix(h, "HEAD"):
					send(p, lines("HTTP/1.1 200 OK", "Content-Length: 2"))
				case strings.HasPrefix(h, "PUT"):
					send(p, lines("HTTP/1.1 200 OK", "Transfer-Encoding: chunked")+fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", len(s), s))
				default:
					send(p, ok200(s))
				}
			}
		})
		r := newRig(t, quick(), balance.DefaultConfig(), b.addr)
		c := r.dial()
		send(c, get1("/1")+
			lines("POST /2 HTTP/1.1", "Host: a", "Content-Length: 3")+"abc"+
			"\r\n"+ // RFC 9112 section 2.2: an empty line before a request
			lines("PUT /3 HTTP/1.1", "Host: a", "Content-Length: 3")+"def"+
			lines("HEAD /4 HTTP/1.1", "Host: a")+
			get1("/5"))
		c.want("GET", 200, "/1")
		c.want("POST", 200, "/2abc")
		c.want("PUT", 200, "/3def")
		if a := c.want("HEAD", 200, ""); a.ContentLength != 2 {
			t.Error(a.Header)
		}
		c.want("GET", 200, "/5")
		r.wantTotals(5, 0, 0)
	}
}

// chunkedABC is a body as the proxy itself would write it.
const chunkedABC = "3\r\nabc\r\n0\r\n\r\n"

func TestClientCloses(t *testing.T) {
	t.Parallel()
	b := named(t, "b")
	r := newRig(t, quick(), balance.DefaultConfig(), b.addr)
	c := r.dial()
	c.send(get("Connection: close"))
	if a := c.want("GET", 200, "b"); !a.Close {
		t.Error("no Connection: close in the answer to one")
	}
	c.wantEnd("eof")
	c = r.dial()
	c.send(get1("/"))
	c.want("GET", 200, "b")
	if n := b.accepted.Load(); n != 1 {
		t.Errorf("the backend's connection was not kept: %d", n)
	}
}

func TestBackendCloses(t *testing.T) {
	t.Parallel()
	for _, answer := range []string{
		lines("HTTP/1.1 200 OK", "Content-Length: 1", "Connection: close") + "b",
		lines("HTTP/1.0 200 OK", "Content-Length: 1") + "b",
		lines("HTTP/1.1 200 OK", "Transfer-Encoding: chunked", "Connection: close") + "1\r\nb\r\n0\r\n\r\n",
	} {
		b := newBackend(t, func(b *backend, p *peer) {
			b.head(p)
			p.send(answer)
			p.wantEnd("eof") // the proxy closes, without waiting for us to
		})
		r := newRig(t, quick(), balance.DefaultConfig(), b.addr)
		c := r.dial()
		for range 3 {
			c.send(get1("/"))
			if a := c.want("GET", 200, "b"); a.Close {
				t.Errorf("%q: closes the client's connection too", answer)
			}
		}
		if n := b.accepted.Load(); n != 3 {
			t.Errorf("%q: %d connections", answer, n)
		}
		r.wantTotals(3, 0, 0)
	}
}

func TestOldClients(t *testing.T) {
	t.Parallel()
	const length, chunked, eof = "length", "chunked", "eof"
	b := newBackend(t, func(b *backend, p *peer) {
		for h := b.head(p); h != ""; h = b.head(p) {
			switch strings.Fields(h)[1] {
			case "/length":
				p.send(lines("HTTP/1.1 103 Early", "Link: l") + ok200("body"))
			case "/chunked":
				p.send(lines("HTTP/1.1 200 OK", "Transfer-Encoding: chunked") + "1\r\nb\r\n3;x=y\r\nody\r\n0\r\nX: trailer\r\n\r\n")
			case "/eof":
				p.send(lines("HTTP/1.1 200 OK") + "body")
				return
			}
		}
	})
	r := newRig(t, quick(), balance.DefaultConfig(), b.addr)
	for _, tt := range []struct {
		path, ask  string
		connection string
	}{
		{length, "", "close"},
		{length, "keep-alive", "keep-alive"},
		{length, "close", "close"},
		{chunked, "", "close"},
		{chunked, "keep-alive", "close"},
		{eof, "", "close"},
		{eof, "keep-alive", "close"},
	} {
		c := r.dial()
		req := lines("GET /"+tt.path+" HTTP/1.0", "Connection: "+tt.ask)
		c.send(req)
		head := c.head()
		if !strings.HasPrefix(head, "HTTP/1.1 200 OK\r\n") || fieldOf(head, "Connection") != tt.connection || strings.Contains(head, "chunked") {
			t.Errorf("%v: %q", tt, head)
		}
		if tt.connection == "keep-alive" {
			if got := c.read(4); got != "body" {
				t.Errorf("%v: %q", tt, got)
			}
			c.send(req)
			c.want("GET", 200, "body")
			continue
		}
		if got, err := c.rest(); got != "body" || err != nil {
			t.Errorf("%v: %q %v", tt, got, err)
		}
	}
	if got := fieldOf(b.got()[0], "Via"); got != "1.0 outrigger" {
		t.Error(got)
	}
}

// Answers without a body leave both connections usable whatever their fields
// announce.
func TestBodilessAnswers(t *testing.T) {
	t.Parallel()
	b := newBackend(t, func(b *backend, p *peer) {
		for h := b.head(p); h != ""; h = b.head(p) {
			switch strings.Fields(h)[1] {
			case "/head-length":
				p.send(lines("HTTP/1.1 200 OK", "Content-Length: 5"))
			case "/head-chunked":
				p.send(lines("HTTP/1.1 200 OK", "Transfer-Encoding: chunked"))
			case "/head-nothing":
				p.send(lines("HTTP/1.1 404 No"))
			case "/204":
				p.send(lines("HTTP/1.1 204 No Content"))
			case "/304":
				p.send(lines("HTTP/1.1 304 Not Modified", "Content-Length: 5", "ETag: e"))
			case "/empty":
				p.send(ok200(""))
			}
		}
	})
	r := newRig(t, quick(), balance.DefaultConfig(), b.addr)
	c := r.dial()
	for range 2 {
		for _, tt := range []struct {
			method, path string
			status       int
			length       string
		}{
			{"HEAD", "/head-length", 200, "5"}, {"HEAD", "/head-chunked", 200, ""}, {"HEAD", "/head-nothing", 404, ""},
			{"GET", "/204", 204, ""}, {"GET", "/304", 304, "5"}, {"GET", "/empty", 200, "0"}, {"POST", "/204", 204, ""},
		} {
			c.send(lines(tt.method+" "+tt.path+" HTTP/1.1", "Host: a"))
			if a := c.want(tt.method, tt.status, ""); a.Header.Get("Content-Length") != tt.length || len(a.TransferEncoding) > 0 && tt.method != "HEAD" {
				t.Errorf("%v: %v", tt, a.Header)
			}
		}
	}
	if n := b.accepted.Load(); n != 1 {
		t.Errorf("%d connections to the backend", n)
	}
	r.wantTotals(14, 0, 0)
}

// A backend that sends more than it announced, or speaks without being asked,
// must not have those bytes taken for the answer to the next request.
func TestExtraBytesEndABackendConnection(t *testing.T) {
	t.Parallel()
	for name, answer := range map[string]string{
		"after a length":       ok200("b") + ok200("smuggled"),
		"after a last chunk":   lines("HTTP/1.1 200 OK", "Transfer-Encoding: chunked") + "1\r\nb\r\n0\r\n\r\n" + ok200("smuggled"),
		"body of a 204":        lines("HTTP/1.1 204 No") + "body",
		"body of a 304":        lines("HTTP/1.1 304 Not", "Content-Length: 4") + "body",
		"one byte after a 204": lines("HTTP/1.1 204 No") + "\n",
	} {
		b := newBackend(t, func(b *backend, p *peer) {
			b.head(p)
			p.send(answer)
			if p.head() != "" {
				t.Errorf("%s: the connection was used again", name)
			}
		})
		r := newRig(t, quick(), balance.DefaultConfig(), b.addr)
		c := r.dial()
		for range 3 {
			c.send(get1("/"))
			if a := c.answer("GET"); a.err != nil || a.body == "smuggled" {
				t.Errorf("%s: %v %q %v", name, a.Status, a.body, a.err)
			}
		}
		r.wantTotals(3, 0, 0)
	}
}

func TestLateExtraBytes(t *testing.T) {
	t.Parallel()
	idle, spoke := make(chan bool), make(chan bool)
	b := newBackend(t, func(b *backend, p *peer) {
		b.head(p)
		p.send(ok200("b"))
		await(t, idle)
		p.send(ok200("smuggled"))
		give(t, spoke)
		if p.head() != "" {
			t.Error("the connection was used again")
		}
	})
	r := newRig(t, quick(), balance.DefaultConfig(), b.addr)
	for range 3 {
		c := r.dial()
		c.send(get1("/"))
		c.want("GET", 200, "b")
		r.settled()
		give(t, idle)
		await(t, spoke)
	}
	r.wantTotals(3, 0, 0)
}

// A backend that closes its idle connections, at any time, costs nobody an
// answer and is not blamed.
func TestIdleConnectionsThatDied(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(*peer){"closed": func(*peer) {}, "reset": (*peer).reset} {
		b := newBackend(t, func(b *backend, p *peer) {
			b.head(p)
			p.send(ok200("b"))
			end(p)
		})
		r := newRig(t, quick(), balance.DefaultConfig(), b.addr)
		c := r.dial()
		for i := range 4 {
			method := []string{"GET", "POST"}[i%2]
			c.send(lines(method+" / HTTP/1.1", "Host: a"))
			c.want(method, 200, "b")
			r.settled()
			eventually(t, "the backend has closed", func() bool { return b.closed.Load() == int64(i+1) })
		}
		r.wantTotals(4, 0, 0)
		if n := r.b.Status().Retries; n != 0 {
			t.Errorf("%s: %d retries, though each end could be seen before the connection was used", name, n)
		}
	}
}

func TestPoolBounds(t *testing.T) {
	t.Parallel()
	b := named(t, "b")
	cfg := quick()
	cfg.PoolSize = 0
	r := newRig(t, cfg, balance.DefaultConfig(), b.addr)
	c := r.dial()
	for range 3 {
		c.send(get1("/"))
		c.want("GET", 200, "b")
	}
	eventually(t, "no connection is kept", func() bool { return b.accepted.Load() == 3 && b.open.Load() == 0 })

	b = named(t, "b")
	cfg = quick()
	cfg.PoolIdle = 10 * time.Millisecond
	r = newRig(t, cfg, balance.DefaultConfig(), b.addr)
	c = r.dial()
	c.send(get1("/"))
	c.want("GET", 200, "b")
	eventually(t, "the idle connection is closed", func() bool { return b.open.Load() == 0 })
	c.send(get1("/"))
	c.want("GET", 200, "b")
}

func TestMaxConns(t *testing.T) {
	t.Parallel()
	b := named(t, "b")
	cfg := quick()
	cfg.MaxConns = 2
	r := newRig(t, cfg, balance.DefaultConfig(), b.addr)
	first, second, third := r.dial(), r.dial(), r.dial()
	for _, c := range []*peer{first, second} {
		c.send(get1("/"))
		c.want("GET", 200, "b")
	}
	third.send(get1("/"))
	if st := r.s.Stats(); st.Open != 2 {
		t.Errorf("%d connections open, at most 2 may be", st.Open)
	}
	first.nc.Close()
	third.want("GET", 200, "b") // its turn has come
}

// An answer may overtake the news that its request's body has gone out; the
// requests behind it must not pay for that.
func TestPipelinedStreams(t *testing.T) {
	t.Parallel()
	b := newBackend(t, func(b *backend, p *peer) {
		for h := b.head(p); h != ""; h = b.head(p) {
			if !strings.HasPrefix(h, "POST") {
				p.send(ok200("get"))
				continue
			}
			if got, want := p.read(len(chunkedABC)), chunkedABC; got != want {
				t.Errorf("the backend got %q, want %q", got, want)
			}
			p.send(ok200("post"))
		}
	})
	r := newRig(t, quick(), balance.DefaultConfig(), b.addr)
	c := r.dial()
	for range 20 {
		c.send(post("Transfer-Encoding: chunked") + chunkedABC + get1("/"))
		c.want("POST", 200, "post")
		c.want("GET", 200, "get")
	}
	r.wantTotals(40, 0, 0)
}
