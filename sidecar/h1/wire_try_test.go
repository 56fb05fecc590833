package h1

import (
	"strings"
	"testing"
	"time"

	"outrigger/picker"
	"outrigger/sidecar/balance"
)

// tries are time-outs for a clocked rig: a try has a second, the first byte ten.
func tries() Config {
	c := quick()
	c.Timeouts.FirstByte, c.Timeouts.Idle, c.Timeouts.Head = 10*time.Second, 10*time.Second, time.Minute
	c.Retry.PerTry = time.Second
	c.Retry.Timeout = true
	c.Retry.Backoff = 0
	return c
}

// silentFirst is a clocked rig whose first endpoint takes requests with their
// bodies and says nothing; a second, good, joins when it has one.
func silentFirst(t *testing.T, cfg Config) (r *clocked, bad, good *backend) {
	good = echoes(t, "good")
	bad = newBackend(t, func(b *backend, p *peer) {
		if h := b.head(p); h != "" {
			p.bodyOf(h)
			r.set(b.addr, good.addr)
			p.wantEnd("eof")
		}
	})
	r = newClocked(t, cfg, balance.DefaultConfig(), bad.addr)
	return r, bad, good
}

// both waits until the second endpoint has joined.
func (r *clocked) both() {
	r.t.Helper()
	r.eventually("the first endpoint has the request", func() bool { return len(r.b.Status().Endpoints) == 2 })
}

// A try that lasts too long is given up for another, to the tick.
func TestPerTryTimeout(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ req, want string }{
		{get1("/"), "good"},
		{putOf("Content-Length: 3") + "abc", "goodabc"},
	} {
		r, bad, good := silentFirst(t, tries())
		c := r.dial()
		c.send(tt.req)
		r.both()
		r.wantBackendAlarm(time.Second)
		r.pass(time.Second - 1)
		if at := r.backendAlarm(); at != r.now()+1 {
			t.Errorf("%v is left of the try", at-r.now())
		}
		r.pass(1)
		if a := c.want("GET", 200, tt.want); a.Close {
			t.Error("the client's connection is closed")
		}
		r.wantRetries(byTimeout)
		r.wantJudged(bad, oneFailure)
		r.wantJudged(good, oneSuccess)
		r.eventually("the first connection is closed", func() bool { return bad.open.Load() == 0 })
	}
}

// The first-byte time-out is one to retry as well.
func TestFirstByteTimeoutIsRetried(t *testing.T) {
	t.Parallel()
	for _, perTry := range []time.Duration{0, 20 * time.Second} {
		cfg := tries()
		cfg.Retry.PerTry = perTry
		r, bad, _ := silentFirst(t, cfg)
		c := r.dial()
		c.send(get1("/"))
		r.both()
		r.wantBackendAlarm(10 * time.Second)
		r.pass(10 * time.Second)
		c.want("GET", 200, "good")
		r.wantRetries(byTimeout)
		r.wantJudged(bad, oneFailure)
	}
}

// Who may not be tried again is told which time was up.
func TestTimeoutsByName(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		req    string
		set    func(*Config)
		after  time.Duration
		reason string
	}{
		"switched off":           {get1("/"), func(c *Config) { c.Retry.Timeout = false }, time.Second, "try_timeout"},
		"POST":                   {post(), func(*Config) {}, time.Second, "try_timeout"},
		"no attempts":            {get1("/"), func(c *Config) { c.Retry.Attempts = 0 }, time.Second, "try_timeout"},
		"first byte":             {post(), func(c *Config) { c.Retry.PerTry = 0 }, 10 * time.Second, "first_byte_timeout"},
		"first byte, within try": {post(), func(c *Config) { c.Retry.PerTry = 20 * time.Second }, 10 * time.Second, "first_byte_timeout"},
		"request, within try":    {get1("/"), func(c *Config) { c.Timeouts.Request = 500 * time.Millisecond }, 500 * time.Millisecond, "request_timeout"},
		"request, with the try":  {get1("/"), func(c *Config) { c.Timeouts.Request = time.Second }, time.Second, "request_timeout"},
	} {
		cfg := tries()
		tt.set(&cfg)
		r, bad, good := silentFirst(t, cfg)
		c := r.dial()
		c.send(tt.req)
		r.both()
		r.wantBackendAlarm(tt.after)
		r.pass(tt.after)
		if a := c.wantOwn(504, tt.reason); a.Close {
			t.Errorf("%s: the client's connection is closed", name)
		}
		r.wantRetries()
		r.wantJudged(bad, oneFailure)
		if n := len(good.got()); n != 0 {
			t.Errorf("%s: tried again", name)
		}
	}
}

