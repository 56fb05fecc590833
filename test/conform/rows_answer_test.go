package conform

import (
	"strings"
	"time"

	"outrigger/sidecar/h1"
)

func answerRows() []row {
	const chunked = "Transfer-Encoding: chunked"
	head := func(r *row) { r.send, r.methods = req("HEAD /r HTTP/1.1"), "HEAD" }
	retires := func(r *row) { r.retires = true }
	old := func(r *row) { r.send, r.after = "GET /r HTTP/1.0\r\nHost: a\r\n\r\n", closes }
	rows := []row{
		// What goes through.
		relays("9112-6.3 an answer of a length", ok("abc"), statuses(200), got("Content-Length: 3"), gotBody("abc"), notGot("Transfer-Encoding", "Connection")),
		relays("9112-6.3 an answer in single octets", strings.Join(strings.Split(ok("abc"), ""), pause), statuses(200), gotBody("abc")),
		relays("9112-6.3 an answer of 300 kB", ok(strings.Repeat("abc", 100_000)), statuses(200), gotBody(strings.Repeat("abc", 100_000))),
		relays("9112-6.3 an answer of length 0", ok(""), statuses(200), got("Content-Length: 0"), gotBody("")),
		relays("9112-6.3 an answer that ends with its connection", answer("HTTP/1.1 200 OK")+"abc"+pause+"def"+shut, statuses(200), gotBody("abcdef")).as(func(r *row) { r.after = either }),
		relays("9112-6.3 an answer of HTTP/1.0 that ends with its connection", answer("HTTP/1.0 200 OK")+"abc"+shut, statuses(200), gotBody("abc")).as(func(r *row) { r.after = either }),
		relays("9112-6.3 an answer that ends with its connection, to HTTP/1.0", answer("HTTP/1.1 200 OK")+"abc"+shut, statuses(200), gotBody("abc"), notGot("Transfer-Encoding")).as(old),
		relays("9112-6.3 an empty answer that ends with its connection", answer("HTTP/1.1 200 OK")+shut, statuses(200), gotBody("")).as(func(r *row) { r.after = either }),
		relays("9110-15 an unknown status goes through", answer("HTTP/1.1 299 Frob", "Content-Length: 1")+"b", gotLine("HTTP/1.1 299 Frob"), gotBody("b")),
		relays("9110-15 an unknown error goes through", answer("HTTP/1.1 599 Frob", "Content-Length: 1")+"b", gotLine("HTTP/1.1 599 Frob"), gotBody("b")),
		relays("9112-4 a reason with octets above ASCII goes through", answer("HTTP/1.1 200 Gr\xfc\xdf", "Content-Length: 0"), gotLine("HTTP/1.1 200 Gr\xfc\xdf")),
		relays("9112-4 an empty reason", answer("HTTP/1.1 200 ", "Content-Length: 1")+"b", statuses(200), gotBody("b")),
		relays("9112-4 a reason that is left out with its blank", answer("HTTP/1.1 200", "Content-Length: 1")+"b", oneOf(200, 502)).as(func(r *row) { r.cut = false }),
		relays("9110-15.4 a redirection is not followed", answer("HTTP/1.1 302 Found", "Location: /evil", "Content-Length: 0"), statuses(302), got("Location: /evil")),
		relays("9110-15.6.4 Retry-After of a 503 goes through", answer("HTTP/1.1 503 Service Unavailable", "Retry-After: 7", "Content-Length: 0"), statuses(503), got("Retry-After: 7")),

		// Answers without a body.
		relays("9110-9.3.2 an answer to HEAD has its length and no body", answer("HTTP/1.1 200 OK", "Content-Length: 9"), statuses(200), got("Content-Length: 9"), gotBody("")).as(head),
		relays("9112-6.3 an answer to HEAD may have a coding", answer("HTTP/1.1 200 OK", chunked), statuses(200), gotBody("")).as(head),
		relays("9112-6.3 an answer to HEAD without a length", answer("HTTP/1.1 200 OK"), statuses(200), gotBody("")).as(head),
		relays("9112-6.3 an error to HEAD has no body", answer("HTTP/1.1 404 Not Found", "Content-Length: 9"), statuses(404), got("Content-Length: 9")).as(head),
		relays("9112-6.3 a body behind an answer to HEAD is not passed on", ok("b")+linger, statuses(200), gotBody("")).as(head).as(retires),
		refuse("9110-9.3.2 a refusal of HEAD has no content", "HEAD /r HTTP/1.1\r\n\r\n", 400).as(func(r *row) { r.methods = "HEAD" }),
		refuse("9110-9.3.2 a refusal of HEAD in bare LFs has no content", "HEAD /r HTTP/1.1\nHost: a\n\n", 400).as(func(r *row) { r.methods = "HEAD" }),
		relays("9110-15.3.5 a 204 has no body", answer("HTTP/1.1 204 No Content"), statuses(204), notGot("Content-Length", "Transfer-Encoding")),
		relays("9110-8.6 a 204 has no length", answer("HTTP/1.1 204 No Content", "Content-Length: 0"), statuses(204), notGot("Content-Length", "Transfer-Encoding")),
		relays("9112-6.3 a body behind a 204 is not passed on", answer("HTTP/1.1 204 No Content")+"b"+linger, statuses(204)).as(retires),
		relays("9110-15.4.5 a 304 may have the length of what it stands for", answer("HTTP/1.1 304 Not Modified", "Content-Length: 9", `ETag: "a"`), statuses(304), got("Content-Length: 9"), got(`ETag: "a"`)),
		relays("9112-6.1 a 304 may have a coding", answer("HTTP/1.1 304 Not Modified", chunked), statuses(304)),
		relays("9110-15.4.5 a 304 without a length", answer("HTTP/1.1 304 Not Modified"), statuses(304), gotBody("")),
		relays("9112-6.3 a body behind a 304 is not passed on", answer("HTTP/1.1 304 Not Modified", "Content-Length: 1")+"b"+linger, statuses(304)).as(retires),
		relays("9110-15.3.6 a 205 of length 0", answer("HTTP/1.1 205 Reset Content", "Content-Length: 0"), statuses(205), got("Content-Length: 0")),
		badAnswer("9112-6.1 a 204 with a coding", answer("HTTP/1.1 204 No Content", chunked)+"1\r\nb\r\n0\r\n\r\n"),
		badAnswer("9110-8.6 a 204 with a length", answer("HTTP/1.1 204 No Content", "Content-Length: 1")+"b"),

		// More than was announced.
		relays("9112-6.3 octets behind an answer end the connection", ok("b")+"junk"+linger, statuses(200), gotBody("b")).as(retires),
		relays("9112-6.3 octets that come later end the connection", ok("b")+pause+"junk"+linger, statuses(200), gotBody("b")).as(retires),
		relays("9112-6.3 an answer behind the answer goes to nobody", ok("b")+ok("evil")+linger, statuses(200), gotBody("b")).as(retires),
		relays("9112-6.3 an answer that comes later goes to nobody", ok("b")+pause+ok("evil")+linger, statuses(200), gotBody("b")).as(retires),
		relays("9112-6.3 octets behind a last chunk end the connection", answer("HTTP/1.1 200 OK", chunked)+"1\r\nb\r\n0\r\n\r\nHTTP/1.1 200 OK\r\n\r\n"+linger, statuses(200), gotBody("b")).as(retires),
		relays("9112-6.3 an answer behind one to HEAD goes to nobody", answer("HTTP/1.1 200 OK", "Content-Length: 5")+ok("evil")+linger, statuses(200), gotBody("")).as(head).as(retires),
		relays("9112-6.3 an answer behind a 304 goes to nobody", answer("HTTP/1.1 304 Not Modified")+ok("evil")+linger, statuses(304)).as(retires),
		relays("9112-2.2 an empty line behind an answer ends the connection", ok("b")+"\r\n"+linger, statuses(200), gotBody("b")).as(retires),

		// Less than was announced.
		cutAnswer("9112-8 a body shorter than its length", answer("HTTP/1.1 200 OK", "Content-Length: 9")+"abc"+shut),
		cutAnswer("9112-8 a body shorter than its length, and a reset", answer("HTTP/1.1 200 OK", "Content-Length: 9")+"abc"+pause+reset),
		cutAnswer("9112-8 no body where one was announced", answer("HTTP/1.1 200 OK", "Content-Length: 9")+pause+shut),
		cutAnswer("9112-8 a long body that is cut", answer("HTTP/1.1 200 OK", "Content-Length: 400000")+strings.Repeat("x", 300_000)+pause+shut),
		cutAnswer("9112-8 a body shorter than its length, to HTTP/1.0", answer("HTTP/1.1 200 OK", "Content-Length: 9")+"abc"+shut).as(func(r *row) { r.send = "GET /r HTTP/1.0\r\nHost: a\r\n\r\n" }),
		cutAnswer("9112-8 a body that ends with its connection, and a reset", answer("HTTP/1.1 200 OK")+"abc"+pause+reset),
		cutAnswer("9112-8 a body that ends with its connection, and a reset, to HTTP/1.0", answer("HTTP/1.0 200 OK")+"abc"+pause+reset).as(func(r *row) { r.send = "GET /r HTTP/1.0\r\nHost: a\r\n\r\n" }),
		badAnswer("9112-8 no answer at all", shut),
		badAnswer("9112-8 a reset for an answer", reset),
		badAnswer("9112-8 half a status line", "HTTP/1.1 20"+shut),
		badAnswer("9112-8 a status line alone", "HTTP/1.1 200 OK\r\n"+shut),
		badAnswer("9112-8 half a field", "HTTP/1.1 200 OK\r\nContent-Len"+shut),
		badAnswer("9112-8 a head without its end", "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n"+shut),
		badAnswer("9112-8 a head without the LF at its end", "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r"+shut),
	}
	for _, c := range []struct{ raw, what string }{
		{"", "before the first chunk"}, {"3", "within a chunk size"}, {"3\r\n", "behind a chunk size"}, {"3\r\na", "within a chunk"}, {"3\r\nabc", "behind chunk data"},
		{"3\r\nabc\r\n", "between chunks"}, {"3\r\nabc\r\n0", "within the last chunk"}, {"3\r\nabc\r\n0\r\n", "before the final empty line"},
		{"3\r\nabc\r\n0\r\n\r", "within the final empty line"}, {"3\r\nabc\r\n0\r\nX-T: y\r\n", "within the trailers"},
	} {
		rows = append(rows,
			cutAnswer("9112-8 a chunked body cut "+c.what, answer("HTTP/1.1 200 OK", chunked)+c.raw+shut),
			cutAnswer("9112-8 a chunked body cut "+c.what+", later", answer("HTTP/1.1 200 OK", chunked)+pause+c.raw+pause+shut))
	}
	return append(rows, malformedRows()...)
}

