package discovery_test

import (
	"context"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"
	"github.com/hashicorp/go-hclog"

	"outrigger/discovery"
	"outrigger/test/harness"
)

// life is a source that is watched until it is ended.
type life struct {
	t    *testing.T
	src  discovery.Source
	sets chan []discovery.Instance
	end  func()
}

func live(t *testing.T, src discovery.Source) *life {
	t.Helper()
	l := &life{t: t, src: src, sets: make(chan []discovery.Instance, 1000)}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- src.Watch(ctx, func(set []discovery.Instance) { l.sets <- set }) }()
	ended := false
	l.end = func() {
		if ended {
			return
		}
		ended = true
		cancel()
		if err := <-done; err != context.Canceled {
			t.Errorf("Watch returned %v", err)
		}
	}
	t.Cleanup(l.end)
	return l
}

func (l *life) until(want string) []discovery.Instance {
	l.t.Helper()
	have, deadline := "nothing", time.After(patience)
	for {
		select {
		case set := <-l.sets:
			var ids []string
			for _, i := range set {
				ids = append(ids, i.ID[strings.LastIndex(i.ID, "/")+1:])
			}
			if have = strings.Join(ids, " "); have == want {
				return set
			}
		case <-deadline:
			l.t.Fatalf("want %q, have %q; status %+v", want, have, l.src.Status())
		}
	}
}

func (l *life) untilState(want discovery.State) discovery.Status {
	l.t.Helper()
	return untilStatus(l.t, l.src, string(want), func(s discovery.Status) bool { return s.State == want })
}

// A prepared query of a service that has nowhere to fail over to, and a sidecar
// that is started while Consul is down, both on real ones.
func TestPreparedQueryAndSnapshot(t *testing.T) {
	consul, c := startConsul(t, harness.Options{})
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer ln.Close()
	must(t, c.Agent().ServiceRegister(&api.AgentServiceRegistration{
		ID: "a", Name: "web", Address: "127.0.0.1", Port: ln.Addr().(*net.TCPAddr).Port,
		Check: &api.AgentServiceCheck{CheckID: "check-a", TTL: "1h", Status: api.HealthPassing},
	}))
	_, _, err = c.PreparedQuery().Create(&api.PreparedQueryDefinition{Name: "geo web?", Service: api.ServiceQuery{
		Service: "web", Failover: api.QueryFailoverOptions{Datacenters: []string{"dc2"}},
	}}, nil)
	must(t, err)

	cfg := discovery.DefaultConfig()
	cfg.Address = consul.Addr()
	client, err := discovery.NewClient(cfg)
	must(t, err)
	env := discovery.Env{Logger: hclog.New(&hclog.LoggerOptions{Output: testWriter{t}}), Probe: discovery.Connects}
	dir := t.TempDir()
	prepared := func(name string) *life {
		q := discovery.DefaultPreparedQuery("shop", name)
		q.Poll = time.Second
		src := discovery.NewPrepared(client, q, cfg, env)
		src.Persist(discovery.NewStore(dir, env), "prepared")
		return live(t, src)
	}
	plain := func() *life {
		src := discovery.NewConsul(client, discovery.DefaultQuery("web"), cfg, env)
		src.Persist(discovery.NewStore(dir, env), "plain")
		return live(t, src)
	}

	unknown, p, w := prepared("no such query"), prepared("geo web?"), plain()
	set := p.until("a")
	if i := set[0]; !strings.HasPrefix(i.ID, "@dc1/") || i.Datacenter != "dc1" || i.Address != "127.0.0.1" || i.Weight != 1 {
		t.Errorf("%+v", i)
	}
	w.until("a")
	if s := p.untilState(discovery.Current); s.Datacenter != "dc1" {
		t.Errorf("%+v", s)
	}
	for unknown.src.Status().ErrorsTotal == 0 {
		time.Sleep(10 * time.Millisecond)
	}
	if s := unknown.src.Status(); s.Seen || !strings.Contains(s.LastError, "there is no prepared query") {
		t.Errorf("%+v", s)
	}
	unknown.end()
	// The server leaves critical instances out: nothing is found, but it answers.
	must(t, c.Agent().UpdateTTL("check-a", "down", api.HealthCritical))
	if s := p.untilState(discovery.Kept); s.Instances != 1 || s.Unlisted != 1 {
		t.Errorf("%+v", s)
	}
	must(t, c.Agent().UpdateTTL("check-a", "up", api.HealthPassing))
	p.untilState(discovery.Current)
	p.end()
	w.end()

	consul.Kill()
	p, w = prepared("geo web?"), plain()
	p.until("a")
	w.until("a")
	for _, l := range []*life{p, w} {
		if s := l.untilState(discovery.Snapshot); s.SnapshotAge > patience || s.Disk.Bytes == 0 || s.Disk.ReadErrors != 0 {
			t.Errorf("%+v", s)
		}
	}
	if list, err := filepath.Glob(filepath.Join(dir, "discovery", "*")); err != nil || len(list) != 2 {
		t.Errorf("on disk: %v, %v", list, err)
	}
	// A new Consul that knows nothing of the service is not believed.
	must(t, consul.Restart(t.Context()))
	if s := w.untilState(discovery.Kept); s.Instances != 1 {
		t.Errorf("%+v", s)
	}
}

