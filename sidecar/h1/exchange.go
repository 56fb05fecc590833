package h1

import (
	"errors"
	"io"
	"os"
	"time"

	"outrigger/picker"
	"outrigger/sidecar/balance"
)

// step is how one try of a request ended.
type step uint8

const (
	stepKeep  step = iota // answered; the client's connection stays
	stepClose             // answered or past help; the client's connection ends
	stepRetry             // failed before the client saw anything; failure says how
)

// failure is why a try failed before the client saw anything of its answer.
type failure struct {
	status int    // what the client gets if there is no other try
	reason string // Outrigger-Reason for it
	text   string
	sent   bool // bytes may have reached the backend
	again  bool // allowed to try another endpoint
	stale  bool // a kept-alive connection had died: the endpoint itself may be well
}

// smallBody is the largest request body that is read whole before an endpoint
// is leased: a slow client then holds no backend, and the request can be sent
// again.
const smallBody = 16 << 10

// exchange serves the request whose head was just parsed. false: the client's
// connection is done.
func (c *conn) exchange() bool {
	defer c.s.e.bufs.release(&c.buf)
	c.note()
	if !c.takeSmallBody() {
		return false
	}
	keep := !c.rq.streams // an unread body makes the connection useless
	var err error
	c.key = balance.Key{Deadline: c.rq.deadline}
	if c.lease, err = c.s.b.Acquire(c, c.key); err != nil {
		return c.refuse(err, keep)
	}
	var reached failure // the last try in which a backend may have got something
	for tries := 0; ; tries++ {
		st, f := c.try(c.key.Again)
		if st != stepRetry {
			return st == stepKeep
		}
		if c.isGone() {
			c.s.stats.clientGone.Add(1)
			return false
		}
		if f.sent {
			reached = f
		}
		if !f.again || tries >= c.s.cfg.Retry.Attempts || c.overdue() || !c.nextTry(&f) {
			return c.fail(&reached, keep)
		}
	}
}

// overdue reports whether the request's time is up.
func (c *conn) overdue() bool { return c.rq.deadline > 0 && c.s.e.now() >= c.rq.deadline }

// nextTry leases an endpoint for another try.
func (c *conn) nextTry(f *failure) bool {
	c.key.Again = f.stale
	var err error
	c.lease, err = c.s.b.Retry(c.key)
	return err == nil
}

// fail answers a request whose last try failed: f is of the last one in which
// a backend may have got something, zero if there was none.
func (c *conn) fail(f *failure, keep bool) bool {
	if !f.sent {
		return c.refuse(c.s.b.Refuse(balance.Unreachable), keep)
	}
	return c.reply(answer{status: f.status, reason: f.reason, text: f.text, keep: keep})
}

// note takes what is needed later out of the parsed head, and writes the head
// for the backend.
func (c *conn) note() {
	h, now := &c.req, c.s.e.now()
	c.rq = request{
		start: now, minor: h.Minor,
		head:       string(h.Method) == "HEAD",
		idempotent: h.idempotent(),
		keepAlive:  h.KeepAlive,
		upgrade:    c.s.tunnel != nil && h.tunnels(),
		expect:     h.Expect && h.Framing != NoBody,
		json:       h.wants("application/json"),
		streams:    h.Framing != NoBody,
	}
	if t := c.s.cfg.Timeouts.Request; t > 0 {
		c.rq.deadline = now + t
	}
	c.alarm.off()
	if len(h.Host) == 0 && h.Minor == 0 {
		// HTTP/1.0 may leave Host out, HTTP/1.1 servers want one: the authority
		// that the client connected to.
		h.Host = []byte(c.nc.LocalAddr().String())
	}
	c.out = h.appendRequest(c.out[:0], c.ip, c.rq.upgrade, c.rq.expect)
	c.upload.reset(h.Framing, h.Length)
}

