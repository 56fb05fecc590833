package sockets

import (
	"bufio"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// backend is a Go server that knows its requests in flight.
type backend struct {
	inFlight atomic.Int64 // as its handlers count
	waiting  atomic.Int64 // as its clients do, where they tell
	addr     string
	port     int
}

type shape func(r *rand.Rand) time.Duration

func constant(d time.Duration) shape { return func(*rand.Rand) time.Duration { return d } }
func exponential(mean time.Duration) shape {
	return func(r *rand.Rand) time.Duration { return time.Duration(r.ExpFloat64() * float64(mean)) }
}

// lognormal has sigma 1, as the work in PICKING.md.
func lognormal(mean time.Duration) shape {
	return func(r *rand.Rand) time.Duration {
		return time.Duration(math.Exp(r.NormFloat64()-0.5) * float64(mean))
	}
}

func startBackend(t testing.TB, service shape, size int) *backend {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b := &backend{addr: ln.Addr().String(), port: ln.Addr().(*net.TCPAddr).Port}
	body := []byte(strings.Repeat("x", size))
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b.inFlight.Add(1)
		defer b.inFlight.Add(-1)
		_, _ = io.Copy(io.Discard, r.Body)
		time.Sleep(service(rand.New(rand.NewPCG(rand.Uint64(), 1))))
		_, _ = w.Write(body)
	})}
	go func() { _ = srv.Serve(ln) }()
	t.Cleanup(func() { _ = srv.Close() })
	return b
}

// client sends requests until stop: think is the pause between them, fresh means a new
// connection for each.
type client struct {
	think shape
	fresh bool
	body  int
	get   bool
	acks  bool // acknowledges each response by itself, at once

	waiting *atomic.Int64 // counts the requests that are not answered, where set
}

