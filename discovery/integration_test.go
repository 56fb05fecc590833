package discovery_test

import (
	"context"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"
	"github.com/hashicorp/go-hclog"

	"outrigger/discovery"
	"outrigger/test/harness"
)

// patience bounds each wait for Consul; it is not a measurement.
const patience = time.Minute

func startConsul(t *testing.T, opts harness.Options) (*harness.Consul, *api.Client) {
	t.Helper()
	if testing.Short() {
		t.Skip("starts a real Consul")
	}
	for _, kv := range os.Environ() {
		if k, _, _ := strings.Cut(kv, "="); strings.HasPrefix(k, "CONSUL_") {
			t.Setenv(k, "")
		}
	}
	path, err := harness.FindOrBuildConsul(t.Context(), harness.SayStderr)
	if err != nil {
		t.Fatal(err)
	}
	opts.Path = path
	c, err := harness.StartConsul(t.Context(), opts)
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

// watched is a source with the newest of its sets, in short: "ID health weight".
type watched struct {
	t    *testing.T
	src  *discovery.Consul
	sets chan []discovery.Instance
	last []discovery.Instance
}

// dead is a probe that nobody answers: most tests register what does not run.
func dead(context.Context, discovery.Instance) error { return syscall.ECONNREFUSED }

func watch(t *testing.T, c *harness.Consul, q discovery.Query, change ...func(*discovery.Config)) *watched {
	t.Helper()
	return watchProbing(t, c, q, dead, change...)
}

func watchProbing(t *testing.T, c *harness.Consul, q discovery.Query, probe discovery.Prober, change ...func(*discovery.Config)) *watched {
	t.Helper()
	cfg := discovery.DefaultConfig()
	cfg.Address = c.Addr()
	for _, f := range change {
		f(&cfg)
	}
	client, err := discovery.NewClient(cfg)
	if err != nil {
		t.Fatal(err)
	}
	w := &watched{t: t, sets: make(chan []discovery.Instance, 1000)}
	w.src = discovery.NewConsul(client, q, cfg, discovery.Env{
		Logger: hclog.New(&hclog.LoggerOptions{Output: testWriter{t}, Level: hclog.Debug}),
		Probe:  probe,
	})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- w.src.Watch(ctx, func(set []discovery.Instance) { w.sets <- set }) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != context.Canceled {
			t.Errorf("Watch returned %v", err)
		}
	})
	return w
}

type testWriter struct{ t *testing.T }

func (w testWriter) Write(p []byte) (int, error) {
	w.t.Logf("%s", strings.TrimSpace(string(p)))
	return len(p), nil
}

func brief(set []discovery.Instance) string {
	var out []string
	for _, i := range set {
		id := i.ID[strings.Index(i.ID, "/")+1:]
		out = append(out, fmt.Sprintf("%s %s %d", id, i.Health, i.Weight))
	}
	return strings.Join(out, ", ")
}

// until takes sets until one is as wanted; no set on the way may be empty.
func (w *watched) until(want string) {
	w.t.Helper()
	deadline := time.After(patience)
	for {
		select {
		case w.last = <-w.sets:
			if brief(w.last) == want {
				return
			}
			if len(w.last) == 0 {
				w.t.Fatalf("empty set on the way to %q", want)
			}
		case <-deadline:
			w.t.Fatalf("want %q, have %q; status %+v", want, brief(w.last), w.src.Status())
		}
	}
}

func (w *watched) untilStatus(what string, ok func(discovery.Status) bool) {
	w.t.Helper()
	untilStatus(w.t, w.src, what, ok)
}

