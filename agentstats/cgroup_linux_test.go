package agentstats

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestV2Nested: the limits of every ancestor count, the tightest quota binds, and
// memory.high, memory.low and swap are no limits.
func TestV2Nested(t *testing.T) {
	h := newHost(t, 8, v2Mount)
	const group = "0::/kubepods.slice/pod1/app\n"
	write := func(usec int64) {
		h.v2("/kubepods.slice", "600000 100000", "max", 4*usec, 700*mib, 0)
		h.v2("/kubepods.slice/pod1", "150000 100000", fmt.Sprint(512*mib), 2*usec, 300*mib, 44*mib)
		h.v2("/kubepods.slice/pod1/app", "200000 100000", fmt.Sprint(400*mib), usec, 250*mib, 50*mib, 10)
	}
	write(1_000_000)
	h.write(h.cgroup+"/kubepods.slice/pod1/app", "memory.high", fmt.Sprint(210*mib))
	h.write(h.cgroup+"/kubepods.slice/pod1/app", "memory.low", fmt.Sprint(50*mib))
	h.write(h.cgroup+"/kubepods.slice/pod1/app", "memory.swap.max", fmt.Sprint(1024*mib))
	h.write(h.cgroup+"/kubepods.slice/pod1/app", "memory.swap.current", fmt.Sprint(90*mib))
	h.process(fixtureProc{pid: 10, ppid: 1, session: 10, start: 5, name: "app", cpus: "0-7", cgroup: group})
	s := h.sampler(Backend{PID: 10})
	start := time.Now()
	r, state := s.sample(start)
	want(t, "cores: the pod's", r.Cores, Some(1.5))
	want(t, "mem_limit: the app's", r.MemLimit, Some(int64(400*mib)))
	want(t, "mem_bytes: usage - inactive_file", r.MemBytes, Some(int64(200*mib)))
	want(t, "mem: both levels are half full", r.Mem, Some(0.5))
	if !strings.Contains(state, "CPU quota 1.5") {
		t.Errorf("state %q", state)
	}
	// 125 ms of the app's own, as much again of its siblings, in 250 ms.
	write(1_125_000)
	h.idle(25, 25, 25, 25, 25, 25, 0, 0)
	r, _ = s.sample(start.Add(250 * ms))
	want(t, "used", r.Used, Some(0.5))
	want(t, "avail: the pod's quota without the siblings' half", r.Avail, Some(1.0))
}

// TestV2DeepQuotas: of more quotas than are watched the tightest stay.
func TestV2DeepQuotas(t *testing.T) {
	h := newHost(t, 64, v2Mount)
	group := ""
	for i := range maxLevels + 4 {
		group += fmt.Sprintf("/g%d", i)
		h.v2(group, fmt.Sprintf("%d 100000", (50-i)*100_000), "max", 1, 1, 0)
	}
	h.v2(group, "max 100000", "max", 1, 1, 0, 10)
	h.v2("/g0", "100000 100000", "max", 1, 1, 0)
	h.process(fixtureProc{pid: 10, ppid: 1, session: 10, start: 5, name: "app", cpus: "0-63", cgroup: "0::" + group + "\n"})
	s := h.sampler(Backend{PID: 10})
	r, _ := s.sample(time.Now())
	want(t, "cores", r.Cores, Some(1.0))
	want(t, "quotas watched", len(s.plan.quotas), maxLevels)
}

// TestHybrid: systemd's hybrid layout. v1 has the limits of a group around the backend
// but counts nothing of its own; v2 has no controllers, but counts in cpu.stat.
func TestHybrid(t *testing.T) {
	h := newHost(t, 2, fmt.Sprintf(v1Mounts, "/"))
	cpu, mem, v2 := filepath.Join(h.cgroup, "cpu,cpuacct"), filepath.Join(h.cgroup, "memory"), "/unified/system.slice/web.service"
	for _, root := range []string{cpu, mem} {
		h.write(root, "release_agent", "")
		h.write(root, "cgroup.procs", "1\n10\n")
	}
	h.write(cpu, "cpuacct.usage", "99000000000\n")
	h.write(mem, "system.slice/memory.limit_in_bytes", fmt.Sprint(500*mib))
	h.write(mem, "system.slice/memory.soft_limit_in_bytes", fmt.Sprint(100*mib))
	h.write(mem, "system.slice/memory.memsw.limit_in_bytes", fmt.Sprint(600*mib))
	h.write(mem, "system.slice/memory.usage_in_bytes", fmt.Sprint(250*mib))
	h.write(mem, "system.slice/memory.stat", "total_inactive_file 0\n")
	h.write(mem, "system.slice/cgroup.procs", "10\n20\n")
	h.write(h.cgroup+v2, "cgroup.type", "domain\n")
	h.write(h.cgroup+v2, "cgroup.procs", "10\n11\n")
	h.write(h.cgroup+v2, "cpu.stat", "usage_usec 1000000\nuser_usec 1\n")
	h.pressure(v2, [2]int{5, 5}, [2]int{5, 5}, [2]int{5, 5})
	group := "4:memory:/system.slice\n3:cpu,cpuacct:/\n1:name=systemd:/system.slice/web.service\n0::/system.slice/web.service\n"
	for _, pid := range []int{10, 11} {
		h.process(fixtureProc{pid: pid, ppid: 1 + 9*(pid-10), session: 10, start: pid, name: "web", cpus: "0-1", cgroup: group, rssPages: 1000})
	}
	h.process(fixtureProc{pid: 20, ppid: 1, session: 20, start: 5, name: "other", cpus: "0-1", cgroup: group})
	s := h.sampler(Backend{PID: 10})
	start := time.Now()
	r, state := s.sample(start)
	if s.plan.cpuDir != h.cgroup+v2 || s.plan.memDir != "" {
		t.Fatalf("plan: %s", state)
	}
	want(t, "mem_limit: v1's hard limit", r.MemLimit, Some(int64(500*mib)))
	want(t, "mem: of the shared group", r.Mem, Some(0.5))
	want(t, "mem_bytes: the processes'", r.MemBytes, Some(int64(2000*os.Getpagesize())))
	h.write(h.cgroup+v2, "cpu.stat", "usage_usec 1200000\nuser_usec 1\n")
	h.pressure(v2, [2]int{50_005, 5}, [2]int{5, 5}, [2]int{5, 5})
	r, _ = s.sample(start.Add(250 * ms))
	want(t, "used", r.Used, Some(0.8))
	want(t, "pressure", r.Pressure.Scope, "group")
	want(t, "pressure", r.Pressure.CPU.Some, Some(0.2))
}

