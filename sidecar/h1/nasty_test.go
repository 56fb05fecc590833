package h1

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// Random bytes seldom make a message that is accepted. These are made of parts
// over which parsers have been known to disagree, and go through the same
// comparisons as the fuzz targets.

var (
	nastyTargets = []string{"/", "/", "/a%20b", "*", "http://b", "http://b/c", "http://b:80?d", "HTTP://[::1]:8/", "http://b:80:80/", "//b", "/?%", "http:b",
		"/\xe9", "/a|b", "http://[::ffff:1.2.3.4]/", "http://[1.2.3.4]", "http://a,b/", "http://%61/", "http://a_b:/", "https://b/?", "/#", "http://-/", "http://;=/x"}
	nastyVersions = []string{"HTTP/1.1", "HTTP/1.1", "HTTP/1.1", "HTTP/1.0", "HTTP/1.2", "HTTP/1.01", "HTTP/2.0"}
	nastyNames    = []string{"Host", "Content-Length", "Content-Length", "Transfer-Encoding", "Transfer-Encoding", "Connection", "X", "x", "Trailer", "Expect",
		"Pragma", "Upgrade", "Via", "TE", "Keep-Alive", "X-Forwarded-For", "Cache-Control", "Accept"}
	nastyColons = []string{":", ": ", ": ", ": ", ": ", ":\t", " :", "", ": \t"}
	nastyValues = []string{"a", "a", "3", "3", "0", "+3", "3,3", "03", "3 ", "-1", "1e1", "18446744073709551619", "chunked", "chunked", "Chunked",
		"chunked,", "identity", "gzip, chunked", "\x0bchunked", "chunked\x0b", "close", "keep-alive", "keep-alive, close", "upgrade, x", "x", ", close ,", "close;", "\xe9",
		"100-continue", "no-cache", "websocket", "a b", "", "\x00", "a\rb", "trailers", "host, content-length", "transfer-encoding", "X, Trailer", "Content-Length",
		"\xc2\xa0close", "clo\xc5\xbfe", "upgrade"}
	nastyEnds   = append(slices.Repeat([]string{"\r\n"}, 40), "\n", "\r", "\r\r\n", "\r\n ", " \r\n")
	nastyBodies = []string{"", "abc", "abcGET / HTTP/1.1\r\n\r\n", "0\r\n\r\n", "3\r\nabc\r\n0\r\n\r\nx", "3;a=b\r\nabc\r\n0\r\nX: y\r\n\r\n",
		"3 ;a\r\nabc\r\n00\r\n\r\n", "3\r\nabc\r\n0\r\nContent-Length: 3\r\nX: y\r\nx:z\r\n\r\n", "3\nabc\r\n0\r\n\r\n", "3\r\nabc0\r\n\r\n",
		"+3\r\nabc\r\n0\r\n\r\n", "3;a=\"\n\"\r\nabc\r\n0\r\n\r\n", "0\r\n\n", "0;\r\n\r\n", "0003\r\nabc\r\n0\r\n X: y\r\n\r\n", "8000000000000003\r\nabc\r\n0\r\n\r\n"}
	nastyStatuses = []string{"200 OK", "200 OK", "200 OK", "200", "200 ", "204 No", "304 Not", "100 Continue", "103 Early", "101 Up", "404 No ", "600 No", "20 No", "200  OK"}
)

type dice struct{ *rand.Rand }

func (d dice) of(s []string) string { return s[d.IntN(len(s))] }

func (d dice) fields(b *strings.Builder) {
	// More often than not a framing that stands, so that bodies count.
	b.WriteString(d.of([]string{"", "Content-Length: 3\r\n", "Transfer-Encoding: chunked\r\n", "Transfer-Encoding: chunked\r\n"}))
	for range d.IntN(4) {
		b.WriteString(d.of(nastyNames) + d.of(nastyColons) + d.of(nastyValues) + d.of(nastyEnds))
	}
	b.WriteString(d.of(nastyEnds) + d.of(nastyBodies))
}

func (d dice) request() []byte {
	var b strings.Builder
	b.WriteString(d.of([]string{"GET", "GET", "POST", "OPTIONS", "HEAD", "CONNECT", "g@t"}) + " " + d.of(nastyTargets) + " " + d.of(nastyVersions) + d.of(nastyEnds))
	if d.IntN(4) > 0 {
		b.WriteString("Host: " + d.of([]string{"a", "a", "a", "", "a:80", "[::1]", "a, b", "a/b"}) + "\r\n")
	}
	d.fields(&b)
	return []byte(b.String())
}

func (d dice) response() []byte {
	var b strings.Builder
	b.WriteString(d.of(nastyVersions) + " " + d.of(nastyStatuses) + d.of(nastyEnds))
	d.fields(&b)
	return []byte(b.String())
}

func TestNastyMessages(t *testing.T) {
	n := 60_000
	if testing.Short() {
		n = 5_000
	}
	seed := rand.Uint64()
	d := dice{rand.New(rand.NewPCG(seed, 1))}
	accepted, refused := 0, 0
	count := func(m *message, err error) bool {
		if m != nil && err == nil {
			accepted++
		} else {
			refused++
		}
		return m != nil
	}
	for range n {
		in := d.request()
		if m, err := readRequest(in, DefaultLimits()); count(m, err) {
			if s := unlikeRequest(in, m, err); s != "" {
				t.Fatalf("seed %d: %q: %s", seed, in, s)
			}
			if err == nil {
				checkForward(t, in, m, []byte{byte(d.IntN(9)), 0, 3}, d.IntN(2) > 0, d.IntN(2) > 0)
			}
		}
		in, head := d.response(), d.IntN(4) == 0
		if m, err := readResponse(in, head); count(m, err) {
			if s := unlikeResponse(in, head, m, err); s != "" {
				t.Fatalf("seed %d: HEAD %v %q: %s", seed, head, in, s)
			}
			if err == nil {
				checkForwardResponse(t, in, m, head, d.IntN(2) > 0, d.IntN(2) > 0)
			}
		}
	}
	if accepted < n/10 || refused < n/10 {
		t.Errorf("%d accepted and %d refused of %d: too few of one to say anything", accepted, refused, 2*n)
	}
}
