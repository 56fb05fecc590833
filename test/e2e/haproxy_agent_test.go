package e2e

import (
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"outrigger/test/harness"
)

// hogEnv turns this test binary into a process that holds as many bytes of memory.
const hogEnv = "OUTRIGGER_E2E_HOG"

// Here and not in TestMain, which knows the children that more than one test has.
func init() {
	n, err := strconv.Atoi(os.Getenv(hogEnv))
	if err != nil {
		return
	}
	held := make([]byte, n)
	for i := 0; i < n; i += os.Getpagesize() {
		held[i] = 1
	}
	time.Sleep(time.Hour)
	runtime.KeepAlive(held)
}

// haproxy is a HAProxy's process with one backend of servers, as a test handles it.
type haproxy struct {
	t      *testing.T
	addr   string
	socket string
}

// haServer is a server line. Without more it has no check of HAProxy's own.
type haServer struct {
	name  string
	port  int
	agent int    // port of its agent-check
	more  string // "weight 100 check ..."
}

func startHAProxy(t *testing.T, balance string, servers ...haServer) *haproxy {
	t.Helper()
	path, err := exec.LookPath("haproxy")
	if err != nil {
		t.Skip("takes HAProxy (apt-get install haproxy)")
	}
	dir := t.TempDir()
	h := &haproxy{t: t, addr: loopback(freePort(t)), socket: filepath.Join(dir, "s")}
	var lines strings.Builder
	for _, s := range servers {
		// agent-send as the README says, for without it HAProxy 2.6 waits 200 ms.
		fmt.Fprintf(&lines, "  server %s 127.0.0.1:%d %s agent-check agent-port %d agent-inter 300ms agent-send \"x\\n\"\n", s.name, s.port, s.more, s.agent)
	}
	config := filepath.Join(dir, "haproxy.cfg")
	if err := os.WriteFile(config, []byte(fmt.Sprintf(`global
  nbthread 1
  stats socket %s level admin
defaults
  mode http
  timeout connect 5s
  timeout client 60s
  timeout server 60s
frontend in
  bind %s
  default_backend all
backend all
  balance %s
%s`, h.socket, h.addr, balance, lines.String())), 0o600); err != nil {
		t.Fatal(err)
	}
	start(t, harness.Spec{Name: "haproxy", Path: path, Args: []string{"-db", "-f", config}})
	eventually(t, 10*time.Second, "HAProxy to start", func() error {
		_, err := h.ask("show info")
		return err
	})
	return h
}

// ask sends a command to the runtime API.
func (h *haproxy) ask(command string) (string, error) {
	c, err := net.Dial("unix", h.socket)
	if err != nil {
		return "", err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(slack(5 * time.Second)))
	if _, err := io.WriteString(c, command+"\n"); err != nil {
		return "", err
	}
	text, err := io.ReadAll(c)
	return string(text), err
}

func (h *haproxy) command(command string) {
	h.t.Helper()
	if text, err := h.ask(command); err != nil || strings.TrimSpace(text) != "" {
		h.t.Fatalf("HAProxy answers %q with %q, %v", command, text, err)
	}
}

// haState is a line of "show stat".
type haState struct {
	status string // "UP", "no check", "DOWN (agent)", "MAINT" ...
	weight int    // in effect
	agent  string // what the last agent-check came to
	said   string // its words of health
	check  string // what HAProxy's own check came to
}

// in reports whether a server gets requests; "no check" is one that is up and has no
// check of HAProxy's own.
func (s haState) in() bool { return (s.status == "UP" || s.status == "no check") && s.weight > 0 }

// servers are those of the backend, by name.
func (h *haproxy) servers() (map[string]haState, error) {
	text, err := h.ask("show stat")
	if err != nil {
		return nil, err
	}
	rows, err := csv.NewReader(strings.NewReader(strings.TrimPrefix(text, "# "))).ReadAll()
	if err != nil || len(rows) == 0 {
		return nil, fmt.Errorf("HAProxy's statistics: %q, %v", text, err)
	}
	column := map[string]int{}
	for i, name := range rows[0] {
		column[name] = i
	}
	all := map[string]haState{}
	for _, r := range rows[1:] {
		at := func(name string) string { return r[column[name]] }
		if at("pxname") != "all" || at("svname") == "BACKEND" {
			continue
		}
		w, err := strconv.Atoi(at("weight"))
		if err != nil {
			return nil, err
		}
		all[at("svname")] = haState{at("status"), w, at("agent_status"), at("last_agt"), at("check_status")}
	}
	return all, nil
}

// await waits until the servers are as they should be.
func (h *haproxy) await(what string, ok func(map[string]haState) bool) {
	h.t.Helper()
	eventually(h.t, 30*time.Second, what, func() error {
		all, err := h.servers()
		if err == nil && !ok(all) {
			err = fmt.Errorf("HAProxy has %+v", all)
		}
		return err
	})
}

// stays waits until HAProxy has heard an agent a few times more, and fails the test
// if the servers are not as they should be at any time.
func (h *haproxy) stays(agent checked, what string, ok func(map[string]haState) bool) {
	h.t.Helper()
	heard := func() float64 { return agent.counter(h.t, "outrigger_agent_checks_total") }
	for until := heard() + 12; heard() < until; time.Sleep(20 * time.Millisecond) {
		all, err := h.servers()
		if err != nil {
			h.t.Fatal(err)
		}
		if !ok(all) {
			h.t.Fatalf("want %s, but HAProxy has %+v", what, all)
		}
	}
}

