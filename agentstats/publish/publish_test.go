package publish_test

import (
	"fmt"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"outrigger/agentstats/publish"
	"outrigger/test/harness"
)

func TestReportsReachTheSidecar(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	s := r.sidecar() // before there is anything
	a := r.agent("web-1", report{Epoch: "one", Cores: some(2.0), Avail: some(2.0)})
	b := r.agent("web/2%", report{Epoch: "two"})
	first, second := r.node()+"/web-1", r.node()+"/web/2%"
	s.await(first, "the first report", func(rep report, there bool) bool { return there && rep.Epoch == "one" && *rep.Avail == 2 })
	s.await(second, "the second report", func(rep report, there bool) bool { return there && rep.Epoch == "two" })
	if want := publish.Key(r.cfg.Prefix, r.service, r.node(), "web-1"); a.Status().Key != want {
		t.Errorf("published under %q, want %q", a.Status().Key, want)
	}
	a.report.Store(&report{Epoch: "one", Cores: some(2.0), Avail: some(0.5)})
	s.await(first, "the change", func(rep report, _ bool) bool { return *rep.Avail == 0.5 })
	a.report.Store(&report{Epoch: "three"})
	s.await(first, "the new epoch", func(rep report, _ bool) bool { return rep.Epoch == "three" })
	if n := s.count(s.updates, second); n != 1 {
		t.Errorf("an unchanged report was given %d times", n)
	}
	b.end()
	s.await(second, "the report of an agent that stopped to be gone", gone)
	if s.count(s.gone, first) > 0 {
		t.Error("the other report was called gone, too")
	}
}

// What is always another number alone costs no write; renewals of the session
// cost none at all.
func TestOnlyWhatMattersIsWritten(t *testing.T) {
	t.Parallel()
	c := ownConsul(t, "", "") // where nobody else writes
	r := newRig(t, c)
	r.cfg.MaxInterval = time.Hour
	a := r.agent("web-1", report{Epoch: "one", InFlight: some(0.0), Cores: some(2.0), Avail: some(2.0)})
	eventually(t, "the first write", func() bool { return a.Status().Writes == 1 })
	modified := r.modified(a)
	stop := time.Now().Add(8 * time.Second) // two renewals
	for n := 1.0; time.Now().Before(stop); n++ {
		a.report.Store(&report{Epoch: "one", InFlight: some(n), Cores: some(2.0), Avail: some(2 - 0.1*float64(int(n)%2))})
		time.Sleep(50 * time.Millisecond)
	}
	if got := r.modified(a); got != modified || a.Status().Writes != 1 {
		t.Errorf("%d writes, and the key went from index %d to %d, by nothing but in-flight and noise", a.Status().Writes, modified, got)
	}
	sessions, meta, err := r.client.Session().List(nil)
	if err != nil || len(sessions) != 1 {
		t.Fatalf("%d sessions, %v; want 1", len(sessions), err)
	}
	if meta.LastIndex != sessions[0].CreateIndex {
		t.Errorf("renewing the session moved its index from %d to %d: it is a Raft write", sessions[0].CreateIndex, meta.LastIndex)
	}
}

func (r *rig) modified(a *agent) uint64 {
	r.t.Helper()
	pair, _, err := r.client.KV().Get(a.Status().Key, nil)
	if err != nil || pair == nil {
		r.t.Fatalf("reading the key: %v, %v", pair, err)
	}
	return pair.ModifyIndex
}

// An agent that is killed leaves a session that nobody renews. Consul ends it
// between one and two TTLs later.
func TestDeadAgentsReportVanishes(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	s := r.sidecar()
	id, _, err := r.client.Session().CreateNoChecks(&api.SessionEntry{TTL: "10s", Behavior: api.SessionBehaviorDelete, LockDelay: time.Millisecond}, nil)
	if err != nil {
		t.Fatal(err)
	}
	key := publish.Key(r.cfg.Prefix, r.service, r.node(), "web-1")
	if ok, _, err := r.client.KV().Acquire(&api.KVPair{Key: key, Value: []byte(`{"epoch":"dead"}`), Session: id}, nil); err != nil || !ok {
		t.Fatalf("acquiring: %v, %v", ok, err)
	}
	s.await(r.node()+"/web-1", "the report of the agent that dies", present)
	a := r.agent("web-1", report{Epoch: "next"}) // its successor, at once
	r.awaitLog("another session holds the key")
	if !a.Status().Held {
		t.Error("the status does not say that the key is held")
	}
	s.await(r.node()+"/web-1", "the successor's report", func(rep report, there bool) bool { return there && rep.Epoch == "next" })
	if n := r.logs.count("lives"); n > 0 {
		t.Error("the log takes the dead agent for a living one")
	}
}

