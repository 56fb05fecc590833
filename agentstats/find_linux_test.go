package agentstats

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestLocator covers who is found behind a port.
func TestLocator(t *testing.T) {
	h := newHost(t, 1, v2Mount)
	add := func(pid, ppid, start int, name string, sockets ...int) {
		h.process(fixtureProc{pid: pid, ppid: ppid, session: 1, start: start, name: name, cpus: "0", cgroup: "0::/\n", sockets: sockets})
	}
	add(1, 0, 1, "systemd", 77)
	add(30, 20, 50, "worker", 77)
	add(20, 1, 50, "master", 77) // forked its worker within the same tick
	add(40, 1, 10, "elsewhere", 78)
	h.listen("8080:77", "8081:78", "8082:79")
	at := time.Now()

	l := h.sampler(Backend{Port: 8080}).locator
	f, err := l.find(at)
	if err != nil || f.main.pid != 20 || len(f.procs) != 2 {
		t.Errorf("pre-fork server: %+v, %v", f, err)
	}
	// The master is killed: its workers are the backend until they are gone too.
	h.kill(20)
	if f, _ := l.find(at); f.main.pid != 30 || len(f.procs) != 1 {
		t.Errorf("after the master's death: %+v", f)
	}
	h.kill(30)
	f, _ = l.find(at.Add(time.Minute))
	if len(f.procs) != 0 || f.listening != Some(true) || !strings.Contains(f.why, "no process that is visible") {
		t.Errorf("only systemd holds the socket: %+v", f)
	}
	// The service starts; the next look at all descriptors is due only later.
	add(50, 1, 99, "new", 77)
	if f, _ := l.find(at.Add(time.Minute + ms)); len(f.procs) != 0 {
		t.Errorf("looked again at once: %+v", f)
	}
	if f, _ := l.find(at.Add(2 * time.Minute)); f.main.pid != 50 {
		t.Errorf("did not look again: %+v", f)
	}
	h.listen()
	if f, _ := l.find(at.Add(3 * time.Minute)); f.listening != Some(false) || f.why != "nothing listens on port 8080" {
		t.Errorf("no socket: %+v", f)
	}
}

// TestLocatorNews: a socket that is new is looked for at once, however often others on
// the same port were looked for in vain; until then it is unknown whose it is.
func TestLocatorNews(t *testing.T) {
	h := newHost(t, 1, v2Mount)
	add := func(pid, ppid int, sockets ...int) {
		h.process(fixtureProc{pid: pid, ppid: ppid, session: 20, start: 50, name: "x", cpus: "0", cgroup: "0::/\n", sockets: sockets})
	}
	listen := func(sockets ...string) {
		h.listen(sockets...)
		table, err := os.ReadFile(filepath.Join(h.proc, "self/net/tcp"))
		if err != nil {
			t.Fatal(err)
		}
		h.write(h.proc, "20/net/tcp", string(table))
	}
	add(20, 1, 77)
	add(40, 1, 78) // somebody else, at another address
	listen("8080:77", "8080:78")
	l := h.sampler(Backend{PID: 20, Port: 8080}).locator
	at := time.Now()
	look := func(what string, after time.Duration, want Opt[bool]) {
		t.Helper()
		at = at.Add(after)
		if f, err := l.find(at); err != nil || f.listening != want {
			t.Errorf("%s: listening %v, %v, want %v", what, f.listening, err, want)
		}
	}
	for range 20 { // which makes the wait for the foreign socket as long as it gets
		look("all is well", 20*time.Second, Some(true))
	}
	if l.scanWait != maxScanWait {
		t.Fatalf("waits %s", l.scanWait)
	}
	h.kill(20)
	add(20, 1, 79)
	listen("8080:79", "8080:78")
	look("restarted", 250*ms, Some(true))
	h.kill(20)
	add(20, 1, 80)
	listen("8080:80", "8080:78")
	look("restarted at once again", ms, Opt[bool]{})
	look("and was looked for", newsWait, Some(true))
	h.kill(20)
	add(20, 1)
	add(21, 20, 81) // a worker that was not there before
	listen("8080:81", "8080:78")
	look("a new worker listens", 250*ms, Some(true))
	h.kill(21)
	listen("8080:78")
	look("only the other is left", 250*ms, Some(false))
	look("only the other is left", ms, Some(false))
	add(22, 20, 78) // inherited, which nothing tells
	look("within the wait", 250*ms, Some(false))
	look("after the wait", maxFamilyWait, Some(true))
}

