package agentstats

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/hashicorp/go-hclog"
)

const mib = 1 << 20

// host is a fixture tree: /proc and /sys/fs/cgroup of a machine that this one is not.
type host struct {
	t            *testing.T
	proc, cgroup string
}

func newHost(t *testing.T, cpus int, mounts string) *host {
	h := &host{t: t, proc: filepath.Join(t.TempDir(), "proc"), cgroup: filepath.Join(t.TempDir(), "cgroup")}
	h.write(h.proc, "self/mountinfo", mounts)
	h.write(h.proc, "self/net/tcp", tcpHeader)
	h.write(h.proc, "meminfo", "MemTotal:        1048576 kB\nMemFree:    10 kB\nMemAvailable:     524288 kB\n")
	h.idle(make([]int, cpus)...)
	return h
}

const tcpHeader = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"

func (h *host) write(root, name, data string) {
	h.t.Helper()
	name = filepath.Join(root, name)
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		h.t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(data), 0o644); err != nil {
		h.t.Fatal(err)
	}
}

// idle sets each CPU's idle ticks, a third of them as I/O wait.
func (h *host) idle(ticks ...int) {
	text := "cpu  1 2 3 4 5 6 7 8 9 10\n"
	for i, n := range ticks {
		text += fmt.Sprintf("cpu%d 11 0 12 %d %d 0 0 99 0 0\n", i, n-n/3, n/3)
	}
	h.write(h.proc, "stat", text+"intr 1 2 3\n")
}

// listen puts sockets, given as port:inode, into the table.
func (h *host) listen(sockets ...string) {
	text := tcpHeader
	for i, s := range sockets {
		port, inode, _ := strings.Cut(s, ":")
		n, _ := strconv.Atoi(port)
		text += fmt.Sprintf("   %d: 0100007F:%04X 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 %s 1 0 100 0 0 10 0\n", i, n, inode)
	}
	// A connection on the same port, as of an accepted request: not a listener.
	h.write(h.proc, "self/net/tcp", text+"   9: 0100007F:1F90 0100007F:9999 01 00000000:00000000 00:00000000 00000000     0        0 999 1 0 100 0 0 10 0\n")
}

type fixtureProc struct {
	pid, ppid, session, start int
	name                      string
	cpu                       int // ticks
	rssPages                  int
	cpus                      string // Cpus_allowed_list
	cgroup                    string // lines of /proc/PID/cgroup
	sockets                   []int  // inodes
}

func (h *host) process(p fixtureProc) {
	dir := filepath.Join(h.proc, strconv.Itoa(p.pid))
	h.write(dir, "stat", fmt.Sprintf("%d (%s) S %d 1 %d 0 -1 4194304 0 0 0 0 %d %d 9999 9999 20 0 1 0 %d 12345678 %d 18446744073709551615 0 0 0\n",
		p.pid, p.name, p.ppid, p.session, p.cpu/2, p.cpu-p.cpu/2, p.start, p.rssPages))
	h.write(dir, "cgroup", p.cgroup)
	h.write(dir, "status", "Name:\tx\nCpus_allowed_list:\t"+p.cpus+"\n")
	for i, inode := range p.sockets {
		name := filepath.Join(dir, "fd", strconv.Itoa(i+3))
		_ = os.MkdirAll(filepath.Dir(name), 0o755)
		_ = os.Remove(name)
		if err := os.Symlink(fmt.Sprintf("socket:[%d]", inode), name); err != nil {
			h.t.Fatal(err)
		}
	}
}

// kill empties the files before it removes them: an open file of a process that has
// exited reads as an error, while an open regular file would go on as before.
func (h *host) kill(pid int) {
	h.write(h.proc, strconv.Itoa(pid)+"/stat", "")
	if err := os.RemoveAll(filepath.Join(h.proc, strconv.Itoa(pid))); err != nil {
		h.t.Fatal(err)
	}
}

func (h *host) sampler(b Backend) *sampler {
	h.t.Helper()
	cfg := DefaultConfig()
	cfg.ProcRoot, cfg.CgroupRoot, cfg.Backend = h.proc, h.cgroup, b
	s, err := newSampler(cfg, hclog.NewNullLogger())
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(s.close)
	return s
}

const v2Mount = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"

// v2 writes one group's files; "" leaves one out.
func (h *host) v2(group, cpuMax, memMax string, usec, current, inactive int64, pids ...int) {
	h.write(h.cgroup+group, "cgroup.type", "domain\n")
	h.write(h.cgroup+group, "cgroup.procs", lines(pids))
	h.write(h.cgroup+group, "cpu.stat", fmt.Sprintf("usage_usec %d\nuser_usec 1\nsystem_usec 2\n", usec))
	if cpuMax != "" {
		h.write(h.cgroup+group, "cpu.max", cpuMax+"\n")
	}
	if memMax != "" {
		h.write(h.cgroup+group, "memory.max", memMax+"\n")
		h.write(h.cgroup+group, "memory.current", fmt.Sprintf("%d\n", current))
		h.write(h.cgroup+group, "memory.stat", fmt.Sprintf("anon 1\nfile 2\ninactive_anon 7\ninactive_file %d\n", inactive))
	}
}

func lines(pids []int) (text string) {
	for _, pid := range pids {
		text += strconv.Itoa(pid) + "\n"
	}
	return text
}

func want[T comparable](t *testing.T, what string, got, want T) {
	t.Helper()
	if got != want {
		t.Errorf("%s: got %v, want %v", what, got, want)
	}
}
