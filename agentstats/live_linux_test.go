package agentstats

import (
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
)

func liveSampler(t *testing.T, b Backend) *sampler {
	t.Helper()
	cfg := DefaultConfig()
	cfg.Backend = b
	s, err := newSampler(cfg, hclog.NewNullLogger())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.close)
	return s
}

// until samples at the default interval until the report is as wished, and returns it.
func until(t *testing.T, s *sampler, what string, wished func(Report) bool) Report {
	t.Helper()
	r, ok := sampleUntil(t, s, patience, wished)
	if !ok {
		t.Fatalf("%s: not within %s; last report %s", what, patience, show(r))
	}
	return r
}

func sampleUntil(t *testing.T, s *sampler, within time.Duration, wished func(Report) bool) (Report, bool) {
	t.Helper()
	tick := time.NewTicker(DefaultConfig().Interval)
	defer tick.Stop()
	for start := time.Now(); ; <-tick.C {
		r, _ := s.sample(time.Now())
		r.Version, r.At = Version, 1
		if err := r.validate(); err != nil {
			t.Fatalf("a sample that no poller would take: %v", err)
		}
		if wished(r) {
			return r, true
		}
		if time.Since(start) > within {
			return r, false
		}
	}
}

func show(r Report) string {
	b, err := Encode(r)
	if err != nil {
		return err.Error()
	}
	return string(b)
}

// TestLiveUsed: a pinned process that starts to burn moves used and cpu, and their sum
// over time is the CPU time the kernel accounts to it.
func TestLiveUsed(t *testing.T) {
	h := startHelper(t, lastCPU(t))
	s := liveSampler(t, Backend{Port: h.listen("127.0.0.1:0")})
	r := until(t, s, "an idle backend uses nothing", func(r Report) bool { return r.Used.Or(1) < 0.1 })
	want(t, "cores of a backend pinned to one CPU", r.Cores, Some(1.0))
	want(t, "listening", r.Listening, Some(true))

	h.do("burn")
	until(t, s, "a burning backend uses its CPU", func(r Report) bool { return r.Used.Or(0) > 0.15 })

	var sum float64
	last := time.Now()
	s.sample(last)
	before := h.cpuTime()
	tick := time.NewTicker(300 * ms)
	defer tick.Stop()
	for range 8 {
		<-tick.C
		now := time.Now()
		r, _ := s.sample(now)
		sum += r.Used.Or(math.NaN()) * now.Sub(last).Seconds()
		last = now
		if got, want := r.CPU.Or(-1), r.Used.Or(0)/r.Cores.Or(0); math.Abs(got-want) > 1e-3 {
			t.Errorf("cpu %v, used / cores %v", got, want)
		}
	}
	truth := (h.cpuTime() - before).Seconds()
	// Ticks are 10 ms, and the two readings of the truth are not those of the samples.
	if !(math.Abs(sum-truth) <= 0.1*truth+0.1) {
		t.Errorf("sum of used over time %.3f s, the kernel accounts %.3f s", sum, truth)
	}
}

// gone tells that the figure stayed below the bound for two seconds, which a passing
// peak of other work on this machine does not bring about.
func gone(bound float64) func(Report) bool {
	row := 0
	return func(r Report) bool {
		row++
		if r.Avail.Or(1) > bound {
			row = 0
		}
		return row == 8
	}
}

// TestLiveNeighbourTakesIdle: somebody else burns the CPU that an idle backend is
// pinned to.
func TestLiveNeighbourTakesIdle(t *testing.T) {
	cpu := lastCPU(t)
	h := startHelper(t, cpu)
	s := liveSampler(t, Backend{Port: h.listen("127.0.0.1:0")})
	idle := func(r Report) bool { return r.Avail.Or(0) > 0.15 }
	if _, ok := sampleUntil(t, s, patience/4, idle); !ok {
		t.Skipf("CPU %d was never 15 %% idle: other work on this machine", cpu)
	}
	n := startHelper(t, cpu)
	n.do("burn")
	if r := until(t, s, "a neighbour takes the CPU", gone(0.08)); r.Used.Or(1) > 0.08 {
		t.Errorf("the neighbour's time counts as the backend's: %s", show(r))
	}
	n.stop()
	if _, ok := sampleUntil(t, s, patience/4, idle); !ok {
		t.Skipf("CPU %d did not become idle again: other work on this machine", cpu)
	}
}

