package h1

import (
	"errors"
	"io"
	"time"

	"outrigger/picker"
	"outrigger/sidecar/access"
)

// relay sends the answer whose head is in c.res to the client, ends the lease
// and gives the backend's connection back if it is clean.
func (c *conn) relay(u *upstream, sentAt time.Duration) (step, failure) {
	c.upload.answered()
	u.alarm.off() // until more is wanted of the backend
	status := c.res.Status
	r := picker.Result{Outcome: c.outcome(status), FirstByte: c.now - sentAt}
	if status == 101 {
		c.upgraded(u, r)
		return stepClose, failure{}
	}
	c.s.stats.passed[status/100].Add(1)
	persists := c.res.KeepAlive
	to, connection := c.clientFraming()
	c.s.e.bufs.attach(&c.buf)
	dst := c.answerHead(c.buf.b[:0], to, connection, false)
	if len(dst) > bufSize-chunkRoom {
		dst = c.flush(dst)
	}
	var body, client error
	if dst == nil {
		client = errClient
	} else {
		body, client = c.copyBody(u, dst, to)
	}
	r.Total = c.clock() - c.rq.start
	return c.relayed(u, r, body, client, persists, connection != "close"), failure{}
}

// outcome is what an answer's status says of the backend.
func (c *conn) outcome(status int) picker.Outcome {
	switch {
	case status < 600 && c.s.failure[status]:
		return picker.Failure
	case status == 429 || status == 503:
		return picker.Drop
	default:
		return picker.Success
	}
}

// relayed tidies up after an answer: body and client are the errors of the two
// sides.
func (c *conn) relayed(u *upstream, r picker.Result, body, client error, persists, keep bool) step {
	whole := body == nil && client == nil
	// A backend that waits for the rest of a body is not late: its client is.
	stalled := c.upload.reading.Load() && u.alarm.struck()
	sent := c.joined(u)
	c.detach()
	reason := access.Done
	switch {
	case c.upload.clientErr != nil, body != nil && stalled:
		reason = "bad_upload"
		c.s.stats.clientErrors.Add(1) // and the upload broke the answer off
		r.Outcome = picker.Ignore
	case client != nil:
		reason = "client_gone"
		c.s.stats.clientGone.Add(1)
		r.Outcome = picker.Ignore
	case body != nil && c.isGone():
		reason = "client_gone"
		c.s.stats.clientGone.Add(1)
		r.Outcome = picker.Ignore
	case body != nil && c.rq.impatient && c.overdue():
		reason = "request_timeout"
		r.Outcome = picker.Ignore // the client's haste is no fault of the backend
	case body != nil:
		reason = c.cutReason(u, body)
		c.s.stats.aborted.Add(1)
		r.Outcome = picker.Failure
	}
	if whole && persists && sent {
		u.put(c.now)
	} else {
		u.close()
	}
	c.lease.Done(r)
	c.finish(c.res.Status, reason)
	if whole && !sent {
		c.lingers = true
		return stepClose
	}
	if !whole {
		c.abort()
		return stepClose
	}
	if keep {
		return stepKeep
	}
	if c.in.len() > 0 || c.rq.wantsMore {
		c.lingers = true // the client may have sent more before it saw "close"
	}
	return stepClose
}

// joined ends the upload and reports whether the whole request had gone out
// before the answer was over: else the connection carries no other.
func (c *conn) joined(u *upstream) bool {
	ended := c.upload.ended()
	c.upload.stop()
	return ended && c.upload.complete && !u.sock.broken
}

// cutReason says why an answer was cut short.
func (c *conn) cutReason(u *upstream, body error) string {
	switch {
	case errors.Is(body, errChunk):
		return "bad_response"
	case u.alarm.struck() && c.overdue():
		return "request_timeout"
	case u.alarm.struck():
		return "idle_timeout"
	default:
		return "reset"
	}
}

// abort makes the end of the connection look like the cut it is: a reset, so
// that no client takes what it got for the whole.
func (c *conn) abort() {
	if l, ok := c.nc.(interface{ SetLinger(int) error }); ok {
		_ = l.SetLinger(0)
	}
}

// clientFraming decides how the body ends at the client, and what Connection
// says there.
func (c *conn) clientFraming() (to Framing, connection string) {
	to = c.res.Framing
	keep := c.rq.keepAlive && !c.s.draining.Load()
	if to == UntilEOF && c.rq.minor > 0 {
		to = Chunked
	} else if to == Chunked && c.rq.minor == 0 {
		to, keep = UntilEOF, false
	} else if to == UntilEOF {
		keep = false
	}
	// A body the client was never told to send leaves the connection unusable.
	if c.rq.expect || c.rq.streams && c.upload.finished() && !c.upload.complete {
		keep = false
	}
	switch {
	case !keep:
		return to, "close"
	case c.rq.minor == 0:
		return to, "keep-alive"
	default:
		return to, ""
	}
}

// flush writes b and returns an empty slice of c.buf, nil if the client failed.
func (c *conn) flush(b []byte) []byte {
	if c.write(b) != nil {
		return nil
	}
	return c.buf.b[:0]
}

