package agentstats

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/sys/unix"
)

const helperEnv = "OUTRIGGER_AGENTSTATS_HELPER"

// TestMain doubles as the backends of the live tests.
func TestMain(m *testing.M) {
	if os.Getenv(helperEnv) != "" {
		helperMain()
		return
	}
	os.Exit(m.Run())
}

// helperMain obeys one command per line and answers each with one line. It ends with
// its standard input, so it cannot outlive the test.
func helperMain() {
	switch os.Getenv(helperEnv) {
	case "sample":
		sampleOnce()
		return
	case "child":
		// It inherited the listening socket as descriptor 3, and holding it is enough. It
		// outlives its parent on purpose; the test kills it, or a lost one ends by itself.
		time.Sleep(2 * patience)
		return
	}
	var listener *os.File
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		f := strings.Fields(in.Text())
		answer := "ok"
		switch f[0] {
		case "burn":
			go func() {
				for x := 0; ; x++ {
					runtime.KeepAlive(x)
				}
			}()
		case "pace":
			percent, _ := strconv.Atoi(f[1])
			go pace(percent)
		case "listen":
			l, err := net.Listen("tcp", f[1])
			if err != nil {
				answer = err.Error()
				break
			}
			listener, _ = l.(*net.TCPListener).File()
			_, port, _ := net.SplitHostPort(l.Addr().String())
			answer = port
			go func() {
				for {
					if c, err := l.Accept(); err == nil {
						c.Close()
					}
				}
			}()
		case "fork":
			answer = forkHelper(listener)
		case "grow":
			n, _ := strconv.Atoi(f[1])
			// Not from Go's heap, of which the race detector keeps a shadow.
			_, err := unix.Mmap(-1, 0, n*mib, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE|unix.MAP_POPULATE)
			if err != nil {
				answer = err.Error()
			}
		case "cpu":
			var u unix.Rusage
			_ = unix.Getrusage(unix.RUSAGE_SELF, &u)
			answer = strconv.FormatInt(u.Utime.Nano()+u.Stime.Nano(), 10)
		}
		fmt.Println(answer)
	}
}

// pace burns a share of one CPU in slices of 10 ms. What it wants is CPU time, not
// time, so that it goes on wanting the same where it has to wait.
func pace(percent int) {
	runtime.LockOSThread()
	const slice = 10 * ms
	used := func() time.Duration {
		var ts unix.Timespec
		_ = unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &ts)
		return time.Duration(ts.Nano())
	}
	for next := time.Now(); ; next = next.Add(slice) {
		time.Sleep(time.Until(next))
		for end := used() + slice*time.Duration(percent)/100; used() < end; {
		}
		if late := time.Since(next); late > 10*slice {
			next = next.Add(late) // what could not be had is not caught up with
		}
	}
}

// sampleOnce prints one report of the backend on PORT, and what the sampler says.
func sampleOnce() {
	cfg := DefaultConfig()
	cfg.Backend.Port, _ = strconv.Atoi(os.Getenv("PORT"))
	s, err := newSampler(cfg, hclog.NewNullLogger())
	if err != nil {
		fmt.Println(err)
		return
	}
	r, state := s.sample(time.Now())
	r.Version, r.At = Version, 1
	fmt.Printf("%s\n%s\n", show(r), state)
}

// forkHelper starts a child that shares the listening socket.
func forkHelper(listener *os.File) string {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), helperEnv+"=child")
	cmd.ExtraFiles = []*os.File{listener}
	if err := cmd.Start(); err != nil {
		return err.Error()
	}
	return strconv.Itoa(cmd.Process.Pid)
}

// helper is one such process, seen from the test.
type helper struct {
	t   *testing.T
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

// startHelper starts a backend, confined to one CPU unless cpu is negative.
func startHelper(t *testing.T, cpu int) *helper {
	t.Helper()
	if cpu < 0 {
		return startHelperIn(t, func() error { return nil })
	}
	return startHelperIn(t, func() error {
		var set unix.CPUSet
		set.Set(cpu)
		return unix.SchedSetaffinity(0, &set)
	})
}

// startHelperIn starts a backend whose threads have what enter gives the thread that
// forks it, which is never used for anything else again.
func startHelperIn(t *testing.T, enter func() error) *helper {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), helperEnv+"=1", "GOMAXPROCS=20") // each burner is a thread
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	in, err1 := cmd.StdinPipe()
	out, err2 := cmd.StdoutPipe()
	if err1 != nil || err2 != nil {
		t.Fatal(err1, err2)
	}
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		if err := enter(); err != nil {
			started <- err
			return
		}
		// The thread lives on: Pdeathsig is sent when the thread that forked ends.
		started <- cmd.Start()
		select {}
	}()
	if err := <-started; errors.Is(err, unix.EPERM) {
		t.Skipf("may not start a backend there: %v (needs root)", err)
	} else if err != nil {
		t.Fatal(err)
	}
	h := &helper{t: t, cmd: cmd, in: in, out: bufio.NewReader(out)}
	t.Cleanup(h.stop)
	return h
}

func (h *helper) pid() int { return h.cmd.Process.Pid }

func (h *helper) do(command string) string {
	h.t.Helper()
	if _, err := io.WriteString(h.in, command+"\n"); err != nil {
		h.t.Fatal(err)
	}
	line, err := h.out.ReadString('\n')
	if err != nil {
		h.t.Fatalf("%s: %v", command, err)
	}
	return strings.TrimSpace(line)
}

// listen makes the helper listen and returns its port.
func (h *helper) listen(addr string) int {
	h.t.Helper()
	port, err := strconv.Atoi(h.do("listen " + addr))
	if err != nil {
		h.t.Fatal(err)
	}
	return port
}

func (h *helper) cpuTime() time.Duration {
	h.t.Helper()
	n, err := strconv.ParseInt(h.do("cpu"), 10, 64)
	if err != nil {
		h.t.Fatal(err)
	}
	return time.Duration(n)
}

// stop kills the process and waits for it; a second call does nothing.
func (h *helper) stop() {
	if h.cmd.ProcessState == nil {
		_ = h.cmd.Process.Kill()
		_ = h.cmd.Wait()
	}
}

// lastCPU returns a CPU that this process may use; the last one, which by habit
// carries the least of everything else.
func lastCPU(t *testing.T) int {
	t.Helper()
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &set); err != nil {
		t.Fatal(err)
	}
	for cpu := 1023; cpu >= 0; cpu-- {
		if set.IsSet(cpu) {
			return cpu
		}
	}
	t.Fatal("no CPU")
	return 0
}
