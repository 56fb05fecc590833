package conform

import (
	"fmt"
	"strconv"
)

// hopFields are meant for one connection, whether Connection says so or not
// (RFC 9110 section 7.6.1).
var hopFields = []string{"Keep-Alive: timeout=5", "Proxy-Connection: keep-alive", "TE: deflate", "Upgrade: frob"} // read-only

func hopRows() []row {
	old := func(fields ...string) string {
		return lines(append([]string{"GET /r HTTP/1.0", "Host: a"}, fields...)...)
	}
	ends := func(r *row) { r.after = closes }
	rows := []row{
		// What Connection names.
		pass("9110-7.6.1 a field that Connection names ends here", get("Connection: X-A", "X-A: 1", "X-B: 2"), notSent("X-A", "Connection"), sent("X-B: 2")),
		pass("9110-7.6.1 Connection names fields without case", get("Connection: x-a", "X-A: 1"), notSent("X-A", "Connection")),
		pass("9110-7.6.1 Connection names several fields", get("Connection: keep-alive,X-A ,\t X-B", "X-A: 1", "X-B: 2", "X-a: 3"), notSent("X-A", "X-B", "Connection", "Keep-Alive")),
		pass("9110-7.6.1 several Connections name fields", get("Connection: X-A", "X-A: 1", "Connection: X-B", "X-B: 2"), notSent("X-A", "X-B", "Connection")),
		pass("9110-5.6.1 empty elements of Connection are skipped", get("Connection: ,, X-A,", "X-A: 1"), notSent("X-A", "Connection")),
		pass("9110-7.6.1 Connection names a field that comes before it", get("X-A: 1", "Connection: X-A"), notSent("X-A", "Connection")),
		pass("9110-7.6.1 Connection cannot take Host away", get("Connection: Host"), sent("Host: a"), notSent("Connection")),
		pass("9110-7.6.1 Connection with close and a name", get("Connection: close, X-A", "X-A: 1"), notSent("X-A")).as(ends),
		relays("9110-7.6.1 a field that an answer's Connection names ends here", ok("b", "Connection: X-A", "X-A: 1", "X-B: 2"), statuses(200), notGot("X-A", "Connection"), got("X-B: 2")),
		relays("9110-7.6.1 an answer's Connection cannot take the length away", ok("b", "Connection: Content-Length"), statuses(200), got("Content-Length: 1"), gotBody("b")),
		relays("9110-7.6.1 an answer's Connection cannot take the coding away", "HTTP/1.1 200 OK\r\nConnection: Transfer-Encoding\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nb\r\n0\r\n\r\n", statuses(200), gotBody("b")),
		pass("9110-10.1.4 TE goes on as this hop's own or not at all", get("TE: trailers, deflate;q=0.5", "Connection: TE"), request(0, func(m *message) string {
			if te := m.get("TE"); te != nil && !(len(te) == 1 && te[0] == "trailers" && m.lists("Connection", "TE")) {
				return fmt.Sprintf("TE %q with Connection %q", te, m.get("Connection"))
			}
			return ""
		})),
		pass("9110-6.6.2 Trailer goes through", post("Trailer: X-T", "Transfer-Encoding: chunked")+"0\r\nX-T: y\r\n\r\n", sent("Trailer: X-T"), sentTrailers("X-T: y")),

		// Who keeps a connection.
		pass("9112-9.3 HTTP/1.1 keeps a connection", get()),
		pass("9112-9.3 HTTP/1.1 keeps a connection, said aloud", get("Connection: keep-alive")),
		pass("9112-9.6 close ends the connection behind the answer", get("Connection: close"), got("Connection: close")).as(ends),
		pass("9112-9.6 Close in capitals", get("Connection: CLOSE"), got("Connection: close")).as(ends),
		pass("9112-9.6 close in a list", get("Connection: keep-alive, close")).as(ends),
		pass("9112-9.6 close in a second Connection", get("Connection: keep-alive", "Connection: close")).as(ends),
		pass("9112-9.6 what follows a request with close is not processed", get("Connection: close")+evil).as(ends),
		pass("9112-9.3 HTTP/1.0 ends the connection", old()).as(ends),
		pass("9112-9.3 HTTP/1.0 may ask to keep it, and is told so", old("Connection: keep-alive"), got("Connection: keep-alive")),
		pass("9112-9.3 HTTP/1.0 with keep-alive and close", old("Connection: keep-alive, close")).as(ends),
		pass("9112-C.2.2 Proxy-Connection does not keep a connection", old("Proxy-Connection: keep-alive")).as(ends),
		pass("9112-C.2.2 Keep-Alive alone does not keep a connection", old("Keep-Alive: 300")).as(ends),
		relays("9112-9.3 a backend that closes does not end the client's connection", ok("b", "Connection: close")+shut, statuses(200), notGot("Connection"), gotBody("b")),
		relays("9112-9.3 a backend of HTTP/1.0 does not end the client's connection", "HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\nb"+shut, statuses(200), notGot("Connection"), gotBody("b")),
		relays("9112-9.6 after an answer with close the backend's connection is not used", ok("b", "Connection: close")+linger, statuses(200)).as(func(r *row) { r.retires = true }),
		relays("9112-9.3 after an answer of HTTP/1.0 the backend's connection is not used", "HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\nb"+linger, statuses(200)).as(func(r *row) { r.retires = true }),
		relays("9112-9.3 after an answer the backend's connection is used again", ok("b"), statuses(200), func(s *sight) string {
			// The client's next request finds it in any case; another's may come before
			// it is back in the pool.
			if !s.reused() {
				return "another connection is used"
			}
			return ""
		}),

		// Upgrade.
		upgrade("9110-7.8 an upgrade that is agreed to", []string{"Connection: Upgrade", "Upgrade: frob"}, "Connection: Upgrade", "Upgrade: frob"),
		upgrade("9110-7.8 the protocol is compared without case", []string{"Connection: upgrade", "Upgrade: FROB"}, "Connection: upgrade", "Upgrade: frob"),
		upgrade("9110-7.8 one of several protocols is agreed to", []string{"Connection: keep-alive, Upgrade", "Upgrade: frob/2, frob/1"}, "Connection: Upgrade", "Upgrade: frob/1"),
		relays("9110-7.8 an upgrade that is declined", ok("b"), statuses(200), gotBody("b"), notGot("Connection", "Upgrade")).as(func(r *row) { r.send = get("Connection: Upgrade", "Upgrade: frob") }),
		pass("9110-7.8 Upgrade without Connection ends here", get("Upgrade: frob"), notSent("Upgrade", "Connection")),
		pass("9110-7.8 Upgrade from HTTP/1.0 is ignored", old("Connection: Upgrade", "Upgrade: frob"), notSent("Upgrade")).as(ends),
		pass("9113-3.1 h2c is not passed on", get("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAAP__"), notSent("Upgrade", "HTTP2-Settings", "Connection")),
		pass("9113-3.1 h2c in a list is not passed on", get("Connection: Upgrade", "Upgrade: frob, H2C"), request(0, func(m *message) string {
			if m.lists("Upgrade", "h2c") {
				return "h2c passed on"
			}
			return ""
		})),
		badAnswer("9110-15.2.2 a 101 that nobody asked for", answer("HTTP/1.1 101 Switching Protocols", "Connection: Upgrade", "Upgrade: frob")),
		badAnswer("9110-7.8 a 101 that names no protocol", answer("HTTP/1.1 101 Switching Protocols", "Connection: Upgrade")).as(func(r *row) { r.send = get("Connection: Upgrade", "Upgrade: frob") }),
		badAnswer("9110-7.8 a 101 to a protocol that was not asked for", answer("HTTP/1.1 101 Switching Protocols", "Connection: Upgrade", "Upgrade: h2c")).as(func(r *row) { r.send = get("Connection: Upgrade", "Upgrade: frob") }),
		relays("9110-15.5.22 a 426 keeps its Upgrade", answer("HTTP/1.1 426 Upgrade Required", "Connection: Upgrade", "Upgrade: frob", "Content-Length: 0"), statuses(426), got("Upgrade: frob")),
		badAnswer("9110-7.8 a 101 to HTTP/1.0", answer("HTTP/1.1 101 Switching Protocols", "Connection: Upgrade", "Upgrade: frob")).as(func(r *row) {
			r.send, r.after = old("Connection: Upgrade", "Upgrade: frob"), closes
		}),

		// Max-Forwards.
		pass("9110-7.6.2 Max-Forwards of TRACE is counted down", req("TRACE /r HTTP/1.1", "Max-Forwards: 5"), sent("Max-Forwards: 4")),
		pass("9110-7.6.2 Max-Forwards of OPTIONS is counted down", req("OPTIONS /r HTTP/1.1", "Max-Forwards: 1"), sent("Max-Forwards: 0")),
		pass("9110-7.6.2 Max-Forwards of OPTIONS * is counted down", req("OPTIONS * HTTP/1.1", "Max-Forwards: 10"), sent("Max-Forwards: 9")),
		pass("9110-7.6.2 Max-Forwards of GET means nothing", get("Max-Forwards: 0")),
		pass("9110-9.3.8 TRACE without Max-Forwards goes through", req("TRACE /r HTTP/1.1")),
		stays("9110-7.6.2 TRACE with Max-Forwards 0 stays here", req("TRACE /r HTTP/1.1", "Max-Forwards: 0"), 200, 405, 501),
		stays("9110-7.6.2 OPTIONS with Max-Forwards 0 stays here", req("OPTIONS /r HTTP/1.1", "Max-Forwards: 0"), 200, 204, 405, 501),
		stays("9110-7.6.2 OPTIONS * with Max-Forwards 00 stays here", req("OPTIONS * HTTP/1.1", "Max-Forwards: 00"), 200, 204, 405, 501),
	}
	for _, f := range hopFields {
		name, _ := cutField(f)
		rows = append(rows,
			pass("9110-7.6.1 "+name+" ends here, named or not", get(f), notSent(name)),
			relays("9110-7.6.1 "+name+" of an answer ends here, named or not", ok("b", f), statuses(200), notGot(name)))
	}
	return rows
}

