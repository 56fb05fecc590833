package e2e

import (
	"math"
	"os"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"outrigger/sidecar/admin"
)

// pathRig is one backend with an agent, and its service in Consul.
func pathRig(t *testing.T, agentMore string) (b *backend, agentAddr, service string) {
	t.Helper()
	if runtime.GOOS != "linux" {
		t.Skip("takes Linux: an agent samples nothing elsewhere")
	}
	b = startBackends(t, "a")[0]
	cat, service := sharedCatalog(t), uniqueService(t)
	_, port := startAgent(t, b, byPort(b), agentMore)
	cat.register(service, b, withMeta("outrigger_agent", strconv.Itoa(port)))
	return b, loopback(port), service
}

// byFigures is a sidecar that balances the service by figures, with what stands in
// its agents block.
func byFigures(t *testing.T, service, agents string) *sidecar {
	t.Helper()
	return startSidecar(t, sidecarSpec{agents: agents, services: oneService(service, `policy "resource" {}`)})
}

// awaitInFlight waits for a figure of requests in the backend, by its source.
func (s *sidecar) awaitInFlight(b *backend, what, source string, ok func(all, own float64) bool) {
	s.t.Helper()
	s.awaitService("web", what, func(doc admin.ServiceDoc) bool {
		f := figuresOf(doc, b)
		return f != nil && f.InFlight != nil && f.OwnInFlight != nil && f.InFlightSource == source && ok(*f.InFlight, *f.OwnInFlight)
	})
}

// The agent tells what is in the backend, from everyone, with no help from the app;
// the sidecar knows its own share of it.
func TestInFlightOfEveryone(t *testing.T) {
	t.Parallel()
	b, _, service := pathRig(t, "")
	s := byFigures(t, service, "")
	b.sleep(500 * time.Millisecond)
	ours := startLoad(t, loadSpec{addr: s.addrs["web"], clients: 6})
	others := startLoad(t, loadSpec{addr: b.addr(), clients: 5})
	s.awaitInFlight(b, "eleven in flight, six of them ours", "kernel", func(all, own float64) bool {
		return math.Abs(all-11) < 2.5 && math.Abs(own-6) < 1.5
	})
	ours.stop().clean(t)
	others.stop().clean(t)
	s.awaitInFlight(b, "none in flight", "kernel", func(all, own float64) bool { return all < 0.5 && own == 0 })
}

// Where the kernel is not asked, what sidecars send counts, and one that is killed
// does not count any more.
func TestGaugesOfSidecars(t *testing.T) {
	t.Parallel()
	b, _, service := pathRig(t, "in_flight { kernel = false }")
	s := byFigures(t, service, "gauges {\n  enabled = true\n  interval = \"10ms\"\n}")
	other := byFigures(t, service, "gauges { enabled = true }")
	hold := func(s *sidecar, n int) {
		for range n {
			go func() { _, _ = getOnce(s.addrs["web"], "/hold") }() // what becomes of it is not the matter
		}
	}
	hold(s, 3)
	hold(other, 4)
	b.awaitHeld(7)
	s.awaitInFlight(b, "seven, three of them ours", "sidecars", func(all, own float64) bool { return all == 7 && own == 3 })
	other.proc.Kill()
	s.awaitInFlight(b, "those of the one that lives", "sidecars", func(all, own float64) bool { return all == 3 && own == 3 })
	b.release()
	s.awaitInFlight(b, "none", "sidecars", func(all, _ float64) bool { return all == 0 })
}

// An agent with a token has no word for who does not know it; what it watches is
// served all the same.
func TestAgentToken(t *testing.T) {
	t.Parallel()
	const token = "e2e-token-0123456789abcdef"
	b, agent, service := pathRig(t, "token = \""+token+"\"")
	for path, want := range map[string]int{"/v1/report": 401, "/metrics": 401, "/healthz": 200} {
		if got, err := getOnce(agent, path); err != nil || got.status != want {
			t.Errorf("%s without the token: %+v, %v, want %d", path, got, err, want)
		}
	}
	knows := byFigures(t, service, "token = \""+token+"\"")
	knows.awaitFigures("web", b)
	lacks := byFigures(t, service, "token = \"another-token-0123456789\"")
	lacks.awaitService("web", "refused polls", func(doc admin.ServiceDoc) bool {
		a := doc.Endpoints[0].Agent
		return a != nil && a.FailuresTotal > 0
	})
	load := startLoad(t, loadSpec{addr: lacks.addrs["web"], clients: 4})
	load.awaitMore(50)
	load.stop().clean(t)
	for _, s := range []*sidecar{knows, lacks} {
		if log, err := os.ReadFile(s.proc.log); err != nil || len(log) == 0 || strings.Contains(string(log), "token-0123456789") {
			t.Errorf("the log of a sidecar (%d bytes, %v) shows its token", len(log), err)
		}
	}
}
