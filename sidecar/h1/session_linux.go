package h1

// simpleRequests serves requests for as long as they are simple: whole in the
// buffer, so that serving one needs no read. All that happens within one wait
// for the socket, which never resets the poller's flag: bytes that came while a
// request was served are known of, and there is no need to read in vain before
// each wait. headMore: readHead is to go on with what there is.
func (c *conn) simpleRequests() headState {
	if c.sock.raw == nil || c.in.len() > 0 {
		return headMore
	}
	c.idle()
	c.state = headMore
	if c.sock.raw.Read(c.ready) != nil {
		return headMore // readHead will meet the error
	}
	return c.state
}

// readable is called when the socket can be read. false: wait again.
func (c *conn) readable(fd uintptr) bool {
	for {
		c.sock.in = &c.in
		if !c.sock.read(fd) {
			return false
		}
		if c.in.len() == 0 {
			return true // the end, or an error: readHead will meet it
		}
		c.clock()
		full := c.in.w == len(c.in.b)
		c.idleAt.Store(0)
		c.headBegins()
		if st := c.serveSimple(); st != headParked {
			c.state = st
			return true
		}
		c.s.e.bufs.release(&c.in)
		c.idle()
		if !full {
			// A short read leaves nothing behind but perhaps the end, which the
			// watcher hears of.
			return false
		}
	}
}

// serveSimple serves the requests in the buffer. headParked: all are served, and
// the connection waits for the next.
func (c *conn) serveSimple() headState {
	for {
		if c.in.b[c.in.r] == '\r' {
			return headMore
		}
		n, err := FindHead(c.in.unread(), 0)
		if n == 0 || err != nil {
			return headMore
		}
		if c.parse(n) != headRead {
			return headNone
		}
		if !c.simple() {
			return headRead
		}
		if !c.serve() {
			return headNone
		}
		if c.in.len() == 0 {
			return headParked
		}
		c.headBegins()
	}
}

// simple reports whether the request whose head was just parsed can be served
// without another read from the client.
func (c *conn) simple() bool {
	h := &c.req
	return h.Upgrade == nil && (h.Framing == NoBody ||
		h.Framing == Length && !h.Expect && h.Length <= int64(min(c.in.len(), c.s.cfg.Retry.BodyBuffer)))
}