// TestLiveNeighbourTakesShare: the backend burns too, so its share of the CPU is what
// the neighbour takes. This holds however busy the machine is.
func TestLiveNeighbourTakesShare(t *testing.T) {
	cpu := lastCPU(t)
	h := startHelper(t, cpu)
	s := liveSampler(t, Backend{Port: h.listen("127.0.0.1:0")})
	h.do("burn")
	until(t, s, "a share of its own", func(r Report) bool { return r.Avail.Or(0) > 0.2 && r.Used.Or(0) > 0.1 })
	n := startHelper(t, cpu)
	for range 16 {
		n.do("burn")
	}
	until(t, s, "sixteen neighbours leave a seventeenth", gone(0.15))
	n.stop()
	until(t, s, "its share comes back", func(r Report) bool { return r.Avail.Or(0) > 0.2 })
}

func TestLiveMemory(t *testing.T) {
	h := startHelper(t, -1)
	s := liveSampler(t, Backend{PID: h.pid()})
	before := until(t, s, "memory is known", func(r Report) bool { return r.MemBytes.Or(0) > 0 })
	h.do("grow 64")
	// Resident pages are counted per CPU and summed up loosely: 4 MiB of grace.
	after := until(t, s, "64 MiB more", func(r Report) bool { return r.MemBytes.Or(0) >= before.MemBytes.Or(0)+60*mib })
	if after.MemBytes.Or(0) > before.MemBytes.Or(0)+96*mib || after.Mem.Or(0) <= before.Mem.Or(0) {
		t.Errorf("before %s\nafter  %s", show(before), show(after))
	}
}

// TestLiveProcesses: a server that shares its socket with a child, over IPv6; the
// parent's life is the backend's, then the child's, then nobody's, then a new one's.
func TestLiveProcesses(t *testing.T) {
	h := startHelper(t, -1)
	addr := "[::1]:0"
	if _, err := os.Stat("/proc/net/tcp6"); err != nil {
		addr = "127.0.0.1:0"
	}
	port := h.listen(addr)
	child, err := strconv.Atoi(h.do("fork"))
	if err != nil {
		t.Fatal(err)
	}
	p, err := os.FindProcess(child)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Kill() })
	s := liveSampler(t, Backend{Port: port})
	r := until(t, s, "parent and child are found", func(r Report) bool { return len(s.plan.procs) == 2 })
	if s.plan.main.pid != h.pid() || !strings.HasPrefix(r.Epoch, strconv.Itoa(h.pid())+"-") {
		t.Errorf("the parent is %d, found %d, epoch %s", h.pid(), s.plan.main.pid, r.Epoch)
	}
	h.stop()
	r = until(t, s, "the child goes on alone", func(r Report) bool { return s.plan.main.pid == child })
	want(t, "listening", r.Listening, Some(true))

	_ = p.Kill()
	r = until(t, s, "nobody is left", func(r Report) bool { return r.Listening == Some(false) })
	want(t, "the report of a dead backend", r, Report{Version: Version, At: 1, Listening: Some(false)})

	again := startHelper(t, -1)
	again.listen(strings.TrimSuffix(addr, "0") + strconv.Itoa(port))
	r = until(t, s, "the next life", func(r Report) bool { return r.Used.Or(-1) >= 0 })
	if !strings.HasPrefix(r.Epoch, strconv.Itoa(again.pid())+"-") {
		t.Errorf("epoch %s of process %d", r.Epoch, again.pid())
	}
}

