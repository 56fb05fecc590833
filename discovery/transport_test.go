package discovery

import (
	"bytes"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"
)

// With more services than an agent takes connections none fails, all changes are
// seen, and the agent has nothing to refuse.
func TestManyServicesOnFewConnections(t *testing.T) {
	cleanEnv(t)
	la, c, addr := startLimited(t, 50, false)
	a := crowdClient(t, c, addr, func(c *Config) { c.MaxConnections, c.Spread = 40, 2*time.Second })
	all := names("s", 100)
	a.watch(all...)
	a.seen(all, 1, time.Minute)
	for port := 2; port < 4; port++ {
		for _, s := range all {
			c.touch(s)
		}
		a.seen(all, port, time.Minute)
	}
	la.mu.Lock()
	defer la.mu.Unlock()
	if la.most > 40 || len(la.refused) > 0 {
		t.Errorf("%d connections at once, %d refused: allowed were 40 of the agent's 50", la.most, len(la.refused))
	}
}

// An agent that takes fewer than we were told: no service fails, and it is found
// out. Whether its 429 gets through or not.
func TestAgentRefusesConnections(t *testing.T) {
	cleanEnv(t)
	var said bytes.Buffer // by net/http, of answers that it thinks nobody waits for
	log.SetOutput(&said)
	t.Cleanup(func() { log.SetOutput(os.Stderr) })
	for _, mute := range []bool{false, true} {
		t.Run(fmt.Sprintf("mute=%t", mute), func(t *testing.T) {
			la, c, addr := startLimited(t, 20, mute)
			a := crowdClient(t, c, addr, func(c *Config) { c.Spread = 2 * time.Second })
			all := names("s", 60)
			a.watch(all...)
			a.seen(all, 1, time.Minute)
			for _, s := range all {
				c.touch(s)
			}
			a.seen(all, 2, time.Minute)
			for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
				a.gate.mu.Lock()
				w := a.gate.window // a guess is tried once more
				a.gate.mu.Unlock()
				if w.shown && time.Since(w.cut) > 2*time.Second { // nobody tries again any more
					break
				} else if time.Now().After(deadline) {
					t.Fatalf("the limit is still a guess: %+v", a.gate.Status())
				}
			}
			settled := time.Now()
			for _, s := range all {
				c.touch(s)
			}
			a.seen(all, 3, time.Minute)
			la.mu.Lock()
			defer la.mu.Unlock()
			late := 0
			for _, at := range la.refused {
				if at.After(settled) {
					late++
				}
			}
			if len(la.refused) == 0 || late > 2 {
				t.Errorf("%d refusals, %d of them after all was seen twice", len(la.refused), late)
			}
			if s := a.gate.Status(); s.Limit > 24 || s.BusyConnections == 0 {
				t.Errorf("status %+v", s)
			}
			if said.Len() > 0 {
				t.Errorf("in the standard log:\n%s", said.String())
			}
		})
	}
}

// Who asks again and again is known by what it asks for, not by how.
func TestQuestion(t *testing.T) {
	for _, tc := range []struct {
		method, url, name string
		wait              time.Duration
	}{
		{"GET", "/v1/health/service/web?stale=&tag=a", "/v1/health/service/web?tag=a", 0},
		{"GET", "/v1/health/service/web?index=7&stale=&tag=a&wait=300000ms", "/v1/health/service/web?tag=a", 5 * time.Minute},
		{"GET", "/v1/health/service/web?consistent=&tag=a", "/v1/health/service/web?tag=a", 0},
		{"GET", "/v1/health/service/web?index=7&tag=b&wait=nonsense", "/v1/health/service/web?tag=b", defaultWait},
		{"GET", "/v1/kv/outrigger/web/?index=7&recurse=&wait=1000ms", "/v1/kv/outrigger/web/?recurse=", time.Second},
		{"GET", "/v1/agent/service/web?hash=abc&wait=60000ms", "/v1/agent/service/web?", time.Minute},
		{"GET", "/v1/agent/self", "", 0},
		{"PUT", "/v1/kv/outrigger/web/n/a", "", 0},
	} {
		got := question(httptest.NewRequest(tc.method, tc.url, nil))
		if got.name != tc.name || got.wait != tc.wait {
			t.Errorf("%s %s: %q for %v, want %q for %v", tc.method, tc.url, got.name, got.wait, tc.name, tc.wait)
		}
	}
}

