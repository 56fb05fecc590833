package h1

import (
	"bytes"
	"errors"
	"io"
	"os"
)

// headState is how the wait for a request ended.
type headState uint8

const (
	headRead   headState = iota
	headNone             // the connection is done
	headParked           // it rests, and is no longer ours
	headMore             // not yet
)

// readHead reads and parses the next request head, or answers why it cannot.
func (c *conn) readHead() headState {
	s := c.s
	c.skipEmptyLines()
	began := c.in.len() > 0
	if began {
		c.headBegins()
	} else {
		c.rest()
		c.idle()
	}
	seen := 0
	for {
		n, err := FindHead(c.in.unread(), max(0, seen-2))
		if n > 0 {
			return c.parse(n)
		}
		if err == nil && c.in.len() >= s.cfg.Limits.Head {
			err = tooLong(c.in.unread())
		}
		if err != nil {
			return c.rejectHead(err)
		}
		seen = c.in.len()
		if err := c.fillIn(); err == errNudged {
			if st := c.rouse(); st != headMore {
				return st
			}
			continue
		} else if err != nil {
			return c.noHead(err, seen > 0)
		}
		c.clock()
		c.skipEmptyLines()
		if !began && c.in.len() > 0 {
			began = true
			c.idleAt.Store(0)
			c.headBegins()
		}
	}
}

// idle begins the wait for a request, unless it has begun: before the connection
// was parked, say.
func (c *conn) idle() {
	if c.idleAt.Load() == 0 {
		c.idleAt.Store(int64(c.now))
		c.alarm.set(c.now + c.s.cfg.Timeouts.Idle)
	}
}

// headBegins takes note that the first byte of a request has come.
func (c *conn) headBegins() {
	c.begin()
	c.headAt = c.now
	c.lasting.Store(false)
	c.rq.begin(c)
	c.credit.reset(&c.s.cfg)
	c.alarm.last.Store(0)
	c.out = c.out[:0]
	c.alarm.set(c.now + c.s.cfg.Timeouts.Head)
}

// skipEmptyLines drops CRLFs before a request line (RFC 9112 section 2.2).
func (c *conn) skipEmptyLines() {
	for c.in.len() >= 2 && c.in.b[c.in.r] == '\r' && c.in.b[c.in.r+1] == '\n' {
		c.in.skip(2)
	}
}

func tooLong(b []byte) error {
	for _, ch := range b {
		if ch == '\n' {
			return &ParseError{431, "the header section is too long"}
		}
	}
	return &ParseError{414, "the request line is too long"}
}

// badRequest is the access log's word for a request that was refused with the
// status.
func badRequest(status int) string {
	switch status {
	case 408:
		return "head_timeout"
	case 413, 414, 431:
		return "too_large"
	default:
		return "bad_request"
	}
}

// noHead ends a connection on which no whole head came.
func (c *conn) noHead(err error, partial bool) headState {
	if partial && errors.Is(err, os.ErrDeadlineExceeded) && !c.isGone() {
		c.lastWords()
		return c.rejectHead(&ParseError{408, "the head took too long"})
	}
	if partial && errors.Is(err, io.EOF) {
		c.s.stats.clientErrors.Add(1) // cut off; there is nobody to tell
		c.clock()
		c.finish(0, "client_gone")
	}
	return headNone
}

func (c *conn) parse(n int) headState {
	head := c.in.unread()[:n]
	if n > c.s.cfg.Limits.Head {
		return c.rejectHead(tooLong(head))
	}
	if err := c.req.ParseRequest(head, c.s.cfg.Limits); err != nil {
		return c.rejectHead(err)
	}
	c.in.skip(n)
	return headRead
}

// rejectHead is reject for a head that was not parsed: the answer to HEAD must
// have no content all the same.
func (c *conn) rejectHead(err error) headState {
	c.rq.head = bytes.HasPrefix(c.in.unread(), []byte("HEAD "))
	return c.reject(err)
}

// reject answers a request that is invalid and ends the connection: where the
// next request would begin is anybody's guess.
func (c *conn) reject(err error) headState {
	c.s.stats.clientErrors.Add(1)
	status, what := 400, err.Error()
	var pe *ParseError
	if errors.As(err, &pe) {
		status = pe.Status
	}
	c.rq.minor, c.rq.keepAlive = 1, false
	c.reply(answer{status: status, text: what, termination: badRequest(status)})
	return headNone
}
