package conform

import "strings"

// goodChunks are bodies that say "abc" and no more.
var goodChunks = []struct{ rule, raw string }{ // read-only
	{"9112-7.1 leading zeros of a chunk size", "0003\r\nabc\r\n0\r\n\r\n"},
	{"9112-7.1 a last chunk of several zeros", "3\r\nabc\r\n000\r\n\r\n"},
	{"9112-7.1 several chunks", "1\r\na\r\n1\r\nb\r\n1\r\nc\r\n0\r\n\r\n"},
	{"9112-7.1.1 an extension", "3;a=b\r\nabc\r\n0\r\n\r\n"},
	{"9112-7.1.1 an extension without a value", "3;a\r\nabc\r\n0;b\r\n\r\n"},
	{"9112-7.1.1 several extensions", "3;a=b;c;d=\"e\"\r\nabc\r\n0\r\n\r\n"},
	{"9112-7.1.1 a quoted extension with a semicolon, a quote and a tab", "3;a=\"b;c\\\"\td\"\r\nabc\r\n0\r\n\r\n"},
	{"9112-7.1.1 blanks around the parts of an extension", "3 ; a = b \t; c\r\nabc\r\n0\r\n\r\n"},
	{"9112-7.1.2 a trailer section", "3\r\nabc\r\n0\r\nX-T: y\r\n\r\n"},
}

