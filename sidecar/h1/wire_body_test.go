package h1

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strings"
	"syscall"
	"testing"

	"outrigger/picker"
	"outrigger/sidecar/balance"
)

// Bytes on the wire, both ways: our own framing, no extensions, the trailers
// that may pass.
func TestChunkedOnTheWire(t *testing.T) {
	t.Parallel()
	const body = "2;x=\"y\"\r\nab\r\n001\r\nc\r\n0;z\r\nX-Sum: 1\r\nContent-Length: 9\r\n\r\n"
	b := newBackend(t, func(b *backend, p *peer) {
		for b.head(p) != "" {
			var got strings.Builder
			for !strings.HasSuffix(got.String(), "\r\n\r\n") {
				got.WriteString(p.read(1))
			}
			p.send(lines("HTTP/1.1 200 OK", "Transfer-Encoding: chunked", "Trailer: X-Sum", "X-Got: "+fmt.Sprintf("%q", got.String())) + body)
		}
	})
	r := newRig(t, quick(), balance.DefaultConfig(), b.addr)
	c := r.dial()
	c.drip(post("Transfer-Encoding: chunked", "Trailer: X-Sum") + body)
	head := c.head()
	got := fieldOf(head, "X-Got")
	// How the data is cut into chunks is ours to choose.
	if plain := dechunk(unquote(t, got)); plain != `"abc" "X-Sum: 1\r\n"` {
		t.Errorf("the backend got %s", got)
	}
	if strings.Contains(got, ";") {
		t.Errorf("the backend got an extension: %s", got)
	}
	if fieldOf(head, "Transfer-Encoding") != "chunked" || fieldOf(head, "Trailer") != "X-Sum" || strings.Contains(head, "Content-Length") {
		t.Errorf("the client got %q", head)
	}
	if got := c.read(len("3\r\nabc\r\n0\r\nX-Sum: 1\r\n\r\n")); got != "3\r\nabc\r\n0\r\nX-Sum: 1\r\n\r\n" {
		t.Errorf("the client got %q", got)
	}
	if head := b.got()[0]; fieldOf(head, "Transfer-Encoding") != "chunked" || fieldOf(head, "Content-Length") != "" {
		t.Errorf("the backend got %q", head)
	}
	r.wantTotals(1, 0, 0)
}

func unquote(t *testing.T, s string) string {
	var out string
	if _, err := fmt.Sscanf(s, "%q", &out); err != nil {
		t.Fatal(s, err)
	}
	return out
}

// Large bodies in both directions at once, in pieces of every size.
func TestEchoOfLargeBodies(t *testing.T) {
	t.Parallel()
	back := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		body, err := io.ReadAll(q.Body)
		if err != nil {
			t.Error(err)
		}
		if q.URL.Path == "/length" {
			w.Header().Set("Content-Length", fmt.Sprint(len(body)))
		}
		rnd := rand.New(rand.NewPCG(1, uint64(len(body))))
		w.WriteHeader(200)
		w.(http.Flusher).Flush() // without a length it is chunked now
		for len(body) > 0 {
			k := min(len(body), 1+rnd.IntN(1<<rnd.IntN(18)))
			w.Write(body[:k])
			body = body[k:]
			if rnd.IntN(3) == 0 {
				w.(http.Flusher).Flush()
			}
		}
	}))
	t.Cleanup(back.Close)
	r := newRig(t, quick(), balance.DefaultConfig(), back.URL)
	rnd := rand.New(rand.NewPCG(2, 2))
	client := &http.Client{Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	for _, size := range []int{1, bufSize - 1, bufSize, bufSize + 1, 2*bufSize - chunkRoom, 300_001, 1 << 20} {
		body := make([]byte, size)
		for i := range body {
			body[i] = byte(rnd.Uint32())
		}
		for _, path := range []string{"/length", "/chunked"} {
			for _, chunked := range []bool{false, true} {
				var in io.Reader = bytes.NewReader(body)
				if chunked {
					in = &ragged{body, rnd}
				}
				res, err := client.Post(r.url+path, "x/y", in)
				if err != nil {
					t.Fatal(err)
				}
				got, err := io.ReadAll(res.Body)
				if err != nil || sha256.Sum256(got) != sha256.Sum256(body) {
					t.Errorf("%s %d chunked %v: %d bytes, %v", path, size, chunked, len(got), err)
				}
				if (path == "/length") != (res.ContentLength >= 0) {
					t.Errorf("%s %d: framed as %d %q", path, size, res.ContentLength, res.TransferEncoding)
				}
			}
		}
	}
	if got := r.totals(); got.Failures != 0 || got.Ignored != 0 {
		t.Errorf("%+v", got)
	}
}

// ragged is a reader that comes in pieces.
type ragged struct {
	b   []byte
	rnd *rand.Rand
}

