package sockets

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func open(t testing.TB, port int, ns string) *Watcher {
	t.Helper()
	cfg := DefaultConfig()
	cfg.Port, cfg.NetNS = port, ns
	cfg.Budget = 1 // every call looks
	w, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Close)
	return w
}

// await samples until the sample is as wanted, and fails after 10 s.
func await(t testing.TB, w *Watcher, what string, want func(Sample) bool) Sample {
	t.Helper()
	var s Sample
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		var err error
		if s, err = w.Sample(time.Now()); err != nil {
			t.Fatal(err)
		}
		if want(s) {
			return s
		}
	}
	t.Fatalf("%s: last sample %+v", what, s)
	return s
}

// holds samples for some time, in which the sample must stay as it is.
func holds(t testing.TB, w *Watcher, what string, want func(Sample) bool) {
	t.Helper()
	for end := time.Now().Add(300 * time.Millisecond); time.Now().Before(end); time.Sleep(7 * time.Millisecond) {
		s, err := w.Sample(time.Now())
		if err != nil {
			t.Fatal(err)
		}
		if !want(s) {
			t.Fatalf("%s: %+v", what, s)
		}
	}
}

func inFlight(n float64) func(Sample) bool { return func(s Sample) bool { return s.InFlight == n } }

func dial(t testing.TB, addr string) *net.TCPConn {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c.(*net.TCPConn)
}

// listen makes a listening socket with a backlog, which never accepts by itself.
func listen(t testing.TB, addr string, backlog int) *net.TCPListener {
	t.Helper()
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		return c.Control(func(fd uintptr) {
			_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
		})
	}}
	ln, err := lc.Listen(context.Background(), "tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	raw, err := ln.(*net.TCPListener).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	_ = raw.Control(func(fd uintptr) { err = unix.Listen(int(fd), backlog) })
	if err != nil {
		t.Fatal(err)
	}
	return ln.(*net.TCPListener)
}

func TestAcceptQueue(t *testing.T) {
	ln := listen(t, "127.0.0.1:0", 16)
	port := ln.Addr().(*net.TCPAddr).Port
	w := open(t, port, "")
	s := await(t, w, "listening", func(s Sample) bool { return s.Listening })
	if s.AcceptQueue != 0 || s.AcceptLimit != 16 || s.Established != 0 {
		t.Fatalf("%+v, want an empty queue of 16", s)
	}
	var conns []*net.TCPConn
	for range 5 {
		conns = append(conns, dial(t, ln.Addr().String()))
	}
	// Without a request they wait, but are nothing in flight.
	await(t, w, "5 waiting", func(s Sample) bool { return s.AcceptQueue == 5 && s.Unaccepted == 5 && s.InFlight == 0 })
	for i, c := range conns[:3] {
		fmt.Fprint(c, "GET / HTTP/1.1\r\n")
		await(t, w, "requests in the queue", inFlight(float64(i+1)))
	}
	if _, err := ln.Accept(); err != nil {
		t.Fatal(err)
	}
	await(t, w, "one accepted", func(s Sample) bool { return s.AcceptQueue == 4 && s.InFlight == 3 })

	// More sockets on the same port add up: the same address, and IPv6.
	listen(t, ln.Addr().String(), 32)
	if six, err := net.Listen("tcp6", fmt.Sprintf("[::1]:%d", port)); err == nil {
		t.Cleanup(func() { six.Close() })
		await(t, w, "a listener on IPv6", func(s Sample) bool { return s.AcceptLimit > 48 })
		dial(t, six.Addr().String())
		await(t, w, "a connection on IPv6", func(s Sample) bool { return s.AcceptQueue == 5 && s.Established == 6 })
	}
	ln.Close()
	await(t, w, "the first listener closed", func(s Sample) bool { return s.Listening && s.AcceptQueue <= 1 })
}

func TestNotListening(t *testing.T) {
	ln := listen(t, "127.0.0.1:0", 1)
	port := ln.Addr().(*net.TCPAddr).Port
	w := open(t, port, "")
	await(t, w, "listening", func(s Sample) bool { return s.Listening })
	ln.Close()
	s := await(t, w, "closed", func(s Sample) bool { return !s.Listening })
	if s.InFlight != 0 || s.AcceptLimit != 0 {
		t.Errorf("%+v of a closed port", s)
	}
}

