package harness

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"os"
	"strings"
	"testing"

	"github.com/hashicorp/consul/api"
)

func consulPath(t *testing.T) string {
	t.Helper()
	path, err := FindOrBuildConsul(t.Context(), SayStderr)
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// startConsul starts an agent that the test's end stops.
func startConsul(t *testing.T, opts Options) (*Consul, *api.Client) {
	t.Helper()
	opts.Path = consulPath(t)
	c, err := StartConsul(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Stop(); err != nil {
			t.Error(err)
		}
	})
	client, err := c.Client()
	if err != nil {
		t.Fatal(err)
	}
	return c, client
}

func registered(t *testing.T, client *api.Client) bool {
	t.Helper()
	found, _, err := client.Health().Service("web", "", false, nil)
	if err != nil {
		t.Fatal(err)
	}
	return len(found) > 0
}

func TestConsulKillAndRestart(t *testing.T) {
	c, client := startConsul(t, Options{})
	if err := client.Agent().ServiceRegister(&api.AgentServiceRegistration{Name: "web", Port: 1}); err != nil {
		t.Fatal(err)
	}
	if !registered(t, client) {
		t.Error("registered at an agent that was ready, but not in the catalog")
	}

	addr := c.Addr()
	c.Kill()
	if _, err := client.Status().Leader(); err == nil {
		t.Error("the API answers after Kill")
	}
	if err := c.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	if c.Addr() != addr {
		t.Errorf("restarted on %s, want %s", c.Addr(), addr)
	}
	if registered(t, client) {
		t.Error("the restarted agent remembers the old catalog")
	}
	first := c.Process().PID()
	if err := c.Restart(t.Context()); err != nil { // of a running one
		t.Fatal(err)
	}
	if c.Process().PID() == first || registered(t, client) {
		t.Error("Restart left the running agent in place")
	}
}

func TestConsulStopLeavesNothing(t *testing.T) {
	c, _ := startConsul(t, Options{})
	if err := c.Stop(); err != nil {
		t.Fatal(err)
	}
	select {
	case <-c.Process().Done():
	default:
		t.Error("the process runs after Stop")
	}
	if conn, err := net.Dial("tcp", c.Addr()); err == nil {
		conn.Close()
		t.Error("something listens on its port after Stop")
	}
	if _, err := os.Stat(c.opts.Dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("its temporary folder after Stop: %v", err)
	}
	if err := c.Stop(); err != nil {
		t.Errorf("second Stop: %v", err)
	}
}

func TestConsulBadConfigTellsTheLog(t *testing.T) {
	tmp := t.TempDir()
	path := consulPath(t)
	t.Setenv("TMPDIR", tmp)
	_, err := StartConsul(t.Context(), Options{Path: path, Config: `no_such_key = 1`})
	if err == nil || !strings.Contains(err.Error(), "no_such_key") || !strings.Contains(err.Error(), "exit code 1") {
		t.Errorf("error %v, want the exit code and Consul's own words", err)
	}
	if left, _ := os.ReadDir(tmp); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestConsulTakesOtherPortsOnCollision(t *testing.T) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	taken := l.Addr().(*net.TCPAddr).Port
	for i, name := range []string{"http", "server", "serf_lan", "serf_wan"} {
		t.Run(name, func(t *testing.T) {
			tries := 0
			c := &Consul{opts: Options{Path: consulPath(t), Dir: t.TempDir()}, pick: func(n int) ([]int, error) {
				ports, err := FreePorts(n)
				if tries++; tries == 1 && err == nil {
					ports[i] = taken
				}
				return ports, err
			}}
			if err := c.prepare(); err != nil {
				t.Fatal(err)
			}
			if err := c.start(t.Context()); err != nil {
				t.Fatal(err)
			}
			defer c.Stop()
			if tries != 2 {
				t.Errorf("%d tries, want 2", tries)
			}
		})
	}
}

func TestConsulFixedPortTaken(t *testing.T) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, err = StartConsul(t.Context(), Options{Path: consulPath(t), HTTPPort: l.Addr().(*net.TCPAddr).Port})
	if !errors.Is(err, errPortTaken) || !strings.Contains(err.Error(), l.Addr().String()) {
		t.Errorf("error %v, want that %s is in use", err, l.Addr())
	}
}

func TestConsulConfigAndToken(t *testing.T) {
	const token = "11111111-2222-3333-4444-555555555555"
	_, client := startConsul(t, Options{Token: token, Config: `
		acl {
			enabled = true
			default_policy = "deny"
			tokens { initial_management = "` + token + `", agent = "` + token + `" }
		}`})
	if err := client.Agent().ServiceRegister(&api.AgentServiceRegistration{Name: "web", Port: 1}); err != nil {
		t.Fatal(err)
	}
	if !registered(t, client) {
		t.Error("not registered")
	}
}

func TestConsulStartEndsWithContext(t *testing.T) {
	c := &Consul{opts: Options{Path: consulPath(t), Dir: t.TempDir()}, pick: FreePorts}
	if err := c.prepare(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := c.start(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want context.Canceled", err)
	}
	select {
	case <-c.Process().Done():
	default:
		t.Error("the agent runs although its start was called off")
	}
}
