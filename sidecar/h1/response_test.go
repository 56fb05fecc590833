package h1

import "testing"

func runResponses(t *testing.T, head bool, rows []row) {
	t.Helper()
	for _, r := range rows {
		m, err := readResponse([]byte(r.in), head)
		if got := outcome(m, err, showResponse); got != r.want {
			t.Errorf("section %s, HEAD %v\n%q\n got %s\nwant %s (%v)", r.sec, head, r.in, got, r.want, err)
		}
	}
}

func TestStatusLine(t *testing.T) {
	first := func(l string) string { return lines(l, "Content-Length: 0") }
	ok := func(s string) string { return s + " none keep" }
	runResponses(t, false, []row{
		{"4", first("HTTP/1.1 200 OK"), ok(`200 "OK" 1.1`)},
		{"4", first("HTTP/1.1 200 "), ok(`200 "" 1.1`)},
		{"4", first("HTTP/1.1 200"), ok(`200 "" 1.1`)}, // the blank is often left out
		{"4", first("HTTP/1.1 404 Not\tFound \xe9"), ok(`404 "Not\tFound \xe9" 1.1`)},
		{"4", first("HTTP/1.1 599 ?"), ok(`599 "?" 1.1`)},
		{"4", first("HTTP/1.0 200 OK"), `200 "OK" 1.0 none`},
		{"9110-2.5", first("HTTP/1.9 200 OK"), ok(`200 "OK" 1.1`)},
		{"2.3", first("HTTP/2.0 200 OK"), "400"},
		{"2.3", first("HTTP/0.9 200 OK"), "400"},
		{"2.3", first("http/1.1 200 OK"), "400"},
		{"2.3", first("ICY 200 OK"), "400"},
		{"4", first("HTTP/1.1  200 OK"), "400"},
		{"4", first("HTTP/1.1\t200 OK"), "400"},
		{"4", first(" HTTP/1.1 200 OK"), "400"},
		{"4", first("HTTP/1.1 20 OK"), "400"},
		{"4", first("HTTP/1.1 2000 OK"), "400"},
		{"4", first("HTTP/1.1 2x0 OK"), "400"},
		{"4", first("HTTP/1.1 +20 OK"), "400"},
		{"4", first("HTTP/1.1 200\tOK"), "400"},
		{"4", first("HTTP/1.1 200OK"), "400"},
		{"9110-15", first("HTTP/1.1 099 OK"), "400"},
		{"9110-15", first("HTTP/1.1 000 OK"), "400"},
		{"9110-15", first("HTTP/1.1 600 OK"), "400"},
		{"9110-15", first("HTTP/1.1 999 OK"), "400"},
		{"4", first("HTTP/1.1 200 O\x00K"), "400"},
		{"4", first("HTTP/1.1 200 O\rK"), "400"},
		{"4", first("HTTP/1.1 200 OK\x7f"), "400"},
		{"2.2", "HTTP/1.1 200 OK\nContent-Length: 0\r\n\r\n", "400"},
		{"2.2", "\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "400"},
		{"5.1", lines("HTTP/1.1 200 OK", "Content-Length : 0"), "400"},
		{"5.2", lines("HTTP/1.1 200 OK", "X: a", " b"), "400"},
		{"5", lines("HTTP/1.1 200 OK", "Expect: anything", "Host: a b", "Host: c", "Content-Length: 0"), ok(`200 "OK" 1.1`)},
	})
}

func TestResponseFraming(t *testing.T) {
	res := func(status string, l ...string) string { return lines(append([]string{"HTTP/1.1 " + status}, l...)...) }
	const chunks = "1\r\nx\r\n0\r\n\r\n"
	runResponses(t, false, []row{
		{"6.3", res("200 OK", "Content-Length: 2") + "abc", `200 "OK" 1.1 length=2 keep "ab" +1`},
		{"6.3", res("200 OK", "Transfer-Encoding: chunked") + chunks + "y", `200 "OK" 1.1 chunked keep "x" +1`},
		{"6.3", res("200 OK") + "abc", `200 "OK" 1.1 eof "abc"`},
		{"6.3", res("200 OK", "Connection: keep-alive") + "abc", `200 "OK" 1.1 eof "abc"`},
		{"6.3", lines("HTTP/1.0 200 OK", "Connection: keep-alive", "Content-Length: 1") + "a", `200 "OK" 1.0 length=1 keep "a"`},
		{"9.3", lines("HTTP/1.0 200 OK", "Content-Length: 1") + "a", `200 "OK" 1.0 length=1 "a"`},
		{"9.3", res("200 OK", "Connection: close", "Content-Length: 1") + "a", `200 "OK" 1.1 length=1 "a"`},
		{"6.3", res("404 No", "Content-Length: 1") + "a", `404 "No" 1.1 length=1 keep "a"`},
		{"6.3", res("204 No") + "a", `204 "No" 1.1 none keep +1`},
		{"6.3", res("304 Not", "Content-Length: 9") + "a", `304 "Not" 1.1 none keep +1`},
		{"6.3", res("304 Not", "Transfer-Encoding: chunked") + "a", `304 "Not" 1.1 none keep +1`},
		{"6.3", res("304 Not") + "a", `304 "Not" 1.1 none keep +1`},
		{"6.3", res("100 Continue") + "a", `100 "Continue" 1.1 none keep +1`},
		{"6.3", res("103 Early", "Link: </a>"), `103 "Early" 1.1 none keep`},
		{"9110-7.8", res("101 Switch", "Connection: upgrade", "Upgrade: u") + "a", `101 "Switch" 1.1 none keep upgrade=u +1`},
		// 205 may have no content either, but is framed like any other answer.
		{"9110-15.3.6", res("205 R", "Content-Length: 0") + "a", `205 "R" 1.1 none keep +1`},
		{"9110-15.3.6", res("205 R", "Content-Length: 1") + "ab", `205 "R" 1.1 length=1 keep "a" +1`},
		{"9110-15.3.6", res("205 R", "Transfer-Encoding: chunked") + "0\r\n\r\na", `205 "R" 1.1 chunked keep "" +1`},
		{"9110-7.8", lines("HTTP/1.0 101 Switch", "Connection: upgrade", "Upgrade: u"), `101 "Switch" 1.0 none`},
		{"9110-7.8", res("101 Switch", "Connection: upgrade", "Upgrade:"), `101 "Switch" 1.1 none keep`},
		{"9110-8.6", res("204 No", "Content-Length: 0"), `204 "No" 1.1 none keep`}, // forbidden, harmless, common
		{"9110-8.6", res("204 No", "Content-Length: 3") + "abc", "400"},
		{"9110-8.6", res("103 Early", "Content-Length: 3") + "abc", "400"},
		{"6.1", res("204 No", "Transfer-Encoding: chunked") + chunks, "400"},
		{"6.1", res("101 Up", "Transfer-Encoding: chunked") + chunks, "400"},
		{"6.1", res("200 OK", "Transfer-Encoding: chunked", "Content-Length: 1") + chunks, "400"},
		{"6.1", res("200 OK", "Content-Length: 1", "Transfer-Encoding: chunked") + chunks, "400"},
		{"6.1", res("304 Not", "Content-Length: 1", "Transfer-Encoding: chunked"), "400"},
		{"6.1", lines("HTTP/1.0 200 OK", "Transfer-Encoding: chunked") + chunks, "400"},
		{"6.1", res("200 OK", "Transfer-Encoding: gzip, chunked") + chunks, "501"},
		{"6.1", res("200 OK", "Transfer-Encoding: identity") + "abc", "400"},
		{"6.1", res("200 OK", "Transfer-Encoding: chunked", "Transfer-Encoding: chunked") + chunks, "400"},
		{"6.3", res("200 OK", "Content-Length: 1", "Content-Length: 1") + "a", "400"},
		{"6.3", res("200 OK", "Content-Length: 1, 1") + "a", "400"},
		{"6.3", res("200 OK", "Content-Length: x") + "a", "400"},
		{"6.3", res("200 OK", "Content-Length: -1"), "400"},
	})
	runResponses(t, true, []row{
		{"6.3", res("200 OK", "Content-Length: 5") + "a", `200 "OK" 1.1 none keep +1`},
		{"6.3", res("200 OK", "Transfer-Encoding: chunked") + "a", `200 "OK" 1.1 none keep +1`},
		{"6.3", res("200 OK") + "a", `200 "OK" 1.1 none keep +1`},
		{"6.3", res("404 No", "Content-Length: 5", "Connection: close"), `404 "No" 1.1 none`},
		{"6.3", res("200 OK", "Content-Length: 5", "Transfer-Encoding: chunked"), "400"},
	})
}