// Consul's request limits answer 429 too, and want fewer requests, not connections.
func TestRequestLimitIsNoRefusal(t *testing.T) {
	cleanEnv(t)
	var asked atomic.Int32
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		asked.Add(1)
		http.Error(w, "rate limit reached, try again later or against a different server", http.StatusTooManyRequests)
	}))
	defer srv.Close()
	a := crowdClient(t, nil, srv.URL, func(*Config) {})
	_, _, err := a.client.Health().Service("web", "", false, nil)
	if err == nil || !strings.Contains(err.Error(), "rate limit reached") || asked.Load() != 1 {
		t.Errorf("asked %d times: %v", asked.Load(), err)
	}
	if s := a.gate.Status(); s.BusyRate != 1 || s.BusyConnections != 0 || s.Limit != a.cfg.MaxConnections || s.InUse != 0 {
		t.Errorf("status %+v", s)
	}
}

func TestUnchangedIsNotDecoded(t *testing.T) {
	cleanEnv(t)
	var wait atomic.Value
	var filtered atomic.Bool
	body := entries("a")
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		wait.Store(r.URL.Query().Get("wait"))
		w.Header().Set("X-Consul-Index", "7")
		w.Header().Set("X-Consul-KnownLeader", "true")
		w.Header().Set("X-Consul-LastContact", "3")
		if filtered.Load() {
			w.Header().Set("X-Consul-Results-Filtered-By-ACLs", "true")
		}
		_, _ = io.WriteString(w, body)
	}))
	defer srv.Close()
	a := crowdClient(t, nil, srv.URL, func(*Config) {})
	now := time.Now()
	src := NewConsul(a.client, Query{Service: "web"}, a.cfg, Env{Now: func() time.Time { return now }})
	read := func(want int) reading {
		t.Helper()
		got, err := src.read(t.Context())
		if err != nil || len(got.set) != want || got.index != 7 || got.LastContact != 3*time.Millisecond || !got.KnownLeader {
			t.Fatalf("%+v, %v, want %d instances", got, err, want)
		}
		return got
	}
	read(1)
	src.loop.index = 7
	a.gate.mu.Lock()
	a.gate.joined = time.Time{} // settled
	a.gate.mu.Unlock()
	body = entries("a", "b") // can't be, with the same index: it shows what was decoded
	read(2)                  // nobody has to share: all is read
	body = entries("a")
	a.gate.mu.Lock()
	a.gate.joined = time.Time{}
	for i := range 300 {
		a.gate.join(fmt.Sprint(i))
	}
	a.gate.mu.Unlock()
	filtered.Store(true)
	got := read(2)
	if !got.Filtered || wait.Load() == "300000ms" {
		t.Errorf("%+v after waiting %v", got, wait.Load())
	}
	src.loop.verify = true // must see what is there
	src.loop.index = 0
	if got := read(1); !got.Consistent {
		t.Errorf("%+v", got)
	}
	src.loop.verify, src.loop.index = false, 7
	body = entries("a", "b", "c")
	read(1)
	now = now.Add(a.cfg.Wait) // now and then all is read
	read(3)
	if s := a.gate.Status(); s.InUse != 0 {
		t.Errorf("status %+v", s)
	}
}

func TestTokenOfEachRequest(t *testing.T) {
	cleanEnv(t)
	var got atomic.Value
	deny := make(chan bool, 1)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got.Store(r.Header.Get(tokenHeader))
		select {
		case <-deny:
			http.Error(w, "ACL "+r.Header.Get(tokenHeader)+" not found", http.StatusForbidden)
		default:
			w.Header().Set("X-Consul-Index", "7")
			_, _ = io.WriteString(w, "[]")
		}
	}))
	defer srv.Close()
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	ask := func(client *api.Client, want string) error {
		t.Helper()
		_, _, err := client.Health().Service("web", "", false, nil)
		if got.Load() != want {
			t.Errorf("token %q, want %q", got.Load(), want)
		}
		return err
	}
	client := func(change func(*Config)) *api.Client {
		t.Helper()
		c := DefaultConfig()
		c.Address = srv.URL
		change(&c)
		client, err := NewClient(c)
		if err != nil {
			t.Fatal(err)
		}
		return client
	}
	t.Setenv(api.HTTPTokenEnvName, "env")
	_ = ask(client(func(*Config) {}), "env")
	t.Setenv(api.HTTPTokenFileEnvName, file("env", "env-file\n"))
	_ = ask(client(func(*Config) {}), "env-file")
	_ = ask(client(func(c *Config) { c.Token = "block" }), "block")
	own := file("own", "own-file")
	c := client(func(c *Config) { c.Token, c.TokenFile = "block", own })
	_ = ask(c, "own-file")
	// A token that is refused is replaced at the next request.
	file("own", "rotated")
	deny <- true
	if err := ask(c, "own-file"); err == nil || strings.Contains(err.Error(), "own-file") || !strings.Contains(err.Error(), redacted) {
		t.Errorf("got %v", err)
	}
	if err := ask(c, "rotated"); err != nil {
		t.Error(err)
	}
	cfg := DefaultConfig()
	cfg.TokenFile = filepath.Join(dir, "none")
	if _, err := NewClient(cfg); err == nil || !strings.Contains(err.Error(), "token_file") {
		t.Errorf("got %v", err)
	}
}

