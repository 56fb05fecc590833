package agentstats

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"
)

// clockResets is how many reports in a row, each younger than the one before but all
// older than the last accepted, make the poller follow an agent whose clock was set
// back (or one lie about the far future). Until then they are dropped, as replays are.
const clockResets = 8

// target is one target's loop and its status.
type target struct {
	Target
	p      *Poller
	client client
	cancel context.CancelFunc // nil until launched

	// The loop's own.
	lastAt  int64 // Report.At of the last accepted report
	epoch   string
	backAt  int64 // of the last report that was dropped as older
	backRun int
	said    sparing // of failures and of answers without news
	saidGap sparing // of clocks that went back

	mu      sync.Mutex // guards below, and is held while the sink runs
	stopped bool
	status  TargetStatus
}

func newTarget(p *Poller, t Target) *target {
	auth := bearer(p.cfg.Token)
	if p.withheld(t) {
		auth = ""
	}
	dial := func(ctx context.Context) (net.Conn, error) { return p.dial(ctx, t) }
	return &target{
		Target: t,
		p:      p,
		client: client{addr: t.Addr, dial: dial, now: p.env.Now, auth: auth},
		status: TargetStatus{ID: t.ID, Addr: t.Addr, Interval: p.cfg.Interval},
	}
}

// stop ends the loop; when it returns the sink is not running and will not run again.
func (t *target) stop() {
	t.mu.Lock()
	t.stopped = true
	t.mu.Unlock()
	if t.cancel != nil {
		t.cancel()
	}
}

func (t *target) snapshot() TargetStatus {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.status
}

// loop polls until ctx ends. The schedule counts from the moment a poll was due, so
// neither slow answers nor the grid stretch it; its phase is uniform over the first
// interval.
func (t *target) loop(ctx context.Context, sink func(string, Sample)) {
	defer t.client.close()
	due := t.p.env.Now() + t.p.uniform(t.p.cfg.Interval)
	timer := time.NewTimer(t.p.onGrid(due) - t.p.env.Now())
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		pause, failed := t.once(ctx, sink)
		if ctx.Err() != nil {
			return
		}
		now := t.p.env.Now()
		if failed {
			due = now + pause
		} else {
			due = max(due+t.jittered(pause), now)
		}
		timer.Reset(t.p.onGrid(due) - now)
	}
}

func (t *target) jittered(interval time.Duration) time.Duration {
	spread := time.Duration(float64(interval) * t.p.cfg.Jitter)
	return interval - spread + t.p.uniform(2*spread)
}

// once polls and returns the pause until the next poll, and whether it is a backoff.
func (t *target) once(ctx context.Context, sink func(string, Sample)) (pause time.Duration, failed bool) {
	a, err := t.client.poll(ctx, t.p.cfg.timeout(), func() int64 { return t.p.env.InFlight(t.ID) })
	if ctx.Err() != nil {
		return 0, false
	}
	var r Report
	rejected := false
	if err == nil {
		r, err = t.decode(a)
		rejected = err != nil
	}
	if err == statusError(http.StatusUnauthorized) && t.p.withheld(t.Target) {
		err = fmt.Errorf("%w: without tls the token is not shown to an agent on another host than its instance", err)
	}
	if err != nil {
		return t.fail(err, rejected), true
	}
	interval := t.p.cfg.interval(r.PollMS)
	rtt := max(0, a.received-a.sent)
	t.deliver(sink, Sample{
		Report: r, RTT: rtt, At: a.received - rtt/2, OwnInFlight: a.own,
		Interval: interval, Expiry: t.p.cfg.expiry(interval),
	})
	return interval, false
}

// decode reads a report and checks whose it is, and that it answers this poll: an
// agent that tells what the poll declared must have read it. Older ones do not tell.
func (t *target) decode(a answer) (Report, error) {
	r, err := Decode(a.body)
	if err != nil {
		return Report{}, err
	}
	if t.Instance != "" && r.Instance != "" && t.Instance != r.Instance {
		return Report{}, fmt.Errorf("agent report refused: it is about instance %q, not %q", r.Instance, t.Instance)
	}
	if v, ok := r.OwnInFlight.Get(); ok && v != a.own {
		return Report{}, fmt.Errorf("agent report refused: it answers a poll that declared %d in flight, not %d", v, a.own)
	}
	return r, nil
}

