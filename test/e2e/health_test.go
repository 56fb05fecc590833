package e2e

import (
	"fmt"
	"testing"

	"github.com/hashicorp/consul/api"

	"outrigger/sidecar/admin"
)

func TestCriticalLeavesAndReturns(t *testing.T) {
	for _, kind := range []struct {
		name  string
		check func(b *backend) *api.AgentServiceCheck
		set   func(cat *catalog, b *backend, id string, well bool)
	}{
		{"TTL",
			func(*backend) *api.AgentServiceCheck {
				return &api.AgentServiceCheck{TTL: "1h", Status: api.HealthPassing}
			},
			func(cat *catalog, _ *backend, id string, well bool) {
				cat.setTTL(id, map[bool]string{true: "passing", false: "critical"}[well])
			}},
		{"HTTP",
			func(b *backend) *api.AgentServiceCheck {
				return &api.AgentServiceCheck{
					HTTP: "http://" + b.addr() + "/health", Interval: "1s", Timeout: "5s", Status: api.HealthPassing,
				}
			},
			func(_ *catalog, b *backend, _ string, well bool) {
				b.control(fmt.Sprintf("/ctl/set?health=%d", map[bool]int{true: 200, false: 500}[well]))
			}},
	} {
		t.Run(kind.name, func(t *testing.T) {
			t.Parallel()
			criticalLeavesAndReturns(t, kind.check, kind.set)
		})
	}
}

func criticalLeavesAndReturns(t *testing.T, check func(*backend) *api.AgentServiceCheck,
	set func(cat *catalog, b *backend, id string, well bool)) {
	cat, name := sharedCatalog(t), uniqueService(t)
	all := startBackends(t, "a", "b")
	a := all[0]
	id := cat.register(name, a, func(r *registration) { r.Check = check(a) })
	cat.register(name, all[1])
	s := startSidecar(t, sidecarSpec{services: oneService(name, "policy \"round_robin\" {}\nslow_start = \"0s\"")})
	s.awaitReady(2)
	getMany(t, s.addr(), 20)
	s.awaitEndpoint(id, "told of its 10 requests", func(e *admin.EndpointDoc) bool { return e.RequestsTotal == 10 })

	set(cat, a, id, false)
	s.awaitEndpoint(id, "critical", func(e *admin.EndpointDoc) bool {
		return notReady(e) && e.Health == "critical" && e.Why == "critical"
	})
	before := a.received()
	if by := getMany(t, s.addr(), 10); by["b"] != 10 {
		t.Errorf("answers while a is critical: %v", by)
	}
	if got := a.received(); got != before {
		t.Errorf("a received %d requests while it was critical", got-before)
	}

	set(cat, a, id, true)
	s.awaitEndpoint(id, "ready again", isReady)
	if e := endpointOf(s.web(), id); e.RequestsTotal != 10 || e.SuccessesTotal != 10 {
		t.Errorf("after its return a has %d requests and %d successes, want the 10 from before", e.RequestsTotal, e.SuccessesTotal)
	}
	if by := getMany(t, s.addr(), 20); by["a"] != 10 {
		t.Errorf("answers after a's return: %v", by)
	}
	s.awaitEndpoint(id, "at 20 requests", func(e *admin.EndpointDoc) bool { return e.RequestsTotal == 20 && e.SuccessesTotal == 20 })
}

func TestWeights(t *testing.T) {
	t.Parallel()
	cat, name := sharedCatalog(t), uniqueService(t)
	all := startBackends(t, "a", "b")
	a, b := all[0], all[1]
	cat.register(name, a, withWeights(1, 1))
	idB := cat.register(name, b, withTTL, withWeights(4, 1))
	s := startSidecar(t, sidecarSpec{services: oneService(name, `policy "round_robin" {}`)})

	shares := func(weight int, health, want string, low, high int) {
		t.Helper()
		s.awaitEndpoint(idB, fmt.Sprintf("%s with weight %d", health, weight), func(e *admin.EndpointDoc) bool {
			return isReady(e) && e.Weight == weight && e.Health == health
		})
		if by := getMany(t, s.addr(), 100); by["b"] < low || by["b"] > high {
			t.Errorf("b is %s and weighs %d to a's 1: answers %v, want %s of 100 from b", health, weight, by, want)
		}
	}
	s.awaitReady(2)
	shares(4, "passing", "about 80", 75, 85)
	cat.register(name, b, withTTL, withWeights(1, 1))
	shares(1, "passing", "about 50", 45, 55)
	cat.register(name, b, withTTL, withWeights(9, 3))
	shares(9, "passing", "about 90", 86, 94)
	cat.setTTL(idB, "warning")
	shares(3, "warning", "about 75", 70, 80)
	cat.setTTL(idB, "passing")
	shares(9, "passing", "about 90", 86, 94)
}

// Weight 0 (for an instance that warns) and maintenance take new requests away
// from a backend and let what it has finish.
func TestDraining(t *testing.T) {
	t.Parallel()
	for _, how := range []struct {
		name, why string
		on, off   func(cat *catalog, id string)
	}{
		{"WeightZero", "draining (weight 0)",
			func(cat *catalog, id string) { cat.setTTL(id, "warning") },
			func(cat *catalog, id string) { cat.setTTL(id, "passing") }},
		{"Maintenance", "maintenance",
			func(cat *catalog, id string) { cat.maintenance(id, true) },
			func(cat *catalog, id string) { cat.maintenance(id, false) }},
	} {
		t.Run(how.name, func(t *testing.T) {
			t.Parallel()
			cat, name := sharedCatalog(t), uniqueService(t)
			all := startBackends(t, "a", "b")
			a := all[0]
			id := cat.register(name, a, withTTL, withWeights(1, 0))
			s := startSidecar(t, sidecarSpec{services: oneService(name, "")})
			s.awaitReady(1)
			running := send(s.addr(), "/hold")
			a.awaitHeld(1)
			cat.register(name, all[1])
			s.awaitReady(2)

			how.on(cat, id)
			s.awaitEndpoint(id, "drained: "+how.why, func(e *admin.EndpointDoc) bool {
				return notReady(e) && e.Weight == 0 && e.Why == how.why && e.InFlight == 1
			})
			if by := getMany(t, s.addr(), 10); by["b"] != 10 {
				t.Errorf("answers while a drains: %v", by)
			}
			running.waiting(t)
			a.release()
			if r := running.answer(t); string(r.body) != "held by a\n" {
				t.Errorf("the request that was running ended with %q", r.body)
			}
			if got := a.received(); got != 1 {
				t.Errorf("a received %d requests, want only the one that was running", got)
			}

			how.off(cat, id)
			s.awaitEndpoint(id, "ready again", isReady)
			if by := getMany(t, s.addr(), 60); by["a"] == 0 {
				t.Errorf("answers after a drained no longer: %v", by)
			}
		})
	}
}
