package h1

import (
	"errors"
	"syscall"
	"time"

	"outrigger/picker"
	"outrigger/sidecar/access"
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
	status int    // what the client gets if there is no other try; 0: our 503
	reason string // Outrigger-Reason for it
	text   string
	sent   bool // bytes may have reached the backend
	again  bool // allowed to try another endpoint
	stale  bool // a kept-alive connection had died: the endpoint itself may be well
	leased bool // another endpoint is leased already
	cause  cause
	// retryAfter is how long the backend asked not to be bothered.
	retryAfter time.Duration
}

// exchange serves the request whose head was just parsed. false: the client's
// connection is done.
func (c *conn) exchange() bool {
	defer c.s.e.bufs.release(&c.buf)
	if !c.note() {
		return false
	}
	if c.req.MaxForwards == 0 {
		return c.lastRecipient()
	}
	if !c.takeBody() {
		return false
	}
	keep := !c.rq.streams // an unread body makes the connection useless
	var err error
	c.key = balance.Key{Deadline: c.rq.deadline, Hash: c.rq.key, Pin: c.rq.pin.of}
	if c.lease, err = c.s.b.Acquire(c, c.key); err != nil {
		return c.refuse(err, keep)
	}
	var reached failure // the last try in which a backend may have got something
	for {
		c.rq.tries++
		st, f := c.try(c.key.Again)
		if st != stepRetry {
			return st == stepKeep
		}
		if f.status > 0 {
			reached = f
		}
		if f.leased || f.again && c.rq.tries <= c.s.cfg.Retry.Attempts && c.pause(&f) && c.nextTry(&f) {
			continue
		}
		if c.isGone() {
			c.s.stats.clientGone.Add(1)
			return false
		}
		return c.fail(&reached, keep)
	}
}

// overdue reports whether the request's time is up.
func (c *conn) overdue() bool { return c.rq.deadline > 0 && c.s.e.now() >= c.rq.deadline }

// fail answers a request whose last try failed: f is of the last one in which
// a backend may have got something, zero if there was none.
func (c *conn) fail(f *failure, keep bool) bool {
	c.clock()
	if f.status == 0 {
		return c.refuse(c.s.b.Refuse(balance.Unreachable), keep)
	}
	return c.reply(answer{status: f.status, reason: f.reason, text: f.text, keep: keep})
}

// try sends the request to the leased endpoint and relays the answer. It ends
// the lease on every path. fresh asks for a new connection.
func (c *conn) try(fresh bool) (step, failure) {
	asked := c.now
	c.now = c.lease.Start()
	c.rq.times = times{max(0, c.rq.times.queue) + c.now - asked, access.NotReached, access.NotReached}
	c.rq.endpoint = c.lease.Endpoint()
	c.rq.tryEnd = 0
	if t := c.s.cfg.Retry.PerTry; t > 0 {
		c.rq.tryEnd = c.now + t
	}
	c.key.Tried.Add(c.lease.Endpoint())
	for {
		st, f, err := c.tryOnce(fresh)
		if err != errStale {
			return st, f
		}
	}
}

// errStale is the error of a kept-alive connection that was found closed, or
// with bytes that nobody asked for, before anything was sent.
var errStale = errors.New("the kept-alive connection is of no use")

// tryOnce is a try on one connection. With errStale the lease goes on.
func (c *conn) tryOnce(fresh bool) (step, failure, error) {
	p := c.lease.Conns().(*pool)
	u, err := p.get(c, fresh, c.inTry(p.cfg.Timeouts.Connect)-c.now)
	if err != nil {
		st, f := c.dialFailed(err)
		return st, f, nil
	}
	if u.reused && u.sock.looksFirst() && !c.holds() && !u.quiet() {
		u.close()
		return 0, failure{}, errStale
	}
	c.rq.reused, c.rq.times.connect = u.reused, 0
	if !u.reused {
		c.rq.times.connect = c.clock() - c.lease.Start()
	}
	if !c.attach(u) {
		c.detach()
		u.close()
		c.lease.Done(picker.Result{Outcome: picker.Ignore})
		return stepRetry, failure{}, nil
	}
	sentAt := c.now
	f, err := c.send(u)
	if err == nil {
		err = c.awaitHead(u)
		f.sent = f.sent || u.sock.wrote
	}
	c.clock()
	if err == errStale && c.detach() {
		u.close()
		return 0, failure{}, err
	}
	if err != nil {
		st, f := c.broke(u, f, err)
		return st, f, nil
	}
	if c.rq.streams { // how long the client took to send is not the backend's doing
		sentAt = min(c.now, max(sentAt, time.Duration(c.upload.endedAt.Load())))
	}
	c.rq.times.firstByte = c.now - sentAt
	if c.s.load != nil {
		c.told(u)
	}
	st, f := c.answered(u, sentAt)
	return st, f, nil
}

// answered goes on with the answer whose head is in c.res.
func (c *conn) answered(u *upstream, sentAt time.Duration) (step, failure) {
	if c.unwanted() {
		if f, ok := c.another(u, sentAt); ok {
			return stepRetry, f
		}
		if !c.isGone() {
			return c.relay(u, sentAt)
		}
		c.upload.stop()
		c.detach()
		u.close()
		c.lease.Done(picker.Result{Outcome: c.outcome(c.res.Status), FirstByte: c.rq.times.firstByte, Total: c.rq.times.firstByte})
		return stepRetry, failure{}
	}
	return c.relay(u, sentAt)
}

