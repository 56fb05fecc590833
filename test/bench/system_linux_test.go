package main

import (
	"bytes"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"outrigger/test/harness"
)

func rusage(t *testing.T) time.Duration {
	t.Helper()
	var r syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &r); err != nil {
		t.Fatal(err)
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

func TestCPUTimeIsThatOfTheProcess(t *testing.T) {
	for range 100 {
		before := rusage(t)
		got, err := cpuTime(os.Getpid())
		if err != nil {
			t.Fatal(err)
		}
		after := rusage(t)
		const rounding = 2 * time.Microsecond
		if got < before-rounding || got > after+rounding {
			t.Fatalf("%v is not between %v and %v", got, before, after)
		}
	}
	if _, err := cpuTime(1 << 22); err == nil {
		t.Error("a process that cannot be has a CPU time")
	}
}

func start(t *testing.T, command string) *harness.Process {
	t.Helper()
	p, err := harness.StartProcess(harness.Spec{Path: "sh", Args: []string{"-c", command}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Kill)
	return p
}

func TestOnlyChild(t *testing.T) {
	p := start(t, "sleep 3600 & wait")
	var child int
	if err := await(t.Context(), p, "a child", func() (err error) { child, err = onlyChild(p.PID()); return err }); err != nil {
		t.Fatal(err)
	}
	if _, err := onlyChild(child); err == nil {
		t.Error("sleep has a child")
	}
}

func TestPin(t *testing.T) {
	cpus := harness.AllowedCPUs()
	last := cpus[len(cpus)-1:]
	p := start(t, "exec sleep 3600")
	if err := pin(p.PID(), last); err != nil {
		t.Fatal(err)
	}
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(p.PID(), &set); err != nil || set.Count() != 1 || !set.IsSet(last[0]) {
		t.Errorf("it may run on %d processors, %v", set.Count(), err)
	}
}

func TestMemory(t *testing.T) {
	if err := resetPeak(os.Getpid()); err != nil {
		t.Fatal(err)
	}
	const size = 64 << 20
	block := bytes.Repeat([]byte{1}, size)
	m, err := memoryOf(os.Getpid())
	runtime.KeepAlive(block)
	if err != nil || m.rss < size || m.pss < size || m.peak < size {
		t.Errorf("%+v, %v; all must be above %d", m, err, size)
	}
}

func TestSocketsOfAProcess(t *testing.T) {
	front, back := httptest.NewServer(nil), httptest.NewServer(nil)
	defer front.Close()
	defer back.Close()
	port := func(s *httptest.Server) int { return s.Listener.Addr().(*net.TCPAddr).Port }
	var clients []int
	dial := func(s *httptest.Server) int {
		c, err := net.Dial("tcp", s.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		if _, err := c.Write([]byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n")); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Read(make([]byte, 1)); err != nil { // it is accepted
			t.Fatal(err)
		}
		return c.LocalAddr().(*net.TCPAddr).Port
	}
	clients = append(clients, dial(front), dial(front))
	dial(back)
	got, err := socketsOf(os.Getpid(), front.Listener.Addr().String(), []int{port(back)})
	slices.Sort(got.clients)
	slices.Sort(clients)
	if err != nil || !slices.Equal(got.clients, clients) || got.backends != 1 {
		t.Errorf("%+v, %v; want clients %v and 1 backend", got, err, clients)
	}
	other := start(t, "exec sleep 3600")
	if got, err = socketsOf(other.PID(), front.Listener.Addr().String(), []int{port(back)}); err != nil || len(got.clients)+got.backends != 0 {
		t.Errorf("another process has %+v, %v", got, err)
	}
}

// A request that is due while the backend stalls is late by the rest of the
// stall, whether or not it could be sent: a closed loop would tell of one slow
// request for each connection.
func TestGeneratorDoesNotHideStalls(t *testing.T) {
	const stall = 200 * time.Millisecond
	var mu sync.Mutex
	var once sync.Once
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		once.Do(func() { time.Sleep(stall) })
		_, _ = io.WriteString(w, "hello")
	}))
	defer s.Close()
	o, err := generate(plan{addr: s.Listener.Addr().String(), path: "/", conns: 2, rate: 1000, run: 2 * stall})
	if err != nil {
		t.Fatal(err)
	}
	if o.Due != 400 || o.Answered != o.Due {
		t.Errorf("%d of %d were answered, there should be 400", o.Answered, o.Due)
	}
	if o.Queued == 0 {
		t.Error("no request waited for one of the two connections")
	}
	// A quarter was due in the first half of the stall.
	if least := float64((stall / 2).Microseconds()); o.P90 < least {
		t.Errorf("the 90th percentile is %.0f µs, which cannot be below %.0f", o.P90, least)
	}
}

func TestGeneratorAtFullSpeed(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "hello") }))
	defer s.Close()
	var out, errs bytes.Buffer
	p := plan{addr: s.Listener.Addr().String(), path: "/", conns: 4, run: 50 * time.Millisecond}
	if code := runGenerator(p.args()[1:], &out, &errs); code != 0 || !strings.Contains(out.String(), `"answered":`) {
		t.Errorf("exit code %d, %s%s", code, out.String(), errs.String())
	}
}

func TestGeneratorTellsOfBadAnswers(t *testing.T) {
	s := httptest.NewServer(http.NotFoundHandler())
	defer s.Close()
	if o, err := generate(plan{addr: s.Listener.Addr().String(), path: "/", conns: 1, rate: 100, run: 50 * time.Millisecond}); err == nil {
		t.Errorf("404 passes: %+v", o)
	}
}

func TestRing(t *testing.T) {
	var r ring[int]
	next := 0
	for i := range 1000 {
		r.push(i)
		if i%3 == 0 {
			if got := r.pop(); got != next {
				t.Fatalf("got %d, want %d", got, next)
			}
			next++
		}
	}
	for ; r.n > 0; next++ {
		if got := r.pop(); got != next {
			t.Fatalf("got %d, want %d", got, next)
		}
	}
	if next != 1000 {
		t.Errorf("%d came out of 1000", next)
	}
}

// The peers themselves say whether they understand what is written for them.
func TestConfigurationsAreAccepted(t *testing.T) {
	dir := t.TempDir()
	b := &bench{dir: dir, static: dir, files: 4000, backends: &backends{ports: []int{20001, 20002, 20003}, status: 20004}}
	for _, c := range []struct {
		tool, text string
		args       []string
	}{
		{"nginx", b.backendConfig(b.backends), []string{"-t", "-p", dir, "-c"}},
		{"nginx", b.nginxConfig(20005, 20006), []string{"-t", "-p", dir, "-c"}},
		{"haproxy", b.haproxyConfig(20005, filepath.Join(dir, "s"), variant{}), []string{"-c", "-f"}},
		{"haproxy", b.haproxyConfig(20005, filepath.Join(dir, "s"), variant{haproxyTimeouts: slowTimeouts}), []string{"-c", "-f"}},
	} {
		path, err := exec.LookPath(c.tool)
		if err != nil {
			if path, err = exec.LookPath("/usr/sbin/" + c.tool); err != nil {
				t.Logf("%s is not installed", c.tool)
				continue
			}
		}
		file := filepath.Join(dir, "config")
		if err := os.WriteFile(file, []byte(c.text), 0o600); err != nil {
			t.Fatal(err)
		}
		if text, err := exec.Command(path, append(c.args, file)...).CombinedOutput(); err != nil || strings.Contains(string(text), "[WARNING]") {
			t.Errorf("%s: %v\n%s\n%s", c.tool, err, text, c.text)
		}
	}
}
