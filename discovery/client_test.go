package discovery

import (
	"context"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/hashicorp/consul/api"
)

// cleanEnv hides the caller's Consul settings.
func cleanEnv(t *testing.T) {
	for _, kv := range os.Environ() {
		if k, _, _ := strings.Cut(kv, "="); strings.HasPrefix(k, "CONSUL_") {
			t.Setenv(k, "")
		}
	}
}

// agent answers health queries and keeps the newest request.
func agent(t *testing.T, body string) (http.Handler, *atomic.Pointer[http.Request]) {
	var last atomic.Pointer[http.Request]
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		last.Store(r)
		w.Header().Set("X-Consul-Index", "7")
		w.Header().Set("X-Consul-KnownLeader", "true")
		w.Header().Set("X-Consul-LastContact", "0")
		fmt.Fprint(w, body)
	}), &last
}

// first returns the first set that a source with this client hands out, or the
// last error when there is none.
func first(t *testing.T, c Config) ([]Instance, error) {
	t.Helper()
	client, err := NewClient(c)
	if err != nil {
		return nil, err
	}
	src := NewConsul(client, Query{Service: "web"}, c, Env{})
	a, err := src.read(t.Context())
	return a.set, err
}

func TestNewClientTCP(t *testing.T) {
	cleanEnv(t)
	h, last := agent(t, entries("a"))
	srv := httptest.NewServer(h)
	defer srv.Close()
	c := DefaultConfig()
	c.Address, c.Token, c.Datacenter = srv.Listener.Addr().String(), "s3cret", "dc7"
	set, err := first(t, c)
	if err != nil || len(set) != 1 {
		t.Fatalf("got %v, %v", set, err)
	}
	if r := last.Load(); r.Header.Get("X-Consul-Token") != "s3cret" || r.URL.Query().Get("dc") != "dc7" {
		t.Errorf("asked %v %v", r.URL, r.Header)
	}
}

func TestNewClientEnvironment(t *testing.T) {
	cleanEnv(t)
	h, last := agent(t, entries("a"))
	srv := httptest.NewServer(h)
	defer srv.Close()
	t.Setenv(api.HTTPAddrEnvName, srv.URL)
	t.Setenv(api.HTTPTokenEnvName, "from-env")
	if set, err := first(t, DefaultConfig()); err != nil || len(set) != 1 {
		t.Fatalf("got %v, %v", set, err)
	}
	if got := last.Load().Header.Get("X-Consul-Token"); got != "from-env" {
		t.Errorf("token %q", got)
	}
	c := DefaultConfig()
	c.Token = "ours"
	if _, err := first(t, c); err != nil {
		t.Fatal(err)
	}
	if got := last.Load().Header.Get("X-Consul-Token"); got != "ours" {
		t.Errorf("token %q: what is set goes before the environment", got)
	}
	t.Setenv(api.HTTPAddrEnvName, "http://user:pw@127.0.0.1:1")
	if _, err := NewClient(DefaultConfig()); err == nil || !strings.Contains(err.Error(), api.HTTPAddrEnvName) || strings.Contains(err.Error(), "pw@") {
		t.Errorf("got %v", err)
	}
}

func TestNewClientUnix(t *testing.T) {
	cleanEnv(t)
	h, _ := agent(t, entries("a"))
	path := filepath.Join(t.TempDir(), "consul.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	var conns atomic.Int32
	srv := httptest.NewUnstartedServer(h)
	srv.Listener.Close()
	srv.Listener = l
	srv.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		if s == http.StateNew {
			conns.Add(1)
		}
	}
	srv.Start()
	defer srv.Close()
	c := DefaultConfig()
	c.Address = "unix://" + path
	client, err := NewClient(c)
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if got, _, err := client.Health().Service("web", "", false, nil); err != nil || len(got) != 1 {
			t.Fatalf("got %v, %v", got, err)
		}
	}
	if n := conns.Load(); n != 1 {
		t.Errorf("%d connections for 3 reads", n)
	}
}

