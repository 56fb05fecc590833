package h1

import (
	"fmt"
	"io"
	"net/http/httputil"
	"strings"
	"testing"

	"outrigger/sidecar/balance"
)

// uploads are the two ways to frame a body that never ends within a test.
var uploads = map[string]string{
	"length":  post("Content-Length: 1000000000"),
	"chunked": post("Transfer-Encoding: chunked"),
}

// pour sends body bytes until the connection takes no more of them.
func (p *peer) pour(framing string) {
	piece := []byte(strings.Repeat("x", 64<<10))
	if framing == "chunked" {
		piece = appendChunk(nil, piece)
	}
	for {
		if _, err := p.nc.Write(piece); err != nil {
			return
		}
	}
}

// A final answer that comes while the body is still going out reaches the
// client, whose connection then ends; the backend is not blamed.
func TestEarlyAnswer(t *testing.T) {
	t.Parallel()
	for name, head := range uploads {
		b := newBackend(t, func(b *backend, p *peer) {
			b.head(p)
			p.read(1000)
			p.send(lines("HTTP/1.1 413 Too Large", "Content-Length: 5", "Connection: close") + "large")
			_ = p.nc.CloseWrite()
			io.Copy(io.Discard, io.LimitReader(p.br, 1<<20)) // as a server does, for a while
		})
		r := newRig(t, quick(), balance.DefaultConfig(), b.addr)
		for range 3 {
			c := r.dial()
			c.send(head)
			poured := make(chan bool)
			go func() {
				c.pour(name)
				close(poured)
			}()
			c.want("POST", 413, "large")
			r.settled()
			c.nc.Close()
			await(t, poured)
		}
		r.wantTotals(3, 0, 0)
		r.eventually("the connections are over", func() bool { return b.open.Load() == 0 && r.s.Stats().Open == 0 })
	}
}

// The same from a backend that never reads a byte of the body and does not
// close: the upload is stuck in a write when the answer comes.
func TestEarlyAnswerToAStuckUpload(t *testing.T) {
	t.Parallel()
	for name, head := range uploads {
		stuck := make(chan bool)
		b := newBackend(t, func(b *backend, p *peer) {
			b.head(p)
			await(t, stuck)
			p.send(lines("HTTP/1.1 403 No", "Content-Length: 2") + "no")
			p.rest()
		})
		r := newRig(t, quick(), balance.DefaultConfig(), b.addr)
		c := r.dial()
		c.send(head)
		poured := make(chan bool)
		go func() {
			c.pour(name)
			close(poured)
		}()
		// Both sides' buffers are full when the client's writes stall.
		give(t, stuck)
		c.want("POST", 403, "no")
		r.settled()
		c.nc.Close()
		await(t, poured)
		r.wantTotals(1, 0, 0)
		r.eventually("the connections are over", func() bool { return b.open.Load() == 0 && r.s.Stats().Open == 0 })
	}
}

// A body that its client breaks off: the backend never takes it for a whole
// one, the lease ends, and the backend is not blamed.
func TestUploadCutByTheClient(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct{ head, body string }{
		"length":                {uploads["length"], "12345"},
		"length, nothing":       {uploads["length"], ""},
		"chunked":               {uploads["chunked"], "5\r\n12345\r\n"},
		"chunked, nothing":      {uploads["chunked"], ""},
		"in a chunk":            {uploads["chunked"], "5\r\n123"},
		"before the last CRLF":  {uploads["chunked"], "5\r\n12345\r\n0\r\n"},
		"within the trailers":   {uploads["chunked"], "5\r\n12345\r\n0\r\nX: y\r\n"},
		"small, before a lease": {post("Content-Length: 10"), "12345"},
	} {
		for how, hangUp := range leave {
			b := newBackend(t, func(b *backend, p *peer) {
				b.head(p)
				s, _ := p.rest()
				if strings.HasSuffix(s, "0\r\n\r\n") || strings.HasSuffix(s, "0\r\nX: y\r\n\r\n") {
					t.Errorf("%s, %s: the backend got a complete body: %q", name, how, s)
				}
			})
			r := newRig(t, quick(), balance.DefaultConfig(), b.addr)
			c := r.dial()
			c.send(tt.head + tt.body)
			small := strings.HasPrefix(name, "small")
			if !small {
				r.eventually("the backend has the head", func() bool { return len(b.got()) == 1 })
			}
			hangUp(c)
			r.eventually("the connection is over", func() bool { st := r.s.Stats(); return st.Open == 0 && st.Accepted == 1 })
			r.settled()
			ignored := uint64(1)
			if small {
				ignored = 0
			}
			r.wantTotals(0, 0, ignored)
			r.eventually("the backend's connection is closed", func() bool { return b.open.Load() == 0 })
		}
	}
}

