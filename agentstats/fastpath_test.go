package agentstats

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
)

// serving runs an agent's server on a free loopback port until the test ends.
func serving(t testing.TB, a *Agent) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if a.newest.Load() == nil {
		a.take()
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- a.serve(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("serve: %v", err)
		}
		// Handlers of connections that were taken over end on their own.
		for deadline := time.Now().Add(patience); a.crowd.open.Load() != 0 || a.crowd.polling.Load() != 0; time.Sleep(ms) {
			if time.Now().After(deadline) {
				t.Fatalf("%d connections, %d that poll, are counted after the end", a.crowd.open.Load(), a.crowd.polling.Load())
			}
		}
	})
	return l.Addr().String()
}

func someAgent() *Agent { return scriptedAgent(&scripted{r: full()}, hclog.NewNullLogger()) }

// say writes a request on a connection and returns the answer.
func say(t *testing.T, c net.Conn, r *bufio.Reader, request string) (*http.Response, string) {
	t.Helper()
	_ = c.SetDeadline(time.Now().Add(patience))
	if _, err := io.WriteString(c, request); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(r, nil)
	if err != nil {
		t.Fatalf("%q: %v", request, err)
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(body)
}

func dialed(t *testing.T, addr string) (net.Conn, *bufio.Reader) {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c, bufio.NewReader(c)
}

// TestPathsAgree: the fast path and net/http answer the same polls the same.
func TestPathsAgree(t *testing.T) {
	a := someAgent()
	a.live = func() Live {
		return Live{InFlight: Some(12.0), Source: SourceKernel, AcceptQueue: Some(int64(3)), AcceptLimit: Some(int64(128)), Conc: Some(4.5)}
	}
	addr := serving(t, a)
	head := "GET /v1/report HTTP/1.1\r\nHost: " + addr + "\r\n"
	for name, c := range map[string]struct {
		more string
		own  Opt[int64]
		code int
	}{
		"with in flight":    {"Outrigger-In-Flight: 12\r\n", Some(int64(12)), 200},
		"zero":              {"Outrigger-In-Flight: 0\r\n", Some(int64(0)), 200},
		"the most":          {"Outrigger-In-Flight: 1000000000\r\n", Some(int64(1e9)), 200},
		"without":           {"", Opt[int64]{}, 200},
		"too many":          {"Outrigger-In-Flight: 1000000001\r\n", Opt[int64]{}, 400},
		"far too many":      {"Outrigger-In-Flight: 99999999999999999999999999\r\n", Opt[int64]{}, 400},
		"negative":          {"Outrigger-In-Flight: -1\r\n", Opt[int64]{}, 400},
		"a fraction":        {"Outrigger-In-Flight: 1.5\r\n", Opt[int64]{}, 400},
		"a zero in front":   {"Outrigger-In-Flight: 01\r\n", Opt[int64]{}, 400},
		"nothing in it":     {"Outrigger-In-Flight: \r\n", Opt[int64]{}, 400},
		"twice":             {"Outrigger-In-Flight: 1\r\nOutrigger-In-Flight: 1\r\n", Opt[int64]{}, 400},
		"not HTTP":          {"nonsense\r\n", Opt[int64]{}, 400},
		"another's headers": {"Accept: */*\r\nUser-Agent: curl\r\n", Opt[int64]{}, 200},
	} {
		t.Run(name, func(t *testing.T) {
			// Once as it is, and once in a form that only net/http knows.
			for _, form := range []string{head + c.more, strings.Replace(head, "Host", "X-Slow: 1\r\nHost", 1) + c.more} {
				conn, r := dialed(t, addr)
				resp, body := say(t, conn, r, form+"\r\n")
				if resp.StatusCode != c.code {
					t.Fatalf("%q: %d %s", form, resp.StatusCode, body)
				}
				if c.code != 200 {
					continue
				}
				got, err := Decode([]byte(body))
				if err != nil {
					t.Fatalf("%s: %v", body, err)
				}
				want := full()
				want.Version, want.Instance, want.AgentVersion = Version, "web-1", "1.2.3"
				want.InFlight, want.InFlightSource, want.Conc = Some(12.0), SourceKernel, Some(4.5)
				want.AcceptQueue, want.AcceptLimit = Some(int64(3)), Some(int64(128))
				want.OwnInFlight, want.At, want.PollMS, want.Err = c.own, got.At, Opt[int64]{}, got.Err
				if got != want {
					t.Errorf("%q:\ngot  %+v\nwant %+v", form, got, want)
				}
				if age := time.Since(time.UnixMilli(got.At)); age < -time.Second || age > patience {
					t.Errorf("stamped %s ago", age)
				}
				for k, v := range map[string]string{"Content-Type": "application/json", "Cache-Control": "no-store"} {
					if resp.Header.Get(k) != v {
						t.Errorf("%q: %s is %q", form, k, resp.Header.Get(k))
					}
				}
				if _, err := http.ParseTime(resp.Header.Get("Date")); err != nil {
					t.Errorf("%q: Date: %v", form, err)
				}
			}
		})
	}
}

// TestComposedAnew: a poll gets the figures of its own moment, and no figure that no
// reader would take.
func TestComposedAnew(t *testing.T) {
	a := someAgent()
	n := 0.0
	a.live = func() Live { n++; return Live{InFlight: Some(n), Source: SourceDeclared} }
	conn, r := dialed(t, serving(t, a))
	last := int64(0)
	for i := range 3 {
		_, body := say(t, conn, r, "GET /v1/report HTTP/1.1\r\nHost: a\r\n\r\n")
		got, err := Decode([]byte(body))
		if err != nil || got.InFlight != Some(float64(i+1)) || got.At <= last || !got.AcceptQueue.IsZero() {
			t.Errorf("%d: %s, %v, after %d", i, body, err, last)
		}
		last = got.At
		time.Sleep(2 * ms) // the clock that is sent has steps of 1 ms
	}
	a = someAgent()
	a.live = func() Live { return Live{} }
	a.take()
	for _, l := range []Live{
		{InFlight: Some(math.NaN()), Source: "kernel", AcceptQueue: Some(int64(-1)), Conc: Some(math.Inf(1))},
		{InFlight: Some(-1.0), AcceptLimit: Some(int64(math.MaxInt64))},
		{InFlight: Some(1.0), Source: `"},`},
	} {
		a.live = func() Live { return l }
		b := a.compose(nil, a.newest.Load(), time.Now(), Opt[int64]{})
		if got, err := Decode(b); err != nil || got.InFlightSource != "" || !got.AcceptQueue.IsZero() || !got.AcceptLimit.IsZero() || !got.Conc.IsZero() {
			t.Errorf("%+v: %s, %v", l, b, err)
		}
	}
}

// TestStaleSample: an agent whose sampler hangs does not look alive.
func TestStaleSample(t *testing.T) {
	a := someAgent()
	var mu sync.Mutex
	late := time.Duration(0)
	a.env.Now = func() time.Time { mu.Lock(); defer mu.Unlock(); return time.Now().Add(late) }
	conn, r := dialed(t, serving(t, a))
	poll := "GET /v1/report HTTP/1.1\r\nHost: a\r\n\r\n"
	if resp, body := say(t, conn, r, poll); resp.StatusCode != 200 {
		t.Fatalf("%d %s", resp.StatusCode, body)
	}
	mu.Lock()
	late = time.Minute
	mu.Unlock()
	for _, form := range []string{poll, "GET /v1/report HTTP/1.1\r\nX: y\r\nHost: a\r\n\r\n"} {
		if resp, body := say(t, conn, r, form); resp.StatusCode != 503 {
			t.Errorf("%q: %d %s", form, resp.StatusCode, body)
		}
	}
}

// TestPollersAreCounted: what never polls is no sidecar.
func TestPollersAreCounted(t *testing.T) {
	a := someAgent()
	a.routes = append(a.routes, route{"GET /metrics", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "up 1\n") })})
	addr := serving(t, a)
	poll := "GET /v1/report HTTP/1.1\r\nHost: a\r\nOutrigger-In-Flight: 0\r\n\r\n"
	for _, first := range []string{poll, strings.Replace(poll, "Host", "X: y\r\nHost", 1)} {
		conn, r := dialed(t, addr)
		for range 3 {
			say(t, conn, r, first)
		}
	}
	for _, path := range []string{"/metrics", "/healthz", "/none"} {
		conn, r := dialed(t, addr)
		say(t, conn, r, "GET "+path+" HTTP/1.1\r\nHost: a\r\n\r\n")
	}
	idle, _ := dialed(t, addr)
	conn, r := dialed(t, addr)
	say(t, conn, r, poll) // after which the idle one has surely been accepted
	if open, polling := a.crowd.open.Load(), a.crowd.polling.Load(); open != 7 || polling != 3 {
		t.Errorf("%d connections, %d poll; want 7 and 3", open, polling)
	}
	conn.Close()
	idle.Close()
	for deadline := time.Now().Add(patience); a.crowd.polling.Load() != 2 || a.crowd.open.Load() != 5; {
		if time.Now().After(deadline) {
			t.Fatalf("%d connections, %d poll; want 5 and 2", a.crowd.open.Load(), a.crowd.polling.Load())
		}
		time.Sleep(ms)
	}
}

