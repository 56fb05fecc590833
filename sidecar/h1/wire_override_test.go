package h1

import (
	"strings"
	"testing"
	"time"

	"outrigger/sidecar/balance"
)

const timeHeader = "X-Request-Timeout-Ms"

// hasty is for a clocked rig that takes a request's time from its header; else
// it is a minute.
func hasty() Config {
	c := quick()
	c.Timeouts.FirstByte, c.Timeouts.Idle = 10*time.Minute, 10*time.Minute
	c.Timeouts.Request = time.Minute
	c.Timeouts.RequestHeader = timeHeader
	return c
}

// The header's time counts in the place of the configured one, shorter or
// longer, to the tick; when it is up, that is no fault of the backend.
func TestRequestTimeoutOfTheClient(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		fields  []string
		after   time.Duration
		ignored uint64
	}{
		"shorter":       {[]string{timeHeader + ": 250"}, 250 * time.Millisecond, 1},
		"longer":        {[]string{timeHeader + ": 120000"}, 2 * time.Minute, 1},
		"least":         {[]string{timeHeader + ": 1"}, time.Millisecond, 1},
		"case":          {[]string{"x-request-TIMEOUT-ms:\t 250 "}, 250 * time.Millisecond, 1},
		"nominated":     {[]string{"Connection: " + timeHeader, timeHeader + ": 250"}, 250 * time.Millisecond, 1},
		"among others":  {[]string{"A: b", timeHeader + ": 250", "X-Request-Timeout: 1"}, 250 * time.Millisecond, 1},
		"none":          {[]string{"A: b"}, time.Minute, 0},
		"another field": {[]string{timeHeader + "s: 250"}, time.Minute, 0},
	} {
		b := silent(t)
		r := newClocked(t, hasty(), balance.DefaultConfig(), b.addr)
		c := r.dial()
		c.send(get(tt.fields...))
		r.eventually("the backend has the request", func() bool { return len(b.got()) == 1 })
		if at := r.backendAlarm(); at != r.now()+tt.after {
			t.Errorf("%s: struck after %v, want %v", name, at-r.now(), tt.after)
		}
		if h := strings.ToLower(b.got()[0]); strings.Contains(h, "timeout-ms:") {
			t.Errorf("%s: the header was passed on: %q", name, h)
		}
		r.pass(tt.after)
		c.wantOwn(504, "request_timeout")
		r.wantTotals(0, 1-tt.ignored, tt.ignored)
		// It was that request's alone, and the connection lives on.
		c.send(get1("/"))
		r.eventually("the backend has the next", func() bool { return len(b.got()) == 2 })
		r.wantBackendAlarm(time.Minute)
	}
}

// The longest time allowed, and one that another time-out comes before: then
// the backend is late.
func TestLongRequestTimeoutOfTheClient(t *testing.T) {
	t.Parallel()
	b := silent(t)
	r := newClocked(t, hasty(), balance.DefaultConfig(), b.addr)
	c := r.dial()
	c.send(get(timeHeader + ": 86400000"))
	r.eventually("the backend has the request", func() bool { return len(b.got()) == 1 })
	r.wantBackendAlarm(10 * time.Minute)
	r.pass(10 * time.Minute)
	c.wantOwn(504, "first_byte_timeout")
	r.wantTotals(0, 1, 0)
}