// What the query and the configuration say goes over the wire, and a verifying
// read says nothing that would have it answered from a copy.
func TestReadOnTheWire(t *testing.T) {
	cleanEnv(t)
	h, last := agent(t, entries("a"))
	srv := httptest.NewServer(h)
	defer srv.Close()
	c := DefaultConfig()
	c.Address, c.Namespace, c.Partition, c.Cached = srv.URL, "team", "part", true
	client, err := NewClient(c)
	if err != nil {
		t.Fatal(err)
	}
	src := NewConsul(client, Query{Service: "web", NodeMetaIs: map[string]string{"rack": "a"}}, c, Env{})
	for _, tc := range []struct {
		index  uint64
		verify bool
		want   string
	}{
		{0, false, "cached=&node-meta=rack%3Aa&ns=team&partition=part&stale="},
		{7, false, "cached=&index=7&node-meta=rack%3Aa&ns=team&partition=part&stale=&wait=300000ms"},
		{0, true, "consistent=&node-meta=rack%3Aa&ns=team&partition=part"},
	} {
		src.loop.index, src.loop.verify = tc.index, tc.verify
		if _, err := src.read(t.Context()); err != nil {
			t.Fatal(err)
		}
		q := last.Load().URL.Query()
		if w := q.Get("wait"); w == "2000ms" {
			q.Set("wait", "300000ms") // who comes first does not block for long
		}
		if got := q.Encode(); got != tc.want {
			t.Errorf("asked %s, want %s", got, tc.want)
		}
		if enc := last.Load().Header.Get("Accept-Encoding"); enc != "" {
			t.Errorf("asked for %s: packing costs the agent more than the bytes do", enc)
		}
	}
	bad := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, `Invalid query parameter: "ns" - Namespaces are a Consul Enterprise feature`, http.StatusBadRequest)
	}))
	defer bad.Close()
	c.Address = bad.URL
	if client, err = NewClient(c); err != nil {
		t.Fatal(err)
	}
	if _, err := NewConsul(client, Query{Service: "web"}, c, Env{}).read(t.Context()); err == nil || !strings.Contains(err.Error(), "Enterprise feature") {
		t.Errorf("got %v", err)
	}
}

// BenchmarkRead is one read of 20 instances, with and without a change.
func BenchmarkRead(b *testing.B) {
	var ids []string
	for i := range 20 {
		ids = append(ids, fmt.Sprintf("web-%d", i))
	}
	body := entries(ids...)
	for _, skip := range []bool{false, true} {
		b.Run(fmt.Sprintf("unchanged=%t", skip), func(b *testing.B) {
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("X-Consul-Index", "7")
				w.Header().Set("X-Consul-KnownLeader", "true")
				_, _ = io.WriteString(w, body)
			}))
			defer srv.Close()
			c := DefaultConfig()
			c.Address = srv.URL
			client, gate, err := NewGatedClient(c, nil)
			if err != nil {
				b.Fatal(err)
			}
			for i := range 500 {
				gate.join(fmt.Sprint(i))
			}
			gate.joined = time.Time{}
			gate.bucket = bucket{burst: 1 << 30, every: 1}
			src := NewConsul(client, Query{Service: "web"}, c, Env{})
			b.ReportAllocs()
			b.ResetTimer()
			for range b.N {
				if !skip {
					src.last = lastRead{}
				}
				src.loop.index = 7
				if a, err := src.read(b.Context()); err != nil || len(a.set) != 20 {
					b.Fatal(len(a.set), err)
				}
			}
		})
	}
}