// takeSmallBody appends a small body to what goes to the backend in one piece.
func (c *conn) takeSmallBody() bool {
	if c.req.Framing != Length || c.rq.expect || c.req.Length > smallBody {
		return true
	}
	for left := int(c.req.Length); left > 0; {
		if c.in.len() == 0 {
			c.armClient()
			if err := c.fillIn(); err != nil {
				return c.noBody()
			}
		}
		k := min(left, c.in.len())
		c.out = append(c.out, c.in.unread()[:k]...)
		c.in.skip(k)
		left -= k
	}
	c.alarm.off()
	c.rq.streams, c.upload.complete = false, true
	return true
}

// noBody ends a request whose body did not come. Nothing has been leased yet.
func (c *conn) noBody() bool {
	c.s.stats.clientErrors.Add(1)
	if c.alarm.struck() {
		c.lastWords()
		c.reply(answer{status: 408, reason: "body_timeout", text: "the request body took too long"})
	}
	return false
}

// try sends the request to the leased endpoint and relays the answer. It ends
// the lease on every path. fresh asks for a new connection.
func (c *conn) try(fresh bool) (step, failure) {
	ep := c.lease.Endpoint()
	c.key.Tried.Add(ep)
	p := c.lease.Conns().(*pool)
	u, err := p.get(c, fresh, c.within(p.cfg.Timeouts.Connect)-c.s.e.now())
	if err != nil {
		return c.dialFailed(err)
	}
	if !c.attach(u) {
		c.detach()
		u.close()
		c.lease.Done(picker.Result{Outcome: picker.Ignore})
		return stepRetry, failure{}
	}
	sentAt := c.s.e.now()
	f, err := c.send(u)
	if err == nil {
		f, err = c.awaitHead(u)
	}
	if err != nil {
		return c.broke(u, f, err)
	}
	return c.relay(u, sentAt)
}

func (c *conn) dialFailed(err error) (step, failure) {
	if c.isGone() {
		c.lease.Done(picker.Result{Outcome: picker.Ignore})
		return stepRetry, failure{}
	}
	if ourFault(err) {
		c.s.grip(err)
		c.lease.Done(picker.Result{Outcome: picker.Ignore})
		return stepRetry, failure{}
	}
	c.s.log.Debug("connecting to a backend failed", "endpoint", c.lease.Endpoint().Addr, "error", err)
	c.lease.Done(picker.Result{Outcome: picker.Failure, Down: nobodyThere(err)})
	return stepRetry, failure{again: c.s.cfg.Retry.ConnectFailure}
}

// send writes the head, with a small body, and starts the upload of a large
// one.
func (c *conn) send(u *upstream) (failure, error) {
	u.alarm.set(c.within(c.s.cfg.Timeouts.FirstByte))
	n, err := u.nc.Write(c.out)
	if err != nil {
		return failure{sent: n > 0}, err
	}
	if c.rq.streams {
		u.alarm.off() // the time for the answer runs from the end of the body
		if !c.rq.expect {
			c.upload.start(u)
		}
	}
	return failure{sent: true}, nil
}

// awaitHead reads the answer's head, passing interim ones on.
func (c *conn) awaitHead(u *upstream) (failure, error) {
	for range maxInterim {
		if err := c.readResponse(u); err != nil {
			return failure{sent: true}, err
		}
		if c.res.Status >= 200 || c.res.Status == 101 {
			return failure{sent: true}, c.switching()
		}
		if err := c.interim(u); err != nil {
			return failure{sent: true}, err
		}
	}
	return failure{sent: true}, bad("interim answers without end")
}

// maxInterim bounds the 1xx answers before the final one.
const maxInterim = 64

// switching checks that a 101 is one that was asked for.
func (c *conn) switching() error {
	if c.res.Status == 101 && (!c.rq.upgrade || c.res.Upgrade == nil) {
		return bad("a 101 that was not asked for")
	}
	return nil
}

// expectWait is how long a backend may take to say 100 before the client is
// told to go ahead anyway (RFC 9110 section 10.1.1: no indefinite wait).
const expectWait = time.Second