// The session is lost: destroyed by an operator, or with the Consul that had it.
func TestLostSession(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	r.cfg.MaxInterval = time.Second
	a := r.agent("web-1", report{Epoch: "one"})
	eventually(t, "the first write", func() bool { return a.Status().Writes > 0 })
	pair, _, err := r.client.KV().Get(a.Status().Key, nil)
	if err != nil || pair == nil {
		t.Fatalf("reading the key: %v, %v", pair, err)
	}
	if _, err := r.client.Session().Destroy(pair.Session, nil); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the report under another session", func() bool {
		again, _, err := r.client.KV().Get(a.Status().Key, nil)
		return err == nil && again != nil && again.Session != "" && again.Session != pair.Session
	})
	if n := r.logs.count("[WARN]"); n > 0 {
		t.Errorf("%d warnings", n)
	}
}

// A Consul that comes back empty, with lower indexes, gets the reports again; the
// sidecar holds what it had meanwhile.
func TestConsulRestartsEmpty(t *testing.T) {
	t.Parallel()
	c := ownConsul(t, `node_name = "here"`, "")
	r := newRig(t, c)
	node := r.node()
	r.cfg.MaxInterval = 2 * time.Second
	r.watch.Hold = 10 * time.Minute // longer than the outage
	s, a := r.sidecar(), r.agent("web-1", report{Epoch: "one"})
	s.await(node+"/web-1", "the report", present)
	for range 50 { // so that the new Consul's indexes are behind
		if _, err := r.client.KV().Put(&api.KVPair{Key: "other", Value: []byte("x")}, nil); err != nil {
			t.Fatal(err)
		}
	}
	c.Kill()
	eventually(t, "both to notice", func() bool { return a.Status().LastError != "" && s.Status().LastError != "" })
	if err := c.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	a.report.Store(&report{Epoch: "two"})
	s.await(node+"/web-1", "the report written to the new Consul", func(rep report, _ bool) bool { return rep.Epoch == "two" })
	if n := s.count(s.gone, node+"/web-1"); n > 0 {
		t.Error("the report was called gone meanwhile")
	}
	if n := r.logs.count("[WARN]"); n != 2 {
		t.Errorf("%d warnings for one outage, want one of each side", n)
	}
}

// Two agents that were given one ID do not overwrite each other, and say so.
func TestTwoAgentsWithOneID(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	r.cfg.MaxInterval = time.Second
	a := r.agent("web-1", report{Epoch: "first"})
	eventually(t, "the first write", func() bool { return a.Status().Writes > 0 })
	b := r.agent("web-1", report{Epoch: "second"})
	r.awaitLog("lives")
	if b.Status().Writes != 0 || !b.Status().Held || a.Status().Held {
		t.Errorf("first %+v, second %+v", a.Status(), b.Status())
	}
	a.end()
	eventually(t, "the second to take over", func() bool { return b.Status().Writes > 0 && !b.Status().Held })
}

func TestNothingIsWrittenWithoutAReport(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	r.cfg.MaxInterval = time.Second
	a := r.agent("web-1", report{Epoch: "one"})
	eventually(t, "two writes", func() bool { return a.Status().Writes >= 2 })
	a.report.Store(nil)
	time.Sleep(1500 * time.Millisecond) // one look may be under way
	writes := a.Status().Writes
	time.Sleep(3 * time.Second) // in which there must be none
	if got := a.Status().Writes; got != writes {
		t.Errorf("%d writes without a report", got-writes)
	}
}

const aclConfig = `
acl {
  enabled = true
  default_policy = "deny"
  enable_key_list_policy = %v
  tokens { initial_management = "11111111-1111-1111-1111-111111111111" agent = "11111111-1111-1111-1111-111111111111" }
}`

