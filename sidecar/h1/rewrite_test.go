package h1

import (
	"strings"
	"testing"
)

// forwarded is what a backend gets of a request head.
func forwarded(t *testing.T, in string, upgrade, expect bool) string {
	t.Helper()
	m, err := readRequest([]byte(in), DefaultLimits())
	if err != nil && err != errShort {
		t.Fatalf("%q: %v", in, err)
	}
	return string(plain().appendRequest(nil, &m.head, app(), upgrade, expect))
}

func TestForwardRequest(t *testing.T) {
	const xff, via = "X-Forwarded-For: 10.0.0.1", "Via: 1.1 outrigger"
	to := func(first string, l ...string) string { return lines(append([]string{first, "Host: a"}, l...)...) }
	const first = "GET / HTTP/1.1"
	for _, r := range []row{
		{"9110-7.6.3", get(), to(first, xff, via)},
		{"9110-7.6.3", get("Via: 1.0 x, 1.1 y"), to(first, xff, "Via: 1.0 x, 1.1 y, 1.1 outrigger")},
		{"9110-7.6.3", get("Via: x", "A: b", "vIA: y", "Via:"), to(first, "A: b", xff, "Via: x, y, 1.1 outrigger")},
		{"9110-7.6.3", lines("GET / HTTP/1.0", "Host: a"), to(first, xff, "Via: 1.0 outrigger")},
		{"xff", get("X-Forwarded-For: 1.2.3.4"), to(first, "X-Forwarded-For: 1.2.3.4, 10.0.0.1", via)},
		{"xff", get("x-forwarded-for: 1, 2", "X-Forwarded-For: 3"), to(first, "X-Forwarded-For: 1, 2, 3, 10.0.0.1", via)},
		{"9110-7.6.1", get("Connection: close"), to(first, xff, via)},
		{"9110-7.6.1", get("Connection: x-a, X-B", "X-A: 1", "x-b: 2", "X-C: 3", "X-B: 4"), to(first, "X-C: 3", xff, via)},
		{"9110-7.6.1", get("X-A: 1", "Connection: close", "Connection: x-a"), to(first, xff, via)}, // named after it, in a second line
		{"9110-7.6.1", get("Connection: via, x-forwarded-for", "Via: x", "X-Forwarded-For: y"), to(first, xff, via)},
		{"9110-7.6.1", get("Connection: host"), to(first, xff, via)}, // not a sender's to take away
		{"9110-7.6.1", post("Connection: content-length", "Content-Length: 3") + "abc", to("POST / HTTP/1.1", xff, via, "Content-Length: 3")},
		{"9110-7.6.1", post("Connection: transfer-encoding", "Transfer-Encoding: chunked"), to("POST / HTTP/1.1", xff, via, "Transfer-Encoding: chunked")},
		{"9110-7.6.1", get("Keep-Alive: timeout=5", "Proxy-Connection: keep-alive", "TE: gzip", "Upgrade: u",
			"Proxy-Authorization: secret", "HTTP2-Settings: x"), to(first, xff, via)},
		{"9110-10.1.4", get("TE: trailers", "Connection: TE"), to(first, xff, via, "Connection: TE", "TE: trailers")},
		{"9110-10.1.4", get("TE: gzip;q=0.5, Trailers"), to(first, xff, via, "Connection: TE", "TE: trailers")},
		{"9110-10.1.4", get("TE: trailersx, trailers;q=1"), to(first, xff, via)},
		{"9110-10.1.4", lines("GET / HTTP/1.0", "Host: a", "TE: trailers"), to(first, xff, "Via: 1.0 outrigger")},
		{"9110-7.6.2", lines("OPTIONS / HTTP/1.1", "Host: a", "Max-Forwards: 5", "A: b"), to("OPTIONS / HTTP/1.1", "A: b", xff, via, "Max-Forwards: 4")},
		{"9110-7.6.2", lines("TRACE / HTTP/1.1", "Host: a", "Max-Forwards: 1"), to("TRACE / HTTP/1.1", xff, via, "Max-Forwards: 0")},
		{"9110-7.6.2", lines("TRACE / HTTP/1.1", "Host: a", "Connection: max-forwards", "Max-Forwards: 2"), to("TRACE / HTTP/1.1", xff, via, "Max-Forwards: 1")},
		{"9110-7.6.2", get("Max-Forwards: x"), to(first, "Max-Forwards: x", xff, via)}, // of no meaning here
		{"9110-6.6.2", get("Trailer: X"), to(first, "Trailer: X", xff, via)},
		{"9110-5.3", get("A: 1", "b: 2", "A: 3"), to(first, "A: 1", "b: 2", "A: 3", xff, via)},
		{"9110-5.5", get("A:\t 1 \t", "B:", "C: \x80\xff"), to(first, "A: 1", "B: ", "C: \x80\xff", xff, via)},
		{"3.2.2", lines("GET http://b:8/x?y HTTP/1.1", "Host: B:8"), lines("GET /x?y HTTP/1.1", "Host: b:8", xff, via)},
		{"3.2.1", lines("GET http://b?y HTTP/1.1", "Host: b:80"), lines("GET /?y HTTP/1.1", "Host: b", xff, via)},
		{"3.2.4", lines("OPTIONS http://b HTTP/1.1", "Host: b"), lines("OPTIONS * HTTP/1.1", "Host: b", xff, via)},
		{"3.2", lines("GET / HTTP/1.0"), lines(first, "Host: ", xff, "Via: 1.0 outrigger")},
		{"6.2", get("Content-Length: 0"), to(first, xff, via, "Content-Length: 0")},
		{"6.2", post("Content-Length: 0007"), to("POST / HTTP/1.1", xff, via, "Content-Length: 7")},
		{"6.1", post("Transfer-Encoding: CHUNKED"), to("POST / HTTP/1.1", xff, via, "Transfer-Encoding: chunked")},
		{"9110-12.5.1", get("Accept: text/html"), to(first, "Accept: text/html", xff, via)},
		{"9110-10.1.1", post("Expect: 100-continue", "Content-Length: 1"), to("POST / HTTP/1.1", xff, via, "Content-Length: 1")},
		{"9110-7.8", get("Connection: upgrade", "Upgrade: u"), to(first, xff, via)},
	} {
		if got := forwarded(t, r.in, false, false); got != r.want {
			t.Errorf("section %s %q\n got %q\nwant %q", r.sec, r.in, got, r.want)
		}
	}
	if got, want := forwarded(t, get("Connection: Upgrade, x", "Upgrade: websocket", "X: 1"), true, false),
		to(first, xff, via, "Connection: Upgrade", "Upgrade: websocket"); got != want {
		t.Errorf("upgrade\n got %q\nwant %q", got, want)
	}
	if got, want := forwarded(t, post("Expect: 100-CONTINUE", "Content-Length: 1"), false, true),
		to("POST / HTTP/1.1", xff, via, "Expect: 100-continue", "Content-Length: 1"); got != want {
		t.Errorf("expect\n got %q\nwant %q", got, want)
	}
}

