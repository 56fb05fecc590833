package discovery_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"outrigger/discovery"
	"outrigger/test/harness"
)

// TestFailoverOnConsul: another service and a fixed list behind one in Consul.
func TestFailoverOnConsul(t *testing.T) {
	c, client := startConsul(t, harness.Options{})
	put := func(name, id string) {
		must(t, client.Agent().ServiceRegister(&api.AgentServiceRegistration{Name: name, ID: id, Port: 8000, Address: "127.0.0.1"}))
	}
	put("main", "main-1")
	put("main-old", "web-1")
	cfg := discovery.DefaultConfig()
	cfg.Address, cfg.EmptyConfirm = c.Addr(), time.Second
	source := func(name string) discovery.Source {
		return discovery.NewConsul(client, discovery.Query{Service: name}, cfg, discovery.Env{Probe: dead})
	}
	last := discovery.NewStatic([]discovery.Instance{{ID: "10.9.0.1:80", Address: "10.9.0.1", Port: 80, Weight: 1}})
	src := discovery.NewFailover(source("main"), []discovery.Named{{Name: "old", Source: source("main-old")}, {Name: "last", Source: last}})
	sets := make(chan []discovery.Instance, 100)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- src.Watch(ctx, func(set []discovery.Instance) { sets <- set }) }()
	until := func(want string) {
		t.Helper()
		got, late := "", time.After(patience)
		for got != want {
			select {
			case set := <-sets:
				var ids []string
				for _, i := range set {
					ids = append(ids, fmt.Sprintf("%d:%s:%s", i.Tier, i.Fallback(), i.ServiceID()))
				}
				got = strings.Join(ids, " ")
			case err := <-done:
				t.Fatalf("it ended with %v", err)
			case <-late:
				t.Fatalf("got %q at last, want %q", got, want)
			}
		}
	}
	until("0::main-1 1:old:web-1 2:last:")
	put("main-old", "web-2")
	until("0::main-1 1:old:web-1 1:old:web-2 2:last:")
	must(t, client.Agent().ServiceDeregister("web-1"))
	must(t, client.Agent().ServiceDeregister("main-1"))
	put("main", "web-3")
	until("0::web-3 1:old:web-2 2:last:")
	untilStatus(t, src, "of one and both fallbacks", func(st discovery.Status) bool {
		return st.Seen && len(st.Fallbacks) == 2 && st.Fallbacks[0].Instances == 1 &&
			!slices.ContainsFunc(st.Fallbacks, func(n discovery.NamedStatus) bool { return !n.Seen })
	})
	cancel()
	if err := <-done; err != context.Canceled {
		t.Errorf("it ended with %v", err)
	}
}
