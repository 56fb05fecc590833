package harness

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/consul/api"
)

// ClusterOptions says how to run a cluster of Consul agents.
type ClusterOptions struct {
	// Path is the consul binary's absolute path, see FindOrBuildConsul.
	Path string

	// Dir takes logs, configurations and data. "": a temporary folder, in memory
	// if the machine has /dev/shm (three servers that sync each write are slow on
	// a busy disk), which Stop removes.
	Dir string

	// ACL turns ACLs on, with a default of deny and lifetimes of a second in the
	// caches in place of 30, which is how late a revocation shows.
	ACL bool

	// ServerConfig and AgentConfig are more configuration of the servers and of the
	// client agent, in HCL. They cannot move ports.
	ServerConfig, AgentConfig string

	// FirstIP is the first server's address; the others and then the client agent
	// follow it. Zero: 127.0.0.11. Clusters that run at the same time need not
	// differ in it, but their logs are easier to read if they do.
	FirstIP netip.Addr
}

// Cluster is three Consul servers and one client agent, each a process with its
// own address of 127.0.0.0/8, which end with this process (see Process).
//
// The methods but Leader are to be called by one goroutine at a time.
type Cluster struct {
	Servers [3]*Node
	Agent   *Node
	Root    string // the management token; "" without ACLs

	opts   ClusterOptions
	tmp    *clusterDir // nil: the folder is the caller's
	onPort func(ip netip.Addr, n int) ([]int, error)
}

// ErrNoCluster is why a machine cannot run a Cluster: it has only one loopback
// address.
var ErrNoCluster = errors.New("a Consul cluster needs several loopback addresses, which only Linux has without more ado")

// StartCluster starts the agents and waits until they are ready, see
// AwaitReady. Errors hold the ends of the logs. The caller ends it with Stop.
func StartCluster(ctx context.Context, opts ClusterOptions) (*Cluster, error) {
	if runtime.GOOS != "linux" {
		return nil, ErrNoCluster
	}
	c := &Cluster{opts: opts, onPort: FreePortsOn}
	if err := c.prepare(); err != nil {
		return nil, fmt.Errorf("start a Consul cluster: %w", errors.Join(err, c.Stop()))
	}
	if err := c.start(ctx); err != nil {
		return nil, fmt.Errorf("start a Consul cluster: %w", errors.Join(err, c.Stop()))
	}
	return c, nil
}

func (c *Cluster) prepare() (err error) {
	if !c.opts.FirstIP.IsValid() {
		c.opts.FirstIP = netip.AddrFrom4([4]byte{127, 0, 0, 11})
	}
	if c.opts.Dir == "" {
		if c.tmp, err = newClusterDir(); err != nil {
			return err
		}
		c.opts.Dir = c.tmp.path
	} else if c.opts.Dir, err = filepath.Abs(c.opts.Dir); err != nil {
		return err
	}
	if c.opts.ACL {
		c.Root = uuid()
	}
	// Names of their own: should others have taken our ports, their catalog must
	// not pass for ours.
	mark := fmt.Sprintf("%08x", rand.Uint32())
	ip := c.opts.FirstIP
	for i, name := range [...]string{"s1", "s2", "s3", "agent"} {
		n := &Node{name: name + "-" + mark, ip: ip, dir: filepath.Join(c.opts.Dir, name), path: c.opts.Path, token: c.Root}
		ip = ip.Next()
		if err := os.MkdirAll(n.dir, 0o700); err != nil {
			return err
		}
		if i < len(c.Servers) {
			c.Servers[i] = n
		} else {
			c.Agent = n
		}
		if err := c.configure(n); err != nil {
			return err
		}
	}
	return nil
}

// configure writes a node's configuration, in files and not in arguments: they
// hold tokens.
func (c *Cluster) configure(n *Node) error {
	base := "disable_update_check = true\n" + // else it calls its makers
		"skip_leave_on_interrupt = true\n" +
		"performance { raft_multiplier = 1  leave_drain_time = \"0s\" }\n" // elections as in production
	more := c.opts.AgentConfig
	if n == c.Agent {
		// Else a change of a check's output alone is sent on after minutes.
		base += "check_update_interval = \"0s\"\n"
	} else {
		base += "server = true\nbootstrap_expect = 3\nautopilot { cleanup_dead_servers = false }\n"
		more = c.opts.ServerConfig
	}
	if c.opts.ACL {
		base += "acl {\n enabled = true\n default_policy = \"deny\"\n" +
			" token_ttl = \"1s\"\n policy_ttl = \"1s\"\n role_ttl = \"1s\"\n tokens {\n"
		if n != c.Agent {
			base += fmt.Sprintf("  initial_management = %q\n", c.Root)
		}
		base += fmt.Sprintf("  agent = %q\n }\n}\n", c.Root)
	}
	for name, text := range map[string]string{"base.hcl": base, "more.hcl": more} {
		if err := os.WriteFile(filepath.Join(n.dir, name), []byte(text), 0o600); err != nil {
			return err
		}
	}
	return nil
}

// start runs all agents until the cluster is ready, with other ports if one was
// taken.
func (c *Cluster) start(ctx context.Context) error {
	var err error
	for range startTries {
		if err = c.choosePorts(); err != nil {
			return err
		}
		if err = c.startNodes(ctx, c.Nodes()); err == nil {
			return c.AwaitReady(ctx)
		}
		c.kill()
		if !errors.Is(err, errPortTaken) {
			return err
		}
		for _, n := range c.Nodes() { // they remember the others' old ports
			if err := n.Wipe(); err != nil {
				return err
			}
		}
	}
	return err
}

