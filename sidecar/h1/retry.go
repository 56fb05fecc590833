package h1

import (
	"fmt"
	"slices"
	"strconv"
	"time"

	"outrigger/picker"
)

// RetryConfig says which failures are tried again on another endpoint. The
// budget that bounds all retries of a service is breaker.BudgetConfig.
//
// A failure that came before anything was sent may be retried whatever the
// method. Any other only if the method is one of Methods and the request's
// body is still at hand.
type RetryConfig struct {
	Attempts int // further tries after the first, 0 to 5 (a request remembers six endpoints)

	ConnectFailure bool // no connection, for whatever cause
	Refused        bool // no connection, because nothing listens at the address
	Reset          bool // the connection broke before an answer
	Timeout        bool // the head of the answer did not come in time
	Status500      bool // the answer's status
	Status502      bool
	Status503      bool
	Status504      bool
	Retriable4xx   bool // 409 Conflict, as Envoy's retriable-4xx

	// Methods are those that may be sent twice. Empty: the idempotent ones of
	// RFC 9110 section 9.2.2.
	Methods []string
	// PerTry is the time of one try, from the choice of an endpoint to the head
	// of its answer; 10ms to 24h, 0 is none. The time in which the client sends a
	// streamed body is not counted.
	PerTry time.Duration
	// Before a try there is a pause of a random length up to Backoff, which
	// doubles with every try up to BackoffMax; 0 to 1m. After a failed connect
	// the first pause is left out: another endpoint has nothing to recover from.
	Backoff, BackoffMax time.Duration
	// RetryAfterMax caps how long a Retry-After of a backend, in seconds, makes
	// that pause; 0 to 1m, 0 ignores it.
	RetryAfterMax time.Duration
	// BodyBuffer is the largest request body, 0 to 4 MiB, that is read whole
	// before an endpoint is chosen: a slow client then holds no backend, and the
	// request can be sent again. Bodies above it, and chunked ones that have not
	// come whole with their head, are streamed and cannot be.
	BodyBuffer int
}

func defaultRetry() RetryConfig {
	return RetryConfig{
		Attempts:       2,
		ConnectFailure: true,
		Reset:          true,
		Backoff:        25 * time.Millisecond, // Envoy's base interval
		BackoffMax:     250 * time.Millisecond,
		RetryAfterMax:  time.Second, // a client that waits is better told so itself
		BodyBuffer:     16 << 10,    // HAProxy's tune.bufsize, which bounds its retries too
	}
}

func (c RetryConfig) validate() error {
	for _, d := range []struct {
		name string
		d    time.Duration
	}{{"backoff", c.Backoff}, {"backoff_max", c.BackoffMax}, {"retry_after_max", c.RetryAfterMax}} {
		if d.d < 0 || d.d > time.Minute {
			return fmt.Errorf("retry %s is %v, allowed are 0s to 1m", d.name, d.d)
		}
	}
	switch {
	case c.Attempts < 0 || c.Attempts > 5:
		return fmt.Errorf("retry attempts is %d, allowed are 0 to 5", c.Attempts)
	case c.PerTry != 0 && (c.PerTry < 10*time.Millisecond || c.PerTry > maxTimeout):
		return fmt.Errorf("retry per_try_timeout is %v, allowed are 10ms to 24h, or 0s for none", c.PerTry)
	case c.BodyBuffer < 0 || c.BodyBuffer > 4<<20:
		return fmt.Errorf("retry body_buffer is %d bytes, allowed are 0 to 4 MiB", c.BodyBuffer)
	}
	for _, m := range c.Methods {
		if m == "" || !all([]byte(m), isToken) {
			return fmt.Errorf("retry methods has %q, which is no method", m)
		}
	}
	return nil
}

// cause is what a retry is due to.
type cause uint8

const (
	byConnect cause = iota
	byRefusal
	byReset
	byTimeout
	byStatus
	numCauses
)

