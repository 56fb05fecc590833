package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"outrigger/sidecar/admin"
	"outrigger/test/harness"
)

// registerAt puts a backend into the catalog on a node of its own, which no
// agent looks after.
func (c *catalog) registerAt(node, zone, service string, b *backend) {
	c.t.Helper()
	_, err := c.client.Catalog().Register(&api.CatalogRegistration{
		Node: node, Address: "127.0.0.1", NodeMeta: map[string]string{"zone": zone},
		Service: &api.AgentService{ID: service + "-" + b.name, Service: service, Address: "127.0.0.1", Port: b.port},
	}, nil)
	if err != nil {
		c.t.Fatalf("registering %s on %s: %v", b.name, node, err)
	}
}

// Backups, by tag and by the weight for a warning, serve when no primary can,
// and no longer. No request fails on the way.
func TestBackups(t *testing.T) {
	t.Parallel()
	cat, name := sharedCatalog(t), uniqueService(t)
	all := startBackends(t, "a", "b", "spare")
	idA := cat.register(name, all[0], withTTL)
	idB := cat.register(name, all[1], withTTL, withWeights(10, 2))
	spare := cat.register(name, all[2], withTags("v1", "Backup"))
	s := startSidecar(t, sidecarSpec{services: oneService(name, `slow_start = "500ms"`)})
	s.awaitReady(2)
	standsBy := func(text string) func(*admin.EndpointDoc) bool {
		return func(e *admin.EndpointDoc) bool { return notReady(e) && e.Why == text }
	}
	s.awaitEndpoint(spare, "standing by", standsBy("backup: 2 primaries are ready"))
	l := startLoad(t, loadSpec{addr: s.addr(), clients: 4, think: 2 * time.Millisecond})
	l.awaitFrom(all[0], 20)
	l.awaitFrom(all[1], 20)

	cat.setTTL(idA, "critical")
	s.awaitEndpoint(spare, "standing by for one", standsBy("backup: 1 primary is ready"))
	if n := all[2].received(); n != 0 {
		t.Errorf("the backup received %d requests while primaries were ready", n)
	}
	cat.maintenance(idB, true)
	s.awaitEndpoint(spare, "ready", isReady)
	l.awaitFrom(all[2], 20)

	cat.maintenance(idB, false)
	s.awaitEndpoint(spare, "standing by again", standsBy("backup: 1 primary is ready"))
	l.awaitFrom(all[1], 20)
	before := all[2].received()
	l.awaitFrom(all[1], 20)
	if n := all[2].received() - before; n > 4 { // one each that was on its way
		t.Errorf("the backup received %d requests after a primary had returned", n)
	}
	l.stop().clean(t)
}

// A warning makes an instance a backup where its weight says so.
func TestBackupByWeight(t *testing.T) {
	t.Parallel()
	cat, name := sharedCatalog(t), uniqueService(t)
	all := startBackends(t, "a", "b")
	cat.register(name, all[0], withTTL, withWeights(10, 1))
	idB := cat.register(name, all[1], withTTL, withWeights(10, 1))
	s := startSidecar(t, sidecarSpec{services: []block{{"web", fmt.Sprintf("discover {\n service = %q\n backup_weight = 1\n}", name)}}})
	s.awaitReady(2)
	cat.setTTL(idB, "warning")
	s.awaitEndpoint(idB, "a backup", func(e *admin.EndpointDoc) bool { return notReady(e) && strings.HasPrefix(e.Why, "backup: ") })
	if by := getMany(t, s.addr(), 50); by["a"] != 50 {
		t.Errorf("answers %v, want all from the one that passes", by)
	}
	if err := all[0].proc.Stop(slack(10 * time.Second)); err != nil {
		t.Error(err)
	}
	if by := getMany(t, s.addr(), 20); by["b"] != 20 {
		t.Errorf("answers %v, want all from the one that warns", by)
	}
}

// What runs in the agent's zone is preferred; what is elsewhere serves when the
// zone has nothing, or too much to do.
func TestZonePreference(t *testing.T) {
	t.Parallel()
	consul := startConsul(t, harness.Options{Config: `node_meta { zone = "east" }`})
	cat, name := catalogOf(t, consul), uniqueService(t)
	all := startBackends(t, "same", "zone", "far")
	id := cat.register(name, all[0], withTTL)
	cat.registerAt("n2", "east", name, all[1])
	cat.registerAt("n3", "west", name, all[2])
	discover := fmt.Sprintf("discover { service = %q }\n", name)
	s := startSidecar(t, sidecarSpec{consul: consul.Addr(), services: []block{
		{"zone", discover + `locality { prefer = ["zone"] }`},
		{"node", discover + `locality { prefer = ["node", "zone"] }`},
		{"west", discover + "locality {\n prefer = [\"zone\"]\n zone = \"west\"\n}"},
		{"any", discover},
	}})
	for service, want := range map[string]string{"zone": "same zone", "node": "same", "west": "far", "any": "same zone far"} {
		s.awaitService(service, "its place to be known", func(doc admin.ServiceDoc) bool {
			return doc.EndpointsReady == 3 && strings.HasPrefix(doc.Mode, "nearest first: ") == (service != "any")
		})
		by := getMany(t, s.addrs[service], 60)
		for _, b := range all {
			if got := by[b.name] > 0; got != strings.Contains(want, b.name) {
				t.Errorf("service block %q: answers %v, want some from each of %s alone", service, by, want)
			}
		}
	}

	// Requests that stay spill over from the node to the zone and beyond, each
	// time that there are more than twice as many, and one more, at the nearer.
	var held []*pending
	want := map[*backend]int64{}
	for _, i := range []int{0, 0, 1, 2, 0, 0, 1, 2} {
		held = append(held, send(s.addrs["node"], "/hold"))
		want[all[i]]++
		all[i].awaitHeld(want[all[i]])
	}
	for _, b := range all {
		b.release()
	}
	for _, p := range held {
		p.answer(t)
	}
	s.awaitIdle("node")

	cat.setTTL(id, "critical")
	s.awaitService("node", "the near one to be out", func(doc admin.ServiceDoc) bool { return doc.EndpointsReady == 2 })
	if by := getMany(t, s.addrs["node"], 20); by["zone"] != 20 {
		t.Errorf("answers %v, want all from the same zone", by)
	}
}
