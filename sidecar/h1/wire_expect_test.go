package h1

import (
	"strings"
	"testing"
	"time"

	"outrigger/sidecar/balance"
)

const continue100 = "HTTP/1.1 100 Continue\r\n\r\n"

// The client waits for the 100 that the backend says, once.
func TestExpectBackendContinues(t *testing.T) {
	t.Parallel()
	for name, framed := range map[string][2]string{
		"small":   {"Content-Length: 3", "abc"},
		"large":   {"Content-Length: 100000", strings.Repeat("x", 100_000)},
		"chunked": {"Transfer-Encoding: chunked", chunkedABC},
	} {
		asked := make(chan bool, 1)
		b := newBackend(t, func(b *backend, p *peer) {
			for h := b.head(p); h != ""; h = b.head(p) {
				if fieldOf(h, "Expect") != "100-continue" {
					t.Errorf("%s: the expectation was not passed on: %q", name, h)
				}
				if !p.quietFor(short) {
					t.Errorf("%s: the body came before the 100", name)
				}
				p.send(continue100)
				if got := p.read(len(framed[1])); got != framed[1] {
					t.Errorf("%s: %d bytes of body", name, len(got))
				}
				p.send(ok200("done"))
				give(t, asked)
			}
		})
		r := newRig(t, quick(), balance.DefaultConfig(), b.addr)
		c := r.dial()
		for range 3 {
			c.send(post("Expect: 100-continue", framed[0]))
			if got := c.head(); got != continue100 {
				t.Fatalf("%s: %q", name, got)
			}
			c.send(framed[1])
			if a := c.want("POST", 200, "done"); a.Close {
				t.Errorf("%s: the connection is closed", name)
			}
			await(t, asked)
		}
		if n := b.accepted.Load(); n != 1 {
			t.Errorf("%s: %d connections to the backend", name, n)
		}
		r.wantTotals(3, 0, 0)
	}
}

// A final answer instead of the 100: the body is never sent, so both
// connections end (RFC 9110 section 10.1.1).
func TestExpectFinalAnswerAtOnce(t *testing.T) {
	t.Parallel()
	for _, status := range []string{"417 Expectation Failed", "200 OK", "401 Unauthorized"} {
		b := newBackend(t, func(b *backend, p *peer) {
			b.head(p)
			p.send(lines("HTTP/1.1 "+status, "Content-Length: 2") + "no")
			p.wantEnd("eof")
		})
		r := newRig(t, quick(), balance.DefaultConfig(), b.addr)
		c := r.dial()
		c.send(post("Expect: 100-continue", "Content-Length: 100000"))
		a := c.answer("POST")
		if a.err != nil || a.body != "no" || !a.Close {
			t.Errorf("%s: %q %v, close %v", status, a.body, a.err, a.Close)
		}
		c.wantEnd("eof")
		r.wantTotals(1, 0, 0)
	}
}

// A backend that says nothing: the client is told to go ahead after about a
// second, and a late 100 is not passed on as a second one.
func TestExpectSilentBackend(t *testing.T) {
	t.Parallel()
	for _, late := range []string{"", continue100} {
		b := newBackend(t, func(b *backend, p *peer) {
			for h := b.head(p); h != ""; h = b.head(p) {
				if strings.HasPrefix(h, "GET") {
					p.send(ok200("next"))
					continue
				}
				if got := p.read(3); got != "abc" {
					t.Errorf("body %q", got)
				}
				p.send(late + ok200("done"))
			}
		})
		r := newRig(t, quick(), balance.DefaultConfig(), b.addr)
		c := r.dial()
		c.send(post("Expect: 100-continue", "Content-Length: 3"))
		if !c.quietFor(expectWait / 2) {
			t.Error("a 100 came long before its time")
		}
		if got := c.head(); got != continue100 {
			t.Fatalf("%q", got)
		}
		c.send("abc")
		if head := c.head(); !strings.HasPrefix(head, "HTTP/1.1 200 OK") || fieldOf(head, "Connection") != "" {
			t.Errorf("%q", head)
		}
		c.read(4)
		c.send(get1("/")) // nothing is left over on either connection
		c.want("GET", 200, "next")
		r.wantTotals(2, 0, 0)
		if n := b.accepted.Load(); n != 1 {
			t.Errorf("%d connections to the backend", n)
		}
	}
}

