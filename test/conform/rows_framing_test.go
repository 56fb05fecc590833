package conform

import "strings"

// lengthRows are about Content-Length of requests.
func lengthRows() []row {
	twice := func(r *row) { r.n, r.want = 2, append(r.want[2:], statuses(200, 200), behind(2)) }
	rows := []row{
		pass("9112-6.3 a body of a length goes through", post("Content-Length: 3")+"abc", sentBody("abc"), sent("Content-Length: 3")),
		pass("9112-6.3 a body in two segments goes through", post("Content-Length: 6")+"abc"+pause+"def", sentBody("abcdef")),
		pass("9112-6.3 a large body goes through", post("Content-Length: 300000")+strings.Repeat("abc", 100_000), sentBody(strings.Repeat("abc", 100_000))),
		pass("9112-6.3 the next request begins right behind a body", post("Content-Length: 3")+"abc"+get(), sentBody("abc")).as(twice),
		pass("9110-9.3.1 a GET may have a body", get("Content-Length: 3")+"abc", sentBody("abc")),
		pass("9110-9.3.5 a DELETE may have a body", lines("DELETE /r HTTP/1.1", "Host: a", "Content-Length: 3")+"abc", sentBody("abc")),
		pass("9110-9.3.2 a HEAD may have a body", lines("HEAD /r HTTP/1.1", "Host: a", "Content-Length: 3")+"abc", sentBody("abc")).as(func(r *row) { r.methods = "HEAD" }),
		pass("9110-8.6 a length of 0 goes through", post("Content-Length: 0"), sent("Content-Length: 0"), sentBody("")),
		pass("9110-8.6 leading zeros are digits too", post("Content-Length: 003")+"abc", sentBody("abc")),
		pass("9112-6.3 no length is no body", post()+get()).as(twice),
		refuse("9112-6.3 two different lengths", post("Content-Length: 3", "Content-Length: 4")+"abcd", 400),
		refuse("9112-6.3 two different lengths in the other order", post("Content-Length: 4", "Content-Length: 3")+"abcd", 400),
		refuse("9112-6.3 a list of different lengths", post("Content-Length: 3, 4")+"abcd", 400),
		refuse("9112-6.3 a length and an invalid one", post("Content-Length: 3", "Content-Length: x")+"abc", 400),
		refuse("9110-8.6 two equal lengths are refused or made one", post("Content-Length: 3", "Content-Length: 3")+"abc", 400),
		refuse("9110-8.6 a list of equal lengths is refused or made one", post("Content-Length: 3, 3")+"abc", 400),
	}
	for _, l := range []struct{ value, what string }{
		{"", "that is empty"}, {"+3", "with a plus sign"}, {"-3", "with a minus sign"}, {"-0", "of minus zero"}, {"0x3", "in hexadecimal"},
		{"3.0", "with a fraction"}, {"1e1", "with an exponent"}, {"3 3", "with a blank"}, {"3;a=b", "with a parameter"}, {"\"3\"", "in quotation marks"},
		{"3,", "with a comma behind it"}, {",3", "with a comma before it"}, {"0b11", "in binary"}, {"1_0", "with an underscore"}, {"\xef\xbc\x93", "in wide digits"},
		{"3\x00", "with NUL behind it"}, {"\x0b3", "with a vertical tab before it"}, {"x", "of letters"},
		{"9223372036854775808", "of 2^63"}, {"18446744073709551619", "of 2^64 and 3"}, {"4294967299000000000000000000", "of 28 digits"},
	} {
		rows = append(rows, refuse("9110-8.6 a length "+l.what, post("Content-Length: "+l.value)+"abc", 400, 413))
	}
	return rows
}