func (r *ragged) Read(p []byte) (int, error) {
	if len(r.b) == 0 {
		return 0, io.EOF
	}
	n := copy(p, r.b[:min(len(r.b), 1+r.rnd.IntN(50_000))])
	r.b = r.b[n:]
	return n, nil
}

func TestAnswersThatEndWithTheConnection(t *testing.T) {
	t.Parallel()
	for _, body := range []string{"", "body", strings.Repeat("0123456789", 20_000)} {
		b := newBackend(t, func(b *backend, p *peer) {
			b.head(p)
			p.send(lines("HTTP/1.0 200 OK") + body)
		})
		r := newRig(t, quick(), balance.DefaultConfig(), b.addr)
		c := r.dial()
		for range 2 {
			c.send(get1("/"))
			if a := c.want("GET", 200, body); len(a.TransferEncoding) != 1 || a.Close {
				t.Errorf("%d bytes: not chunked for a client of HTTP/1.1: %v", len(body), a.Header)
			}
		}
		old := r.dial()
		old.send(lines("GET / HTTP/1.0"))
		old.want("GET", 200, body)
		old.wantEnd("eof")
		r.wantTotals(3, 0, 0)
	}
}

// An answer that is cut short must look cut to the client, whatever its
// framing, and is the backend's failure.
func TestCutAnswers(t *testing.T) {
	t.Parallel()
	const lengthHead = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n"
	const chunkHead = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
	big := strings.Repeat("x", 100_000)
	fin, rst := func(*peer) {}, (*peer).reset
	for name, tt := range map[string]struct {
		answer string
		end    func(*peer)
	}{
		"length":              {lengthHead + "12345", fin},
		"length, nothing":     {lengthHead, fin},
		"length, all but one": {lengthHead + "123456789", fin},
		"length, reset":       {lengthHead + "12345", rst},
		"length, large":       {lines("HTTP/1.1 200 OK", "Content-Length: 100001") + big, fin},
		"chunked":             {chunkHead + "5\r\n12345\r\n", fin},
		"chunked, nothing":    {chunkHead, fin},
		"in a chunk":          {chunkHead + "a\r\n12345", fin},
		"in a size":           {chunkHead + "5\r\n12345\r\n1", fin},
		"before the last LF":  {chunkHead + "5\r\n12345\r\n0\r\n\r", fin},
		"in the trailers":     {chunkHead + "5\r\n12345\r\n0\r\nX: y\r\n", fin},
		"chunked, reset":      {chunkHead + "5\r\n12345\r\n", rst},
		"bad chunk size":      {chunkHead + "5\r\n12345\r\nx\r\n", fin},
		"bad chunk end":       {chunkHead + "5\r\n123456\r\n0\r\n\r\n", fin},
		"bad trailer":         {chunkHead + "5\r\n12345\r\n0\r\nX y\r\n\r\n", fin},
		"endless extension":   {chunkHead + "5;" + big, fin},
		"until reset":         {lines("HTTP/1.0 200 OK") + "12345", rst},
	} {
		sent := make(chan bool)
		b := newBackend(t, func(b *backend, p *peer) {
			for b.head(p) != "" {
				p.send(tt.answer)
				await(t, sent) // the client has seen something: the end comes in the middle of the answer
				tt.end(p)
				return
			}
		})
		r := newRig(t, quick(), balance.DefaultConfig(), b.addr)
		for _, version := range []string{"1.1", "1.0"} {
			c := r.dial()
			c.send(lines("GET / HTTP/"+version, "Host: a"))
			_, cut := c.br.Peek(1) // at the first byte of the answer, or the cut before it
			give(t, sent)
			a := c.anything("GET")
			if cut != nil {
				a.err = cut
			}
			if a.err == nil {
				t.Errorf("%s, HTTP/%s: the client takes %q for a complete body", name, version, a.body)
			}
			// Where only the connection's end ends the body, it must be no clean one.
			if version == "1.0" && a.ContentLength <= 0 && !errors.Is(a.err, syscall.ECONNRESET) {
				t.Errorf("%s, HTTP/%s: ended by %v", name, version, a.err)
			}
		}
		r.wantTotals(0, 2, 0)
		if st := r.s.Stats(); st.Aborted != 2 || st.ClientGone != 0 {
			t.Errorf("%s: %+v", name, st)
		}
	}
}