// untilStatus waits until a source's status is as it should be, which may be a moment
// after a set was handed on: it is counted once it is in use.
func untilStatus(t *testing.T, src discovery.Source, what string, ok func(discovery.Status) bool) discovery.Status {
	t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		s := src.Status()
		if ok(s) {
			return s
		}
		if time.Now().After(deadline) {
			t.Fatalf("never %s: %+v", what, s)
		}
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func register(t *testing.T, c *api.Client, id string, weight int, tags ...string) {
	t.Helper()
	must(t, c.Agent().ServiceRegister(&api.AgentServiceRegistration{
		ID: id, Name: "web", Address: "127.0.0.1", Port: 9000 + weight, Tags: tags,
		Meta:    map[string]string{"colour": "c-" + id},
		Weights: &api.AgentWeights{Passing: weight, Warning: 2},
		Check:   &api.AgentServiceCheck{CheckID: "check-" + id, TTL: "1h", Status: api.HealthPassing},
	}))
}

func TestConsulFollowsCatalog(t *testing.T) {
	consul, c := startConsul(t, harness.Options{})
	register(t, c, "a", 5, "v1", "eu")
	register(t, c, "b", 6, "EU", "v1", "x") // tags match in any case and order
	register(t, c, "other", 7, "v1")
	w := watch(t, consul, discovery.Query{Service: "web", Tags: []string{"v1", "eu"}},
		func(c *discovery.Config) { c.EmptyConfirm = time.Second })
	passing := watch(t, consul, discovery.Query{Service: "web", OnlyPassing: true, Filter: `Service.Meta.colour != "c-other"`})
	w.until("a passing 5, b passing 6")
	passing.until("a passing 5, b passing 6")
	if i := w.last[0]; i.HostPort() != "127.0.0.1:9005" || i.Meta["colour"] != "c-a" || i.Datacenter != "dc1" ||
		i.ID != i.Node+"/a" || !slices.Equal(i.Tags, []string{"eu", "v1"}) {
		t.Errorf("got %+v", i)
	}

	must(t, c.Agent().UpdateTTL("check-a", "hm", api.HealthWarning))
	w.until("a warning 2, b passing 6")
	passing.until("b passing 6")
	must(t, c.Agent().UpdateTTL("check-a", "down", api.HealthCritical))
	w.until("a critical 5, b passing 6")
	must(t, c.Agent().UpdateTTL("check-a", "up", api.HealthPassing))
	w.until("a passing 5, b passing 6")
	passing.until("a passing 5, b passing 6")
	must(t, c.Agent().EnableServiceMaintenance("b", "by hand"))
	w.until("a passing 5, b maintenance 0")
	must(t, c.Agent().DisableServiceMaintenance("b"))
	register(t, c, "a", 9, "v1", "eu")
	w.until("a passing 9, b passing 6")

	_, err := c.Catalog().Register(&api.CatalogRegistration{
		Node: "elsewhere", Address: "node.example", SkipNodeUpdate: false,
		Service: &api.AgentService{ID: "a", Service: "web", Port: 80, Tags: []string{"v1", "eu"}},
	}, nil)
	must(t, err)
	w.until("a passing 1, a passing 9, b passing 6")
	if i := w.last[0]; i.ID != "elsewhere/a" || i.HostPort() != "node.example:80" {
		t.Errorf("got %+v", i)
	}
	_, err = c.Catalog().Deregister(&api.CatalogDeregistration{Node: "elsewhere"}, nil)
	must(t, err)
	must(t, c.Agent().ServiceDeregister("a"))
	w.until("b passing 6")
	must(t, c.Agent().ServiceDeregister("b"))
	w.until("") // after the confirming reads
	if s := w.src.Status(); s.ErrorsTotal != 0 || s.HeldTotal < 2 {
		t.Errorf("status %+v", s)
	}
	register(t, c, "a", 5, "v1", "eu")
	w.until("a passing 5")
}

func TestConsulRestartLosesNothing(t *testing.T) {
	consul, c := startConsul(t, harness.Options{})
	register(t, c, "a", 5)
	register(t, c, "b", 6)
	for i := range 20 { // so that the restarted agent's index is lower
		_, err := c.KV().Put(&api.KVPair{Key: fmt.Sprint("k", i)}, nil)
		must(t, err)
	}
	must(t, c.Agent().UpdateTTL("check-b", "hm", api.HealthWarning))
	w := watch(t, consul, discovery.Query{Service: "web"}, func(c *discovery.Config) {
		c.BackoffMax = time.Second
		c.EmptyConfirm = time.Hour // this machine may be slow to register again
	})
	w.until("a passing 5, b warning 2")
	w.untilStatus("current", func(s discovery.Status) bool { return s.Current })
	before := w.src.Status().Index

	consul.Kill()
	w.untilStatus("failing", func(s discovery.Status) bool { return s.ErrorsTotal >= 2 && s.FailingFor > 0 && !s.Current })
	must(t, consul.Restart(t.Context()))
	w.untilStatus("holding", func(s discovery.Status) bool { return s.Holding != "" && s.FailingFor == 0 })
	register(t, c, "a", 5)
	register(t, c, "b", 8)
	w.until("a passing 5, b passing 8")
	w.untilStatus("current again", func(s discovery.Status) bool { return s.Current && s.Holding == "" })
	if s := w.src.Status(); s.Index >= before {
		t.Errorf("index %d, before the restart %d: the test shows nothing", s.Index, before)
	}
	// And it follows: no read is left blocking on the old index.
	must(t, c.Agent().UpdateTTL("check-a", "down", api.HealthCritical))
	w.until("a critical 5, b passing 8")
}

func TestConsulTokenLosesRights(t *testing.T) {
	const root = "00000000-0000-4000-8000-000000000001"
	consul, c := startConsul(t, harness.Options{Token: root, Config: `
		acl {
			enabled = true
			default_policy = "deny"
			tokens { initial_management = "` + root + `" agent = "` + root + `" }
		}`})
	rules := `service_prefix "" { policy = "read" } node_prefix "" { policy = "read" }`
	policy, _, err := c.ACL().PolicyCreate(&api.ACLPolicy{Name: "outrigger", Rules: rules}, nil)
	must(t, err)
	token, _, err := c.ACL().TokenCreate(&api.ACLToken{Policies: []*api.ACLLink{{ID: policy.ID}}}, nil)
	must(t, err)
	register(t, c, "a", 5)
	lives := func(context.Context, discovery.Instance) error { return nil }
	w := watchProbing(t, consul, discovery.Query{Service: "web"}, lives, func(cfg *discovery.Config) {
		cfg.Token = discovery.Secret(token.SecretID)
		cfg.Wait = time.Second // losing rights wakes no blocking read
		cfg.EmptyConfirm = time.Second
	})
	w.until("a passing 5")

	policy.Rules = `key_prefix "" { policy = "read" }`
	_, _, err = c.ACL().PolicyUpdate(policy, nil)
	must(t, err)
	w.untilStatus("holding for lost rights", func(s discovery.Status) bool {
		return s.State == discovery.Kept && strings.Contains(s.Holding, "ACLs") && s.HeldTotal > 3
	})
	policy.Rules = rules
	_, _, err = c.ACL().PolicyUpdate(policy, nil)
	must(t, err)
	w.untilStatus("current again", func(s discovery.Status) bool { return s.Current && s.Holding == "" })

	_, err = c.ACL().TokenDelete(token.AccessorID, nil)
	must(t, err)
	w.untilStatus("failing for a deleted token", func(s discovery.Status) bool { return strings.Contains(s.LastError, "ACL not found") })
	if s := w.src.Status(); s.Instances != 1 || s.UpdatesTotal != 3 || strings.Contains(fmt.Sprintf("%+v", s), token.SecretID) {
		t.Errorf("status %+v", s)
	}
}

// listen is a backend that runs until it is closed, registered as id.
func listen(t *testing.T, c *api.Client, id string) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	t.Cleanup(func() { _ = l.Close() })
	must(t, c.Agent().ServiceRegister(&api.AgentServiceRegistration{
		ID: id, Name: "web", Address: "127.0.0.1", Port: l.Addr().(*net.TCPAddr).Port,
	}))
	return l
}