// codingRows are about Transfer-Encoding of requests.
func codingRows() []row {
	rows := []row{
		pass("9112-7.1 a chunked body goes through", chunks("3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"), sentBody("abcde")),
		pass("9112-6.1 chunked is compared without case", post("Transfer-Encoding: cHuNkEd")+"3\r\nabc\r\n0\r\n\r\n", sentBody("abc")),
		pass("9112-5.1 chunked with white space around it", post("Transfer-Encoding: \t chunked \t")+"3\r\nabc\r\n0\r\n\r\n", sentBody("abc")),
		pass("9112-7.1 a chunked body in single octets", chunks(strings.Join(strings.Split("3;a=b\r\nabc\r\n0\r\nX-T: y\r\n\r\n", ""), pause)), sentBody("abc")),
		pass("9112-7.1 a large chunked body goes through", chunks("493e0\r\n"+strings.Repeat("abc", 100_000)+"\r\n0\r\n\r\n"), sentBody(strings.Repeat("abc", 100_000))),
		pass("9112-6.3 a chunked GET goes through", get("Transfer-Encoding: chunked")+"3\r\nabc\r\n0\r\n\r\n", sentBody("abc")),
		pass("9112-6.3 the next request begins right behind the last chunk", chunks("3\r\nabc\r\n0\r\n\r\n")+get(), sentBody("abc")).as(func(r *row) {
			r.n, r.want = 2, []check{statuses(200, 200), behind(2), sentBody("abc"), request(1, line("GET /r HTTP/1.1"))}
		}),
		refuse("9112-6.1 both TE and CL from the client is refused", post("Transfer-Encoding: chunked", "Content-Length: 3")+"3\r\nabc\r\n0\r\n\r\n", 400),
		refuse("9112-6.1 both CL and TE from the client is refused", post("Content-Length: 3", "Transfer-Encoding: chunked")+"3\r\nabc\r\n0\r\n\r\n", 400),
		refuse("9112-6.1 TE and a CL of 0 is refused", post("Transfer-Encoding: chunked", "Content-Length: 0")+"0\r\n\r\n", 400),
		refuse("9112-6.1 TE from HTTP/1.0 is refused", "POST /r HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", 400),
		refuse("9112-6.1 TE and CL from HTTP/1.0 is refused", "POST /r HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\nabc", 400),
		refuse("9112-7.1 chunked twice in one field", post("Transfer-Encoding: chunked, chunked")+"0\r\n\r\n", 400, 501),
		refuse("9112-7.1 chunked in two fields", post("Transfer-Encoding: chunked", "Transfer-Encoding: chunked")+"0\r\n\r\n", 400, 501),
		refuse("9112-6.1 a coding before chunked that is not known is a 501", post("Transfer-Encoding: frob, chunked")+"0\r\n\r\n", 501),
		refuse("9112-6.1 a coding before chunked in a field of its own is a 501", post("Transfer-Encoding: gzip", "Transfer-Encoding: chunked")+"0\r\n\r\n", 501),
	}
	for _, c := range []struct{ value, what string }{
		{"gzip", "gzip alone"}, {"xchunked", "xchunked"}, {"chunkedx", "chunkedx"}, {"chunke", "chunke"}, {"identity", "identity"},
		{"chunked, gzip", "chunked, then gzip"}, {"chunked, identity", "chunked, then identity"},
	} {
		rows = append(rows, refuse("9112-6.3 a last coding other than chunked is a 400: "+c.what, post("Transfer-Encoding: "+c.value)+"3\r\nabc\r\n0\r\n\r\n", 400))
	}
	for _, c := range []struct{ value, what string }{
		{"", "nothing"}, {"chunked;q=1", "a parameter"}, {"\"chunked\"", "quotation marks"}, {"chunked,", "a comma behind it"}, {",chunked", "a comma before it"},
		{"chunked\x0b", "a vertical tab"}, {"\x0bchunked", "a vertical tab before it"}, {"chunked\x00", "NUL"}, {"chunked\r", "a bare CR"}, {"chunked\x7f", "DEL"},
		{"chun ked", "a blank in it"}, {"chunked chunked", "it twice without a comma"}, {"\xc2\xa0chunked", "a no-break space"}, {"\r\n chunked", "a fold before it"}, {"chunked\r\n ", "a fold behind it"},
	} {
		rows = append(rows, refuse("9112-6.1 Transfer-Encoding with "+c.what, post("Transfer-Encoding: "+c.value)+"3\r\nabc\r\n0\r\n\r\n", 400, 501))
	}
	return rows
}

// evil is the request that an attacker hides from one of two parsers.
const evil = "GET /evil HTTP/1.1\r\nHost: a\r\n\r\n"

