package conform

import "strings"

// expectRows are about Expect and interim answers.
func expectRows() []row {
	const unasked = "HTTP/1.1 100 Continue\r\n\r\n"
	old := func(r *row) { r.after = closes }
	rows := []row{
		pass("9110-10.1.1 an expectation is passed on, and its 100 back", post("Expect: 100-continue", "Content-Length: 3")+await+"abc", sent("Expect: 100-continue"), sentBody("abc"), gotInterim(100)).as(func(r *row) { r.answers = []string{early + go100 + body + ok("b")} }),
		pass("9110-10.1.1 an expectation with a chunked body", post("Expect: 100-continue", "Transfer-Encoding: chunked")+await+"3\r\nabc\r\n0\r\n\r\n", sentBody("abc"), gotInterim(100)).as(func(r *row) { r.answers = []string{early + go100 + body + ok("b")} }),
		pass("9110-10.1.1 an expectation is compared without case", post("Expect: 100-CONTINUE", "Content-Length: 3")+await+"abc", sentBody("abc"), gotInterim(100)).as(func(r *row) { r.answers = []string{early + go100 + body + ok("b")} }),
		pass("9110-10.1.1 a client that does not wait for its 100", post("Expect: 100-continue", "Content-Length: 3")+"abc", sentBody("abc")).as(func(r *row) { r.answers = []string{early + go100 + body + ok("b")} }),
		pass("9110-10.1.1 an expectation from HTTP/1.0 is ignored", "POST /r HTTP/1.0\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\nabc", sentBody("abc"), gotInterim(), notSent("Expect")).as(old),
		pass("9110-10.1.1 an expectation without a body", get("Expect: 100-continue"), gotInterim()),
		refuse("9110-10.1.1 an expectation of something else is a 417", get("Expect: 200-ok"), 417),
		refuse("9110-10.1.1 an expectation of something more is a 417", post("Expect: 100-continue, frob", "Content-Length: 3")+"abc", 417),
		row{rule: "9110-10.1.1 a backend's 417 comes instead of 100", send: post("Expect: 100-continue", "Content-Length: 3"), n: 1, after: either, retires: true,
			answers: []string{early + answer("HTTP/1.1 417 Expectation Failed", "Content-Length: 0") + linger}, want: []check{statuses(417), gotInterim(), noneWhole()}},
		row{rule: "9110-10.1.1 a backend's 413 comes instead of 100", send: post("Expect: 100-continue", "Content-Length: 3000000"), n: 1, after: either,
			answers: []string{early + answer("HTTP/1.1 413 Content Too Large", "Content-Length: 0", "Connection: close") + shut}, want: []check{statuses(413), gotInterim(), noneWhole()}},
		row{rule: "9110-10.1.1 what follows an expectation refused is not a request", send: post("Expect: 100-continue", "Content-Length: 31") + await + evil, n: 1, after: either,
			answers: []string{early + answer("HTTP/1.1 403 Forbidden", "Content-Length: 0") + linger}, want: []check{statuses(403), func(s *sight) string {
				for _, m := range s.requests {
					if m.target() == "/evil" {
						return "the body went on as a request"
					}
				}
				return ""
			}}},
		row{rule: "9112-9.3 an early answer to a body that is still coming reaches the client", send: post("Content-Length: 400000") + strings.Repeat("x", 200_000) + await, n: 1, after: either, retires: true,
			answers: []string{early + answer("HTTP/1.1 403 Forbidden", "Content-Length: 1") + "b" + linger}, want: []check{statuses(403), gotBody("b"), noneWhole()}},

		relays("9110-15.2 a 103 goes through", answer("HTTP/1.1 103 Early Hints", "Link: </a>")+ok("b"), statuses(200), gotInterim(103), gotBody("b"), func(s *sight) string {
			if !has(s.interim[0].fields, "Link: </a>") {
				return "without its Link"
			}
			return ""
		}),
		relays("9110-15.2 several interim answers go through in order", answer("HTTP/1.1 102 Processing")+answer("HTTP/1.1 103 Early Hints")+pause+answer("HTTP/1.1 103 Early Hints")+ok("b"), statuses(200), gotInterim(102, 103, 103)),
		relays("9110-15.2 an unknown interim answer goes through", answer("HTTP/1.1 199 Frob")+ok("b"), statuses(200), gotInterim(199)),
		relays("9110-15.2 a 100 that nobody asked for goes through", unasked+ok("b"), statuses(200), gotInterim(100)),
		relays("9110-15.2 a client of HTTP/1.0 gets no interim answer", answer("HTTP/1.1 103 Early Hints")+unasked+ok("b"), statuses(200), gotInterim(), gotBody("b")).as(func(r *row) {
			r.send, r.after = "GET /r HTTP/1.0\r\nHost: a\r\n\r\n", closes
		}),
		relays("9110-7.6.1 an interim answer's hop-by-hop fields end here", answer("HTTP/1.1 103 Early Hints", "Connection: X-A", "X-A: 1", "Keep-Alive: 1")+ok("b"), statuses(200), func(s *sight) string {
			if len(s.interim) != 1 {
				return "no interim answer"
			}
			return without("X-A", "Connection", "Keep-Alive")(s.interim[0])
		}),
		badAnswer("9112-6.3 an interim answer with a length", answer("HTTP/1.1 103 Early Hints", "Content-Length: 3")+ok("b")),
		badAnswer("9112-6.1 an interim answer with a coding", answer("HTTP/1.1 103 Early Hints", "Transfer-Encoding: chunked")+ok("b")),
		badAnswer("9110-15.2 an interim answer and then nothing", answer("HTTP/1.1 103 Early Hints")+shut),
		relays("9110-15.2 an interim answer to a POST and then the answer", early+answer("HTTP/1.1 103 Early Hints")+body+ok("b"), statuses(200), gotInterim(103), sentBody("abc")).as(func(r *row) {
			r.send = post("Content-Length: 3") + "abc"
		}),
	}
	return rows
}

