package sockets

import (
	"bufio"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"sync"
	"testing"
	"time"
)

// all tells whether the tests against real servers show every row of their tables:
// OUTRIGGER_TRUTH=all go test -v -run 'TestTruth|TestSegments' ./agentstats/sockets
func all() bool { return os.Getenv("OUTRIGGER_TRUTH") == "all" }

// startSegments starts a server that writes the head and the body of a response each for
// itself, as WSGI servers do; the body in 1 to so many pieces.
func startSegments(t testing.TB, service shape, pieces int) *backend {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b := &backend{addr: ln.Addr().String(), port: ln.Addr().(*net.TCPAddr).Port}
	serve := func(c net.Conn) {
		defer c.Close()
		br, r := bufio.NewReader(c), rand.New(rand.NewPCG(rand.Uint64(), 3))
		for {
			if _, err := br.Peek(1); err != nil {
				return
			}
			b.inFlight.Add(1)
			req, err := http.ReadRequest(br)
			if err == nil {
				_, _ = io.Copy(io.Discard, req.Body)
				time.Sleep(service(r))
				n := 1 + r.IntN(pieces)
				fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n", 2*n)
				for range n {
					fmt.Fprint(c, "ok")
				}
			}
			b.inFlight.Add(-1)
			if err != nil {
				return
			}
		}
	}
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go serve(c)
		}
	}()
	t.Cleanup(func() { ln.Close() })
	return b
}

// mixed is fast but for a share of slow ones.
func mixed(fast, slow time.Duration, share float64) shape {
	return func(r *rand.Rand) time.Duration {
		if r.Float64() < share {
			return slow
		}
		return fast
	}
}

// TestSegments watches clients that acknowledge the head of a response by themselves and
// its body with the next request, so that the kernel's stamps and ACKs leave nearly
// every look a tie. Each backend has watchers that come first, and ones that come when
// all connections are open and in use.
func TestSegments(t *testing.T) {
	if testing.Short() {
		t.Skip("takes real time: the kernel's clock cannot be turned")
	}
	think := []client{{think: exponential(300 * time.Millisecond), get: true}}
	atOnce := []client{{get: true}}
	both := append(append([]client{}, think...), atOnce...)
	acks := []client{{get: true, acks: true}}
	thinkAcks := []client{{think: exponential(300 * time.Millisecond), get: true, acks: true}}
	rows := []struct {
		name    string
		service shape
		clients []client
		each    int
		pieces  int
		only    bool // in the whole table
	}{
		{"300 ms, at once", constant(300 * time.Millisecond), atOnce, 12, 1, false},
		{"300 ms, think 300 ms", constant(300 * time.Millisecond), think, 12, 1, false},
		{"50 ms, at once", constant(50 * time.Millisecond), atOnce, 6, 1, false},
		{"50 ms, think 300 ms", constant(50 * time.Millisecond), think, 12, 1, true},
		{"1 ms, think 300 ms", constant(time.Millisecond), think, 12, 1, false},
		{"1 ms, think 300 ms, own ACKs", constant(time.Millisecond), thinkAcks, 12, 1, false},
		{"300 ms, at once, own ACKs", constant(300 * time.Millisecond), acks, 12, 1, false},
		{"1 ms, at once", constant(time.Millisecond), atOnce, 4, 1, true},
		{"1 ms, 10 % 300 ms, both kinds", mixed(time.Millisecond, 300*time.Millisecond, 0.1), both, 6, 1, false},
		{"50 ms, both kinds", constant(50 * time.Millisecond), both, 6, 1, true},
		{"300 ms exponential, at once", exponential(300 * time.Millisecond), atOnce, 12, 1, true},
		{"300 ms, at once, 2 to 6 segments", constant(300 * time.Millisecond), atOnce, 12, 5, false},
		{"300 ms, at once, 2 to 6 segments, own ACKs", constant(300 * time.Millisecond), acks, 12, 5, true},
		{"1 ms, think 300 ms, 2 to 6 segments, own ACKs", constant(time.Millisecond), thinkAcks, 12, 5, false},
		{"1 ms, think 300 ms, 2 to 6 segments", constant(time.Millisecond), think, 12, 5, true},
	}
	span := 3500 * time.Millisecond
	if all() {
		span = 8 * time.Second
	}
	// Sleeping takes no CPU: all at once take as long as one.
	var wg sync.WaitGroup
	for _, c := range rows {
		if c.only && !all() {
			continue
		}
		b := startSegments(t, c.service, c.pieces)
		stop, until := make(chan struct{}), time.Now().Add(span)
		type watch struct {
			every time.Duration
			late  bool
		}
		var watches []watch
		for _, every := range []time.Duration{10 * time.Millisecond, 50 * time.Millisecond, 250 * time.Millisecond} {
			watches = append(watches, watch{every, false}, watch{every, true})
		}
		for _, at := range watches {
			w := open(t, b.port, "")
			w.cfg.Budget = DefaultConfig().Budget
			wg.Go(func() {
				wait := 200 * time.Millisecond
				if at.late {
					time.Sleep(time.Second)
				}
				res := compare(t, b, w, wait, time.Until(until)-wait, at.every)
				conns := float64(c.each * len(c.clients))
				t.Logf("| %s | %v | %v | %.1f | %.1f | %.1f | %.1f | %+.0f %% | %.0f %% |", c.name, at.every, at.late, res.truth, res.ties,
					res.unsure, res.est, 100*(res.est-res.truth)/conns, 100*res.absErr/conns)
				checkSegments(t, fmt.Sprintf("%s, every %v, late %v", c.name, at.every, at.late), res, conns)
			})
		}
		for _, cl := range c.clients {
			cl.waiting = &b.waiting
			for range c.each {
				go cl.run(b.addr, stop)
			}
		}
		defer close(stop)
	}
	wg.Wait()
}

// checkSegments holds that idle connections are not taken for busy ones, and that where
// busy ones are taken for idle the sample says that it does not know.
func checkSegments(t *testing.T, name string, res result, conns float64) {
	t.Helper()
	switch {
	case res.looks == 0:
		t.Errorf("%s: no looks", name)
	case res.est > res.most+0.1*conns+0.5:
		t.Errorf("%s: estimate %.1f, truth %.1f: idle connections are taken for busy ones", name, res.est, res.truth)
	case res.truth-res.est > 0.2*res.truth+0.1*conns+res.unsure+0.5:
		t.Errorf("%s: estimate %.1f, truth %.1f, only %.1f said to be unsure", name, res.est, res.truth, res.unsure)
	}
}
