//go:build unix

package sidecar

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"outrigger/discovery"
)

const patience = 10 * time.Second

func eventually(t testing.TB, what string, cond func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !cond(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("still waiting for: %s", what)
		}
	}
}

// socketPath is a path that is short enough everywhere.
func socketPath(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "or")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return filepath.Join(dir, "web.sock")
}

func open(path, mode string) (net.Listener, error) {
	return listen(&ServiceConfig{Listen: unixPrefix + path, ListenMode: mode})
}

func mustOpen(t testing.TB, path, mode string) net.Listener {
	t.Helper()
	ln, err := open(path, mode)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ln.Close() })
	return ln
}

func gone(path string) bool {
	_, err := os.Lstat(path)
	return errors.Is(err, fs.ErrNotExist)
}

func TestSocketModes(t *testing.T) {
	for _, mode := range []string{"0600", "0660", "0666", "777"} {
		path := socketPath(t)
		ln := mustOpen(t, path, mode)
		info, err := os.Lstat(path)
		if want, _ := parseMode(mode); err != nil || info.Mode() != want|fs.ModeSocket {
			t.Errorf("%s: %v, %v", mode, info.Mode(), err)
		}
		if got := listenText(ln.Addr()); got != "unix:"+path {
			t.Errorf("its address is %s", got)
		}
		if err := ln.Close(); err != nil || !gone(path) {
			t.Errorf("closed: %v, gone: %v", err, gone(path))
		}
		if err := ln.Close(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("closed twice: %v", err)
		}
	}
}

// abandon leaves a socket behind as a killed process does.
func abandon(t testing.TB, path string) {
	t.Helper()
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	ln.SetUnlinkOnClose(false)
	_ = ln.Close()
	if gone(path) {
		t.Fatal("nothing was left behind")
	}
}

// What a dead process left is replaced, and nothing else.
func TestSocketIsThereAlready(t *testing.T) {
	path := socketPath(t)
	abandon(t, path)
	ln := mustOpen(t, path, "0600")
	if _, err := open(path, "0600"); err == nil || !strings.Contains(err.Error(), "somebody listens there already") {
		t.Errorf("a second listener: %v", err)
	}
	nc, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal("the first was harmed:", err)
	}
	_ = nc.Close()
	_ = ln.Close()

	for what, put := range map[string]func(path string) error{
		"a file":      func(p string) error { return os.WriteFile(p, []byte("x"), 0o600) },
		"a directory": func(p string) error { return os.Mkdir(p, 0o700) },
		"a link": func(p string) error {
			abandon(t, p+"2")
			return os.Symlink(p+"2", p)
		},
		"a fifo": func(p string) error { return syscall.Mkfifo(p, 0o600) },
		"a datagram socket": func(p string) error {
			c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: p, Net: "unixgram"})
			if err == nil {
				t.Cleanup(func() { _ = c.Close() })
			}
			return err
		},
	} {
		path := socketPath(t)
		if err := put(path); err != nil {
			t.Fatal(err)
		}
		if _, err := open(path, "0600"); err == nil || gone(path) {
			t.Errorf("%s: %v; gone: %v", what, err, gone(path))
		}
	}
	if _, err := open("/nowhere/web.sock", "0600"); err == nil || !strings.Contains(err.Error(), "no directory /nowhere") {
		t.Errorf("%v", err)
	}
}