// What is no number of milliseconds, or not one alone, is refused before
// anything is leased.
func TestBadRequestTimeoutOfTheClient(t *testing.T) {
	t.Parallel()
	b := named(t, "b")
	r := newRig(t, hasty(), balance.DefaultConfig(), b.addr)
	h := timeHeader + ":"
	bad := [][]string{
		{h}, {h + " "}, {h + " 0"}, {h + " 000"}, {h + " -1"}, {h + " +5"}, {h + " 1.5"}, {h + " 10ms"}, {h + " 1s"}, {h + " 0x10"},
		{h + " 5 5"}, {h + " 5, 6"}, {h + " 5;"}, {h + " 1e3"}, {h + " ٥"},
		{h + " 86400001"}, {h + " 999999999999999999"}, {h + " 9223372036854775808"}, {h + " 18446744073709551617"},
		{h + " 250", h + " 250"}, {h + " 250", "A: b", strings.ToLower(h) + " 300"}, {h + " 250", h + " x"}, {h + " x", h + " 250"},
	}
	for _, fields := range bad {
		c := r.dial()
		c.send(get(fields...))
		if a := c.answer("GET"); a.StatusCode != 400 || !a.Close || a.err != nil || !strings.Contains(a.body, timeHeader) {
			t.Errorf("%q: %d %q %v", fields, a.StatusCode, a.body, a.err)
		}
		c.wantEnd("eof")
	}
	if n := len(b.got()); n != 0 || r.b.Status().Requests != 0 {
		t.Errorf("%d requests got through", n)
	}
	if st := r.s.Stats(); st.ClientErrors != uint64(len(bad)) || st.Own[4] != uint64(len(bad)) {
		t.Errorf("%+v", st)
	}
	c := r.dial()
	c.send(get(h + " 86400000"))
	c.want("GET", 200, "b")
}

// Answers of ours to a HEAD have no body either (RFC 9110 section 9.3.2).
func TestRefusedHEADHasNoBody(t *testing.T) {
	t.Parallel()
	cfg := hasty()
	cfg.MaxBody = 10
	r := newRig(t, cfg, balance.DefaultConfig())
	for status, field := range map[int]string{400: timeHeader + ": x", 413: "Content-Length: 11"} {
		c := r.dial()
		c.send(lines("HEAD / HTTP/1.1", "Host: a", field))
		if head := c.head(); !strings.HasPrefix(head, "HTTP/1.1 "+map[int]string{400: "400", 413: "413"}[status]) {
			t.Errorf("%q", head)
		}
		if rest, err := c.rest(); rest != "" || err != nil {
			t.Errorf("%d: %q after the head (%v)", status, rest, err)
		}
	}
}

// Without its name in the configuration the header is one like any other.
func TestRequestTimeoutHeaderIsOff(t *testing.T) {
	t.Parallel()
	b := named(t, "b")
	r := newRig(t, quick(), balance.DefaultConfig(), b.addr)
	c := r.dial()
	c.send(get(timeHeader+": 0", timeHeader+": x"))
	c.want("GET", 200, "b")
	if got := fieldOf(b.got()[0], timeHeader); got != "0" {
		t.Errorf("%q", b.got()[0])
	}
}

// A client's haste does not eject a backend that is at work on the answer.
func TestRequestTimeoutOfTheClientDuringAnAnswer(t *testing.T) {
	t.Parallel()
	for name, answer := range map[string]string{
		"length":  lines("HTTP/1.1 200 OK", "Content-Length: 10") + "12345",
		"chunked": lines("HTTP/1.1 200 OK", "Transfer-Encoding: chunked") + "5\r\n12345\r\n",
	} {
		for _, field := range []string{timeHeader + ": 250", "A: b"} {
			b := newBackend(t, func(b *backend, p *peer) {
				b.head(p)
				p.send(answer)
				p.wantEnd("eof")
			})
			r := newClocked(t, hasty(), balance.DefaultConfig(), b.addr)
			c := r.dial()
			c.send(get(field))
			c.br.Peek(1)
			r.eventually("the backend's time runs", func() bool { return r.backendAlarm() > 0 })
			r.pass(time.Minute)
			if a := c.answer("GET"); a.err == nil || a.body != "12345" {
				t.Errorf("%s, %s: %q %v", name, field, a.body, a.err)
			}
			if field == "A: b" {
				r.wantTotals(0, 1, 0)
			} else {
				r.wantTotals(0, 0, 1)
			}
		}
	}
}

