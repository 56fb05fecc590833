package e2e

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"outrigger/sidecar/admin"
	"outrigger/test/harness"
)

// startCluster starts three Consul servers and a client agent for the scenarios
// of one test, which run one after the other.
func startCluster(t *testing.T, first string, o harness.ClusterOptions) *harness.Cluster {
	t.Helper()
	o.Path, o.FirstIP = suite.consulPath, netip.MustParseAddr(first)
	ctx, cancel := context.WithTimeout(t.Context(), slack(time.Minute))
	defer cancel()
	c, err := harness.StartCluster(ctx, o)
	if errors.Is(err, harness.ErrNoCluster) {
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
	return c
}

// scenario is something that happens to a cluster, which is whole before and after.
type scenario struct {
	name string
	run  func(*testing.T, *harness.Cluster)
}

// runOn runs scenarios one after the other, up to the first that fails: it may
// leave a cluster that fails the others too, and their logs would hide its own.
func runOn(t *testing.T, c *harness.Cluster, all []scenario) {
	for _, s := range all {
		if !t.Run(s.name, func(t *testing.T) { s.run(t, c) }) {
			return
		}
	}
}

// rigSpec says what a scenario runs on.
type rigSpec struct {
	check    func(*backend) *api.AgentServiceCheck // nil: HTTP, each second
	backends int                                   // 0: 5
	inConsul string                                // more of the sidecar's consul block
	wait     string                                // of its blocking reads; "": 30s
	// noToken leaves out the management token, which the sidecar has otherwise where
	// there are ACLs and inConsul names no token.
	noToken  bool
	body     string // of its service block
	stateDir string
	posts    bool // load of POST, which nobody may send again; where no backend goes
	// ready is what the agent needs before the sidecar starts.
	ready func(r *rig)
}

// rig is a service with a sidecar in front of it and load that never retries,
// while something happens to Consul.
type rig struct {
	t       *testing.T
	cluster *harness.Cluster
	cat     *catalog
	name    string
	spec    rigSpec
	all     []*backend
	ids     []string
	s       *sidecar
	load    *load
	posts   *posts
	watch   *watch
}

// newRig starts everything and waits until it serves.
func newRig(t *testing.T, cluster *harness.Cluster, spec rigSpec) *rig {
	t.Helper()
	if spec.check == nil {
		spec.check = httpCheck
	}
	if spec.wait == "" {
		spec.wait = "30s"
	}
	if cluster.Root != "" && !spec.noToken && !strings.Contains(spec.inConsul, "token") {
		spec.inConsul += fmt.Sprintf("\ntoken = %q", cluster.Root)
	}
	if spec.backends == 0 {
		spec.backends = 5
	}
	r := &rig{t: t, cluster: cluster, cat: agentCatalog(t, cluster), name: uniqueService(t), spec: spec}
	for i := range spec.backends {
		r.all = append(r.all, startBackend(t, string(rune('a'+i))))
	}
	r.register()
	if spec.ready != nil {
		spec.ready(r)
	}
	r.s = startSidecar(t, sidecarSpec{
		consul: cluster.Agent.Addr(), services: oneService(r.name, spec.body), stateDir: spec.stateDir,
		inConsul: fmt.Sprintf("backoff_max = \"1s\"\nempty_confirm = \"2s\"\nwait = %q\n%s", spec.wait, spec.inConsul),
	})
	r.await("a first set", func(d admin.ServiceDoc) bool {
		return d.EndpointsReady == spec.backends && d.Discovery.State == "current"
	})
	r.watch = watchStatus(r)
	r.startLoad()
	return r
}

func agentCatalog(t *testing.T, cluster *harness.Cluster) *catalog {
	t.Helper()
	client, err := cluster.Agent.Client()
	if err != nil {
		t.Fatal(err)
	}
	return &catalog{t: t, client: client, addr: cluster.Agent.Addr()}
}

func httpCheck(b *backend) *api.AgentServiceCheck {
	return &api.AgentServiceCheck{
		HTTP: "http://" + b.addr() + "/health", Interval: "1s", Timeout: "5s", Status: api.HealthPassing,
	}
}

// register puts all backends into the catalog.
func (r *rig) register() {
	r.t.Helper()
	r.ids = nil
	for _, b := range r.all {
		r.ids = append(r.ids, r.add(b))
	}
}

func (r *rig) add(b *backend) (id string) {
	r.t.Helper()
	return r.cat.register(r.name, b, func(reg *registration) { reg.Check = r.spec.check(b) })
}

func (r *rig) startLoad() {
	r.load = startLoad(r.t, loadSpec{addr: r.s.addr(), clients: 6, think: 5 * time.Millisecond})
	if r.spec.posts {
		r.posts = startPosts(r.t, r.s.addr())
	}
	r.progress()
}

// progress waits until the load has passed some requests more.
func (r *rig) progress() {
	r.t.Helper()
	r.load.awaitMore(200)
	if r.posts != nil {
		r.posts.awaitMore(50)
	}
}

// finish ends the load, of which nothing may have failed, once the sidecar is
// back to what Consul says. Of the states of discovery none but these may have
// been seen, besides current; and the first must have been.
func (r *rig) finish(states ...string) {
	r.t.Helper()
	r.await("it to be current again", func(d admin.ServiceDoc) bool { return d.Discovery.State == "current" && d.Discovery.Unlisted == 0 })
	r.progress()
	r.load.stop().clean(r.t)
	if r.posts != nil {
		r.posts.stop()
	}
	saw := r.watch.stop()
	for _, s := range saw {
		if s != "current" && !slices.Contains(states, s) {
			r.t.Errorf("discovery was %v: %s is none of %v", saw, s, states)
		}
	}
	if len(states) > 0 && states[0] != "" && !slices.Contains(saw, states[0]) {
		r.t.Errorf("discovery was %v, want %s among it", saw, states[0])
	}
	r.t.Logf("discovery was %v, %d requests", saw, r.load.snapshot().ok)
	// Before the backends, which else wait 5 s for connections that nothing came over.
	r.s.endsWell(r.t)
}

// restart brings back all of the cluster that does not run.
func (r *rig) restart() {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), slack(time.Minute))
	defer cancel()
	if err := r.cluster.Restart(ctx); err != nil {
		r.t.Fatal(err)
	}
}

