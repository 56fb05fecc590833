package h1

import (
	"encoding/json"
	"strconv"
	"strings"
	"testing"
	"time"

	"outrigger/sidecar/balance"
)

// wantRefusal reads a 503 of our own and checks its form.
func wantRefusal(t *testing.T, c *peer, reason string, asJSON bool) {
	t.Helper()
	a := c.wantOwn(503, reason)
	after, err := strconv.Atoi(a.Header.Get("Retry-After"))
	if err != nil || after < 1 || after > 30 {
		t.Errorf("Retry-After %q", a.Header.Get("Retry-After"))
	}
	if a.Header.Get("Cache-Control") != "no-store" {
		t.Errorf("a refusal that could be cached: %v", a.Header)
	}
	if !asJSON {
		if !strings.HasPrefix(a.Header.Get("Content-Type"), "text/plain") || strings.Count(a.body, "\n") != 1 || len(a.body) < 20 {
			t.Errorf("%v %q", a.Header, a.body)
		}
		return
	}
	var got struct {
		Status     int    `json:"status"`
		Reason     string `json:"reason"`
		Message    string `json:"message"`
		RetryAfter int    `json:"retry_after"`
	}
	if err := json.Unmarshal([]byte(a.body), &got); err != nil {
		t.Fatalf("%q: %v", a.body, err)
	}
	if got.Status != 503 || got.Reason != reason || got.RetryAfter != after || got.Message == "" || a.Header.Get("Content-Type") != "application/json" {
		t.Errorf("%+v %v", got, a.Header)
	}
}

func TestNoBackends(t *testing.T) {
	t.Parallel()
	r := newRig(t, quick(), balance.DefaultConfig())
	c := r.dial()
	for _, tt := range []struct {
		accept string
		json   bool
	}{
		{"", false}, {"text/html", false}, {"*/*", false},
		{"application/json", true}, {"text/html;q=0.5, application/json", true},
	} {
		c.send(get("Accept: " + tt.accept))
		wantRefusal(t, c, "no_backends", tt.json)
	}
	// A body that was small enough to be taken in does not end the connection.
	c.send(post("Content-Length: 3") + "abc")
	wantRefusal(t, c, "no_backends", false)
	c.send(lines("HEAD / HTTP/1.1", "Host: a"))
	if a := c.want("HEAD", 503, ""); a.ContentLength <= 0 || a.Close {
		t.Errorf("%v", a.Header)
	}
	c.send(post("Content-Length: 100000"))
	a := c.answer("POST")
	if a.StatusCode != 503 || !a.Close {
		t.Errorf("%d, close %v, with a body that was not read", a.StatusCode, a.Close)
	}
	c.send(strings.Repeat("x", 100_000)) // still sending: the answer is not reset away
	c.wantEnd("eof")

	c = r.dial()
	c.send(lines("GET / HTTP/1.0"))
	wantRefusal(t, c, "no_backends", false)
	c.wantEnd("eof")
	c = r.dial()
	c.send(lines("GET / HTTP/1.0", "Connection: keep-alive"))
	if a := c.wantOwn(503, "no_backends"); a.Header.Get("Connection") != "keep-alive" {
		t.Errorf("%v", a.Header)
	}
	if st := r.s.Stats(); st.Own[5] != 10 || st.ClientErrors != 0 {
		t.Errorf("%+v", st)
	}
}

func TestHealsWhenABackendComes(t *testing.T) {
	t.Parallel()
	b := named(t, "b")
	r := newRig(t, quick(), balance.DefaultConfig())
	c := r.dial()
	c.send(get1("/"))
	wantRefusal(t, c, "no_backends", false)
	r.set(b.addr)
	c.send(get1("/"))
	c.want("GET", 200, "b")
	r.set()
	c.send(get1("/"))
	wantRefusal(t, c, "no_backends", false)
	eventually(t, "the connection to a backend that has left is closed", func() bool { return b.open.Load() == 0 })
}

// held is a backend that answers when it is told to.
func held(t *testing.T) (*backend, chan bool) {
	release := make(chan bool)
	return newBackend(t, func(b *backend, p *peer) {
		for b.head(p) != "" {
			await(t, release)
			p.send(ok200("b"))
		}
	}), release
}

