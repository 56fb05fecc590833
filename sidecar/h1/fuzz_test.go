package h1

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http/httputil"
	"slices"
	"strings"
	"testing"
)

var requestSeeds = []string{
	get(), get("X: y", "Connection: close"), lines("GET / HTTP/1.0"), lines("OPTIONS * HTTP/1.1", "Host: a"),
	lines("GET http://b:80/c?d=%20 HTTP/1.1", "Host: b"), lines("GET http://[::1]?c HTTP/1.1", "Host: [::1]"),
	lines("OPTIONS * HTTP/1.1", "Host: a", "Max-Forwards: 3", "TE: trailers", "Connection: TE"), get("X:y", "Y: z ", "Z:\ta"),
	post("Content-Length: 3") + "abcGET", post("Transfer-Encoding: chunked") + "3;a=\"b\"\r\nabc\r\n0\r\nX: y\r\n\r\nGET",
	post("Expect: 100-continue", "Content-Length: 1") + "x", get("Connection: upgrade, x", "Upgrade: websocket", "X: y"),
	get("Pragma: no-cache", "Trailer: X", "Via: a", "X-Forwarded-For: b", "Accept: application/json"),
	post("Trailer: Content-Length", "Transfer-Encoding: chunked") + "0\r\n\r\n",
	post("Content-Length: 1", "Transfer-Encoding: chunked") + "0\r\n\r\n", get("A: b", " c"), get("A : b"),
}

var responseSeeds = []string{
	lines("HTTP/1.1 200 OK", "Content-Length: 2") + "abc", lines("HTTP/1.1 200 OK") + "abc",
	lines("HTTP/1.1 200 OK", "Transfer-Encoding: chunked", "Trailer: X") + "1\r\na\r\n0\r\nX: y\r\n\r\nb",
	lines("HTTP/1.0 200", "Connection: keep-alive", "Content-Length: 0"), lines("HTTP/1.1 204 No", "Content-Length: 0"),
	lines("HTTP/1.1 304 Not", "Content-Length: 5") + "x", lines("HTTP/1.1 103 E", "Link: a"),
	lines("HTTP/1.1 101 Up", "Connection: upgrade", "Upgrade: u") + "x", lines("HTTP/1.1 404 Not  Found ", "Pragma: no-cache"),
}

func addSeeds(f *testing.F, seeds []string) {
	for _, s := range seeds {
		f.Add([]byte(s))
	}
}

// FuzzRequest: what we accept, net/http accepts and reads the same.
func FuzzRequest(f *testing.F) {
	addSeeds(f, requestSeeds)
	f.Fuzz(func(t *testing.T, in []byte) {
		m, err := readRequest(in, DefaultLimits())
		if m == nil { // not even the head
			if pe := (*ParseError)(nil); err != errShort && !errors.As(err, &pe) {
				t.Fatalf("not a ParseError: %v", err)
			}
			return
		}
		if s := unlikeRequest(in, m, err); s != "" {
			t.Fatalf("%q: %s", in, s)
		}
	})
}

// FuzzResponse: the same for responses.
func FuzzResponse(f *testing.F) {
	for _, s := range responseSeeds {
		f.Add([]byte(s), false)
		f.Add([]byte(s), true)
	}
	f.Fuzz(func(t *testing.T, in []byte, head bool) {
		m, err := readResponse(in, head)
		if m == nil { // not even the head
			return
		}
		if s := unlikeResponse(in, head, m, err); s != "" {
			t.Fatalf("HEAD %v %q: %s", head, in, s)
		}
	})
}