// TestConsulTokenThatNeverSawEverything: what it sees leave has left, though
// streamed answers, which come in between, never say that something is hidden.
func TestConsulTokenThatNeverSawEverything(t *testing.T) {
	const root = "00000000-0000-4000-8000-000000000001"
	consul, c := startConsul(t, harness.Options{Token: root, Config: `
		acl {
			enabled = true
			default_policy = "deny"
			tokens { initial_management = "` + root + `" agent = "` + root + `" }
		}`})
	policy, _, err := c.ACL().PolicyCreate(&api.ACLPolicy{Name: "outrigger", Rules: `service_prefix "" { policy = "read" } node_prefix "good" { policy = "read" }`}, nil)
	must(t, err)
	token, _, err := c.ACL().TokenCreate(&api.ACLToken{Policies: []*api.ACLLink{{ID: policy.ID}}}, nil)
	must(t, err)
	add := func(node string, port int) {
		t.Helper()
		_, err := c.Catalog().Register(&api.CatalogRegistration{Node: node, Address: "127.0.0.1",
			Service: &api.AgentService{ID: "w", Service: "web", Port: port}}, nil)
		must(t, err)
	}
	has := func(n int) func(discovery.Status) bool {
		return func(s discovery.Status) bool { return s.Instances == n && s.State == discovery.Current }
	}
	add("hidden", 9100)
	add("good0", 9000)
	add("good1", 9001)
	add("good2", 9002)
	w := watch(t, consul, discovery.Query{Service: "web"}, func(cfg *discovery.Config) {
		cfg.Token = discovery.Secret(token.SecretID)
	})
	w.untilStatus("the three that it may see", has(3))
	add("good3", 9003) // a streamed answer
	w.untilStatus("a fourth", has(4))
	var ops api.TxnOps
	for i := range 3 {
		ops = append(ops, &api.TxnOp{Node: &api.NodeTxnOp{Verb: api.NodeDelete, Node: api.Node{Node: fmt.Sprint("good", i)}}})
	}
	ok, resp, _, err := c.Txn().Txn(ops, nil)
	must(t, err)
	if !ok {
		t.Fatalf("%+v", resp.Errors)
	}
	w.untilStatus("the fourth alone", has(1))
	add("good9", 9009)
	w.untilStatus("a newcomer", has(2))
	if s := w.src.Status(); s.DoubtsTotal["filtered"] != 0 {
		t.Errorf("status %+v", s)
	}
}