// TestHybridQuota: the quota is in v1's cpu tree, nothing counts there, and v2 counts
// the group of the same name.
func TestHybridQuota(t *testing.T) {
	h := newHost(t, 4, `32 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu
41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
`)
	h.write(h.cgroup, "cpu/slice/cpu.cfs_quota_us", "100000\n")
	h.write(h.cgroup, "cpu/slice/cpu.cfs_period_us", "50000\n")
	use := func(slice, app int) {
		h.write(h.cgroup, "unified/slice/cpu.stat", "usage_usec "+lines([]int{slice}))
		h.write(h.cgroup, "unified/slice/app/cpu.stat", "usage_usec "+lines([]int{app}))
	}
	use(1000, 500)
	h.write(h.cgroup, "unified/slice/app/cgroup.procs", "10\n")
	h.process(fixtureProc{pid: 10, ppid: 1, session: 10, start: 5, name: "app", cpus: "0-3", cgroup: "1:cpu:/slice\n0::/slice/app\n"})
	s := h.sampler(Backend{PID: 10})
	start := time.Now()
	r, _ := s.sample(start)
	want(t, "cores", r.Cores, Some(2.0))
	use(301_000, 100_500)
	h.idle(25, 25, 25, 0)
	r, _ = s.sample(start.Add(250 * ms))
	want(t, "used", r.Used, Some(0.4))
	want(t, "avail: what the rest of the slice leaves of its quota", r.Avail, Some(1.2))
}

// TestNamespaces: what an agent in a cgroup namespace of its own sees.
func TestNamespaces(t *testing.T) {
	for name, c := range map[string]struct{ mounts, group, dir string }{
		"beside the backend, in its container": {v2Mount, "0::/\n", ""},
		"the backend below":                    {v2Mount, "0::/child\n", "/child"},
		"mounted before the namespace was made": {
			"30 23 0:26 /../.. /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n", "0::/../../pod/app\n", "/pod/app"},
	} {
		h := newHost(t, 2, c.mounts)
		h.v2(c.dir, "50000 100000", fmt.Sprint(64*mib), 1000, 32*mib, 0, 10)
		h.process(fixtureProc{pid: 10, ppid: 1, session: 10, start: 5, name: "app", cpus: "0-1", cgroup: c.group})
		s := h.sampler(Backend{PID: 10})
		r, state := s.sample(time.Now())
		if s.plan.cpuDir != h.cgroup+c.dir {
			t.Errorf("%s: %s", name, state)
		}
		want(t, name+": cores", r.Cores, Some(0.5))
		want(t, name+": mem", r.Mem, Some(0.5))
	}
}

// TestMoved: a backend that is put into another group, whose counters are unlike.
func TestMoved(t *testing.T) {
	h := newHost(t, 2, v2Mount)
	h.v2("/a", "max 100000", "max", 1000, mib, 0, 10)
	h.v2("/b", "50000 100000", "max", 900_000_000, mib, 0)
	p := fixtureProc{pid: 10, ppid: 1, session: 10, start: 5, name: "app", cpus: "0-1", cgroup: "0::/a\n"}
	h.process(p)
	s := h.sampler(Backend{PID: 10})
	start := time.Now()
	s.sample(start)
	r, _ := s.sample(start.Add(250 * ms))
	want(t, "used", r.Used, Some(0.0))
	h.v2("/a", "max 100000", "max", 1000, mib, 0)
	h.v2("/b", "50000 100000", "max", 900_000_000, mib, 0, 10)
	p.cgroup = "0::/b\n"
	h.process(p)
	r, _ = s.sample(start.Add(refreshEvery + 250*ms))
	want(t, "cores", r.Cores, Some(0.5))
	want(t, "used right after the move", r.Used, Opt[float64]{})
	want(t, "epoch", r.Epoch, "10-5")
	r, _ = s.sample(start.Add(refreshEvery + 500*ms))
	want(t, "used", r.Used, Some(0.0))
}