func (c *Cluster) choosePorts() error {
	join := []string{}
	for _, n := range c.Nodes() {
		ports, err := c.onPort(n.ip, 3)
		if err != nil {
			return err
		}
		n.ports = nodePorts{ports[0], ports[1], ports[2]}
		if n != c.Agent {
			join = append(join, "-retry-join", n.serfAddr())
		}
	}
	for _, n := range c.Nodes() {
		n.args = slices.Concat([]string{"-config-file", filepath.Join(n.dir, "base.hcl"),
			"-config-file", filepath.Join(n.dir, "more.hcl"), "-retry-interval", "1s"}, join)
	}
	return nil
}

// startNodes starts agents at the same time and joins their errors.
func (c *Cluster) startNodes(ctx context.Context, nodes []*Node) error {
	errs := make([]error, len(nodes))
	var wg sync.WaitGroup
	for i, n := range nodes {
		wg.Go(func() {
			if err := n.start(ctx); err != nil {
				errs[i] = fmt.Errorf("%s: %w", n.name, err)
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// Nodes are the servers and then the client agent.
func (c *Cluster) Nodes() []*Node {
	return []*Node{c.Servers[0], c.Servers[1], c.Servers[2], c.Agent}
}

// AwaitReady waits until every server knows three servers and a leader, and a
// consistent read by way of the client agent finds the agent's node: so it is
// after StartCluster, and again when all that was ended has been restarted.
func (c *Cluster) AwaitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, startLimit, fmt.Errorf("the cluster was not ready within %v", startLimit))
	defer cancel()
	err := poll(ctx, c.ready)
	if err == nil {
		return nil
	}
	for _, n := range c.Nodes() {
		said, readErr := os.ReadFile(n.LogPath())
		if readErr != nil {
			said = []byte(readErr.Error())
		}
		err = fmt.Errorf("%w\nthe log of %s ends with\n%s", err, n.name, tail(said))
	}
	return err
}

func (c *Cluster) ready(ctx context.Context) error {
	for _, n := range c.Servers {
		client, err := n.Client()
		if err != nil {
			return err
		}
		q := (&api.QueryOptions{}).WithContext(ctx)
		peers, err := client.Status().PeersWithQueryOptions(q)
		if err != nil {
			return err
		}
		leader, err := client.Status().LeaderWithQueryOptions(q)
		if err != nil {
			return err
		}
		if len(peers) != len(c.Servers) || leader == "" {
			return fmt.Errorf("%s knows the servers %v and the leader %q", n.name, peers, leader)
		}
	}
	client, err := c.Agent.Client()
	if err != nil {
		return err
	}
	found, _, err := client.Catalog().Node(c.Agent.name, (&api.QueryOptions{RequireConsistent: true}).WithContext(ctx))
	if err == nil && found == nil {
		err = fmt.Errorf("%s is not in the catalog", c.Agent.name)
	}
	return err
}

// Leader is the server that a running one takes for the leader.
func (c *Cluster) Leader(ctx context.Context) (*Node, error) {
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	var leader *Node
	err := poll(ctx, func(ctx context.Context) error {
		errs := []error{}
		for _, n := range c.Servers {
			found, err := c.leaderBy(ctx, n)
			if err == nil {
				leader = found
				return nil
			}
			errs = append(errs, fmt.Errorf("%s: %w", n.name, err))
		}
		return errors.Join(errs...)
	})
	if err != nil {
		return nil, fmt.Errorf("find the leader: %w", err)
	}
	return leader, nil
}

// leaderBy asks one server. Its word counts for a leader that runs only.
func (c *Cluster) leaderBy(ctx context.Context, asked *Node) (*Node, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Second) // a frozen one does not answer
	defer cancel()
	client, err := asked.Client()
	if err != nil {
		return nil, err
	}
	said, err := client.Status().LeaderWithQueryOptions((&api.QueryOptions{}).WithContext(ctx))
	if err != nil {
		return nil, err
	}
	for _, n := range c.Servers {
		if n.rpcAddr() == strings.TrimSpace(said) && n.running() {
			return n, nil
		}
	}
	return nil, fmt.Errorf("it says %q", said)
}

// Restart starts those of the nodes that do not run, all at once, and waits for
// AwaitReady.
func (c *Cluster) Restart(ctx context.Context) error {
	down := slices.DeleteFunc(c.Nodes(), (*Node).running)
	if err := c.startNodes(ctx, down); err != nil {
		return fmt.Errorf("restart the Consul cluster: %w", err)
	}
	return c.AwaitReady(ctx)
}

// Stop ends all agents, with SIGKILL, for nothing of them is kept, and removes
// the temporary folder. A second call does nothing.
func (c *Cluster) Stop() error {
	c.kill()
	if c.tmp == nil {
		return nil
	}
	return c.tmp.remove()
}

func (c *Cluster) kill() {
	var wg sync.WaitGroup
	for _, n := range c.Nodes() {
		if n != nil && n.proc != nil {
			wg.Go(n.Kill)
		}
	}
	wg.Wait()
}

// uuid is a random token in the form that Consul wants.
func uuid() string {
	a, b := rand.Uint64(), rand.Uint64()
	return fmt.Sprintf("%08x-%04x-%04x-%04x-%012x", uint32(a>>32), uint16(a>>16), uint16(a), uint16(b>>48), b&(1<<48-1))
}