// TestMovedConnection: a connection that polled may ask for something else, in pieces,
// and poll again; and two requests at once are answered in order.
func TestMovedConnection(t *testing.T) {
	conn, r := dialed(t, serving(t, someAgent()))
	poll := "GET /v1/report HTTP/1.1\r\nHost: a\r\n\r\n"
	say(t, conn, r, poll)
	if _, err := io.WriteString(conn, "GET /heal"); err != nil {
		t.Fatal(err)
	}
	if resp, body := say(t, conn, r, "thz HTTP/1.1\r\nHost: a\r\n\r\n"); resp.StatusCode != 200 || !strings.HasPrefix(body, "ok\n") {
		t.Errorf("%d %s", resp.StatusCode, body)
	}
	if resp, body := say(t, conn, r, poll); resp.StatusCode != 200 {
		t.Errorf("%d %s", resp.StatusCode, body)
	}
	conn, r = dialed(t, serving(t, someAgent()))
	say(t, conn, r, poll+poll)
	if resp, body := say(t, conn, r, ""); resp.StatusCode != 200 {
		t.Errorf("the second of two: %d %s", resp.StatusCode, body)
	}
}

// TestFastMaxConns: what is too much is closed at once and said once.
func TestFastMaxConns(t *testing.T) {
	a := someAgent()
	out := &log{}
	a.env.Logger = out.logger()
	a.cfg.MaxConns = 3
	addr := serving(t, a)
	poll := "GET /v1/report HTTP/1.1\r\nHost: a\r\n\r\n"
	for range 3 {
		conn, r := dialed(t, addr)
		say(t, conn, r, poll)
	}
	for range 3 {
		conn, _ := dialed(t, addr)
		_ = conn.SetDeadline(time.Now().Add(patience))
		if n, err := conn.Read(make([]byte, 1)); err == nil {
			t.Errorf("read %d bytes on a connection too many", n)
		}
	}
	if n := out.count("turned away"); n != 1 {
		t.Errorf("said %d times", n)
	}
}

