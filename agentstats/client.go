package agentstats

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"time"
)

// maxHead bounds the head of an agent's answer in bytes; ours has some 150.
const maxHead = 4 << 10

// client asks one agent for its report over one kept connection, one poll at a time.
//
// It is not net/http's Transport: that one adds two goroutines and their hand-over
// to every connection, follows redirects and proxy variables unless each is switched
// off, and has no bound on an answer's head by default. This is a write, a bounded
// read and a deadline; an answer of an unusual form goes through net/http's parser. Not
// for concurrent use.
type client struct {
	addr string
	dial func(ctx context.Context) (net.Conn, error)
	now  func() time.Duration
	auth string // value of Authorization; "" is none

	conn    net.Conn
	detach  func() bool // stops the watch that closes conn when ctx ends
	request []byte      // of a poll, up to the value of InFlightHeader
	out, in []byte
	excess  bool // the last answer had bytes behind it
}

// answer is one successful exchange; body is valid until the next poll.
type answer struct {
	body     []byte
	own      int64 // what the poll declared
	sent     time.Duration
	received time.Duration
}

// statusError is an answer other than 200.
type statusError int

func (e statusError) Error() string {
	return fmt.Sprintf("the agent answered %d %s", int(e), http.StatusText(int(e)))
}

var (
	errTooLong     = fmt.Errorf("the agent's answer is longer than %d bytes", MaxReportSize)
	errUnsolicited = errors.New("the agent sent bytes nobody asked for")
)

// poll asks once; inFlight is asked right before each request is written. A kept
// connection that the agent closed meanwhile, as idle ones are, is replaced at once
// and is no failure. After any error the connection is gone.
func (c *client) poll(ctx context.Context, timeout time.Duration, inFlight func() int64) (answer, error) {
	deadline := time.Now().Add(timeout)
	for {
		reused := c.conn != nil
		if !reused {
			if err := c.connect(ctx, deadline); err != nil {
				return answer{}, err
			}
		}
		a, silent, err := c.exchange(deadline, inFlight)
		if err == nil {
			return a, nil
		}
		c.close()
		if ctx.Err() != nil {
			return answer{}, ctx.Err()
		}
		if !reused || !silent {
			return answer{}, err
		}
	}
}

func (c *client) connect(ctx context.Context, deadline time.Time) error {
	dialing, cancel := context.WithDeadline(ctx, deadline)
	defer cancel()
	conn, err := c.dial(dialing)
	if err != nil {
		return err
	}
	conn = quiet(conn)
	c.conn, c.excess = conn, false
	c.detach = context.AfterFunc(ctx, func() { _ = conn.Close() })
	if c.request == nil {
		c.request = appendPoll(nil, c.addr, c.auth)
		c.in = make([]byte, 2048) // head and report of ours fit
	}
	return nil
}

// appendPoll appends the request of a poll up to the number of InFlightHeader. The
// agent's fast path reads exactly this.
func appendPoll(b []byte, addr, auth string) []byte {
	b = append(b, "GET "+ReportPath+" HTTP/1.1\r\nHost: "+addr+"\r\n"...)
	if auth != "" {
		b = append(b, "Authorization: "+auth+"\r\n"...)
	}
	return append(b, InFlightHeader+": "...)
}

// exchange makes one request. silent tells that the connection ended before a byte
// of an answer came.
func (c *client) exchange(deadline time.Time, inFlight func() int64) (a answer, silent bool, err error) {
	if c.excess {
		return answer{}, false, errUnsolicited
	}
	if err := c.conn.SetDeadline(deadline); err != nil {
		return answer{}, true, err
	}
	a.own = min(max(inFlight(), 0), maxInFlight)
	c.out = strconv.AppendInt(append(c.out[:0], c.request...), a.own, 10)
	c.out = append(c.out, "\r\n\r\n"...)
	a.sent = c.now()
	if _, err := c.conn.Write(c.out); err != nil {
		return answer{}, !isTimeout(err), err
	}
	n := 0
	for n == 0 { // a reader may return nothing and no error
		if n, err = c.conn.Read(c.in); n == 0 && err != nil {
			return answer{}, !isTimeout(err), err
		}
	}
	if a.body, err = c.receive(n); err != nil {
		return answer{}, false, err
	}
	a.received = c.now()
	if c.conn == nil {
		return a, false, nil
	}
	// A deadline left standing would wake the process once more, before the next poll.
	return a, false, c.conn.SetDeadline(time.Time{})
}

// receive returns the body of an answer of which n bytes are there.
func (c *client) receive(n int) ([]byte, error) {
	end := bytes.Index(c.in[:n], []byte("\r\n\r\n")) + 4
	if end < 4 {
		return c.receiveAny(n) // the head comes in pieces
	}
	length, ok := parseHead(c.in[:end])
	if !ok {
		return c.receiveAny(n)
	}
	if length > MaxReportSize {
		return nil, errTooLong
	}
	if whole := end + length; whole > len(c.in) {
		c.in = append(make([]byte, 0, whole), c.in[:n]...)[:whole]
	}
	for n < end+length {
		more, err := c.conn.Read(c.in[n : end+length])
		if more == 0 && err != nil {
			return nil, unexpectedEOF(err)
		}
		n += more
	}
	c.excess = n > end+length
	return c.in[end : end+length], nil
}

// receiveAny is receive for answers of any form.
func (c *client) receiveAny(n int) ([]byte, error) {
	had := bytes.NewReader(bytes.Clone(c.in[:n]))
	reader := bufio.NewReader(&io.LimitedReader{R: io.MultiReader(had, c.conn), N: maxHead + MaxReportSize})
	resp, err := http.ReadResponse(reader, nil) // nil: the request was a GET
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, statusError(resp.StatusCode)
	}
	if resp.ContentLength > MaxReportSize {
		return nil, errTooLong
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, MaxReportSize+1))
	if len(body) > MaxReportSize {
		return nil, errTooLong
	}
	if err != nil {
		return nil, err
	}
	c.excess = had.Len()+reader.Buffered() > 0
	if resp.Close {
		c.close()
	}
	return body, nil
}

func unexpectedEOF(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

func (c *client) close() {
	if c.conn == nil {
		return
	}
	c.detach()
	_ = c.conn.Close()
	c.conn = nil
}

func isTimeout(err error) bool {
	var t net.Error
	return errors.As(err, &t) && t.Timeout()
}
