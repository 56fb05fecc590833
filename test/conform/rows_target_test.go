package conform

import "strings"

// req is a request of a given first line for host a.
func req(first string, fields ...string) string {
	return lines(append([]string{first, "Host: a"}, fields...)...)
}

func targetRows() []row {
	rows := []row{
		// Forms of the target.
		pass("9112-3.2.1 origin form goes on as it came", req("GET /a/b?c=d%20e&f=%E4 HTTP/1.1"), sentLine("GET /a/b?c=d%20e&f=%E4 HTTP/1.1")),
		pass("9110-7.7 a path is not rewritten", req("GET /A/../b/./%7e//c;d HTTP/1.1"), sentLine("GET /A/../b/./%7e//c;d HTTP/1.1")),
		pass("9110-7.7 an escaped slash is not decoded", req("GET /a%2Fb%2e%2E/ HTTP/1.1"), sentLine("GET /a%2Fb%2e%2E/ HTTP/1.1")),
		pass("9110-7.7 a query is not rewritten", req("GET /?a=/../b&&c=[] HTTP/1.1"), sentLine("GET /?a=/../b&&c=[] HTTP/1.1")),
		pass("9112-3.2.2 absolute form becomes origin form", lines("GET http://b:8080/c?d HTTP/1.1", "Host: b:8080"), sentLine("GET /c?d HTTP/1.1"), sent("Host: b:8080")),
		{rule: "9112-3.2.2 a Host other than the authority of an absolute target never goes on", send: lines("GET http://b/c HTTP/1.1", "Host: a"), n: 1, after: either, want: []check{oneOf(200, 400), func(s *sight) string {
			if len(s.requests) > 0 {
				return sent("Host: b")(s) // ignored and replaced, if it is not refused
			}
			return ""
		}}},
		pass("9112-3.2.2 an absolute target from HTTP/1.0 makes the Host", "GET http://b/c HTTP/1.0\r\n\r\n", sentLine("GET /c HTTP/1.1"), sent("Host: b")).as(func(r *row) { r.after = closes }),
		pass("9110-4.2.3 the scheme is compared without case", lines("GET HTTP://b/c HTTP/1.1", "Host: b"), sentLine("GET /c HTTP/1.1")),
		pass("9110-4.2.3 an empty path becomes a slash", lines("GET http://b HTTP/1.1", "Host: b"), sentLine("GET / HTTP/1.1")),
		pass("9110-4.2.3 an empty path before a query becomes a slash", lines("GET http://b?c HTTP/1.1", "Host: b"), sentLine("GET /?c HTTP/1.1")),
		pass("9112-3.2.4 the asterisk goes on with OPTIONS", req("OPTIONS * HTTP/1.1"), sentLine("OPTIONS * HTTP/1.1")),
		pass("9112-3.2.4 OPTIONS for a whole server becomes an asterisk", lines("OPTIONS http://b HTTP/1.1", "Host: b"), sentLine("OPTIONS * HTTP/1.1"), sent("Host: b")),
		pass("9112-3.2.4 OPTIONS for the path / stays that", lines("OPTIONS http://b/ HTTP/1.1", "Host: b"), sentLine("OPTIONS / HTTP/1.1")),
		refuse("9112-3.2.4 the asterisk does not go with GET", req("GET * HTTP/1.1"), 400),
		refuse("9112-3.2.3 CONNECT is refused where nobody tunnels", lines("CONNECT b:443 HTTP/1.1", "Host: b:443"), 400, 405, 501),
		refuse("9112-3.2.3 authority form goes with CONNECT alone", lines("GET b:80 HTTP/1.1", "Host: b:80"), 400),
		refuse("9112-3.2 a target that is no form at all", req("GET a HTTP/1.1"), 400),
		refuse("9112-3.2.2 a scheme that is not http", lines("GET ftp://b/c HTTP/1.1", "Host: b"), 400),
		refuse("9110-4.2.1 an absolute target without a host", lines("GET http:///c HTTP/1.1", "Host: b"), 400),
		refuse("9110-4.2.1 an absolute target with a port alone", lines("GET http://:80/c HTTP/1.1", "Host: b"), 400),
		refuse("9110-4.2.4 user information in an absolute target", lines("GET http://u:p@b/c HTTP/1.1", "Host: b"), 400),
		refuse("9112-3.2 an absolute target does not do for a missing Host", lines("GET http://b/c HTTP/1.1"), 400),
		pass("9112-3 a request line of 8000 octets is taken", req("GET /"+strings.Repeat("a", 7986)+" HTTP/1.1")),
		refuse("9112-3 a longer target is a 414", req("GET /"+strings.Repeat("a", 40_000)+" HTTP/1.1"), 414),
		refuse("9110-15.5.15 a request line without end is a 414", "GET /"+strings.Repeat("a", 70_000), 414),

		// Host.
		refuse("9112-3.2 no Host", "GET /r HTTP/1.1\r\n\r\n", 400),
		refuse("9112-3.2 two different Hosts", req("GET /r HTTP/1.1", "Host: b"), 400),
		refuse("9112-3.2 two equal Hosts", req("GET /r HTTP/1.1", "Host: a"), 400),
		refuse("9112-3.2 an empty Host beside another", req("GET /r HTTP/1.1", "Host:"), 400),
		pass("9112-3.2 no Host from HTTP/1.0", "GET /r HTTP/1.0\r\n\r\n", sentLine("GET /r HTTP/1.1")).as(func(r *row) { r.after = closes }),
		refuse("9112-3.2 two Hosts from HTTP/1.0", "GET /r HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n", 400),
		pass("9110-7.2 an IPv6 Host goes through", lines("GET /r HTTP/1.1", "Host: [2001:db8::1]:8080"), sent("Host: [2001:db8::1]:8080")),
		pass("9110-7.2 Host is sent once, and first", req("GET /r HTTP/1.1", "X-A: 1"), request(0, func(m *message) string {
			if m.fields[0].name != "host" {
				return "the first field is " + m.fields[0].name
			}
			return ""
		})),
	}
	for _, h := range []struct{ value, what string }{
		{"a, b", "a list"}, {"a b", "a blank"}, {"a/b", "a path"}, {"u@a", "user information"}, {"a:x", "a port of letters"},
		{"a:-1", "a negative port"}, {"[::1", "an open bracket"}, {"[zz]", "letters in brackets"}, {":80", "a port alone"},
		{"a?b", "a query"}, {"a#b", "a fragment"}, {"http://a", "a URL"}, {"a\\b", "a backslash"}, {"a:80:80", "two ports"}, {"a\xffb", "an octet above ASCII"},
	} {
		rows = append(rows, refuse("9112-3.2 a Host with "+h.what, lines("GET /r HTTP/1.1", "Host: "+h.value), 400))
	}
	for _, c := range []struct{ target, what string }{
		{"/a#b", "a fragment"}, {"/a b", "a blank"}, {"/a\tb", "a tab"}, {"/a\x00b", "NUL"}, {"/a\x07b", "BEL"}, {"/a\x7fb", "DEL"},
		{"/a\rb", "a bare CR"}, {"/\xc3\xa4", "octets above ASCII"}, {"/a\\b", "a backslash"}, {"/a\"b", "a quotation mark"},
		{"/<b>", "angle brackets"}, {"/%", "a lone percent sign"}, {"/%4", "half an escape"}, {"/%zz", "an escape without hex digits"},
	} {
		rows = append(rows, refuse("9112-3.2 a target with "+c.what, req("GET "+c.target+" HTTP/1.1"), 400))
	}
	return rows
}