// copyBody sends dst, which holds the head, and the body behind it. body is the
// error of the backend's side, client of the client's.
func (c *conn) copyBody(u *upstream, dst []byte, to Framing) (body, client error) {
	defer c.alarm.off()
	switch c.res.Framing {
	case NoBody:
		if c.flush(dst) == nil {
			return nil, errClient
		}
		return nil, nil
	case Chunked:
		return c.copyChunked(u, dst, to)
	default:
		return c.copyPlain(u, dst, to)
	}
}

// copyPlain copies a body that ends after a length or with the connection.
func (c *conn) copyPlain(u *upstream, dst []byte, to Framing) (body, client error) {
	untilEOF := c.res.Framing == UntilEOF
	left := c.res.Length
	for {
		data := u.in.unread()
		if !untilEOF {
			data = data[:min(int64(len(data)), left)]
			left -= int64(len(data))
		}
		ended := !untilEOF && left == 0
		if dst, client = c.put(dst, data, to); client != nil {
			return nil, client
		}
		u.in.skip(len(data))
		if ended {
			return nil, nil
		}
		if !untilEOF && left > bufSize {
			c.s.e.bufs.resize(&u.in, true)
		}
		if err := c.more(u); err != nil {
			if !untilEOF || err != io.EOF {
				return cutErr(err), nil
			}
			if to == Chunked && c.flush(append(dst, "0\r\n\r\n"...)) == nil {
				return nil, errClient
			}
			return nil, nil
		}
	}
}

// put sends dst and data in the client's framing: in one piece where they fit
// into the buffer, else data, when it needs no framing, straight from where it
// is.
func (c *conn) put(dst, data []byte, to Framing) ([]byte, error) {
	if to == Chunked {
		for len(data) > 0 {
			k := min(len(data), cap(dst)-len(dst)-chunkRoom)
			if k > 0 {
				dst = appendChunk(dst, data[:k])
				data = data[k:]
			}
			if dst = c.flush(dst); dst == nil {
				return nil, errClient
			}
		}
	} else if len(dst)+len(data) <= cap(dst) && len(dst) > 0 {
		dst, data = append(dst, data...), nil
	}
	if len(dst) > 0 {
		if dst = c.flush(dst); dst == nil {
			return nil, errClient
		}
	}
	if len(data) > 0 && c.write(data) != nil {
		return nil, errClient
	}
	return dst, nil
}

// copyChunked copies a chunked body, taking the coding off and putting our own
// on: what the client sees is framed by us alone.
func (c *conn) copyChunked(u *upstream, dst []byte, to Framing) (body, client error) {
	d := &c.chunks
	d.reset()
	for {
		b := u.in.unread()
		b = b[:min(len(b), max(0, cap(dst)-len(dst)-chunkRoom))]
		n, used, err := d.decode(b)
		if err != nil {
			return err, nil
		}
		if to == Chunked {
			dst = appendChunk(dst, b[:n])
		} else {
			dst = append(dst, b[:n]...)
		}
		u.in.skip(used)
		if d.done() {
			if to == Chunked {
				dst = append(d.appendTrailers(append(dst, "0\r\n"...)), '\r', '\n')
			}
			if c.flush(dst) == nil {
				return nil, errClient
			}
			return nil, nil
		}
		if len(dst) > 0 {
			if dst = c.flush(dst); dst == nil {
				return nil, errClient
			}
		}
		if u.in.len() == 0 {
			if err := c.more(u); err != nil {
				return cutErr(err), nil
			}
		}
	}
}

func cutErr(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// more reads the next bytes of a body from the backend.
func (c *conn) more(u *upstream) error {
	c.alarm.off() // the client owes nothing while we wait
	u.alarm.set(c.within(c.s.cfg.Timeouts.Idle))
	u.in.r, u.in.w = 0, 0 // nothing is unread
	k, err := u.sock.fill(&u.in)
	c.clock()
	u.alarm.off() // what comes next is the client's to take
	if k > 0 {
		return nil
	}
	return err
}

// upgraded passes the 101 on and tunnels until both sides have ended.
func (c *conn) upgraded(u *upstream, r picker.Result) {
	head := c.answerHead(nil, NoBody, "", true)
	c.s.stats.passed[1].Add(1)
	ended := c.upload.ended()
	c.upload.stop()
	present := ended && c.write(head) == nil
	present = c.detach() && present
	reason := access.Done
	ok := c.alarm.off() && u.alarm.off()
	if present && ok {
		c.s.stats.tunnels.Add(1)
		c.s.tunnel(c.nc, u.nc, c.in.unread(), u.in.unread(), c.s.cfg.Timeouts.Tunnel)
		c.s.stats.tunnels.Add(-1)
	} else {
		r.Outcome, reason = picker.Ignore, "client_gone"
	}
	u.close()
	r.Total = c.clock() - c.rq.start
	c.lease.Done(r)
	c.finish(101, reason)
}
