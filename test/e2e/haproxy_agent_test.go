package e2e

import (
	"fmt"
	"os"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"outrigger/test/harness"
)

// HAProxy's roundrobin, which knows nothing of the backends, is steered by their
// agents alone: its server lines have no check.
//
// Not parallel, for it measures shares of the processors.
func TestHAProxySteeredByAgents(t *testing.T) {
	cells := []*cell{newCell(t, "a"), newCell(t, "b")}
	all := startBackends(t, "a", "b")
	var servers []haServer
	var agents []checked
	for i, b := range all {
		cells[i].add(t, cells[i].app, b.proc)
		agents = append(agents, startChecked(t, b, checkedSpec{watch: cells[i].watch(b)}))
		servers = append(servers, haServer{b.name, b.port, agents[i].check, "weight 100"})
	}
	a, c := all[0], cells[0]
	h := startHAProxy(t, "roundrobin", servers...)
	heard := func(s map[string]haState) bool {
		return s["a"].agent == "L7OK" && s["b"].agent == "L7OK" && s["a"].in() && s["b"].in()
	}
	h.await("both agents to be heard", heard)
	calm := func(s map[string]haState) bool { return heard(s) && s["a"].weight >= 60 && s["b"].weight >= 60 }
	quiet := func(what string) {
		t.Helper()
		deadline := time.Now().Add(slack(30 * time.Second))
		for s, err := h.servers(); ; s, err = h.servers() {
			if err != nil {
				t.Fatal(err)
			}
			if calm(s) {
				return
			}
			if time.Now().After(deadline) {
				if idle := idleShareOfHost(t); idle < 0.4 {
					t.Skipf("the machine is too busy to tell: %.2f of its processors' time is idle, so %s does not show in %+v", idle, what, s)
				}
				t.Fatalf("waited for %s; HAProxy has %+v", what, s)
			}
			time.Sleep(20 * time.Millisecond)
		}
	}
	quiet("both to have what their quotas allow")

	load := startLoad(t, loadSpec{addr: h.addr, clients: 4, think: 5 * time.Millisecond})
	share := func() float64 {
		t.Helper()
		before := load.snapshot()
		load.awaitMore(200)
		return shareOf(a, before, load.snapshot())
	}
	moved := func(why string) {
		t.Helper()
		eventually(t, 30*time.Second, why+" to move traffic away from a", func() error {
			got := share()
			s, err := h.servers()
			if err == nil && (got > 0.35 || 2*s["a"].weight > s["b"].weight) {
				err = fmt.Errorf("a gets a share of %.2f; HAProxy has %+v", got, s)
			}
			if err == nil {
				t.Logf("%s: a gets a share of %.2f; weights %d and %d", why, got, s["a"].weight, s["b"].weight)
			}
			return err
		})
	}

	t.Log("a neighbour burns the quota that a is in")
	burner := start(t, harness.Spec{Name: "burner", Path: suite.self, Args: []string{"2"}, Env: append(os.Environ(), childEnv+"=burner")})
	c.add(t, c.foe, burner)
	moved("a burner")
	burner.Kill()
	quiet("a to have its quota again")

	t.Log("a's memory nears its limit")
	room := cellMemory*87/100 - int(agents[0].counter(t, "outrigger_agent_memory_working_set_bytes"))>>20
	hog := start(t, harness.Spec{Name: "hog", Path: suite.self, Env: append(os.Environ(), fmt.Sprintf("%s=%d %s", hogEnv, room, c.app))})
	moved("a hog")
	hog.Kill()
	quiet("a's memory to be free again")
	load.stop().clean(t)

	t.Log("a's process ends")
	a.kill()
	h.await("a to be down by its agent's word", func(s map[string]haState) bool {
		return s["a"].status == "DOWN (agent)" && strings.Contains(s["a"].said, "nobody listens") && s["b"].in()
	})
	gone := startLoad(t, loadSpec{addr: h.addr, clients: 2})
	gone.awaitMore(50)
	gone.stop().clean(t)
	a.start()
	c.add(t, c.app, a.proc)
	h.await("a to be back", heard)
	for i := range all {
		if n := agents[i].counter(t, "outrigger_agent_checks_total"); n < 3 {
			t.Errorf("the agent of %s has answered %v checks", all[i].name, n)
		}
	}
}

// idleShareOfHost is the share of the processors' time in which they have nothing to
// do, over a while.
func idleShareOfHost(t *testing.T) float64 {
	t.Helper()
	a, b := twoCPUs(t)
	first, second := idleShare(t, a), idleShare(t, b)
	time.Sleep(time.Second)
	return (first() + second()) / 2
}

