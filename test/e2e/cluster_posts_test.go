package e2e

import (
	"fmt"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// posts are two clients that send POSTs, whose answers must hold what was sent.
type posts struct {
	t      *testing.T
	quit   chan struct{}
	once   sync.Once
	wg     sync.WaitGroup
	ok     atomic.Int64
	mu     sync.Mutex
	errors []string
}

func startPosts(t *testing.T, addr string) *posts {
	p := &posts{t: t, quit: make(chan struct{})}
	for i := range 2 {
		p.wg.Go(func() { p.client(addr, i) })
	}
	t.Cleanup(p.stop)
	return p
}

func (p *posts) client(addr string, number int) {
	c := &client{addr: addr}
	defer c.close()
	for n := 1; ; n++ {
		select {
		case <-p.quit:
			return
		case <-time.After(5 * time.Millisecond):
		}
		if err := post(c, fmt.Sprintf("client %d, POST %d ", number, n)); err != nil {
			p.mu.Lock()
			p.errors = append(p.errors, fmt.Sprintf("client %d, POST %d: %v", number, n, err))
			p.mu.Unlock()
			continue
		}
		p.ok.Add(1)
	}
}

// post has a text echoed. The client writes an empty line after the headers that
// it is given, which here are the body's last bytes.
func post(c *client, text string) error {
	body := strings.Repeat(text, 20) + "\r\n"
	r, err := c.do("POST", "/echo", "Content-Length: "+strconv.Itoa(len(body))+"\r\n\r\n"+strings.TrimSuffix(body, "\r\n"))
	switch {
	case err != nil:
		return err
	case r.status != 200:
		return fmt.Errorf("status %d: %s", r.status, r.body)
	case string(r.body) != body:
		return fmt.Errorf("the body is %q, want %q", r.body, body)
	}
	return nil
}

func (p *posts) awaitMore(n int64) {
	p.t.Helper()
	before := p.ok.Load()
	eventually(p.t, 30*time.Second, fmt.Sprintf("%d more POSTs", n), func() error {
		if got := p.ok.Load() - before; got < n {
			return fmt.Errorf("%d were answered", got)
		}
		return nil
	})
}

// stop ends the clients. It is an error of the test if one had any.
func (p *posts) stop() {
	p.once.Do(func() {
		close(p.quit)
		p.wg.Wait()
		if len(p.errors) > 0 {
			p.t.Errorf("of %d POSTs %d failed:\n%s", p.ok.Load(), len(p.errors), strings.Join(p.errors[:min(10, len(p.errors))], "\n"))
		}
	})
}
