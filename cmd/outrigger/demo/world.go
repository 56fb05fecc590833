package demo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"github.com/hashicorp/consul/api"

	"outrigger/sidecar/admin"
	"outrigger/test/harness"
)

const serviceName = "shop"

// server is one backend with its agent.
type server struct {
	name        string
	port, agent int
	cpus        []int
	proc, stats *harness.Process
}

// world is everything that the demo runs.
type world struct {
	self    string // this program
	cpus    []int  // processors that a process may be pinned to
	dir     string
	log     io.WriteCloser
	consul  *harness.Consul
	servers []*server
	sidecar *harness.Process
	admin   int
	ports   map[string]int // by service block
	burner  *harness.Process
	http    *http.Client
}

// build starts Consul, backends, agents and the sidecar, in this order, and
// waits until the sidecar is ready. What was started is in w also on error.
func (w *world) build(ctx context.Context, say func(string, ...any)) error {
	path, err := harness.FindOrBuildConsul(ctx, say)
	if err != nil {
		return err
	}
	if w.consul, err = harness.StartConsul(ctx, harness.Options{Path: path}); err != nil {
		return err
	}
	say("Consul %s is up on http://%s", path, w.consul.Addr())
	ports, err := harness.FreePorts(10)
	if err != nil {
		return err
	}
	for i, name := range []string{"red", "green", "blue"} {
		s := &server{name: name, port: ports[2*i], agent: ports[2*i+1], cpus: w.cpuFor(i)}
		w.servers = append(w.servers, s)
		if err := w.startServer(s); err != nil {
			return err
		}
	}
	for _, s := range w.servers {
		if err := w.await(ctx, 20*time.Second, "backend "+s.name+" to answer", func() bool { return w.healthy(s) }); err != nil {
			return err
		}
	}
	if err := w.register(); err != nil {
		return err
	}
	w.admin = ports[6]
	w.ports = map[string]int{"shop": ports[7], "shop-resource": ports[8], "shop-small": ports[9]}
	if err := w.startSidecar(); err != nil {
		return err
	}
	for _, s := range w.servers {
		say("backend %-5s http://127.0.0.1:%d  agent http://127.0.0.1:%d/v1/report  cpus %v", s.name, s.port, s.agent, s.cpus)
	}
	say("sidecar       http://127.0.0.1:%d (least_conn)  :%d (resource)  :%d (small capacity)  admin http://127.0.0.1:%d",
		w.ports["shop"], w.ports["shop-resource"], w.ports["shop-small"], w.admin)
	return w.await(ctx, 20*time.Second, "the sidecar to be ready with three backends", func() bool {
		st, err := w.status("shop")
		return err == nil && st.EndpointsReady == len(w.servers)
	})
}

// canPin reports whether backends can be kept to processors of their own.
func (w *world) canPin() bool { return len(w.cpus) >= 2 }

// cpuFor gives the first backend a processor of its own, which chapter 2 burns,
// and the others the rest.
func (w *world) cpuFor(i int) []int {
	if !w.canPin() {
		return nil
	}
	return []int{w.cpus[min(i, len(w.cpus)-1)]}
}

func (w *world) spawn(name string, cpus []int, args ...string) (*harness.Process, error) {
	return harness.StartProcess(harness.Spec{
		Path: w.self, Args: args, Name: name, CPUs: cpus, Stdout: w.log, Stderr: w.log,
	})
}

func (w *world) startServer(s *server) error {
	var err error
	s.proc, err = w.spawn("backend "+s.name, s.cpus,
		"demo-backend", "-name", s.name, "-listen", fmt.Sprintf("127.0.0.1:%d", s.port))
	if err != nil || s.stats != nil {
		return err
	}
	file := filepath.Join(w.dir, "agent-"+s.name+".hcl")
	text := fmt.Sprintf("agent {\n  listen = \"127.0.0.1:%d\"\n  backend { port = %d }\n}\n", s.agent, s.port)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		return err
	}
	s.stats, err = w.spawn("agent "+s.name, nil, "agent", "-config", file)
	return err
}

// healthy asks a backend what Consul's check will ask it.
func (w *world) healthy(s *server) bool {
	res, err := w.http.Get(fmt.Sprintf("http://127.0.0.1:%d/health", s.port))
	if err != nil {
		return false
	}
	_ = res.Body.Close()
	return res.StatusCode == http.StatusOK
}

