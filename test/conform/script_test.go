package conform

import (
	"errors"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Scripts are raw bytes with stage directions between them.
const (
	pause  = "\uE000" // what follows comes in a segment of its own
	await  = "\uE001" // client: go on after the next head of an answer
	shut   = "\uE002" // close the connection
	reset  = "\uE003" // the same with an RST
	early  = "\uE004" // backend, at the start: answer before the body is read
	body   = "\uE005" // backend: read the request's body now
	linger = "\uE006" // backend: wait for the proxy to end the connection, then end it
	echo   = "\uE007" // backend: send back whatever comes, until its end
	silent = "\uE009" // backend: the same, for longer than any time-out
	go100  = "\uE008" // backend: send a 100 if the request expects one
)

const directions = pause + await + shut + reset + early + body + linger + silent + echo + go100

// steps cuts a script at its directions, which are steps of their own.
func steps(script string) (out []string) {
	for script != "" {
		i := strings.IndexAny(script, directions)
		if i < 0 {
			return append(out, script)
		}
		if i > 0 {
			out = append(out, script[:i])
		}
		out = append(out, script[i:i+len(pause)])
		script = script[i+len(pause):]
	}
	return out
}

// between is how far apart segments are sent: far enough for a proxy to have
// read the first. Nothing depends on whether it has.
const between = 3 * time.Millisecond

// lines joins a head, its empty line included.
func lines(l ...string) string { return strings.Join(l, "\r\n") + "\r\n\r\n" }

// get is a request for /r of host a with the given fields.
func get(fields ...string) string {
	return lines(append([]string{"GET /r HTTP/1.1", "Host: a"}, fields...)...)
}

// post is the same with a body of the given kind behind it.
func post(fields ...string) string {
	return lines(append([]string{"POST /r HTTP/1.1", "Host: a"}, fields...)...)
}

// chunks is a chunked POST with the raw body.
func chunks(raw string) string { return post("Transfer-Encoding: chunked") + raw }

// ok is an answer with fields and a length.
func ok(text string, fields ...string) string {
	fields = append([]string{"HTTP/1.1 200 OK", "Content-Length: " + strconv.Itoa(len(text))}, fields...)
	return lines(fields...) + text
}

// answer is the head of an answer.
func answer(first string, fields ...string) string {
	return lines(append([]string{first}, fields...)...)
}

// resetConn closes with an RST.
func resetConn(nc net.Conn) {
	if tc, ok := nc.(*net.TCPConn); ok {
		_ = tc.SetLinger(0)
	}
	_ = nc.Close()
}

// client is the scripted side before the proxy.
type client struct {
	nc      net.Conn
	methods []string // of its requests, GET where the list ends

	mu      sync.Mutex
	changed *sync.Cond
	heads   int // of answers, interim ones too
	interim []*message
	answers []*message
	stray   string // bytes after the last answer that are no head
	tunnel  string // bytes after a 101
	end     string // how the connection ended, "" while open
}

func dial(addr, methods string, patience time.Duration) (*client, error) {
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		return nil, err
	}
	_ = nc.SetDeadline(time.Now().Add(patience))
	c := &client{nc: nc, methods: strings.Fields(methods)}
	c.changed = sync.NewCond(&c.mu)
	go c.read()
	return c, nil
}

// read takes answers until the connection ends or patience does.
func (c *client) read() {
	w := newWire(c.nc)
	for n := 0; ; {
		method := "GET"
		if n < len(c.methods) {
			method = c.methods[n]
		}
		m, err := w.head(false)
		if m == nil || err != nil {
			c.note(func() {
				if m != nil {
					c.stray = m.start
				}
				c.end = howEnded(w)
			})
			return
		}
		c.note(func() { c.heads++ })
		w.rest(m, method)
		c.note(func() {
			if m.status < 200 && m.status != 101 {
				c.interim = append(c.interim, m)
				return
			}
			n++
			c.answers = append(c.answers, m)
		})
		if m.status == 101 {
			c.readTunnel(w)
			return
		}
	}
}

func (c *client) readTunnel(w *wire) {
	for {
		b, err := w.br.ReadByte()
		c.note(func() {
			if err == nil {
				c.tunnel += string([]byte{b})
			} else {
				c.end = howEnded(w)
			}
		})
		if err != nil {
			return
		}
	}
}

// howEnded names the error that a reader met.
func howEnded(w *wire) string {
	switch err := w.err; {
	case err == io.EOF:
		return "closed"
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return "reset"
	case isTimeout(err):
		return "open"
	default:
		return "closed here"
	}
}

func isTimeout(err error) bool {
	var ne net.Error
	return errors.As(err, &ne) && ne.Timeout()
}

func (c *client) note(f func()) {
	c.mu.Lock()
	f()
	c.mu.Unlock()
	c.changed.Broadcast()
}

// until waits for cond, which is called under mu, or the connection's end.
func (c *client) until(cond func() bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for !cond() && c.end == "" {
		c.changed.Wait()
	}
}

// play sends the script.
func (c *client) play(script string) {
	heads := 0
	for _, s := range steps(script) {
		switch s {
		case pause:
			time.Sleep(between)
		case await:
			heads++
			c.until(func() bool { return c.heads >= heads })
		case shut:
			_ = c.nc.Close()
		case reset:
			resetConn(c.nc)
		default:
			if _, err := io.WriteString(c.nc, s); err != nil {
				return // what it reads tells why
			}
		}
	}
}
