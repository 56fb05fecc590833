package e2e

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"testing"
	"time"
)

// client is an HTTP/1.1 client with one connection, which it keeps alive. It is
// not net/http's: that one quietly sends a request again when a kept-alive
// connection dies, and so hides what these tests look for.
type client struct {
	addr string
	conn net.Conn
	in   *bufio.Reader
}

// reply is a whole answer.
type reply struct {
	status int
	header http.Header
	body   []byte
	last   bool // the connection ends with it
}

// brokenError is an exchange without a whole answer.
type brokenError struct {
	err   error
	fresh bool // the connection had been opened for this request
	began bool // part of the answer had come
}

func (e *brokenError) Error() string {
	return fmt.Sprintf("%v (new connection: %v, part of the answer came: %v)", e.err, e.fresh, e.began)
}

func (e *brokenError) Unwrap() error { return e.err }

// dialError: no connection came about.
type dialError struct{ error }

func (e dialError) Unwrap() error { return e.error }

// patience is how long one exchange may take before it counts as broken: longer
// than any test holds a request.
const patience = 30 * time.Second

// get sends a GET and reads the whole answer.
func (c *client) get(path string) (reply, error) { return c.do("GET", path, "") }

// do sends a request with more header lines ("A: b\r\n") and reads the answer.
func (c *client) do(method, path, headers string) (reply, error) {
	fresh := c.conn == nil
	if fresh {
		conn, err := net.DialTimeout("tcp", c.addr, slack(5*time.Second))
		if err != nil {
			return reply{}, dialError{err}
		}
		c.conn, c.in = conn, bufio.NewReader(conn)
	}
	r, began, err := c.exchange(method, path, headers)
	if err != nil {
		c.close()
		return reply{}, &brokenError{err, fresh, began}
	}
	if r.last {
		c.close()
	}
	return r, nil
}

func (c *client) exchange(method, path, headers string) (r reply, began bool, err error) {
	if err := c.conn.SetDeadline(time.Now().Add(slack(patience))); err != nil {
		return r, false, err
	}
	if _, err := fmt.Fprintf(c.conn, "%s %s HTTP/1.1\r\nHost: %s\r\n%s\r\n", method, path, c.addr, headers); err != nil {
		return r, false, err
	}
	if _, err := c.in.Peek(1); err != nil {
		return r, false, err
	}
	res, err := http.ReadResponse(c.in, &http.Request{Method: method})
	if err != nil {
		return r, true, err
	}
	defer res.Body.Close()
	r = reply{status: res.StatusCode, header: res.Header, last: res.Close}
	r.body, err = io.ReadAll(res.Body)
	return r, true, err
}

func (c *client) close() {
	if c.conn != nil {
		_ = c.conn.Close()
		c.conn = nil
	}
}

// getOnce sends one GET over a connection of its own.
func getOnce(addr, path string) (reply, error) {
	c := &client{addr: addr}
	defer c.close()
	return c.do("GET", path, "Connection: close\r\n")
}

// get is getOnce of a test that cannot go on without an answer.
func get(t *testing.T, addr, path string) reply {
	t.Helper()
	r, err := getOnce(addr, path)
	if err != nil {
		t.Fatalf("GET %s from %s: %v", path, addr, err)
	}
	return r
}

// pending is a request whose answer is awaited in the background.
type pending struct {
	done chan struct{}
	r    reply
	err  error
}

// send sends a GET without waiting for the answer.
func send(addr, path string) *pending {
	p := &pending{done: make(chan struct{})}
	go func() {
		defer close(p.done)
		p.r, p.err = getOnce(addr, path)
	}()
	return p
}

// answer waits for the answer, which must be whole and a 200.
func (p *pending) answer(t *testing.T) reply {
	t.Helper()
	<-p.done
	if p.err != nil {
		t.Fatalf("the request got no whole answer: %v", p.err)
	}
	if p.r.status != 200 {
		t.Fatalf("the request was answered %d %s, want 200", p.r.status, p.r.body)
	}
	return p.r
}

// waiting fails the test if the answer is there already.
func (p *pending) waiting(t *testing.T) {
	t.Helper()
	select {
	case <-p.done:
		t.Fatalf("the request ended early: %d %s, %v", p.r.status, p.r.body, p.err)
	default:
	}
}

// getMany sends n requests one after the other and counts who answered. All
// must be answered 200.
func getMany(t *testing.T, addr string, n int) map[string]int {
	t.Helper()
	by := map[string]int{}
	c := &client{addr: addr}
	defer c.close()
	for i := range n {
		r, err := c.get("/")
		if err != nil {
			t.Fatalf("request %d of %d: %v", i+1, n, err)
		}
		if r.status != 200 {
			t.Fatalf("request %d of %d: status %d, %s %s", i+1, n, r.status, r.header.Get("Outrigger-Reason"), r.body)
		}
		by[r.header.Get("X-Backend")]++
	}
	return by
}

// refusal checks that an answer is one of our own 503s, whole and with one of
// the reasons.
func refusal(r reply, reasons ...string) error {
	if r.status != 503 {
		return fmt.Errorf("status %d, want 503: %s", r.status, r.body)
	}
	var errs []error
	after := r.header.Get("Retry-After")
	if n, err := strconv.Atoi(after); err != nil || n < 1 || n > 30 {
		errs = append(errs, fmt.Errorf("503 with Retry-After %q, want whole seconds from 1 to 30", after))
	}
	got := r.header.Get("Outrigger-Reason")
	known := false
	for _, want := range reasons {
		known = known || got == want
	}
	if !known {
		errs = append(errs, fmt.Errorf("503 with Outrigger-Reason %q, want one of %q", got, reasons))
	}
	if len(r.body) == 0 {
		errs = append(errs, errors.New("503 without a body"))
	}
	return errors.Join(errs...)
}
