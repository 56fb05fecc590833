package agentstats

import (
	"bytes"
	"fmt"
	"math"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// v2Group makes a group in the v2 tree, wherever that is mounted, or skips the test.
func v2Group(t *testing.T) string {
	t.Helper()
	data, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(data)) {
		f := strings.Fields(line)
		if len(f) < 5 || !strings.Contains(line, " - cgroup2 ") {
			continue
		}
		dir := filepath.Join(f[4], fmt.Sprintf("outrigger-test-%d-%s", os.Getpid(), t.Name()))
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Skipf("cannot make a v2 cgroup: %v (needs root)", err)
		}
		removeAfter(t, dir)
		return dir
	}
	t.Skip("no cgroup v2 tree is mounted here")
	return ""
}

// confined is a backend in groups of its own: v1 with a quota of half a CPU and a limit
// of 256 MiB, and v2, which counts its pressure.
func confined(t *testing.T, cpu int) (*helper, *sampler) {
	t.Helper()
	quota, acct, mem, v2 := v1Group(t, "cpu"), v1Group(t, "cpuacct"), v1Group(t, "memory"), v2Group(t)
	put(t, quota, "cpu.cfs_period_us", 100_000)
	put(t, quota, "cpu.cfs_quota_us", 50_000)
	put(t, mem, "memory.limit_in_bytes", 256*mib)
	h := startHelper(t, cpu)
	for _, dir := range []string{quota, acct, mem, v2} {
		put(t, dir, "cgroup.procs", h.pid())
	}
	return h, liveSampler(t, Backend{Port: h.listen("127.0.0.1:0")})
}

// unmoved tells what else moved between two reports, beside what is allowed to. Only
// figures that other work on this machine does not reach are compared.
func unmoved(t *testing.T, before, after Report, memory, cpu bool) {
	t.Helper()
	if before.Epoch != after.Epoch || before.Listening != after.Listening || before.Cores != after.Cores || before.MemLimit != after.MemLimit {
		t.Errorf("epoch, listening, cores or mem_limit moved:\n%s\n%s", show(before), show(after))
	}
	if memory && (math.Abs(after.Mem.Or(-1)-before.Mem.Or(-2)) > 0.05 || after.Pressure.Memory.Some.Or(1) > 0.05) {
		t.Errorf("memory moved:\n%s\n%s", show(before), show(after))
	}
	if cpu && math.Abs(after.Used.Or(-1)-before.Used.Or(-2)) > 0.1 {
		t.Errorf("used moved:\n%s\n%s", show(before), show(after))
	}
	if after.Pressure.IO.Some.Or(1) > 0.05 {
		t.Errorf("io pressure moved:\n%s", show(after))
	}
}

// TestLiveBurnerUnderQuota: a CPU burner moves used, cpu and CPU pressure, and avail
// stays the quota.
func TestLiveBurnerUnderQuota(t *testing.T) {
	h, s := confined(t, -1)
	before := until(t, s, "idle", func(r Report) bool {
		return r.Used.Or(1) < 0.05 && r.Pressure.CPU.Some.Or(1) < 0.1 && r.Pressure.Scope == "group"
	})
	want(t, "cores", before.Cores, Some(0.5))
	h.do("burn")
	h.do("burn")
	after := until(t, s, "the quota is used up, and half of the time nothing may run", func(r Report) bool {
		return r.Used.Or(0) > 0.4 && r.CPU.Or(0) > 0.8 && r.Avail.Or(1) <= 0.5 && r.Pressure.CPU.Some.Or(0) > 0.3
	})
	unmoved(t, before, after, true, false)
}

// TestLiveHogUnderLimit: memory under a limit moves mem and mem_bytes, nothing else.
func TestLiveHogUnderLimit(t *testing.T) {
	h, s := confined(t, -1)
	before := until(t, s, "idle", func(r Report) bool { return r.Used.Or(1) < 0.05 && r.Pressure.Scope == "group" })
	want(t, "mem_limit", before.MemLimit, Some(int64(256*mib)))
	h.do("grow 128")
	after := until(t, s, "half of the limit more", func(r Report) bool {
		// Other work on this machine makes any process wait now and then.
		return r.Mem.Or(0) >= before.Mem.Or(0)+0.48 && r.Used.Or(1) < 0.05 &&
			r.Pressure.CPU.Some.Or(1) < max(0.1, before.Pressure.CPU.Some.Or(0)+0.1)
	})
	if grown := after.MemBytes.Or(0) - before.MemBytes.Or(0); grown < 126*mib || grown > 140*mib {
		t.Errorf("mem_bytes grew by %d MiB", grown/mib)
	}
	unmoved(t, before, after, false, true)
}

