package harness

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// watch returns a function that waits for the end of a process that need not
// be a child. A pidfd tells it apart from a later one with the same pid, and
// also when nobody reaps it.
func watch(t *testing.T, pid int) (awaitEnd func()) {
	t.Helper()
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		t.Fatalf("watch pid %d: %v", pid, err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return func() {
		t.Helper()
		const limit = 20 * time.Second // for a machine with much else to do
		for end := time.Now().Add(limit); time.Now().Before(end); {
			n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 1000)
			if n > 0 {
				return
			}
			if err != nil && err != unix.EINTR {
				t.Fatal(err)
			}
		}
		t.Errorf("pid %d still runs after %v", pid, limit)
		_ = unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0) // leave none behind
	}
}

func number(t *testing.T, s string) int {
	t.Helper()
	n, err := strconv.Atoi(s)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestConsulDiesWithAKilledParent(t *testing.T) {
	parent, lines := child(t, "consulParent", "TEST_CONSUL="+consulPath(t), "TEST_DIR="+t.TempDir())
	awaitEnd := watch(t, number(t, line(t, lines)))
	addr := line(t, lines)
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatalf("consul was not there to begin with: %v", err)
	}
	conn.Close()
	if err := parent.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	awaitEnd()
	if conn, err := net.Dial("tcp", addr); err == nil {
		conn.Close()
		t.Error("something still listens on consul's port")
	}
}

func TestProcessLeadsItsOwnGroup(t *testing.T) {
	p, lines := child(t, "block")
	line(t, lines)
	if pgid, err := unix.Getpgid(p.PID()); err != nil || pgid != p.PID() {
		t.Errorf("group %d (%v), want its own, %d", pgid, err, p.PID())
	}
}

func TestProcessTakesItsGroupAlong(t *testing.T) {
	for name, end := range map[string]func(*Process){
		"Stop":        func(p *Process) { p.Stop(time.Minute) },
		"Kill":        (*Process).Kill,
		"its own end": func(p *Process) { p.Signal(syscall.SIGTERM); p.Wait() },
	} {
		t.Run(name, func(t *testing.T) {
			p, lines := child(t, "family")
			awaitEnd := watch(t, number(t, line(t, lines)))
			end(p)
			awaitEnd()
		})
	}
}

// A child must outlive the thread on which StartProcess was called:
// golang.org/issue/27505.
func TestProcessOutlivesTheCallersThread(t *testing.T) {
	type start struct {
		p   *Process
		tid int
	}
	for range 100 {
		started := make(chan start)
		go func() {
			runtime.LockOSThread() // and never unlock: the thread ends with the goroutine
			p, err := StartProcess(Spec{Path: "sleep", Args: []string{"3600"}})
			if err != nil {
				t.Error(err)
			}
			started <- start{p, unix.Gettid()}
		}()
		s := <-started
		if s.p == nil {
			return
		}
		if s.tid == os.Getpid() {
			s.p.Kill() // the main thread never ends: try another
			continue
		}
		for _, err := os.Stat(fmt.Sprintf("/proc/self/task/%d", s.tid)); err == nil; {
			time.Sleep(time.Millisecond)
			_, err = os.Stat(fmt.Sprintf("/proc/self/task/%d", s.tid))
		}
		// The kernel has sent the death signal by now, had it been this thread's.
		if err := s.p.Stop(time.Minute); err != nil {
			t.Error(err)
		}
		if code := s.p.Wait(); code != 128+int(syscall.SIGTERM) {
			t.Errorf("exit code %d, want that of our own SIGTERM", code)
		}
		return
	}
	t.Fatal("never got a thread other than the main one")
}

// affinities are the distinct processor lists of all threads of a process.
func affinities(t *testing.T, pid string) []string {
	t.Helper()
	files, err := filepath.Glob("/proc/" + pid + "/task/*/status")
	if err != nil || len(files) == 0 {
		t.Fatalf("no threads of %s: %v", pid, err)
	}
	var lists []string
	seen := map[string]bool{}
	for _, f := range files {
		status, err := os.ReadFile(f)
		if err != nil {
			continue // a thread that has just ended
		}
		_, rest, _ := strings.Cut(string(status), "Cpus_allowed_list:\t")
		list, _, _ := strings.Cut(rest, "\n")
		if !seen[list] {
			seen[list] = true
			lists = append(lists, list)
		}
	}
	return lists
}

func TestProcessIsPinnedWithAllItsThreads(t *testing.T) {
	var allowed unix.CPUSet
	if err := unix.SchedGetaffinity(0, &allowed); err != nil {
		t.Fatal(err)
	}
	last := -1
	for cpu := range 1024 {
		if allowed.IsSet(cpu) {
			last = cpu
		}
	}
	before := fmt.Sprint(affinities(t, "self"))

	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	p, err := StartProcess(Spec{Path: self, Env: append(os.Environ(), childEnv+"=block"), CPUs: []int{last}, Stdout: w})
	w.Close()
	if err != nil {
		t.Fatal(err)
	}
	defer p.Kill()
	if _, err := r.Read(make([]byte, 1)); err != nil { // "ready": the Go runtime has its threads
		t.Fatal(err)
	}
	if got, want := fmt.Sprint(affinities(t, strconv.Itoa(p.PID()))), fmt.Sprint([]int{last}); got != want {
		t.Errorf("the child's threads may run on %s, want %s", got, want)
	}
	if after := fmt.Sprint(affinities(t, "self")); after != before {
		t.Errorf("the parent's threads may run on %s after pinning the child, %s before", after, before)
	}
}
