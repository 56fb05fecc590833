package harness

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/hashicorp/consul/api"
)

// Options says how to run a Consul agent.
type Options struct {
	// Path is the consul binary's absolute path, see FindOrBuildConsul.
	Path string

	// Dir takes the log and the configuration. "": a temporary folder, which
	// Stop removes.
	Dir string

	// HTTPPort of the API on 127.0.0.1. 0: a free one.
	HTTPPort int

	// Config is more agent configuration, in HCL. It cannot move the ports.
	Config string

	// Token is the ACL token that Client and the wait for readiness use; for a
	// Config that denies by default.
	Token string
}

// Consul is a `consul agent -dev` of its own on loopback: one server, which
// keeps all its state in memory and ends with this process (see Process).
//
// Addr and Client may be called by any goroutine; the others by one at a time.
type Consul struct {
	opts   Options
	tmpDir bool
	pick   func(n int) ([]int, error) // FreePorts, but for tests
	proc   *Process
}

const (
	// startLimit bounds one start, which takes a second or two on an idle machine.
	startLimit = time.Minute
	// startTries bounds the starts that fail because another took a port first.
	startTries = 3
	// consulGrace is how long Consul may take to end; usually it takes 0.2 s.
	consulGrace = 5 * time.Second
)

var errPortTaken = errors.New("address already in use")

// StartConsul starts an agent and waits until it has a leader and is itself in
// the catalog. Errors hold the end of its log. The caller ends it with Stop.
func StartConsul(ctx context.Context, opts Options) (*Consul, error) {
	c := &Consul{opts: opts, pick: FreePorts}
	if err := c.prepare(); err != nil {
		return nil, fmt.Errorf("start consul: %w", err)
	}
	if err := c.start(ctx); err != nil {
		return nil, errors.Join(err, c.Stop())
	}
	return c, nil
}

func (c *Consul) prepare() error {
	var err error
	if c.opts.Dir == "" {
		c.opts.Dir, err = os.MkdirTemp("", "outrigger-consul-")
		c.tmpDir = true
	} else {
		// Absolute: the agent runs in it and gets its path.
		if c.opts.Dir, err = filepath.Abs(c.opts.Dir); err == nil {
			err = os.MkdirAll(c.opts.Dir, 0o700)
		}
	}
	if err != nil {
		return err
	}
	// In a file and not in an argument: it may hold tokens.
	return os.WriteFile(c.configPath(), []byte(c.opts.Config), 0o600)
}

// start runs the agent until it is ready, with other ports if one was taken.
// The HTTP port stays once an agent was ready on it, or if Options fixed it.
func (c *Consul) start(ctx context.Context) error {
	fixed := c.opts.HTTPPort
	var err error
	for range startTries {
		var ports []int
		if ports, err = c.pick(4); err != nil {
			break
		}
		if fixed != 0 {
			ports[0] = fixed
		}
		if fixed == 0 {
			c.opts.HTTPPort = ports[0]
		}
		if err = c.startOnce(ctx, ports); !errors.Is(err, errPortTaken) {
			break
		}
	}
	if err != nil {
		return fmt.Errorf("start consul: %w", err)
	}
	return nil
}

func (c *Consul) startOnce(ctx context.Context, ports []int) error {
	log, err := os.OpenFile(c.LogPath(), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer log.Close() // the agent has its own copy
	before, err := log.Stat()
	if err != nil {
		return err
	}
	// A name of its own: should another agent have taken our port, its catalog
	// must not pass for ours.
	node := fmt.Sprintf("harness-%08x", rand.Uint32())
	c.proc, err = StartProcess(Spec{
		Name: "consul", Path: c.opts.Path, Args: c.args(node, ports), Dir: c.opts.Dir, Stdout: log, Stderr: log,
	})
	if err != nil {
		return err
	}
	err = c.awaitReady(ctx, node)
	if err == nil {
		return nil
	}
	c.proc.Kill() // it has ended already, or it hangs
	return withLog(err, c.LogPath(), before.Size())
}

func (c *Consul) args(node string, ports []int) []string {
	port := func(i int) string { return strconv.Itoa(ports[i]) }
	return []string{
		"agent", "-dev", "-node", node, "-bind", "127.0.0.1", "-client", "127.0.0.1", "-log-level", "info",
		"-http-port", port(0), "-server-port", port(1), "-serf-lan-port", port(2), "-serf-wan-port", port(3),
		"-https-port", "-1", "-grpc-port", "-1", "-grpc-tls-port", "-1", "-dns-port", "-1",
		"-config-file", c.configPath(),
		"-hcl", "disable_update_check = true", // else it calls its makers
	}
}

func (c *Consul) awaitReady(ctx context.Context, node string) error {
	ctx, cancel := starting(ctx, c.proc, "it was ready")
	defer cancel()
	client, err := c.Client()
	if err != nil {
		return err
	}
	return poll(ctx, func(ctx context.Context) error { return ready(ctx, client, node) })
}

// ready tells, by a nil error, that there is a leader and the node is in the catalog.
func ready(ctx context.Context, client *api.Client, node string) error {
	q := (&api.QueryOptions{}).WithContext(ctx)
	leader, err := client.Status().LeaderWithQueryOptions(q)
	if err != nil {
		return err
	}
	if leader == "" {
		return errors.New("no leader")
	}
	found, _, err := client.Catalog().Node(node, q)
	if err == nil && found == nil {
		err = errors.New("the node is not in the catalog")
	}
	return err
}

// Addr is the HTTP API's "127.0.0.1:port". It stays the same over Restart.
func (c *Consul) Addr() string { return "127.0.0.1:" + strconv.Itoa(c.opts.HTTPPort) }

// Client is a new API client with connections of its own.
func (c *Consul) Client() (*api.Client, error) {
	// What is set here is not taken from CONSUL_HTTP_* in the environment. A token
	// from there is harmless: without ACLs the agent ignores it.
	return api.NewClient(&api.Config{Address: c.Addr(), Scheme: "http", Token: c.opts.Token})
}

// Process is the running agent, to freeze or watch. Restart makes a new one.
func (c *Consul) Process() *Process { return c.proc }

// LogPath is the agent's log file; restarts append to it.
func (c *Consul) LogPath() string { return filepath.Join(c.opts.Dir, "consul.log") }

func (c *Consul) configPath() string { return filepath.Join(c.opts.Dir, "extra.hcl") }

// Kill ends the agent with SIGKILL, as a crash would. Restart may follow.
func (c *Consul) Kill() { c.proc.Kill() }

// Restart starts the agent again on the same HTTP port, ending it first if it
// runs, and waits as StartConsul does. The new agent knows nothing of the old
// one's catalog: what was registered must be registered again. Indexes begin anew.
func (c *Consul) Restart(ctx context.Context) error {
	if err := c.end(); err != nil {
		return fmt.Errorf("restart consul: %w", err)
	}
	return c.start(ctx)
}

// Stop ends the agent and removes the temporary folder. A second call does
// nothing. The error tells that the agent had to be killed or that files are left.
func (c *Consul) Stop() error {
	err := c.end()
	if c.tmpDir {
		err = errors.Join(err, os.RemoveAll(c.opts.Dir))
	}
	return err
}

func (c *Consul) end() error {
	if c.proc == nil {
		return nil
	}
	return c.proc.Stop(consulGrace)
}
