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

// hogEnv turns this test binary into a process that moves to a control group, as
// "MEBIBYTES /path", and holds as much memory there.
const hogEnv = "OUTRIGGER_E2E_HOG"

// Here and not in TestMain, which knows the children that more than one test has.
func init() {
	size, group, ok := strings.Cut(os.Getenv(hogEnv), " ")
	if !ok {
		return
	}
	n, err := strconv.Atoi(size)
	if err == nil { // memory is charged to where it is first written
		err = joinCell(group, os.Getpid())
	}
	var held []byte
	if err == nil { // not of the heap, which with -race would take several times as much
		held, err = syscall.Mmap(-1, 0, n<<20, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|syscall.MAP_PRIVATE)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "hog:", err)
		os.Exit(1)
	}
	for i := 0; i < len(held); i += os.Getpagesize() {
		held[i] = 1
	}
	time.Sleep(time.Hour)
	runtime.KeepAlive(held)
}

// joinCell moves a process to one of a cell's groups.
func joinCell(group string, pid int) error {
	var errs []error
	for _, mount := range cellMounts() {
		errs = append(errs, os.WriteFile(mount+group+"/cgroup.procs", []byte(strconv.Itoa(pid)), 0o644))
	}
	return errors.Join(errs...)
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
	cellMemory = 256 // MiB
)

func cellMounts() []string {
	return []string{"/sys/fs/cgroup/cpu", "/sys/fs/cgroup/cpuacct", "/sys/fs/cgroup/memory"}
}

func newCell(t *testing.T, name string) *cell {
	t.Helper()
	path := fmt.Sprintf("/outrigger-e2e-%d-%s", os.Getpid(), name)
	c := &cell{path, path + "/app", path + "/foe"}
	dirs := []string{c.app, c.foe, c.path} // inner ones first
	for _, mount := range cellMounts() {
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
		for _, mount := range cellMounts() {
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
	c.write(t, "memory", c.path, "memory.limit_in_bytes", cellMemory<<20)
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
	if err := joinCell(group, p.PID()); err != nil {
		t.Fatal(err)
	}
}

// watch is the agent's backend block for what runs in the cell.
func (c *cell) watch(b *backend) string { return fmt.Sprintf("cgroup = %q\nport = %d", c.app, b.port) }