func (w *world) register() error {
	client, err := w.consul.Client()
	if err != nil {
		return err
	}
	for _, s := range w.servers {
		err := client.Agent().ServiceRegister(&api.AgentServiceRegistration{
			ID: serviceName + "-" + s.name, Name: serviceName, Address: "127.0.0.1", Port: s.port,
			Meta: map[string]string{"outrigger_agent": fmt.Sprint(s.agent)},
			Check: &api.AgentServiceCheck{
				HTTP:     fmt.Sprintf("http://127.0.0.1:%d/health", s.port),
				Interval: "1s", Timeout: "1s", Status: api.HealthPassing,
			},
		})
		if err != nil {
			return fmt.Errorf("registering %s in Consul: %w", s.name, err)
		}
	}
	return nil
}

func (w *world) startSidecar() error {
	files := map[string]string{
		"base.hcl": fmt.Sprintf("consul { address = %q }\nadmin { listen = \"127.0.0.1:%d\" }\n", w.consul.Addr(), w.admin),
		"shop.hcl": fmt.Sprintf("service \"shop\" {\n  listen = \"127.0.0.1:%d\"\n}\n", w.ports["shop"]),
		"shop-resource.hcl": fmt.Sprintf("service \"shop-resource\" {\n  listen = \"127.0.0.1:%d\"\n"+
			"  discover { service = \"shop\" }\n  policy \"resource\" {}\n}\n", w.ports["shop-resource"]),
		"shop-small.hcl": fmt.Sprintf("service \"shop-small\" {\n  listen = \"127.0.0.1:%d\"\n"+
			"  discover { service = \"shop\" }\n  capacity {\n    max_in_flight = 2\n    queue { length = 4 }\n  }\n}\n", w.ports["shop-small"]),
	}
	dir := filepath.Join(w.dir, "sidecar")
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			return err
		}
	}
	var err error
	w.sidecar, err = w.spawn("sidecar", nil, "sidecar", "-config", dir)
	return err
}

// cost sets what a request costs at a backend.
func (w *world) cost(s *server, sleep, cpu time.Duration) error {
	form := url.Values{"sleep": {sleep.String()}, "cpu": {cpu.String()}}
	res, err := w.http.PostForm(fmt.Sprintf("http://127.0.0.1:%d/cost", s.port), form)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("setting the cost at %s: %s", s.name, res.Status)
	}
	return nil
}

// costAll sets what a request costs everywhere.
func (w *world) costAll(sleep, cpu time.Duration) error {
	var errs []error
	for _, s := range w.servers {
		errs = append(errs, w.cost(s, sleep, cpu))
	}
	return errors.Join(errs...)
}

func (w *world) url(service string) string {
	return fmt.Sprintf("http://127.0.0.1:%d/", w.ports[service])
}

// status asks the sidecar about one service.
func (w *world) status(service string) (*admin.ServiceDoc, error) {
	res, err := w.http.Get(fmt.Sprintf("http://127.0.0.1:%d/v1/status?service=%s", w.admin, service))
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	var doc admin.StatusDoc
	if err := json.NewDecoder(io.LimitReader(res.Body, 16<<20)).Decode(&doc); err != nil {
		return nil, err
	}
	if len(doc.Services) != 1 {
		return nil, fmt.Errorf("the sidecar's status has %d services, not 1", len(doc.Services))
	}
	return &doc.Services[0], nil
}

// await polls until the condition holds.
func (w *world) await(ctx context.Context, limit time.Duration, what string, ok func() bool) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for !ok() {
		if err := w.dead(); err != nil {
			return err
		}
		if !pause(ctx, 20*time.Millisecond) {
			return fmt.Errorf("waited %v for %s; the log is %s", limit, what, filepath.Join(w.dir, "log"))
		}
	}
	return nil
}

// dead reports a sidecar that has ended on its own.
func (w *world) dead() error {
	if w.sidecar == nil {
		return nil // not started yet
	}
	select {
	case <-w.sidecar.Done():
		text, _ := os.ReadFile(filepath.Join(w.dir, "log"))
		return fmt.Errorf("the sidecar has ended with status %d; the end of the log:\n%s", w.sidecar.Wait(), tail(text, 2000))
	default:
		return nil
	}
}

func tail(b []byte, n int) []byte { return b[max(0, len(b)-n):] }

// tearDown ends every process and removes what was written.
func (w *world) tearDown() {
	const grace = 3 * time.Second
	stop := func(p *harness.Process) {
		if p != nil {
			_ = p.Stop(grace) // it has to go either way, and Stop kills in the end
		}
	}
	stop(w.burner)
	stop(w.sidecar)
	for _, s := range w.servers {
		stop(s.stats)
		stop(s.proc)
	}
	if w.consul != nil {
		_ = w.consul.Stop()
	}
	if w.log != nil {
		_ = w.log.Close()
	}
	_ = os.RemoveAll(w.dir)
}
