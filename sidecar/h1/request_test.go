package h1

import (
	"strings"
	"testing"
)

// row is one message and what becomes of it: a summary, or the status that
// refuses it. sec is the section of RFC 9112, or with a "9110-" of that RFC.
type row struct{ sec, in, want string }

func runRequests(t *testing.T, rows []row) {
	t.Helper()
	for _, r := range rows {
		m, err := readRequest([]byte(r.in), DefaultLimits())
		if got := outcome(m, err, showRequest); got != r.want {
			t.Errorf("section %s\n%q\n got %s\nwant %s (%v)", r.sec, r.in, got, r.want, err)
		}
	}
}

// get is a GET with the given further lines.
func get(l ...string) string {
	return lines(append([]string{"GET / HTTP/1.1", "Host: a"}, l...)...)
}

// post is a POST with the given further lines, before its body.
func post(l ...string) string {
	return lines(append([]string{"POST / HTTP/1.1", "Host: a"}, l...)...)
}

const plainGet = "GET / 1.1 host=a none keep"

func TestRequestLine(t *testing.T) {
	first := func(l string) string { return lines(l, "Host: a") }
	runRequests(t, []row{
		{"3", first("GET / HTTP/1.1"), plainGet},
		{"3", first("GET  / HTTP/1.1"), "400"},
		{"3", first("GET /  HTTP/1.1"), "400"},
		{"3", first("GET\t/\tHTTP/1.1"), "400"},
		{"3", first("GET\v/ HTTP/1.1"), "400"},
		{"3", first("GET / HTTP/1.1 "), "400"},
		{"3", first(" GET / HTTP/1.1"), "400"},
		{"3", first("GET /a b HTTP/1.1"), "400"},
		{"3", first("GET /"), "400"},
		{"3", first("GET"), "400"},
		{"3", first("GET "), "400"},
		{"3", first("GET  HTTP/1.1"), "400"},
		{"3.1", first("get / HTTP/1.1"), "get / 1.1 host=a none keep"},
		{"3.1", first("M-SEARCH / HTTP/1.1"), "M-SEARCH / 1.1 host=a none keep"},
		{"3.1", first("G@T / HTTP/1.1"), "400"},
		{"3.1", first("G\x00T / HTTP/1.1"), "400"},
		{"3.1", first("GE\xd4 / HTTP/1.1"), "400"},
		{"2.2", "GET / HTTP/1.1\nHost: a\r\n\r\n", "400"},
		{"2.2", "GET / HTTP/1.1\r\nHost: a\n\r\n", "400"},
		{"2.2", "GET / HTTP/1.1\r\nHost: a\r\n\n", "400"},
		{"2.2", "GET /\rHTTP/1.1\r\nHost: a\r\n\r\n", "400"},
		{"2.2", first("GET / HTTP/1.1\r"), "400"},
		{"2.2", "GET / HTTP/1.1\r\n Host: a\r\n\r\n", "400"}, // blank before the first field
		{"2.3", first("GET / HTTP/1.0"), "GET / 1.0 host=a none"},
		{"9110-2.5", first("GET / HTTP/1.2"), plainGet}, // a higher minor version is read as 1.1
		{"9110-15.6.6", first("GET / HTTP/2.0"), "505"},
		{"9110-15.6.6", lines("PRI * HTTP/2.0"), "505"},
		{"9110-15.6.6", first("GET / HTTP/0.9"), "505"},
		{"2.3", first("GET / HTTP/1.10"), "400"},
		{"2.3", first("GET / HTTP/11"), "400"},
		{"2.3", first("GET / http/1.1"), "400"},
		{"2.3", first("GET / HTTP/1,1"), "400"},
		{"2.3", first("GET / HTTP/1."), "400"},
		{"2.3", first("GET / HTTP/+1.1"), "400"},
		{"2.3", first("GET / HTTPS/1.1"), "400"},
	})
}