// An answer that cannot be trusted is a 502 and the backend's failure, and its
// connection is not used again.
func TestInvalidAnswers(t *testing.T) {
	t.Parallel()
	for name, answer := range map[string]string{
		"no HTTP":             "SSH-2.0-OpenSSH_9.9\r\n\r\n",
		"bare LF":             "HTTP/1.1 200 OK\nContent-Length: 0\n\n",
		"HTTP/2":              lines("HTTP/2.0 200 OK", "Content-Length: 0"),
		"status 999":          lines("HTTP/1.1 999 OK", "Content-Length: 0"),
		"length and chunked":  lines("HTTP/1.1 200 OK", "Content-Length: 3", "Transfer-Encoding: chunked") + "3\r\nabc\r\n0\r\n\r\n",
		"two lengths":         lines("HTTP/1.1 200 OK", "Content-Length: 1", "Content-Length: 1") + "a",
		"bad length":          lines("HTTP/1.1 200 OK", "Content-Length: +1") + "a",
		"unknown coding":      lines("HTTP/1.1 200 OK", "Transfer-Encoding: gzip") + "a",
		"folded field":        lines("HTTP/1.1 200 OK", "A: b", " c", "Content-Length: 0"),
		"blank before colon":  lines("HTTP/1.1 200 OK", "Content-Length : 0"),
		"NUL in a value":      lines("HTTP/1.1 200 OK", "A: \x00", "Content-Length: 0"),
		"body of a 204":       lines("HTTP/1.1 204 No", "Content-Length: 3") + "abc",
		"endless status line": "HTTP/1.1 200 " + strings.Repeat("x", bufSize),
		"endless head":        "HTTP/1.1 200 OK\r\n" + strings.Repeat("A: bcdefghij\r\n", bufSize/10),
		"too many fields":     lines(append([]string{"HTTP/1.1 200 OK"}, strings.Split(strings.Repeat("A: b;", 200), ";")[:200]...)...),
		"bad after a 103":     lines("HTTP/1.1 103 Early") + "HTTP/1.1 2000 OK\r\n\r\n",
		"a second empty line": "\r\n" + ok200("a"),
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
		for range 2 {
			c.send(get("Accept: text/html"))
			a := c.answer("GET")
			if a.StatusCode == 103 {
				a = c.answer("GET")
			}
			if a.StatusCode != 502 || a.Header.Get("Outrigger-Reason") != "bad_response" || a.err != nil || a.Close {
				t.Errorf("%s: %d %v %q %v", name, a.StatusCode, a.Header, a.body, a.err)
			}
		}
		r.wantTotals(0, 2, 0)
		if n := b.accepted.Load(); n != 2 {
			t.Errorf("%s: %d connections for 2 requests: tried again?", name, n)
		}
	}
}

// A configured status is passed on and counts against the backend, until it is
// ejected; 503 and 429 otherwise are overload.
func TestStatusesJudged(t *testing.T) {
	t.Parallel()
	bcfg := balance.DefaultConfig()
	bcfg.Breaker.FailureStatuses = []int{500}
	bcfg.Breaker.ConsecutiveFailures = 3
	bad, good := says(t, lines("HTTP/1.1 500 No", "Content-Length: 3")+"bad"), named(t, "good")
	r := newRig(t, quick(), bcfg, bad.addr)
	c := r.dial()
	for range 3 {
		c.send(get1("/"))
		c.want("GET", 500, "bad")
	}
	r.wantTotals(0, 3, 0)
	r.set(bad.addr, good.addr)
	eventually(t, "the backend is ejected", func() bool {
		c.send(get1("/"))
		c.answer("GET")
		return r.b.Status().EjectedEndpoints == 1
	})
	for range 10 {
		c.send(get1("/"))
		c.want("GET", 200, "good")
	}
	for status, drops := range map[int]uint64{503: 1, 429: 1, 404: 0, 502: 0} {
		r := newRig(t, quick(), bcfg, says(t, lines(fmt.Sprintf("HTTP/1.1 %d X", status), "Retry-After: 7", "Content-Length: 0")).addr)
		c := r.dial()
		c.send(get1("/"))
		if a := c.want("GET", status, ""); a.Header.Get("Retry-After") != "7" || a.Header.Get("Outrigger-Reason") != "" {
			t.Errorf("a backend's own %d was changed: %v", status, a.Header)
		}
		r.wantTotal(picker.Totals{Requests: 1, Drops: drops, Successes: 1 - drops})
	}
}

// A head of either side may be as large as the limit says.
func TestLargeHeads(t *testing.T) {
	t.Parallel()
	large := strings.Repeat("v", 30_000)
	b := newBackend(t, func(b *backend, p *peer) {
		for h := b.head(p); h != ""; h = b.head(p) {
			p.send(lines("HTTP/1.1 200 OK", "Content-Length: 4", "Large: "+large, "Got: "+fmt.Sprint(len(fieldOf(h, "Large")))) + "body")
		}
	})
	r := newRig(t, quick(), balance.DefaultConfig(), b.addr)
	c := r.dial()
	for range 3 {
		c.send(get("Large: " + large))
		if a := c.want("GET", 200, "body"); a.Header.Get("Large") != large || a.Header.Get("Got") != "30000" {
			t.Errorf("%d bytes came back, %s arrived", len(a.Header.Get("Large")), a.Header.Get("Got"))
		}
	}
	r.wantTotals(3, 0, 0)
}