// badChunks are bodies that no recipient may take for whole, as what follows
// "Transfer-Encoding: chunked". Those that hold evil try to smuggle it.
var badChunks = []struct{ rule, raw string }{ // read-only
	{"9112-7.1.1 a bare semicolon", "3;\r\nabc\r\n0\r\n\r\n"},
	{"9112-7.1.1 a semicolon and a blank", "3; \r\nabc\r\n0\r\n\r\n"},
	{"9112-7.1.1 two semicolons", "3;;a\r\nabc\r\n0\r\n\r\n"},
	{"9112-7.1.1 an extension without a name", "3;=b\r\nabc\r\n0\r\n\r\n"},
	{"9112-7.1.1 an extension without its value", "3;a=\r\nabc\r\n0\r\n\r\n"},
	{"9112-7.1.1 an extension with two values", "3;a=b=c\r\nabc\r\n0\r\n\r\n"},
	{"9112-7.1.1 two extensions without a semicolon", "3;a b\r\nabc\r\n0\r\n\r\n"},
	{"9112-7.1.1 a quoted string for a name", "3;\"a\"\r\nabc\r\n0\r\n\r\n"},
	{"9112-7.1.1 text behind a quoted string", "3;a=\"b\"c\r\nabc\r\n0\r\n\r\n"},
	{"9112-7.1.1 a quoted extension without an end", "3;a=\"b\r\nabc\r\n0\r\n\r\n"},
	{"9112-7.1.1 a control character in an extension", "3;a=\x01\r\nabc\r\n0\r\n\r\n"},
	{"9112-7.1.1 NUL in a quoted extension", "3;a=\"\x00\"\r\nabc\r\n0\r\n\r\n"},
	{"9112-7.1.1 a bare CR in an extension", "3;a\rb\r\nabc\r\n0\r\n\r\n"},
	{"9112-7.1.1 TERM.EXT: a bare LF within an extension", "2;\nxx\r\n1f\r\n0\r\n\r\n" + evil + "0\r\n\r\n"},
	{"9112-7.1.1 EXT.TERM: a bare LF that ends an extension", "3;a\nabc\r\n0\r\n\r\n"},
	{"9112-7.1.1 a bare LF within a quoted extension", "3;a=\"\n\"\r\nabc\r\n0\r\n\r\n"},
	{"9112-7.1.1 extensions without end", "3;a=" + strings.Repeat("b", 200_000) + "\r\nabc\r\n0\r\n\r\n"},
	{"9112-7.1 a blank behind a chunk size", "3 \r\nabc\r\n0\r\n\r\n"},
	{"9112-7.1 a tab behind a chunk size", "3\t\r\nabc\r\n0\r\n\r\n"},
	{"9112-7.1 a blank before a chunk size", " 3\r\nabc\r\n0\r\n\r\n"},
	{"9112-7.1 a blank within a chunk size", "0 3\r\nabc\r\n0\r\n\r\n"},
	{"9112-7.1 an empty chunk size", "\r\nabc\r\n0\r\n\r\n"},
	{"9112-7.1 a chunk size of an extension alone", ";a=b\r\nabc\r\n0\r\n\r\n"},
	{"9112-7.1 a negative chunk size", "-3\r\nabc\r\n0\r\n\r\n"},
	{"9112-7.1 a plus sign before a chunk size", "+3\r\nabc\r\n0\r\n\r\n"},
	{"9112-7.1 0x before a chunk size", "0x3\r\nabc\r\n0\r\n\r\n"},
	{"9112-7.1 an underscore in a chunk size", "0_3\r\nabc\r\n0\r\n\r\n"},
	{"9112-7.1 a letter that is no hex digit", "3g\r\nabc\r\n0\r\n\r\n"},
	{"9112-7.1 a chunk size of NUL", "3\x00\r\nabc\r\n0\r\n\r\n"},
	{"9112-7.1 a chunk size of 2^64 and 3", "10000000000000003\r\nabc\r\n0\r\n\r\n"},
	{"9112-7.1 a chunk size of 2^64 less 1", "ffffffffffffffff\r\nabc\r\n0\r\n\r\n"},
	{"9112-7.1 a chunk size of 2^63", "8000000000000000\r\nabc\r\n0\r\n\r\n"},
	{"9112-7.1 a chunk size of 2^32 and 3 in too many digits", "00000000000000000000000000000000100000003\r\nabc\r\n0\r\n\r\n"},
	{"9112-7.1 a bare LF behind a chunk size", "3\nabc\r\n0\r\n\r\n"},
	{"9112-7.1 a bare CR behind a chunk size", "3\rabc\r\n0\r\n\r\n"},
	{"9112-7.1 no CRLF behind chunk data", "3\r\nabc0\r\n\r\n"},
	{"9112-7.1 a bare LF behind chunk data", "3\r\nabc\n0\r\n\r\n"},
	{"9112-7.1 a bare CR behind chunk data", "3\r\nabc\r0\r\n\r\n"},
	{"9112-7.1 chunk data longer than its size", "3\r\nabcd\r\n0\r\n\r\n"},
	{"9112-7.1 two octets for the CRLF behind chunk data", "3\r\nabcXX0\r\n\r\n"},
	{"9112-7.1 a bare LF behind the last chunk", "3\r\nabc\r\n0\n\r\n"},
	{"9112-7.1 a bare LF for the final empty line", "3\r\nabc\r\n0\r\n\n"},
	{"9112-7.1 a bare CR for the final empty line", "3\r\nabc\r\n0\r\n\rX" + evil},
	{"9112-7.1.2 a trailer line without a colon", "3\r\nabc\r\n0\r\nX-T\r\n\r\n"},
	{"9112-7.1.2 a blank before the colon of a trailer", "3\r\nabc\r\n0\r\nX-T : y\r\n\r\n"},
	{"9112-7.1.2 a folded trailer", "3\r\nabc\r\n0\r\nX-T: y\r\n z\r\n\r\n"},
	{"9112-7.1.2 a trailer section that begins with a blank", "3\r\nabc\r\n0\r\n X-T: y\r\n\r\n"},
	{"9112-7.1.2 NUL in a trailer", "3\r\nabc\r\n0\r\nX-T: \x00\r\n\r\n"},
	{"9112-7.1.2 a bare CR in a trailer", "3\r\nabc\r\n0\r\nX-T: y\rz\r\n\r\n"},
	{"9112-7.1.2 a bare LF behind a trailer", "3\r\nabc\r\n0\r\nX-T: y\n\r\n"},
	{"9112-7.1.2 a trailer with an empty name", "3\r\nabc\r\n0\r\n: y\r\n\r\n"},
	{"9112-7.1.2 a request for a trailer", "3\r\nabc\r\n0\r\n" + evil},
	{"9112-7.1.2 trailers without end", "3\r\nabc\r\n0\r\n" + strings.Repeat("X-T: y\r\n", 50_000) + "\r\n"},
}

