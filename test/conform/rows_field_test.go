package conform

import (
	"fmt"
	"strings"
)

// badFields are field lines that no message may have, with what is wrong.
var badFields = []struct{ rule, raw string }{ // read-only
	{"9112-5.1 a blank before the colon", "X-A : b"},
	{"9112-5.1 a tab before the colon", "X-A\t: b"},
	{"9112-5.1 an empty field name", ": b"},
	{"9112-5 a field line without a colon", "X-A"},
	{"9112-5.2 a folded line", "X-A: b\r\n c"},
	{"9112-5.2 a line folded with a tab", "X-A: b\r\n\tc"},
	{"9112-5.2 an empty folded line", "X-A: b\r\n "},
	{"9110-5.1 a blank within a field name", "X A: b"},
	{"9110-5.1 a parenthesis in a field name", "X(A): b"},
	{"9110-5.1 a quotation mark in a field name", "\"X-A\": b"},
	{"9110-5.1 NUL in a field name", "X\x00A: b"},
	{"9110-5.1 DEL in a field name", "X\x7fA: b"},
	{"9110-5.1 an octet above ASCII in a field name", "X\xe4: b"},
	{"9110-5.5 NUL in a value", "X-A: b\x00c"},
	{"9110-5.5 a bare CR in a value", "X-A: b\rc"},
	{"9110-5.5 a bare CR at the end of a value", "X-A: b\r\r\nX-B: c"},
	{"9112-2.2 a bare LF in a value", "X-A: b\nX-B: c"},
	{"9110-5.5 BEL in a value", "X-A: b\x07c"},
	{"9110-5.5 a vertical tab in a value", "X-A: b\x0bc"},
	{"9110-5.5 ESC in a value", "X-A: b\x1bc"},
	{"9110-5.5 DEL in a value", "X-A: b\x7fc"},
}

