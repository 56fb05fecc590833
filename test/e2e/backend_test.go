package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"outrigger/test/harness"
)

// backend is an app's process as a test handles it.
type backend struct {
	t    *testing.T
	name string
	port int
	cpus []int
	proc *process
}

// startBackend starts an app on a port of its own, on the given CPUs alone if
// any are given.
func startBackend(t *testing.T, name string, cpus ...int) *backend {
	t.Helper()
	for try := 1; ; try++ {
		b := &backend{t: t, name: name, port: freePort(t), cpus: cpus}
		err := b.listens()
		if err == nil {
			return b
		}
		// Another process of this machine may take a port that was free.
		if try == 3 || !strings.Contains(err.Error(), "address already in use") {
			t.Fatal(err)
		}
	}
}

// startBackends starts one app for each name.
func startBackends(t *testing.T, names ...string) []*backend {
	t.Helper()
	var all []*backend
	for _, name := range names {
		all = append(all, startBackend(t, name))
	}
	return all
}

// start runs the app on its port and waits until it answers.
func (b *backend) start() {
	b.t.Helper()
	if err := b.listens(); err != nil {
		b.t.Fatal(err)
	}
}

// listens is start that returns why the app ended instead.
func (b *backend) listens() (ended error) {
	b.t.Helper()
	b.proc = start(b.t, harness.Spec{
		Name: "backend " + b.name, Path: suite.self, Args: []string{b.name, b.addr()},
		Env: append(os.Environ(), childEnv+"=backend"), CPUs: b.cpus,
	})
	eventually(b.t, 20*time.Second, "backend "+b.name+" to listen", func() error {
		_, err := b.ask("/ctl/stats")
		select {
		case <-b.proc.Done(): // whoever answered
			ended = fmt.Errorf("backend %s ended with status %d:\n%s", b.name, b.proc.Wait(), b.proc.output(b.t))
			return nil
		default:
			return err
		}
	})
	return ended
}

func (b *backend) addr() string { return loopback(b.port) }

// ask sends a request to the app itself, not through the sidecar.
func (b *backend) ask(path string) ([]byte, error) {
	client := http.Client{Timeout: slack(5 * time.Second), Transport: &http.Transport{DisableKeepAlives: true}}
	res, err := client.Get("http://" + b.addr() + path)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err == nil && res.StatusCode != http.StatusOK {
		err = fmt.Errorf("backend %s answers %s with %s: %s", b.name, path, res.Status, body)
	}
	return body, err
}

func (b *backend) control(path string) {
	b.t.Helper()
	if _, err := b.ask(path); err != nil {
		b.t.Fatal(err)
	}
}

// sleep sets how long each request takes.
func (b *backend) sleep(d time.Duration) { b.control(fmt.Sprintf("/ctl/set?sleep=%d", int64(d))) }

// release lets requests to /hold be answered.
func (b *backend) release() { b.control("/ctl/release") }

func (b *backend) stats() (s appStats) {
	b.t.Helper()
	body, err := b.ask("/ctl/stats")
	if err == nil {
		err = json.Unmarshal(body, &s)
	}
	if err != nil {
		b.t.Fatal(err)
	}
	return s
}

// received is how many requests came to the app.
func (b *backend) received() int64 { return b.stats().Received }

// awaitHeld waits until n requests are in the app.
func (b *backend) awaitHeld(n int64) {
	b.t.Helper()
	eventually(b.t, 10*time.Second, fmt.Sprintf("%d requests in backend %s", n, b.name), func() error {
		if got := b.stats().InFlight; got != n {
			return fmt.Errorf("there are %d", got)
		}
		return nil
	})
}

// kill ends the app as a crash would. Nobody listens on its port afterwards.
func (b *backend) kill() { b.proc.Kill() }

// startAgent runs `outrigger agent` for the backend, with what stands in its
// backend block and more of its agent block, and returns its process and port.
func startAgent(t *testing.T, b *backend, watch string, more ...string) (*process, int) {
	t.Helper()
	port := freePort(t)
	file := filepath.Join(t.TempDir(), "agent-"+b.name+".hcl")
	text := fmt.Sprintf("agent {\n  listen = %q\n  backend {\n%s\n}\n%s\n}\n", loopback(port), watch, strings.Join(more, "\n"))
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	p := start(t, harness.Spec{Name: "agent " + b.name, Path: suite.outrigger, Args: []string{"agent", "-config", file}})
	eventually(t, 20*time.Second, "the agent of "+b.name, func() error {
		_, err := getOnce(loopback(port), "/healthz")
		return err
	})
	return p, port
}

// refused reports whether nobody listens at addr.
func refused(addr string) error {
	c, err := net.DialTimeout("tcp", addr, slack(time.Second))
	if err != nil {
		return nil
	}
	return errors.Join(errNotYet, c.Close())
}
