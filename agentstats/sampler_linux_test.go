package agentstats

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestV2OwnGroup: a service in a group of its own, below a slice with tighter limits
// that it shares with others.
func TestV2OwnGroup(t *testing.T) {
	h := newHost(t, 4, v2Mount)
	h.v2("/app.slice", "300000 100000", "629145600", 9_000_000, 500*mib, 20*mib)
	h.v2("/app.slice/web.service", "200000 100000", "max", 5_000_000, 300*mib, 100*mib, 10, 11)
	h.listen("8080:77")
	h.process(fixtureProc{pid: 10, ppid: 1, session: 10, start: 500, name: "gunicorn: (m) x", cpus: "0-3", cgroup: "0::/app.slice/web.service\n", sockets: []int{5, 77}})
	h.process(fixtureProc{pid: 11, ppid: 10, session: 10, start: 600, name: "worker", cpus: "0-3", cgroup: "0::/app.slice/web.service\n", sockets: []int{77}})
	s := h.sampler(Backend{Port: 8080})

	start := time.Now()
	r, state := s.sample(start)
	if !strings.HasSuffix(s.plan.cpuDir, "/app.slice/web.service") || !strings.HasSuffix(s.plan.memDir, "/app.slice/web.service") {
		t.Fatalf("the group is the backend's own, but the plan is: %s", state)
	}
	want(t, "epoch", r.Epoch, "10-500")
	want(t, "listening", r.Listening, Some(true))
	want(t, "cores", r.Cores, Some(2.0))
	want(t, "used before a window", r.Used, Opt[float64]{})
	want(t, "mem_bytes", r.MemBytes, Some(int64(200*mib)))
	want(t, "mem_limit", r.MemLimit, Some(int64(600*mib)))
	want(t, "mem: the slice is nearer to its limit", r.Mem, Some(0.8))

	// In 250 ms: 0.25 s of CPU for the service (1 core), 0.5 s for the slice (2 cores).
	h.v2("/app.slice/web.service", "200000 100000", "max", 5_250_000, 300*mib, 100*mib, 10, 11)
	h.v2("/app.slice", "300000 100000", "629145600", 9_500_000, 500*mib, 20*mib)
	h.idle(12, 12, 12, 0) // of 25 ticks each
	r, _ = s.sample(start.Add(250 * ms))
	want(t, "used", r.Used, Some(1.0))
	want(t, "cpu", r.CPU, Some(0.5))
	want(t, "avail: quota 3 of the slice, of which others take 1", r.Avail, Some(2.0))

	h.v2("/app.slice/web.service", "200000 100000", "max", 5_250_000, 300*mib, 100*mib, 10, 11)
	h.idle(12, 12, 12, 5) // 5 of 100 ticks idle
	r, _ = s.sample(start.Add(500 * ms))
	want(t, "used", r.Used, Some(0.0))
	want(t, "avail: only the host's idle is left", r.Avail, Some(0.2))
	if r.Version, r.At = Version, 1; r.validate() != nil {
		t.Error(r.validate())
	}
}