func TestTarget(t *testing.T) {
	target := func(s string) string { return lines("GET "+s+" HTTP/1.1", "Host: a") }
	// at is a request with that target and Host.
	at := func(s, host string) string { return lines("GET "+s+" HTTP/1.1", "Host: "+host) }
	ok := func(s, host string) string { return "GET " + s + " 1.1 host=" + host + " none keep" }
	runRequests(t, []row{
		{"3.2.1", target("/a/b?c=d&e"), ok("/a/b?c=d&e", "a")},
		{"3.2.1", target("//a"), ok("//a", "a")},
		{"3.2.1", target("/../x/./y"), ok("/../x/./y", "a")}, // not ours to normalise
		{"3.2.1", target("/%2e%2E"), ok("/%2e%2E", "a")},
		{"3.2.1", target("/a:b@c;d=[e]{f|g}!$&'()*+,~"), ok("/a:b@c;d=[e]{f|g}!$&'()*+,~", "a")},
		{"3.2.1", target("a"), "400"},
		{"3.2.1", target("?a"), "400"},
		{"3.2", target("/a#b"), "400"},
		{"3.2", target("/\x00"), "400"},
		{"3.2", target("/\x7f"), "400"},
		{"3.2", target("/\xc3\xa9"), "400"}, // must be escaped
		{"3.2", target(`/"`), "400"},
		{"3.2", target("/<"), "400"},
		{"3.2", target(`/\`), "400"},
		{"3.2", target("/%"), "400"},
		{"3.2", target("/%4"), "400"},
		{"3.2", target("/%g0"), "400"},
		{"3.2", target("/?%zz"), "400"},
		{"3.2.2", at("http://b/c?d", "b"), ok("/c?d", "b")},
		{"3.2.2", at("http://b:81/", "b:81"), ok("/", "b:81")},
		{"3.2.2", at("HTTPS://b/", "b"), ok("/", "b")},
		{"3.2.2", at("http://b", "b"), ok("/", "b")},
		{"3.2.1", at("http://b?c", "b"), ok("/?c", "b")},
		{"3.2.2", at("http://[::1]:8/x", "[::1]:8"), ok("/x", "[::1]:8")},
		// Host and target must name the same. Section 3.2.2 has the target win and
		// Host replaced; to refuse is as good, and leaves nobody fooled.
		{"3.2", at("http://b/", "a"), "400"},
		{"3.2", at("http://b/", ""), "400"},
		{"3.2", at("http://b/", "b:81"), "400"},
		{"3.2", at("http://b:81/", "b"), "400"},
		{"3.2", at("http://b/", "b:443"), "400"},
		{"3.2", at("https://b/", "b:80"), "400"},
		{"3.2", at("http://[::1]/", "[::2]"), "400"},
		{"3.2", lines("GET http://b/ HTTP/1.0", "Host: a"), "400"},
		{"9110-4.2.3", at("http://B.example/", "b.EXAMPLE"), ok("/", "B.example")},
		{"9110-4.2.3", at("http://b/", "b:80"), ok("/", "b")},
		{"9110-4.2.3", at("http://b:80/", "b"), ok("/", "b:80")},
		{"9110-4.2.3", at("http://b:/", "b:80"), ok("/", "b:")},
		{"9110-4.2.3", at("https://b:443/", "b"), ok("/", "b:443")},
		{"9110-4.2.3", at("http://[::1]/", "[::1]:80"), ok("/", "[::1]")},
		{"3.2.2", lines("GET http://b/ HTTP/1.0", "Host: b"), "GET / 1.0 host=b none"},
		{"3.2.2", target("http://"), "400"},
		{"3.2.2", target("http:///x"), "400"},
		{"9110-4.2.1", target("http://:80/x"), "400"}, // an empty host must be rejected
		{"9110-4.2.4", target("http://u:p@b/"), "400"},
		{"9110-4.2.4", target("http://u@b/"), "400"},
		{"9110-4.2.4", at("http://u@b/", "u@b"), "400"},
		{"9110-4.2.4", at("http://u@b/", "b"), "400"},
		{"9110-4.2.4", at("http://@b/", "b"), "400"},
		{"3.2", at("http://b/#c", "b"), "400"},
		{"3.2", at("http://b#c", "b"), "400"},
		{"3.2.2", target("http://b:x/"), "400"},
		{"3.2.2", target("http://b:123456/"), "400"},
		{"3.2.2", target("http://[::1/"), "400"},
		{"3.2.2", target("http://[::g]/"), "400"},
		{"3.2.2", target("http://[1.2.3.4]/"), "400"},
		{"3.2.2", target("http://[12]/"), "400"},
		{"3.2.2", target("ftp://b/"), "400"},
		{"3.2.2", target("http:/b"), "400"},
		{"3.2.2", target("b:80"), "400"}, // authority form is CONNECT's
		{"3.2.3", lines("CONNECT b:80 HTTP/1.1", "Host: b:80"), "501"},
		{"3.2.3", lines("CONNECT / HTTP/1.1", "Host: b:80"), "501"},
		{"3.2.4", lines("OPTIONS * HTTP/1.1", "Host: a"), "OPTIONS * 1.1 host=a none keep"},
		{"3.2.4", lines("OPTIONS http://b HTTP/1.1", "Host: b"), "OPTIONS * 1.1 host=b none keep"},
		{"3.2.4", lines("OPTIONS http://b/ HTTP/1.1", "Host: b"), "OPTIONS / 1.1 host=b none keep"},
		{"3.2.4", target("*"), "400"},
		{"3.2.4", lines("OPTIONS ** HTTP/1.1", "Host: a"), "400"},
	})
}

func TestHost(t *testing.T) {
	host := func(v string) string { return lines("GET / HTTP/1.1", "Host:"+v) }
	ok := func(h string) string { return "GET / 1.1 host=" + h + " none keep" }
	runRequests(t, []row{
		{"3.2", host(" a.example:8080"), ok("a.example:8080")},
		{"3.2", host("a"), ok("a")},
		{"3.2", host("\t a \t"), ok("a")},
		{"3.2", host(""), ok("")},
		{"3.2", host(" 127.0.0.1"), ok("127.0.0.1")},
		{"3.2", host(" [::1]"), ok("[::1]")},
		{"3.2", host(" [fe80::1]:80"), ok("[fe80::1]:80")},
		{"3.2", host(" a_b"), ok("a_b")},
		{"3.2", host(" a:"), ok("a:")}, // port is *DIGIT
		{"3.2", lines("GET / HTTP/1.1"), "400"},
		{"3.2", lines("GET / HTTP/1.1", "Host: a", "Host: a"), "400"},
		{"3.2", lines("GET / HTTP/1.1", "Host: a", "hOST: b"), "400"},
		{"3.2", lines("GET / HTTP/1.1", "Host:", "Host:"), "400"},
		{"3.2", lines("GET http://a/ HTTP/1.1"), "400"}, // needed beside an absolute target too
		{"3.2", lines("GET http://a/ HTTP/1.1", "Host: b c"), "400"},
		{"3.2", lines("GET / HTTP/1.0"), "GET / 1.0 host= none"},
		{"3.2", lines("GET http://b/ HTTP/1.0"), "GET / 1.0 host=b none"},
		{"3.2", lines("GET / HTTP/1.0", "Host: a", "Host: b"), "400"},
		{"3.2", host(" a, b"), "400"},
		{"3.2", host(" a b"), "400"},
		{"3.2", host(" a/b"), "400"},
		{"3.2", host(" u@a"), "400"},
		{"3.2", host(" a:b"), "400"},
		{"3.2", host(" a:80:80"), "400"},
		{"3.2", host(" a:123456"), "400"},
		{"3.2", host(" a\x00"), "400"},
		{"3.2", host(" \xe9"), "400"},
		{"3.2", host(" [::1"), "400"},
		{"3.2", host(" ::1"), "400"},
		{"3.2", host(" [::1]a"), "400"},
		{"3.2", host(" [::1%25eth0]"), "400"},
		{"3.2", host(" []"), "400"},
		{"3.2", host(" [a]"), "400"},
		{"9110-4.2.1", host(" :80"), "400"},
	})
}

func TestHeaderGrammar(t *testing.T) {
	runRequests(t, []row{
		{"5", get("X: y"), plainGet},
		{"5", get("X:y"), plainGet},
		{"5", get("X:"), plainGet},
		{"5", get("X: \t "), plainGet},
		{"9110-5.6.2", get("!#$%&'*+-.^_`|~09azAZ: y"), plainGet},
		{"9110-5.5", get("X: \x80\xff"), plainGet}, // obs-text
		{"9110-5.5", get("X: a\tb"), plainGet},
		{"9110-5.5", get("X: a\x00b"), "400"},
		{"9110-5.5", get("X: a\x07b"), "400"},
		{"9110-5.5", get("X: a\x7fb"), "400"},
		{"9110-5.5", get("X: a\x1bb"), "400"},
		{"9110-5.5", get("X: a\vb"), "400"},
		{"9110-5.5", get("X: a\rb"), "400"},
		{"9110-5.5", get("X: a\r"), "400"},
		{"2.2", "GET / HTTP/1.1\r\nHost: a\r\nX: a\nb: c\r\n\r\n", "400"},
		{"5.1", get("X : y"), "400"},
		{"5.1", get("X\t: y"), "400"},
		{"5.1", get(": y"), "400"},
		{"5.1", get(" : y"), "400"},
		{"5", get("X"), "400"},
		{"5", get("X y"), "400"},
		{"9110-5.6.2", get("X(: y"), "400"},
		{"9110-5.6.2", get("X\x00: y"), "400"},
		{"9110-5.6.2", get("X\xe9: y"), "400"},
		{"9110-5.6.2", get("X\r: y"), "400"},
		{"5.2", get("X: y", " folded"), "400"},
		{"5.2", get("X: y", "\tfolded: z"), "400"},
		{"5.2", get("X: y", " "), "400"},
		{"2.2", "\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", "400"}, // the connection skips it, the codec not
	})
}

func TestRequestContentLength(t *testing.T) {
	cl := func(v string) string { return post("Content-Length:"+v) + "abcdefghij" }
	ok := func(n string) string { return "POST / 1.1 host=a length=" + n }
	runRequests(t, []row{
		{"6.2", cl(" 5"), ok(`5 keep "abcde" +5`)},
		{"6.2", cl("10\t"), ok(`10 keep "abcdefghij"`)},
		{"9110-8.6", cl(" 0005"), ok(`5 keep "abcde" +5`)},
		{"6.2", cl(" 0"), "POST / 1.1 host=a none keep +10"},
		{"6.2", cl(" 11"), errShort.Error()},
		{"6.2", cl(" 999999999999999999"), errShort.Error()},
		{"9110-8.6", cl(""), "400"},
		{"9110-8.6", cl(" +5"), "400"},
		{"9110-8.6", cl(" -5"), "400"},
		{"9110-8.6", cl(" -0"), "400"},
		{"9110-8.6", cl(" 0x5"), "400"},
		{"9110-8.6", cl(" 5 5"), "400"},
		{"9110-8.6", cl(" 5.0"), "400"},
		{"9110-8.6", cl(" 5e0"), "400"},
		{"9110-8.6", cl(" 5_0"), "400"},
		{"9110-8.6", cl(` "5"`), "400"},
		{"9110-8.6", cl(" \xef\xbc\x95"), "400"}, // a full-width 5
		{"9110-8.6", cl(" 1000000000000000000"), "400"},
		{"9110-8.6", cl(" 9223372036854775808"), "400"},
		{"9110-8.6", cl(" 18446744073709551621"), "400"}, // 5 + 2^64
		{"6.3", cl(" 5, 5"), "400"},
		{"6.3", cl(" 5,"), "400"},
		{"6.3", post("Content-Length: 5", "Content-Length: 5") + "abcde", "400"},
		{"6.3", post("Content-Length: 5", "content-length: 6") + "abcde", "400"},
		{"6.3", post("Content-Length: 0", "Content-Length: 0"), "400"},
		{"6.3", get() + "abc", "GET / 1.1 host=a none keep +3"}, // neither field: no body
		{"6.3", post() + "abc", "POST / 1.1 host=a none keep +3"},
		{"9110-9.3.1", get("Content-Length: 3") + "abc", `GET / 1.1 host=a length=3 keep "abc"`},
	})
}

func TestRequestTransferEncoding(t *testing.T) {
	const body = "3\r\nabc\r\n0\r\n\r\nnext"
	te := func(v ...string) string {
		for i := range v {
			v[i] = "Transfer-Encoding:" + v[i]
		}
		return post(v...) + body
	}
	const ok = `POST / 1.1 host=a chunked keep "abc" +4`
	runRequests(t, []row{
		{"6.1", te(" chunked"), ok},
		{"7", te(" ChUnKeD"), ok},
		{"6.1", te("chunked\t"), ok},
		{"6.3", te(" gzip"), "400"},
		{"6.1", te(" gzip, chunked"), "501"},
		{"6.3", te(" chunked, gzip"), "400"},
		{"6.3", te(" chunked, chunked"), "400"},
		{"6.3", te(" chunked", " chunked"), "400"},
		{"6.3", te(" chunked", " CHUNKED"), "400"},
		{"6.3", te(" identity"), "400"},
		{"6.1", te(" identity", " chunked"), "501"},
		{"6.3", te(" chunked", " identity"), "400"},
		{"6.3", te(""), "400"},
		{"6.3", te(" chunked;q=1"), "400"},
		{"6.1", te(" chunked,"), "501"}, // refused for good measure
		{"6.1", te(" gzip", " chunked"), "501"},
		{"6.3", te(" gzip", ""), "400"},
		{"6.3", te(" ,"), "400"},
		{"6.3", te(" chunked", ""), "501"},
		{"6.3", te(" xchunked"), "400"},
		{"6.3", te(` "chunked"`), "400"},
		{"9110-5.5", te(" \vchunked"), "400"},
		{"5.1", post("Transfer-Encoding : chunked") + body, "400"},
		{"5.2", post("Transfer-Encoding:", " chunked") + body, "400"},
		{"6.1", post("Transfer-Encoding: chunked", "Content-Length: 3") + body, "400"},
		{"6.1", post("Content-Length: 3", "Transfer-Encoding: chunked") + body, "400"},
		{"6.1", post("Content-Length: 0", "Transfer-Encoding: chunked") + body, "400"},
		{"6.1", lines("POST / HTTP/1.0", "Transfer-Encoding: chunked") + body, "400"},
		{"6.1", lines("POST / HTTP/1.0", "Connection: keep-alive", "Transfer-Encoding: chunked") + body, "400"},
		{"6.1", get("Transfer-Encoding: chunked") + body, `GET / 1.1 host=a chunked keep "abc" +4`},
		{"9", get("Connection: transfer-encoding", "Transfer-Encoding: chunked") + body, `GET / 1.1 host=a chunked keep "abc" +4`},
	})
}

func TestPersistenceAndExpect(t *testing.T) {
	const closes = "GET / 1.1 host=a none"
	old := func(l ...string) string { return lines(append([]string{"GET / HTTP/1.0", "Host: a"}, l...)...) }
	runRequests(t, []row{
		{"9.3", get("Connection: close"), closes},
		{"9.3", get("Connection: Close"), closes},
		{"9.3", get("Connection: x, close"), closes},
		{"9.3", get("Connection: x,,\tclose ,"), closes},
		{"9.3", get("Connection: keep-alive", "Connection: close"), closes},
		{"9.3", get("Connection: keep-alive, close"), closes},
		{"9.3", get("Connection: closed"), plainGet},
		{"9.3", get("Connection: keep-alive"), plainGet},
		{"9.3", get("Connection:"), plainGet},
		{"9110-7.6.1", get("Connection: " + strings.Repeat("a,", maxNamed)), plainGet},
		{"9110-7.6.1", get("Connection: " + strings.Repeat("a,", maxNamed+1)), "400"},
		{"9110-7.6.1", get("Connection: "+strings.Repeat("a,", maxNamed), "Connection: b"), "400"},
		{"9110-7.6.1", get("Connection: " + strings.Repeat(",", 1000) + "close"), closes},
		{"9.3", old(), "GET / 1.0 host=a none"},
		{"9.3", old("Connection: Keep-Alive"), "GET / 1.0 host=a none keep"},
		{"9.3", old("Connection: keep-alive, close"), "GET / 1.0 host=a none"},
		{"9110-10.1.1", post("Expect: 100-continue", "Content-Length: 1") + "x", `POST / 1.1 host=a length=1 keep expect "x"`},
		{"9110-10.1.1", post("Expect: 100-Continue", "Content-Length: 1") + "x", `POST / 1.1 host=a length=1 keep expect "x"`},
		{"9110-10.1.1", old("Expect: 100-continue"), "GET / 1.0 host=a none"},
		{"9110-10.1.1", post("Expect: 200-ok"), "417"},
		{"9110-10.1.1", post("Expect:"), "417"},
		{"9110-7.8", get("Connection: upgrade", "Upgrade: websocket"), "GET / 1.1 host=a none keep upgrade=websocket"},
		{"9110-7.8", get("Connection: upgrade", "Upgrade: websocket/13, u"), "GET / 1.1 host=a none keep upgrade=websocket/13, u"},
		{"9110-7.8", get("Connection: upgrade", "Upgrade:", "Upgrade: u"), "GET / 1.1 host=a none keep upgrade=u"},
		{"9110-7.8", get("Connection: upgrade", "Upgrade:"), plainGet},
		{"9110-7.8", get("Connection: upgrade", "Upgrade: , ,"), plainGet},
		{"9110-7.8", get("Connection: upgrade", "Upgrade: /1"), plainGet},
		{"9110-7.8", get("Connection: upgrade", "Upgrade: u/"), plainGet},
		{"9110-7.8", get("Connection: upgrade", "Upgrade: u/1/2"), plainGet},
		{"9110-7.8", get("Connection: upgrade", "Upgrade: u v"), plainGet},
		{"9110-7.8", get("Connection: upgrade", "Upgrade: \"u\""), plainGet},
		{"9110-7.8", get("Upgrade: websocket"), plainGet},
		{"9110-7.8", get("Connection: upgrade"), plainGet},
		{"9110-7.8", old("Connection: upgrade", "Upgrade: websocket"), "GET / 1.0 host=a none"},
	})
}

func TestLimits(t *testing.T) {
	lim := Limits{Line: 256, Head: 1024, Headers: 8}
	line := func(n int) string { return "GET /" + strings.Repeat("a", n-len("GET / HTTP/1.1")) + " HTTP/1.1" }
	many := func(n int) string {
		return lines(append([]string{"GET / HTTP/1.1", "Host: a"}, strings.Split(strings.Repeat("X: y,", n-1), ",")[:n-1]...)...)
	}
	for _, r := range []struct{ in, want string }{
		{lines(line(256), "Host: a"), ""},
		{lines(line(257), "Host: a"), "414"},
		{many(8), ""},
		{many(9), "431"},
	} {
		m, err := readRequest([]byte(r.in), lim)
		if got := outcome(m, err, func(*Head) string { return "" }); got != r.want {
			t.Errorf("%.80q: %q, want %q", r.in, got, r.want)
		}
	}
	if err := tooLong([]byte("GET /aaaaaa")); err.(*ParseError).Status != 414 {
		t.Error("a request line without an end:", err)
	}
	if err := tooLong([]byte("GET / HTTP/1.1\r\nX: yyyyy")); err.(*ParseError).Status != 431 {
		t.Error("a head without an end:", err)
	}
}
