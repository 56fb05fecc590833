package register_test

import (
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"outrigger/agentstats/register"
)

func TestRegistersWithCheckAndMeta(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	r.cfg.Tags = []string{"v1", "blue"}
	r.cfg.Meta = map[string]string{"zone": "a"}
	r.cfg.Weight, r.cfg.WarningWeight = 10, 3
	r.cfg.Check.Kind, r.cfg.Check.Path, r.cfg.Check.Method = register.CheckHTTP, "/health?deep=1", "POST"
	r.cfg.Check.Headers = map[string][]string{"X-Check": {"consul"}}
	r.sick.Store(true)
	a := r.start()
	e := r.await("the registration", func(e *api.ServiceEntry) bool { return e != nil })
	if passing(e) {
		t.Error("passing before a check has passed")
	}
	r.sick.Store(false)
	e = r.await("the check to pass", passing)
	s := e.Service
	want := r.cfg.Service + "-127.0.0.1-" + port(r.cfg.Port)
	if s.ID != want || a.ID() != want || s.Port != r.cfg.Port || s.Address != "127.0.0.1" {
		t.Errorf("registered %s at %s:%d, want %s at its address", s.ID, s.Address, s.Port, want)
	}
	if !slices.Equal(s.Tags, r.cfg.Tags) || !maps.Equal(s.Meta, map[string]string{"zone": "a", "outrigger_agent": "9912"}) ||
		s.Weights != (api.AgentWeights{Passing: 10, Warning: 3}) {
		t.Errorf("registered with tags %v, meta %v, weights %v", s.Tags, s.Meta, s.Weights)
	}
	for _, c := range e.Checks {
		if c.CheckID == "service:"+want && !strings.Contains(c.Output, "POST /health consul") {
			t.Errorf("the check saw %q, want that the backend was asked POST /health with the header", c.Output)
		}
	}
	// The written registration compares equal to what Consul made of it, or it
	// would be written for ever.
	for before := a.Status().LastLook; !a.Status().LastLook.After(before.Add(2 * r.cfg.Refresh)); time.Sleep(10 * time.Millisecond) {
	}
	if s := a.Status(); s.Written != 1 || !s.Registered || s.Errors != 0 {
		t.Errorf("status %+v, want one write", s)
	}
}

func TestDeadBackendIsCritical(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{register.CheckTCP, register.CheckHTTP} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, nil)
			r.cfg.Check.Kind = kind
			r.start()
			r.await("the check to pass", passing)
			r.up.Close()
			r.await("the check to fail", func(e *api.ServiceEntry) bool {
				return e.Checks.AggregatedStatus() == api.HealthCritical
			})
		})
	}
}

// A check of the instance that an earlier configuration had is taken away.
func TestNoCheckLeavesNoCheck(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	first := r.start()
	r.await("the check to pass", passing)
	first.end()
	r.cfg.Check.Kind = register.CheckNone
	a := r.start()
	e := r.await("the check to be gone", func(e *api.ServiceEntry) bool {
		return !slices.ContainsFunc(e.Checks, func(c *api.HealthCheck) bool { return c.ServiceID == a.ID() })
	})
	if !passing(e) {
		t.Errorf("without a check it is %s", e.Checks.AggregatedStatus())
	}
}

// A Consul agent that comes back empty gets the registration again, and with it
// the health that the backend had.
func TestConsulRestartsEmpty(t *testing.T) {
	t.Parallel()
	c := ownConsul(t, "", "")
	r := newRig(t, c)
	r.cfg.Check.Interval = time.Hour // nobody waits for this one
	r.cfg.Check.Kind = register.CheckTCP
	a := r.start()
	r.await("the registration", func(e *api.ServiceEntry) bool { return e != nil })
	// The check's first run is up to an hour away: set what it would find.
	r.setCheck(a, api.HealthPassing)
	eventually(t, "the health to be seen", func() bool { return passing(r.entry()) })
	looked := a.Status().LastLook
	eventually(t, "two more looks", func() bool { return a.Status().LastLook.After(looked.Add(2 * r.cfg.Refresh)) })
	c.Kill()
	eventually(t, "the outage to be noticed", func() bool { return a.Status().LastError != "" })
	if err := c.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	if e := r.await("the registration to be back", func(e *api.ServiceEntry) bool { return e != nil }); !passing(e) {
		t.Errorf("it came back %s", e.Checks.AggregatedStatus())
	}
	eventually(t, "the end of the outage in the log", func() bool { return r.logs.count("Consul answers again") == 1 })
	for text, want := range map[string]int{"[WARN]  cannot register": 1, "restarted without its data": 1, "registered in Consul:": 1} {
		if got := r.logs.count(text); got != want {
			t.Errorf("%q is %d times in the log, want %d", text, got, want)
		}
	}
}

// setCheck registers a TTL check in place of the agent's own, which the test then
// decides on.
func (r *rig) setCheck(a *agent, status string) {
	r.t.Helper()
	err := r.client.Agent().CheckRegister(&api.AgentCheckRegistration{
		ID: "service:" + a.ID(), Name: "test", ServiceID: a.ID(),
		AgentServiceCheck: api.AgentServiceCheck{TTL: "1h", Status: status},
	})
	if err == nil {
		err = r.client.Agent().UpdateTTL("service:"+a.ID(), "", status)
	}
	if err != nil {
		r.t.Fatal(err)
	}
}

func TestStartsWhileConsulIsDown(t *testing.T) {
	t.Parallel()
	c := ownConsul(t, "", "")
	c.Kill()
	r := newRig(t, c)
	a := r.start()
	eventually(t, "some tries", func() bool { return a.Status().Errors >= 3 })
	if err := c.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.await("the registration", passing)
	if n := r.logs.count("[WARN]"); n != 1 {
		t.Errorf("%d warnings for one outage, want 1", n)
	}
}