// What the agent says changes nothing that is not its own: not the verdict of
// HAProxy's check, nor what an operator has ordered.
func TestHAProxyKeepsTheLastWord(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("takes Linux: an agent samples nothing elsewhere")
	}
	b := startBackend(t, "a")
	agent := startChecked(t, b, checkedSpec{})
	nobody := freePort(t)
	h := startHAProxy(t, "leastconn",
		haServer{"good", b.port, agent.check, "weight 100 check inter 200ms fall 1 rise 1"},
		haServer{"failing", b.port, agent.check, fmt.Sprintf("weight 100 check port %d inter 200ms fall 1 rise 1", nobody)},
	)
	h.await("all to be checked, and the agent heard", func(s map[string]haState) bool {
		return s["good"].status == "UP" && s["good"].agent == "L7OK" && s["failing"].agent == "L7OK" && s["failing"].check == "L4CON" && s["failing"].status == "DOWN"
	})
	h.stays(agent, "a failed check not to be overridden by the agent's up", func(s map[string]haState) bool {
		return s["failing"].status == "DOWN" && s["good"].status == "UP" && s["good"].weight > 0
	})
	h.command("set server all/good state maint")
	h.stays(agent, "an operator's maintenance to last", func(s map[string]haState) bool { return s["good"].status == "MAINT" })
	h.command("set server all/good state drain")
	h.stays(agent, "an operator's drain to last", func(s map[string]haState) bool { return strings.HasPrefix(s["good"].status, "DRAIN") })
	h.command("set server all/good state ready")
	h.await("the operator's word to end it", func(s map[string]haState) bool { return s["good"].status == "UP" && s["good"].weight > 0 })

	// An agent that was killed has said down last; the one that comes says up.
	b.kill()
	h.await("the server to be down", func(s map[string]haState) bool {
		return strings.HasPrefix(s["good"].status, "DOWN") && s["good"].agent == "L7STS"
	})
	agent.Kill()
	b.start()
	h.await("the check to pass again", func(s map[string]haState) bool { return s["good"].check == "L4OK" && s["good"].agent == "L4CON" })
	if s, err := h.servers(); err != nil || !strings.HasPrefix(s["good"].status, "DOWN") {
		t.Errorf("with its agent gone after its down HAProxy has %+v, %v: has the manual changed?", s, err)
	}
	startChecked(t, b, checkedSpec{check: agent.check})
	h.await("the next agent to bring it back", func(s map[string]haState) bool { return s["good"].status == "UP" && s["good"].weight > 0 })
}

// SIGTERM to the agent drains the backend in HAProxy, before anything ends: new
// requests go elsewhere, none is lost, and what is in flight finishes.
func TestHAProxyDrains(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("takes Linux: an agent samples nothing elsewhere")
	}
	for name, c := range map[string]struct {
		words   string
		drained func(haState) bool
	}{
		"by weight":  {"", func(s haState) bool { return s.status == "no check" && s.weight == 0 }},
		"by command": {"admin = true", func(s haState) bool { return s.status == "DRAIN (agent)" }},
	} {
		t.Run(name, func(t *testing.T) {
			all := startBackends(t, "a", "b")
			service := uniqueService(t)
			var servers []haServer
			var agents []checked
			for _, b := range all {
				more := fmt.Sprintf("register {\n service = %q\n id = %q\n address = \"127.0.0.1\"\n check { kind = \"none\" }\n drain {\n timeout = \"20s\"\n quiet = \"1s\"\n }\n}", service, service+"-"+b.name)
				agent := startChecked(t, b, checkedSpec{inCheck: c.words, inAgent: more})
				agents = append(agents, agent)
				servers = append(servers, haServer{b.name, b.port, agent.check, "weight 100"})
			}
			a := all[0]
			h := startHAProxy(t, "leastconn", servers...)
			h.await("both to be in", func(s map[string]haState) bool {
				return s["a"].agent == "L7OK" && s["b"].agent == "L7OK" && s["a"].in() && s["b"].in()
			})
			held := startLoad(t, loadSpec{addr: h.addr, path: "/hold", clients: 2, whole: func(reply) error { return nil }})
			a.awaitHeld(1) // leastconn gives each server one of the first two
			all[1].awaitHeld(1)
			load := startLoad(t, loadSpec{addr: h.addr, clients: 4, think: 5 * time.Millisecond})
			load.awaitFrom(a, 20)

			agents[0].signal(t, syscall.SIGTERM)
			h.await("a to be drained", func(s map[string]haState) bool { return c.drained(s["a"]) && s["b"].in() })
			before := a.received()
			load.awaitMore(100)
			if n := a.received() - before; n > 4 { // those that were on their way
				t.Errorf("a got %d requests while it drains", n)
			}
			select {
			case <-agents[0].Done():
				t.Error("the agent ended with a request in flight at its backend")
			default:
			}
			held.once.Do(func() { close(held.quit) })
			all[1].release()
			a.release()
			held.stop().clean(t)
			if status := agents[0].ended(t, 30*time.Second); status != 0 {
				t.Errorf("the agent ended with status %d", status)
			}
			load.awaitMore(50)
			load.stop().clean(t)
			all[0].kill() // as it would be after its agent
			if s, err := h.servers(); err != nil || !c.drained(s["a"]) {
				t.Errorf("after its agent a is %+v, %v; want it to stay out", s["a"], err)
			}
		})
	}
}
