//go:build unix

package harness

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"
)

// startCluster starts a cluster that the test's end stops.
func startCluster(t *testing.T, opts ClusterOptions) (*Cluster, *api.Client) {
	t.Helper()
	opts.Path = consulPath(t)
	c, err := StartCluster(t.Context(), opts)
	if errors.Is(err, ErrNoCluster) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Stop(); err != nil {
			t.Error(err)
		}
	})
	client, err := c.Agent.Client()
	if err != nil {
		t.Fatal(err)
	}
	return c, client
}

func awaitListed(t *testing.T, client *api.Client, want bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), startLimit)
	defer cancel()
	err := poll(ctx, func(ctx context.Context) error {
		found, _, err := client.Health().Service("web", "", false, (&api.QueryOptions{RequireConsistent: true}).WithContext(ctx))
		if err == nil && (len(found) > 0) != want {
			err = fmt.Errorf("%d are listed", len(found))
		}
		return err
	})
	if err != nil {
		t.Fatalf("listed to be %v: %v", want, err)
	}
}

// One cluster lives through all that its nodes can do.
func TestCluster(t *testing.T) {
	c, client := startCluster(t, ClusterOptions{ACL: true})
	for i, n := range c.Nodes() {
		if want := fmt.Sprintf("127.0.0.%d:", 11+i); !strings.HasPrefix(n.Addr(), want) {
			t.Errorf("node %d is at %s, want %s...", i, n.Addr(), want)
		}
	}
	register := func() {
		t.Helper()
		if err := client.Agent().ServiceRegister(&api.AgentServiceRegistration{Name: "web", Port: 1}); err != nil {
			t.Fatal(err)
		}
	}
	restart := func(n *Node) {
		t.Helper()
		addr := n.Addr()
		if err := n.Restart(t.Context()); err != nil {
			t.Fatal(err)
		}
		if n.Addr() != addr {
			t.Errorf("%s was at %s and now is at %s", n.Name(), addr, n.Addr())
		}
		if err := c.AwaitReady(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	register()
	awaitListed(t, client, true)

	// Denied without a token. "anonymous" and not "", which is the environment's.
	anyone, err := c.Agent.ClientWith("anonymous")
	if err != nil {
		t.Fatal(err)
	}
	if found, _, err := anyone.Health().Service("web", "", false, nil); err != nil || len(found) > 0 {
		t.Errorf("the anonymous token sees %d instances, %v; want none", len(found), err)
	}

	// A client agent that ends by SIGTERM leaves. (Not asserted here: that its services
	// leave the catalog at once. One that has something to tell, as in the seconds after
	// its start, registers them once more meanwhile, and a minute passes until the
	// leader notices.)
	if err := c.Agent.Stop(); err != nil {
		t.Error(err)
	}
	server, err := c.Servers[0].Client()
	if err != nil {
		t.Fatal(err)
	}
	members, err := server.Agent().Members(false)
	if err != nil {
		t.Fatal(err)
	}
	const left = 3 // serf.StatusLeft
	if !slices.ContainsFunc(members, func(m *api.AgentMember) bool { return m.Name == c.Agent.Name() && m.Status == left }) {
		t.Errorf("a server does not know that %s has left", c.Agent.Name())
	}
	restart(c.Agent)
	awaitListed(t, client, true)
	c.Agent.Kill()
	awaitListed(t, server, true)
	restart(c.Agent)
	awaitListed(t, client, true)

	// The leader dies: another takes over, and the catalog is still there.
	old, err := c.Leader(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	old.Kill()
	next, err := c.Leader(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if next == old {
		t.Errorf("%s leads after its death", old.Name())
	}
	awaitListed(t, client, true)
	restart(old)

	// One that has lost its services has them deregistered.
	c.Agent.Kill()
	if err := c.Agent.Wipe("services", "checks"); err != nil {
		t.Error(err)
	}
	restart(c.Agent)
	awaitListed(t, client, false)

	// Everything is lost.
	register()
	awaitListed(t, client, true)
	for _, n := range c.Nodes() {
		n.Kill()
		if err := n.Wipe(); err != nil {
			t.Error(err)
		}
	}
	if err := c.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	awaitListed(t, client, false)
}

func TestClusterFreeze(t *testing.T) {
	c, client := startCluster(t, ClusterOptions{FirstIP: netip.MustParseAddr("127.0.0.51")})
	if err := c.Agent.Freeze(); err != nil {
		t.Fatal(err)
	}
	short, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if _, err := client.Status().LeaderWithQueryOptions((&api.QueryOptions{}).WithContext(short)); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a frozen agent's answer: %v, want none", err)
	}
	if err := c.Agent.Wipe(); err == nil {
		t.Error("a running agent's data was wiped")
	}
	if err := c.Agent.Thaw(); err != nil {
		t.Fatal(err)
	}
	if err := c.AwaitReady(t.Context()); err != nil {
		t.Error(err)
	}

	dir := c.opts.Dir
	if err := c.Stop(); err != nil {
		t.Fatal(err)
	}
	for _, n := range c.Nodes() {
		select {
		case <-n.Process().Done():
		default:
			t.Errorf("%s runs after Stop", n.Name())
		}
		if conn, err := net.Dial("tcp", n.Addr()); err == nil {
			conn.Close()
			t.Errorf("something listens at %s after Stop", n.Addr())
		}
	}
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("its folder after Stop: %v", err)
	}
	if err := c.Stop(); err != nil {
		t.Errorf("second Stop: %v", err)
	}
}

func TestClusterTakesOtherPortsOnCollision(t *testing.T) {
	first := netip.MustParseAddr("127.0.0.55")
	taken, err := FreePortsOn(first, 1)
	if err != nil {
		t.Skip(err)
	}
	held, err := listenBoth(first, taken[0])
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		for _, h := range held {
			h.Close()
		}
	}()
	tries := 0
	c := &Cluster{opts: ClusterOptions{Path: consulPath(t), Dir: t.TempDir(), FirstIP: first},
		onPort: func(ip netip.Addr, n int) ([]int, error) {
			ports, err := FreePortsOn(ip, n)
			if ip == first && err == nil {
				if tries++; tries == 1 {
					ports[2] = taken[0]
				}
			}
			return ports, err
		}}
	if err := c.prepare(); err != nil {
		t.Fatal(err)
	}
	defer c.Stop()
	if err := c.start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if tries != 2 {
		t.Errorf("%d tries, want 2", tries)
	}
}

func TestClusterBadConfigTellsTheLog(t *testing.T) {
	left := func() []string {
		found, _ := filepath.Glob(filepath.Join(memoryDir, clusterPrefix+"*"))
		return found
	}
	before := left()
	_, err := StartCluster(t.Context(), ClusterOptions{Path: consulPath(t), ServerConfig: `no_such_key = 1`,
		FirstIP: netip.MustParseAddr("127.0.0.59")})
	if errors.Is(err, ErrNoCluster) {
		t.Skip(err)
	}
	if err == nil || !strings.Contains(err.Error(), "no_such_key") || !strings.Contains(err.Error(), "exit code 1") {
		t.Errorf("error %v, want the exit code and Consul's own words", err)
	}
	for _, dir := range left() {
		if !slices.Contains(before, dir) {
			t.Errorf("left behind: %s", dir)
		}
	}
}

// A killed parent leaves no agents; its folder, which it cannot remove, goes with
// the next cluster's start.
func TestClusterDiesWithItsParent(t *testing.T) {
	p, lines := child(t, "clusterParent", "TEST_CONSUL="+consulPath(t))
	first := line(t, lines)
	if strings.Contains(first, ErrNoCluster.Error()) {
		t.Skip(first)
	}
	var pids []int
	for range 4 {
		pid, err := strconv.Atoi(line(t, lines))
		if err != nil {
			t.Fatal(err)
		}
		pids = append(pids, pid)
	}
	p.Kill()
	for _, pid := range pids {
		ctx, cancel := context.WithTimeout(t.Context(), startLimit)
		defer cancel()
		if err := poll(ctx, func(context.Context) error { return gone(pid) }); err != nil {
			t.Error(err)
		}
	}
	if _, err := os.Stat(first); err != nil {
		t.Fatalf("the killed one's folder: %v; this test is about one that is left", err)
	}
	d, err := newClusterDir()
	if err != nil {
		t.Fatal(err)
	}
	again, err := newClusterDir()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(d.path); err != nil {
		t.Errorf("a folder in use was swept: %v", err)
	}
	if err := errors.Join(d.remove(), again.remove()); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(first); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the killed one's folder: %v, want it swept", err)
	}
}

// gone is an error while a process runs.
func gone(pid int) error {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = fmt.Errorf("process %d is there: %.60s", pid, stat)
	}
	return err
}
