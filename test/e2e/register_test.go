package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"outrigger/sidecar/admin"
	"outrigger/test/harness"
)

// startRegistering runs `outrigger agent` for a backend, with what stands in more
// in its agent block; consul is the Consul agent's address.
func startRegistering(t *testing.T, consul string, b *backend, more string) *process {
	t.Helper()
	file := filepath.Join(t.TempDir(), "agent-"+b.name+".hcl")
	text := fmt.Sprintf(`
agent {
  listen = %q
  backend { port = %d }
  %s
}
consul { address = %q }
`, loopback(freePort(t)), b.port, more, consul)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return start(t, harness.Spec{Name: "agent " + b.name, Path: suite.outrigger, Args: []string{"agent", "-config", file}})
}

// registers is a register block that has the backend checked every second.
func registers(service, more string) string {
	return fmt.Sprintf("register {\n service = %q\n address = \"127.0.0.1\"\n check { interval = \"1s\" }\n %s\n}", service, more)
}

// idOf is the ID that an agent gives its backend.
func idOf(service string, b *backend) string { return fmt.Sprintf("%s-127.0.0.1-%d", service, b.port) }

// noRetries is so that the sidecar does not make good what the drain is to prevent.
const noRetries = `retry { attempts = 0 }`

// leaves sends an agent SIGTERM, waits for its end and kills its backend at once,
// as an orchestrator does.
func leaves(t *testing.T, agent *process, b *backend) {
	t.Helper()
	agent.signal(t, syscall.SIGTERM)
	if status := agent.ended(t, 40*time.Second); status != 0 {
		t.Errorf("the agent of %s ended with status %d, want 0", b.name, status)
	}
	b.kill()
}

// The whole life of backends under load: they come and go, each with its agent,
// and no client notices. A backend that is killed without its agent's help is
// noticed, or this test would prove nothing.
func TestScaleDownUnderLoad(t *testing.T) {
	t.Parallel()
	name, cat := uniqueService(t), sharedCatalog(t)
	all := startBackends(t, "a", "b", "c")
	agents := map[*backend]*process{}
	for _, b := range all {
		b.sleep(20 * time.Millisecond)
		agents[b] = startRegistering(t, cat.addr, b, registers(name, ""))
	}
	s := startSidecar(t, sidecarSpec{services: oneService(name, noRetries)})
	s.awaitReady(3)
	short := startLoad(t, loadSpec{addr: s.addr(), clients: 8})
	long := startLoad(t, loadSpec{addr: s.addr(), clients: 4, path: "/stream", whole: func(r reply) error {
		if len(r.body) < len(streamEnd) || string(r.body[len(r.body)-len(streamEnd):]) != streamEnd {
			return fmt.Errorf("the stream was cut: %q", r.body)
		}
		return nil
	}})
	for _, b := range all {
		short.awaitFrom(b, 20)
	}

	for _, b := range all[:2] {
		leaves(t, agents[b], b)
		s.awaitEndpoint(idOf(name, b), "gone", isGone)
		short.awaitMore(100)
		long.awaitMore(4)
	}
	// Up again, the agent before its backend: the check keeps it out until then.
	a := all[0]
	agents[a] = startRegistering(t, cat.addr, a, registers(name, ""))
	s.awaitEndpoint(idOf(name, a), "known and not ready", notReady)
	a.start()
	short.awaitFrom(a, 20)

	if n := s.web().RetriesTotal; n > 0 {
		t.Errorf("%d retries", n)
	}
	a.sleep(300 * time.Millisecond)
	a.awaitStreams(2)
	calm := short.snapshot()
	calm.clean(t)
	long.snapshot().clean(t)
	a.kill() // without a word
	eventually(t, 20*time.Second, "a client to notice a backend that is killed", func() error {
		if short.snapshot().failed == 0 && long.snapshot().failed == 0 && len(short.snapshot().refused) == 0 {
			return errNotYet
		}
		return nil
	})
	short.stop()
	long.stop()
}

