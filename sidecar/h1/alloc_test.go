package h1

import (
	"io"
	"net"
	"runtime"
	"runtime/debug"
	"strings"
	"testing"

	"outrigger/sidecar/balance"
)

// loop is a client and a backend on raw connections that themselves allocate
// nothing per request: both know how many bytes the other side sends.
type loop struct {
	t      testing.TB
	client net.Conn
	req    []byte
	got    []byte // room for the answer as the client sees it
}

// newLoop starts a server before a backend that gives answer to every request.
// One exchange is made to learn the lengths.
func newLoop(t testing.TB, req, answer string) *loop {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	learnt := make(chan int)
	go func() { // what a backend gets of req
		nc, err := ln.Accept()
		if err != nil {
			return
		}
		buf := make([]byte, 128<<10)
		n := 0
		for end := req[len(req)-4:]; ; { // the last bytes pass unchanged
			k, err := nc.Read(buf[n:])
			if n += k; err != nil {
				return
			}
			if strings.HasSuffix(string(buf[:n]), end) {
				break
			}
		}
		_, _ = io.WriteString(nc, answer)
		learnt <- n
		in, out := buf[:n], []byte(answer)
		for {
			if _, err := io.ReadFull(nc, in); err != nil {
				nc.Close()
				return
			}
			if _, err := nc.Write(out); err != nil {
				return
			}
		}
	}()
	cfg := DefaultConfig()
	r := newRig(t, cfg, balance.DefaultConfig(), ln.Addr().String())
	nc, err := net.Dial("tcp", r.addr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { nc.Close() })
	l := &loop{t: t, client: nc, req: []byte(req)}
	if _, err := nc.Write(l.req); err != nil {
		t.Fatal(err)
	}
	<-learnt
	l.got = make([]byte, 128<<10)
	end, n := answer[len(answer)-4:], 0
	for !strings.HasSuffix(string(l.got[:n]), end) {
		k, err := nc.Read(l.got[n:])
		if n += k; err != nil {
			t.Fatal(err)
		}
	}
	l.got = l.got[:n]
	r.settled()
	return l
}

// exchange sends the request and reads the answer.
func (l *loop) exchange() {
	if _, err := l.client.Write(l.req); err != nil {
		l.t.Fatal(err)
	}
	if _, err := io.ReadFull(l.client, l.got); err != nil {
		l.t.Fatal(err)
	}
}

// cases are the exchanges that must not allocate in steady state, but for what
// is noted.
var cases = []struct {
	name, req, answer string
	allowed           float64 // allocations per request
}{
	{"get", lines("GET /index.html HTTP/1.1", "Host: example.com", "User-Agent: test/1.0", "Accept: */*", "Cookie: a=b"),
		lines("HTTP/1.1 200 OK", "Server: test", "Content-Type: text/plain", "Date: Sat, 21 Nov 2026 00:00:00 GMT", "Content-Length: 5") + "hello", background},
	{"post", lines("POST /api HTTP/1.1", "Host: example.com", "Content-Type: application/json", "Content-Length: 13") + `{"a":"bcdef"}`,
		lines("HTTP/1.1 201 Created", "Content-Type: application/json", "Content-Length: 4") + "null", background},
	{"chunked answer", lines("GET / HTTP/1.1", "Host: example.com"),
		lines("HTTP/1.1 200 OK", "Transfer-Encoding: chunked") + "5\r\nhello\r\n0\r\n\r\n", background},
	{"streamed body", lines("POST / HTTP/1.1", "Host: example.com", "Content-Length: 40000") + strings.Repeat("x", 39_996) + "last",
		lines("HTTP/1.1 204 No Content"), 3}, // a timer, when the answer overtakes the pump (upload.ended)
	{"hop-by-hop", lines("GET / HTTP/1.1", "Host: [::1]:80", "Connection: keep-alive, x-a", "X-A: 1", "Via: 1.1 a", "X-Forwarded-For: 1.2.3.4"),
		lines("HTTP/1.1 304 Not Modified", "ETag: x", "Connection: keep-alive"), background},
}

// background is what the rest of the process may allocate meanwhile: the
// reaper's sweep once a second, the runtime.
const background = 0.05

// In steady state a request allocates nothing: measured over the whole
// process, with what the runtime and the clock do besides.
func TestNoAllocations(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	for _, tt := range cases {
		t.Run(tt.name, func(t *testing.T) {
			l := newLoop(t, tt.req, tt.answer)
			for range 200 {
				l.exchange()
			}
			runtime.GC()
			defer debug.SetGCPercent(debug.SetGCPercent(-1)) // a collection empties the buffer pool
			l.exchange()
			const n = 2000
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			for range n {
				l.exchange()
			}
			runtime.ReadMemStats(&after)
			per := float64(after.Mallocs-before.Mallocs) / n
			t.Logf("%.4f allocations, %.1f bytes per request", per, float64(after.TotalAlloc-before.TotalAlloc)/n)
			if per >= tt.allowed {
				t.Errorf("%.2f allocations per request, less than %.2f are allowed", per, tt.allowed)
			}
		})
	}
}