// droppedTrailers frame, route or authenticate a message, or say how to read
// its content: none may be a trailer (RFC 9110 section 6.5.1).
var droppedTrailers = []string{ // read-only
	"Content-Length: 9", "Transfer-Encoding: chunked", "Host: evil", "Authorization: Basic x", "Set-Cookie: a=b", "Cookie: a=b",
	"Content-Encoding: gzip", "Content-Type: a/b", "Content-Range: bytes 0-0/1", "Trailer: X", "TE: gzip", "Connection: X-T", "Upgrade: frob",
	"Cache-Control: no-store", "Expect: 100-continue", "Max-Forwards: 1", "Range: bytes=0-0", "If-Match: x", "Location: /evil", "Vary: *", "Date: x", "Age: 1", "Expires: 0",
}

func chunkRows() []row {
	const head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
	var rows []row
	for _, c := range goodChunks {
		var rest []check
		if strings.Contains(c.raw, "X-T") {
			rest = append(rest, sentTrailers("X-T: y"))
		}
		rows = append(rows, pass(c.rule+" of a request", chunks(c.raw)+get(), sentBody("abc")).as(func(r *row) {
			r.n, r.want = 2, append(rest, statuses(200, 200), behind(2), sentBody("abc"))
		}))
		rows = append(rows, relays(c.rule+" of an answer", head+c.raw, statuses(200), gotBody("abc")))
	}
	rows = append(rows,
		relays("9112-7.1.2 trailers of an answer reach a client that takes them", head+"3\r\nabc\r\n0\r\nX-T: y\r\n\r\n", statuses(200), gotTrailers("X-T: y")).as(func(r *row) { r.send = get("TE: trailers", "Connection: TE") }),
		relays("9112-7.1 a chunked answer of 300 kB", head+"493e0\r\n"+strings.Repeat("abc", 100_000)+"\r\n0\r\n\r\n", statuses(200), gotBody(strings.Repeat("abc", 100_000))),
		relays("9112-7.1 a chunked answer in single octets", head+strings.Join(strings.Split("3;a=b\r\nabc\r\n0\r\nX-T: y\r\n\r\n", ""), pause), statuses(200), gotBody("abc")),
		relays("9112-6.1 a client of HTTP/1.0 gets no chunks", head+"3\r\nabc\r\n2\r\nde\r\n0\r\nX-T: y\r\n\r\n", statuses(200), notGot("Transfer-Encoding"), gotBody("abcde")).as(func(r *row) {
			r.send, r.after = "GET /r HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n", either
		}),
		cutAnswer("9112-8 a chunked answer that is cut reaches a client of HTTP/1.0 cut", head+"3\r\nabc\r\n"+pause+reset).as(func(r *row) {
			r.send = "GET /r HTTP/1.0\r\nHost: a\r\n\r\n"
		}),
	)
	for _, c := range badChunks {
		rows = append(rows,
			spoil(c.rule+" of a request", chunks(c.raw), 400, 413, 431),
			cutAnswer(c.rule+" of an answer", head+c.raw+linger))
	}
	for _, t := range droppedTrailers {
		name, _, _ := strings.Cut(t, ":")
		rows = append(rows,
			pass("9110-6.5.1 "+name+" is no trailer of a request", chunks("3\r\nabc\r\n0\r\nX-T: y\r\n"+t+"\r\n\r\n"), sentBody("abc"), noTrailer(false, name)),
			relays("9110-6.5.1 "+name+" is no trailer of an answer", head+"3\r\nabc\r\n0\r\nX-T: y\r\n"+t+"\r\n\r\n", statuses(200), gotBody("abc"), noTrailer(true, name)))
	}
	return rows
}

// noTrailer holds when the field goes on neither as a trailer nor in the head.
func noTrailer(answer bool, name string) check {
	f := func(m *message) string {
		for _, t := range m.trailers {
			if strings.EqualFold(t.name, name) {
				return "the trailer goes on: " + name
			}
		}
		for _, v := range m.get(name) {
			if strings.Contains("9 evil gzip a=b a/b Basic x", v) && v != "a" {
				return "the trailer goes into the head: " + name + " " + v
			}
		}
		return ""
	}
	if answer {
		return reply(0, f)
	}
	return request(0, f)
}
