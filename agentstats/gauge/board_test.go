package gauge

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

func TestBoardRefuses(t *testing.T) {
	a := tcpAgent(t, BoardEnv{})
	const up = "Connection: keep-alive, upgrade\r\nUpgrade: Outrigger-Gauge\r\n"
	for _, c := range []struct {
		name, head string
		status     int
	}{
		{"ours, spelt otherwise", "GET /v1/gauge HTTP/1.1\r\nHost: a\r\n" + up, 101},
		{"no upgrade", "GET /v1/gauge HTTP/1.1\r\nHost: a\r\n", 426},
		{"upgrade without connection", "GET /v1/gauge HTTP/1.1\r\nHost: a\r\nUpgrade: outrigger-gauge\r\n", 426},
		{"websocket", "GET /v1/gauge HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n", 426},
		{"a prefix of ours", "GET /v1/gauge HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: outrigger\r\n", 426},
		{"a page in a browser", "GET /v1/gauge HTTP/1.1\r\nHost: a\r\nOrigin: https://evil.example\r\n" + up, 403},
		{"a hidden origin", "GET /v1/gauge HTTP/1.1\r\nHost: a\r\nOrigin: null\r\n" + up, 403},
		{"a browser", "GET /v1/gauge HTTP/1.1\r\nHost: a\r\nSec-Fetch-Site: cross-site\r\n" + up, 403},
		{"HTTP/1.0", "GET /v1/gauge HTTP/1.0\r\nHost: a\r\n" + up, 505},
		{"a body", "GET /v1/gauge HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n" + up, 400},
		{"chunks", "GET /v1/gauge HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n" + up, 400},
		{"HEAD, which the mux counts as GET", "HEAD /v1/gauge HTTP/1.1\r\nHost: a\r\n" + up, 405},
		{"POST", "POST /v1/gauge HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n" + up, 405},
	} {
		conn, err := net.Dial("tcp", a.addr)
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(conn, c.head+"\r\n")
		conn.SetReadDeadline(time.Now().Add(patience))
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil || resp.StatusCode != c.status {
			t.Errorf("%s: %+v, %v; want %d", c.name, resp, err, c.status)
		} else if c.status == 426 && resp.Header.Get("Upgrade") != Protocol {
			t.Errorf("%s: the answer does not say what to upgrade to", c.name)
		}
		conn.Close()
	}
	eventually(t, "the stream leaves", func() bool { return a.Stats().Open == 0 })
	if s := a.Stats(); s.Refused != 11 { // the mux answers POST itself
		t.Errorf("counted %+v", s)
	}
}

func TestBoardSums(t *testing.T) { bothWays(t, boardSums) }

func boardSums(t *testing.T, env BoardEnv) {
	var c clock
	env.Now = c.now
	a := tcpAgent(t, env)
	if total, n, age := a.Sum(c.now()); total != 0 || n != 0 || age != 0 {
		t.Errorf("with nobody there: %v, %d, %v", total, n, age)
	}
	conns := make([]net.Conn, 5)
	for i := range conns {
		conns[i] = raw(t, a.addr)
		sums(t, a.Board, c.now(), 0, i+1)
	}
	frames := uint64(0)
	say := func(i int, v int64) {
		t.Helper()
		put(t, conns[i], v)
		frames++
		eventually(t, "a frame is read", func() bool { return a.Stats().Frames == frames })
	}
	for i := range conns {
		say(i, int64(10*i)) // 0 10 20 30 40
	}
	sums(t, a.Board, c.now(), 100, 5)
	say(4, 4)
	say(1, 0)
	say(2, MaxValue)
	sums(t, a.Board, c.now(), MaxValue+34, 5)
	say(2, 1)
	sums(t, a.Board, c.now(), 35, 5)

	// One is killed: no FIN, a reset.
	conns[3].(*net.TCPConn).SetLinger(0)
	conns[3].Close()
	eventually(t, "the killed one drops out", func() bool { return a.total() == 5 })
	sums(t, a.Board, c.now(), 5, 4)

	// Silence. 3 s after its own last frame each is left out; those at 0 stay.
	c.advance(2 * time.Second)
	say(4, 4)
	c.advance(time.Second - 1)
	if _, _, age := a.Sum(c.now()); age != time.Second-1 {
		t.Errorf("the newest frame is %v old", age)
	}
	sums(t, a.Board, c.now(), 5, 4)
	c.advance(1)
	sums(t, a.Board, c.now(), 4, 3)
	c.advance(2 * time.Second)
	sums(t, a.Board, c.now(), 0, 2)
	if s := a.Stats(); s.Open != 4 || s.Expired != 2 {
		t.Errorf("counted %+v", s)
	}
	say(2, 7) // it was only slow
	sums(t, a.Board, c.now(), 7, 3)

	// The other one is closed when nothing came for much longer.
	c.advance(lost - 2*time.Second)
	a.Sum(c.now())
	a.ends(t, conns[4])
	eventually(t, "the lost one has left", func() bool { return a.Stats().Open == 3 })
	sums(t, a.Board, c.now(), 0, 2)
	put(t, conns[0], 1) // at 0 all the time: it never owed anything
	frames++
	eventually(t, "a frame is read", func() bool { return a.Stats().Frames == frames })
	sums(t, a.Board, c.now(), 1, 3-1)
}

