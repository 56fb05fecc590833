package h1

import (
	"fmt"
	"strings"
	"testing"

	"outrigger/sidecar/balance"
)

// smallBodies takes bodies up to 1000 bytes.
func smallBodies() Config {
	c := quick()
	c.MaxBody = 1000
	return c
}

// chunksOf is a chunked body of n bytes in chunks of the size.
func chunksOf(n, size int) string {
	var b []byte
	for ; n > 0; n -= size {
		b = appendChunk(b, []byte(strings.Repeat("x", min(n, size))))
	}
	return string(b) + "0\r\n\r\n"
}

// A body that announces itself, or has come with its head, as too large is
// refused before anything is leased; a client that asks is not told to go on.
func TestMaxBody(t *testing.T) {
	t.Parallel()
	b := named(t, "b")
	r := newRig(t, smallBodies(), balance.DefaultConfig(), b.addr)
	reqs := map[string]string{
		"length":           post("Content-Length: 1001"),
		"with the body":    post("Content-Length: 1001") + strings.Repeat("x", 1001),
		"large":            post("Content-Length: 100000") + strings.Repeat("x", 100_000),
		"longest":          post("Content-Length: 999999999999999999"),
		"PUT":              putOf("Content-Length: 1001"),
		"expects":          post("Content-Length: 1001", "Expect: 100-continue"),
		"HTTP/1.0":         lines("POST / HTTP/1.0", "Content-Length: 1001"),
		"one chunk":        post("Transfer-Encoding: chunked") + chunksOf(1001, 1001),
		"chunks":           post("Transfer-Encoding: chunked") + chunksOf(1001, 1),
		"chunks, cut":      post("Transfer-Encoding: chunked") + chunksOf(1000, 100)[:1060] + "1\r\nx",
		"half a big chunk": post("Transfer-Encoding: chunked") + "ffffffff\r\n" + strings.Repeat("x", 1001),
	}
	for name, req := range reqs {
		c := r.dial()
		c.send(req)
		if a := c.answer("POST"); a.StatusCode != 413 || !a.Close || a.err != nil || a.Header.Get("Outrigger-Reason") != "" {
			t.Errorf("%s: %d %v", name, a.StatusCode, a.err)
		}
		c.wantEnd("eof")
	}
	if b.accepted.Load() != 0 || r.b.Status().Requests != 0 {
		t.Errorf("%d connections, %d leases", b.accepted.Load(), r.b.Status().Requests)
	}
	if st := r.s.Stats(); st.ClientErrors != uint64(len(reqs)) || st.Own != [6]uint64{4: uint64(len(reqs))} {
		t.Errorf("%+v", st)
	}
}

// At the limit it passes, whatever its framing adds; so does the next.
func TestMaxBodyIsAllowed(t *testing.T) {
	t.Parallel()
	body := strings.Repeat("x", 1000)
	for name, tt := range map[string]struct{ head, first, then string }{
		"length":           {post("Content-Length: 1000"), body, ""},
		"chunked":          {post("Transfer-Encoding: chunked"), chunksOf(1000, 1000), ""},
		"chunks":           {post("Transfer-Encoding: chunked"), chunksOf(1000, 1), ""},
		"chunked, after":   {post("Transfer-Encoding: chunked"), "", chunksOf(1000, 1000)},
		"chunked, between": {post("Transfer-Encoding: chunked"), "3e8\r\n" + body[:500], body[500:] + "\r\n0\r\n\r\n"},
		"extensions":       {post("Transfer-Encoding: chunked"), "3e8;" + strings.Repeat("a", 400) + "\r\n" + body + "\r\n0\r\n\r\n", ""},
		"trailers":         {post("Transfer-Encoding: chunked"), "3e8\r\n" + body + "\r\n0\r\nX: " + body + "\r\n\r\n", ""},
	} {
		for _, buffer := range []int{0, 16 << 10} {
			cfg := smallBodies()
			cfg.Retry.BodyBuffer = buffer
			b := newBackend(t, func(b *backend, p *peer) {
				for h := b.head(p); h != ""; h = b.head(p) {
					n := 0
					if fieldOf(h, "Transfer-Encoding") == "" {
						n = len(p.bodyOf(h))
					} else {
						d := chunkDecoder{}
						for !d.done() {
							s := []byte(p.read(1))
							k, _, err := d.decode(s)
							if n += k; err != nil || len(s) == 0 {
								t.Errorf("%s: cut after %d: %v", name, n, err)
								return
							}
						}
					}
					p.send(ok200(fmt.Sprint(n)))
				}
			})
			r := newRig(t, cfg, balance.DefaultConfig(), b.addr)
			c := r.dial()
			for range 2 {
				c.send(tt.head + tt.first)
				if tt.then != "" {
					n := len(b.got())
					r.eventually("the backend has the head", func() bool { return len(b.got()) > n || n > 0 })
					c.send(tt.then)
				}
				if a := c.want("POST", 200, "1000"); a.Close {
					t.Errorf("%s: the connection is closed", name)
				}
			}
			r.wantTotals(2, 0, 0)
		}
	}
}

