package h1

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"outrigger/picker"
	"outrigger/sidecar/balance"
)

// bodyOf reads the body that goes with a request head, as it is on the wire.
func (p *peer) bodyOf(head string) string {
	if fieldOf(head, "Transfer-Encoding") == "" {
		n, _ := strconv.Atoi(fieldOf(head, "Content-Length"))
		return p.read(n)
	}
	var b strings.Builder
	for !strings.HasSuffix(b.String(), "0\r\n\r\n") {
		c, err := p.br.ReadByte()
		if err != nil {
			break
		}
		b.WriteByte(c)
	}
	return b.String()
}

// echoes is a backend that answers every request with its name and the body.
func echoes(t testing.TB, name string) *backend {
	return newBackend(t, func(b *backend, p *peer) {
		for h := b.head(p); h != ""; h = b.head(p) {
			a := ok200(name + p.bodyOf(h))
			if strings.HasPrefix(h, "HEAD ") {
				a = lines("HTTP/1.1 200 OK", "Content-Length: 5", "X: "+name)
			}
			p.send(a)
		}
	})
}

// twoTries is a rig whose first endpoint gives the answer to every request, and
// whose second, good, joins when the first has got one: so it can be but the
// second to be tried.
func twoTries(t testing.TB, cfg Config, bcfg balance.Config, answer string) (r *rig, bad, good *backend) {
	good = echoes(t, "good")
	bad = newBackend(t, func(b *backend, p *peer) {
		for h := b.head(p); h != ""; h = b.head(p) {
			p.bodyOf(h)
			r.set(b.addr, good.addr)
			p.send(answer)
		}
	})
	r = newRig(t, cfg, bcfg, bad.addr)
	return r, bad, good
}

// statusRetries retries every status that can be, without a pause.
func statusRetries() Config {
	c := quick()
	c.Retry.Status500, c.Retry.Status502, c.Retry.Status503, c.Retry.Status504, c.Retry.Retriable4xx = true, true, true, true, true
	c.Retry.Backoff = 0
	return c
}

func answerOf(status int, body string) string {
	return lines(fmt.Sprintf("HTTP/1.1 %d Sorry", status), "X: first", fmt.Sprintf("Content-Length: %d", len(body))) + body
}

// putOf is a PUT with the given further lines, before its body.
func putOf(l ...string) string {
	return lines(append([]string{"PUT / HTTP/1.1", "Host: a"}, l...)...)
}

// The client sees the second answer alone; the first endpoint is judged by its
// status, and its connection carries the next request.
func TestStatusIsRetried(t *testing.T) {
	t.Parallel()
	for status, judged := range map[int]picker.Totals{
		500: oneSuccess, // as often the request's fault
		409: oneSuccess,
		502: oneFailure,
		503: oneFailure,
		504: oneFailure,
	} {
		for _, req := range []string{get1("/"), lines("DELETE / HTTP/1.1", "Host: a"), lines("OPTIONS * HTTP/1.1", "Host: a"), putOf("Content-Length: 3") + "abc"} {
			r, bad, good := twoTries(t, statusRetries(), balance.DefaultConfig(), answerOf(status, "bad"))
			c := r.dial()
			c.send(req)
			body := "good"
			if strings.HasPrefix(req, "PUT") {
				body = "goodabc"
			}
			if a := c.want("GET", 200, body); a.Header.Get("X") != "" || a.Close {
				t.Errorf("%d: %v", status, a.Header)
			}
			r.wantJudged(bad, judged)
			r.wantJudged(good, oneSuccess)
			r.wantRetries(byStatus)
			if st := r.s.Stats(); st.Passed != [6]uint64{2: 1} || st.Own != [6]uint64{} {
				t.Errorf("%d: the client got one answer, not %+v", status, st)
			}
			r.set(bad.addr)
			c.send(get1("/again"))
			c.want("GET", 200, "good")
			if n := bad.accepted.Load(); n != 1 {
				t.Errorf("%d: %d connections to the first", status, n)
			}
		}
	}
}

func TestStatusOfHEADIsRetried(t *testing.T) {
	t.Parallel()
	r, bad, good := twoTries(t, statusRetries(), balance.DefaultConfig(), lines("HTTP/1.1 503 No", "Content-Length: 1000"))
	c := r.dial()
	for range 2 {
		r.set(bad.addr)
		c.send(lines("HEAD / HTTP/1.1", "Host: a"))
		if a := c.want("HEAD", 200, ""); a.Header.Get("X") != "good" || a.ContentLength != 5 {
			t.Errorf("%v", a.Header)
		}
		r.settled()
	}
	r.wantRetries(byStatus, byStatus)
	if bad.accepted.Load() != 1 || len(good.got()) != 2 {
		t.Errorf("%d connections to the first, %d requests to the second", bad.accepted.Load(), len(good.got()))
	}
}