func (c client) run(addr string, stop <-chan struct{}) {
	r := rand.New(rand.NewPCG(rand.Uint64(), 2))
	var conn net.Conn
	var br *bufio.Reader
	defer func() {
		if conn != nil {
			conn.Close()
		}
	}()
	pause := time.NewTimer(0)
	<-pause.C
	for {
		if c.think != nil {
			pause.Reset(c.think(r))
			select {
			case <-pause.C:
			case <-stop:
				return
			}
		}
		select {
		case <-stop:
			return
		default:
		}
		if conn == nil {
			var err error
			if conn, err = net.Dial("tcp", addr); err != nil {
				return
			}
			go func(conn net.Conn) { <-stop; conn.Close() }(conn)
			br = bufio.NewReader(conn)
		}
		if c.acks {
			quickAck(conn)
		}
		if c.waiting != nil {
			c.waiting.Add(1)
		}
		if c.get {
			fmt.Fprint(conn, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
		} else {
			fmt.Fprintf(conn, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", c.body, strings.Repeat("y", c.body))
		}
		if c.acks {
			quickAck(conn) // the kernel takes it back
		}
		resp, err := http.ReadResponse(br, nil)
		if err == nil {
			_, _ = io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
		}
		if c.waiting != nil {
			c.waiting.Add(-1)
		}
		if err != nil {
			return
		}
		if c.fresh {
			conn.Close()
			conn = nil
		}
	}
}

func quickAck(conn net.Conn) {
	raw, err := conn.(*net.TCPConn).SyscallConn()
	if err == nil {
		_ = raw.Control(func(fd uintptr) {
			_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_QUICKACK, 1)
		})
	}
}

// idleConn opens a connection that sends one request and then nothing.
func idleConn(t testing.TB, addr string) {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Error(err)
		return
	}
	t.Cleanup(func() { conn.Close() })
	fmt.Fprint(conn, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	readResponse(t, conn)
}

type result struct {
	truth, est, ties, absErr, unsure float64 // means
	most                             float64 // of truth: on a busy machine requests wait for a handler to count them
	looks                            int
}

// compare samples at random moments and holds the answer against the truth.
func compare(t testing.TB, b *backend, w *Watcher, warm, span time.Duration, every time.Duration) result {
	t.Helper()
	var res result
	r := rand.New(rand.NewPCG(3, 4))
	begin := time.Now()
	for {
		time.Sleep(time.Duration((0.5 + r.Float64()) * float64(every)))
		now := time.Now()
		if now.Sub(begin) > warm+span {
			break
		}
		before := float64(b.inFlight.Load())
		s, err := w.Sample(now)
		if err != nil {
			t.Fatal(err)
		}
		truth := (before + float64(b.inFlight.Load())) / 2
		if now.Sub(begin) < warm || s.At != now {
			continue
		}
		res.looks++
		res.truth += truth
		res.most += max(truth, float64(b.waiting.Load()))
		res.est += s.InFlight
		res.ties += float64(s.Ties)
		res.unsure += s.Unsure
		res.absErr += math.Abs(s.InFlight - truth)
	}
	n := float64(max(res.looks, 1))
	for _, f := range []*float64{&res.truth, &res.est, &res.ties, &res.absErr, &res.unsure, &res.most} {
		*f /= n
	}
	return res
}

// TestTruth watches net/http: see all for the whole table.
func TestTruth(t *testing.T) {
	if testing.Short() {
		t.Skip("takes real time: the kernel's clock cannot be turned")
	}
	usual := map[string]bool{ // the others only in the whole table
		"5 ms exponential, reused at once":                 true,
		"30 ms constant, reused at once":                   true,
		"30 ms lognormal, reused at once, own ACKs, 50 KB": true,
		"30 ms lognormal, think 30 ms":                     true,
		"2 ms lognormal, think 10 ms, own ACKs":            true,
		"5 ms exponential, new connections":                true,
		"30 ms lognormal, reused at once, 250 ms apart":    true,
	}
	atOnce := client{}
	think := func(d time.Duration) client { return client{think: exponential(d)} }
	for _, c := range []struct {
		name    string
		service shape
		clients int
		idle    int
		client  client
		size    int
		every   time.Duration
	}{
		{"1 ms constant, reused at once", constant(time.Millisecond), 8, 0, atOnce, 100, 0},
		{"1 ms exponential, think 20 ms", exponential(time.Millisecond), 40, 0, think(20 * time.Millisecond), 100, 0},
		{"5 ms exponential, reused at once", exponential(5 * time.Millisecond), 20, 0, atOnce, 100, 0},
		{"5 ms lognormal, think 5 ms, 80 % idle", lognormal(5 * time.Millisecond), 14, 56, think(5 * time.Millisecond), 100, 0},
		{"30 ms exponential, reused at once", exponential(30 * time.Millisecond), 70, 0, atOnce, 100, 0},
		{"30 ms constant, reused at once", constant(30 * time.Millisecond), 70, 0, atOnce, 100, 0},
		{"30 ms lognormal, reused at once, 50 KB", lognormal(30 * time.Millisecond), 70, 0, atOnce, 50000, 0},
		{"30 ms lognormal, reused at once, own ACKs", lognormal(30 * time.Millisecond), 70, 30, client{acks: true}, 100, 0},
		{"2 ms lognormal, think 10 ms, own ACKs", lognormal(2 * time.Millisecond), 30, 70, client{acks: true, think: exponential(10 * time.Millisecond)}, 100, 0},
		{"30 ms lognormal, reused at once, own ACKs, 50 KB", lognormal(30 * time.Millisecond), 35, 65, client{acks: true}, 50000, 0},
		{"30 ms lognormal, think 30 ms", lognormal(30 * time.Millisecond), 70, 0, think(30 * time.Millisecond), 100, 0},
		{"30 ms lognormal, reused at once, 250 ms apart", lognormal(30 * time.Millisecond), 70, 0, atOnce, 100, 250 * time.Millisecond},
		{"30 ms exponential, new connections", exponential(30 * time.Millisecond), 20, 0, client{think: exponential(10 * time.Millisecond), fresh: true}, 100, 0},
		{"5 ms exponential, new connections", exponential(5 * time.Millisecond), 8, 0, client{think: exponential(5 * time.Millisecond), fresh: true}, 100, 0},
		{"20 ms exponential, 95 % idle", exponential(20 * time.Millisecond), 5, 95, think(5 * time.Millisecond), 100, 0},
		{"100 ms lognormal, uploads of 200 KB", lognormal(100 * time.Millisecond), 20, 20, client{think: exponential(50 * time.Millisecond), body: 200000}, 100, 0},
		{"500 ms exponential, reused at once", exponential(500 * time.Millisecond), 30, 30, atOnce, 100, 0},
		{"5 s exponential, think 1 s", exponential(5 * time.Second), 30, 10, think(time.Second), 100, 0},
	} {
		if !usual[c.name] && !all() {
			continue
		}
		t.Run(c.name, func(t *testing.T) {
			b := startBackend(t, c.service, c.size)
			stop := make(chan struct{})
			var wg, idle sync.WaitGroup
			for range c.idle {
				idle.Go(func() { idleConn(t, b.addr) })
			}
			idle.Wait()
			c.client.waiting = &b.waiting
			for range c.clients {
				wg.Go(func() { c.client.run(b.addr, stop) })
			}
			defer wg.Wait()
			defer close(stop)
			cfg := DefaultConfig()
			cfg.Port = b.port
			w, err := Open(cfg)
			if err != nil {
				t.Fatal(err)
			}
			defer w.Close()
			every := c.every
			if every == 0 {
				every = 10 * time.Millisecond
			}
			span := time.Second
			if all() {
				span = 3 * time.Second
			}
			res := compare(t, b, w, 500*time.Millisecond, max(span, 6*every), every)
			t.Logf("| %s | %d + %d | %.1f | %.1f | %.1f | %+.0f %% | %.0f %% |", c.name, c.clients, c.idle, res.truth, res.ties, res.est,
				100*(res.est-res.truth)/max(res.truth, 1), 100*res.absErr/max(res.truth, 1))
			if res.looks == 0 {
				t.Fatal("no looks")
			}
			// Only what is far beyond the measured error fails.
			if limit := 0.25*res.truth + 1.5; res.est > res.most+limit || res.est < res.truth-limit {
				t.Errorf("estimate %.1f, truth %.1f, %.1f is tolerated", res.est, res.truth, limit)
			}
		})
	}
}