// checked is the agent of a backend, with an agent-check.
type checked struct {
	*process
	port, check int // where it listens, for sidecars and for HAProxy
}

// checkedSpec says how to configure one.
type checkedSpec struct {
	watch   string // in the backend block; "": by port
	inCheck string // in the agent_check block
	inAgent string // in the agent block
	check   int    // port; 0: a free one
}

func startChecked(t *testing.T, b *backend, spec checkedSpec) checked {
	t.Helper()
	if spec.watch == "" {
		spec.watch = byPort(b)
	}
	c := checked{port: freePort(t), check: spec.check}
	if c.check == 0 {
		c.check = freePort(t)
	}
	file := filepath.Join(t.TempDir(), "agent-"+b.name+".hcl")
	text := fmt.Sprintf("consul { address = %q }\nagent {\n  listen = %q\n  backend {\n%s\n}\n  agent_check {\n    listen = %q\n%s\n}\n%s\n}\n",
		suite.consul.Addr(), loopback(c.port), spec.watch, loopback(c.check), spec.inCheck, spec.inAgent)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	c.process = start(t, harness.Spec{Name: "agent " + b.name, Path: suite.outrigger, Args: []string{"agent", "-config", file}})
	eventually(t, 20*time.Second, "the agent of "+b.name, func() error {
		_, err := getOnce(loopback(c.port), "/v1/report")
		return err
	})
	return c
}

// counter reads a metric without labels.
func (c checked) counter(t *testing.T, name string) float64 {
	t.Helper()
	a, err := getOnce(loopback(c.port), "/metrics")
	if err != nil || a.status != 200 {
		t.Fatalf("/metrics of the agent: %d %v", a.status, err)
	}
	for line := range strings.Lines(string(a.body)) {
		if rest, is := strings.CutPrefix(line, name+" "); is {
			v, err := strconv.ParseFloat(strings.TrimSpace(rest), 64)
			if err != nil {
				t.Fatal(err)
			}
			return v
		}
	}
	t.Fatalf("the agent has no metric %s", name)
	return 0
}

// cell is a control group of v1 with a CPU quota and a memory limit, and two groups in
// it: of the backend and of its neighbour.
type cell struct{ path, app, foe string }

const (
	cellCores  = 0.4
	cellMemory = 256 << 20
)

var cellMounts = []string{"/sys/fs/cgroup/cpu", "/sys/fs/cgroup/cpuacct", "/sys/fs/cgroup/memory"}

func newCell(t *testing.T, name string) *cell {
	t.Helper()
	path := fmt.Sprintf("/outrigger-e2e-%d-%s", os.Getpid(), name)
	c := &cell{path, path + "/app", path + "/foe"}
	dirs := []string{c.app, c.foe, c.path} // inner ones first
	for _, mount := range cellMounts {
		if _, err := os.Stat(mount + "/cgroup.procs"); err != nil {
			t.Skipf("takes cgroup v1 with the controllers cpu, cpuacct and memory: %v", err)
		}
		for i := len(dirs) - 1; i >= 0; i-- {
			if err := os.Mkdir(mount+dirs[i], 0o755); errors.Is(err, os.ErrPermission) || errors.Is(err, syscall.EROFS) {
				t.Skipf("takes control groups that may be made: %v", err)
			} else if err != nil && !errors.Is(err, os.ErrExist) {
				t.Fatal(err)
			}
		}
	}
	t.Cleanup(func() { // after those of the processes in it
		for _, mount := range cellMounts {
			for _, dir := range dirs {
				eventually(t, 5*time.Second, "the control group to be empty", func() error {
					if err := os.Remove(mount + dir); err != nil && !errors.Is(err, os.ErrNotExist) {
						return err
					}
					return nil
				})
			}
		}
	})
	c.write(t, "cpu", c.path, "cpu.cfs_period_us", 100000)
	c.write(t, "cpu", c.path, "cpu.cfs_quota_us", cellCores*100000)
	c.write(t, "memory", c.path, "memory.limit_in_bytes", cellMemory)
	return c
}

func (c *cell) write(t *testing.T, controller, group, file string, n int) {
	t.Helper()
	if err := os.WriteFile("/sys/fs/cgroup/"+controller+group+"/"+file, []byte(strconv.Itoa(n)), 0o644); err != nil {
		t.Fatal(err)
	}
}

func (c *cell) add(t *testing.T, group string, p *process) {
	t.Helper()
	for _, controller := range []string{"cpu", "cpuacct", "memory"} {
		c.write(t, controller, group, "cgroup.procs", p.PID())
	}
}

// watch is the agent's backend block for what runs in the cell.
func (c *cell) watch(b *backend) string { return fmt.Sprintf("cgroup = %q\nport = %d", c.app, b.port) }

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
	hog := start(t, harness.Spec{Name: "hog", Path: suite.self, Env: append(os.Environ(), fmt.Sprintf("%s=%d", hogEnv, cellMemory*86/100))})
	c.add(t, c.app, hog) // before it holds much; what it has by then is charged to where it was
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
		if n := agents[i].counter(t, "outrigger_agent_checks_total"); n < 10 {
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
