package e2e

import (
	"errors"
	"fmt"
	"maps"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// loadSpec is a number of clients that each send one request after the other
// over a connection of their own.
type loadSpec struct {
	addr    string
	path    string // "": /
	clients int
	think   time.Duration // between an answer and the next request
	// whole checks an answer's body; nil: that it is a backend's greeting.
	whole func(reply) error
	// untilRefused makes a client end, without an error, when it cannot open a
	// connection any more: when the listener has been closed.
	untilRefused bool
}

// tally is what the clients of a load saw.
type tally struct {
	ok        int
	byBackend map[string]int
	refused   map[string]int // our own 503s, by reason
	unheard   int            // see (*load).ended
	errors    []string       // the first few
	failed    int
}

type load struct {
	t    *testing.T
	spec loadSpec
	quit chan struct{}
	once sync.Once
	wg   sync.WaitGroup
	mu   sync.Mutex
	saw  tally
}

// startLoad sets clients going until stop or the test's end.
func startLoad(t *testing.T, spec loadSpec) *load {
	l := &load{t: t, spec: spec, quit: make(chan struct{}),
		saw: tally{byBackend: map[string]int{}, refused: map[string]int{}}}
	if l.spec.path == "" {
		l.spec.path = "/"
	}
	if l.spec.whole == nil {
		l.spec.whole = greeting
	}
	for i := range spec.clients {
		l.wg.Go(func() { l.client(i) })
	}
	t.Cleanup(func() { l.stop() })
	return l
}

// greeting checks that a body is the one of the backend that the header names.
func greeting(r reply) error {
	if want := fmt.Sprintf("hello from %s\n", r.header.Get("X-Backend")); string(r.body) != want {
		return fmt.Errorf("the body is %q, want %q", r.body, want)
	}
	return nil
}

func (l *load) client(number int) {
	c := &client{addr: l.spec.addr}
	defer c.close()
	for n := 1; ; n++ {
		select {
		case <-l.quit:
			return
		default:
		}
		r, err := c.get(l.spec.path)
		if err != nil && l.ended(err) {
			return
		}
		if err == nil {
			err = l.count(r)
		}
		if err != nil {
			l.fail(fmt.Sprintf("client %d, request %d: %v", number, n, err))
		}
		select {
		case <-l.quit:
			return
		case <-time.After(l.spec.think):
		}
	}
}

// ended reports whether err is how a closed listener shows. A connection that
// the kernel took and the sidecar never saw is reset before any answer; such
// ones are counted in unheard.
func (l *load) ended(err error) bool {
	if !l.spec.untilRefused {
		return false
	}
	var dial dialError
	if errors.As(err, &dial) {
		return true
	}
	var broken *brokenError
	if errors.As(err, &broken) && broken.fresh && !broken.began && errors.Is(err, syscall.ECONNRESET) {
		l.mu.Lock()
		l.saw.unheard++
		l.mu.Unlock()
		return true
	}
	return false
}

func (l *load) count(r reply) error {
	var err error
	switch {
	case r.status == 503 && r.header.Get("Outrigger-Reason") != "":
		err = refusal(r, r.header.Get("Outrigger-Reason"))
	case r.status != 200:
		err = fmt.Errorf("status %d: %s", r.status, r.body)
	default:
		err = l.spec.whole(r)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case err != nil:
	case r.status == 503:
		l.saw.refused[r.header.Get("Outrigger-Reason")]++
	default:
		l.saw.ok++
		l.saw.byBackend[r.header.Get("X-Backend")]++
	}
	return err
}

func (l *load) fail(what string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.saw.failed++
	if len(l.saw.errors) < 10 {
		l.saw.errors = append(l.saw.errors, time.Now().Format("15:04:05.000 ")+what)
	}
}

func (l *load) snapshot() tally {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.saw
	s.byBackend, s.refused = maps.Clone(s.byBackend), maps.Clone(s.refused)
	return s
}

// awaitMore waits until n more requests have been answered well.
func (l *load) awaitMore(n int) {
	l.t.Helper()
	before := l.snapshot().ok
	eventually(l.t, 30*time.Second, fmt.Sprintf("%d more answers", n), func() error {
		if s := l.snapshot(); s.ok < before+n {
			return fmt.Errorf("%d came, %d requests failed, %v were refused", s.ok-before, s.failed, s.refused)
		}
		return nil
	})
}

// awaitFrom waits until a backend has answered n more requests of this load.
func (l *load) awaitFrom(b *backend, n int) {
	l.t.Helper()
	before := l.snapshot().byBackend[b.name]
	eventually(l.t, 30*time.Second, fmt.Sprintf("%d answers from %s", n, b.name), func() error {
		if s := l.snapshot(); s.byBackend[b.name] < before+n {
			return fmt.Errorf("answers so far: %v", s.byBackend)
		}
		return nil
	})
}

// join waits until the clients of an untilRefused load have ended.
func (l *load) join() tally {
	l.t.Helper()
	over := make(chan struct{})
	go func() {
		l.wg.Wait()
		close(over)
	}()
	select {
	case <-over:
	case <-time.After(slack(30 * time.Second)):
		l.t.Error("the clients still found a listener after 30 s")
	}
	return l.stop()
}

// stop lets the clients finish what they have begun and returns what they saw.
func (l *load) stop() tally {
	l.once.Do(func() { close(l.quit) })
	l.wg.Wait()
	return l.snapshot()
}

// clean fails the test if any request was not answered 200.
func (s tally) clean(t *testing.T) {
	t.Helper()
	if s.failed > 0 || len(s.refused) > 0 {
		t.Errorf("of %d requests %d failed and %v were refused:\n%s",
			s.ok+s.failed, s.failed, s.refused, strings.Join(s.errors, "\n"))
	}
	if s.ok == 0 {
		t.Error("no request was answered")
	}
}