// TestComplains: however often it gets full, it says so once a minute.
func TestComplains(t *testing.T) {
	out := &log{}
	now := time.Now()
	c := crowd{most: 1, log: out.logger(), now: func() time.Time { return now }}
	for range 300 {
		if !c.enter() || c.enter() {
			t.Fatal("the bound is 1")
		}
		c.open.Add(-1)
		now = now.Add(complainEvery / 200)
	}
	if n := out.count("turned away"); n != 2 || c.turnedAway.Load() != 300 {
		t.Errorf("%d lines for %d", n, c.turnedAway.Load())
	}
}

// FuzzPoll holds that what the fast path takes for a poll is one to net/http, with the
// same number in flight, and nothing behind it.
func FuzzPoll(f *testing.F) {
	const token = "0123456789abcdef"
	f.Add(appendPoll(nil, "a:1", ""), false)
	f.Add(append(appendPoll(nil, "a:1", ""), "12\r\n\r\n"...), false)
	f.Add(append(appendPoll(nil, "[::1]:99", bearer(token)), "0\r\n\r\n"...), true)
	f.Add([]byte("GET /v1/report HTTP/1.1\r\nHost: x\r\n\r\n"), false)
	f.Add([]byte("GET /v1/report HTTP/1.1\r\nHost: x\r\nOutrigger-In-Flight: 7\r\n\r\nGET"), false)
	f.Fuzz(func(t *testing.T, data []byte, secured bool) {
		g := guard{}
		if secured {
			g = newGuard(token)
		}
		own, ok := g.parsePoll(data)
		if !ok {
			return
		}
		r := bufio.NewReader(bytes.NewReader(data))
		req, err := http.ReadRequest(r)
		if err != nil || req.Method != "GET" || req.URL.Path != ReportPath || req.ContentLength != 0 || r.Buffered() > 0 || req.Close {
			t.Fatalf("%q was taken for a poll; net/http: %v, %+v", data, err, req)
		}
		if secured && req.Header.Get("Authorization") != "Bearer "+token {
			t.Fatalf("%q got in", data)
		}
		if want, ok := ownInFlight(req.Header[InFlightHeader]); !ok || want != own {
			t.Fatalf("%q: %v in flight, net/http reads %v", data, own, want)
		}
	})
}

// FuzzHead holds that what the sidecar takes for the head of a report is one to
// net/http, and as long.
func FuzzHead(f *testing.F) {
	f.Add([]byte("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 12\r\n\r\n"))
	f.Add([]byte("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nDate: x\r\nServer: y\r\n\r\n"))
	f.Add([]byte("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		n, ok := parseHead(data)
		if !ok {
			return
		}
		resp, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(data)), nil)
		if err != nil || resp.StatusCode != 200 || resp.ContentLength != int64(n) || resp.Close || len(resp.TransferEncoding) > 0 || resp.Header.Get("Content-Encoding") != "" {
			t.Fatalf("%q was taken for a head of %d bytes; net/http: %v, %+v", data, n, err, resp)
		}
	})
}

// BenchmarkAnswer is what an answer costs but for the system calls.
func BenchmarkAnswer(b *testing.B) {
	a := someAgent()
	a.live = func() Live { return Live{InFlight: Some(12.0), Source: SourceKernel} }
	a.take()
	req := []byte(fmt.Sprintf("GET /v1/report HTTP/1.1\r\nHost: 127.0.0.1:9912\r\n%s: 12\r\n\r\n", InFlightHeader))
	var out, body []byte
	b.ReportAllocs()
	for b.Loop() {
		own, ok := a.guard.parsePoll(req)
		if !ok {
			b.Fatal("no poll")
		}
		out = a.answer(out[:0], &body, own)
	}
}
