package h1

import (
	"errors"
	"os"
	"time"
)

// awaitHead reads the answer's head, passing interim ones on.
func (c *conn) awaitHead(u *upstream) error {
	for range maxInterim {
		if err := c.readResponse(u); err != nil {
			return err
		}
		if c.res.Status >= 200 || c.res.Status == 101 {
			return c.switching()
		}
		if err := c.interim(u); err != nil {
			return err
		}
	}
	return bad("interim answers without end")
}

// maxInterim bounds the 1xx answers before the final one.
const maxInterim = 64

// switching checks that a 101 is one that was asked for.
func (c *conn) switching() error {
	if c.res.Status == 101 && (!c.rq.upgrade || !c.res.switchesTo(sentUpgrade(c.out))) {
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
		k, err := u.sock.fill(&u.in)
		if k > 0 {
			return nil
		}
		return err
	}
	wait := expectWait
	if c.rq.deadline > 0 {
		wait = min(wait, c.rq.deadline-c.s.e.now())
	}
	_ = u.nc.SetReadDeadline(time.Now().Add(wait))
	k, err := u.sock.fill(&u.in)
	if u.alarm.struck() || c.isGone() {
		return err
	}
	_ = u.nc.SetReadDeadline(time.Time{})
	if u.alarm.struck() {
		_ = u.nc.SetReadDeadline(longAgo)
	}
	if k > 0 || err == nil {
		return nil
	}
	if c.overdue() {
		u.alarm.fire()
		return err
	}
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		return err
	}
	return c.goAhead(u)
}

// goAhead tells a client that waits for it to send its body.
func (c *conn) goAhead(u *upstream) error {
	c.rq.expect, c.rq.told = false, true
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
		u.alarm.set(c.forHead(c.s.e.now()))
	}
	if c.res.Status == 100 && c.rq.expect {
		return c.goAhead(u)
	}
	if c.res.Status == 100 && c.rq.told {
		return nil // by us, and once is enough
	}
	if c.rq.minor == 0 {
		return nil // HTTP/1.0 knows no interim answers
	}
	if a := c.s.affinity; a != nil {
		c.res.dropSetCookie(a.name)
	}
	head := c.s.forward.appendResponse(nil, &c.res, NoBody, "", false)
	if c.upload.finished() {
		c.alarm.set(c.within(c.credit.offer(c.clock())))
		defer c.alarm.off()
	} // else the alarm is the upload's
	if _, err := c.sock.Write(head); err != nil {
		return errClient
	}
	return nil
}

var errClient = errors.New("the client failed")