// TestLiveNeighbourAndPressure: a neighbour on the CPU of a backend that works a little
// takes what was idle, and makes it wait, but not what it uses.
func TestLiveNeighbourAndPressure(t *testing.T) {
	cpu := lastCPU(t)
	v2 := v2Group(t)
	h := startHelper(t, cpu)
	put(t, v2, "cgroup.procs", h.pid())
	s := liveSampler(t, Backend{Port: h.listen("127.0.0.1:0")})
	h.do("pace 20")
	var before Report
	quiet := func(r Report) bool {
		return r.Avail.Or(0) > 0.6 && math.Abs(r.Used.Or(0)-0.2) < 0.03 && r.Pressure.CPU.Some.Or(1) < 0.1
	}
	before, ok := sampleUntil(t, s, patience/2, quiet)
	if !ok {
		t.Skipf("CPU %d was never quiet: other work on this machine; last %s", cpu, show(before))
	}
	want(t, "scope", before.Pressure.Scope, "group")
	n := startHelper(t, cpu)
	for range 3 {
		n.do("burn")
	}
	after := until(t, s, "less is left, the backend waits, and it uses what it used", func(r Report) bool {
		return r.Avail.Or(1) < 0.4 && r.Pressure.CPU.Some.Or(0) > before.Pressure.CPU.Some.Or(0)+0.1 &&
			math.Abs(r.Used.Or(0)-0.2) < 0.06
	})
	unmoved(t, before, after, true, true)
	n.stop()
	if r, ok := sampleUntil(t, s, patience/2, quiet); !ok {
		t.Skipf("CPU %d did not become quiet again: other work on this machine; last %s", cpu, show(r))
	}
}

// TestLiveV2Counts: where no v1 group is the backend's own, the v2 tree's cpu.stat
// counts it, which it does without any controller.
func TestLiveV2Counts(t *testing.T) {
	v2 := v2Group(t)
	h := startHelper(t, lastCPU(t))
	put(t, v2, "cgroup.procs", h.pid())
	s := liveSampler(t, Backend{Port: h.listen("127.0.0.1:0")})
	h.do("burn")
	until(t, s, "it burns", func(r Report) bool { return r.Used.Or(0) > 0.15 })
	want(t, "the counters", s.plan.cpuDir, v2)

	named := liveSampler(t, Backend{Cgroup: "/" + filepath.Base(v2)})
	until(t, named, "by its path", func(r Report) bool { return r.Used.Or(0) > 0.15 })
	want(t, "the counters", named.plan.cpuDir, v2)
	want(t, "the epoch", named.plan.epoch, s.plan.epoch)
}

// ip runs iproute2, or skips the test where it cannot.
func ip(t *testing.T, args ...string) {
	t.Helper()
	if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
		t.Skipf("ip %s: %v: %s (needs root and iproute2)", strings.Join(args, " "), err, bytes.TrimSpace(out))
	}
}