// Each try has a time of its own, and the last one's end is what is told.
func TestEveryTryTimesOut(t *testing.T) {
	t.Parallel()
	cfg := tries()
	cfg.Retry.Attempts = 2
	var addrs []string
	for range 4 {
		addrs = append(addrs, silent(t).addr)
	}
	r := newClocked(t, cfg, balance.DefaultConfig(), addrs...)
	c := r.dial()
	c.send(get1("/"))
	for range 3 {
		r.wantBackendAlarm(time.Second)
		r.pass(time.Second)
	}
	c.wantOwn(504, "try_timeout")
	r.wantRetries(byTimeout, byTimeout)
	r.wantTotals(0, 3, 0)

	// The request's time cuts the last short.
	cfg.Timeouts.Request = 1500 * time.Millisecond
	r = newClocked(t, cfg, balance.DefaultConfig(), addrs...)
	c = r.dial()
	c.send(get1("/"))
	r.wantBackendAlarm(time.Second)
	r.pass(time.Second)
	r.wantBackendAlarm(500 * time.Millisecond)
	r.pass(500 * time.Millisecond)
	c.wantOwn(504, "request_timeout")
	r.wantRetries(byTimeout)
}

// A try ends with the head of the answer: its body may take longer.
func TestPerTryEndsWithTheHead(t *testing.T) {
	t.Parallel()
	release := make(chan bool)
	b := newBackend(t, func(b *backend, p *peer) {
		b.head(p)
		p.send(lines("HTTP/1.1 200 OK", "Content-Length: 4") + "ab")
		await(t, release)
		p.send("cd")
		p.head()
	})
	r := newClocked(t, tries(), balance.DefaultConfig(), b.addr)
	c := r.dial()
	c.send(get1("/"))
	c.br.Peek(1)
	r.wantBackendAlarm(10 * time.Second) // the idle time-out
	r.pass(5 * time.Second)
	give(t, release)
	c.want("GET", 200, "abcd")
	r.wantTotals(1, 0, 0)
}

// An interim answer does not make the try any longer.
func TestPerTryWithInterimAnswers(t *testing.T) {
	t.Parallel()
	b := newBackend(t, func(b *backend, p *peer) {
		b.head(p)
		p.send(lines("HTTP/1.1 102 Processing"))
		p.wantEnd("eof")
	})
	cfg := tries()
	cfg.Retry.Attempts = 0
	r := newClocked(t, cfg, balance.DefaultConfig(), b.addr)
	c := r.dial()
	c.send(get1("/"))
	c.head()
	r.wantBackendAlarm(time.Second)
	r.pass(time.Second)
	c.wantOwn(504, "try_timeout")
}

// streamed is an upload of two bytes that is not buffered.
func streamed(cfg Config) (Config, string) {
	cfg.Retry.BodyBuffer = 0
	return cfg, putOf("Content-Length: 2")
}

// The time in which the client sends a streamed body is not the try's, also
// when interim answers come after it.
func TestPerTryWithoutTheUpload(t *testing.T) {
	t.Parallel()
	const hints = "HTTP/1.1 103 Early Hints\r\nLink: l\r\n\r\n"
	for interims := range 3 {
		cfg, head := streamed(tries())
		release := make(chan bool)
		b := newBackend(t, func(b *backend, p *peer) {
			b.head(p)
			p.read(2)
			for range interims {
				await(t, release)
				p.send(hints)
			}
			await(t, release)
			p.send(ok200("done"))
			p.head()
		})
		r := newClocked(t, cfg, balance.DefaultConfig(), b.addr)
		c := r.dial()
		c.send(head + "a")
		r.eventually("the backend has the head", func() bool { return len(b.got()) == 1 })
		r.wantClientAlarm(10 * time.Second)
		r.pass(5 * time.Second)
		c.send("b")
		for range interims {
			r.eventually("it is the backend's turn", func() bool { return r.clientAlarm() == 0 && r.backendAlarm() != 0 })
			give(t, release)
			if got := c.head(); got != hints && got != "" {
				t.Errorf("%.40q", got)
			}
		}
		r.eventually("it is the backend's turn", func() bool { return r.clientAlarm() == 0 && r.backendAlarm() != 0 })
		r.pass(0) // a reaper's tick: nothing is due
		give(t, release)
		if a := c.anything("PUT"); a.StatusCode != 200 || a.body != "done" {
			t.Errorf("%d interim answers: %d %q, though the try's time went with the upload", interims, a.StatusCode, a.Header.Get("Outrigger-Reason"))
		}
		r.wantTotals(1, 0, 0)
	}
}