func TestDeregisteredBySomebodyElse(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	a := r.start()
	r.await("the check to pass", passing)
	for n := range 3 {
		written := a.Status().Written
		if err := r.client.Agent().ServiceDeregister(a.ID()); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the registration to be written again", func() bool { return a.Status().Written == written+1 })
		r.await("the registration to be back", func(e *api.ServiceEntry) bool { return e != nil })
		if got := r.logs.count("keeps undoing"); (got > 0) != (n > 0) {
			t.Errorf("after %d deregistrations the log has %d times that somebody keeps undoing it", n+1, got)
		}
	}
}

func TestChangedBySomebodyElse(t *testing.T) {
	t.Parallel()
	changes := map[string]func(*api.AgentServiceRegistration){
		"port":    func(s *api.AgentServiceRegistration) { s.Port++ },
		"address": func(s *api.AgentServiceRegistration) { s.Address = "127.0.0.2" },
		"meta":    func(s *api.AgentServiceRegistration) { s.Meta = nil },
		"tags":    func(s *api.AgentServiceRegistration) { s.Tags = []string{"theirs"} },
		"weights": func(s *api.AgentServiceRegistration) { s.Weights = &api.AgentWeights{Passing: 7, Warning: 7} },
	}
	for what, change := range changes {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, nil)
			a := r.start()
			before := r.await("the check to pass", passing).Service
			theirs := &api.AgentServiceRegistration{ID: a.ID(), Name: r.cfg.Service, Port: before.Port, Address: before.Address, Meta: before.Meta, Weights: &before.Weights}
			change(theirs)
			if err := r.client.Agent().ServiceRegister(theirs); err != nil {
				t.Fatal(err)
			}
			r.awaitLog("changed: " + what)
			r.await("ours to be back", func(e *api.ServiceEntry) bool {
				s := e.Service
				return s.Port == before.Port && s.Address == before.Address && maps.Equal(s.Meta, before.Meta) &&
					slices.Equal(s.Tags, before.Tags) && s.Weights == before.Weights
			})
		})
	}
}

func TestTagOverrideLeavesTags(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	r.cfg.TagOverride, r.cfg.Tags = true, []string{"ours"}
	a := r.start()
	r.await("the check to pass", passing)
	theirs := &api.AgentServiceRegistration{
		ID: a.ID(), Name: r.cfg.Service, Port: r.cfg.Port + 1, Address: "127.0.0.1",
		Meta: map[string]string{"outrigger_agent": "9912"}, Tags: []string{"theirs"}, EnableTagOverride: true,
	}
	if err := r.client.Agent().ServiceRegister(theirs); err != nil {
		t.Fatal(err)
	}
	e := r.await("the port to be ours", func(e *api.ServiceEntry) bool {
		return e.Service.Port == r.cfg.Port && r.logs.count("changed: port") > 0
	})
	if !slices.Equal(e.Service.Tags, []string{"theirs"}) {
		t.Errorf("tags %v, want theirs", e.Service.Tags)
	}
}

// Two agents that want one ID do not write in a tight loop, and say what is wrong.
func TestTwoAgentsWithOneID(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	r.cfg.ID = r.cfg.Service + "-the-same"
	a := r.start()
	r.await("the check to pass", passing)
	r.cfg.Port++
	b := r.start()
	eventually(t, "a word about it", func() bool { return r.logs.count("another agent with this id") > 0 })
	start, written := time.Now(), a.Status().Written+b.Status().Written
	eventually(t, "a few more writes", func() bool { return a.Status().Written+b.Status().Written >= written+4 })
	if took := time.Since(start); took < time.Second {
		t.Errorf("four writes against each other took only %v", took)
	}
}

func TestOperatorsMaintenanceIsLeft(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	a := r.start()
	r.await("the check to pass", passing)
	if err := r.client.Agent().EnableServiceMaintenance(a.ID(), "disk full, Jo"); err != nil {
		t.Fatal(err)
	}
	r.awaitLog("disk full, Jo")
	if got := a.Status().Maintenance; got != "disk full, Jo" {
		t.Errorf("status says maintenance %q", got)
	}
	// Also when the registration has to be written again.
	theirs := &api.AgentServiceRegistration{ID: a.ID(), Name: r.cfg.Service, Port: 1}
	if err := r.client.Agent().ServiceRegister(theirs); err != nil {
		t.Fatal(err)
	}
	if e := r.await("ours to be back", func(e *api.ServiceEntry) bool { return e.Service.Port == r.cfg.Port }); !inMaintenance(e) {
		t.Error("writing the registration ended the maintenance mode")
	}
	// And over a restart of the agent, which drains in between.
	if err := a.Shutdown(t.Context()); err != nil {
		t.Errorf("Shutdown: %v", err)
	}
	if !inMaintenance(r.entry()) {
		t.Error("Shutdown took the operator's maintenance mode away")
	}
	r.awaitLog("consul services deregister -id=" + a.ID())
	b := r.start()
	eventually(t, "the next agent to take it over", func() bool { return b.Status().Written == 1 && b.Status().Maintenance != "" })
	if !inMaintenance(r.entry()) {
		t.Error("the next agent took the operator's maintenance mode away")
	}
	if err := r.client.Agent().DisableServiceMaintenance(a.ID()); err != nil {
		t.Fatal(err)
	}
	r.await("service again", passing)
	eventually(t, "a word about it", func() bool { return r.logs.count("no longer in maintenance") > 0 })
}
