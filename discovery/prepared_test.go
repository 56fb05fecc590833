package discovery

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/consul/api"
)

// found is the body of an executed query's answer.
func found(dc string, failovers int, ids ...string) string {
	return fmt.Sprintf(`{"Service":"web","Nodes":%s,"Datacenter":%q,"Failovers":%d}`, entries(ids...), dc, failovers)
}

// client is a Consul client of a fake.
func (f *fakeConsul) client(t *testing.T) *api.Client {
	t.Helper()
	c, err := api.NewClient(&api.Config{Address: "consul.test", HttpClient: &http.Client{Transport: f}})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func watchPrepared(t *testing.T, reply func(int, asked) answer, lives func(string) bool, change ...func(*PreparedQuery, *Config)) *watched {
	w := &watched{}
	w.fake = &fakeConsul{reply: reply}
	q, cfg := DefaultPreparedQuery("shop", "geo-web"), DefaultConfig()
	for _, f := range change {
		f(&q, &cfg)
	}
	w.watch(t, NewPrepared(w.fake.client(t), q, cfg, w.env(lives)))
	return w
}

func constantly(a answer) func(int, asked) answer { return func(int, asked) answer { return a } }

func TestPreparedPolls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := watchPrepared(t, constantly(answer{index: 1, body: found("dc1", 0, "a", "b")}), nil, func(q *PreparedQuery, c *Config) {
			q.Datacenter, q.Near, c.Cached = "dc1", "_agent", true
		})
		w.after(time.Minute)
		w.wantSets("@dc1/n/a @dc1/n/b")
		asked := w.fake.asked()
		if len(asked) != 13 {
			t.Errorf("%d reads in a minute", len(asked))
		}
		for _, a := range asked {
			if a.path != "/v1/query/geo-web/execute" || !a.has("stale") || !a.has("cached") || a.blocks() ||
				a.query.Get("dc") != "dc1" || a.query.Get("near") != "_agent" {
				t.Errorf("asked %s %v", a.path, a.query)
			}
		}
		s := w.of.Status()
		if s.Source != "prepared_query" || s.Datacenter != "dc1" || s.State != Current || s.AnswersTotal != 13 || s.UpdatesTotal != 1 {
			t.Errorf("%+v", s)
		}
		w.stop()
	})
}

// The query fails over to another datacenter and comes back. Fewer are there, and
// what was left lives on: it is another set, not a lie about the old one.
func TestPreparedMoves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		w := watchPrepared(t, func(_ int, a asked) answer {
			if d := a.at.Sub(start); d > 30*time.Second && d < time.Minute {
				return answer{index: 1, body: found("dc2", 1, "a")}
			}
			return answer{index: 1, body: found("dc1", 0, "a", "b", "c", "d")}
		}, func(string) bool { return true })
		w.after(40 * time.Second)
		if s := w.of.Status(); s.Datacenter != "dc2" || s.State != Current || s.Unlisted != 0 {
			t.Errorf("%+v", s)
		}
		w.after(40 * time.Second)
		four := "@dc1/n/a @dc1/n/b @dc1/n/c @dc1/n/d"
		w.wantSets(four, "@dc2/n/a", four)
		if n := w.logged("answered by another datacenter"); n != 2 {
			t.Errorf("%d lines:\n%s", n, w.log())
		}
		w.stop()
	})
}

