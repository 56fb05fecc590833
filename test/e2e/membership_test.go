package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"outrigger/sidecar/admin"
	"outrigger/test/harness"
)

func TestReadyOnlyAfterTheFirstDiscovery(t *testing.T) {
	t.Parallel()
	port := freePort(t)
	s := launchSidecar(t, sidecarSpec{consul: loopback(port), services: oneService("late", "")})
	s.awaitService("web", "a first failed read", func(doc admin.ServiceDoc) bool { return doc.Discovery.ErrorsTotal > 0 })

	r := get(t, s.admin, "/readyz")
	if r.status != 503 || !strings.Contains(string(r.body), "web") {
		t.Errorf("/readyz without Consul: %d %q, want 503 naming the service", r.status, r.body)
	}
	if r := get(t, s.admin, "/healthz"); r.status != 200 {
		t.Errorf("/healthz without Consul: %d, want 200", r.status)
	}
	if err := refusal(get(t, s.addr(), "/"), "no_backends"); err != nil {
		t.Errorf("a request before the first discovery: %v", err)
	}
	doc, err := s.statusDoc("")
	if err != nil {
		t.Fatal(err)
	}
	if doc.Ready || len(doc.WaitingFor) != 1 || doc.WaitingFor[0] != "web" {
		t.Errorf("status: ready %v, waiting for %v, want false and [web]", doc.Ready, doc.WaitingFor)
	}

	consul := startConsul(t, harness.Options{HTTPPort: port})
	a := startBackend(t, "a")
	catalogOf(t, consul).register("late", a)
	eventually(t, 30*time.Second, "/readyz to say 200 once Consul is up", func() error {
		if r := get(t, s.admin, "/readyz"); r.status != 200 {
			return fmt.Errorf("%d %s", r.status, r.body)
		}
		return nil
	})
	s.awaitReady(1)
	getMany(t, s.addr(), 3)
}

func TestRegisterAndDeregister(t *testing.T) {
	t.Parallel()
	cat, name := sharedCatalog(t), uniqueService(t)
	s := startSidecar(t, sidecarSpec{services: oneService(name, "policy \"round_robin\" {}\nslow_start = \"0s\"")}) // ready though empty
	if err := refusal(get(t, s.addr(), "/"), "no_backends"); err != nil {
		t.Errorf("a request to an empty service: %v", err)
	}

	all := startBackends(t, "a", "b")
	a, b := all[0], all[1]
	idA := cat.register(name, a)
	s.awaitReady(1)
	if by := getMany(t, s.addr(), 10); by["a"] != 10 {
		t.Errorf("answers with a alone: %v", by)
	}
	cat.register(name, b)
	s.awaitReady(2)
	if by := getMany(t, s.addr(), 10); by["a"] != 5 || by["b"] != 5 {
		t.Errorf("answers with a and b under round_robin: %v", by)
	}

	cat.deregister(idA)
	s.awaitEndpoint(idA, "gone", isGone)
	before := a.received()
	if by := getMany(t, s.addr(), 10); by["b"] != 10 {
		t.Errorf("answers after a was deregistered: %v", by)
	}
	if got := a.received(); got != before {
		t.Errorf("a received %d requests after it was gone", got-before)
	}
}

