package h1

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"outrigger/picker"
	"outrigger/sidecar/balance"
)

// Without another endpoint, budget or attempt the client gets what the backend
// said, to the byte.
func TestStatusWithoutAnotherTry(t *testing.T) {
	t.Parallel()
	spent := balance.DefaultConfig()
	spent.Budget.Ratio, spent.Budget.MinPerSecond = 0, 0
	full := balance.DefaultConfig()
	full.MaxInFlight = 1
	large := strings.Repeat("0123456789", 10_000)
	for name, answer := range map[string]string{
		"empty":   answerOf(503, ""),
		"small":   lines("HTTP/1.1 503 Not Now", "Retry-After: 7", "X: first", "Content-Length: 3") + "bad",
		"large":   answerOf(503, large),
		"chunked": lines("HTTP/1.1 503 No", "X: first", "Transfer-Encoding: chunked") + string(appendChunk(nil, []byte(large))) + "0\r\n\r\n",
	} {
		for why, bcfg := range map[string]balance.Config{"budget": spent, "alone": balance.DefaultConfig(), "full": full} {
			cfg := statusRetries()
			cfg.Retry.RetryAfterMax = 0
			r, bad, good := twoTries(t, cfg, bcfg, answer)
			switch why {
			case "alone":
				good.addr = bad.addr // is all that r.set adds
			case "full":
				r.set(good.addr)
				l, err := r.b.TryAcquire(balance.Key{})
				if err != nil {
					t.Fatal(err)
				}
				defer l.Done(picker.Result{Outcome: picker.Ignore})
				r.set(bad.addr, good.addr)
			}
			c := r.dial()
			for range 2 {
				if why != "full" {
					r.set(bad.addr)
				}
				c.send(get1("/"))
				a := c.answer("GET")
				wantBody := map[string]string{"empty": "", "small": "bad"}[name]
				if name == "large" || name == "chunked" {
					wantBody = large
				}
				if a.StatusCode != 503 || a.err != nil || a.Close || a.body != wantBody || a.Header.Get("X") != "first" || a.Header.Get("Outrigger-Reason") != "" {
					t.Errorf("%s, %s: %d %v, %d bytes, %v", name, why, a.StatusCode, a.Header, len(a.body), a.err)
				}
				if name == "small" && (a.Header.Get("Retry-After") != "7" || a.Status != "503 Not Now") {
					t.Errorf("%s: %v", why, a.Response)
				}
				r.eventually("the request's lease has ended", func() bool { return r.inFlight() == map[bool]int{true: 1}[why == "full"] })
			}
			r.wantRetries()
			if n := len(good.got()); n != 0 {
				t.Errorf("%s, %s: %d requests to the second", name, why, n)
			}
			if n := bad.accepted.Load(); n != 1 {
				t.Errorf("%s, %s: %d connections to the first", name, why, n)
			}
			if st := r.b.Status(); (st.BudgetSpent > 0) != (why == "budget") {
				t.Errorf("%s: %d retries forbidden", why, st.BudgetSpent)
			}
		}
	}
}

// Nobody waits for a try that cannot be: there is no other endpoint.
func TestNoPauseWithoutAnotherEndpoint(t *testing.T) {
	t.Parallel()
	cfg := statusRetries()
	cfg.Retry.RetryAfterMax = time.Minute
	b := says(t, lines("HTTP/1.1 503 No", "Retry-After: 60", "Content-Length: 3")+"bad")
	r := newRig(t, cfg, balance.DefaultConfig(), b.addr)
	c := r.dial()
	c.send(get1("/"))
	c.want("GET", 503, "bad") // within patience, a sixth of the pause
	r.wantRetries()
}