// What is no answer, or an odd one, keeps the set.
func TestPreparedDoubts(t *testing.T) {
	all := found("dc1", 0, "a", "b")
	for what, c := range map[string]struct {
		then  answer
		alive bool
		state State
		text  string // in the last error or the doubt
	}{
		"404":        {answer{code: 404, body: "Query not found"}, true, Failing, `no prepared query "geo-web"`},
		"500":        {answer{code: 500, body: "No cluster leader"}, true, Failing, "No cluster leader"},
		"another":    {answer{index: 5, body: "{}"}, true, Failing, "no prepared query's"},
		"null":       {answer{index: 5, body: "null"}, true, Failing, "no prepared query's"},
		"list":       {answer{index: 5}, true, Failing, "cannot unmarshal"},
		"reset":      {answer{err: errors.New("connection reset")}, true, Failing, "connection reset"},
		"hangs":      {answer{hang: true}, true, Failing, "no answer within"},
		"leaderless": {answer{index: 1, body: found("dc1", 0, "a"), leaderless: true}, true, Doubted, doubtNoLeader},
		"lagging":    {answer{index: 1, body: found("dc1", 0, "a"), stale: time.Minute}, true, Doubted, doubtLagging},
		"filtered":   {answer{index: 1, body: found("dc1", 0), filtered: true}, true, Kept, doubtFiltered},
		"empty":      {answer{index: 1, body: found("dc1", 2)}, true, Kept, doubtAlive},
		"true":       {answer{index: 1, body: found("dc1", 2)}, false, Empty, ""},
	} {
		t.Run(what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				start := time.Now()
				w := watchPrepared(t, func(_ int, a asked) answer {
					if a.at.Sub(start) < 10*time.Second || a.at.Sub(start) > 150*time.Second {
						return answer{index: 1, body: all}
					}
					return c.then
				}, func(string) bool { return c.alive })
				w.after(2 * time.Minute)
				s := w.of.Status()
				want := 2
				if c.state == Empty {
					want = 0
				}
				if s.State != c.state || s.Instances != want || s.Datacenter != "dc1" || !strings.Contains(s.LastError+s.Doubt, c.text) {
					t.Errorf("%+v\n%s", s, w.log())
				}
				for _, a := range w.fake.asked() {
					if a.has("consistent") && (a.has("cached") || a.blocks() || a.has("stale")) {
						t.Errorf("a verifying read asks %v", a.query)
					}
				}
				w.after(2 * time.Minute)
				if s := w.of.Status(); s.State != Current || s.Instances != 2 {
					t.Errorf("then %+v", s)
				}
				w.stop()
			})
		})
	}
}

func TestPreparedIDs(t *testing.T) {
	p := NewPrepared(nil, DefaultPreparedQuery("shop", "web"), DefaultConfig(), Env{})
	node := func(peer, id string) api.ServiceEntry {
		return api.ServiceEntry{Node: &api.Node{Node: "n", Address: "10.0.0.1"},
			Service: &api.AgentService{ID: id, Service: "web", Port: 1, PeerName: peer}}
	}
	for dc, want := range map[string]string{"dc1": "@dc1/n/a", "": "@peer:p/n/a", "d/c%": "@d%2Fc%25/n/a"} {
		a, _ := p.understand(&api.PreparedQueryExecuteResponse{Service: "web", Datacenter: dc, Nodes: []api.ServiceEntry{node("p", "a")}})
		if len(a.set) != 1 || a.set[0].ID != want || a.set[0].Service != "web" {
			t.Errorf("%q: %+v, want %s", dc, a.set, want)
		}
	}
	p.query.Near = "_agent"
	a, _ := p.understand(&api.PreparedQueryExecuteResponse{Service: "web", Datacenter: "dc1",
		Nodes: []api.ServiceEntry{node("", "b"), {}, node("", strings.Repeat("x", 506)), node("", "a")}})
	if idsOf(a.set) != "@dc1/n/a @dc1/n/b" || idsOf(a.shown) != "@dc1/n/b @dc1/n/a" || len(a.odd) != 2 {
		t.Errorf("%v, as near %v, odd %v", idsOf(a.set), idsOf(a.shown), a.odd)
	}
}

func TestPreparedQuery(t *testing.T) {
	for want, change := range map[string]func(*PreparedQuery){
		"prepared_query \"\"":    func(q *PreparedQuery) { q.Name = "" },
		"prepared_query \"a/b\"": func(q *PreparedQuery) { q.Name = "a/b" },
		"prepared_query \"..\"":  func(q *PreparedQuery) { q.Name = ".." },
		"selects instances":      func(q *PreparedQuery) { q.Tags = []string{"x"} },
		"only_passing":           func(q *PreparedQuery) { q.OnlyPassing = true },
		"node_meta":              func(q *PreparedQuery) { q.NodeMetaIs = map[string]string{"a": "b"} },
		"filter":                 func(q *PreparedQuery) { q.Filter = "x" },
		"poll is 0s":             func(q *PreparedQuery) { q.Poll = 0 },
		"near":                   func(q *PreparedQuery) { q.Near = "\x00" },
	} {
		q := DefaultPreparedQuery("shop", "web")
		change(&q)
		if err := NewPrepared(nil, q, DefaultConfig(), Env{}).Watch(t.Context(), nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v", q, err)
		}
	}
	q, cfg := DefaultPreparedQuery("shop", "web"), DefaultConfig()
	other := q
	if other.Name = "b"; other.fingerprint(cfg) == q.fingerprint(cfg) || q.fingerprint(cfg) == q.Query.fingerprint(cfg) {
		t.Error("another query, or kind of query, has the same sum")
	}
}