func fieldRows() []row {
	rows := []row{
		refuse("9112-5 a field line before Host with a leading blank", "GET /r HTTP/1.1\r\n X-A: b\r\nHost: a\r\n\r\n", 400),
		pass("9110-5.5 octets above ASCII go through", get("X-A: b\xe4\xff\x80c"), sent("X-A: b\xe4\xff\x80c")),
		pass("9110-5.5 a tab within a value goes through", get("X-A: b\tc"), sent("X-A: b\tc")),
		pass("9112-5.1 white space around a value is no part of it", get("X-A:\t  b \t"), sent("X-A: b")),
		pass("9112-5.1 a value needs no blank before it", get("X-A:b"), sent("X-A: b")),
		pass("9110-5.5 an empty value goes through", get("X-A:"), sent("X-A:")),
		pass("9110-5.1 an unknown field goes through", get("X-Frob!#$%&'*+.^`|~: 1"), sent("X-Frob!#$%&'*+.^`|~: 1")),
		pass("9110-5.1 field names are compared without case", post("cOnTeNt-LeNgTh: 3")+"abc", sentBody("abc"), sent("Content-Length: 3")),
		pass("9110-5.3 fields of one name keep their order", get("X-A: 1", "X-B: 2", "x-a: 3"), request(0, ordered("X-A", "1", "3"))),
		relays("9110-5.3 fields of one name keep their order in answers", ok("b", "X-A: 1", "X-B: 2", "x-a: 3"), statuses(200), reply(0, ordered("X-A", "1", "3"))),
		relays("9110-5.3 Set-Cookie is never joined", ok("b", "Set-Cookie: a=b", "Set-Cookie: c=d"), statuses(200), reply(0, ordered("Set-Cookie", "a=b", "c=d"))),
		relays("9110-5.1 an unknown field of an answer goes through", ok("b", "X-Frob: 1"), statuses(200), got("X-Frob: 1")),
		relays("9110-5.5 octets above ASCII go through in answers", ok("b", "X-A: b\xe4\xffc"), statuses(200), got("X-A: b\xe4\xffc")),
		refuse("9110-5.4 a field that is too long is a 431", get("X-A: "+strings.Repeat("a", 100_000)), 431),
		refuse("9110-5.4 too many fields are a 431", get(strings.Fields(strings.Repeat("A:b ", 1000))...), 431),
		badAnswer("9110-5.4 a head of an answer that is too long", ok("b", "X-A: "+strings.Repeat("a", 200_000))),
		pass("9110-5.4 fields of 8000 octets in all are taken", get("X-A: "+strings.Repeat("a", 8000)), sent("X-A: "+strings.Repeat("a", 8000))),

		// What no proxy may change.
		pass("9110-11.6.2 Authorization goes through as it is", get("Authorization: Basic  YTpi=="), sent("Authorization: Basic  YTpi==")),
		relays("9110-11.6.1 WWW-Authenticate goes through as it is", answer("HTTP/1.1 401 Unauthorized", "Content-Length: 0", `WWW-Authenticate: Newauth realm="a, b",  Basic`), statuses(401), got(`WWW-Authenticate: Newauth realm="a, b",  Basic`)),
		relays("9110-10.2.1 Allow goes through as it is", ok("b", "Allow: GET,, PUT"), statuses(200), got("Allow: GET,, PUT")),
		relays("9110-6.6.1 Date goes through as it is", ok("b", "Date: Tue, 15 Nov 1994 08:12:31 GMT"), statuses(200), got("Date: Tue, 15 Nov 1994 08:12:31 GMT")),
		relays("9110-6.6.1 an answer without Date gets one", ok("b"), statuses(200), reply(0, dated)),
		refuse("9110-6.6.1 an answer of the proxy's own has a Date", "GET /r HTTP/1.1\r\n\r\n", 400).as(func(r *row) { r.want = append(r.want, reply(0, dated)) }),
		relays("9110-8.8.3 ETag goes through as it is", ok("b", `ETag: W/"a"`), statuses(200), got(`ETag: W/"a"`)),
		relays("9110-10.2.4 Server goes through as it is", ok("b", "Server: back/1.0 (c)"), statuses(200), got("Server: back/1.0 (c)")),
		relays("9110-7.7 coded content goes through as it is", ok("\x1f\x8b\x00", "Content-Encoding: gzip"), statuses(200), got("Content-Encoding: gzip"), gotBody("\x1f\x8b\x00")),
		relays("9110-14.4 Content-Range goes through as it is", "HTTP/1.1 206 Partial Content\r\nContent-Length: 1\r\nContent-Range: bytes 0-0/5\r\n\r\nb", statuses(206), got("Content-Range: bytes 0-0/5"), gotBody("b")),
		pass("9110-14.2 Range goes through as it is", get("Range: bytes=0-0,-1"), sent("Range: bytes=0-0,-1")),
		pass("9110-13.1.1 preconditions go through as they are", get(`If-Match: "a", W/"b"`, "If-Modified-Since: x"), sent(`If-Match: "a", W/"b"`), sent("If-Modified-Since: x")),

		// Via.
		pass("9110-7.6.3 a request gets a Via", get(), request(0, viaEnds("1.1"))),
		pass("9110-7.6.3 Via tells the version that was received", "GET /r HTTP/1.0\r\nHost: a\r\n\r\n", request(0, viaEnds("1.0"))).as(func(r *row) { r.after = closes }),
		pass("9110-7.6.3 Via is appended to", get("Via: 1.0 x", "Via: 1.1 y (z, w)"), request(0, viaEnds("1.1")), request(0, viaBegins("1.0 x, 1.1 y (z, w), "))),
		relays("9110-7.6.3 an answer gets a Via", ok("b"), statuses(200), reply(0, viaEnds("1.1"))),
		relays("9110-7.6.3 Via of an answer tells the version that was received", "HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\nb"+shut, statuses(200), reply(0, viaEnds("1.0"))),
		relays("9110-7.6.3 Via of an answer is appended to", ok("b", "Via: 1.1 x"), statuses(200), reply(0, viaEnds("1.1")), reply(0, viaBegins("1.1 x, "))),
	}
	for _, f := range badFields {
		rows = append(rows,
			refuse(f.rule+" of a request", "GET /r HTTP/1.1\r\nHost: a\r\n"+f.raw+"\r\n\r\n", 400),
			cleansed(f.rule+" of an answer", "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n"+f.raw+"\r\n\r\nb"))
	}
	return rows
}

// cleansed is a row with a head of an answer that must not go on as it is. A
// blank before a colon and a folded line may be mended (RFC 9112 sections 5.1
// and 5.2); that is left to the check of what the client sees.
func cleansed(rule, answer string) row {
	if strings.HasPrefix(rule, "9112-5.") {
		return relays(rule, answer, oneOf(200, 502))
	}
	return badAnswer(rule, answer)
}

func ordered(name string, want ...string) func(*message) string {
	return func(m *message) string {
		got := strings.Join(m.get(name), ", ")
		if got != strings.Join(want, ", ") || name == "Set-Cookie" && len(m.get(name)) != len(want) {
			return fmt.Sprintf("%s %q, want %q", name, m.get(name), want)
		}
		return ""
	}
}

func dated(m *message) string {
	if d := m.get("date"); len(d) != 1 || !strings.HasSuffix(d[0], " GMT") {
		return fmt.Sprintf("Date %q", d)
	}
	return ""
}

// viaEnds holds of a Via whose last element is of that version and has a name.
func viaEnds(version string) func(*message) string {
	return func(m *message) string {
		all := strings.Split(strings.Join(m.get("via"), ", "), ", ")
		last := all[len(all)-1]
		if name, ok := strings.CutPrefix(last, version+" "); !ok || name == "" {
			return fmt.Sprintf("Via %q, want one of %s at its end", m.get("via"), version)
		}
		return ""
	}
}

func viaBegins(with string) func(*message) string {
	return func(m *message) string {
		if v := strings.Join(m.get("via"), ", "); !strings.HasPrefix(v, with) {
			return fmt.Sprintf("Via %q, want %q first", v, with)
		}
		return ""
	}
}