func TestForwardResponse(t *testing.T) {
	const date = testDate // none came, so ours: section 6.6.1 of RFC 9110
	const via = date + "\r\nVia: 1.1 outrigger"
	ok := func(l ...string) string { return lines(append([]string{"HTTP/1.1 200 OK"}, l...)...) }
	for _, r := range []struct {
		sec, in    string
		head       bool
		to         Framing
		connection string
		want       string
	}{
		{"6.2", ok("Content-Length: 3", "A: b"), false, Length, "", ok("A: b", via, "Content-Length: 3")},
		{"6.2", ok("Content-Length: 0"), false, NoBody, "", ok(via, "Content-Length: 0")},
		{"6.1", ok("Transfer-Encoding: chunked"), false, Chunked, "", ok(via, "Transfer-Encoding: chunked")},
		{"6.1", ok("Transfer-Encoding: chunked"), false, UntilEOF, "close", ok(via, "Connection: close")}, // to HTTP/1.0
		{"6.3", ok(), false, Chunked, "", ok(via, "Transfer-Encoding: chunked")},                          // ended by the connection there
		{"6.3", ok(), false, UntilEOF, "close", ok(via, "Connection: close")},
		{"9110-9.3.2", ok("Content-Length: 3"), true, NoBody, "", ok(via, "Content-Length: 3")},
		{"9110-9.3.2", ok("Transfer-Encoding: chunked"), true, NoBody, "", ok(via)},
		{"9110-15.4.5", lines("HTTP/1.1 304 Not", "Content-Length: 3"), false, NoBody, "", lines("HTTP/1.1 304 Not", via, "Content-Length: 3")},
		{"9110-8.6", lines("HTTP/1.1 204 No", "Content-Length: 0"), false, NoBody, "", lines("HTTP/1.1 204 No", via)},
		{"9110-15.2", lines("HTTP/1.1 103 Early", "Link: l", "Content-Length: 0"), false, NoBody, "", lines("HTTP/1.1 103 Early", "Link: l")},
		{"9110-7.6.1", ok("Connection: close, x", "X: 1", "Keep-Alive: k", "Proxy-Authenticate: p", "TE: t", "Upgrade: u",
			"Proxy-Connection: c", "Y: 2", "Content-Length: 0"), false, NoBody, "keep-alive", ok("Y: 2", via, "Content-Length: 0", "Connection: keep-alive")},
		{"9110-6.6.2", ok("Trailer: X", "Transfer-Encoding: chunked"), false, Chunked, "", ok("Trailer: X", via, "Transfer-Encoding: chunked")},
		{"9110-15.5.22", lines("HTTP/1.1 426 Up", "Connection: upgrade", "Upgrade: u/2", "Content-Length: 0"), false, NoBody, "close",
			lines("HTTP/1.1 426 Up", via, "Content-Length: 0", "Connection: Upgrade", "Upgrade: u/2", "Connection: close")},
		{"9110-15.5.22", lines("HTTP/1.1 426 Up", "Upgrade: u", "Content-Length: 0"), false, NoBody, "", lines("HTTP/1.1 426 Up", via, "Content-Length: 0")},
		{"9110-7.8", ok("Connection: upgrade", "Upgrade: u", "Content-Length: 0"), false, NoBody, "", ok(via, "Content-Length: 0")},
		{"9110-6.6.1", ok("Date: x", "Content-Length: 0"), false, NoBody, "", ok("Date: x", "Via: 1.1 outrigger", "Content-Length: 0")},
		{"9110-6.6.1", ok("Connection: close", "Date: x", "Content-Length: 0"), false, NoBody, "", ok("Date: x", "Via: 1.1 outrigger", "Content-Length: 0")},
		{"9110-6.6.1", ok("Connection: date", "Date: x", "Content-Length: 0"), false, NoBody, "", ok(via, "Content-Length: 0")},
		{"9110-10.1.4", ok("TE: trailers", "Content-Length: 0"), false, NoBody, "", ok(via, "Content-Length: 0")},
		{"9110-7.6.3", ok("Via: 1.1 b", "Content-Length: 0"), false, NoBody, "", ok(date, "Via: 1.1 b, 1.1 outrigger", "Content-Length: 0")},
		{"9110-5.5", ok("Set-Cookie: a", "Set-Cookie: b", "Host: h", "Expect: e", "Content-Length: 0"), false, NoBody, "",
			ok("Set-Cookie: a", "Set-Cookie: b", "Host: h", "Expect: e", via, "Content-Length: 0")},
		{"4", lines("HTTP/1.0 404 Nix da", "Content-Length: 0"), false, NoBody, "", lines("HTTP/1.1 404 Nix da", date, "Via: 1.0 outrigger", "Content-Length: 0")},
		{"4", lines("HTTP/1.1 200", "Content-Length: 0"), false, NoBody, "", lines("HTTP/1.1 200 ", via, "Content-Length: 0")},
	} {
		m, err := readResponse([]byte(r.in), r.head)
		if err != nil && err != errShort {
			t.Errorf("%q: %v", r.in, err)
			continue
		}
		if got := string(plain().appendResponse(nil, &m.head, r.to, r.connection, false)); got != r.want {
			t.Errorf("section %s %q\n got %q\nwant %q", r.sec, r.in, got, r.want)
		}
	}
	m, err := readResponse([]byte(lines("HTTP/1.1 101 Up", "Connection: upgrade", "Upgrade: u")), false)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := string(plain().appendResponse(nil, &m.head, NoBody, "", true)), lines("HTTP/1.1 101 Up", "Connection: Upgrade", "Upgrade: u"); got != want {
		t.Errorf("upgrade\n got %q\nwant %q", got, want)
	}
}

