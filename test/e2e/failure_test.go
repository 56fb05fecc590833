package e2e

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"outrigger/sidecar/admin"
)

// A backend dies under load and comes back: no client notices.
func TestBackendKilledUnderLoad(t *testing.T) {
	t.Parallel()
	cat, name := sharedCatalog(t), uniqueService(t)
	all := startBackends(t, "a", "b", "c")
	var ids []string
	for _, b := range all {
		b.sleep(5 * time.Millisecond) // so that there are some in flight at any time
		ids = append(ids, cat.register(name, b))
	}
	s := startSidecar(t, sidecarSpec{services: oneService(name, "")})
	s.awaitReady(3)
	l := startLoad(t, loadSpec{addr: s.addr(), clients: 12})
	for range 2 { // twice: the second time the breaker has a past
		for _, b := range all {
			l.awaitFrom(b, 20)
		}
		all[1].kill()
		s.awaitEndpoint(ids[1], "left alone", notReady)
		l.awaitMore(100)
		all[1].start()
		s.awaitEndpoint(ids[1], "ready again", isReady)
		l.awaitFrom(all[1], 20)
	}
	l.stop().clean(t)
	if doc := s.web(); endpointOf(doc, ids[1]).Breaker.EjectionsTotal < 2 {
		t.Errorf("the killed backend was ejected %d times, want 2 at least", endpointOf(doc, ids[1]).Breaker.EjectionsTotal)
	}
}

// With every backend dead the first request already gets the 503, and the first
// backend to return heals the service without a restart of the sidecar.
func TestEveryBackendKilled(t *testing.T) {
	t.Parallel()
	cat, name := sharedCatalog(t), uniqueService(t)
	all := startBackends(t, "a", "b", "c")
	for _, b := range all {
		cat.register(name, b)
	}
	s := startSidecar(t, sidecarSpec{services: oneService(name, "")})
	s.awaitReady(3)
	getMany(t, s.addr(), 30)

	for _, b := range all {
		b.kill()
	}
	began := time.Now()
	c := &client{addr: s.addr()}
	defer c.close()
	for i := range 50 {
		r, err := c.get("/")
		if err != nil {
			t.Fatalf("request %d with every backend dead: %v", i+1, err)
		}
		if err := refusal(r, "unreachable", "all_ejected", "no_backends"); err != nil {
			t.Errorf("request %d with every backend dead: %v", i+1, err)
		}
		if took := time.Since(began); i == 0 && took > promptly {
			t.Errorf("the first 503 took %v, want it within a second", took)
		} else if i == 0 {
			t.Logf("the first 503 came after %v", took)
		}
	}
	r, err := c.do("GET", "/", "Accept: application/json\r\n")
	if err != nil {
		t.Fatal(err)
	}
	if got := r.header.Get("Content-Type"); got != "application/json" {
		t.Errorf("503 for a client that accepts JSON: Content-Type %q", got)
	}

	all[2].start()
	eventually(t, 20*time.Second, "the service to heal", func() error {
		r, err := c.get("/")
		if err == nil && r.status != 200 {
			err = fmt.Errorf("status %d %s", r.status, r.header.Get("Outrigger-Reason"))
		}
		return err
	})
	for _, b := range all[:2] {
		b.start()
	}
	s.awaitReady(3)
	l := startLoad(t, loadSpec{addr: s.addr(), clients: 6, think: time.Millisecond})
	for _, b := range all {
		l.awaitFrom(b, 10)
	}
	l.stop().clean(t)
}

// A backend whose answers carry a configured status is ejected, and the client
// gets what the backend said.
func TestFailureStatusEjects(t *testing.T) {
	t.Parallel()
	cat, name := sharedCatalog(t), uniqueService(t)
	all := startBackends(t, "a", "b", "c")
	var ids []string
	for _, b := range all {
		ids = append(ids, cat.register(name, b))
	}
	s := startSidecar(t, sidecarSpec{services: oneService(name, `
  policy "round_robin" {}
  breaker {
    consecutive_failures = 3
    failure_statuses     = [500]
    base_ejection        = "30s"
    max_ejection         = "30s"
  }`)})
	s.awaitReady(3)
	all[0].control("/ctl/set?status=500")
	c := &client{addr: s.addr()}
	defer c.close()
	passed := 0
	eventually(t, 20*time.Second, "a to be ejected", func() error {
		r, err := c.get("/")
		if err != nil {
			t.Fatal(err)
		}
		if r.status == 500 {
			passed++
			if err := greeting(r); err != nil {
				t.Errorf("a backend's 500 was not passed on: %v", err)
			}
		}
		if e := endpointOf(s.web(), ids[0]); e.Breaker.State != "open" {
			return fmt.Errorf("its breaker is %s after %d failures", e.Breaker.State, e.FailuresTotal)
		}
		return nil
	})
	if passed != 3 {
		t.Errorf("a was ejected after %d failures in a row, want 3", passed)
	}
	if by := getMany(t, s.addr(), 20); by["a"] != 0 {
		t.Errorf("answers while a is ejected: %v", by)
	}
	s.awaitEndpoint(ids[0], "told to be ejected", func(e *admin.EndpointDoc) bool {
		return notReady(e) && e.FailuresTotal == 3 && e.Breaker.ReturnsInSeconds != nil
	})
}