func TestSaturated(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		reason  string
		length  int
		timeout time.Duration
	}{{"saturated", 0, time.Second}, {"queue_timeout", 5, 50 * time.Millisecond}} {
		b, release := held(t)
		bcfg := balance.DefaultConfig()
		bcfg.MaxInFlight, bcfg.Queue.Length, bcfg.Queue.Timeout = 1, tt.length, tt.timeout
		r := newRig(t, quick(), bcfg, b.addr)
		first, second := r.dial(), r.dial()
		first.send(get1("/"))
		r.eventually("the slot is taken", func() bool { return len(b.got()) == 1 })
		second.send(get("Accept: application/json"))
		wantRefusal(t, second, tt.reason, true)
		give(t, release)
		first.want("GET", 200, "b")
		r.settled()
		second.send(get1("/")) // its connection lives on
		give(t, release)
		second.want("GET", 200, "b")
		r.wantTotals(2, 0, 0)
	}
}

func TestQueueFull(t *testing.T) {
	t.Parallel()
	b, release := held(t)
	bcfg := balance.DefaultConfig()
	bcfg.MaxInFlight, bcfg.Queue.Length, bcfg.Queue.Timeout = 1, 1, patience
	r := newRig(t, quick(), bcfg, b.addr)
	first, second, third := r.dial(), r.dial(), r.dial()
	first.send(get1("/"))
	r.eventually("the slot is taken", func() bool { return len(b.got()) == 1 })
	second.send(get1("/"))
	r.eventually("one waits", func() bool { return r.b.Status().Waiting == 1 })
	third.send(get1("/"))
	wantRefusal(t, third, "queue_full", false)
	give(t, release)
	first.want("GET", 200, "b")
	give(t, release)
	second.want("GET", 200, "b")
}

func TestDraining(t *testing.T) {
	t.Parallel()
	b, release := held(t)
	r := newRig(t, quick(), balance.DefaultConfig(), b.addr)
	first, second := r.dial(), r.dial()
	first.send(get1("/"))
	r.eventually("it is on its way", func() bool { return len(b.got()) == 1 })
	r.b.Drain()
	second.send(get1("/"))
	wantRefusal(t, second, "draining", false)
	give(t, release)
	first.want("GET", 200, "b")
}

// Requests that are refused as invalid say so in a form that ends the
// connection, and touch nothing behind.
func TestInvalidRequests(t *testing.T) {
	t.Parallel()
	b := named(t, "b")
	r := newRig(t, quick(), balance.DefaultConfig(), b.addr)
	rows := []struct {
		in     string
		status int
	}{
		{lines("GET / HTTP/1.1"), 400},
		{"GET / HTTP/1.1\nHost: a\n\n", 400},
		{get("Content-Length: 3", "Transfer-Encoding: chunked") + chunkedABC, 400},
		{lines("GET / HTTP/2.0", "Host: a"), 505},
		{lines("CONNECT a:80 HTTP/1.1", "Host: a:80"), 501},
		{post("Transfer-Encoding: gzip, chunked"), 501},
		{lines("GET /"+strings.Repeat("a", 9000)+" HTTP/1.1", "Host: a"), 414},
		{"GET /" + strings.Repeat("a", 40_000), 414},
		{get("A: " + strings.Repeat("a", 40_000)), 431},
		{get(strings.Split(strings.Repeat("A: b;", 200), ";")[:200]...), 431},
		{"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400}, // TLS
		{lines("PRI * HTTP/2.0") + "SM\r\n\r\n", 505},
		{get("Expect: a miracle"), 417},
	}
	for _, tt := range rows {
		c := r.dial()
		c.send(tt.in + get1("/smuggled"))
		a := c.answer("GET")
		if a.StatusCode != tt.status || !a.Close || a.err != nil || a.body == "" || a.Header.Get("Outrigger-Reason") != "" {
			t.Errorf("%.60q: %d %v %q %v", tt.in, a.StatusCode, a.Header, a.body, a.err)
		}
		c.wantEnd("eof") // not a reset, which might take the answer along
	}
	r.wantTotals(0, 0, 0)
	if b.accepted.Load() != 0 {
		t.Error("a backend was bothered")
	}
	if st := r.s.Stats(); st.ClientErrors != uint64(len(rows)) || st.Own[4]+st.Own[5] != uint64(len(rows)) {
		t.Errorf("%+v", st)
	}
}

// Bytes that never become a request: nobody is answered, nothing leaks.
func TestNoise(t *testing.T) {
	t.Parallel()
	r := newRig(t, quick(), balance.DefaultConfig())
	for _, s := range []string{"", "\r\n", "\r\n\r\n\r\n", "G", "GET / HTTP/1.1\r\n", "GET / HTTP/1.1\r\nHost: a\r\n\r"} {
		for _, hangUp := range leave {
			c := r.dial()
			c.send(s)
			hangUp(c)
		}
	}
	r.eventually("all connections are over", func() bool { st := r.s.Stats(); return st.Open == 0 && st.Accepted == 18 })
	if st := r.s.Stats(); st.Own != [6]uint64{} {
		t.Errorf("%+v", st)
	}
}