// The first backend's connection is kept if its answer was read whole, and
// closed if anything might still come on it.
func TestConnectionOfARetriedAnswer(t *testing.T) {
	t.Parallel()
	head := lines("HEAD / HTTP/1.1", "Host: a")
	for name, tt := range map[string]struct {
		req, answer string
		kept        bool
	}{
		"whole":            {get1("/"), answerOf(503, "12345"), true},
		"empty":            {get1("/"), answerOf(503, ""), true},
		"HEAD":             {head, lines("HTTP/1.1 503 No", "Content-Length: 5"), true},
		"half":             {get1("/"), lines("HTTP/1.1 503 No", "Content-Length: 10") + "12345", false},
		"surplus":          {get1("/"), answerOf(503, "12345") + "6", false},
		"surplus on empty": {get1("/"), answerOf(503, "") + "6", false},
		"HEAD with a body": {head, answerOf(503, "12345"), false},
		"large":            {get1("/"), answerOf(503, strings.Repeat("x", 100_000)), false},
		"close":            {get1("/"), lines("HTTP/1.1 503 No", "Connection: close", "Content-Length: 0"), false},
		"HTTP/1.0":         {get1("/"), lines("HTTP/1.0 503 No", "Content-Length: 0"), false},
		"until the end":    {get1("/"), lines("HTTP/1.1 503 No") + "12345", false},
		"chunked, half":    {get1("/"), lines("HTTP/1.1 503 No", "Transfer-Encoding: chunked") + "5\r\n12345\r\n", false},
	} {
		r, bad, _ := twoTries(t, statusRetries(), balance.DefaultConfig(), tt.answer)
		c := r.dial()
		for range 2 {
			r.settled()
			r.set(bad.addr)
			c.send(tt.req)
			if tt.req == head {
				c.want("HEAD", 200, "")
			} else {
				c.want("GET", 200, "good")
			}
		}
		if n := bad.accepted.Load(); (n == 1) != tt.kept {
			t.Errorf("%s: %d connections for 2 requests", name, n)
		}
		r.wantRetries(byStatus, byStatus)
	}
}

// Each try goes to an endpoint of its own, as many as are allowed, and the
// client gets what the last one says.
func TestAttemptsByStatus(t *testing.T) {
	t.Parallel()
	for attempts := range 6 {
		for _, endpoints := range []int{4, 7} {
			cfg := statusRetries()
			cfg.Retry.Attempts = attempts
			var addrs []string
			for range endpoints {
				addrs = append(addrs, newBackend(t, func(b *backend, p *peer) {
					for b.head(p) != "" {
						p.send(answerOf(503, b.addr))
					}
				}).addr)
			}
			r := newRig(t, cfg, balance.DefaultConfig(), addrs...)
			c := r.dial()
			c.send(get1("/"))
			last := c.answer("GET").body
			r.settled()
			tries := min(attempts+1, endpoints)
			causes := make([]cause, tries-1)
			for i := range causes {
				causes[i] = byStatus
			}
			r.wantRetries(causes...)
			r.wantTotals(0, uint64(tries), 0)
			for _, e := range r.b.Status().Endpoints {
				if e.Totals.Requests > 1 || e.Instance.ID == "i-"+last && e.Totals.Requests != 1 {
					t.Errorf("%d attempts at %d endpoints: %s had %d", attempts, endpoints, e.Instance.ID, e.Totals.Requests)
				}
			}
		}
	}
}

// chain is a rig whose endpoints join one after the other: each when the one
// before has a request and is about to do its part.
func chain(t testing.TB, cfg Config, parts ...func(p *peer)) *rig {
	var r *rig
	backends := make([]*backend, len(parts))
	for i, part := range parts {
		backends[i] = newBackend(t, func(b *backend, p *peer) {
			for b.head(p) != "" {
				if i+1 < len(parts) {
					var addrs []string
					for _, next := range backends[:i+2] {
						addrs = append(addrs, next.addr)
					}
					r.set(addrs...)
				}
				part(p)
			}
		})
	}
	r = newRig(t, cfg, balance.DefaultConfig(), backends[0].addr)
	return r
}