// TestIdle holds that connections without a request are worth exactly nothing, however
// they came to be idle: that bias is the harmful one.
func TestIdle(t *testing.T) {
	b := startBackend(t, constant(0), 100)
	w := open(t, b.port, "")
	for i := range 60 {
		c := dial(t, b.addr)
		br := bufio.NewReader(c)
		for range i % 6 { // 0 to 5 requests, each answered within a tick
			if i%2 == 0 {
				quickAck(c)
			}
			fmt.Fprint(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
			if i%4 == 0 {
				quickAck(c)
			}
			resp, err := http.ReadResponse(br, nil)
			if err != nil {
				t.Fatal(err)
			}
			_, _ = io.Copy(io.Discard, resp.Body)
		}
		if i%5 == 0 {
			if _, err := w.Sample(time.Now()); err != nil {
				t.Fatal(err)
			}
		}
	}
	await(t, w, "60 idle", func(s Sample) bool { return s.Established == 60 && s.InFlight == 0 })
	holds(t, w, "60 idle", inFlight(0))
	// A watcher that comes later knows no more than the stamps.
	late := open(t, b.port, "")
	await(t, late, "60 idle, seen late", func(s Sample) bool { return s.Established == 60 && s.InFlight == 0 })
	holds(t, late, "60 idle, seen late", inFlight(0))
}

// TestSituations walks one connection at a time through what HTTP does.
func TestSituations(t *testing.T) {
	release := make(chan struct{})
	mux := http.NewServeMux()
	mux.HandleFunc("/wait", func(http.ResponseWriter, *http.Request) { <-release })
	mux.HandleFunc("/read", func(_ http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) })
	mux.HandleFunc("/large", func(w http.ResponseWriter, _ *http.Request) {
		buf := make([]byte, 1<<20)
		for range 64 {
			if _, err := w.Write(buf); err != nil {
				return
			}
		}
	})
	mux.HandleFunc("/stream", func(w http.ResponseWriter, _ *http.Request) {
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-release:
				return
			case <-tick.C:
				fmt.Fprint(w, "piece")
				w.(http.Flusher).Flush()
			}
		}
	})
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: mux}
	go func() { _ = srv.Serve(ln) }()
	t.Cleanup(func() { _ = srv.Close() })
	addr, w := ln.Addr().String(), open(t, ln.Addr().(*net.TCPAddr).Port, "")

	for _, c := range []struct {
		name string
		do   func(c *net.TCPConn)
		busy bool // still, after do
		end  func(c *net.TCPConn)
	}{
		{name: "connects only", do: func(*net.TCPConn) {}},
		{name: "connects and closes", do: func(c *net.TCPConn) { c.Close() }},
		{name: "half a request head", do: func(c *net.TCPConn) { fmt.Fprint(c, "GET / HT") }, busy: true,
			end: func(c *net.TCPConn) { c.Close() }},
		{name: "waits", do: func(c *net.TCPConn) { fmt.Fprint(c, "GET /wait HTTP/1.1\r\nHost: x\r\n\r\n") }, busy: true,
			end: func(c *net.TCPConn) { release <- struct{}{}; readResponse(t, c) }},
		{name: "gives up while the backend works on", do: func(c *net.TCPConn) { fmt.Fprint(c, "GET /wait HTTP/1.1\r\nHost: x\r\n\r\n"); c.Close() }, busy: true,
			end: func(*net.TCPConn) { release <- struct{}{} }},
		{name: "closes its sending side", do: func(c *net.TCPConn) { fmt.Fprint(c, "GET /wait HTTP/1.1\r\nHost: x\r\n\r\n"); _ = c.CloseWrite() }, busy: true,
			end: func(*net.TCPConn) { release <- struct{}{} }},
		{name: "stops in the middle of an upload", do: func(c *net.TCPConn) {
			fmt.Fprint(c, "POST /read HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n"+strings.Repeat("x", 50000))
		}, busy: true, end: func(c *net.TCPConn) { fmt.Fprint(c, strings.Repeat("x", 50000)); readResponse(t, c) }},
		{name: "awaits 100-continue, then uploads", do: func(c *net.TCPConn) {
			fmt.Fprint(c, "POST /read HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 10\r\n\r\n")
			br := bufio.NewReader(c)
			if line, err := br.ReadString('\n'); err != nil || !strings.Contains(line, "100") {
				t.Errorf("%q, %v", line, err)
			}
			time.Sleep(20 * time.Millisecond)
			fmt.Fprint(c, "12345")
		}, busy: true, end: func(c *net.TCPConn) { fmt.Fprint(c, "67890") }},
		{name: "does not read a large response", do: func(c *net.TCPConn) {
			fmt.Fprint(c, "GET /large HTTP/1.1\r\nHost: x\r\n\r\n")
			time.Sleep(500 * time.Millisecond) // until the send buffer has grown as far as it does
		}, busy: true,
			end: func(c *net.TCPConn) { readResponse(t, c) }},
		{name: "reads a stream", do: func(c *net.TCPConn) {
			fmt.Fprint(c, "GET /stream HTTP/1.1\r\nHost: x\r\n\r\n")
			go func() { _, _ = io.Copy(io.Discard, c) }()
			time.Sleep(200 * time.Millisecond)
		}, busy: true, end: func(*net.TCPConn) { release <- struct{}{} }},
	} {
		t.Run(c.name, func(t *testing.T) {
			await(t, w, "idle before", inFlight(0))
			conn := dial(t, addr)
			c.do(conn)
			if c.busy {
				await(t, w, "busy", inFlight(1))
				holds(t, w, "busy", inFlight(1))
				c.end(conn)
			}
			await(t, w, "idle after", inFlight(0))
			holds(t, w, "idle after", inFlight(0))
			conn.Close()
			await(t, w, "gone", func(s Sample) bool { return s.Established == 0 })
		})
	}
}

func readResponse(t testing.TB, c net.Conn) {
	t.Helper()
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Error(err)
		return
	}
	_, _ = io.Copy(io.Discard, resp.Body)
}

func TestOpenFails(t *testing.T) {
	for _, c := range []struct {
		port int
		ns   string
		want string
	}{
		{0, "", "port is 0"},
		{70000, "", "port is 70000"},
		{80, "relative", "not an absolute path"},
		{80, "/proc/4194305/ns/net", "no such file"},
		{80, "/proc/self/status", "network namespace"},
	} {
		cfg := DefaultConfig()
		cfg.Port, cfg.NetNS = c.port, c.ns
		w, err := Open(cfg)
		if err == nil {
			w.Close()
		}
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("Open(%d, %q): %v, want %q", c.port, c.ns, err, c.want)
		}
	}
	w := open(t, 80, "")
	w.Close()
	w.Close()
	if _, err := w.Sample(time.Now()); err == nil {
		t.Error("a closed watcher gave a sample")
	}
}