// A chunked body that turns out malformed gets its client a 400, and the
// backend sees it cut.
func TestMalformedUpload(t *testing.T) {
	t.Parallel()
	for name, body := range map[string]string{
		"size":       "5\r\n12345\r\nx\r\n",
		"at once":    "x\r\n",
		"data":       "5\r\n123456\r\n",
		"bare LF":    "5\n12345\r\n0\r\n\r\n",
		"overflow":   "ffffffffffffffff\r\n12345",
		"trailer":    "5\r\n12345\r\n0\r\nX y\r\n\r\n",
		"extensions": "5;" + strings.Repeat("x", 2000) + "\r\n12345\r\n0\r\n\r\n",
		"trailers":   "0\r\n" + strings.Repeat("X: y\r\n", 2000) + "\r\n",
	} {
		for _, early := range []bool{true, false} {
			b := newBackend(t, func(b *backend, p *peer) {
				b.head(p)
				if s, _ := p.rest(); strings.HasSuffix(s, "0\r\n\r\n") {
					t.Errorf("%s, early %v: the backend got a complete body: %q", name, early, s)
				}
			})
			r := newRig(t, quick(), balance.DefaultConfig(), b.addr)
			c := r.dial()
			ignored := uint64(1)
			if early {
				ignored = 0 // it comes with the head: nothing has been leased
				c.send(uploads["chunked"] + body)
			} else {
				c.send(uploads["chunked"])
				r.eventually("the backend has the head", func() bool { return len(b.got()) == 1 })
				c.send(body)
			}
			if a := c.answer("POST"); a.StatusCode != 400 || !a.Close || a.err != nil {
				t.Errorf("%s, early %v: %d %q %v", name, early, a.StatusCode, a.body, a.err)
			}
			c.wantEnd("eof")
			r.wantTotals(0, 0, ignored)
			if st := r.s.Stats(); st.ClientErrors != 1 || st.Own[4] != 1 || st.Own[5] != 0 {
				t.Errorf("%s, early %v: %+v", name, early, st)
			}
		}
	}
}

// The request that follows a streamed body on the same connection starts where
// the body ends.
func TestRequestsAfterUploads(t *testing.T) {
	t.Parallel()
	b := newBackend(t, func(b *backend, p *peer) {
		for h := b.head(p); h != ""; h = b.head(p) {
			n := 0
			fmt.Sscan(fieldOf(h, "Content-Length"), &n)
			if fieldOf(h, "Transfer-Encoding") == "chunked" {
				io.Copy(io.Discard, httputil.NewChunkedReader(p.br))
				p.read(2)
			} else {
				p.read(n)
			}
			p.send(ok200(strings.Fields(h)[1]))
		}
	})
	r := newRig(t, quick(), balance.DefaultConfig(), b.addr)
	c := r.dial()
	for i := range 4 {
		for _, req := range []string{
			lines(fmt.Sprintf("POST /%d HTTP/1.1", i), "Host: a", "Content-Length: 20000") + strings.Repeat("y", 20_000),
			lines(fmt.Sprintf("PUT /%d HTTP/1.1", i), "Host: a", "Transfer-Encoding: chunked") + string(appendChunk(nil, []byte(strings.Repeat("y", 40_000)))) + "0\r\n\r\n",
			get1(fmt.Sprint("/", i)),
		} {
			c.send(req)
			c.want("GET", 200, fmt.Sprint("/", i))
			r.settled()
		}
	}
	if n := b.accepted.Load(); n != 1 {
		t.Errorf("%d connections to the backend", n)
	}
	r.wantTotals(12, 0, 0)
}