// A backend dies in the middle of its answer: the client must not take what it
// got for the whole.
func TestBackendKilledMidAnswer(t *testing.T) {
	t.Parallel()
	cat, name := sharedCatalog(t), uniqueService(t)
	a := startBackend(t, "a")
	id := cat.register(name, a)
	s := startSidecar(t, sidecarSpec{services: oneService(name, "")})
	s.awaitReady(1)
	running := send(s.addr(), "/stream")
	s.awaitService("web", "the answer to have begun", func(doc admin.ServiceDoc) bool {
		return doc.Traffic.BackendResponsesTotal["2xx"] == 1
	})
	a.kill()
	<-running.done
	var broken *brokenError
	if !errors.As(running.err, &broken) || !broken.began {
		t.Errorf("the client got %d %q and %v, want an answer that breaks off", running.r.status, running.r.body, running.err)
	}
	s.awaitEndpoint(id, "blamed for it", func(e *admin.EndpointDoc) bool { return e.FailuresTotal == 1 && e.InFlight == 0 })
	if got := s.web().Traffic.ResponsesAbortedTotal; got != 1 {
		t.Errorf("answers aborted: %d, want 1", got)
	}
}

// A request that a backend may have acted on is not sent to another one unless
// its method is idempotent.
func TestNoSecondTryOfAPost(t *testing.T) {
	t.Parallel()
	cat, name := sharedCatalog(t), uniqueService(t)
	a := startBackend(t, "a")
	cat.register(name, a)
	s := startSidecar(t, sidecarSpec{services: oneService(name, "")})
	s.awaitReady(1)
	post, get := make(chan reply), send(s.addr(), "/hold")
	a.awaitHeld(1)
	go func() {
		c := &client{addr: s.addr()}
		defer c.close()
		r, err := c.do("POST", "/hold", "Content-Length: 0\r\n")
		if err != nil {
			r.body = []byte(err.Error())
		}
		post <- r
	}()
	a.awaitHeld(2)
	b := startBackend(t, "b")
	cat.register(name, b)
	s.awaitReady(2)

	a.kill()
	if r := <-post; r.status != 502 {
		t.Errorf("the POST whose backend died was answered %d %s, want 502", r.status, r.body)
	}
	b.awaitHeld(1) // the GET, sent again
	b.release()
	if r := get.answer(t); string(r.body) != "held by b\n" {
		t.Errorf("the GET whose backend died was answered %q", r.body)
	}
	if got := b.received(); got != 1 {
		t.Errorf("the other backend received %d requests, want the GET alone", got)
	}
}

func TestTimeouts(t *testing.T) {
	t.Parallel()
	cat, name := sharedCatalog(t), uniqueService(t)
	a := startBackend(t, "a")
	cat.register(name, a)
	discover := fmt.Sprintf("discover { service = %q }\n", name)
	s := startSidecar(t, sidecarSpec{services: []block{
		{"first", discover + `timeouts { first_byte = "200ms" }`},
		{"whole", discover + `timeouts { request = "200ms" }`},
	}})
	for service := range s.addrs {
		s.awaitService(service, "a to be ready", func(doc admin.ServiceDoc) bool { return doc.EndpointsReady == 1 })
	}
	if r := get(t, s.addrs["first"], "/hold"); r.status != 504 {
		t.Errorf("no first byte in time: %d %s, want 504", r.status, r.body)
	}
	if r := get(t, s.addrs["first"], "/stream"); r.status != 200 || !strings.HasSuffix(string(r.body), streamEnd) {
		t.Errorf("a first byte in time and a long answer: %d %q, want all of it", r.status, r.body)
	}
	if r := get(t, s.addrs["whole"], "/hold"); r.status != 504 {
		t.Errorf("no answer within the request's time: %d %s, want 504", r.status, r.body)
	}
	var broken *brokenError
	if r, err := getOnce(s.addrs["whole"], "/stream"); !errors.As(err, &broken) || !broken.began {
		t.Errorf("an answer longer than the request's time: %d %q, %v; want one that breaks off", r.status, r.body, err)
	}
	a.awaitHeld(0)
}
