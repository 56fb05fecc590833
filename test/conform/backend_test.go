package conform

import (
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// probePath is asked for after every row on a connection of its own: were a
// connection to the backend left out of step, another client would pay.
const probePath = "/probe"

// backend is the scripted side behind the proxy. It serves one row at a time.
type backend struct {
	ln net.Listener

	mu       sync.Mutex
	running  sync.WaitGroup
	script   []string // an answer per request, the last for all further ones
	bound    time.Duration
	requests []*message
	probes   []*message
	stray    []string // bytes that are no head
	open     map[net.Conn]int
	accepted int
	over     map[int]bool // connections that have ended
	playing  int          // scripts that have something left to send
}

func newBackend() (*backend, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	b := &backend{ln: ln}
	b.begin(nil, time.Second)
	go b.accept()
	return b, nil
}

func (b *backend) addr() string { return b.ln.Addr().String() }

// begin sets the scene of a row. All connections of the one before are gone.
func (b *backend) begin(script []string, bound time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.script, b.bound = script, bound
	b.requests, b.probes, b.stray = nil, nil, nil
	b.open, b.over, b.accepted = map[net.Conn]int{}, map[int]bool{}, 0
}

// finish ends what connections there are and waits for their goroutines.
func (b *backend) finish() {
	b.mu.Lock()
	for nc := range b.open {
		_ = nc.Close()
	}
	b.mu.Unlock()
	b.running.Wait()
}

func (b *backend) accept() {
	for {
		nc, err := b.ln.Accept()
		if err != nil {
			return
		}
		b.mu.Lock()
		b.accepted++
		id := b.accepted
		b.open[nc] = id
		_ = nc.SetDeadline(time.Now().Add(b.bound))
		b.running.Add(1)
		b.mu.Unlock()
		go func() {
			defer b.running.Done()
			b.serve(nc, id)
			b.mu.Lock()
			delete(b.open, nc)
			b.mu.Unlock()
			_ = nc.Close()
		}()
	}
}

// serve answers the requests of one connection.
func (b *backend) serve(nc net.Conn, id int) {
	w := newWire(nc)
	for first := true; ; first = false {
		m, err := w.head(true)
		if m == nil || err != nil {
			b.mu.Lock()
			if m != nil {
				b.stray = append(b.stray, m.start)
			}
			b.over[id] = true
			b.mu.Unlock()
			return
		}
		m.conn, m.first = id, first
		script := b.note(m)
		played := sync.OnceFunc(func() { b.count(-1) })
		again := b.answer(nc, w, m, script, played)
		played()
		if !again {
			return
		}
	}
}

// count notes that a script begins or has sent all.
func (b *backend) count(n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.playing += n
}

// await waits for cond, which is called under mu, as long as is meant.
func (b *backend) await(patience time.Duration, cond func() bool) {
	for end := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		b.mu.Lock()
		done := cond()
		b.mu.Unlock()
		if done || time.Now().After(end) {
			return
		}
	}
}

// note records a request and returns the script that answers it.
func (b *backend) note(m *message) string {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.playing++
	if m.target() == probePath {
		b.probes = append(b.probes, m)
		return ok(probePath)
	}
	b.requests = append(b.requests, m)
	if len(b.script) == 0 {
		text := m.target()
		if m.method == "HEAD" {
			return lines("HTTP/1.1 200 OK", "Content-Length: "+strconv.Itoa(len(text)))
		}
		return ok(text)
	}
	return b.script[min(len(b.requests), len(b.script))-1]
}

// answer plays the script and calls played when all is sent. false: the
// connection is over.
func (b *backend) answer(nc net.Conn, w *wire, m *message, script string, played func()) bool {
	read := false
	take := func() bool {
		if !read {
			read = true
			got := *m
			w.rest(&got, "")
			b.mu.Lock()
			*m = got
			b.mu.Unlock()
		}
		return m.whole
	}
	todo := steps(script)
	if (len(todo) == 0 || todo[0] != early) && !take() {
		return false
	}
	for _, s := range todo {
		switch s {
		case early, await:
		case pause:
			time.Sleep(between)
		case body:
			if !take() {
				return false
			}
		case shut, reset:
			if s == reset {
				resetConn(nc)
			}
			b.mu.Lock()
			b.over[m.conn] = true
			b.mu.Unlock()
			return false
		case go100:
			if m.lists("Expect", "100-continue") {
				_, _ = io.WriteString(nc, "HTTP/1.1 100 Continue\r\n\r\n")
			}
		case linger, silent:
			played()
			if s == linger {
				// Only half of the time there is: a proxy that waits for the end
				// then shows what it makes of it.
				_ = nc.SetReadDeadline(time.Now().Add(b.bound / 4))
			}
			n, err := io.Copy(io.Discard, w.br)
			b.mu.Lock()
			b.over[m.conn] = !isTimeout(err)
			if n > 0 && m.whole {
				b.stray = append(b.stray, fmt.Sprint(n, " bytes behind a request"))
			}
			b.mu.Unlock()
			return false
		case echo:
			played()
			_, _ = io.Copy(nc, w.br)
			return false
		default:
			if _, err := io.WriteString(nc, s); err != nil {
				return false
			}
		}
	}
	played()
	return take()
}

// sight is what was seen of a row on both sides.
type sight struct {
	requests, interim, answers []*message
	stray                      []string // at the backend
	junk                       string   // at the client
	tunnel, end                string
	probe                      *message   // the answer to the last probe, nil: none
	probes                     []*message // what the backend got of the probes
	over                       map[int]bool
	kept                       *message // answer to a probe on the row's own connection
}

// String says in brief what happened, for the table.
func (s *sight) String() string {
	var b strings.Builder
	for i, m := range s.answers {
		if i > 0 {
			b.WriteString("+")
		}
		fmt.Fprint(&b, m.status)
		if !m.whole {
			b.WriteString(" cut")
		}
	}
	switch {
	case s.junk != "":
		fmt.Fprintf(&b, " and %.20q", s.junk)
	case len(s.answers) == 0:
		b.WriteString("no answer")
	}
	whole, cut := 0, 0
	for _, m := range s.requests {
		if m.whole {
			whole++
		} else {
			cut++
		}
	}
	if whole+cut > 0 {
		fmt.Fprintf(&b, ", %d behind", whole)
	}
	if cut > 0 {
		fmt.Fprintf(&b, " and %d cut", cut)
	}
	return b.String()
}

// reused is whether a probe came over the connection of the row's first request.
func (s *sight) reused() bool {
	return len(s.requests) > 0 && slices.ContainsFunc(s.probes, func(m *message) bool { return m.conn == s.requests[0].conn })
}
