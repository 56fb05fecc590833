package discovery_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"outrigger/discovery"
	"outrigger/test/harness"
)

// TestManyServicesOnAnAgent watches more services than a real agent takes
// connections: by fewer than we are told of, and by fewer than there are services.
func TestManyServicesOnAnAgent(t *testing.T) {
	c, writer := startConsul(t, harness.Options{Config: "limits {\n  http_max_conns_per_client = 20\n}\n"})
	const services = 60
	list := func(port int) {
		t.Helper()
		ops := api.TxnOps{{Node: &api.NodeTxnOp{Verb: api.NodeSet, Node: api.Node{Node: "elsewhere", Address: "127.0.0.1"}}}}
		for i := range services {
			name := fmt.Sprintf("s%02d", i)
			ops = append(ops, &api.TxnOp{Service: &api.ServiceTxnOp{Verb: api.ServiceSet, Node: "elsewhere", Service: api.AgentService{ID: name, Service: name, Port: port}}})
		}
		for end := time.Now().Add(patience); ; time.Sleep(50 * time.Millisecond) {
			ok, resp, _, err := writer.Txn().Txn(ops, nil)
			if err == nil && ok {
				return
			}
			if time.Now().After(end) { // the limit counts this connection too
				t.Fatalf("%v %+v", err, resp)
			}
		}
	}
	list(1001)
	cfg := discovery.DefaultConfig()
	cfg.Address, cfg.Spread = c.Addr(), 2*time.Second
	client, gate, err := discovery.NewGatedClient(cfg, nil)
	must(t, err)
	var mu sync.Mutex
	ports := map[string]int{}
	ctx, cancel := context.WithCancel(t.Context())
	var all sync.WaitGroup
	defer all.Wait()
	defer cancel()
	sources := make([]*discovery.Consul, services)
	for i := range sources {
		name := fmt.Sprintf("s%02d", i)
		src := discovery.NewConsul(client, discovery.Query{Service: name}, cfg, discovery.Env{})
		sources[i] = src
		all.Go(func() {
			_ = src.Watch(ctx, func(set []discovery.Instance) {
				mu.Lock()
				defer mu.Unlock()
				if len(set) != 1 {
					t.Errorf("%s: %d instances", name, len(set))
					return
				}
				ports[name] = set[0].Port
			})
		})
	}
	for port := 1001; port <= 1003; port++ {
		if port > 1001 {
			list(port)
		}
		left := services
		for end := time.Now().Add(patience); left > 0; time.Sleep(20 * time.Millisecond) {
			if left = services; time.Now().After(end) {
				t.Fatalf("not all services show port %d: %v, %+v", port, ports, gate.Status())
			}
			mu.Lock()
			for _, p := range ports {
				if p == port {
					left--
				}
			}
			mu.Unlock()
		}
	}
	if s := gate.Status(); s.Limit > 24 || s.Readers != services || s.HTTP2 {
		t.Errorf("gate %+v", s)
	}
	for _, src := range sources {
		if s := src.Status(); s.ErrorsTotal > 0 {
			t.Fatalf("a read failed: %+v", s)
		}
	}
}