// What X-Forwarded-For says must be ours alone to end: a client cannot make
// the last element anything but its own address.
func TestForwardedForEndsWithTheClient(t *testing.T) {
	for _, l := range [][]string{
		{"X-Forwarded-For: spoof"}, {"X-Forwarded-For: a", "X-Forwarded-For: b"},
		{"X-FORWARDED-FOR:"}, {"X-Forwarded-For: ,"}, {"Connection: x-forwarded-for", "X-Forwarded-For: a"},
	} {
		out := forwarded(t, get(l...), false, false)
		i := strings.Index(out, "X-Forwarded-For: ")
		v, _, _ := strings.Cut(out[i:], "\r\n")
		if strings.Count(strings.ToLower(out), "x-forwarded-for:") != 1 || !strings.HasSuffix(v, "10.0.0.1") {
			t.Errorf("%q became %q", l, out)
		}
	}
}

// A backend may only switch to what it was asked for (RFC 9110 section 7.8).
func TestSwitchesTo(t *testing.T) {
	for _, r := range []struct {
		asked, got string
		ok         bool
	}{
		{"websocket", "websocket", true},
		{"websocket", "WebSocket", true},
		{"u, websocket/13", "websocket", true},
		{"u/1,v", "V/2, U", true},
		{"websocket", "h2c", false},
		{"websocket", "websocket, h2c", false},
		{"websocket", "web", false},
		{"websocket", "", false},
	} {
		out := forwarded(t, get("Connection: upgrade", "Upgrade: "+r.asked), true, false)
		m, err := readResponse([]byte(lines("HTTP/1.1 101 Up", "Connection: upgrade", "Upgrade: "+r.got)), false)
		if err != nil {
			t.Fatal(err)
		}
		if ok := m.head.switchesTo(sentUpgrade([]byte(out))); ok != r.ok {
			t.Errorf("asked for %q, switched to %q: %v", r.asked, r.got, ok)
		}
	}
	if v := sentUpgrade([]byte(forwarded(t, get("Upgrade: u"), false, false))); v != nil {
		t.Errorf("nothing was asked for, but %q", v)
	}
}