// Causes returns the names of what retries are due to, in the order of
// StatsSnapshot.Retries.
func Causes() []string { return []string{"connect_failure", "refused", "reset", "timeout", "status"} }

// replayable reports whether the method may be sent twice.
func (c RetryConfig) replayable(h *Head) bool {
	if len(c.Methods) == 0 {
		return h.idempotent()
	}
	return slices.Contains(c.Methods, string(h.Method))
}

func (c RetryConfig) status(status int) bool {
	switch status {
	case 500:
		return c.Status500
	case 502:
		return c.Status502
	case 503:
		return c.Status503
	case 504:
		return c.Status504
	case 409:
		return c.Retriable4xx
	}
	return false
}

// pause waits before the next try, at least for the time that a backend asked
// for. false: there is no endpoint or no time for another, or the client has
// left.
func (c *conn) pause(f *failure) bool {
	c.key.Again = f.stale
	if !c.s.b.CanRetry(c.key) {
		return false
	}
	cfg := &c.s.cfg.Retry
	most := min(cfg.Backoff<<(c.rq.tries-1), cfg.BackoffMax)
	if c.rq.tries == 1 && (f.stale || !f.sent) {
		most = 0
	}
	d := min(f.retryAfter, cfg.RetryAfterMax)
	if us := uint32(most / time.Microsecond); us > 0 {
		d = max(d, time.Duration(c.s.e.rand(us))*time.Microsecond)
	}
	if c.rq.deadline > 0 && c.s.e.now()+d >= c.rq.deadline {
		return false
	}
	if d <= 0 {
		return true
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-c.Done():
		return false
	}
}

// nextTry leases an endpoint for another try. It may be one that was tried when
// a kept-alive connection had died: the endpoint itself may be well.
func (c *conn) nextTry(f *failure) bool {
	l, err := c.s.b.Retry(c.key)
	if err != nil {
		return false
	}
	c.lease = l
	c.s.stats.retries[f.cause].Add(1)
	return true
}

// unwanted reports whether the answer whose head is in c.res calls for another
// try.
func (c *conn) unwanted() bool {
	cfg := &c.s.cfg.Retry
	return cfg.status(c.res.Status) && c.rq.tries <= cfg.Attempts && !c.rq.streams && c.rq.replayable
}

// another leases another endpoint in the place of the one whose answer is
// unwanted, which is thrown away then. false: there is none, and the client gets
// the answer.
func (c *conn) another(u *upstream, sentAt time.Duration) (failure, bool) {
	f := failure{
		status: 502, reason: "bad_status", text: "the backend that could be reached failed: it answered " + strconv.Itoa(c.res.Status),
		sent: true, leased: true, cause: byStatus, retryAfter: c.res.retryAfter(),
	}
	u.alarm.off()
	if !c.pause(&f) {
		return f, false
	}
	failed, r := c.lease, picker.Result{Outcome: c.outcome(c.res.Status), FirstByte: c.now - sentAt}
	if !c.nextTry(&f) {
		return f, false
	}
	r.Total = r.FirstByte
	reusable := c.joined(u) && c.res.KeepAlive
	c.detach()
	switch {
	case reusable && c.res.Framing == NoBody:
		u.put(c.now)
	case reusable && c.res.Framing == Length && c.res.Length <= int64(u.in.len()):
		u.in.skip(int(c.res.Length))
		u.put(c.now)
	default:
		u.close()
	}
	failed.Done(r)
	return f, true
}

// retryAfter is the Retry-After of an answer, 0 if there is none or it is a
// date.
func (h *Head) retryAfter() time.Duration {
	for i := range h.Headers {
		f := &h.Headers[i]
		if f.id == other && fold(f.Name, "retry-after") {
			if n, ok := decimal(f.Value); ok {
				return time.Duration(min(n, 1e6)) * time.Second
			}
		}
	}
	return 0
}
