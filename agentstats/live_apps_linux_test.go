package agentstats

import (
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"outrigger/test/harness"
)

// startPython runs a program in Python that serves on a free port, told as PORT, until
// the test ends, and returns its address.
func startPython(t *testing.T, cmd func(addr string) *exec.Cmd) string {
	t.Helper()
	if _, err := exec.LookPath("python3"); err != nil {
		t.Skip("takes python3, a server that is not ours")
	}
	addr, err := harness.FreeAddr()
	if err != nil {
		t.Fatal(err)
	}
	c := cmd(addr)
	c.Stderr = os.Stderr
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = c.Process.Signal(os.Interrupt)
		_ = c.Wait()
	})
	for end := time.Now().Add(20 * time.Second); ; {
		conn, err := net.Dial("tcp", addr)
		if err == nil {
			conn.Close()
			return addr
		}
		if time.Now().After(end) {
			t.Fatalf("%v does not serve on %s: %v", c.Args, addr, err)
		}
		time.Sleep(20 * ms)
	}
}

// watch runs an agent on the backend at addr and returns what its report is now.
func watch(t *testing.T, addr string) func() Report {
	t.Helper()
	tcp, err := net.ResolveTCPAddr("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	cfg := DefaultConfig()
	cfg.Listen, cfg.Backend.Port = "127.0.0.1:7070", tcp.Port // runAgent brings its own listener
	a, err := NewAgent(cfg, Env{})
	if err != nil {
		t.Fatal(err)
	}
	at := runAgent(t, a)
	poll := &http.Client{Timeout: 5 * time.Second}
	return func() Report {
		t.Helper()
		resp, err := poll.Get("http://" + at + ReportPath)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		r, err := Decode(body)
		if err != nil {
			t.Fatalf("%v\n%s", err, body)
		}
		return r
	}
}

// awaitReport polls until the report is as wanted, and returns it.
func awaitReport(t *testing.T, what string, report func() Report, ok func(Report) bool) Report {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(50 * ms) {
		r := report()
		if ok(r) {
			return r
		}
		if time.Now().After(end) {
			t.Fatalf("waited for %s; at last: %+v", what, r)
		}
	}
}

// A backend that accepts one connection and works on it for ever fills its accept
// queue: that and the requests in flight move, and nothing else does.
func TestLiveSlowConsumer(t *testing.T) {
	const program = `
import os, socket, time
host, port = os.environ["ADDR"].rsplit(":", 1)
s = socket.socket()
s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
s.bind((host, int(port)))
s.listen(30)
c, _ = s.accept()   # the test's look whether it serves
c, _ = s.accept()
time.sleep(3600)
`
	addr := startPython(t, func(addr string) *exec.Cmd {
		c := exec.Command("python3", "-c", program)
		c.Env = append(os.Environ(), "ADDR="+addr)
		return c
	})
	report := watch(t, addr)
	before := awaitReport(t, "figures of the idle backend", report, func(r Report) bool {
		return r.AcceptQueue == Some(int64(0)) && r.InFlight == Some(0.0) && r.Used.Or(1) < 0.1 && !r.Avail.IsZero()
	})
	if limit := before.AcceptLimit.Or(0); limit != 30 {
		t.Errorf("accept limit %d, want 30", limit)
	}
	const clients = 21
	for range clients {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		fmt.Fprintf(conn, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	}
	after := awaitReport(t, "the queue", report, func(r Report) bool {
		return r.AcceptQueue == Some(int64(clients-1)) && r.InFlight == Some(float64(clients))
	})
	if after.InFlightSource != SourceKernel || after.Epoch != before.Epoch || after.Listening != Some(true) {
		t.Errorf("%+v", after)
	}
	if after.Used.Or(1) > 0.1 || math.Abs(after.Mem.Or(9)-before.Mem.Or(0)) > 0.01 || after.Cores != before.Cores {
		t.Errorf("it does nothing and needs no more memory: before %+v, after %+v", before, after)
	}
}

// An unmodified Flask app under gunicorn: the agent sees how many requests are in it,
// and that idle keep-alive connections are none.
func TestLiveFlask(t *testing.T) {
	if _, err := exec.LookPath("gunicorn"); err != nil {
		t.Skip("takes gunicorn (apt install gunicorn python3-flask)")
	}
	dir := t.TempDir()
	const app = `
import time
from flask import Flask
app = Flask(__name__)

@app.route("/sleep/<float:s>")
def sleep(s):
    time.sleep(s)
    return "ok"
`
	if err := os.WriteFile(filepath.Join(dir, "app.py"), []byte(app), 0o600); err != nil {
		t.Fatal(err)
	}
	addr := startPython(t, func(addr string) *exec.Cmd {
		c := exec.Command("gunicorn", "--workers", "2", "--threads", "16", "--keep-alive", "60", "--log-level", "error", "-b", addr, "app:app")
		c.Dir = dir
		return c
	})
	report := watch(t, addr)
	awaitReport(t, "an idle backend", report, func(r Report) bool {
		return r.InFlight == Some(0.0) && r.InFlightSource == SourceKernel && r.Listening == Some(true)
	})

	// Each client's next request follows the last answer at once.
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}}
	load := func(clients int, service float64) (stop func()) {
		done := make(chan struct{})
		var wg sync.WaitGroup
		for range clients {
			wg.Go(func() {
				for {
					select {
					case <-done:
						return
					default:
					}
					resp, err := client.Get(fmt.Sprintf("http://%s/sleep/%.3f", addr, service))
					if err != nil {
						t.Error(err)
						return
					}
					_, _ = io.Copy(io.Discard, resp.Body)
					resp.Body.Close()
				}
			})
		}
		return func() { close(done); wg.Wait() }
	}
	for _, c := range []struct {
		clients int
		service float64
	}{{12, 0.3}, {6, 0.05}} {
		stop := load(c.clients, c.service)
		// All that are new are found once the budget allows to search for them. From then on
		// it holds: every look at such clients is a guess, and guesses must not feed on
		// themselves.
		awaitReport(t, "the clients' requests", report, func(r Report) bool { return r.InFlight.Or(0) > 0.8*float64(c.clients) })
		told := 0
		for range 3 {
			var sum, n float64
			for range 20 {
				if v, ok := report().InFlight.Get(); ok { // else it is too unsure to say
					sum, n = sum+v, n+1
				}
				time.Sleep(37 * ms)
			}
			if told += int(n); n > 0 && math.Abs(sum/n-float64(c.clients)) > 0.2*float64(c.clients) {
				t.Errorf("%.1f in flight on the mean of %v looks, want %d", sum/n, n, c.clients)
			}
		}
		if told < 30 {
			t.Errorf("of 60 looks %d told what is in flight", told)
		}
		stop()
		// The connections stay, and are idle.
		awaitReport(t, "none in flight", report, func(r Report) bool { return r.InFlight.Or(9) < 0.01 })
	}
}