func TestMethodsAndTunnels(t *testing.T) {
	for _, r := range []struct {
		in                  string
		idempotent, tunnels bool
	}{
		{get(), true, false},
		{lines("HEAD / HTTP/1.1", "Host: a"), true, false},
		{lines("PUT / HTTP/1.1", "Host: a"), true, false},
		{lines("DELETE / HTTP/1.1", "Host: a"), true, false},
		{lines("OPTIONS / HTTP/1.1", "Host: a"), true, false},
		{lines("TRACE / HTTP/1.1", "Host: a"), true, false},
		{post(), false, false},
		{lines("PATCH / HTTP/1.1", "Host: a"), false, false},
		{lines("get / HTTP/1.1", "Host: a"), false, false}, // methods are case-sensitive
		{get("Connection: upgrade", "Upgrade: websocket"), true, true},
		{get("Connection: upgrade, http2-settings", "Upgrade: h2c", "HTTP2-Settings: AA"), true, false},
		{get("Connection: upgrade", "Upgrade: H2C"), true, false},
		{get("Connection: upgrade", "Upgrade: websocket, h2c"), true, false},
		{get("Connection: upgrade", "Upgrade:"), true, false}, // no protocol is named
		{get("Connection: upgrade", "Upgrade: ,"), true, false},
		{get("Connection: upgrade", "Upgrade: websocket", "Content-Length: 3"), true, false},
		{get("Connection: upgrade", "Upgrade: websocket", "Transfer-Encoding: chunked"), true, false},
	} {
		m, err := readRequest([]byte(r.in), DefaultLimits())
		if err != nil && err != errShort {
			t.Fatal(r.in, err)
		}
		if got := m.head.idempotent(); got != r.idempotent {
			t.Errorf("%q: idempotent %v", r.in, got)
		}
		if got := m.head.tunnels(); got != r.tunnels {
			t.Errorf("%q: tunnels %v", r.in, got)
		}
	}
}