// inTry is the time d from now, cut short by the ends of the try and of the
// request.
func (c *conn) inTry(d time.Duration) time.Duration { return c.rq.inTry(c.now, d) }

func (r *request) inTry(now, d time.Duration) time.Duration {
	at := r.within(now, d)
	if r.tryEnd > 0 && r.tryEnd < at {
		return r.tryEnd
	}
	return at
}

// forHead is until when the head of the answer may take. A try whose body was
// streamed has its time from the end of that.
func (c *conn) forHead(now time.Duration) time.Duration {
	cfg := &c.s.cfg
	if c.rq.streams && cfg.Retry.PerTry > 0 {
		return min(c.rq.within(now, cfg.Timeouts.FirstByte), time.Duration(c.upload.endedAt.Load())+cfg.Retry.PerTry)
	}
	return c.rq.inTry(now, cfg.Timeouts.FirstByte)
}

func (c *conn) dialFailed(err error) (step, failure) {
	f := failure{again: c.s.cfg.Retry.ConnectFailure}
	r := picker.Result{Outcome: picker.Failure, Down: nobodyThere(err), NoConn: true}
	switch {
	case c.isGone():
		r, f = picker.Result{Outcome: picker.Ignore}, failure{}
	case ourFault(err):
		c.s.grip(err)
		r, f = picker.Result{Outcome: picker.Ignore}, failure{}
	case c.overdue(): // it may have been about to succeed
		r, f = picker.Result{Outcome: picker.Ignore}, timedOut("request_timeout", "there was no answer within the request's time")
	case errors.Is(err, syscall.ECONNREFUSED):
		f.again = f.again || c.s.cfg.Retry.Refused
		f.cause = byRefusal
	}
	c.s.log.Debug("connecting to a backend failed", "endpoint", c.lease.Endpoint().Addr, "error", err)
	c.lease.Done(r)
	c.clock()
	return stepRetry, f
}

func timedOut(reason, text string) failure {
	return failure{status: 504, reason: reason, text: text, cause: byTimeout, sent: true}
}

// maxHeld is the longest request that is written by the goroutine that awaits
// the answer: one that comes early would be missed while a write waits.
const maxHeld = 64 << 10

// holds reports whether the request is written by the goroutine that awaits the
// answer.
func (c *conn) holds() bool { return !c.rq.streams && len(c.out) <= maxHeld }

// send has the head, with a small body, written when the answer is waited for,
// or writes it and starts the upload of a large one.
func (c *conn) send(u *upstream) (failure, error) {
	u.alarm.last.Store(int64(c.rq.deadline))
	u.alarm.set(c.inTry(c.s.cfg.Timeouts.FirstByte))
	if c.holds() {
		u.sock.hold(c.out, u.reused)
		return failure{}, nil
	}
	if !c.rq.streams {
		c.upload.startHeld(u, c.out)
		return failure{sent: true}, nil
	}
	n, err := u.sock.Write(c.out)
	if err != nil {
		return failure{sent: n > 0}, err
	}
	u.alarm.off() // the time for the answer runs from the end of the body
	if !c.rq.expect {
		c.upload.start(u)
	}
	return failure{sent: true}, nil
}

// broke ends a try that failed before the client saw anything.
func (c *conn) broke(u *upstream, f failure, err error) (step, failure) {
	silent := u.in.w == 0 // not a byte of an answer
	late := u.alarm.struck()
	c.upload.stop()
	uploading := !c.upload.complete
	present := c.detach()
	u.close()
	var pe *ParseError
	outcome := picker.Failure
	switch {
	case !present, errors.Is(err, errClient):
		c.lease.Done(picker.Result{Outcome: picker.Ignore})
		return stepRetry, failure{}
	case c.upload.clientErr != nil:
		c.lease.Done(picker.Result{Outcome: picker.Ignore})
		return c.badUpload(), failure{}
	case late:
		f = c.late(uploading)
		f.again = c.s.cfg.Retry.Timeout && !c.rq.streams && c.rq.replayable && !c.overdue()
		if c.rq.impatient && c.overdue() {
			outcome = picker.Ignore // the client's haste is no fault of the backend
		}
	case errors.As(err, &pe):
		f.status, f.reason, f.text = 502, "bad_response", "the backend's answer is invalid: "+pe.What
	default:
		if f.sent {
			f.status, f.reason, f.text = 502, "reset", "the backend broke off before it answered"
		}
		f.cause = byReset
		f.stale = u.reused && silent
		mayRepeat := !c.rq.streams && (c.rq.replayable || !f.sent)
		f.again = mayRepeat && (f.stale || !f.sent || c.s.cfg.Retry.Reset)
	}
	if f.stale {
		outcome = picker.Ignore // closing an idle connection is no fault
	}
	c.lease.Done(picker.Result{Outcome: outcome})
	return stepRetry, f
}

// late is the failure of a try whose time was up.
func (c *conn) late(uploading bool) failure {
	switch {
	case c.overdue():
		return timedOut("request_timeout", "there was no answer within the request's time")
	case uploading:
		return timedOut("idle_timeout", "the backend stopped taking the request")
	case c.s.cfg.Retry.PerTry > 0 && c.forHead(0) <= c.now && c.s.cfg.Retry.PerTry < c.s.cfg.Timeouts.FirstByte:
		return timedOut("try_timeout", "the backend did not answer within the time of a try")
	default:
		return timedOut("first_byte_timeout", "the backend did not answer in time")
	}
}