// pipelineRows are about several requests on one connection.
func pipelineRows() []row {
	to := func(path string, fields ...string) string { return req("GET "+path+" HTTP/1.1", fields...) }
	three := []check{statuses(200, 200, 200), behind(3), bodies("/1", "/2", "/3")}
	two := func(want ...check) func(*row) {
		return func(r *row) { r.n, r.want = 2, append([]check{behind(2)}, want...) }
	}
	return []row{
		{rule: "9112-9.3.2 pipelined requests are answered in order", send: to("/1") + to("/2") + to("/3"), n: 3, want: three},
		{rule: "9112-9.3.2 pipelined requests are answered in order when the first is slow", send: to("/1") + to("/2") + to("/3"), n: 3,
			answers: []string{pause + pause + ok("/1"), ok("/2"), pause + ok("/3")}, want: three},
		{rule: "9112-9.3.2 requests cut at odd places", send: to("/1")[:20] + pause + to("/1")[20:] + to("/2")[:3] + pause + to("/2")[3:] + to("/3"), n: 3, want: three},
		{rule: "9112-9.3.2 a hundred pipelined requests", send: strings.Repeat(to("/1"), 100), n: 100, want: []check{behind(100)}},
		{rule: "9112-9.3.2 HEAD and GET are answered in order", send: req("HEAD /1 HTTP/1.1") + to("/2") + req("HEAD /3 HTTP/1.1"), methods: "HEAD GET HEAD", n: 3, want: []check{statuses(200, 200, 200), behind(3), bodies("", "/2", "")}},
		{rule: "9112-9.3.2 a POST between two GETs", send: to("/1") + req("POST /2 HTTP/1.1", "Content-Length: 3") + "abc" + to("/3"), n: 3, want: append(three, request(1, text("abc")))},
		{rule: "9112-9.3.2 a chunked POST between two GETs", send: to("/1") + req("POST /2 HTTP/1.1", "Transfer-Encoding: chunked") + "3\r\nabc\r\n0\r\n\r\n" + to("/3"), n: 3, want: append(three, request(1, text("abc")))},
		{rule: "9112-9.3.2 an invalid request behind a valid one", send: to("/1") + "GET /2 HTTP/1.1\r\n\r\n" + to("/3"), n: 2, after: closes, want: []check{statuses(200, 400), behind(1)}},
		{rule: "9112-9.3.2 an invalid body behind a valid request", send: to("/1") + req("POST /2 HTTP/1.1", "Transfer-Encoding: chunked") + "x\r\n" + to("/3"), n: 2, after: closes, want: []check{statuses(200, 400)}},
		{rule: "9112-9.3.2 an invalid request behind a slow one", send: to("/1") + "GET /2 HTTP/9.1\r\n\r\n", n: 2, after: closes, answers: []string{pause + ok("/1")}, want: []check{statuses(200, 505), behind(1)}},
		{rule: "9112-9.3.2 an error of the backend is answered in order too", send: to("/1") + to("/2") + to("/3"), n: 3,
			answers: []string{ok("/1"), "garbage\r\n\r\n" + linger, ok("/3")}, want: []check{statuses(200, 502, 200), behind(3)}},
		pass("9110-9.2.2 a POST whose answer does not come is not sent twice", post("Content-Length: 3")+"abc").as(func(r *row) {
			r.answers, r.want = []string{shut}, []check{statuses(502), behind(1)}
		}),
		pass("9110-9.2.2 a POST is not sent twice when a kept connection dies", get()+await+post("Content-Length: 3")+"abc").as(func(r *row) {
			r.answers = []string{ok("a"), shut}
		}).as(two(statuses(200, 502))),
		pass("9110-9.2.2 a PATCH is not sent twice when it is reset", lines("PATCH /r HTTP/1.1", "Host: a", "Content-Length: 3")+"abc").as(func(r *row) {
			r.answers, r.want = []string{reset}, []check{statuses(502), behind(1)}
		}),
		pass("9110-9.2.2 an unknown method is not sent twice", req("FROB /r HTTP/1.1")).as(func(r *row) {
			r.answers, r.want = []string{shut}, []check{statuses(502), behind(1)}
		}),
		{rule: "9112-9.3.1 a GET is sent again when a kept connection has died", send: get() + await + get(), n: 2, answers: []string{ok("a"), shut, ok("c")}, want: []check{statuses(200, 200), behind(3), bodies("a", "c")}},
		{rule: "9112-8 a request cut within its head goes nowhere", send: "GET /r HTTP/1.1\r\nHost: a\r\nX" + shut, after: either, want: []check{untouched()}},
		{rule: "9112-8 a request cut within a short body is no whole one", send: post("Content-Length: 9") + "abc" + shut, after: either, want: []check{noneWhole()}},
		{rule: "9112-8 a request cut within a long body is no whole one", send: post("Content-Length: 90000") + strings.Repeat("x", 60_000) + shut, after: either, want: []check{noneWhole()}},
		{rule: "9112-8 a request cut within a chunk is no whole one", send: chunks("9\r\nabc") + shut, after: either, want: []check{noneWhole()}},
		{rule: "9112-8 a request cut between chunks is no whole one", send: chunks("3\r\nabc\r\n") + shut, after: either, want: []check{noneWhole()}},
		{rule: "9112-8 a request cut before the final empty line is no whole one", send: chunks("3\r\nabc\r\n0\r\n") + shut, after: either, want: []check{noneWhole()}},
		{rule: "9112-8 a request cut within its trailers is no whole one", send: chunks("3\r\nabc\r\n0\r\nX-T: y\r\n") + reset, after: either, want: []check{noneWhole()}},
	}
}

// bodies are those of the answers, in order.
func bodies(want ...string) check {
	return func(s *sight) string {
		for i, w := range want {
			if why := reply(i, text(w))(s); why != "" {
				return why
			}
		}
		return ""
	}
}
