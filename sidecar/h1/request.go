package h1

import (
	"bytes"
	"errors"
	"net"
	"os"
	"time"

	"outrigger/picker"
	"outrigger/sidecar/access"
)

// request is what must be known of a request after its head has gone from the
// buffer.
type request struct {
	start      time.Duration
	deadline   time.Duration // 0: none
	minor      int
	head       bool // HEAD
	replayable bool // its method may be sent twice
	keepAlive  bool
	upgrade    bool
	expect     bool
	json       bool   // the client prefers JSON
	streams    bool   // its body is sent as it comes, so it cannot be sent twice
	wantsMore  bool   // the client lets the connection persist
	told       bool   // to go ahead with its body
	impatient  bool   // the deadline is the client's own
	key        uint64 // see KeyConfig
	pin        pin    // what its cookie says
	tries      int
	tryEnd     time.Duration // of the try under way; 0: none

	// For the access log.
	times                times
	endpoint             *picker.Endpoint // of the last try
	reused               bool             // its connection
	finished             bool
	gotBefore, putBefore int64 // bytes of the connection before this request
}

// begin makes r the request whose first byte has come.
func (r *request) begin(c *conn) {
	*r = request{
		start: c.now, minor: 1, times: times{access.NotReached, access.NotReached, access.NotReached},
		gotBefore: c.sock.got - int64(c.in.len()), putBefore: c.sock.put,
	}
}

// note takes what is needed later out of the parsed head, and writes the head
// for the backend. false: the request was answered.
func (c *conn) note() bool {
	h := &c.req
	r := &c.rq
	r.start, r.minor = c.now, h.Minor
	r.head = string(h.Method) == "HEAD"
	r.replayable = c.s.cfg.Retry.replayable(h)
	r.keepAlive, r.wantsMore = h.KeepAlive, h.KeepAlive
	r.upgrade = c.s.tunnel != nil && h.tunnels()
	r.expect = h.Expect && h.Framing != NoBody
	r.json = h.wants("application/json")
	r.streams = h.Framing != NoBody
	c.alarm.off()
	if t := c.s.cfg.Timeouts.Request; t > 0 {
		c.rq.deadline = c.now + t
	}
	if c.served++; c.served == c.s.cfg.MaxRequests {
		c.rq.keepAlive = false
	}
	c.upload.credit.reset(&c.s.cfg)
	if most := c.s.cfg.MaxBody; most > 0 && h.Framing == Length && h.Length > most {
		c.reject(tooLarge())
		return false
	}
	if err := c.overrideTimeout(); err != nil {
		c.reject(err)
		return false
	}
	c.alarm.last.Store(int64(c.rq.deadline))
	if len(h.Host) == 0 && h.Minor == 0 {
		// HTTP/1.0 may leave Host out, HTTP/1.1 servers want one: the authority
		// that the client connected to.
		h.Host = []byte("localhost")
		if a, ok := c.nc.LocalAddr().(*net.TCPAddr); ok {
			h.Host = []byte(a.String())
		}
	}
	c.bind()
	c.out = c.s.forward.appendRequest(c.out[:0], h, &c.peer, c.rq.upgrade, c.rq.expect)
	c.upload.reset(h.Framing, h.Length, c.s.cfg.MaxBody)
	return true
}

func tooLarge() error { return &ParseError{413, "the request body is too large"} }

// overrideTimeout takes the request's own time-out from the header that is
// configured for it: whole milliseconds.
func (c *conn) overrideTimeout() error {
	name := c.s.cfg.Timeouts.RequestHeader
	if name == "" {
		return nil
	}
	found := false
	for i := range c.req.Headers {
		f := &c.req.Headers[i]
		if len(f.Name) != len(name) || !bytes.EqualFold(f.Name, []byte(name)) {
			continue
		}
		ms, ok := decimal(f.Value)
		if !ok || found || ms < 1 || ms > int64(maxTimeout/time.Millisecond) {
			return bad("the header " + name + " is not one number of milliseconds from 1 to 86400000")
		}
		found, f.drop = true, true
		c.rq.deadline = c.now + time.Duration(ms)*time.Millisecond
		c.rq.impatient = true
	}
	return nil
}

// takeBody appends what there is of the body to what goes to the backend with
// the head: a small body whole, waiting for the rest of it.
func (c *conn) takeBody() bool {
	switch {
	case !c.rq.streams || c.rq.expect:
		return true
	case c.req.Framing == Chunked:
		return c.takeChunks()
	case c.req.Length > int64(c.s.cfg.Retry.BodyBuffer):
		return true
	}
	for left := int(c.req.Length); left > 0; {
		if c.in.len() == 0 {
			c.alarm.set(c.within(c.upload.credit.offer(c.now)))
			if err := c.fillIn(); err != nil {
				return c.noBody()
			}
			c.upload.credit.earn(c.clock(), c.in.len())
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

// takeChunks takes the chunks that came with the head. If they are all, the
// request can be sent again.
func (c *conn) takeChunks() bool {
	p := &c.upload
	if c.in.len() == 0 || c.in.len() > c.s.cfg.Retry.BodyBuffer {
		return true
	}
	c.s.e.bufs.attach(&p.out)
	defer c.s.e.bufs.release(&p.out)
	for c.in.len() > 0 && !p.complete {
		if err := p.step(); err != nil {
			p.clientErr = err
			c.badUpload()
			return false
		}
		c.out = append(c.out, p.out.b[:p.out.w]...)
	}
	c.rq.streams = !p.complete
	return true
}

// noBody ends a request whose body did not come. Nothing has been leased yet.
func (c *conn) noBody() bool {
	c.s.stats.clientErrors.Add(1)
	if c.alarm.struck() {
		c.bodyTimedOut()
	}
	return false
}

func (c *conn) bodyTimedOut() {
	c.lastWords()
	c.reply(answer{status: 408, reason: "body_timeout", text: "the request body took too long"})
}

// badUpload answers a client whose body was invalid, late or cut off.
func (c *conn) badUpload() step {
	c.s.stats.clientErrors.Add(1)
	err := c.upload.clientErr
	var pe *ParseError
	switch {
	case errors.Is(err, errChunk):
		c.reply(answer{status: 400, text: err.Error(), termination: "bad_request"})
	case errors.As(err, &pe):
		c.reply(answer{status: pe.Status, text: pe.What, termination: badRequest(pe.Status)})
	case os.IsTimeout(err) && c.alarm.struck():
		c.bodyTimedOut()
	}
	return stepClose
}