// The time for the first byte runs from the end of the request.
func TestSlowUploadIsNoFirstByteTimeout(t *testing.T) {
	t.Parallel()
	for _, expect := range []string{"X: y", "Expect: 100-continue"} {
		cfg := quick()
		cfg.Timeouts.FirstByte = short
		b := newBackend(t, func(b *backend, p *peer) {
			if b.head(p) != "" && p.read(20_000) != "" {
				p.send(ok200("done"))
				p.head()
			}
		})
		r := newRig(t, cfg, balance.DefaultConfig(), b.addr)
		c := r.dial()
		c.send(post("Content-Length: 20000", expect))
		if expect == "X: y" {
			c.quietFor(4 * short)
		} else if got := c.head(); got != continue100 { // after expectWait
			t.Errorf("%q", got)
		}
		c.send(strings.Repeat("x", 20_000))
		c.want("POST", 200, "done")
		r.wantTotals(1, 0, 0)
	}
}

// Once the answer has begun it is its own idle time that counts, whatever
// becomes of the upload.
func TestUploadEndsDuringAnAnswer(t *testing.T) {
	t.Parallel()
	cfg := quick()
	cfg.Timeouts.FirstByte = short
	b := newBackend(t, func(b *backend, p *peer) {
		b.head(p)
		p.send(lines("HTTP/1.1 200 OK", "Transfer-Encoding: chunked") + "1\r\na\r\n")
		p.read(20_000)
		p.quietFor(6 * short)
		p.send("1\r\nb\r\n0\r\n\r\n")
		p.head()
	})
	r := newRig(t, cfg, balance.DefaultConfig(), b.addr)
	c := r.dial()
	c.send(post("Content-Length: 20000") + "x") // the first byte keeps BUG 6 out of this
	c.br.Peek(1)
	c.send(strings.Repeat("x", 19_999))
	c.want("POST", 200, "ab")
	r.wantTotals(1, 0, 0)
}

// A body that turns out malformed while an early answer is relayed: nobody
// takes what came for the whole answer, and the backend is not blamed.
func TestBadUploadDuringAnAnswer(t *testing.T) {
	t.Parallel()
	b := newBackend(t, func(b *backend, p *peer) {
		b.head(p)
		p.send(lines("HTTP/1.1 200 OK", "Content-Length: 10") + "12345")
		p.rest()
	})
	r := newRig(t, quick(), balance.DefaultConfig(), b.addr)
	c := r.dial()
	c.send(post("Transfer-Encoding: chunked") + "1\r\nx\r\n")
	c.br.Peek(1)
	c.send("malformed\r\n")
	if a := c.answer("POST"); a.err == nil {
		t.Errorf("%q taken for a complete body", a.body)
	}
	r.wantTotals(0, 0, 1)
}

// An interim answer during an upload does not take its client's time-out away.
func TestStallAfterAnInterimAnswer(t *testing.T) {
	t.Parallel()
	cfg := quick()
	cfg.Timeouts.Idle = 2 * short
	b := newBackend(t, func(b *backend, p *peer) {
		b.head(p)
		p.read(100)
		p.quietFor(short / 2) // the pump waits for more
		p.send(lines("HTTP/1.1 103 Early Hints", "Link: l"))
		p.rest()
	})
	r := newRig(t, cfg, balance.DefaultConfig(), b.addr)
	c := r.dial()
	c.send(post("Content-Length: 100000") + strings.Repeat("x", 100))
	if got := c.head(); !strings.HasPrefix(got, "HTTP/1.1 103") {
		t.Errorf("%q", got)
	}
	c.wantOwn(408, "body_timeout")
	r.wantTotals(0, 0, 1)
}

// An answer that was begun early and waits for a body that stalls: it is the
// client who is late.
func TestStalledUploadDuringAnAnswer(t *testing.T) {
	t.Parallel()
	cfg := quick()
	cfg.Timeouts.Idle = short
	b := newBackend(t, func(b *backend, p *peer) {
		b.head(p)
		p.send(lines("HTTP/1.1 200 OK", "Transfer-Encoding: chunked") + "1\r\na\r\n")
		p.rest() // answers the rest when it has it
	})
	r := newRig(t, cfg, balance.DefaultConfig(), b.addr)
	c := r.dial()
	c.send(post("Content-Length: 100000") + strings.Repeat("x", 100))
	if a := c.answer("POST"); a.err == nil || a.body != "a" {
		t.Errorf("%q, %v", a.body, a.err)
	}
	r.wantTotals(0, 0, 1)
}
