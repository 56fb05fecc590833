package healthcheck

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
)

// network is a Dial for virtual time: what happens at an address is the test's.
type network struct {
	mu      sync.Mutex
	answer  map[string]error         // by address; nil: connected
	delay   map[string]time.Duration // before the answer
	hang    map[string]bool          // until ctx ends
	dials   map[string][]time.Duration
	running int
	most    int // running at once
	start   time.Time
}

func newNetwork() *network {
	return &network{answer: map[string]error{}, delay: map[string]time.Duration{}, hang: map[string]bool{},
		dials: map[string][]time.Duration{}, start: time.Now()}
}

func (n *network) set(addr string, err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.answer[addr] = err
}

func (n *network) times(addr string) []time.Duration {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.dials[addr])
}

func (n *network) dial(ctx context.Context, _, addr string) (net.Conn, error) {
	n.mu.Lock()
	n.dials[addr] = append(n.dials[addr], time.Since(n.start))
	n.running++
	n.most = max(n.most, n.running)
	delay, hang, err := n.delay[addr], n.hang[addr], n.answer[addr]
	n.mu.Unlock()
	defer func() {
		n.mu.Lock()
		n.running--
		n.mu.Unlock()
	}()
	if hang {
		<-ctx.Done()
		return nil, &net.OpError{Op: "dial", Err: ctx.Err()}
	}
	if delay > 0 {
		select {
		case <-ctx.Done():
			return nil, &net.OpError{Op: "dial", Err: ctx.Err()}
		case <-time.After(delay):
		}
	}
	if err != nil {
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: os.NewSyscallError("connect", err)}
	}
	a, b := net.Pipe()
	_ = b.Close()
	return a, nil
}

// heard is what a sink was told.
type heard struct {
	mu  sync.Mutex
	all []told
}

type told struct {
	id string
	Verdict
}

func (h *heard) sink(id string, v Verdict) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.all = append(h.all, told{id, v})
}

func (h *heard) take() []told {
	h.mu.Lock()
	defer h.mu.Unlock()
	all := h.all
	h.all = nil
	return all
}

// text is "ID STATE TIME" of each.
func text(all []told) string {
	var b strings.Builder
	for _, v := range all {
		fmt.Fprintf(&b, "%s %s %s\n", v.id, v.State, v.Since)
	}
	return b.String()
}

// middle makes each random duration the middle of its range: nothing is spread, and a
// first check comes after half a FastInterval.
func middle(n uint32) uint32 { return n / 2 }

func tcpConfig() Config {
	c := DefaultConfig()
	c.Kind = "tcp"
	return c
}

// running runs a Checker in a bubble until the bubble's function ends.
func running(t *testing.T, c *Checker) *heard {
	h := &heard{}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx, h.sink) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return h
}

// logged is a logger whose text can be read.
type logged struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *logged) count(s string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.buf.String(), s)
}

func (l *logged) logger() hclog.Logger {
	return hclog.New(&hclog.LoggerOptions{Output: l, Level: hclog.Debug})
}
