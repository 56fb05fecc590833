package e2e

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"outrigger/test/harness"
)

// catalog registers services at a Consul agent.
type catalog struct {
	t      *testing.T
	client *api.Client
	addr   string
}

var services atomic.Int64

// uniqueService is a service name that no other test has.
func uniqueService(t *testing.T) string {
	return fmt.Sprintf("%s-%d", strings.ToLower(strings.TrimPrefix(strings.Split(t.Name(), "/")[0], "Test")), services.Add(1))
}

// sharedCatalog is that of the Consul that all tests share.
func sharedCatalog(t *testing.T) *catalog { return catalogOf(t, suite.consul) }

func catalogOf(t *testing.T, c *harness.Consul) *catalog {
	t.Helper()
	client, err := c.Client()
	if err != nil {
		t.Fatal(err)
	}
	return &catalog{t: t, client: client, addr: c.Addr()}
}

// startConsul starts a Consul for one test that does not leave it running.
func startConsul(t *testing.T, o harness.Options) *harness.Consul {
	t.Helper()
	o.Path = suite.consulPath
	ctx, cancel := context.WithTimeout(t.Context(), slack(time.Minute))
	defer cancel()
	c, err := harness.StartConsul(ctx, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Stop(); err != nil {
			t.Error(err)
		}
	})
	return c
}

// registration is what a test may change of one.
type registration = api.AgentServiceRegistration

// register puts a backend into the catalog, without a check unless one is set,
// and returns its ID there, which stays with service and backend.
func (c *catalog) register(service string, b *backend, change ...func(*registration)) (id string) {
	c.t.Helper()
	r := &registration{ID: service + "-" + b.name, Name: service, Address: "127.0.0.1", Port: b.port}
	for _, f := range change {
		f(r)
	}
	if err := c.client.Agent().ServiceRegister(r); err != nil {
		c.t.Fatalf("registering %s: %v", r.ID, err)
	}
	return r.ID
}

func (c *catalog) deregister(id string) {
	c.t.Helper()
	if err := c.client.Agent().ServiceDeregister(id); err != nil {
		c.t.Fatalf("deregistering %s: %v", id, err)
	}
}

// setTTL sets the state of an instance's TTL check: passing, warning, critical.
func (c *catalog) setTTL(id, state string) {
	c.t.Helper()
	if err := c.client.Agent().UpdateTTL("service:"+id, "set by a test", state); err != nil {
		c.t.Fatalf("setting the check of %s to %s: %v", id, state, err)
	}
}

// maintenance turns an instance's maintenance mode on or off.
func (c *catalog) maintenance(id string, on bool) {
	c.t.Helper()
	var err error
	if on {
		err = c.client.Agent().EnableServiceMaintenance(id, "a test")
	} else {
		err = c.client.Agent().DisableServiceMaintenance(id)
	}
	if err != nil {
		c.t.Fatalf("maintenance of %s: %v", id, err)
	}
}

func withTTL(r *registration) {
	r.Check = &api.AgentServiceCheck{TTL: "1h", Status: api.HealthPassing}
}

func withWeights(passing, warning int) func(*registration) {
	return func(r *registration) { r.Weights = &api.AgentWeights{Passing: passing, Warning: warning} }
}

func withMeta(key, value string) func(*registration) {
	return func(r *registration) { r.Meta = map[string]string{key: value} }
}

func withTags(tags ...string) func(*registration) {
	return func(r *registration) { r.Tags = tags }
}
