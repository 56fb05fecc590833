package h1

import (
	"os"
	"strings"
	"testing"

	"outrigger/sidecar/balance"
)

// pending marks a test that fails because of a bug that is known and not yet
// fixed. OUTRIGGER_PENDING=1 runs it all the same.
func pending(t *testing.T, bug string) {
	t.Helper()
	if os.Getenv("OUTRIGGER_PENDING") == "" {
		t.Skip(bug)
	}
	t.Parallel()
}

func TestPendingStallAfterAnInterimAnswer(t *testing.T) {
	pending(t, `BUG 12: interim() writes to the client and then turns c.alarm off, though the pump is waiting for
		the client under it and the backend's alarm is off: a client that stalls its body after a 103 holds
		the lease for ever`)
	cfg := quick()
	cfg.Timeouts.Idle = 2 * short
	b := newBackend(t, func(b *backend, p *peer) {
		b.head(p)
		p.read(100)
		p.quietFor(short / 2) // the pump waits for more
		p.send(lines("HTTP/1.1 103 Early Hints", "Link: l"))
		p.rest()
	})
	r := newRig(t, cfg, balance.DefaultConfig(), b.addr)
	c := r.dial()
	c.send(post("Content-Length: 100000") + strings.Repeat("x", 100))
	if got := c.head(); !strings.HasPrefix(got, "HTTP/1.1 103") {
		t.Errorf("%q", got)
	}
	c.wantOwn(408, "body_timeout")
	r.wantTotals(0, 0, 1)
}

func TestPendingStalledUploadDuringAnAnswer(t *testing.T) {
	pending(t, `BUG 13: the same while an answer that was begun early waits for the rest of the body: the backend's
		idle alarm (set by the relay) strikes, and the backend is blamed for its client`)
	cfg := quick()
	cfg.Timeouts.Idle = short
	b := newBackend(t, func(b *backend, p *peer) {
		b.head(p)
		p.send(lines("HTTP/1.1 200 OK", "Transfer-Encoding: chunked") + "1\r\na\r\n")
		p.rest() // answers the rest when it has it
	})
	r := newRig(t, cfg, balance.DefaultConfig(), b.addr)
	c := r.dial()
	c.send(post("Content-Length: 100000") + strings.Repeat("x", 100))
	if a := c.answer("POST"); a.err == nil || a.body != "a" {
		t.Errorf("%q, %v", a.body, a.err)
	}
	r.wantTotals(0, 0, 1)
}

func TestPendingIdleCloseStrikesARequest(t *testing.T) {
	pending(t, `BUG 14 (a race, played out by hand here): closeIdle reads idleAt, the request arrives, and only then
		its SetReadDeadline takes effect: the next read of that request fails, and it is dropped (takeSmallBody:
		without an answer) or gets a 408 (readHead), though it came in time. A read that fails so while draining,
		with the alarm not struck, should lift the deadline and go on`)
	b := newBackend(t, func(b *backend, p *peer) {
		for b.head(p) != "" {
			p.send(ok200(p.read(5)))
		}
	})
	for name, cut := range map[string]int{"in the head": 20, "in the body": len(post("Content-Length: 5")) + 2} {
		r := newRig(t, quick(), balance.DefaultConfig(), b.addr)
		c := r.dial()
		req := post("Content-Length: 5") + "abcde"
		c.send(req[:cut])
		r.eventually("the request has begun", func() bool {
			begun := false
			r.s.each(func(c *conn) { begun = c.idleAt.Load() == 0 })
			return begun
		})
		r.s.draining.Store(true)
		r.s.each(func(c *conn) { _ = c.nc.SetReadDeadline(longAgo) }) // the late half of closeIdle
		if !c.quietFor(short / 2) {
			t.Errorf("%s: ended or answered before the request was whole", name)
		}
		c.send(req[cut:])
		if a := c.anything("POST"); a.StatusCode != 200 || a.body != "abcde" {
			t.Errorf("%s: %d %q %v", name, a.StatusCode, a.body, a.err)
		}
	}
}

// A client that does not read holds its lease for the idle time at most, and
// the backend is not blamed.
func TestPendingClientThatDoesNotRead(t *testing.T) {
	pending(t, `BUG 15: more() arms the backend's alarm and nothing turns it off while what was read waits for a
		slow client. It may strike before the client's (it was armed earlier, and one read may take two writes),
		and then the next read fails: Failure and Aborted, the backend blamed for its client`)
	cfg := quick()
	cfg.Timeouts.Idle = 5 * short
	b := newBackend(t, func(b *backend, p *peer) {
		b.head(p)
		p.send(lines("HTTP/1.1 200 OK", "Content-Length: 100000000"))
		piece := strings.Repeat("x", 1<<20)
		for range 100 {
			if _, err := p.nc.Write([]byte(piece)); err != nil {
				return
			}
		}
	})
	r := newRig(t, cfg, balance.DefaultConfig(), b.addr)
	c := r.dial()
	c.send(get1("/"))
	var u *upstream
	r.eventually("the answer is on its way", func() bool {
		r.s.each(func(c *conn) {
			c.mu.Lock()
			u = c.up
			c.mu.Unlock()
		})
		return u != nil
	})
	r.eventually("the backend's alarm is off, it being the client's turn", func() bool {
		at := u.alarm.at.Load()
		if at == fired {
			t.Fatal("the backend's alarm has struck")
		}
		return at == 0 && r.inFlight() == 1
	})
	r.settled()
	r.wantTotals(0, 0, 1)
	if st := r.s.Stats(); st.ClientGone != 1 || st.Aborted != 0 {
		t.Errorf("%+v", st)
	}
}