// FuzzChunked: the decoder, fed in random pieces, against httputil's.
func FuzzChunked(f *testing.F) {
	for _, s := range []string{
		"3\r\nabc\r\n0\r\n\r\nx", "1;a=\"b\"\r\nx\r\n0\r\nX: y\r\n\r\n", "0\r\n\r\n", "a\r\n0123456789\r\n1 ;x\r\n\r\r\n00\r\n\r\n",
	} {
		f.Add([]byte(s), []byte{1, 3, 0, 2})
	}
	f.Fuzz(func(t *testing.T, in, cuts []byte) {
		if len(in) > maxExtTotal {
			return // beyond it the two bound extensions differently
		}
		sizes := make([]int, 0, len(cuts)+1)
		for _, c := range cuts {
			sizes = append(sizes, 1+int(c))
		}
		sizes = append(sizes, len(in)+1)
		whole := dechunk(string(in))
		if got := dechunk(string(in), sizes...); got != whole {
			t.Fatalf("%q in pieces of %v: %s; in one: %s", in, sizes, got, whole)
		}
		r := bytes.NewReader(in)
		theirs, err := io.ReadAll(httputil.NewChunkedReader(r))
		var d chunkDecoder
		b := bytes.Clone(in)
		n, _, derr := d.decode(b)
		switch {
		case derr != nil: // we may be the stricter
		case err != nil && blankBeforeExtension(in, err):
		case d.done() && (err != nil || !bytes.Equal(theirs, b[:n])):
			t.Fatalf("%q: %q, not %q (%v)", in, b[:n], theirs, err)
		// httputil stops before the trailer section.
		case !d.done() && err == nil && d.state < csTrailer:
			t.Fatalf("%q: we want more, httputil has %q", in, theirs)
		case !bytes.HasPrefix(b[:n], theirs):
			t.Fatalf("%q: %q, not %q (%v)", in, b[:n], theirs, err)
		}
	})
}

// FuzzForward: what we forward of what we accept parses again, by us and by
// net/http, to the same message with exactly one framing.
func FuzzForward(f *testing.F) {
	for _, s := range requestSeeds {
		f.Add([]byte(s), []byte{1, 3, 0, 2}, false, false)
		f.Add([]byte(s), []byte(nil), true, true)
	}
	f.Fuzz(func(t *testing.T, in, cuts []byte, upgrade, expect bool) {
		m, err := readRequest(in, DefaultLimits())
		if err != nil {
			return
		}
		checkForward(t, in, m, cuts, upgrade, expect)
	})
}

// checkForward holds what becomes of m, which was read of in, against it.
func checkForward(t *testing.T, in []byte, m *message, cuts []byte, upgrade, expect bool) {
	t.Helper()
	h := &m.head
	upgrade, expect = upgrade && h.tunnels(), expect && h.Expect && h.Framing != NoBody
	out := plain().appendRequest(nil, h, app(), upgrade, expect)
	out = append(out, uploaded(t, in, h, cuts)...)
	again, err := readRequest(out, Limits{Line: 1 << 20, Head: 1 << 20, Headers: 1 << 20})
	if err != nil {
		t.Fatalf("%q\nforwarded as %q: %v", in, out, err)
	}
	if s := unlikeRequest(out, again, nil); s != "" {
		t.Fatalf("%q\nforwarded as %q: %s", in, out, s)
	}
	if s := changed(m, again, upgrade, expect); s != "" {
		t.Fatalf("%q\nforwarded as %q: %s", in, out, s)
	}
}

// uploaded runs the body of in through an upload, the client's bytes coming in
// pieces, and returns what it sends.
func uploaded(t *testing.T, in []byte, h *Head, cuts []byte) (sent []byte) {
	n, err := FindHead(in, 0)
	if err != nil {
		t.Fatal(err)
	}
	body := in[n:]
	c := &conn{work: &work{}, in: buffer{b: make([]byte, bufSize)}}
	p := &c.upload
	p.c, p.out = c, buffer{b: make([]byte, bufSize)}
	p.reset(h.Framing, h.Length, 0)
	for i := 0; !p.complete; i++ {
		if c.in.len() == 0 {
			k := 1 + len(body)
			if i < len(cuts) {
				k = 1 + int(cuts[i])
			}
			k = min(k, len(body), bufSize)
			if k == 0 {
				t.Fatalf("%q: the upload wants more than there is", in)
			}
			c.in.r, c.in.w = 0, copy(c.in.b[:], body[:k])
			body = body[k:]
		}
		if err := p.step(); err != nil {
			t.Fatalf("%q: %v", in, err)
		}
		sent = append(sent, p.out.b[:p.out.w]...)
	}
	return sent
}

