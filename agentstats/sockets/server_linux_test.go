package sockets

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"outrigger/test/harness"
)

// TestPythonServers watches backends that know nothing of it. The truth is what their
// clients wait for; they sleep for 30 ms per request where nothing else is said.
func TestPythonServers(t *testing.T) {
	if testing.Short() {
		t.Skip("starts servers")
	}
	const app = `
import os, time
def app(environ, start_response):
    time.sleep(float(os.environ.get("SLEEP", "0.03")))
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "2")])
    return [b"ok"]
`
	const plain = `
import sys, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
class H(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = 65536  # else Nagle holds the body back until the head is acknowledged
    def do_GET(self):
        time.sleep(0.03)
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")
    def log_message(self, *args): pass
ThreadingHTTPServer.request_queue_size = 128
ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), H).serve_forever()
`
	dir := t.TempDir()
	for name, text := range map[string]string{"app.py": app, "plain.py": plain} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	gunicorn := func(args ...string) []string {
		return append(append([]string{"gunicorn", "--log-level", "error"}, args...), "-b", "127.0.0.1:PORT", "app:app")
	}
	for _, c := range []struct {
		name    string
		command []string
		clients int
		client  client
		idle    int
	}{
		{"gunicorn sync, 2 workers", gunicorn("-w", "2"), 6, client{fresh: true, get: true, think: constant(10 * time.Millisecond)}, 0},
		{"gunicorn gthread, keep-alive", gunicorn("-w", "1", "-k", "gthread", "--threads", "8"), 6, client{get: true, think: exponential(20 * time.Millisecond)}, 10},
		{"gunicorn gthread, 300 ms, reused at once", gunicorn("-w", "2", "-k", "gthread", "--threads", "16", "-e", "SLEEP=0.3"), 12, client{get: true}, 6},
		{"gunicorn gthread, 1 ms, think 300 ms", gunicorn("-w", "2", "-k", "gthread", "--threads", "16", "-e", "SLEEP=0.001"), 12, client{get: true, think: constant(300 * time.Millisecond)}, 6},
		{"http.server, keep-alive", []string{"python3", "plain.py", "PORT"}, 10, client{get: true, think: exponential(20 * time.Millisecond)}, 20},
	} {
		t.Run(c.name, func(t *testing.T) {
			if _, err := exec.LookPath(c.command[0]); err != nil {
				t.Skip(err)
			}
			t.Parallel() // they sleep
			b := startCommand(t, dir, c.command)
			var idle sync.WaitGroup
			for range c.idle {
				idle.Go(func() { idleConn(t, b.addr) })
			}
			idle.Wait()
			stop := make(chan struct{})
			var wg sync.WaitGroup
			c.client.waiting = &b.inFlight
			for range c.clients {
				wg.Go(func() { c.client.run(b.addr, stop) })
			}
			defer wg.Wait()
			defer close(stop)
			w := open(t, b.port, "")
			w.cfg.Budget = DefaultConfig().Budget
			res := compare(t, b, w, 500*time.Millisecond, 1500*time.Millisecond, 10*time.Millisecond)
			t.Logf("| %s | %d + %d | %.1f | %.1f | %.1f | %+.0f %% | %.0f %% |", c.name, c.clients, c.idle, res.truth, res.ties, res.est,
				100*(res.est-res.truth)/max(res.truth, 1), 100*res.absErr/max(res.truth, 1))
			if limit := 0.3*res.truth + 1; res.looks == 0 || math.Abs(res.est-res.truth) > limit {
				t.Errorf("estimate %.1f, truth %.1f, %.1f is tolerated", res.est, res.truth, limit)
			}
		})
	}
}

// startCommand starts a server on a free port and waits until it answers.
func startCommand(t *testing.T, dir string, command []string) *backend {
	t.Helper()
	ports, err := harness.FreePorts(1)
	if err != nil {
		t.Fatal(err)
	}
	b := &backend{addr: fmt.Sprintf("127.0.0.1:%d", ports[0]), port: ports[0]}
	args := make([]string, len(command)-1)
	for i, a := range command[1:] {
		args[i] = strings.ReplaceAll(a, "PORT", strconv.Itoa(b.port))
	}
	ctx, cancel := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, command[0], args...)
	cmd.Dir, cmd.Stderr = dir, os.Stderr
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 5 * time.Second
	if err := cmd.Start(); err != nil {
		cancel()
		t.Skip(err)
	}
	t.Cleanup(func() { cancel(); _ = cmd.Wait() })
	for end := time.Now().Add(15 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		if resp, err := http.Get("http://" + b.addr); err == nil {
			_, _ = io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
			http.DefaultClient.CloseIdleConnections()
			return b
		}
		if time.Now().After(end) {
			t.Fatalf("%v does not answer", command)
		}
	}
}

// TestMultiplexed holds the documented limit for HTTP/2: at most one per connection, and
// whether it is one hangs on which control frame came last.
func TestMultiplexed(t *testing.T) {
	var inFlight atomic.Int64
	release := make(chan struct{})
	srv := &http.Server{Protocols: new(http.Protocols), Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		inFlight.Add(1)
		<-release
	})}
	srv.Protocols.SetUnencryptedHTTP2(true)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = srv.Serve(ln) }()
	t.Cleanup(func() { _ = srv.Close() })
	tr := &http.Transport{Protocols: new(http.Protocols)}
	tr.Protocols.SetUnencryptedHTTP2(true)
	t.Cleanup(tr.CloseIdleConnections)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer close(release)
	for range 10 {
		wg.Go(func() {
			resp, err := (&http.Client{Transport: tr}).Get("http://" + ln.Addr().String())
			if err != nil {
				t.Error(err)
				return
			}
			_, _ = bufio.NewReader(resp.Body).Discard(1)
			resp.Body.Close()
		})
	}
	w := open(t, ln.Addr().(*net.TCPAddr).Port, "")
	await(t, w, "10 requests", func(Sample) bool { return inFlight.Load() == 10 })
	holds(t, w, "at most one per connection", func(s Sample) bool {
		return s.Established > 0 && s.InFlight <= float64(s.Established)
	})
}
