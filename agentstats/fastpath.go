package agentstats

import (
	"bytes"
	"net"
	"sync"
)

// parsePoll reads the request of a poll in the form in which sidecars send it:
//
//	GET /v1/report HTTP/1.1
//	Host: HOST
//	Authorization: Bearer TOKEN     (where the agent has a token)
//	Outrigger-In-Flight: NUMBER     (optional)
//
// and nothing after it. ok is false for everything else, be it right or wrong: that
// is net/http's to judge.
func (g *guard) parsePoll(req []byte) (own Opt[int64], ok bool) {
	rest, ok := bytes.CutPrefix(req, []byte("GET "+ReportPath+" HTTP/1.1\r\nHost: "))
	if !ok {
		return own, false
	}
	host, rest, ok := bytes.Cut(rest, []byte("\r\n"))
	if !ok || !plainHost(host) {
		return own, false
	}
	if g.on {
		var value []byte
		if rest, ok = bytes.CutPrefix(rest, []byte("Authorization: ")); !ok {
			return own, false
		}
		if value, rest, ok = bytes.Cut(rest, []byte("\r\n")); !ok || !g.allows(value) {
			return own, false
		}
	}
	if declared, has := bytes.CutPrefix(rest, []byte(InFlightHeader+": ")); has {
		value, after, ok := bytes.Cut(declared, []byte("\r\n"))
		if !ok {
			return own, false
		}
		n, ok := parseCount(value)
		if !ok {
			return own, false
		}
		own, rest = Some(n), after
	}
	return own, string(rest) == "\r\n"
}

// judgeable tells whether net/http can answer what was read of a request without
// waiting for more: a whole head, one that is too long, or what is no HTTP (TLS, say),
// whose sender is to learn that at once.
func judgeable(req []byte) bool {
	return len(req) >= maxHeaderBytes || req[0] < 'A' || req[0] > 'Z' ||
		bytes.Contains(req, []byte("\n\r\n")) || bytes.Contains(req, []byte("\n\n"))
}

// plainHost accepts hosts that cannot be malformed; net/http judges the others.
func plainHost(host []byte) bool {
	for _, c := range host {
		letter := c|0x20 >= 'a' && c|0x20 <= 'z'
		if !letter && (c < '0' || c > '9') && c != '.' && c != '-' && c != ':' && c != '_' && c != '[' && c != ']' {
			return false
		}
	}
	return len(host) > 0 && len(host) <= 300
}

// handedOver is the listener through which connections get from the fast path to
// net/http's server.
type handedOver struct {
	addr  net.Addr
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func newHandedOver(addr net.Addr) *handedOver {
	return &handedOver{addr: addr, conns: make(chan net.Conn), done: make(chan struct{})}
}

func (h *handedOver) Accept() (net.Conn, error) {
	select {
	case c := <-h.conns:
		return c, nil
	case <-h.done:
		return nil, net.ErrClosed
	}
}

// give hands a connection over without waiting; it is closed when nobody takes it.
func (h *handedOver) give(c net.Conn) {
	go func() {
		select {
		case h.conns <- c:
		case <-h.done:
			_ = c.Close()
		}
	}()
}

func (h *handedOver) Close() error {
	h.once.Do(func() { close(h.done) })
	return nil
}

func (h *handedOver) Addr() net.Addr { return h.addr }

// replayed is a connection of which the first bytes were read already.
type replayedConn struct {
	net.Conn
	first []byte
}

func (c *replayedConn) Read(p []byte) (int, error) {
	if len(c.first) == 0 {
		return c.Conn.Read(p)
	}
	n := copy(p, c.first)
	if c.first = c.first[n:]; len(c.first) == 0 {
		c.first = nil
	}
	return n, nil
}