func TestBoardEndsBrokenStreams(t *testing.T) { bothWays(t, boardEndsBrokenStreams) }

func boardEndsBrokenStreams(t *testing.T, env BoardEnv) {
	a := tcpAgent(t, env)
	good := raw(t, a.addr)
	put(t, good, 3)
	for i, bytes := range []string{
		"\xff\xff\xff\xff",
		"\x3b\x9a\xca\x01",
		"\x00\x00\x00\x05\x00\x00\x00\x06\x80\x00\x00\x00\x00\x00\x00\x01",
		"GET /v1/report HTTP/1.1\r\n\r\n",
	} {
		c := raw(t, a.addr)
		put(t, c, 100)
		io.WriteString(c, bytes)
		a.ends(t, c)
		eventually(t, "it has left", func() bool { return a.Stats().Open == 1 && a.total() == 3 })
		if n := a.Stats().Broken; n != uint64(i+1) {
			t.Errorf("%q: %d counted as broken", bytes, n)
		}
	}
	// Frames before the 101 are none of a sidecar's.
	c, err := net.Dial("tcp", a.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	io.WriteString(c, request+"\x00\x00\x00\x09")
	a.ends(t, c)
	// Half a frame at the end is no gauge.
	c = raw(t, a.addr)
	io.WriteString(c, "\x00\x00\x01")
	c.Close()
	eventually(t, "it has left", func() bool { return a.Stats().Open == 1 })
	if s := a.Stats(); s.Broken != 5 || a.total() != 3 {
		t.Errorf("counted %+v, sum %v", s, a.total())
	}
}

func TestBoardIsBounded(t *testing.T) {
	var out lines
	b := NewBoard(BoardConfig{MaxStreams: 2}, BoardEnv{Logger: out.logger()})
	a := serve(t, b, listen(t, "127.0.0.1:0"))
	one := raw(t, a.addr)
	raw(t, a.addr)
	ask := func() *http.Response {
		t.Helper()
		c, err := net.Dial("tcp", a.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		io.WriteString(c, request)
		resp, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			t.Fatal(err)
		}
		return resp
	}
	for range 3 {
		if r := ask(); r.StatusCode != 503 || r.Header.Get("Retry-After") == "" {
			t.Fatalf("a third was answered %+v", r)
		}
	}
	if n := out.count("turned away"); n != 1 {
		t.Errorf("logged %d times", n)
	}
	one.Close()
	eventually(t, "there is room again", func() bool { return a.Stats().Open == 1 })
	raw(t, a.addr)
	a.Close()
	if s := a.Stats(); s.Open != 0 {
		t.Errorf("after Close: %+v", s)
	}
	if r := ask(); r.StatusCode != 503 {
		t.Errorf("after Close: %+v", r)
	}
}

// TestBoardComplains: however often it gets full, it says so once a minute.
func TestBoardComplains(t *testing.T) {
	var out lines
	now := time.Now()
	b := NewBoard(BoardConfig{MaxStreams: 1}, BoardEnv{Now: func() time.Time { return now }, Logger: out.logger()})
	defer b.Close()
	r := httptest.NewRequest("GET", Path, nil)
	for range 300 {
		s := &stream{}
		b.mu.Lock()
		b.streams[s] = struct{}{}
		b.mu.Unlock()
		if b.room(r) {
			t.Fatal("the bound is 1")
		}
		b.mu.Lock()
		delete(b.streams, s)
		b.mu.Unlock()
		if !b.room(r) {
			t.Fatal("no room without a stream")
		}
		now = now.Add(complainEvery / 200)
	}
	if n := out.count("turned away"); n != 2 {
		t.Errorf("%d lines", n)
	}
}

// TestBoardPaces: who floods is read at a bounded rate, and its newest gauge counts.
func TestBoardPaces(t *testing.T) {
	a := tcpAgent(t, BoardEnv{Socket: func(net.Conn) *net.TCPConn { return nil }})
	c := raw(t, a.addr)
	const frames = 20000
	var b strings.Builder
	for i := range frames {
		f := frame(int64(i + 1))
		b.Write(f[:])
	}
	began := time.Now()
	io.WriteString(c, b.String())
	eventually(t, "the last frame is read", func() bool { return a.total() == frames })
	reads := a.Stats().Frames
	if most := uint64(time.Since(began)/pace) + 2; reads > most || reads < frames/16 {
		t.Errorf("%d reads, want %d to %d", reads, frames/16, most)
	}
}