// Clients need not wait. Then the body goes on once the backend says 100.
func TestExpectImpatientClient(t *testing.T) {
	t.Parallel()
	b := newBackend(t, func(b *backend, p *peer) {
		for b.head(p) != "" {
			p.send(continue100)
			p.send(ok200(p.read(3)))
		}
	})
	r := newRig(t, quick(), balance.DefaultConfig(), b.addr)
	c := r.dial()
	for range 3 {
		c.send(post("Expect: 100-continue", "Content-Length: 3") + "abc")
		if got := c.head(); got != continue100 {
			t.Fatalf("%q", got)
		}
		c.want("POST", 200, "abc")
	}
	r.wantTotals(3, 0, 0)
}

// What is no expectation: from HTTP/1.0, or without a body.
func TestExpectIgnored(t *testing.T) {
	t.Parallel()
	b := newBackend(t, func(b *backend, p *peer) {
		for h := b.head(p); h != ""; h = b.head(p) {
			if fieldOf(h, "Expect") != "" {
				t.Errorf("passed on: %q", h)
			}
			if fieldOf(h, "Content-Length") == "3" {
				p.read(3)
			}
			p.send(ok200("done"))
		}
	})
	r := newRig(t, quick(), balance.DefaultConfig(), b.addr)
	for _, req := range []string{
		lines("POST / HTTP/1.0", "Expect: 100-continue", "Content-Length: 3") + "abc",
		get("Expect: 100-continue"),
		post("Expect: 100-continue", "Content-Length: 0"),
	} {
		c := r.dial()
		c.send(req)
		c.want("POST", 200, "done")
	}
	c := r.dial()
	c.send(post("Expect: something", "Content-Length: 3"))
	c.want("POST", 417, "an expectation other than 100-continue\n")
	c.wantEnd("eof")
	r.wantTotals(3, 0, 0)
}

// Interim answers pass to clients of HTTP/1.1, each once and before the final
// one; so does a 100 that nobody asked for (RFC 9110 section 15.2).
func TestInterimAnswers(t *testing.T) {
	t.Parallel()
	b := newBackend(t, func(b *backend, p *peer) {
		for b.head(p) != "" {
			p.send(continue100 + lines("HTTP/1.1 103 Early Hints", "Link: </a>", "Connection: x", "X: 1"))
			time.Sleep(5 * time.Millisecond) // so that they need not come in one read
			p.send(lines("HTTP/1.1 103 Early Hints", "Link: </b>") + lines("HTTP/1.1 102 Processing") + ok200("done"))
		}
	})
	r := newRig(t, quick(), balance.DefaultConfig(), b.addr)
	c := r.dial()
	for range 2 {
		c.send(get1("/"))
		for _, want := range []string{
			continue100, lines("HTTP/1.1 103 Early Hints", "Link: </a>"), lines("HTTP/1.1 103 Early Hints", "Link: </b>"), lines("HTTP/1.1 102 Processing"),
		} {
			if got := c.head(); got != want {
				t.Fatalf("%q, want %q", got, want)
			}
		}
		c.want("GET", 200, "done")
	}
	c = r.dial()
	c.send(lines("GET / HTTP/1.0"))
	c.want("GET", 200, "done")
	r.wantTotals(3, 0, 0)
}

// Interim answers are bounded: without end they are a failing backend, not a
// way around the time-out.
func TestManyInterimAnswers(t *testing.T) {
	t.Parallel()
	hint := lines("HTTP/1.1 103 Early Hints", "Link: "+strings.Repeat("x", 1000))
	for _, n := range []int{maxInterim - 1, maxInterim} {
		b := newBackend(t, func(b *backend, p *peer) {
			for b.head(p) != "" {
				p.send(strings.Repeat(hint, n) + ok200("done"))
			}
		})
		r := newRig(t, quick(), balance.DefaultConfig(), b.addr)
		c := r.dial()
		c.send(get1("/"))
		for range n {
			if got := c.head(); got != hint {
				t.Fatalf("%.80q", got)
			}
		}
		if n < maxInterim {
			c.want("GET", 200, "done")
			r.wantTotals(1, 0, 0)
		} else {
			c.wantOwn(502, "bad_response")
			r.wantTotals(0, 1, 0)
		}
	}
}
