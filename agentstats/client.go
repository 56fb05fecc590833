package agentstats

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"
)

// maxHead bounds the head of an agent's answer in bytes; ours has some 150.
const maxHead = 4 << 10

// client asks one agent for its report over one kept connection, one poll at a time.
//
// It is not net/http's Transport: that one adds two goroutines and their hand-over
// to every connection, follows redirects and proxy variables unless each is switched
// off, and has no bound on an answer's head by default. This is a write, a bounded
// read through net/http's own parser, and a deadline. Not for concurrent use.
type client struct {
	addr string
	dial func(ctx context.Context, network, addr string) (net.Conn, error)
	now  func() time.Duration

	conn   net.Conn
	detach func() bool // stops the watch that closes conn when ctx ends
	limit  io.LimitedReader
	reader *bufio.Reader
	body   []byte
}

// answer is one successful exchange; body is valid until the next poll.
type answer struct {
	body     []byte
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

// poll asks once; onSend is called right before each request is written. A kept
// connection that the agent closed meanwhile, as idle ones are, is replaced at once
// and is no failure. After any error the connection is gone.
func (c *client) poll(ctx context.Context, timeout time.Duration, onSend func()) (answer, error) {
	deadline := time.Now().Add(timeout)
	for {
		reused := c.conn != nil
		if !reused {
			if err := c.connect(ctx, deadline); err != nil {
				return answer{}, err
			}
		}
		a, silent, err := c.exchange(deadline, onSend)
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
	conn, err := c.dial(dialing, "tcp", c.addr)
	if err != nil {
		return err
	}
	c.conn = conn
	c.detach = context.AfterFunc(ctx, func() { _ = conn.Close() })
	c.limit.R = conn
	if c.reader == nil {
		c.reader = bufio.NewReaderSize(&c.limit, 1024) // head and report of ours fit
	} else {
		c.reader.Reset(&c.limit)
	}
	return nil
}

// exchange makes one request. silent tells that the connection ended before a byte
// of an answer came.
func (c *client) exchange(deadline time.Time, onSend func()) (a answer, silent bool, err error) {
	if c.reader.Buffered() > 0 {
		return answer{}, false, errUnsolicited
	}
	if err := c.conn.SetDeadline(deadline); err != nil {
		return answer{}, true, err
	}
	onSend()
	a.sent = c.now()
	if _, err := io.WriteString(c.conn, "GET "+ReportPath+" HTTP/1.1\r\nHost: "+c.addr+"\r\n\r\n"); err != nil {
		return answer{}, !isTimeout(err), err
	}
	c.limit.N = maxHead + MaxReportSize
	if _, err := c.reader.Peek(1); err != nil {
		return answer{}, !isTimeout(err), err
	}
	resp, err := http.ReadResponse(c.reader, nil) // nil: the request was a GET
	if err != nil {
		return answer{}, false, err
	}
	if resp.StatusCode != http.StatusOK {
		return answer{}, false, statusError(resp.StatusCode)
	}
	if err := c.readBody(resp); err != nil {
		return answer{}, false, err
	}
	a.received = c.now()
	a.body = c.body
	if resp.Close {
		c.close()
	}
	return a, false, nil
}

func (c *client) readBody(resp *http.Response) error {
	defer resp.Body.Close()
	if resp.ContentLength > MaxReportSize {
		return errTooLong
	}
	if c.body == nil {
		c.body = make([]byte, 0, 1024)
	}
	c.body = c.body[:0]
	for {
		if len(c.body) == cap(c.body) {
			c.body = append(c.body, 0)[:len(c.body)]
		}
		n, err := resp.Body.Read(c.body[len(c.body):cap(c.body)])
		c.body = c.body[:len(c.body)+n]
		if len(c.body) > MaxReportSize {
			return errTooLong
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
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