// fail counts a poll that brought no report, logs the first in a row (an agent that comes
// and goes, at most once a minute), and returns the
// backoff: interval, doubled with each failure up to MaxBackoff, of which the upper
// half is random so that the sidecars of one agent do not come back together.
func (t *target) fail(err error, rejected bool) time.Duration {
	t.mu.Lock()
	s := &t.status
	s.Polls++
	if rejected {
		s.Rejected++
	} else {
		s.Failures++
	}
	s.InARow++
	most := t.p.cfg.Interval
	for i := 1; i < s.InARow && most < t.p.cfg.MaxBackoff; i++ {
		most *= 2
	}
	most = min(most, t.p.cfg.MaxBackoff)
	s.Backoff = most/2 + t.p.uniform(most/2)
	if isTimeout(err) || errors.Is(err, context.DeadlineExceeded) {
		err = fmt.Errorf("no answer within %s: %w", t.p.cfg.timeout(), err)
	}
	s.LastError, s.LastErrorAt = errorText(err), t.p.env.Now()
	text, at, backoff := s.LastError, s.LastErrorAt, s.Backoff
	t.mu.Unlock()
	t.complain(at, text)
	return backoff
}

// complain logs once that there are no figures, until there are again, and at most once
// a minute.
func (t *target) complain(now time.Duration, text string) {
	if !t.said.on && t.said.may(now) {
		t.said.on = true
		t.p.env.Logger.Warn("no figures from an agent; its endpoint is picked without them",
			"endpoint", t.ID, "agent", t.Addr, "error", text)
	}
}

// deliver counts an answer in order and gives it to the sink if it is news.
func (t *target) deliver(sink func(string, Sample), s Sample) {
	verdict, reset := t.judge(s.Report)
	t.mu.Lock()
	t.status.Polls++
	t.status.InARow, t.status.Backoff = 0, 0
	t.status.Interval = s.Interval
	switch verdict {
	case replayed:
		t.status.Replayed++
		t.status.LastError, t.status.LastErrorAt = "the agent sends reports older than its last", s.At
	case repeated:
		t.status.Repeated++
		if s.At > t.status.Expires {
			t.status.LastError, t.status.LastErrorAt = "the agent repeats a report that has expired", s.At
		}
	case news:
		if t.stopped {
			break
		}
		t.status.Accepted++
		t.status.LastAt, t.status.RTT = s.At, s.RTT
		t.status.Report, t.status.Expires = s.Report, s.At+s.Expiry
		sink(t.ID, s)
	}
	silent, text := verdict != news && s.At > t.status.Expires, t.status.LastError
	t.mu.Unlock()
	switch {
	case silent:
		t.complain(s.At, text)
	case verdict == news && t.said.on:
		t.said.on = false
		t.p.env.Logger.Info("an agent answers again", "endpoint", t.ID, "agent", t.Addr)
	}
	if reset && t.saidGap.may(t.p.env.Now()) {
		t.p.env.Logger.Warn("an agent's clock went back; its reports are taken again", "endpoint", t.ID, "agent", t.Addr)
	}
}

type verdict int

const (
	news verdict = iota
	repeated
	replayed
)

// judge orders a report after those accepted before; reset tells that the order was
// begun anew.
func (t *target) judge(r Report) (v verdict, reset bool) {
	if r.At == t.lastAt && r.Epoch == t.epoch {
		return repeated, false
	}
	if r.At <= t.lastAt {
		if r.At <= t.backAt {
			t.backRun = 0
		}
		t.backAt = r.At
		if t.backRun++; t.backRun < clockResets {
			return replayed, false
		}
		reset = true
	}
	t.lastAt, t.epoch = r.At, r.Epoch
	t.backAt, t.backRun = 0, 0
	return news, reset
}

// sparing keeps what an agent can provoke from filling the log.
type sparing struct {
	on   bool // what was said still holds
	used bool
	last time.Duration
}

// sayEvery is the least time between two lines of one kind about one agent.
const sayEvery = time.Minute

// may reports whether it is time to say something again, and takes it that it is said.
func (p *sparing) may(now time.Duration) bool {
	if p.used && now-p.last < sayEvery {
		return false
	}
	p.used, p.last = true, now
	return true
}

// errorText bounds what an agent can put into logs and status pages: net/http quotes
// what it could not read, at length and not always escaped.
func errorText(err error) string { return OneLine(err, maxText) }

// OneLine is the text of an error that may quote untrusted input, as a log or a status
// page may have it: cut after limit bytes, and on one printable line.
func OneLine(err error, limit int) string {
	text := err.Error()
	if len(text) > limit {
		text = strings.ToValidUTF8(text[:limit], "") + "..."
	}
	if strings.ContainsFunc(text, func(c rune) bool { return c == utf8.RuneError || !unicode.IsPrint(c) }) {
		return strconv.QuoteToASCII(text)
	}
	return text
}
