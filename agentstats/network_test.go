package agentstats

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// network is a set of agents in memory, one per address, in a bubble's virtual time.
type network struct {
	start time.Time

	mu     sync.Mutex
	answer func(addr string, n int) string // the whole response to the n-th request; "" closes the connection
	delay  time.Duration
	gap    time.Duration // between the bytes of an answer; 0: it comes at once
	refuse bool
	asked  map[string][]time.Duration // when
	dials  map[string]int
	open   map[string]int
	said   map[string]string // the newest InFlightHeader
	out    log
}

func newNetwork(answer func(addr string, n int) string) *network {
	return &network{start: time.Now(), answer: answer, asked: map[string][]time.Duration{}, dials: map[string]int{}, open: map[string]int{}, said: map[string]string{}}
}

func (n *network) now() time.Duration { return time.Since(n.start) }

func (n *network) env() PollEnv {
	r := rand.New(rand.NewPCG(1, 2))
	return PollEnv{Now: n.now, Rand: r.Uint32N, Dial: n.dial, Logger: n.out.logger()}
}

func (n *network) set(change func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	change()
}

func (n *network) requests(addr string) []time.Duration {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.asked[addr])
}

func (n *network) dialed(addr string) int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.dials[addr]
}

func (n *network) declared(addr string) string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.said[addr]
}

func (n *network) opened(addr string) int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.open[addr]
}

func (n *network) dial(ctx context.Context, _, addr string) (net.Conn, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.dials[addr]++
	if n.refuse {
		return nil, errors.New("connection refused")
	}
	n.open[addr]++
	ours, theirs := net.Pipe()
	go n.serve(addr, theirs)
	return ours, ctx.Err()
}

func (n *network) serve(addr string, c net.Conn) {
	defer func() {
		c.Close()
		n.set(func() { n.open[addr]-- })
	}()
	in := bufio.NewReader(c)
	for {
		req, err := http.ReadRequest(in)
		if err != nil {
			return
		}
		n.mu.Lock()
		n.asked[addr] = append(n.asked[addr], n.now())
		answer, delay, gap := n.answer(addr, len(n.asked[addr])), n.delay, n.gap
		n.said[addr] = strings.Join(req.Header[InFlightHeader], " and ")
		n.mu.Unlock()
		if req.Method != "GET" || req.URL.Path != ReportPath || req.Host != addr {
			answer = "HTTP/1.1 400 Bad Request\r\n\r\n"
		}
		time.Sleep(delay)
		for ; gap > 0 && len(answer) > 1; answer = answer[1:] {
			if _, err := io.WriteString(c, answer[:1]); err != nil {
				return
			}
			time.Sleep(gap)
		}
		if _, err := io.WriteString(c, answer); err != nil || answer == "" {
			return
		}
	}
}

// ok is a 200 with the body.
func ok(body string) string {
	return fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
}

// at is a response with a report sampled at this time.
func at(ms int, more string) string {
	return ok(fmt.Sprintf(`{"version":1,"epoch":"a","at":%d%s}`, ms, more))
}

// healthy answers each request with the next report.
func healthy(_ string, n int) string { return at(n, "") }

// received collects samples.
type received struct {
	mu  sync.Mutex
	all map[string][]Sample
}

func (r *received) sink(id string, s Sample) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.all == nil {
		r.all = map[string][]Sample{}
	}
	r.all[id] = append(r.all[id], s)
}

// polling runs a poller in a bubble; the test's body sleeps virtual time.
func polling(t *testing.T, answer func(string, int) string, body func(n *network, p *Poller, got *received)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(answer)
		p := NewPoller(DefaultPollConfig(), n.env())
		var got received
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- p.Run(ctx, got.sink) }()
		synctest.Wait()
		body(n, p, &got)
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
		settle(time.Second) // agents that are about to answer
		n.mu.Lock()
		defer n.mu.Unlock()
		for addr, open := range n.open {
			if open != 0 {
				t.Errorf("%d connections to %s are left open", open, addr)
			}
		}
	})
}

func (r *received) of(id string) []Sample {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.all[id])
}

// settle lets virtual time pass and then everything come to rest, so that the test may
// read what the others wrote.
func settle(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func one() []Target { return []Target{{ID: "a", Addr: "a:1"}} }
