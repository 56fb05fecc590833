package h1

import (
	"cmp"
	"errors"
	"net/http"
	"strconv"
	"time"

	"outrigger/sidecar/access"
	"outrigger/sidecar/balance"
)

// answer is a response made here.
type answer struct {
	status     int
	reason     string // Outrigger-Reason, "" for none
	text       string // one sentence for a person
	retryAfter int    // seconds, 0 for none
	keep       bool   // the connection may persist
	// termination is the access log's word for it; "": the reason.
	termination string
}

// reply sends an answer of our own and reports whether the connection stays.
// The status line's names are net/http's.
func (c *conn) reply(a answer) bool {
	c.alarm.last.Store(0)
	c.rq.deadline = 0 // the time that is up must not cut its own announcement
	keep := a.keep && c.rq.keepAlive && !c.s.draining.Load()
	body := appendBody(nil, &a, c.rq.json)
	b := append([]byte("HTTP/1.1 "), strconv.Itoa(a.status)...)
	b = append(append(append(b, ' '), http.StatusText(a.status)...), "\r\nContent-Type: "...)
	if c.rq.json {
		b = append(b, "application/json\r\n"...)
	} else {
		b = append(b, "text/plain; charset=utf-8\r\n"...)
	}
	if a.retryAfter > 0 {
		b = append(strconv.AppendInt(append(b, "Retry-After: "...), int64(a.retryAfter), 10), "\r\n"...)
	}
	if a.reason != "" {
		b = append(append(append(b, "Outrigger-Reason: "...), a.reason...), "\r\n"...)
	}
	b = c.s.forward.appendDate(b) // RFC 9110 section 6.6.1
	b = append(b, "Cache-Control: no-store\r\n"...)
	b = appendLength(b, int64(len(body)))
	switch {
	case !keep:
		b = append(b, "Connection: close\r\n"...)
	case c.rq.minor == 0:
		b = append(b, "Connection: keep-alive\r\n"...)
	}
	b = append(b, "\r\n"...)
	if !c.rq.head {
		b = append(b, body...)
	}
	c.s.stats.own[a.status/100].Add(1)
	failed := c.write(b) != nil
	c.finish(a.status, cmp.Or(a.termination, a.reason))
	if failed {
		return false
	}
	if !keep {
		c.lingers = true
	}
	return keep
}

func appendBody(b []byte, a *answer, json bool) []byte {
	if !json {
		b = append(append(b, a.text...), '\n')
		return b
	}
	b = append(strconv.AppendInt(append(b, `{"status":`...), int64(a.status), 10), `,"reason":`...)
	b = append(strconv.AppendQuote(b, a.reason), `,"message":`...)
	b = strconv.AppendQuote(b, a.text)
	if a.retryAfter > 0 {
		b = strconv.AppendInt(append(b, `,"retry_after":`...), int64(a.retryAfter), 10)
	}
	return append(b, "}\n"...)
}

// lastRecipient answers a TRACE or OPTIONS that must not be forwarded (RFC 9110
// section 7.6.2). TRACE is not answered by what it asks for: that would show a
// page's scripts headers that are kept from them.
func (c *conn) lastRecipient() bool {
	a := answer{status: 200, text: "Max-Forwards is 0: this is Outrigger's answer", termination: access.Done, keep: !c.rq.streams}
	if string(c.req.Method) == "TRACE" {
		a.status, a.text, a.termination = 501, "Max-Forwards is 0, and Outrigger does not answer TRACE", "bad_request"
	}
	return c.reply(a)
}

// lingerFor and lingerBytes bound what is read and thrown away after an answer
// that ends the connection early.
const (
	lingerFor   = time.Second
	lingerBytes = 256 << 10
)

// linger lets the client read an answer that came before it had sent all: a
// close with unread bytes would reset the connection and take the answer along
// (RFC 9112 section 9.6).
func (c *conn) linger() {
	cw, ok := c.nc.(interface{ CloseWrite() error })
	if !ok || cw.CloseWrite() != nil {
		return
	}
	c.alarm.set(c.s.e.now() + lingerFor)
	for n := 0; n < lingerBytes; {
		c.in.r, c.in.w = 0, 0
		if c.fillIn() != nil {
			return
		}
		n += c.in.len()
	}
}

// refuse answers a request that got no endpoint.
func (c *conn) refuse(err error, keep bool) bool {
	var r *balance.Refusal
	if !errors.As(err, &r) {
		c.s.stats.clientGone.Add(1) // the client left while it waited
		return false
	}
	return c.reply(answer{
		status: 503, reason: r.Reason.String(), retryAfter: r.RetryAfter,
		text: refusalText[r.Reason], keep: keep,
	})
}

// refusalText says the reason to a person.
var refusalText = [...]string{ // read-only
	balance.NoBackends:   "no backend of this service is up",
	balance.AllEjected:   "every backend of this service is failing or left out",
	balance.Saturated:    "every backend of this service is at its limit",
	balance.QueueFull:    "every backend of this service is at its limit, and the queue is full",
	balance.QueueTimeout: "every backend of this service is at its limit, and none came free in time",
	balance.Unreachable:  "no backend of this service could be reached",
	balance.Draining:     "this proxy is shutting down",
}