// When many start at once over a dead socket, one gets it.
func TestSocketRace(t *testing.T) {
	path := socketPath(t)
	for range 20 {
		abandon(t, path)
		var wg sync.WaitGroup
		var won atomic.Pointer[net.Listener]
		var winners atomic.Int64
		for range 8 {
			wg.Go(func() {
				if ln, err := open(path, "0600"); err == nil {
					won.Store(&ln)
					winners.Add(1)
				} else if !strings.Contains(err.Error(), "somebody listens") {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if winners.Load() != 1 {
			t.Fatalf("%d listeners", winners.Load())
		}
		nc, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		_ = nc.Close()
		_ = (*won.Load()).Close()
	}
}

// Closing leaves alone what another has put in the place.
func TestSocketReplaced(t *testing.T) {
	path := socketPath(t)
	ln := mustOpen(t, path, "0600")
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	mustOpen(t, path, "0600")
	if err := ln.Close(); err != nil || gone(path) {
		t.Errorf("%v; gone: %v", err, gone(path))
	}
}

// serveSocket runs a whole sidecar on a Unix socket before one backend. Only
// Consul is not there: the test says what it would.
func serveSocket(t *testing.T, h http.HandlerFunc) (sc *Sidecar, path string, stop func() error) {
	t.Helper()
	back := httptest.NewServer(h)
	t.Cleanup(back.Close)
	path = socketPath(t)
	cfg := DefaultConfig()
	cfg.Consul.Address = "127.0.0.1:1"
	cfg.Admin.Listen = "127.0.0.1:0"
	s := DefaultService("web")
	s.Listen = unixPrefix + path
	cfg.Services = []ServiceConfig{s}
	sc, err := New(cfg, hclog.NewNullLogger(), "test")
	if err != nil {
		t.Fatal(err)
	}
	a := back.Listener.Addr().(*net.TCPAddr)
	sc.services[0].apply([]discovery.Instance{{ID: "1", Address: "127.0.0.1", Port: a.Port, Weight: 1}})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- sc.Run(ctx) }()
	var once sync.Once
	stop = func() (err error) {
		once.Do(func() {
			cancel()
			err = <-done
		})
		return err
	}
	t.Cleanup(func() { _ = stop() })
	return sc, path, stop
}

func (sc *Sidecar) inFlight() (n int) {
	for _, e := range sc.services[0].balancer.Status().Endpoints {
		n += e.InFlight
	}
	return n
}

func TestSocketCurl(t *testing.T) {
	curl, err := exec.LookPath("curl")
	if err != nil {
		t.Skip("no curl here")
	}
	sc, path, stop := serveSocket(t, func(w http.ResponseWriter, q *http.Request) {
		n, _ := io.Copy(io.Discard, q.Body)
		fmt.Fprintf(w, "%s %s %d %s", q.Method, q.Host, n, q.Header.Get("X-Forwarded-For"))
	})
	for want, args := range map[string][]string{
		"GET web 0 unknown":        {"http://web/"},
		"POST web 1000000 unknown": {"--data-binary", "@-", "http://web/"},
	} {
		cmd := exec.Command(curl, append([]string{"-sS", "--max-time", "10", "--unix-socket", path}, args...)...)
		cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir()}
		cmd.Stdin = strings.NewReader(strings.Repeat("x", 1000000))
		if out, err := cmd.CombinedOutput(); err != nil || string(out) != want {
			t.Errorf("%q (%v), want %q", out, err, want)
		}
	}
	if got := sc.services[0].describe().Listen; got != "unix:"+path {
		t.Errorf("admin shows %q", got)
	}
	if err := stop(); err != nil || !gone(path) {
		t.Errorf("stopped: %v, gone: %v", err, gone(path))
	}
}

// A client that leaves frees what it held, though nothing is read or written;
// one that is being answered when the sidecar stops gets its answer.
func TestSocketLeavesAndStops(t *testing.T) {
	arrived, release := make(chan struct{}, 2), make(chan struct{})
	sc, path, stop := serveSocket(t, func(w http.ResponseWriter, q *http.Request) {
		arrived <- struct{}{}
		select {
		case <-release:
		case <-q.Context().Done():
		}
		fmt.Fprint(w, "done")
	})
	request := func() net.Conn {
		nc, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = nc.Close() })
		_ = nc.SetDeadline(time.Now().Add(patience))
		fmt.Fprint(nc, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
		<-arrived
		return nc
	}
	_ = request().Close()
	eventually(t, "the lease of the client that left has ended", func() bool { return sc.inFlight() == 0 })

	nc := request()
	stopped := make(chan error, 1)
	go func() { stopped <- stop() }()
	eventually(t, "the socket is gone", func() bool { return gone(path) })
	if sc.inFlight() != 1 {
		t.Error("the request in flight was cut")
	}
	close(release)
	got, err := io.ReadAll(nc)
	if err != nil || !strings.HasSuffix(string(got), "done") || !strings.Contains(string(got), "Connection: close") {
		t.Errorf("%q, %v", got, err)
	}
	if err := <-stopped; err != nil {
		t.Error(err)
	}
}