// The last instance is not believed to have left while its backend answers, for as
// long as that does; when it is dead, several consistent reads over empty_confirm
// are enough.
func TestLastInstanceDeregistered(t *testing.T) {
	t.Parallel()
	const confirm = 2 * time.Second
	cat, name := sharedCatalog(t), uniqueService(t)
	a := startBackend(t, "a")
	id := cat.register(name, a)
	s := startSidecar(t, sidecarSpec{inConsul: "empty_confirm = \"2s\"\nbackoff_max = \"1s\"", services: oneService(name, "")})
	s.awaitReady(1)
	getMany(t, s.addr(), 3)

	cat.deregister(id)
	s.awaitService("web", "it to be kept for longer than it takes to confirm", func(d admin.ServiceDoc) bool {
		return d.Discovery.State == "kept" && d.Discovery.Unlisted == 1 && d.Discovery.StateForSeconds != nil && *d.Discovery.StateForSeconds > 2*confirm.Seconds()
	})
	getMany(t, s.addr(), 3)

	a.kill()
	start := time.Now()
	s.awaitService("web", "it to be gone", func(d admin.ServiceDoc) bool { return d.Discovery.State == "empty" && d.EndpointsTotal == 0 })
	t.Logf("believed %v after the backend's death", time.Since(start))
	if err := refusal(get(t, s.addr(), "/"), "no_backends"); err != nil {
		t.Errorf("a request after the last instance left: %v", err)
	}
	if doc := s.web(); doc.WhyNoneReady != "no_backends" || !doc.Discovery.Current {
		t.Errorf("status: why none is ready %q, discovery current %v; want no_backends, true", doc.WhyNoneReady, doc.Discovery.Current)
	}
	if r := get(t, s.admin, "/readyz"); r.status != 200 {
		t.Errorf("/readyz with an empty service: %d, want 200", r.status)
	}

	a.start()
	cat.register(name, a)
	s.awaitReady(1)
	getMany(t, s.addr(), 3)
}

func TestTagsAndFilter(t *testing.T) {
	t.Parallel()
	cat, name := sharedCatalog(t), uniqueService(t)
	all := startBackends(t, "a", "b", "c")
	cat.register(name, all[0], withTags("v1", "blue"), withMeta("zone", "here"))
	cat.register(name, all[1], withTags("v2", "blue"), withMeta("zone", "here"))
	idC := cat.register(name, all[2], withTags("v2"), withMeta("zone", "there"), withTTL)
	discover := func(more string) string { return fmt.Sprintf("discover {\n service = %q\n %s\n}", name, more) }
	s := startSidecar(t, sidecarSpec{services: []block{
		{"tag", discover(`tags = ["v2"]`)},
		{"tags", discover(`tags = ["v2", "blue"]`)},
		{"filter", discover(`filter = "Service.Meta.zone == \"here\" and \"v1\" in Service.Tags"`)},
		{"passing", discover(`only_passing = true`)},
		{"near", discover(`near = "_agent"`)},
	}})
	for service, want := range map[string]string{
		"tag": "b c", "tags": "b", "filter": "a", "passing": "a b c", "near": "a b c",
	} {
		s.awaitService(service, "endpoints "+want, func(doc admin.ServiceDoc) bool {
			return doc.EndpointsReady == len(strings.Fields(want))
		})
		by := getMany(t, s.addrs[service], 60)
		for _, b := range all {
			if got := by[b.name] > 0; got != strings.Contains(want, b.name) {
				t.Errorf("service block %q: answers %v, want some from each of %s alone", service, by, want)
			}
		}
	}

	cat.setTTL(idC, "critical")
	s.awaitService("passing", "c to be left out", func(doc admin.ServiceDoc) bool { return endpointOf(doc, idC) == nil })
	s.awaitService("near", "c to be there and not ready", func(doc admin.ServiceDoc) bool { return notReady(endpointOf(doc, idC)) })
}

// An instance comes back under its ID on another port, as with a scheduler that
// hands out ports, and the old process ends gracefully.
func TestInstanceMovesToANewPort(t *testing.T) {
	t.Parallel()
	cat, name := sharedCatalog(t), uniqueService(t)
	all := startBackends(t, "old", "new", "other")
	was, is := all[0], all[1]
	sameID := func(r *registration) { r.ID = name + "-moving" }
	id := cat.register(name, was, sameID)
	cat.register(name, all[2])
	s := startSidecar(t, sidecarSpec{services: oneService(name, "")})
	s.awaitReady(2)
	l := startLoad(t, loadSpec{addr: s.addr(), clients: 6, think: 2 * time.Millisecond})
	l.awaitFrom(was, 20)

	cat.register(name, is, sameID)
	s.awaitEndpoint(id, "at its new address", func(e *admin.EndpointDoc) bool { return isReady(e) && e.Address == is.addr() })
	if err := was.proc.Stop(slack(10 * time.Second)); err != nil { // SIGTERM: finishes what it has
		t.Error(err)
	}
	if status := was.proc.Wait(); status != 0 {
		t.Errorf("the old backend ended with status %d", status)
	}
	l.awaitFrom(is, 20)
	l.stop().clean(t)
}
