package sidecar

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hashicorp/go-hclog"

	"outrigger/discovery"
)

// startBefore runs a sidecar until the test ends, before servers that say their
// names. Consul does not answer; what it would say is told to the balancer.
func startBefore(t *testing.T, set func(*Config, *ServiceConfig), names ...string) (url string) {
	t.Helper()
	cfg := DefaultConfig()
	cfg.Consul.Address = "127.0.0.1:1"
	cfg.Admin.Listen = "127.0.0.1:0"
	s := DefaultService("web")
	s.Listen = "127.0.0.1:0"
	s.Balance.Picker.Policy = "round_robin"
	set(&cfg, &s)
	cfg.Services = []ServiceConfig{s}
	sc, err := New(cfg, hclog.NewNullLogger(), "test")
	if err != nil {
		t.Fatal(err)
	}
	var list []discovery.Instance
	for _, name := range names {
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.WriteString(w, name+" "+r.Header.Get("Cookie"))
		}))
		t.Cleanup(srv.Close)
		a := netip.MustParseAddrPort(srv.Listener.Addr().String())
		list = append(list, discovery.Instance{ID: name, Address: a.Addr().String(), Port: int(a.Port()), Weight: 1})
	}
	sc.services[0].balancer.Update(list)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- sc.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return "http://" + sc.Addr("web").String() + "/"
}

// ask sends a request with the header and returns the answer, and the cookie that
// it sets.
func ask(t *testing.T, url, name, value string) (body, cookie string) {
	t.Helper()
	req, err := http.NewRequest("GET", url, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set(name, value)
	req.Close = true
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != 200 {
		t.Fatalf("%s %s, %v", res.Status, b, err)
	}
	for _, c := range res.Cookies() {
		cookie = c.Name + "=" + c.Value
	}
	return strings.TrimSpace(string(b)), cookie
}

// A client stays with its backend while sidecars come and go, by a secret or by
// a state directory; with another it does not.
func TestAffinityOverRestarts(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	inState := func(c *Config, s *ServiceConfig) { c.StateDir, s.HTTP.Affinity.Cookie = dir, "pin" }
	bySecret := func(_ *Config, s *ServiceConfig) {
		s.HTTP.Affinity.Cookie, s.HTTP.Affinity.Secret = "pin", "0123456789abcdef"
	}
	for name, set := range map[string]func(*Config, *ServiceConfig){"state": inState, "secret": bySecret} {
		body, cookie := ask(t, startBefore(t, set, "a", "b", "c"), "Cookie", "x=y")
		if cookie == "" {
			t.Fatalf("%s: no cookie", name)
		}
		for range 3 {
			url := startBefore(t, set, "a", "b", "c")
			for range 2 {
				if got, again := ask(t, url, "Cookie", "x=y; "+cookie); got != body || again != "" {
					t.Errorf("%s: %q, before a restart %q; set %q", name, got, body, again)
				}
			}
		}
		another := func(c *Config, s *ServiceConfig) {
			set(c, s)
			s.HTTP.Affinity.Secret += " and yet another one"
		}
		if _, again := ask(t, startBefore(t, another, "a", "b", "c"), "Cookie", cookie); again == "" {
			t.Errorf("%s: one with another secret takes the cookie", name)
		}
	}
}

func TestHashKeyIsWired(t *testing.T) {
	url := startBefore(t, func(_ *Config, s *ServiceConfig) {
		p := &s.Balance.Picker
		p.Policy, p.Hash.On, p.Hash.Name = "consistent_hash", "header", "X-User"
		p.Hash.Balance = 0 // a lease ends a moment after its client has the answer
	}, "a", "b", "c")
	used := map[string]bool{}
	for _, user := range strings.Fields("ann bob cat dan eve fay gus hal ida jon kim leo") {
		first, _ := ask(t, url, "X-User", user)
		used[first] = true
		for range 3 {
			if got, _ := ask(t, url, "x-user", user); got != first {
				t.Errorf("%s went to %s, before to %s", user, got, first)
			}
		}
	}
	if len(used) != 3 {
		t.Errorf("backends used: %v", used)
	}
	s := DefaultService("web")
	s.Balance.Shadow = s.Balance.Picker
	s.Balance.Shadow.Policy, s.Balance.Shadow.Hash.On = "consistent_hash", "path"
	if s.engine().Hash.On != "path" {
		t.Error("a shadow's key is not computed")
	}
}