// changed says what of a message was changed on its way, "" for what may be.
func changed(was, is *message, upgrade, expect bool) string {
	a, b := &was.head, &is.head
	if string(a.Method) != string(b.Method) || string(a.Target) != string(b.Target) || string(a.Host) != string(b.Host) {
		return "method, target or host"
	}
	if a.Framing != b.Framing || a.Length != b.Length || !bytes.Equal(was.body, is.body) || len(is.rest) > 0 {
		return "framing or body"
	}
	if b.Trailers != (a.Trailers && !upgrade) || b.MaxForwards != max(-1, min(a.MaxForwards, max(0, a.MaxForwards-1))) {
		return "trailers or forwards"
	}
	if b.Minor != 1 || !b.KeepAlive || (b.Upgrade != nil) != upgrade || b.Expect != expect {
		return "version, persistence, upgrade or expectation"
	}
	var fields []string
	for i := range a.Headers {
		switch f := &a.Headers[i]; f.id {
		case fHost, fConnection, fContentLength, fTransferEncoding, fUpgrade, fExpect, fTE, fVia, fForwardedFor, fHop:
		default:
			if f.drop {
				continue
			}
			fields = append(fields, fmt.Sprintf("%s: %s", f.Name, f.Value))
		}
	}
	framings := 0
	for i := range b.Headers {
		f := &b.Headers[i]
		switch f.id {
		case fContentLength, fTransferEncoding:
			framings++
		case fHost, fVia, fForwardedFor:
		case fConnection, fUpgrade, fTE, fExpect, fHop:
			ours := upgrade && (f.id == fConnection || f.id == fUpgrade) || expect && f.id == fExpect ||
				b.Trailers && (f.id == fConnection || f.id == fTE)
			if !ours {
				return "a hop-by-hop field: " + string(f.Name)
			}
		default:
			if f.id == fMaxForwards && b.MaxForwards >= 0 {
				continue
			}
			s := fmt.Sprintf("%s: %s", f.Name, f.Value)
			i := slices.Index(fields, s)
			if i != 0 {
				return fmt.Sprintf("field %q where %.1q is due", s, fields)
			}
			fields = fields[1:]
		}
	}
	if len(fields) > 0 {
		return fmt.Sprintf("the fields %q", fields)
	}
	if wantsOne := a.Framing == Chunked || a.Length >= 0; framings > 1 || (framings == 1) != wantsOne {
		return fmt.Sprint("framing fields: ", framings)
	}
	return ""
}

// FuzzForwardResponse: the same towards the client, whatever it speaks.
func FuzzForwardResponse(f *testing.F) {
	for _, s := range responseSeeds {
		for i := range 8 {
			f.Add([]byte(s), i&1 != 0, i&2 != 0, i&4 != 0)
		}
	}
	f.Fuzz(func(t *testing.T, in []byte, head, old, keep bool) {
		m, err := readResponse(in, head)
		if err != nil {
			return
		}
		checkForwardResponse(t, in, m, head, old, keep)
	})
}

// checkForwardResponse holds what a client of HTTP/1.1, or old of 1.0, gets of
// m against it.
func checkForwardResponse(t *testing.T, in []byte, m *message, head, old, keep bool) {
	t.Helper()
	if m.head.Status == 101 {
		return // a tunnel begins
	}
	c := &conn{s: &Server{}, work: &work{res: m.head, rq: request{minor: 1, head: head, keepAlive: keep}}}
	if old {
		c.rq.minor = 0
	}
	to, connection := c.clientFraming()
	out := plain().appendResponse(nil, &m.head, to, connection, false)
	switch to {
	case Chunked:
		out = append(append(appendChunk(out, m.body), "0\r\n"...), "\r\n"...)
	default:
		out = append(out, m.body...)
	}
	again, err := readResponse(out, head)
	if err != nil {
		t.Fatalf("%q\nforwarded as %q: %v", in, out, err)
	}
	if s := unlikeResponse(out, head, again, nil); s != "" {
		t.Fatalf("%q\nforwarded as %q: %s", in, out, s)
	}
	b := &again.head
	low := strings.ToLower(string(out[:len(out)-len(again.body)-len(again.rest)]))
	framings := strings.Count(low, "\r\ncontent-length:") + strings.Count(low, "\r\ntransfer-encoding:")
	switch {
	case b.Status != m.head.Status || string(b.Reason) != string(m.head.Reason):
		t.Fatalf("%q\nforwarded as %q: the status line", in, out)
	case !bytes.Equal(again.body, m.body) || len(again.rest) > 0:
		t.Fatalf("%q\nforwarded as %q: the body", in, out)
	case framings > 1, b.KeepAlive && b.Framing == UntilEOF, old && b.Framing == Chunked:
		t.Fatalf("%q\nforwarded as %q: %d framings", in, out, framings)
	case b.KeepAlive != (connection != "close"):
		t.Fatalf("%q\nforwarded as %q: persistence", in, out)
	}
}