func TestNewClientTLS(t *testing.T) {
	cleanEnv(t)
	h, last := agent(t, entries("a"))
	srv := httptest.NewUnstartedServer(h)
	srv.EnableHTTP2 = true
	srv.Config.ErrorLog = log.New(io.Discard, "", 0) // it tells of the refused certificate
	srv.StartTLS()
	defer srv.Close()
	c := DefaultConfig()
	c.Address = srv.URL
	if _, err := first(t, c); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("an unknown certificate gave %v", err)
	}
	c.TLS.CAFile = filepath.Join(t.TempDir(), "ca.pem")
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw})
	if err := os.WriteFile(c.TLS.CAFile, ca, 0o600); err != nil {
		t.Fatal(err)
	}
	if set, err := first(t, c); err != nil || len(set) != 1 {
		t.Fatalf("got %v, %v", set, err)
	}
	if p := last.Load().Proto; p != "HTTP/2.0" {
		t.Errorf("%s: many reads should share a connection", p)
	}
	c.TLS.CAFile = filepath.Join(t.TempDir(), "none.pem")
	if _, err := NewClient(c); err == nil {
		t.Error("a missing CA file passed")
	}
}

func TestNewClientRefusesInvalid(t *testing.T) {
	c := DefaultConfig()
	c.Wait = 0
	if _, err := NewClient(c); err == nil {
		t.Error("passed")
	}
}

func TestClientDoesNotFollowRedirects(t *testing.T) {
	cleanEnv(t)
	other := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		t.Errorf("the token went elsewhere: %v", r.Header)
	}))
	defer other.Close()
	srv := httptest.NewServer(http.RedirectHandler(other.URL, http.StatusTemporaryRedirect))
	defer srv.Close()
	c := DefaultConfig()
	c.Address, c.Token = srv.URL, "s3cret"
	if _, err := first(t, c); err == nil || !strings.Contains(err.Error(), "307") {
		t.Errorf("got %v", err)
	}
}

func TestClientBoundsAnswers(t *testing.T) {
	cleanEnv(t)
	c := DefaultConfig()
	c.MaxAnswer = 64 << 10
	for _, tc := range []struct {
		size int
		ok   bool
	}{{64 << 10, true}, {64<<10 + 1, false}, {1 << 20, false}} {
		h, _ := agent(t, "["+strings.Repeat(" ", tc.size-2)+"]")
		srv := httptest.NewServer(h)
		c.Address = srv.URL
		if _, err := first(t, c); (err == nil) != tc.ok || err != nil && !strings.Contains(err.Error(), "more than 65536 bytes") {
			t.Errorf("%d bytes: %v", tc.size, err)
		}
		srv.Close()
	}
}

func TestCancelEndsBlockingRead(t *testing.T) {
	cleanEnv(t)
	h, _ := agent(t, entries("a"))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	gone := make(chan struct{})
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get("index") == "" {
			h.ServeHTTP(w, r)
			return
		}
		cancel()
		<-r.Context().Done() // the client hangs up
		close(gone)
	}))
	defer srv.Close()
	c := DefaultConfig()
	c.Address = srv.URL
	client, err := NewClient(c)
	if err != nil {
		t.Fatal(err)
	}
	src := NewConsul(client, Query{Service: "web"}, c, Env{})
	if err := src.Watch(ctx, func([]Instance) {}); err != context.Canceled {
		t.Errorf("got %v", err)
	}
	<-gone
}

func TestClientKeepsManyConnections(t *testing.T) {
	cleanEnv(t)
	const watchers = 30
	h, _ := agent(t, "[]")
	var conns atomic.Int32
	var arrived sync.WaitGroup
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		arrived.Done()
		arrived.Wait() // all at once, each on its own connection
		h.ServeHTTP(w, r)
	}))
	srv.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		if s == http.StateNew {
			conns.Add(1)
		}
	}
	srv.Start()
	defer srv.Close()
	c := DefaultConfig()
	c.Address = srv.URL
	client, err := NewClient(c)
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		arrived.Add(watchers)
		var done sync.WaitGroup
		for range watchers {
			done.Go(func() {
				if _, _, err := client.Health().Service("web", "", false, nil); err != nil {
					t.Error(err)
				}
			})
		}
		done.Wait()
	}
	if n := conns.Load(); n != watchers {
		t.Errorf("%d connections for 3 rounds of %d reads", n, watchers)
	}
}
