package e2e

import (
	"fmt"
	"net"
	"strconv"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"outrigger/sidecar/admin"
	"outrigger/test/harness"
)

// twoDatacenters are two Consuls that know each other as dc1 and dc2.
func twoDatacenters(t *testing.T) (near, far *harness.Consul) {
	t.Helper()
	near = startConsul(t, harness.Options{Config: `datacenter = "dc1"`})
	far = startConsul(t, harness.Options{Config: `datacenter = "dc2"`})
	here, there := catalogOf(t, near), catalogOf(t, far)
	wan, err := there.client.Agent().Members(true)
	if err != nil || len(wan) != 1 {
		t.Fatalf("the far datacenter has the servers %v, %v", wan, err)
	}
	addr := net.JoinHostPort("127.0.0.1", strconv.Itoa(int(wan[0].Port)))
	if err := here.client.Agent().Join(addr, true); err != nil {
		t.Fatal(err)
	}
	eventually(t, 30*time.Second, "the datacenters to reach each other", func() error {
		_, _, err := here.client.Health().Service("consul", "", true, &api.QueryOptions{Datacenter: "dc2"})
		return err
	})
	return near, far
}

// The instances of another datacenter stand in for one's own, found by a fallback
// of the sidecar's and by a prepared query of Consul's; and they go on when that
// datacenter's Consul dies in turn, which is then all there is.
func TestFailoverToAnotherDatacenter(t *testing.T) {
	t.Parallel()
	near, far := twoDatacenters(t)
	here, there, name := catalogOf(t, near), catalogOf(t, far), uniqueService(t)
	all := startBackends(t, "home", "abroad")
	home, abroad := all[0], all[1]
	id := here.register(name, home, withTTL)
	there.register(name, abroad, withTTL)
	query := &api.PreparedQueryDefinition{Name: name + "-query", Service: api.ServiceQuery{
		Service: name, OnlyPassing: true, Failover: api.QueryFailoverOptions{Datacenters: []string{"dc2"}},
	}}
	if _, _, err := here.client.PreparedQuery().Create(query, nil); err != nil {
		t.Fatal(err)
	}
	s := startSidecar(t, sidecarSpec{consul: near.Addr(), services: []block{
		{"web", fmt.Sprintf("discover {\n service = %q\n fallback \"far\" { datacenter = \"dc2\" }\n}\n"+
			"failover { return = \"0s\" }\nslow_start = \"0s\"", name)},
		{"query", fmt.Sprintf("discover \"prepared_query\" {\n name = %q\n poll = \"1s\"\n}\nslow_start = \"0s\"", query.Name)},
	}})
	s.awaitService("web", "both tiers", func(d admin.ServiceDoc) bool {
		return d.Tier == "primary" && len(d.Discovery.Fallbacks) == 1 && d.Discovery.Fallbacks[0].State == "current" && d.EndpointsTotal == 2
	})
	s.awaitService("query", "an answer of dc1", func(d admin.ServiceDoc) bool {
		return d.EndpointsReady == 1 && d.Discovery.Datacenter == "dc1"
	})
	web := startLoad(t, loadSpec{addr: s.addrs["web"], clients: 3})
	asked := startLoad(t, loadSpec{addr: s.addrs["query"], clients: 3})
	web.awaitFrom(home, 20)
	asked.awaitFrom(home, 20)
	if n := abroad.received(); n > 0 {
		t.Errorf("the other datacenter received %d requests while one's own was well", n)
	}

	here.setTTL(id, "critical")
	web.awaitFrom(abroad, 20)
	asked.awaitFrom(abroad, 20)
	s.awaitService("web", "the fallback", func(d admin.ServiceDoc) bool { return d.Tier == "far" && !d.Panic })
	s.awaitService("query", "an answer of dc2", func(d admin.ServiceDoc) bool { return d.Discovery.Datacenter == "dc2" })

	far.Kill()
	s.awaitService("web", "the other datacenter to be lost", func(d admin.ServiceDoc) bool {
		return d.Discovery.State == "current" && d.Discovery.Fallbacks[0].State == "failing" && d.Tier == "far"
	})
	web.awaitFrom(abroad, 20)
	asked.awaitMore(20)
	here.setTTL(id, "passing")
	web.awaitFrom(home, 20)
	asked.awaitFrom(home, 20)
	s.awaitService("web", "one's own again", func(d admin.ServiceDoc) bool { return d.Tier == "primary" })
	web.stop().clean(t)
	asked.stop().clean(t)
}