func cutField(line string) (name, value string) {
	m := &message{}
	f := m.field(line)
	return f.name, f.value
}

// stays is a row with a valid request that the proxy is to answer itself.
func stays(rule, send string, status ...int) row {
	return row{rule: rule, send: send, n: 1, after: either, want: []check{oneOf(status...), untouched()}}
}

// upgrade is a row with a tunnel: bytes that come early on both sides, and what
// is said later.
func upgrade(rule string, asks []string, agrees ...string) row {
	_, protocol := cutField(asks[1])
	return row{
		rule: rule, n: 1, after: either,
		send:    get(asks...) + await + "one\x00two\xff" + pause + tunnelEnd,
		answers: []string{answer("HTTP/1.1 101 Switching Protocols", agrees...) + "hello" + echo},
		want: []check{
			statuses(101), got(agrees[1]), tunnelled("helloone\x00two\xff" + tunnelEnd), sent("Upgrade: " + protocol),
			reply(0, func(m *message) string {
				if !m.lists("Connection", "upgrade") {
					return "Connection " + strconv.Quote(m.start)
				}
				return ""
			}),
			request(0, func(m *message) string {
				if !m.lists("Connection", "upgrade") {
					return "the backend is not told to upgrade"
				}
				return ""
			}),
		},
	}
}