// lineRows are about the rest of the request line and what comes before it.
func lineRows() []row {
	rows := []row{
		pass("9110-9.1 an unknown method goes through", req("FROB /r HTTP/1.1"), sentLine("FROB /r HTTP/1.1")),
		pass("9110-9.1 methods are not compared without case", req("get /r HTTP/1.1"), sentLine("get /r HTTP/1.1")),
		pass("9110-9.1 a method may be any token", req("!#$%&'*+-.^_`|~09aZ /r HTTP/1.1"), sentLine("!#$%&'*+-.^_`|~09aZ /r HTTP/1.1")),
		pass("9112-2.3 a higher minor version is answered as 1.1", req("GET /r HTTP/1.2"), sentLine("GET /r HTTP/1.1"), gotLine("HTTP/1.1 200 OK")),
		pass("9112-2.3 a request from HTTP/1.0 goes on as 1.1", "GET /r HTTP/1.0\r\nHost: a\r\n\r\n", sentLine("GET /r HTTP/1.1")).as(func(r *row) { r.after = closes }),
		relays("9112-2.3 an answer of HTTP/1.0 goes on as 1.1", "HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\nb"+shut, gotLine("HTTP/1.1 200 OK"), gotBody("b")),
		refuse("9110-15.6.6 a higher major version is a 505", req("GET /r HTTP/2.0"), 505),
		refuse("9110-15.6.6 HTTP/9.9 is a 505", req("GET /r HTTP/9.9"), 505),
		refuse("9110-15.6.6 HTTP/0.9 in so many words is refused", req("GET /r HTTP/0.9"), 400, 505),
		refuse("9113-3.4 the preface of HTTP/2 is refused", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400, 505),
		refuse("9112-3 a request without a version", "GET /r\r\n\r\n", 400),
		pass("9112-2.2 an empty line before the request is skipped", "\r\n"+get()),
		pass("9112-2.2 empty lines between requests are skipped", get()+"\r\n"+get()).as(func(r *row) { r.n, r.want = 2, []check{statuses(200, 200), behind(2)} }),
		pass("9112-2.2 an empty line after a body is skipped", post("Content-Length: 3")+"abc\r\n"+get()).as(func(r *row) { r.n, r.want = 2, []check{statuses(200, 200), behind(2), sentBody("abc")} }),
		pass("9112-2.2 a request that comes octet by octet", strings.Join(strings.Split(get(), ""), pause)),
		refuse("9112-2.2 a line that ends in a bare LF", "GET /r HTTP/1.1\nHost: a\r\n\r\n", 400),
		refuse("9112-2.2 lines that all end in a bare LF", "GET /r HTTP/1.1\nHost: a\n\n", 400),
		refuse("9112-2.2 a head that ends in a bare LF", "GET /r HTTP/1.1\r\nHost: a\r\n\n", 400),
		refuse("9112-2.2 a line that ends in CR CR LF", "GET /r HTTP/1.1\r\r\nHost: a\r\n\r\n", 400),
		refuse("9112-2.2 white space after the request line", "GET /r HTTP/1.1\r\n X: y\r\nHost: a\r\n\r\n", 400),
		refuse("9112-2.2 an empty line of blanks after the request line", "GET /r HTTP/1.1\r\n \r\nHost: a\r\n\r\n", 400),
		refuse("9112-2.1 bytes that are no HTTP", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
	}
	for _, l := range []struct{ first, what string }{
		{" GET /r HTTP/1.1", "that begins with a blank"}, {"GET  /r HTTP/1.1", "with two blanks before the target"},
		{"GET /r  HTTP/1.1", "with two blanks before the version"}, {"GET /r HTTP/1.1 ", "that ends in a blank"},
		{"GET\t/r\tHTTP/1.1", "with tabs for blanks"}, {"GET  HTTP/1.1", "without a target"}, {"/r HTTP/1.1", "without a method"},
		{"G(T /r HTTP/1.1", "with a delimiter in its method"}, {"G\x00T /r HTTP/1.1", "with NUL in its method"},
		{"G\xc4T /r HTTP/1.1", "with an octet above ASCII in its method"}, {"GET: /r HTTP/1.1", "with a colon in its method"},
		{"GET /r http/1.1", "with its version in lower case"}, {"GET /r HTTP/1", "with half a version"}, {"GET /r HTTP/1.10", "with two digits in its version"},
		{"GET /r HTTP/01.1", "with a leading zero in its version"}, {"GET /r HTTP/+1.1", "with a sign in its version"},
		{"GET /r HTTP/1.1x", "with a letter behind its version"}, {"GET /r HTTP/ 1.1", "with a blank in its version"},
		{"GET /r HTTPS/1.1", "of another protocol"}, {"GET /r HTTP/1,1", "with a comma in its version"}, {"GET /r HTTP/1.\xb9", "with a superscript in its version"},
	} {
		rows = append(rows, refuse("9112-3 a request line "+l.what, req(l.first), 400))
	}
	return rows
}