// TestFamilyIsNotLookedForAllTheTime: on a host with many processes a look is dear, and
// where nothing was forked it is useless.
func TestFamilyIsNotLookedForAllTheTime(t *testing.T) {
	h := newHost(t, 1, v2Mount)
	add := func(pid, ppid int) {
		h.process(fixtureProc{pid: pid, ppid: ppid, session: 1, start: pid, name: "x", cpus: "0", cgroup: "0::/\n"})
	}
	add(10, 1)
	for pid := 1000; pid < 1100; pid++ {
		add(pid, 1)
	}
	forks := func(n int) {
		h.write(h.proc, "stat", fmt.Sprintf("cpu  1 2 3 4 5\ncpu0 1 2 3 4 5\nprocesses %d\n", n))
	}
	forks(200)
	l := h.sampler(Backend{PID: 10}).locator
	at := time.Now()
	look := func(after time.Duration, want int) {
		t.Helper()
		f, err := l.find(at.Add(after))
		if err != nil {
			t.Fatal(err)
		}
		all, err := l.family(at.Add(after), f.procs)
		if err != nil || len(all) != want {
			t.Errorf("after %s: %d processes, %v, want %d", after, len(all), err, want)
		}
	}
	look(0, 1)
	add(11, 10)
	forks(201)
	look(2*time.Second, 1) // 101 processes: every 4.04 s
	look(5*time.Second, 2)
	add(12, 10) // and the kernel says that nobody was forked
	look(15*time.Second, 2)
	forks(202)
	look(16*time.Second, 3)
	add(20, 1)
	h.kill(10)
	add(10, 20) // the number is another's
	l.backend.PID = 20
	look(16*time.Second, 4) // with its children
}

// TestLiveListeners: the kernel's answer to sock_diag is what its table shows.
func TestLiveListeners(t *testing.T) {
	for _, network := range []string{"tcp4", "tcp6"} {
		l, err := net.Listen(network, "localhost:0")
		if err != nil {
			t.Logf("no %s here: %v", network, err)
			continue
		}
		defer l.Close()
		port := l.Addr().(*net.TCPAddr).Port
		p := &procDir{root: "/proc"}
		table := socketTable{proc: p}
		got, err := table.listeners(0, port)
		if err != nil {
			t.Fatal(err)
		}
		want := map[uint64]bool{}
		for _, name := range []string{"tcp", "tcp6"} {
			if data, err := p.read("/proc/self/net/" + name); err == nil {
				parseListeners(data, port, want)
			}
		}
		if len(want) != 1 || !maps.Equal(got, want) {
			t.Errorf("%s: got %v, want %v", network, got, want)
		}
		asked := map[uint64]bool{}
		family := map[string]uint8{"tcp4": unix.AF_INET, "tcp6": unix.AF_INET6}[network]
		if err := table.ask(family, port, asked); err != nil || !maps.Equal(asked, want) {
			t.Errorf("%s, sock_diag alone: got %v, %v", network, asked, err)
		}
		if asked, err := table.listeners(0, port^1); err != nil || len(asked) != 0 {
			t.Errorf("%s: on another port %v, %v", network, asked, err)
		}
	}
}

// TestReread: a file that stays open shows news, what replaces it is found, and what is
// no longer read is closed.
func TestReread(t *testing.T) {
	dir := t.TempDir()
	path := func(i int) string { return filepath.Join(dir, strconv.Itoa(i)) }
	write := func(i int, text string) {
		if err := os.WriteFile(path(i), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	p := &procDir{root: "/proc"}
	t.Cleanup(p.close)
	check := func(i int, want string) {
		t.Helper()
		if got, err := p.reread(path(i)); err != nil || string(got) != want {
			t.Errorf("got %q, %v, want %q", got, err, want)
		}
	}
	write(1, "first")
	check(1, "first")
	write(1, "2nd")
	check(1, "2nd")
	long := strings.Repeat("0123456789", 5000)
	write(1, long)
	check(1, long)
	if _, err := p.reread(path(2)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a file that is not there: %v", err)
	}
	p.sweep()
	p.sweep()
	if len(p.kept) != 0 {
		t.Errorf("%d files stay open that nobody reads", len(p.kept))
	}
	for i := range maxKept + 10 {
		write(i, "x")
		check(i, "x")
	}
	if len(p.kept) != maxKept {
		t.Errorf("%d files stay open", len(p.kept))
	}

	// A process that exits, and one that starts later.
	cmd := exec.Command("sleep", "60")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p.close()
	s, err := p.stat(cmd.Process.Pid)
	stat := p.path(s.pid, "stat")
	if err == nil {
		_, err = p.restat(s, stat)
	}
	if err != nil {
		t.Fatal(err)
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	if _, err := p.restat(s, stat); err == nil {
		t.Error("a process that has exited")
	}
	if len(p.kept) != 0 {
		t.Error("its file stays open")
	}
	own, err := p.stat(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	other := own
	other.start++
	if _, err := p.restat(other, p.path(own.pid, "stat")); err != errGone {
		t.Errorf("another process under the same number: %v", err)
	}
}