func sayer(answer string) func(*peer) { return func(p *peer) { p.send(answer) } }

// Retries for different causes add up.
func TestRetriesOfSeveralCauses(t *testing.T) {
	t.Parallel()
	cfg := statusRetries()
	cfg.Retry.Attempts = 3
	r := chain(t, cfg, (*peer).reset, sayer(answerOf(503, "")), sayer(answerOf(409, "")), sayer(ok200("good")))
	c := r.dial()
	c.send(get1("/"))
	c.want("GET", 200, "good")
	r.wantRetries(byReset, byStatus, byStatus)
	r.wantTotals(2, 2, 0)

	// What comes last is what the client gets.
	cfg.Retry.Attempts = 1
	r = chain(t, cfg, sayer(answerOf(503, "")), (*peer).reset)
	c = r.dial()
	c.send(get1("/"))
	c.wantOwn(502, "reset")
	r.wantRetries(byStatus)
	r.wantTotals(0, 2, 0)
	r = chain(t, cfg, (*peer).reset, sayer(answerOf(503, "bad")))
	c = r.dial()
	c.send(get1("/"))
	c.want("GET", 503, "bad")
	r.wantRetries(byReset)
}

// A backend has answered the request and may have acted on it: "unreachable",
// on which a client may repeat what is not idempotent, would be a lie.
func TestStatusThenRefused(t *testing.T) {
	t.Parallel()
	dead := nobody(t)
	var r *rig
	bad := newBackend(t, func(b *backend, p *peer) {
		for b.head(p) != "" {
			r.set(b.addr, dead)
			p.send(answerOf(500, "bad"))
		}
	})
	cfg := statusRetries()
	cfg.Retry.Methods = []string{"POST"}
	r = newRig(t, cfg, balance.DefaultConfig(), bad.addr)
	c := r.dial()
	c.send(post())
	if a := c.answer("POST"); a.StatusCode < 500 || a.Close || a.Header.Get("Outrigger-Reason") == "unreachable" {
		t.Errorf("%d %v", a.StatusCode, a.Header)
	}
	r.wantRetries(byStatus)
	r.wantTotals(1, 1, 0)
}

// A client that leaves during the pause frees the lease at once, and nothing is
// tried again for nobody.
func TestClientGoneInThePause(t *testing.T) {
	t.Parallel()
	for name, hangUp := range leave {
		cfg := statusRetries()
		cfg.Retry.RetryAfterMax = time.Minute
		r, bad, good := twoTries(t, cfg, balance.DefaultConfig(), lines("HTTP/1.1 503 No", "Retry-After: 60", "Content-Length: 0"))
		c := r.dial()
		c.send(get1("/"))
		r.eventually("the first has the request", func() bool { return len(bad.got()) == 1 })
		if !c.quietFor(short) { // it pauses, most likely; if not yet, it ends the sooner
			t.Errorf("%s: an answer came without a pause", name)
		}
		start := time.Now()
		hangUp(c)
		r.settled()
		if took := time.Since(start); took > soon {
			t.Errorf("%s: it took %v", name, took)
		}
		r.eventually("the connections are over", func() bool { return r.s.Stats().Open == 0 })
		r.wantRetries()
		if n := len(good.got()); n != 0 {
			t.Errorf("%s: %d tries for nobody", name, n)
		}
		if st := r.s.Stats(); st.ClientGone != 1 || st.Own != [6]uint64{} {
			t.Errorf("%s: %+v", name, st)
		}
	}
}