// Nothing of a status that is not chosen is retried, nor for a method that is
// not: the answer goes through as it is.
func TestStatusIsNotRetried(t *testing.T) {
	t.Parallel()
	all := statusRetries().Retry
	for name, tt := range map[string]struct {
		status int
		req    string
		set    func(*RetryConfig)
	}{
		"500":           {500, get1("/"), func(c *RetryConfig) { c.Status500 = false }},
		"502":           {502, get1("/"), func(c *RetryConfig) { c.Status502 = false }},
		"503":           {503, get1("/"), func(c *RetryConfig) { c.Status503 = false }},
		"504":           {504, get1("/"), func(c *RetryConfig) { c.Status504 = false }},
		"409":           {409, get1("/"), func(c *RetryConfig) { c.Retriable4xx = false }},
		"other 4xx":     {429, get1("/"), func(*RetryConfig) {}},
		"other 5xx":     {501, get1("/"), func(*RetryConfig) {}},
		"no attempts":   {503, get1("/"), func(c *RetryConfig) { c.Attempts = 0 }},
		"POST":          {503, post("Content-Length: 3") + "abc", func(*RetryConfig) {}},
		"PATCH":         {503, lines("PATCH / HTTP/1.1", "Host: a"), func(*RetryConfig) {}},
		"not a method":  {503, get1("/"), func(c *RetryConfig) { c.Methods = []string{"POST"} }},
		"large body":    {503, putOf("Content-Length: 16385") + strings.Repeat("x", 16385), func(*RetryConfig) {}},
		"larger body":   {503, putOf("Content-Length: 20000") + strings.Repeat("x", 20000), func(*RetryConfig) {}},
		"no buffer":     {503, putOf("Content-Length: 3") + "abc", func(c *RetryConfig) { c.BodyBuffer = 0 }},
		"chunks":        {503, putOf("Transfer-Encoding: chunked") + chunkedABC, func(c *RetryConfig) { c.BodyBuffer = len(chunkedABC) - 1 }},
		"large chunked": {503, putOf("Transfer-Encoding: chunked") + string(appendChunk(nil, []byte(strings.Repeat("x", 40000)))) + "0\r\n\r\n", func(*RetryConfig) {}},
	} {
		cfg := quick()
		cfg.Retry = all
		tt.set(&cfg.Retry)
		r, bad, good := twoTries(t, cfg, balance.DefaultConfig(), answerOf(tt.status, "bad"))
		c := r.dial()
		c.send(tt.req)
		if a := c.want("GET", tt.status, "bad"); a.Header.Get("X") != "first" || a.Close || a.Status != fmt.Sprintf("%d Sorry", tt.status) {
			t.Errorf("%s: %v", name, a.Response)
		}
		r.settled()
		r.wantRetries()
		if len(good.got()) != 0 || len(bad.got()) != 1 {
			t.Errorf("%s: sent %d times to the first, %d times to the second", name, len(bad.got()), len(good.got()))
		}
	}
}

// A chunked body that has not come whole with its head is streamed.
func TestStatusOfChunksThatFollow(t *testing.T) {
	t.Parallel()
	r, bad, _ := twoTries(t, statusRetries(), balance.DefaultConfig(), answerOf(503, "bad"))
	c := r.dial()
	c.send(putOf("Transfer-Encoding: chunked") + "3\r\nabc\r\n")
	r.eventually("the first has the head", func() bool { return len(bad.got()) == 1 })
	c.send("0\r\n\r\n")
	c.want("GET", 503, "bad")
	r.wantRetries()
}

// Nor is one that the client holds back until it is told to send it.
func TestStatusAfterContinue(t *testing.T) {
	t.Parallel()
	var r *rig
	good := echoes(t, "good")
	bad := newBackend(t, func(b *backend, p *peer) {
		h := b.head(p)
		p.send(continue100)
		p.bodyOf(h)
		r.set(b.addr, good.addr)
		p.send(answerOf(503, "bad"))
		p.head()
	})
	r = newRig(t, statusRetries(), balance.DefaultConfig(), bad.addr)
	c := r.dial()
	c.send(putOf("Content-Length: 3", "Expect: 100-continue"))
	if got := c.head(); got != continue100 {
		t.Errorf("%q", got)
	}
	c.send("abc")
	c.want("GET", 503, "bad")
	r.wantRetries()
}

