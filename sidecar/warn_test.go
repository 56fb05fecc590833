package sidecar

import (
	"context"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hashicorp/go-hclog"

	"outrigger/discovery"
)

// logOf returns what is logged when a sidecar with the service is made.
func logOf(t *testing.T, set func(*ServiceConfig)) (*Sidecar, *strings.Builder) {
	t.Helper()
	cfg := DefaultConfig()
	cfg.Consul.Address, cfg.Admin.Listen = "127.0.0.1:1", "127.0.0.1:0"
	s := DefaultService("web")
	s.Listen = "127.0.0.1:0"
	set(&s)
	cfg.Services = []ServiceConfig{s}
	var log strings.Builder
	sc, err := New(cfg, hclog.New(&hclog.LoggerOptions{Output: &log, Level: hclog.Warn}), "test")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = sc.closeListeners() })
	return sc, &log
}

// Clients that are told apart by nothing are warned of, and no others.
func TestOneKeyIsWarnedOf(t *testing.T) {
	socket := "unix:" + filepath.Join(t.TempDir(), "web.sock")
	for _, c := range []struct {
		listen, policy, on string
		trust              []string
		want               bool
	}{
		{"127.0.0.1:0", "consistent_hash", "source", nil, true},
		{"localhost:0", "consistent_hash", "source", nil, true},
		{socket, "consistent_hash", "source", nil, true},
		{"127.0.0.1:0", "consistent_hash", "source", []string{"127.0.0.0/8"}, false},
		{"127.0.0.1:0", "consistent_hash", "path", nil, false},
		{"127.0.0.1:0", "least_conn", "source", nil, false},
		{":0", "consistent_hash", "source", nil, false},
	} {
		_, log := logOf(t, func(s *ServiceConfig) {
			s.Listen, s.Balance.Picker.Policy, s.Balance.Picker.Hash.On, s.HTTP.Forward.Trust = c.listen, c.policy, c.on, c.trust
		})
		if n := strings.Count(log.String(), "one key"); n > 1 || (n == 1) != c.want {
			t.Errorf("%+v: log %q", c, log)
		}
	}
}

// A zone that nothing tells is warned of once; the key is all that is kept of the
// nodes' meta.
func TestUnknownZoneIsWarnedOf(t *testing.T) {
	for _, c := range []struct {
		prefer, zone string
		want         int
	}{
		{"zone", "", 1}, {"zone", "a", 0}, {"node", "", 0},
	} {
		sc, log := logOf(t, func(s *ServiceConfig) {
			s.Balance.Locality.Prefer, s.Balance.Locality.Zone = []string{c.prefer}, c.zone
		})
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			_, _ = w.Write([]byte(`{"Config": {"NodeName": "n1", "Datacenter": "dc1"}, "Meta": {"az": "a"}}`))
		}))
		t.Cleanup(srv.Close)
		cfg := sc.cfg.Consul
		cfg.Address = srv.URL
		client, err := discovery.NewClient(cfg)
		if err != nil {
			t.Fatal(err)
		}
		sc.client = client
		sc.locate(context.Background())
		if n := strings.Count(log.String(), "does not say which it is in"); n != c.want || n > 0 && !strings.Contains(log.String(), "zone_meta=zone") {
			t.Errorf("%+v: log %q", c, log)
		}
	}
}

// A token in clear is warned of once for all services.
func TestTokenIsWarnedOf(t *testing.T) {
	for token, want := range map[string]int{"": 0, "0123456789abcdef": 1} {
		cfg := DefaultConfig()
		cfg.Consul.Address, cfg.Admin.Listen, cfg.Agents.Token = "127.0.0.1:1", "127.0.0.1:0", token
		for _, name := range []string{"web", "api"} {
			s := DefaultService(name)
			s.Listen = "127.0.0.1:0"
			cfg.Services = append(cfg.Services, s)
		}
		var log strings.Builder
		sc, err := New(cfg, hclog.New(&hclog.LoggerOptions{Output: &log, Level: hclog.Warn}), "test")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = sc.closeListeners() })
		if n := strings.Count(log.String(), "token goes in clear"); n != want || token != "" && strings.Contains(log.String(), token) {
			t.Errorf("token %q: log %q", token, log.String())
		}
	}
}