// The same in the pause after a failure.
func TestClientGoneInTheBackoff(t *testing.T) {
	t.Parallel()
	cfg := statusRetries()
	cfg.Retry.Backoff, cfg.Retry.BackoffMax = time.Minute, time.Minute
	good := named(t, "good")
	var r *rig
	bad := newBackend(t, func(b *backend, p *peer) {
		b.head(p)
		r.set(b.addr, good.addr)
		p.reset()
	})
	r = newRig(t, cfg, balance.DefaultConfig(), bad.addr)
	c := r.dial()
	c.send(get1("/"))
	r.wantJudged(bad, oneFailure) // before the pause: it holds no lease
	if len(good.got()) > 0 {
		t.Skip("the pause was one of some milliseconds: one in ten thousand is")
	}
	c.reset()
	r.eventually("the connection is over", func() bool { return r.s.Stats().Open == 0 })
	r.wantRetries()
	if st := r.s.Stats(); st.ClientGone != 1 {
		t.Errorf("%+v", st)
	}
}

// Nothing is tried again beyond the request's time: the client gets what there
// is, now.
func TestDeadlineStopsRetries(t *testing.T) {
	t.Parallel()
	cfg := statusRetries()
	cfg.Timeouts.Request = patience
	cfg.Retry.RetryAfterMax = time.Minute
	r, bad, good := twoTries(t, cfg, balance.DefaultConfig(), lines("HTTP/1.1 503 No", "Retry-After: 60", "Content-Length: 3")+"bad")
	c := r.dial()
	for range 2 {
		r.set(bad.addr)
		c.send(get1("/"))
		c.want("GET", 503, "bad")
		r.settled()
	}
	r.wantRetries()
	if n := len(good.got()); n != 0 || bad.accepted.Load() != 1 {
		t.Errorf("%d tries, %d connections", n, bad.accepted.Load())
	}
	// A failure does not wait either.
	cfg.Retry.Backoff, cfg.Retry.BackoffMax = time.Minute, time.Minute
	cfg.Timeouts.Request = 10 * time.Millisecond
	r = chain(t, cfg, func(p *peer) { p.reset() }, sayer(ok200("good")))
	c = r.dial()
	c.send(get1("/"))
	if a := c.answer("GET"); a.StatusCode != 502 && a.StatusCode != 504 && a.StatusCode != 200 {
		t.Errorf("%d", a.StatusCode) // whichever was first, and a pause may be none
	}
}

// Budget and attempts hold for many clients at once, and every answer is one
// that a backend gave.
func TestStatusRetriesOfManyClients(t *testing.T) {
	t.Parallel()
	cfg := statusRetries()
	cfg.Retry.Backoff = time.Millisecond
	var addrs []string
	for i := range 4 {
		n := 0
		addrs = append(addrs, newBackend(t, func(b *backend, p *peer) {
			for h := b.head(p); h != ""; h = b.head(p) {
				body := p.bodyOf(h)
				b.mu.Lock()
				n++
				bad := (n+i)%3 == 0
				b.mu.Unlock()
				if bad {
					p.send(answerOf(500, "bad"))
				} else {
					p.send(ok200("good" + body))
				}
			}
		}).addr)
	}
	r := newRig(t, cfg, balance.DefaultConfig(), addrs...)
	done := make(chan bool)
	const clients, each = 8, 25
	for i := range clients {
		go func() {
			defer func() { done <- true }()
			c := r.dial()
			for j := range each {
				body := fmt.Sprintf("%d/%d", i, j)
				c.send(putOf(fmt.Sprintf("Content-Length: %d", len(body))) + body)
				if a := c.answer("PUT"); a.err != nil || !(a.StatusCode == 200 && a.body == "good"+body) && !(a.StatusCode == 500 && a.body == "bad") {
					t.Errorf("%d %q %v", a.StatusCode, a.body, a.err)
				}
			}
		}()
	}
	for range clients {
		await(t, done)
	}
	r.settled()
	st := r.s.Stats()
	if st.Passed[2]+st.Passed[5] != clients*each || st.Retries[byStatus] == 0 || st.Retries[byStatus] > clients*each/10+31 {
		t.Errorf("%+v", st)
	}
	if got := r.totals().Requests; got != clients*each+st.Retries[byStatus] {
		t.Errorf("%d tries of %d requests with %d retries", got, clients*each, st.Retries[byStatus])
	}
}