// With methods, POST may be sent twice; a body within body_buffer arrives the
// same at the second backend.
func TestBodyIsSentAgain(t *testing.T) {
	t.Parallel()
	var long strings.Builder
	for i := 0; long.Len() < 200<<10; i++ {
		fmt.Fprintf(&long, "%d,", i)
	}
	for name, tt := range map[string]struct{ head, body string }{
		"none":      {post(), ""},
		"small":     {post("Content-Length: 3"), "abc"},
		"at most":   {post("Content-Length: " + strconv.Itoa(long.Len())), long.String()},
		"chunked":   {post("Transfer-Encoding: chunked"), chunkedABC},
		"one chunk": {post("Transfer-Encoding: chunked"), string(appendChunk(nil, []byte(long.String()[:16<<10]))) + "0\r\n\r\n"},
	} {
		for _, drip := range []bool{false, true} {
			if drip && name != "small" && name != "at most" {
				continue // chunks are taken as far as they come with the head
			}
			cfg := statusRetries()
			cfg.Retry.Methods = []string{"POST"}
			cfg.Retry.BodyBuffer = long.Len()
			var first string
			var r *rig
			good := echoes(t, "good")
			bad := newBackend(t, func(b *backend, p *peer) {
				first = p.bodyOf(b.head(p))
				r.set(b.addr, good.addr)
				p.send(answerOf(503, ""))
				p.head()
			})
			r = newRig(t, cfg, balance.DefaultConfig(), bad.addr)
			c := r.dial()
			if drip {
				c.send(tt.head)
				c.drip(tt.body[:min(len(tt.body), 100)])
				c.send(tt.body[min(len(tt.body), 100):])
			} else {
				c.send(tt.head + tt.body)
			}
			if a := c.answer("POST"); a.StatusCode != 200 || a.body != "good"+tt.body || a.Close {
				t.Errorf("%s, drip %v: %d, %d bytes of %d", name, drip, a.StatusCode, len(a.body)-4, len(tt.body))
			}
			if first != tt.body {
				t.Errorf("%s, drip %v: the first got %d bytes of %d", name, drip, len(first), len(tt.body))
			}
			r.wantRetries(byStatus)
			if a, b := bad.got()[0], good.got()[0]; a != b {
				t.Errorf("%s: the heads differ:\n%q\n%q", name, a, b)
			}
			c.send(post("Content-Length: 3") + "xyz") // nothing is left over of the body
			r.set(good.addr)
			c.want("POST", 200, "goodxyz")
		}
	}
}

// Trailers of a chunked body are sent again too.
func TestTrailersAreSentAgain(t *testing.T) {
	t.Parallel()
	const body = "3\r\nabc\r\n0\r\nX-Sum: 1\r\n\r\n"
	good := newBackend(t, func(b *backend, p *peer) {
		b.head(p)
		if got := p.read(len(body)); got != body {
			t.Errorf("%q", got)
		}
		p.send(ok200("good"))
		p.head()
	})
	var r *rig
	bad := newBackend(t, func(b *backend, p *peer) {
		b.head(p)
		p.read(len(body))
		r.set(b.addr, good.addr)
		p.send(answerOf(503, ""))
		p.head()
	})
	r = newRig(t, statusRetries(), balance.DefaultConfig(), bad.addr)
	c := r.dial()
	c.send(putOf("Transfer-Encoding: chunked") + body)
	c.want("PUT", 200, "good")
	r.wantRetries(byStatus)
}

// An interim answer that came before goes through, and so does the next one's.
func TestInterimAnswersOfBothTries(t *testing.T) {
	t.Parallel()
	r, _, _ := twoTries(t, statusRetries(), balance.DefaultConfig(), lines("HTTP/1.1 103 Early Hints", "Link: l")+answerOf(503, "bad"))
	c := r.dial()
	c.send(get1("/"))
	if got := c.head(); got != lines("HTTP/1.1 103 Early Hints", "Link: l") {
		t.Errorf("%q", got)
	}
	c.want("GET", 200, "good")
	r.wantRetries(byStatus)
}

// A backend's Retry-After makes the pause before the next try, up to the cap.
func TestRetryAfterOfTheBackendIsWaitedFor(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		after string
		most  time.Duration
		least time.Duration
	}{
		{"1", short, short},
		{"999999", short, short},
		{"1", time.Minute, time.Second},
		{"9", 0, 0}, // not waited for: it would outlast patience
		{"9999999999999999999999", time.Minute, 0},
		{"Fri, 31 Dec 2099 23:59:59 GMT", time.Minute, 0},
	} {
		cfg := statusRetries()
		cfg.Retry.RetryAfterMax = tt.most
		r, _, _ := twoTries(t, cfg, balance.DefaultConfig(), lines("HTTP/1.1 503 No", "Retry-After: "+tt.after, "Content-Length: 0"))
		c := r.dial()
		start := time.Now()
		c.send(get1("/"))
		c.want("GET", 200, "good")
		if took := time.Since(start); took < tt.least {
			t.Errorf("%+v: after %v", tt, took)
		}
		r.wantRetries(byStatus)
	}
}
