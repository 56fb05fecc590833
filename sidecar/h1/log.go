package h1

import (
	"bytes"
	"net"
	"time"

	"outrigger/sidecar/access"
)

// times are the phases of a request for the access log. access.NotReached: the
// request did not get there.
type times struct {
	queue     time.Duration // waiting for endpoints, of all tries
	connect   time.Duration // of the last try; 0: the connection was there
	firstByte time.Duration // of the last try
}

// finish tells metrics and the access log how a request ended, once. status is
// what the client got, 0 for nothing.
func (c *conn) finish(status int, reason string) {
	if c.rq.finished {
		return
	}
	c.rq.finished = true
	if status > 0 {
		c.s.observe(status, c.now-c.rq.start)
	}
	if c.s.access.Wants(status, reason) {
		c.log(status, reason)
	}
}

// log writes the line of a request. What it says of the request is read from
// the head that was made for the backend: the one that came may be overwritten.
func (c *conn) log(status int, reason string) {
	r := access.Record{
		Time: time.Now().Add(c.headAt - c.now), Client: c.client(),
		Version: "HTTP/1.1", Status: status, Reason: reason, Tries: c.rq.tries,
		BytesIn:  c.sock.got - int64(c.in.len()) - c.rq.gotBefore,
		BytesOut: c.sock.put - c.rq.putBefore,
		ReadTime: c.rq.start - c.headAt, Total: c.now - c.headAt,
		Queue: c.rq.times.queue, Connect: c.rq.times.connect, FirstByte: c.rq.times.firstByte,
		Reused: c.rq.reused,
	}
	if c.rq.minor == 0 {
		r.Version = "HTTP/1.0"
	}
	if ep := c.rq.endpoint; ep != nil {
		r.Endpoint, r.Address = ep.ID, ep.Addr
	}
	if method, rest, ok := bytes.Cut(c.out, []byte(" ")); ok {
		r.Method = method
		r.Target, _, _ = bytes.Cut(rest, []byte(" "))
	}
	head, _, _ := bytes.Cut(c.out, []byte("\r\n\r\n"))
	for len(head) > 0 {
		var l []byte
		l, head, _ = bytes.Cut(head, []byte("\r\n"))
		name, value := splitField(l)
		switch {
		case fold(name, "host"):
			r.Host = value
		case fold(name, "user-agent"):
			r.UserAgent = value
		case fold(name, "x-request-id"):
			r.RequestID = value
		case fold(name, "traceparent") && len(value) >= 35: // version-trace-parent-flags
			r.TraceID = value[3:35]
		}
	}
	c.s.access.Log(&r)
}

// client is the peer's address for the log.
func (c *conn) client() string {
	switch a := c.nc.RemoteAddr().(type) {
	case *net.TCPAddr:
		return a.String()
	case *net.UnixAddr:
		return "unix"
	default: // it left while its connection was parked
		return "unknown"
	}
}
