package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"outrigger/sidecar/admin"
	"outrigger/test/harness"
)

// sidecarSpec says how to configure a sidecar.
type sidecarSpec struct {
	consul   string // address; "": the shared one's
	inConsul string // more of the consul block
	agents   string // of the agents block
	grace    string // "": 5s
	stateDir string
	services []block
}

// block is a service block without its listen line.
type block struct{ name, body string }

// oneService is a service "web" that finds the Consul service of the given name.
func oneService(consulName, body string) []block {
	return []block{{"web", fmt.Sprintf("discover { service = %q }\n%s", consulName, body)}}
}

// sidecar is a sidecar's process as a test handles it.
type sidecar struct {
	t     *testing.T
	proc  *process
	dir   string            // of its configuration
	admin string            // address
	addrs map[string]string // of the listeners, by service block
}

// startSidecar starts a sidecar and waits until it is ready.
func startSidecar(t *testing.T, spec sidecarSpec) *sidecar {
	t.Helper()
	s := launchSidecar(t, spec)
	eventually(t, 20*time.Second, "the sidecar to be ready", func() error {
		s.alive()
		a, err := getOnce(s.admin, "/readyz")
		if err == nil && a.status != 200 {
			err = fmt.Errorf("/readyz: %d %s", a.status, a.body)
		}
		return err
	})
	return s
}

// launchSidecar starts a sidecar and waits until its admin listener answers.
func launchSidecar(t *testing.T, spec sidecarSpec) *sidecar {
	t.Helper()
	noteSources(t)
	s := configure(t, spec)
	s.run()
	t.Cleanup(func() { s.endsWell(t) })
	return s
}

// run starts the configured sidecar and waits until its admin listener answers.
func (s *sidecar) run() {
	s.t.Helper()
	s.proc = start(s.t, harness.Spec{Name: "sidecar", Path: suite.outrigger, Args: []string{"sidecar", "-config", s.dir}})
	eventually(s.t, 20*time.Second, "the sidecar to start", func() error {
		s.alive()
		_, err := getOnce(s.admin, "/healthz")
		return err
	})
}

// restart ends the sidecar with SIGTERM and starts another in its place.
func (s *sidecar) restart() {
	s.t.Helper()
	s.endsWell(s.t)
	s.run()
}

// configure writes the files of a sidecar that is not started yet.
func configure(t *testing.T, spec sidecarSpec) *sidecar {
	t.Helper()
	s := &sidecar{t: t, dir: t.TempDir(), admin: loopback(freePort(t)), addrs: map[string]string{}}
	if spec.consul == "" {
		spec.consul = suite.consul.Addr()
	}
	if spec.grace == "" {
		spec.grace = "5s"
	}
	if spec.stateDir != "" {
		s.write("state_dir.hcl", fmt.Sprintf("state_dir = %q\n", spec.stateDir))
	}
	if spec.agents != "" {
		s.write("agents.hcl", "agents {\n"+spec.agents+"\n}\n")
	}
	s.write("base.hcl", fmt.Sprintf(`
consul {
  address = %q
  %s
}
admin { listen = %q }
log {
  level  = "debug"
  format = "text"
}
grace = %q
`, spec.consul, spec.inConsul, s.admin, spec.grace))
	for _, b := range spec.services {
		s.addrs[b.name] = loopback(freePort(t))
		s.write(b.name+".hcl", fmt.Sprintf("service %q {\n  listen = %q\n%s\n}\n", b.name, s.addrs[b.name], b.body))
	}
	return s
}

func (s *sidecar) write(name, text string) {
	s.t.Helper()
	if err := os.WriteFile(filepath.Join(s.dir, name), []byte(text), 0o600); err != nil {
		s.t.Fatal(err)
	}
}

// alive fails the test if the sidecar has ended.
func (s *sidecar) alive() {
	s.t.Helper()
	select {
	case <-s.proc.Done():
		s.t.Fatalf("the sidecar ended with status %d", s.proc.Wait())
	default:
	}
}