// leader is the server that leads.
func (r *rig) leader() *harness.Node {
	r.t.Helper()
	n, err := r.cluster.Leader(r.t.Context())
	if err != nil {
		r.t.Fatal(err)
	}
	return n
}

// await waits until the status is as it should be.
func (r *rig) await(what string, ok func(admin.ServiceDoc) bool) admin.ServiceDoc {
	r.t.Helper()
	return r.s.awaitService("web", what, ok)
}

// awaitState waits for a state of discovery, with this many endpoints, and for the
// code of a doubt unless it is "".
func (r *rig) awaitState(state, doubt string, endpoints int) admin.ServiceDoc {
	r.t.Helper()
	return r.await(fmt.Sprintf("%d endpoints, %s %s", endpoints, state, doubt), func(d admin.ServiceDoc) bool {
		return d.Discovery.State == state && (doubt == "" || d.Discovery.Doubt == doubt) && d.EndpointsTotal == endpoints
	})
}

// says waits until the sidecar's log holds a text.
func (s *sidecar) says(text string) {
	s.t.Helper()
	eventually(s.t, 10*time.Second, fmt.Sprintf("the log to say %q", text), func() error {
		if !strings.Contains(s.proc.output(s.t), text) {
			return errNotYet
		}
		return nil
	})
}

// watch notes each state that discovery goes through. What lasts shorter than a
// few of its looks may escape it.
type watch struct {
	quit chan struct{}
	once sync.Once
	done chan struct{}
	saw  []string
}

func watchStatus(r *rig) *watch {
	w := &watch{quit: make(chan struct{}), done: make(chan struct{})}
	go func() {
		defer close(w.done)
		for {
			// There is no status while the sidecar is restarted.
			if doc, err := r.s.statusDoc("?service=web"); err == nil {
				if state := doc.Services[0].Discovery.State; len(w.saw) == 0 || w.saw[len(w.saw)-1] != state {
					w.saw = append(w.saw, state)
				}
			}
			select {
			case <-w.quit:
				return
			case <-time.After(20 * time.Millisecond):
			}
		}
	}()
	r.t.Cleanup(func() { w.stop() })
	return w
}

func (w *watch) stop() []string {
	w.once.Do(func() { close(w.quit) })
	<-w.done
	return w.saw
}

// long is whether what is shortened by default runs at its full length.
func long() bool { return os.Getenv("OUTRIGGER_LONG") != "" }