// TestV2SharedGroup: someone else in the group, so the processes are summed up while
// the group's limits stay.
func TestV2SharedGroup(t *testing.T) {
	h := newHost(t, 2, v2Mount)
	h.v2("/pod", "100000 100000", fmt.Sprint(256*mib), 1_000_000, 128*mib, 0, 10, 11, 50)
	group := "0::/pod\n"
	page := os.Getpagesize()
	master := fixtureProc{pid: 10, ppid: 1, session: 10, start: 500, name: "app", cpus: "0-1", cgroup: group, sockets: []int{77}, rssPages: 10 * mib / page}
	child := fixtureProc{pid: 11, ppid: 10, session: 10, start: 600, name: "child", cpus: "0-1", cgroup: group, rssPages: 6 * mib / page}
	daemon := fixtureProc{pid: 12, ppid: 10, session: 12, start: 600, name: "daemon", cpus: "0-1", cgroup: "0::/\n", rssPages: 1000}
	h.process(master)
	h.process(child)
	h.process(daemon)
	h.process(fixtureProc{pid: 50, ppid: 1, session: 50, start: 400, name: "agent", cpus: "0-1", cgroup: group})
	h.listen("8080:77", "8081:78")
	s := h.sampler(Backend{Port: 8080})
	start := time.Now()
	r, state := s.sample(start)
	if s.plan.cpuDir != "" || s.plan.memDir != "" {
		t.Fatalf("the group is shared, but the plan is: %s", state)
	}
	want(t, "family", len(s.plan.family), 2)
	want(t, "mem_bytes", r.MemBytes, Some(int64(16*mib)))
	want(t, "mem: the group's", r.Mem, Some(0.5))
	want(t, "cores", r.Cores, Some(1.0))

	master.cpu, child.cpu = 5, 8 // 130 ms of 250
	h.process(master)
	h.process(child)
	h.v2("/pod", "100000 100000", fmt.Sprint(256*mib), 1_205_000, 128*mib, 0, 10, 11, 50) // 205 ms, 75 of them the agent's
	h.idle(25, 25)
	r, _ = s.sample(start.Add(250 * ms))
	want(t, "used", r.Used, Some(0.52))
	want(t, "avail: the quota without the agent's part", r.Avail, Some(0.7))

	// Shared pages count once per process; their group's own count is the bound.
	master.rssPages, child.rssPages = 100*mib/page, 100*mib/page
	h.process(master)
	h.process(child)
	r, _ = s.sample(start.Add(500 * ms))
	want(t, "mem_bytes of processes that share pages", r.MemBytes, Some(int64(128*mib)))
}

// TestHostRoot: no groups to speak of, two CPUs allowed by affinity of four.
func TestHostRoot(t *testing.T) {
	h := newHost(t, 4, v2Mount)
	h.write(h.cgroup, "cgroup.procs", "10\n")
	h.write(h.cgroup, "cpu.stat", "usage_usec 1\n")
	p := fixtureProc{pid: 10, ppid: 1, session: 10, start: 500, name: "app", cpus: "1,3", cgroup: "0::/\n", rssPages: 1000}
	h.process(p)
	h.write(h.proc, "10/task/10/status", "Cpus_allowed_list:\t1\n")
	h.write(h.proc, "10/task/11/status", "Cpus_allowed_list:\t3\n")
	h.write(h.proc, "10/status", "Cpus_allowed_list:\t1\n") // the first thread alone does not tell
	s := h.sampler(Backend{PID: 10})
	start := time.Now()
	r, _ := s.sample(start)
	want(t, "cores", r.Cores, Some(2.0))
	want(t, "mem_limit", r.MemLimit, Some(int64(1024*mib)))
	want(t, "listening without a port", r.Listening, Opt[bool]{})
	h.idle(25, 10, 25, 0)
	p.cpu = 15
	h.process(p)
	h.write(h.proc, "10/status", "Cpus_allowed_list:\t1\n")
	r, _ = s.sample(start.Add(250 * ms))
	want(t, "used", r.Used, Some(0.6))
	want(t, "avail: idle of CPUs 1 and 3 only", r.Avail, Some(1.0))

	h.kill(10)
	r, state := s.sample(start.Add(500 * ms))
	want(t, "the report of a dead backend", r, Report{Listening: Some(false)})
	if !strings.Contains(state, "process 10 does not exist") {
		t.Errorf("state %q", state)
	}
	p.start = 900
	h.process(p)
	r, _ = s.sample(start.Add(750 * ms))
	want(t, "epoch of the next life", r.Epoch, "10-900")
	want(t, "used right after a restart", r.Used, Opt[float64]{})
}

const v1Mounts = `31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755
32 31 0:29 %[1]s /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 %[1]s /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
`