// endsWell stops a sidecar that a test left running: it must exit with 0.
func (s *sidecar) endsWell(t *testing.T) {
	select {
	case <-s.proc.Done():
		return // the test's own doing, and its to judge
	default:
	}
	if err := s.proc.Stop(slack(15 * time.Second)); err != nil {
		t.Error(err)
	} else if status := s.proc.Wait(); status != 0 {
		t.Errorf("the sidecar ended with status %d after SIGTERM with nothing in flight, want 0", status)
	}
}

// addr is where the only service block listens.
func (s *sidecar) addr() string {
	s.t.Helper()
	if len(s.addrs) != 1 {
		s.t.Fatalf("there are %d services: say which", len(s.addrs))
	}
	for _, a := range s.addrs {
		return a
	}
	return ""
}

func (s *sidecar) statusDoc(query string) (doc admin.StatusDoc, err error) {
	a, err := getOnce(s.admin, "/v1/status"+query)
	if err == nil && a.status != 200 {
		err = fmt.Errorf("/v1/status: %d %s", a.status, a.body)
	}
	if err == nil {
		err = json.Unmarshal(a.body, &doc)
	}
	return doc, err
}

// service is the status of a service block.
func (s *sidecar) service(name string) admin.ServiceDoc {
	s.t.Helper()
	doc, err := s.statusDoc("?service=" + name)
	if err != nil {
		s.t.Fatalf("asking the sidecar for its status: %v", err)
	}
	if len(doc.Services) != 1 {
		s.t.Fatalf("the status of service %q has %d services", name, len(doc.Services))
	}
	return doc.Services[0]
}

// web is the status of the service block of oneService.
func (s *sidecar) web() admin.ServiceDoc {
	s.t.Helper()
	return s.service("web")
}

// endpointOf finds the endpoint of a Consul service ID; nil: there is none.
func endpointOf(doc admin.ServiceDoc, id string) *admin.EndpointDoc {
	for i, e := range doc.Endpoints {
		if strings.HasSuffix(e.ID, "/"+id) {
			return &doc.Endpoints[i]
		}
	}
	return nil
}

// awaitReady waits until exactly n endpoints of service "web" are ready.
func (s *sidecar) awaitReady(n int) {
	s.t.Helper()
	s.awaitService("web", fmt.Sprintf("%d endpoints to be ready", n), func(doc admin.ServiceDoc) bool {
		return doc.EndpointsReady == n
	})
}

// awaitService waits until the status of a service is as it should be.
func (s *sidecar) awaitService(name, what string, ok func(admin.ServiceDoc) bool) (last admin.ServiceDoc) {
	s.t.Helper()
	eventually(s.t, 30*time.Second, what, func() error {
		s.alive()
		if last = s.service(name); ok(last) {
			return nil
		}
		text, _ := json.Marshal(last) // has no type that cannot be marshalled
		return fmt.Errorf("the status is %s", text)
	})
	return last
}

// awaitEndpoint waits until an endpoint of service "web" is as it should be; nil
// is one that is not there.
func (s *sidecar) awaitEndpoint(id, what string, ok func(*admin.EndpointDoc) bool) {
	s.t.Helper()
	s.awaitService("web", id+" to be "+what, func(doc admin.ServiceDoc) bool { return ok(endpointOf(doc, id)) })
}

func isReady(e *admin.EndpointDoc) bool  { return e != nil && e.Ready }
func notReady(e *admin.EndpointDoc) bool { return e != nil && !e.Ready }
func isGone(e *admin.EndpointDoc) bool   { return e == nil }

// awaitIdle waits until the sidecar has nothing in flight for a service.
func (s *sidecar) awaitIdle(service string) {
	s.t.Helper()
	s.awaitInService(service, 0)
}

// awaitInService waits until the sidecar has n requests in flight for a service. One
// counts until a moment after its answer.
func (s *sidecar) awaitInService(service string, n int) {
	s.t.Helper()
	s.awaitService(service, fmt.Sprintf("%d in flight", n), func(doc admin.ServiceDoc) bool {
		sum := 0
		for _, e := range doc.Endpoints {
			sum += e.InFlight
		}
		return sum == n
	})
}