// v1Group makes a cgroup v1 group, or skips the test where that is not possible.
func v1Group(t *testing.T, controller string) string {
	t.Helper()
	dir := filepath.Join("/sys/fs/cgroup", controller, fmt.Sprintf("outrigger-test-%d-%s", os.Getpid(), t.Name()))
	if _, err := os.Stat(filepath.Join("/sys/fs/cgroup", controller, "release_agent")); err != nil {
		t.Skipf("no cgroup v1 %s controller here: %v", controller, err)
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Skipf("cannot make a cgroup: %v (needs root)", err)
	}
	removeAfter(t, dir)
	return dir
}

// removeAfter removes a group at the end of the test, or one that the test removed.
func removeAfter(t *testing.T, dir string) {
	t.Cleanup(func() {
		// The kernel lets go of a killed process a moment after its parent has waited.
		for range 100 {
			if err := os.Remove(dir); err == nil || errors.Is(err, os.ErrNotExist) {
				return
			}
			time.Sleep(20 * ms)
		}
		t.Errorf("cannot remove %s", dir)
	})
}

func put(t *testing.T, dir, file string, value any) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, file), fmt.Append(nil, value), 0o644); err != nil {
		t.Fatal(err)
	}
}

// TestLiveQuota: a real quota of half a CPU, first of the backend alone, then shared
// with a neighbour in the same group.
func TestLiveQuota(t *testing.T) {
	cpu, acct := v1Group(t, "cpu"), v1Group(t, "cpuacct")
	put(t, cpu, "cpu.cfs_period_us", 100_000)
	put(t, cpu, "cpu.cfs_quota_us", 50_000)
	h := startHelper(t, -1)
	put(t, cpu, "cgroup.procs", h.pid())
	put(t, acct, "cgroup.procs", h.pid())
	s := liveSampler(t, Backend{Port: h.listen("127.0.0.1:0")})

	r := until(t, s, "idle", func(r Report) bool { return r.Used.Or(1) < 0.1 })
	want(t, "cores", r.Cores, Some(0.5))
	want(t, "the counters", s.plan.cpuDir, acct)
	h.do("burn")
	r = until(t, s, "the quota is used up", func(r Report) bool { return r.Used.Or(0) > 0.3 })
	if r.Avail.Or(1) > 0.5 || r.Used.Or(1) > 0.5 {
		t.Errorf("more than the quota: %s", show(r))
	}

	// The neighbour is throttled together with the backend, so of two burners each has
	// about a quarter of a CPU, and that is what is left for the backend.
	n := startHelper(t, -1)
	put(t, cpu, "cgroup.procs", n.pid())
	put(t, acct, "cgroup.procs", n.pid())
	n.do("burn")
	r = until(t, s, "the neighbour takes its part", func(r Report) bool {
		return s.plan.cpuDir == "" && r.Avail.Or(1) < 0.4 && r.Used.Or(0) > 0.05
	})
	want(t, "cores of the shared group", r.Cores, Some(0.5))

	// The same group by its name: everything in it counts.
	whole := liveSampler(t, Backend{Cgroup: "/" + filepath.Base(acct)})
	until(t, whole, "the whole group", func(r Report) bool {
		return r.Used.Or(0) > 0.3 && r.Cores == Some(0.5)
	})
	n.stop()
	h.stop()
}

func TestLiveMemoryLimit(t *testing.T) {
	mem := v1Group(t, "memory")
	put(t, mem, "memory.limit_in_bytes", 256*mib)
	h := startHelper(t, -1)
	put(t, mem, "cgroup.procs", h.pid())
	s := liveSampler(t, Backend{Port: h.listen("127.0.0.1:0")})
	before := until(t, s, "the limit is seen", func(r Report) bool { return r.MemLimit == Some(int64(256*mib)) })
	want(t, "the counters", s.plan.memDir, mem)
	h.do("grow 128")
	r := until(t, s, "half of the limit", func(r Report) bool { return r.Mem.Or(0) >= before.Mem.Or(0)+0.48 })
	if got, want := r.Mem.Or(0), float64(r.MemBytes.Or(0))/float64(256*mib); math.Abs(got-want) > 1e-3 || got > 0.75 {
		t.Errorf("mem %v, bytes over limit %v: %s", got, want, show(r))
	}
	h.stop()
}