const root = "11111111-1111-1111-1111-111111111111"

// token is a client with a token of the rules.
func token(t *testing.T, c *harness.Consul, rules string) *api.Client {
	t.Helper()
	client, err := c.Client()
	if err != nil {
		t.Fatal(err)
	}
	policy, _, err := client.ACL().PolicyCreate(&api.ACLPolicy{Name: "test-" + strconv.FormatInt(services.Add(1), 10), Rules: rules}, nil)
	if err != nil {
		t.Fatal(err)
	}
	made, _, err := client.ACL().TokenCreate(&api.ACLToken{Policies: []*api.ACLLink{{ID: policy.ID}}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	limited, err := api.NewClient(&api.Config{Address: c.Addr(), Scheme: "http", Token: made.SecretID})
	if err != nil {
		t.Fatal(err)
	}
	return limited
}

// The rules that the documentation names are enough, and without them the log
// names them.
func TestACLs(t *testing.T) {
	t.Parallel()
	for _, listPolicy := range []bool{false, true} {
		t.Run(fmt.Sprintf("key list policy %v", listPolicy), func(t *testing.T) {
			t.Parallel()
			c := ownConsul(t, fmt.Sprintf(aclConfig, listPolicy), root)
			r := newRig(t, c)
			r.service = "web"
			node := r.node()
			r.client = token(t, c, ``)
			nothing := r.agent("web-1", report{Epoch: "one"})
			r.awaitLog(`session_prefix`)
			nothing.end()
			r.client = token(t, c, `session "`+node+`" { policy = "write" } key_prefix "outrigger/reports/web/" { policy = "write" }`)
			a := r.agent("web-1", report{Epoch: "one"})
			eventually(t, "a write", func() bool { return a.Status().Writes > 0 })

			r.client = token(t, c, ``)
			blind := r.sidecar()
			r.awaitLog(`key_prefix \"outrigger/reports/web/\"`)
			policy := "read"
			if listPolicy {
				policy = "list"
			}
			r.client = token(t, c, `key_prefix "outrigger/reports/web/" { policy = "`+policy+`" }`)
			r.sidecar().await(node+"/web-1", "the report", present)
			if blind.count(blind.updates, node+"/web-1") > 0 {
				t.Error("a token without permission saw the report")
			}
		})
	}
}

// A Consul that is away only lets the figures age.
func TestOutage(t *testing.T) {
	t.Parallel()
	c := ownConsul(t, "", "")
	r := newRig(t, c)
	r.cfg.MaxInterval = time.Second
	s, a := r.sidecar(), r.agent("web-1", report{Epoch: "one"})
	id := r.node() + "/web-1"
	s.await(id, "the report", present)
	signal(t, c, syscall.SIGSTOP)
	a.report.Store(&report{Epoch: "two"})
	time.Sleep(3 * time.Second) // in which nothing must be lost
	s.await(id, "the report still", present)
	signal(t, c, syscall.SIGCONT)
	s.await(id, "the newer report", func(rep report, _ bool) bool { return rep.Epoch == "two" })
	if s.count(s.gone, id) > 0 {
		t.Error("the outage made the report vanish")
	}
}

func signal(t *testing.T, c *harness.Consul, s syscall.Signal) {
	t.Helper()
	if err := c.Process().Signal(s); err != nil {
		t.Fatal(err)
	}
}

func TestForeignKeysAreSkipped(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	s := r.sidecar()
	folder := r.cfg.Prefix + "/" + r.service + "/"
	for _, key := range []string{folder, folder + "no-node", folder + "node/", r.cfg.Prefix + "/" + r.service + "-other/n/web-1"} {
		if _, err := r.client.KV().Put(&api.KVPair{Key: key, Value: []byte("x")}, nil); err != nil {
			t.Fatal(err)
		}
	}
	big := strings.Repeat("x", 100<<10)
	if _, err := r.client.KV().Put(&api.KVPair{Key: folder + "n/last", Value: []byte(big)}, nil); err != nil {
		t.Fatal(err)
	}
	s.await("n/last", "the one that is well formed", func(rep report, there bool) bool { return there && rep.Epoch == "unreadable" })
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.updates) != 1 {
		t.Errorf("updates of %v", s.updates)
	}
}