// A request that takes long keeps the agent, which sees it in the kernel alone.
func TestDrainWaitsForALongRequest(t *testing.T) {
	t.Parallel()
	name, cat := uniqueService(t), sharedCatalog(t)
	b := startBackend(t, "a")
	agent := startRegistering(t, cat.addr, b, registers(name, `drain { quiet = "500ms" }`))
	s := startSidecar(t, sidecarSpec{services: oneService(name, noRetries)})
	s.awaitReady(1)
	running := send(s.addr(), "/hold")
	b.awaitHeld(1)
	agent.signal(t, syscall.SIGTERM)
	s.awaitEndpoint(idOf(name, b), "not ready", notReady)
	select {
	case <-agent.Done():
		t.Fatalf("the agent ended with status %d while a request was running", agent.Wait())
	case <-time.After(slack(3 * time.Second)):
	}
	running.waiting(t)
	b.release()
	running.answer(t)
	if status := agent.ended(t, 20*time.Second); status != 0 {
		t.Errorf("the agent ended with status %d, want 0", status)
	}
	s.awaitEndpoint(idOf(name, b), "gone", isGone)
}

// Consul dies under load and comes back knowing nothing. Agents register again,
// as healthy as they were, and no client notices anything.
func TestConsulComesBackEmptyUnderLoad(t *testing.T) {
	t.Parallel()
	c := startConsul(t, harness.Options{})
	name := uniqueService(t)
	all := startBackends(t, "a", "b")
	for _, b := range all {
		b.sleep(5 * time.Millisecond)
		startRegistering(t, c.Addr(), b, registers(name, ""))
	}
	s := startSidecar(t, sidecarSpec{consul: c.Addr(), services: oneService(name, noRetries)})
	s.awaitReady(2)
	load := startLoad(t, loadSpec{addr: s.addr(), clients: 4})
	for _, b := range all {
		load.awaitFrom(b, 20)
	}
	c.Kill()
	load.awaitMore(100)
	if err := c.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	cat := catalogOf(t, c)
	eventually(t, 30*time.Second, "the backends to be registered again", func() error {
		found, _, err := cat.client.Health().Service(name, "", true, nil)
		if err == nil && len(found) != 2 {
			err = fmt.Errorf("%d are passing", len(found))
		}
		return err
	})
	for _, b := range all {
		load.awaitFrom(b, 50)
	}
	load.stop().clean(t)
}

// Figures reach the sidecar through Consul alone: it cannot reach the agent.
func TestPublishedFigures(t *testing.T) {
	t.Parallel()
	name, cat := uniqueService(t), sharedCatalog(t)
	b := startBackend(t, "a")
	id := cat.register(name, b)
	agent := startRegistering(t, cat.addr, b, fmt.Sprintf(`instance = %q
  publish "consul" {
    service      = %q
    min_interval = "1s"
    session_ttl  = "10s"
  }`, id, name))
	spec := sidecarSpec{services: oneService(name, `policy "resource" {}`)}
	s := configure(t, spec)
	s.write("agents.hcl", "agents {\n published {\n  enabled = true\n  hold = \"1s\"\n }\n}\n")
	s.run()
	t.Cleanup(func() { s.endsWell(t) })
	s.awaitReady(1)
	figures := func(e *admin.EndpointDoc) bool { return e != nil && e.Figures != nil && !e.Figures.Expired }
	s.awaitEndpoint(id, "with published figures", func(e *admin.EndpointDoc) bool {
		return figures(e) && e.Figures.Cores != nil && e.Figures.Listening && e.Agent == nil
	})
	b.kill()
	s.awaitEndpoint(id, "told not to listen", func(e *admin.EndpointDoc) bool { return figures(e) && !e.Figures.Listening })
	agent.signal(t, syscall.SIGTERM)
	if status := agent.ended(t, 20*time.Second); status != 0 {
		t.Errorf("the agent ended with status %d, want 0", status)
	}
	keys, _, err := cat.client.KV().Keys("outrigger/reports/"+name+"/", "", &api.QueryOptions{RequireConsistent: true})
	if err != nil || len(keys) != 0 {
		t.Errorf("the agent left %v, %v", keys, err)
	}
	s.awaitEndpoint(id, "without figures", func(e *admin.EndpointDoc) bool { return e != nil && !figures(e) })
}