// smugglingRows are the classics: none may bring /evil before a backend.
func smugglingRows() []row {
	hidden := "0\r\n\r\n" + evil
	rows := []row{
		refuse("9112-11.2 CL.TE", post("Content-Length: 37", "Transfer-Encoding: chunked")+hidden, 400),
		refuse("9112-11.2 TE.CL", post("Transfer-Encoding: chunked", "Content-Length: 4")+"1f\r\n"+evil+"\r\n0\r\n\r\n", 400),
		refuse("9112-11.2 TE.TE", post("Content-Length: 4", "Transfer-Encoding: chunked", "Transfer-Encoding: x")+hidden, 400, 501),
		pass("9112-11.2 CL.0: a body is a body, whatever it says", post("Content-Length: 31")+evil, sentBody(evil)),
		pass("9112-11.2 0.CL: a GET with a body that looks like a request", get("Content-Length: 31")+evil, sentBody(evil)),
		pass("9112-11.2 a chunk that looks like a request", chunks("1f\r\n"+evil+"\r\n0\r\n\r\n"), sentBody(evil)),
		pass("9112-11.2 Transfer_Encoding is another field", post("Content-Length: 36", "Transfer_Encoding: chunked")+hidden, sentBody(hidden)),
		pass("9112-11.2 X-Content-Length is another field", post("X-Content-Length: 99")+get()).as(func(r *row) { r.n, r.want = 2, []check{statuses(200, 200), behind(2)} }),
		pass("9112-11.2 an absolute path that holds a request stays one", req("GET /%0d%0aHost:%20b%0d%0a HTTP/1.1"), sentLine("GET /%0d%0aHost:%20b%0d%0a HTTP/1.1")),
		pass("9110-7.6.1 Connection cannot take the length away", post("Connection: Content-Length", "Content-Length: 31")+evil, sentBody(evil), sent("Content-Length: 31")),
		pass("9110-7.6.1 Connection cannot take the coding away", post("Connection: Transfer-Encoding", "Transfer-Encoding: chunked")+"3\r\nabc\r\n0\r\n\r\n", sentBody("abc")),
		refuse("9112-11.2 a length hidden behind a bare CR", "POST /r HTTP/1.1\r\nHost: a\r\nX: y\rContent-Length: 31\r\n\r\n"+evil, 400),
		refuse("9112-11.2 a length that ends in CR CR LF", "POST /r HTTP/1.1\r\nHost: a\r\nContent-Length: 31\r\r\n\r\n"+evil, 400),
		refuse("9112-11.2 a head that ends in LF CR LF", "POST /r HTTP/1.1\r\nHost: a\r\nContent-Length: 31\n\r\n"+evil, 400),
		refuse("9112-11.2 a coding of HTTP/1.0 before a kept connection", "POST /r HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n"+hidden, 400),
	}
	for _, f := range []struct{ raw, what string }{
		{"Transfer-Encoding : chunked", "with a blank before the colon"}, {"Transfer-Encoding\t: chunked", "with a tab before the colon"},
		{" Transfer-Encoding: chunked", "in a folded line"}, {"X: y\nTransfer-Encoding: chunked", "behind a bare LF"},
		{"X: y\rTransfer-Encoding: chunked", "behind a bare CR"}, {"Transfer-Encoding\r\n : chunked", "with a folded colon"},
		{"Transfer-Encoding\x00: chunked", "with NUL in the name"}, {"Transfer-Encoding: chunked\r\nTransfer-Encoding: cow", "followed by another"},
		{"Transfer-Encoding: cow\r\nTransfer-Encoding: chunked", "behind another"}, {"Transfer-Encoding:\tchunked", "behind a tab"},
		{"Transfer-Encoding: xchunked", "misspelt"}, {"Transfer-Encoding: 'chunked'", "in single quotes"}, {"Transfer-Encoding:\x0cchunked", "behind a form feed"},
		{"TRANSFER-ENCODING: CHUNKED", "in capitals"}, {"Transfer-Encoding chunked", "without a colon"}, {"\xffTransfer-Encoding: chunked", "behind an octet above ASCII"},
		{"Transfer-Encoding: chunked\x01", "with a control character"}, {"Transfer-Encoding: identity, chunked", "behind identity"},
	} {
		rows = append(rows, refuse("9112-11.2 CL beside a Transfer-Encoding "+f.what, post("Content-Length: 36", f.raw)+hidden, 400, 501))
	}
	return rows
}