// A body that does not come in the client's own time holds no lease, or has
// it ended; the client is told what was late.
func TestRequestTimeoutOfTheClientInAnUpload(t *testing.T) {
	t.Parallel()
	for _, buffer := range []int{0, 2} {
		cfg := hasty()
		cfg.Retry.BodyBuffer = buffer
		b := newBackend(t, func(b *backend, p *peer) {
			b.head(p)
			if s, _ := p.rest(); len(s) > 1 {
				t.Errorf("%q", s)
			}
		})
		r := newClocked(t, cfg, balance.DefaultConfig(), b.addr)
		c := r.dial()
		c.send(post(timeHeader+": 250", "Content-Length: 2") + "1")
		r.wantClientAlarm(250 * time.Millisecond)
		if buffer == 0 {
			r.eventually("the backend has the head", func() bool { return len(b.got()) == 1 })
		}
		r.wantClientAlarm(250 * time.Millisecond)
		r.pass(250 * time.Millisecond)
		c.wantOwn(408, "body_timeout")
		r.wantTotals(0, 0, uint64(1-buffer/2))
	}
}

// No try begins after the client's time, and none is made of what it ended.
func TestNoTryAfterTheClientsTime(t *testing.T) {
	t.Parallel()
	cfg := hasty()
	cfg.Retry.Timeout, cfg.Retry.Backoff = true, 0
	r, bad, good := silentFirst(t, cfg)
	c := r.dial()
	c.send(get(timeHeader + ": 250"))
	r.both()
	r.wantBackendAlarm(250 * time.Millisecond)
	r.pass(250 * time.Millisecond)
	c.wantOwn(504, "request_timeout")
	r.wantRetries()
	r.wantJudged(bad, oneIgnored)
	if n := len(good.got()); n != 0 {
		t.Errorf("%d tries", n)
	}
	// A try that ended before it leaves the rest to the next.
	cfg.Retry.PerTry = 100 * time.Millisecond
	r, bad, _ = silentFirst(t, cfg)
	c = r.dial()
	c.send(get(timeHeader + ": 250"))
	r.both()
	r.wantBackendAlarm(100 * time.Millisecond)
	r.pass(100 * time.Millisecond)
	c.want("GET", 200, "good")
	r.wantRetries(byTimeout)
	r.wantJudged(bad, oneFailure) // the try's time is ours
}

// The answer that says so is written after the time it speaks of: that must not
// strike the connection, whenever the reaper comes by.
func TestAnswerAfterTheDeadline(t *testing.T) {
	t.Parallel()
	b := silent(t)
	r := newClocked(t, hasty(), balance.DefaultConfig(), b.addr)
	c := r.dial()
	stop := make(chan bool)
	done := make(chan bool)
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			default:
				r.e.reaper.strike(r.now())
			}
		}
	}()
	defer func() { close(stop); await(t, done) }()
	for i := range 100 {
		c.send(get(timeHeader + ": 250"))
		r.eventually("the backend has the request", func() bool { return len(b.got()) == i+1 || r.s.Stats().Open == 0 })
		if r.s.Stats().Open == 0 {
			t.Fatalf("the connection was struck after the %dth time-out", i)
		}
		r.at.Add(int64(250 * time.Millisecond))
		if a := c.wantOwn(504, "request_timeout"); a.err != nil || a.StatusCode == 0 {
			t.Fatalf("the connection was struck at the %dth time-out", i+1)
		}
	}
}

// A refused head has nothing of the request before it: neither its method nor
// what it accepts.
func TestRefusalAfterAnotherRequest(t *testing.T) {
	t.Parallel()
	b := newBackend(t, func(b *backend, p *peer) {
		for b.head(p) != "" {
			p.send(lines("HTTP/1.1 200 OK", "Content-Length: 5"))
		}
	})
	r := newRig(t, quick(), balance.DefaultConfig(), b.addr)
	for range 10 {
		c := r.dial()
		c.send(lines("HEAD / HTTP/1.1", "Host: a", "Accept: application/json"))
		c.want("HEAD", 200, "")
		c.send("GET / HTTP/1.1\r\nnot a field\r\n\r\n")
		a := c.answer("GET")
		if a.StatusCode != 400 || a.err != nil || !strings.HasPrefix(a.Header.Get("Content-Type"), "text/plain") {
			t.Fatalf("%d, %d bytes of %v, %v", a.StatusCode, len(a.body), a.Header, a.err)
		}
		c.nc.Close()
	}
}