// One that turns out too large on its way is cut off: the backend, which never
// sees the end of it, is not blamed, and the client is told.
func TestMaxBodyOfAStream(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct{ first, then string }{
		"all of it":   {"", chunksOf(1001, 1001)},
		"chunks":      {"", chunksOf(1001, 1)},
		"part":        {chunksOf(600, 600)[:610-3], "258\r\n" + strings.Repeat("x", 600) + "\r\n0\r\n\r\n"},
		"at the last": {"3e8\r\n" + strings.Repeat("x", 1000) + "\r\n", "1\r\nx\r\n0\r\n\r\n"},
		"one chunk":   {"3e9\r\n" + strings.Repeat("x", 1000), "x\r\n0\r\n\r\n"},
		"large":       {"", chunksOf(100_000, 100_000)},
	} {
		b := newBackend(t, func(b *backend, p *peer) {
			b.head(p)
			if s, _ := p.rest(); strings.HasSuffix(s, "0\r\n\r\n") || strings.Count(s, "x") > 1000 {
				t.Errorf("%s: the backend got %d bytes, to the end: %v", name, strings.Count(s, "x"), strings.HasSuffix(s, "0\r\n\r\n"))
			}
		})
		r := newRig(t, smallBodies(), balance.DefaultConfig(), b.addr)
		c := r.dial()
		c.send(post("Transfer-Encoding: chunked") + tt.first)
		r.eventually("the backend has the head", func() bool { return len(b.got()) == 1 })
		c.send(tt.then)
		if a := c.answer("POST"); a.StatusCode != 413 || !a.Close || a.err != nil {
			t.Errorf("%s: %d %v", name, a.StatusCode, a.err)
		}
		c.wantEnd("eof")
		r.wantTotals(0, 0, 1)
		if st := r.s.Stats(); st.ClientErrors != 1 || st.Own != [6]uint64{4: 1} || st.Aborted != 0 {
			t.Errorf("%s: %+v", name, st)
		}
		r.eventually("the backend's connection is closed", func() bool { return b.open.Load() == 0 })
	}
}

// A client that was told to go on is cut off like any other.
func TestMaxBodyAfterContinue(t *testing.T) {
	t.Parallel()
	b := newBackend(t, func(b *backend, p *peer) {
		b.head(p)
		p.send(continue100)
		if s, _ := p.rest(); strings.HasSuffix(s, "0\r\n\r\n") {
			t.Errorf("the backend got a complete body: %q", s)
		}
	})
	r := newRig(t, smallBodies(), balance.DefaultConfig(), b.addr)
	c := r.dial()
	c.send(post("Transfer-Encoding: chunked", "Expect: 100-continue"))
	if got := c.head(); got != continue100 {
		t.Errorf("%q", got)
	}
	c.send(chunksOf(1001, 100))
	if a := c.answer("POST"); a.StatusCode != 413 || !a.Close {
		t.Errorf("%d %v", a.StatusCode, a.err)
	}
	r.wantTotals(0, 0, 1)
}