// TestLiveNetwork: the figures are of the backend's network namespace, not of the
// agent's; its loopback is left out, and an interface that goes leaves no trace.
func TestLiveNetwork(t *testing.T) {
	ns := fmt.Sprintf("outrigger-%d", os.Getpid())
	host, inside := fmt.Sprintf("orh%d", os.Getpid()), "orb0"
	ip(t, "netns", "add", ns)
	t.Cleanup(func() { _ = exec.Command("ip", "netns", "del", ns).Run() })
	ip(t, "link", "add", host, "type", "veth", "peer", "name", inside, "netns", ns)
	t.Cleanup(func() { _ = exec.Command("ip", "link", "del", host).Run() })
	ip(t, "addr", "add", "198.18.77.1/30", "dev", host) // RFC 2544, for tests
	ip(t, "link", "set", host, "up")
	ip(t, "-n", ns, "addr", "add", "198.18.77.2/30", "dev", inside)
	ip(t, "-n", ns, "link", "set", inside, "up")
	ip(t, "-n", ns, "link", "set", "lo", "up")

	h := startHelperIn(t, func() error {
		fd, err := unix.Open("/run/netns/"+ns, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		return unix.Setns(fd, unix.CLONE_NEWNET)
	})
	port := h.listen("198.18.77.2:0")
	s := liveSampler(t, Backend{PID: h.pid(), Port: port})
	r := until(t, s, "nothing comes", func(r Report) bool { return r.RxBytes.Or(1e9) < 5000 && r.TxBytes.Or(1e9) < 5000 })
	want(t, "listening, in the other namespace", r.Listening, Some(true))

	stop := make(chan struct{})
	done := make(chan struct{})
	var sent int
	go func() {
		defer close(done)
		c, err := net.Dial("udp", "198.18.77.2:9")
		if err != nil {
			return
		}
		defer c.Close()
		packet := make([]byte, 1400)
		tick := time.NewTicker(ms)
		defer tick.Stop()
		for {
			select {
			case <-stop:
				return
			case <-tick.C:
				if _, err := c.Write(packet); err == nil { // a refusal comes back now and then
					sent++
				}
				if sent%100 == 0 {
					if c, err := net.DialTimeout("tcp", fmt.Sprintf("198.18.77.2:%d", port), time.Second); err == nil {
						c.Close()
					}
				}
			}
		}
	}()
	r = until(t, s, "megabytes come, kilobytes go", func(r Report) bool {
		return r.RxBytes.Or(0) > 300_000 && r.TxBytes.Or(0) > 0
	})
	if r.RxBytes.Or(0) > 3e6 || r.TxBytes.Or(0) > 0.3*r.RxBytes.Or(0) || r.Used.Or(1) > 0.3 {
		t.Errorf("at most a packet of 1442 bytes each millisecond: %s", show(r))
	}
	close(stop)
	<-done
	until(t, s, "nothing comes any more", func(r Report) bool { return r.RxBytes.Or(1e9) < 5000 })
	ip(t, "link", "del", host)
	until(t, s, "the interface is gone", func(r Report) bool { return r.RxBytes == Some(0.0) && r.TxBytes == Some(0.0) })
}

// inNamespace puts the calling thread into a v1 group and makes that the root of a new
// cgroup namespace, with a mount of its own, as a container runtime does.
func inNamespace(controller, group string) error {
	if err := os.WriteFile(filepath.Join(group, "tasks"), fmt.Append(nil, unix.Gettid()), 0o644); err != nil {
		return err
	}
	if err := unix.Unshare(unix.CLONE_NEWNS | unix.CLONE_FS | unix.CLONE_NEWCGROUP); err != nil {
		return err
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	if err := unix.Mount("tmpfs", "/sys/fs/cgroup", "tmpfs", 0, ""); err != nil {
		return err
	}
	dir := "/sys/fs/cgroup/" + controller
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	return unix.Mount("cgroup", dir, "cgroup", 0, controller)
}

// TestLiveSideBySide: agent and backend are in containers of their own that share
// processes and network. The agent's mounts do not show the backend's group, but the
// backend's do.
func TestLiveSideBySide(t *testing.T) {
	backend := v1Group(t, "cpu")
	put(t, backend, "cpu.cfs_period_us", 100_000)
	put(t, backend, "cpu.cfs_quota_us", 30_000)
	agent := filepath.Join(filepath.Dir(backend), filepath.Base(backend)+"-agent")
	if err := os.Mkdir(agent, 0o755); err != nil {
		t.Fatal(err)
	}
	removeAfter(t, agent)
	t.Cleanup(func() { // this process's threads that entered them
		for _, dir := range []string{backend, agent} {
			tasks, _ := os.ReadFile(filepath.Join(dir, "tasks"))
			for tid := range bytes.FieldsSeq(tasks) {
				_ = os.WriteFile(filepath.Join(filepath.Dir(dir), "tasks"), tid, 0o644)
			}
		}
	})
	h := startHelperIn(t, func() error { return inNamespace("cpu", backend) })
	port := h.listen("127.0.0.1:0")

	type answer struct {
		out []byte
		err error
	}
	got := make(chan answer)
	go func() {
		runtime.LockOSThread() // and never let go: the thread ends with this goroutine
		if err := inNamespace("cpu", agent); err != nil {
			got <- answer{nil, err}
			return
		}
		cmd := exec.Command("/proc/self/exe")
		cmd.Env = []string{helperEnv + "=sample", fmt.Sprintf("PORT=%d", port)}
		cmd.Stderr = os.Stderr
		out, err := cmd.Output()
		got <- answer{out, err}
	}()
	a := <-got
	if a.err != nil {
		t.Fatal(a.err)
	}
	body, state, _ := strings.Cut(string(a.out), "\n")
	if r, err := Decode([]byte(body)); err != nil || r.Cores != Some(0.3) || !strings.Contains(state, "CPU quota 0.3") {
		t.Errorf("got %s, %v", a.out, err)
	}
}