// TestV1Container: v1 hierarchies whose mounts show only the container's part, as
// without a cgroup namespace, beside a v2 tree without controllers.
func TestV1Container(t *testing.T) {
	h := newHost(t, 2, fmt.Sprintf(v1Mounts, "/docker/abc"))
	cpu, mem := filepath.Join(h.cgroup, "cpu,cpuacct"), filepath.Join(h.cgroup, "memory")
	h.write(cpu, "cpu.cfs_quota_us", "150000\n")
	h.write(cpu, "cpu.cfs_period_us", "100000\n")
	h.write(cpu, "cpuacct.usage", "1000000000\n")
	h.write(cpu, "cgroup.procs", "1\n7\n")
	h.write(mem, "memory.limit_in_bytes", fmt.Sprint(256*mib))
	h.write(mem, "memory.usage_in_bytes", fmt.Sprint(200*mib))
	h.write(mem, "memory.stat", fmt.Sprintf("inactive_file 5\ntotal_inactive_file %d\n", 72*mib))
	h.write(mem, "cgroup.procs", "1\n7\n")
	group := "9:name=systemd:/docker/abc\n3:memory:/docker/abc\n2:cpu,cpuacct:/docker/abc\n0::/\n"
	h.process(fixtureProc{pid: 1, ppid: 0, session: 1, start: 5, name: "app", cpus: "0-1", cgroup: group, sockets: []int{77}})
	h.process(fixtureProc{pid: 7, ppid: 1, session: 7, start: 9, name: "helper", cpus: "0-1", cgroup: group})
	h.listen("8080:77")
	s := h.sampler(Backend{Port: 8080})
	start := time.Now()
	r, state := s.sample(start)
	if s.plan.cpuDir != cpu || s.plan.memDir != mem {
		t.Fatalf("plan: %s", state)
	}
	want(t, "cores", r.Cores, Some(1.5))
	want(t, "mem", r.Mem, Some(0.5))
	h.write(cpu, "cpuacct.usage", "1300000000\n")
	h.idle(25, 25)
	r, _ = s.sample(start.Add(250 * ms))
	want(t, "used", r.Used, Some(1.2))
	want(t, "avail", r.Avail, Some(1.5))
	want(t, "cpu", r.CPU, Some(0.8))

	// A limit that is lifted: v1 writes "none" as the largest number of pages.
	h.write(cpu, "cpu.cfs_quota_us", "-1\n")
	h.write(mem, "memory.limit_in_bytes", "9223372036854771712\n")
	r, _ = s.sample(start.Add(refreshEvery + 250*ms))
	want(t, "cores without a quota", r.Cores, Some(2.0))
	want(t, "mem_limit without a limit", r.MemLimit, Some(int64(1024*mib)))
}

// TestConfiguredGroup: the group is declared, so its counters count although it holds
// unrelated processes; the epoch is the one of the process that listens.
func TestConfiguredGroup(t *testing.T) {
	h := newHost(t, 2, v2Mount)
	h.v2("/box", "max 100000", "max", 1_000_000, 64*mib, 0, 1)
	h.v2("/box/inner", "max 100000", "max", 900_000, 64*mib, 0, 8)
	h.process(fixtureProc{pid: 1, ppid: 0, session: 1, start: 5, name: "init", cpus: "0-1", cgroup: "0::/box\n"})
	h.process(fixtureProc{pid: 8, ppid: 99, session: 8, start: 70, name: "app", cpus: "0-1", cgroup: "0::/box/inner\n", sockets: []int{77}})
	h.listen("8080:77")
	table, _ := os.ReadFile(filepath.Join(h.proc, "self/net/tcp"))
	h.write(h.proc, "1/net/tcp", string(table))
	s := h.sampler(Backend{Cgroup: "/box", Port: 8080})
	r, state := s.sample(time.Now())
	if !strings.HasSuffix(s.plan.cpuDir, "/box") {
		t.Fatalf("plan: %s", state)
	}
	want(t, "epoch", r.Epoch, "8-70")
	want(t, "listening", r.Listening, Some(true))
	want(t, "mem_bytes", r.MemBytes, Some(int64(64*mib)))
	want(t, "cores", r.Cores, Some(2.0))

	h = newHost(t, 2, v2Mount)
	r, state = h.sampler(Backend{Cgroup: "/box"}).sample(time.Now())
	want(t, "the report of a group that is not there", r, Report{Listening: Some(false)})
	if !strings.Contains(state, "cgroup /box does not exist or is empty") {
		t.Errorf("state %q", state)
	}
}
