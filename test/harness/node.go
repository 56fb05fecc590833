package harness

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/hashicorp/consul/api"
)

// Node is one agent of a Cluster, with an address of its own, which it keeps.
//
// Addr, IP, Client and Leader may be called by any goroutine; what starts and
// ends it by one at a time.
type Node struct {
	name  string // in the catalog too
	ip    netip.Addr
	ports nodePorts
	dir   string // of log, configuration and data
	path  string // of the program
	token string
	args  []string // without the ports
	proc  *Process // nil before the first start
}

type nodePorts struct{ http, server, serf int }

// leaveGrace is how long a client agent may take to leave, which is to tell the
// others and wait a little: usually it takes 3 s.
const leaveGrace = 20 * time.Second

// Name is the node's name in the catalog.
func (n *Node) Name() string { return n.name }

// Addr is the HTTP API's "ip:port".
func (n *Node) Addr() string { return net.JoinHostPort(n.ip.String(), strconv.Itoa(n.ports.http)) }

// rpcAddr is the address by which servers name their leader.
func (n *Node) rpcAddr() string {
	return net.JoinHostPort(n.ip.String(), strconv.Itoa(n.ports.server))
}

func (n *Node) serfAddr() string {
	return net.JoinHostPort(n.ip.String(), strconv.Itoa(n.ports.serf))
}

// Client is a new API client with connections of its own, and the management
// token if there are ACLs.
func (n *Node) Client() (*api.Client, error) { return n.ClientWith(n.token) }

// ClientWith is Client with another token. "" stands for CONSUL_HTTP_TOKEN, as
// everywhere in Consul's API.
func (n *Node) ClientWith(token string) (*api.Client, error) {
	return api.NewClient(&api.Config{Address: n.Addr(), Scheme: "http", Token: token})
}

// Process is the running agent, to watch. Restart makes a new one.
func (n *Node) Process() *Process { return n.proc }

// LogPath is the agent's log file; restarts append to it.
func (n *Node) LogPath() string { return filepath.Join(n.dir, "consul.log") }

func (n *Node) dataDir() string { return filepath.Join(n.dir, "data") }

// Kill ends the agent with SIGKILL, as a crash would. Restart may follow.
func (n *Node) Kill() { n.proc.Kill() }

// Stop ends the agent with SIGTERM. By Consul's defaults a server just ends, and
// a client agent first leaves the cluster: its services leave the catalog (up to a
// minute later, by Consul's reconciliation, if it has something to sync just then).
func (n *Node) Stop() error { return n.proc.Stop(leaveGrace) }

// Wipe removes from the data folder of an agent that does not run what is named,
// e.g. "services" and "checks"; all of it if nothing is. It then has another
// node ID.
func (n *Node) Wipe(sub ...string) error {
	if n.running() {
		return fmt.Errorf("wipe %s: it runs", n.name)
	}
	if len(sub) == 0 {
		return os.RemoveAll(n.dataDir())
	}
	var errs []error
	for _, s := range sub {
		errs = append(errs, os.RemoveAll(filepath.Join(n.dataDir(), s)))
	}
	return errors.Join(errs...)
}

// Restart starts the agent again with its address and what is left of its data,
// ending it with SIGKILL first if it runs, and waits until its API answers. There
// may be no leader then: see (*Cluster).AwaitReady.
func (n *Node) Restart(ctx context.Context) error {
	if n.running() {
		n.Kill()
	}
	if err := n.start(ctx); err != nil {
		return fmt.Errorf("restart consul %s: %w", n.name, err)
	}
	return nil
}

func (n *Node) running() bool {
	if n.proc == nil {
		return false
	}
	select {
	case <-n.proc.Done():
		return false
	default:
		return true
	}
}

// start runs the agent until its API answers. If a port is taken, the error is
// errPortTaken.
func (n *Node) start(ctx context.Context) error {
	log, err := os.OpenFile(n.LogPath(), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer log.Close() // the agent has its own copy
	before, err := log.Stat()
	if err != nil {
		return err
	}
	n.proc, err = StartProcess(Spec{
		Name: "consul " + n.name, Path: n.path, Args: n.allArgs(), Dir: n.dir, Stdout: log, Stderr: log,
	})
	if err != nil {
		return err
	}
	err = n.awaitAPI(ctx)
	if err == nil {
		return nil
	}
	n.proc.Kill() // it has ended already, or it hangs
	return withLog(err, n.LogPath(), before.Size())
}

func (n *Node) allArgs() []string {
	return append([]string{
		"agent", "-node", n.name, "-bind", n.ip.String(), "-client", n.ip.String(), "-data-dir", n.dataDir(), "-log-level", "info",
		"-http-port", strconv.Itoa(n.ports.http), "-server-port", strconv.Itoa(n.ports.server),
		"-serf-lan-port", strconv.Itoa(n.ports.serf), "-serf-wan-port", "-1",
		"-https-port", "-1", "-grpc-port", "-1", "-grpc-tls-port", "-1", "-dns-port", "-1",
	}, n.args...)
}

// awaitAPI waits until the API answers anything at all.
func (n *Node) awaitAPI(ctx context.Context) error {
	ctx, cancel := starting(ctx, n.proc, "its API answered")
	defer cancel()
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	return poll(ctx, func(ctx context.Context) error {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+n.Addr()+"/v1/status/leader", nil)
		if err != nil {
			return err
		}
		res, err := client.Do(req)
		if err != nil {
			return err
		}
		return res.Body.Close()
	})
}

// poll calls check until it returns nil or ctx ends; the error then is ctx's
// cause and the last of check's.
func poll(ctx context.Context, check func(context.Context) error) error {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	last := errors.New("no answer")
	for {
		err := check(ctx)
		if err == nil {
			return nil
		}
		if ctx.Err() == nil {
			last = err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w (last seen of it: %v)", context.Cause(ctx), last)
		case <-tick.C:
		}
	}
}