// Once the answer has begun it is cut: no client takes it for the whole.
func TestMaxBodyDuringAnAnswer(t *testing.T) {
	t.Parallel()
	for name, answer := range map[string]string{
		"length":  lines("HTTP/1.1 200 OK", "Content-Length: 10") + "12345",
		"chunked": lines("HTTP/1.1 200 OK", "Transfer-Encoding: chunked") + "5\r\n12345\r\n",
	} {
		b := newBackend(t, func(b *backend, p *peer) {
			b.head(p)
			p.send(answer)
			if s, _ := p.rest(); strings.HasSuffix(s, "0\r\n\r\n") {
				t.Errorf("%s: the backend got a complete body", name)
			}
		})
		r := newRig(t, smallBodies(), balance.DefaultConfig(), b.addr)
		c := r.dial()
		c.send(post("Transfer-Encoding: chunked") + "1\r\nx\r\n")
		c.br.Peek(1)
		c.send(chunksOf(1000, 1000))
		if a := c.answer("POST"); a.err == nil || a.StatusCode != 200 {
			t.Errorf("%s: %d %q taken for a complete answer", name, a.StatusCode, a.body)
		}
		r.wantTotals(0, 0, 1)
		if st := r.s.Stats(); st.ClientErrors != 1 || st.Aborted != 0 || st.Own != [6]uint64{} {
			t.Errorf("%s: %+v", name, st)
		}
	}
}

// The last request that a connection may carry is answered with a close.
func TestMaxRequests(t *testing.T) {
	t.Parallel()
	for _, most := range []int{1, 3} {
		cfg := quick()
		cfg.MaxRequests = most
		b := named(t, "b")
		r := newRig(t, cfg, balance.DefaultConfig(), b.addr)
		for range 2 { // a connection begins anew
			c := r.dial()
			for i := range most {
				c.send(get1("/"))
				if a := c.want("GET", 200, "b"); a.Close != (i == most-1) {
					t.Errorf("request %d of %d: close %v", i+1, most, a.Close)
				}
			}
			c.wantEnd("eof")
		}
		// HTTP/1.0 is told by what is missing.
		c := r.dial()
		for i := range most {
			c.send(lines("GET / HTTP/1.0", "Connection: keep-alive"))
			if a := c.want("GET", 200, "b"); (a.Header.Get("Connection") == "keep-alive") != (i < most-1) {
				t.Errorf("request %d of %d: %v", i+1, most, a.Header)
			}
		}
		c.wantEnd("eof")
		if n := b.accepted.Load(); n != 1 {
			t.Errorf("%d connections to the backend: its own are another matter", n)
		}
		r.wantTotals(uint64(3*most), 0, 0)
	}
}

// What follows the last is not served, and the answer to that arrives whole
// all the same. Answers of ours count too.
func TestMaxRequestsInAPipeline(t *testing.T) {
	t.Parallel()
	cfg := quick()
	cfg.MaxRequests = 2
	b := named(t, "b")
	r := newRig(t, cfg, balance.DefaultConfig(), b.addr)
	c := r.dial()
	c.send(get1("/1") + post("Content-Length: 3") + "abc" + get1("/3") + get1("/4"))
	if a := c.want("GET", 200, "b"); a.Close {
		t.Error("closed too early")
	}
	if a := c.want("POST", 200, "b"); !a.Close {
		t.Error("the last answer does not say close")
	}
	c.wantEnd("eof")
	r.wantTotals(2, 0, 0)

	r.set()
	c = r.dial()
	c.send(get1("/1") + get1("/2") + get1("/3"))
	if a := c.wantOwn(503, "no_backends"); a.Close {
		t.Error("closed too early")
	}
	if a := c.wantOwn(503, "no_backends"); !a.Close {
		t.Error("the last answer does not say close")
	}
	c.wantEnd("eof")
}

// A connection that has rested, and has no goroutine meanwhile, goes on
// counting.
func TestMaxRequestsAfterARest(t *testing.T) {
	t.Parallel()
	cfg := quick()
	cfg.MaxRequests = 3
	b := named(t, "b")
	r := newClocked(t, cfg, balance.DefaultConfig(), b.addr)
	c := r.dial()
	for i := range 3 {
		c.send(get1("/"))
		if a := c.want("GET", 200, "b"); a.Close != (i == 2) {
			t.Errorf("request %d: close %v", i+1, a.Close)
		}
		if i == 2 {
			break
		}
		r.rests()
		r.pass(2 * parkAfter)
		r.eventually("it is parked, where connections can be", func() bool {
			rests := false
			r.s.each(func(*conn) { rests = true })
			return rests != canPark
		})
	}
	c.wantEnd("eof")
}