// readResponse reads one head from the backend into c.res. It stays in u.in
// until the caller skips it: c.res points into it.
func (c *conn) readResponse(u *upstream) error {
	seen := 0
	for {
		n, err := FindHead(u.in.unread(), max(0, seen-2))
		if err != nil {
			return err
		}
		if n > 0 {
			head := u.in.unread()[:n]
			u.in.r += n // not skip: that might let fill overwrite the head
			return c.res.ParseResponse(head, c.s.cfg.Limits, c.rq.head)
		}
		if u.in.full() {
			return bad("the head of the answer is too long")
		}
		seen = u.in.len()
		if err := c.fillFrom(u); err != nil {
			return err
		}
	}
}

// fillFrom reads from the backend. While the backend has yet to say 100, a
// silence of expectWait sets the upload going.
func (c *conn) fillFrom(u *upstream) error {
	if !c.rq.expect {
		k, err := u.in.fill(u.nc)
		if k > 0 {
			return nil
		}
		return err
	}
	_ = u.nc.SetReadDeadline(time.Now().Add(expectWait))
	k, err := u.in.fill(u.nc)
	if u.alarm.struck() || c.isGone() {
		return err
	}
	_ = u.nc.SetReadDeadline(time.Time{})
	if k > 0 || err == nil {
		return nil
	}
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		return err
	}
	return c.goAhead(u)
}

// goAhead tells a client that waits for it to send its body.
func (c *conn) goAhead(u *upstream) error {
	c.rq.expect = false
	if err := c.write([]byte("HTTP/1.1 100 Continue\r\n\r\n")); err != nil {
		return errClient
	}
	c.alarm.off()
	c.upload.start(u)
	return nil
}

// interim passes a 1xx answer on (RFC 9110 section 15.2).
func (c *conn) interim(u *upstream) error {
	if c.upload.finished() && !c.rq.expect {
		u.alarm.set(c.within(c.s.cfg.Timeouts.FirstByte))
	}
	if c.res.Status == 100 {
		if !c.rq.expect {
			return nil // it was told already, or did not ask
		}
		return c.goAhead(u)
	}
	if c.rq.minor == 0 {
		return nil // HTTP/1.0 knows no interim answers
	}
	head := c.res.appendResponse(nil, NoBody, "", false)
	if c.upload.finished() {
		c.armClient()
		defer c.alarm.off()
	} // else the alarm is the upload's
	if _, err := c.sock.Write(head); err != nil {
		return errClient
	}
	return nil
}

var errClient = errors.New("the client failed")

// broke ends a try that failed before the client saw anything.
func (c *conn) broke(u *upstream, f failure, err error) (step, failure) {
	silent := u.in.w == 0 // not a byte of an answer
	timedOut := u.alarm.struck()
	c.upload.stop()
	present := c.detach()
	u.close()
	var pe *ParseError
	switch {
	case !present, errors.Is(err, errClient):
		c.lease.Done(picker.Result{Outcome: picker.Ignore})
		return stepRetry, failure{}
	case c.upload.clientErr != nil:
		c.lease.Done(picker.Result{Outcome: picker.Ignore})
		return c.badUpload(), failure{}
	case timedOut:
		f.status, f.reason, f.text = 504, "timeout", "the backend did not answer in time"
	case errors.As(err, &pe):
		f.status, f.reason, f.text = 502, "bad_response", "the backend's answer is invalid: "+pe.What
	default:
		f.status, f.reason, f.text = 502, "reset", "the backend broke off before it answered"
		f.stale = u.reused && silent
		replayable := !c.rq.streams && (c.rq.idempotent || !f.sent)
		f.again = replayable && (f.stale || !f.sent || c.s.cfg.Retry.Reset)
	}
	outcome := picker.Failure
	if f.stale {
		outcome = picker.Ignore // closing an idle connection is no fault
	}
	c.lease.Done(picker.Result{Outcome: outcome})
	return stepRetry, f
}

// badUpload answers a client whose body was invalid, late or cut off.
func (c *conn) badUpload() step {
	c.s.stats.clientErrors.Add(1)
	err := c.upload.clientErr
	if errors.Is(err, errChunk) {
		c.reply(answer{status: 400, text: err.Error()})
	} else if !errors.Is(err, io.EOF) && c.alarm.struck() {
		c.lastWords()
		c.reply(answer{status: 408, reason: "body_timeout", text: "the request body took too long"})
	}
	return stepClose
}
