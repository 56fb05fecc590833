package e2e

import (
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"outrigger/sidecar/admin"
)

// Each reason for a refusal in the situation that it names.
func TestSaturationReasons(t *testing.T) {
	t.Parallel()
	cat, name := sharedCatalog(t), uniqueService(t)
	a := startBackend(t, "a")
	cat.register(name, a)
	full := func(queue string) string {
		return fmt.Sprintf("discover { service = %q }\ncapacity {\n max_in_flight = 1\n queue {\n%s\n}\n}", name, queue)
	}
	s := startSidecar(t, sidecarSpec{services: []block{
		{"noqueue", full(`length = 0`)},
		{"short", full("length = 1\n timeout = \"1m\"")},
		{"hasty", full("length = 4\n timeout = \"50ms\"")},
	}})
	var held []*pending
	for i, service := range []string{"noqueue", "short", "hasty"} {
		s.awaitService(service, "a to be ready", func(doc admin.ServiceDoc) bool { return doc.EndpointsReady == 1 })
		held = append(held, send(s.addrs[service], "/hold"))
		a.awaitHeld(int64(i + 1))
	}
	if err := refusal(get(t, s.addrs["noqueue"], "/"), "saturated"); err != nil {
		t.Errorf("without a queue: %v", err)
	}
	if err := refusal(get(t, s.addrs["hasty"], "/"), "queue_timeout"); err != nil {
		t.Errorf("with a queue of 50ms: %v", err)
	}
	held = append(held, send(s.addrs["short"], "/"))
	s.awaitService("short", "one to wait", func(doc admin.ServiceDoc) bool { return doc.Queue.Waiting == 1 })
	if err := refusal(get(t, s.addrs["short"], "/"), "queue_full"); err != nil {
		t.Errorf("with a full queue: %v", err)
	}
	for service, reason := range map[string]string{"noqueue": "saturated", "short": "queue_full", "hasty": "queue_timeout"} {
		if doc := s.service(service); doc.RefusedTotal[reason] != 1 {
			t.Errorf("service %q: refused %v, want one %s", service, doc.RefusedTotal, reason)
		}
	}

	a.release()
	for _, p := range held {
		p.answer(t) // the one that waited too
	}
	for service, addr := range s.addrs {
		s.awaitService(service, "a free slot", func(doc admin.ServiceDoc) bool { return doc.Endpoints[0].InFlight == 0 })
		getMany(t, addr, 5)
	}
	if got := s.service("short").Queue.ServedTotal; got != 1 {
		t.Errorf("%d requests were served from the queue, want 1", got)
	}
}

// More clients than there is room for: some are answered and the others told at
// once when to come back; when most leave, the rest is served.
func TestSaturationAndRecovery(t *testing.T) {
	t.Parallel()
	cat, name := sharedCatalog(t), uniqueService(t)
	all := startBackends(t, "a", "b")
	for _, b := range all {
		b.sleep(50 * time.Millisecond)
		cat.register(name, b)
	}
	s := startSidecar(t, sidecarSpec{services: oneService(name, `
  policy "least_conn" {}
  capacity {
    max_in_flight = 2
    queue {
      length  = 4
      timeout = "50ms"
    }
  }`)})
	s.awaitReady(2)
	l := startLoad(t, loadSpec{addr: s.addr(), clients: 30, think: 20 * time.Millisecond})
	l.awaitMore(60)
	saw := l.stop()
	if saw.failed > 0 {
		t.Errorf("%d requests got neither an answer nor a proper 503:\n%v", saw.failed, saw.errors)
	}
	refused := 0
	for reason, n := range saw.refused {
		refused += n
		if reason != "saturated" && reason != "queue_full" && reason != "queue_timeout" {
			t.Errorf("%d requests were refused for %q", n, reason)
		}
	}
	if refused == 0 {
		t.Errorf("30 clients on 4 slots and no request was refused (%d answered)", saw.ok)
	}
	for _, e := range s.web().Endpoints {
		if e.FailuresTotal > 0 || e.Breaker.EjectionsTotal > 0 {
			t.Errorf("%s has %d failures and %d ejections: our own refusals were held against it", e.ID, e.FailuresTotal, e.Breaker.EjectionsTotal)
		}
	}

	calm := startLoad(t, loadSpec{addr: s.addr(), clients: 2})
	calm.awaitMore(40)
	calm.stop().clean(t)
}

// A backend serves one request after the other and is asked for more than it can
// answer in time. capacity.max_wait lets no more in than that; what it does not
// let in is told at once. The backend hardly computes, so that its agent's figures
// foretell no wait: it is the rule that learns from latencies which is seen here.
func TestMaxWait(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("takes Linux: an agent samples nothing elsewhere")
	}
	const clients = 60
	a := startBackend(t, "a")
	a.control(fmt.Sprintf("/ctl/set?serial=1&sleep=%d", int64(60*time.Millisecond))) // 3.6 s for all
	name, _ := registerWithAgents(t, byPort, a)
	body := func(maxWait string) string {
		return fmt.Sprintf("discover { service = %q }\npolicy \"resource\" {}\nslow_start = \"0s\"\ntimeouts { request = \"2s\" }\n"+
			"capacity {\n max_wait = %s\n queue { length = 0 }\n}", name, maxWait)
	}
	s := startSidecar(t, sidecarSpec{services: []block{{"bounded", body("0.15")}, {"unbounded", body("0")}}})
	s.awaitFigures("bounded", a)
	s.awaitFigures("unbounded", a)

	l := startLoad(t, loadSpec{addr: s.addrs["bounded"], clients: clients, think: 50 * time.Millisecond})
	l.awaitMore(40)
	saw := l.stop()
	if saw.failed > 0 {
		t.Errorf("%d requests got neither an answer in time nor a 503:\n%s", saw.failed, strings.Join(saw.errors, "\n"))
	}
	if n := saw.refused["saturated"]; n == 0 || len(saw.refused) > 1 {
		t.Errorf("refused are %v, want some as saturated and none else", saw.refused)
	}
	if e := s.service("bounded").Endpoints[0]; e.FailuresTotal > 0 || e.Breaker.EjectionsTotal > 0 {
		t.Errorf("the backend has %d failures and %d ejections: our own refusals were held against it", e.FailuresTotal, e.Breaker.EjectionsTotal)
	}
	s.awaitIdle("bounded")

	// The same without the bound.
	l = startLoad(t, loadSpec{addr: s.addrs["unbounded"], clients: clients, think: 50 * time.Millisecond})
	eventually(t, 10*time.Second, "requests to run out of time", func() error {
		if e := l.snapshot().errors; len(e) == 0 || !strings.Contains(e[0], "status 504") {
			return fmt.Errorf("the errors are %q", e)
		}
		return nil
	})
	l.stop()
}