// limitRows are about what takes too long or is too much. Ours is tuned down
// where a default is generous; the peers have figures that strike as well.
func limitRows() []row {
	soon := func(c *h1.Config) {
		c.Timeouts.Head, c.Timeouts.FirstByte, c.MaxBody = 100*time.Millisecond, 100*time.Millisecond, 1<<20
	}
	rows := []row{
		refuse("9110-15.5.9 a head that does not come in time is a 408", "GET /r HTTP/1.1\r\nHost: a\r\n", 408),
		refuse("9110-15.5.14 a length above the limit is a 413", post("Content-Length: 3000000"), 413),
		spoil("9110-15.5.14 a chunked body above the limit is a 413", chunks("2dc6c0\r\n"+strings.Repeat("abc", 1_000_000)+"\r\n0\r\n\r\n"), 413),
		relays("9110-15.6.5 an answer that does not come in time is a 504", silent, statuses(504)).as(func(r *row) { r.retires = true }),
		cutAnswer("9110-15.6.5 a head of an answer that does not come in time is a 504", "HTTP/1.1 200 OK\r\n"+silent).as(func(r *row) { r.want = append(r.want, statuses(504)) }),
	}
	for i := range rows {
		rows[i].tune = soon
	}
	return rows
}

func malformedRows() (rows []row) {
	for _, l := range []struct{ first, what string }{
		{"HTTP/1.1", "without a status"}, {"HTTP/1.1 ", "with a blank for a status"}, {"HTTP/1.1 20 OK", "with two digits"}, {"HTTP/1.1 2000 OK", "with four digits"},
		{"HTTP/1.1 abc OK", "with letters for a status"}, {"HTTP/1.1 -20 OK", "with a negative status"}, {"HTTP/1.1 099 Low", "below 100"}, {"HTTP/1.1 600 High", "above 599"}, {"HTTP/1.1 000 Zero", "of 0"},
		{"http/1.1 200 OK", "in lower case"}, {"HTTP/2.0 200 OK", "of HTTP/2.0"}, {"HTTP/0.9 200 OK", "of HTTP/0.9"}, {"HTTP/1 200 OK", "with half a version"}, {"HTTP/1.10 200 OK", "with a long version"},
		{"HTTP/1.1  200 OK", "with two blanks"}, {"HTTP/1.1\t200\tOK", "with tabs"}, {" HTTP/1.1 200 OK", "behind a blank"}, {"\r\nHTTP/1.1 200 OK", "behind an empty line"},
		{"200 OK", "without a version"}, {"ICY 200 OK", "of another protocol"}, {"garbage", "of garbage"}, {"HTTP/1.1 200OK", "without a blank behind its status"}, {"HTTP/1.1 200 O\x00K", "with NUL"}, {"HTTP/1.1 200 O\rK", "with a bare CR"}, {"HTTP/1.1 200 O\x07K", "with BEL"},
	} {
		rows = append(rows, badAnswer("9112-4 a status line "+l.what, l.first+"\r\nContent-Length: 1\r\n\r\nb"))
	}
	for _, l := range []struct{ value, what string }{
		{"", "that is empty"}, {"+1", "with a plus sign"}, {"-1", "with a minus sign"}, {"0x1", "in hexadecimal"}, {"1.0", "with a fraction"}, {"1 1", "with a blank"}, {"1, 2", "of a list"},
		{"1\r\nContent-Length: 2", "followed by another"}, {"x", "of letters"}, {"18446744073709551617", "of 2^64 and 1"}, {"9223372036854775808", "of 2^63"}, {"1\x00", "with NUL"},
	} {
		rows = append(rows, badAnswer("9112-6.3 an answer with a length "+l.what, "HTTP/1.1 200 OK\r\nContent-Length: "+l.value+"\r\n\r\nb"))
	}
	for _, c := range []struct{ fields, what string }{
		{"Transfer-Encoding: chunked\r\nContent-Length: 1", "and a length"}, {"Content-Length: 1\r\nTransfer-Encoding: chunked", "behind a length"},
		{"Transfer-Encoding: frob", "that is not known"}, {"Transfer-Encoding: xchunked", "that is misspelt"}, {"Transfer-Encoding: chunked, chunked", "twice"}, {"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", "in two fields"},
		{"Transfer-Encoding: chunked, frob", "followed by another"}, {"Transfer-Encoding: frob, chunked", "behind another"}, {"Transfer-Encoding: \x0bchunked", "behind a vertical tab"}, {"Transfer-Encoding : chunked\r\nContent-Length: 11", "with a blank before the colon, and a length"},
	} {
		rows = append(rows, badAnswer("9112-6.1 an answer with a coding "+c.what, "HTTP/1.1 200 OK\r\n"+c.fields+"\r\n\r\n1\r\nb\r\n0\r\n\r\n"))
	}
	return append(rows,
		badAnswer("9112-6.1 an answer of HTTP/1.0 with a coding", "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nb\r\n0\r\n\r\n"),
		badAnswer("9112-2.2 an answer with bare LFs", "HTTP/1.1 200 OK\nContent-Length: 1\n\nb"),
		badAnswer("9112-2.2 white space behind a status line", "HTTP/1.1 200 OK\r\n X: y\r\nContent-Length: 1\r\n\r\nb"),
		badAnswer("9112-3 a request for an answer", evil),
		badAnswer("9112-2.1 TLS for an answer", "\x15\x03\x01\x00\x02\x02\x32"+shut),
		badAnswer("9112-4 HTML for an answer", "<html>\r\n<p>b\r\n"+shut),
	)
}