// What is left of it after the body is.
func TestPerTryAfterTheUpload(t *testing.T) {
	t.Parallel()
	cfg, head := streamed(tries())
	b := newBackend(t, func(b *backend, p *peer) {
		b.head(p)
		p.read(2)
		p.wantEnd("eof")
	})
	r := newClocked(t, cfg, balance.DefaultConfig(), b.addr)
	c := r.dial()
	c.send(head + "ab")
	r.eventually("the backend's time runs", func() bool { return r.backendAlarm() > 0 })
	if left := r.backendAlarm() - r.now(); left != time.Second {
		t.Errorf("%v are left for the answer, want what a try has", left)
	}
	r.pass(10 * time.Second)
	c.wantOwn(504, "try_timeout")
	r.wantTotals(0, 1, 0)
}

// A time-out that is not the try's is not called so, however long the try.
func TestTimeoutsByNameAfterAnUpload(t *testing.T) {
	t.Parallel()
	cfg, head := streamed(tries())
	cfg.Retry.PerTry = 3 * time.Second
	cfg.Timeouts.FirstByte = time.Second
	b := newBackend(t, func(b *backend, p *peer) {
		b.head(p)
		p.read(2)
		p.wantEnd("eof")
	})
	r := newClocked(t, cfg, balance.DefaultConfig(), b.addr)
	c := r.dial()
	c.send(head + "a")
	r.eventually("the backend has the head", func() bool { return len(b.got()) == 1 })
	r.wantClientAlarm(10 * time.Second)
	r.pass(5 * time.Second)
	c.send("b")
	r.wantBackendAlarm(time.Second)
	r.pass(time.Second)
	c.wantOwn(504, "first_byte_timeout")
	r.wantTotals(0, 1, 0)
}

// A backend that stops taking the body is late by the idle time-out, of which
// the name tells.
func TestUploadThatIsNotTaken(t *testing.T) {
	t.Parallel()
	for _, perTry := range []time.Duration{0, time.Second} {
		cfg := tries()
		cfg.Retry.PerTry = perTry
		stuck := make(chan bool)
		b := newBackend(t, func(b *backend, p *peer) {
			b.head(p)
			await(t, stuck)
		})
		r := newClocked(t, cfg, balance.DefaultConfig(), b.addr)
		c := r.dial()
		c.send(uploads["length"])
		poured := make(chan bool)
		go func() {
			c.pour("length")
			close(poured)
		}()
		same := 0
		r.eventually("the pump is in a write, and stays there", func() bool {
			if same++; r.backendAlarm() != r.now()+10*time.Second {
				same = 0
			}
			return same == 100
		})
		r.pass(10 * time.Second)
		for left := r.backendAlarm() - r.now(); left > 0; left = r.backendAlarm() - r.now() {
			r.pass(left) // the kernel had taken some of it meanwhile: it has time from then on
		}
		c.wantOwn(504, "idle_timeout")
		give(t, stuck)
		r.wantTotals(0, 1, 0)
		c.nc.Close()
		await(t, poured)
	}
}

// refused and connect_failure are told apart.
func TestRefusedOrNotConnected(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		listens          bool // though it never accepts
		connect, refused bool
		by               []cause
	}{
		{false, false, false, nil},
		{false, true, false, []cause{byRefusal}},
		{false, false, true, []cause{byRefusal}},
		{false, true, true, []cause{byRefusal}},
		{true, false, false, nil},
		{true, true, false, []cause{byConnect}},
		{true, false, true, nil},
	} {
		bad, good := nobody(t), named(t, "good")
		if tt.listens {
			bad = fullBacklog(t)
		}
		cfg := quick()
		cfg.Timeouts.Connect = short
		cfg.Retry.ConnectFailure, cfg.Retry.Refused = tt.connect, tt.refused
		cfg.Retry.Timeout, cfg.Retry.Reset = true, true // neither is meant
		r := newRig(t, cfg, balance.DefaultConfig(), bad, good.addr)
		// The good one is busier, so the other is tried first.
		var held []balance.Lease
		for range 8 {
			l, err := r.b.TryAcquire(balance.Key{Tried: triedOf(r, bad)})
			if err != nil {
				t.Fatal(err)
			}
			held = append(held, l)
		}
		c := r.dial()
		c.send(post("Content-Length: 3") + "abc") // any method: nothing was sent
		if len(tt.by) > 0 {
			c.want("POST", 200, "good")
		} else {
			c.wantOwn(503, "unreachable")
		}
		for i := range held {
			held[i].Done(picker.Result{Outcome: picker.Ignore})
		}
		r.wantRetries(tt.by...)
	}
}

// triedOf is the set of the one endpoint at the address.
func triedOf(r *rig, addr string) (tried picker.Tried) {
	for {
		l, err := r.b.TryAcquire(balance.Key{})
		if err != nil {
			r.t.Fatal(err)
		}
		ep := l.Endpoint()
		l.Done(picker.Result{Outcome: picker.Ignore})
		if strings.HasSuffix(ep.Addr, addr) {
			tried.Add(ep)
			return tried
		}
	}
}
