package conform

import (
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// lane is a proxy before a backend of its own: one row at a time.
type lane struct {
	b        *backend
	addr     string
	patience time.Duration // bounds whatever the proxy leaves hanging
	settle   func()        // ends what the proxy still does; nil: nothing to do
}

// play runs the row and returns what was seen of it.
func (l *lane) play(r *row) (*sight, error) {
	l.b.begin(r.answers, 2*l.patience)
	c, err := dial(l.addr, r.methods, l.patience)
	if err != nil {
		return nil, err
	}
	s := &sight{}
	c.play(r.send)
	c.until(func() bool { return len(c.answers) >= r.n })
	l.b.await(l.patience, func() bool { return l.b.playing == 0 }) // what comes late has come
	switch r.after {
	case closes:
		c.until(func() bool { return false })
	case keeps:
		if r.n > 0 {
			s.kept = c.probe(r.n)
		}
	}
	if i := slices.IndexFunc(r.answers, func(a string) bool { return strings.Contains(a, echo) }); i >= 0 {
		c.until(func() bool { return strings.HasSuffix(c.tunnel, tunnelEnd) })
	}
	if s.probe, err = l.probe(); err != nil {
		return nil, err
	}
	if r.retires {
		l.b.await(l.patience, func() bool { return len(l.b.requests) == 0 || l.b.over[l.b.requests[0].conn] })
	}
	l.b.mu.Lock()
	s.over, s.probes = l.b.over, slices.Clone(l.b.probes)
	l.b.over = map[int]bool{}
	l.b.mu.Unlock()
	_ = c.nc.Close()
	if l.settle != nil {
		l.settle()
	}
	l.b.finish()
	s.requests, s.stray = l.b.requests, l.b.stray
	c.mu.Lock()
	defer c.mu.Unlock()
	s.interim, s.answers, s.junk, s.tunnel, s.end = c.interim, slices.Clone(c.answers), c.stray, c.tunnel, c.end
	if s.kept != nil {
		s.answers = slices.DeleteFunc(s.answers, func(m *message) bool { return m == s.kept })
	}
	return s, nil
}

// tunnelEnd is what a client says last in a tunnel.
const tunnelEnd = "bye"

const probeRequest = "GET " + probePath + " HTTP/1.1\r\nHost: a\r\n\r\n"

// probe sends one more request on the row's connection, which got n answers,
// and returns the answer to it.
func (c *client) probe(n int) *message {
	if _, err := io.WriteString(c.nc, probeRequest); err != nil {
		return nil
	}
	c.until(func() bool { return len(c.answers) > n })
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.answers) <= n {
		return nil
	}
	return c.answers[n]
}

// probe is another client's request.
func (l *lane) probe() (*message, error) {
	c, err := dial(l.addr, "", l.patience)
	if err != nil {
		return nil, err
	}
	defer c.nc.Close()
	return c.probe(0), nil
}

// The harness notices what is not kept: with no proxy at all, client and
// backend face to face, every row fails in which a proxy must step in.
func TestNoProxy(t *testing.T) {
	const briefly = 30 * time.Millisecond // whatever hangs is noticed just so
	free := make(chan *lane, lanes)
	for range lanes {
		b, err := newBackend()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = b.ln.Close() })
		free <- &lane{b: b, addr: b.addr(), patience: briefly}
	}
	var wg sync.WaitGroup
	for _, r := range rows() {
		if !r.strict {
			continue
		}
		l := <-free
		wg.Go(func() {
			s, err := l.play(&r)
			if err != nil {
				t.Error(err)
			} else if r.bad(s) == "" {
				t.Errorf("not noticed: %s\nseen: %s", r.rule, s)
			}
			free <- l
		})
	}
	wg.Wait()
}