func (w *watched) untilState(state discovery.State, doubt string, instances, unlisted int) {
	w.t.Helper()
	w.untilStatus(string(state), func(s discovery.Status) bool {
		return s.State == state && s.Doubt == doubt && s.Instances == instances && s.Unlisted == unlisted
	})
}

// TestConsulMissingToken: to a request without a token Consul answers 200 with an
// empty list, and nothing in the answer tells.
func TestConsulMissingToken(t *testing.T) {
	const root = "00000000-0000-4000-8000-000000000001"
	consul, c := startConsul(t, harness.Options{Token: root, Config: `
		acl {
			enabled = true
			default_policy = "deny"
			tokens { initial_management = "` + root + `" agent = "` + root + `" default = "` + root + `" }
		}`})
	listen(t, c, "a")
	listen(t, c, "b")
	w := watchProbing(t, consul, discovery.Query{Service: "web"}, nil, func(cfg *discovery.Config) {
		cfg.Wait = time.Second
		cfg.EmptyConfirm = time.Second
	})
	w.until("a passing 1, b passing 1")

	_, err := c.Agent().UpdateDefaultACLToken("", nil)
	must(t, err)
	w.untilState(discovery.Kept, "empty_alive", 2, 2)
	if s := w.src.Status(); s.ProbesAlive < 2 || s.ProbesDead != 0 || s.ErrorsTotal != 0 || s.DoubtsTotal["empty_alive"] != 1 {
		t.Errorf("status %+v", s)
	}
	_, err = c.Agent().UpdateDefaultACLToken(root, nil)
	must(t, err)
	w.untilState(discovery.Current, "", 2, 0)
}

// TestConsulDeregistered: what is deregistered while it runs is kept, until it dies.
func TestConsulDeregistered(t *testing.T) {
	consul, c := startConsul(t, harness.Options{})
	backends := make(map[string]net.Listener)
	for _, id := range []string{"a", "b", "c"} {
		backends[id] = listen(t, c, id)
	}
	w := watchProbing(t, consul, discovery.Query{Service: "web"}, nil, func(cfg *discovery.Config) {
		cfg.EmptyConfirm = time.Second
		cfg.BackoffMax = 2 * time.Second
	})
	w.until("a passing 1, b passing 1, c passing 1")

	must(t, c.Agent().ServiceDeregister("c"))
	w.until("a passing 1, b passing 1") // one of three is no wonder
	must(t, c.Agent().ServiceDeregister("a"))
	w.untilState(discovery.Kept, "shrunk_alive", 2, 1)
	must(t, c.Agent().ServiceDeregister("b"))
	w.untilState(discovery.Kept, "empty_alive", 2, 2)
	must(t, backends["a"].Close())
	w.untilState(discovery.Kept, "empty_alive", 1, 1)
	must(t, backends["b"].Close())
	w.untilState(discovery.Empty, "", 0, 0)
	listen(t, c, "d")
	w.untilState(discovery.Current, "", 1, 0)
}
