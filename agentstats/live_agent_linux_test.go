package agentstats

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"outrigger/test/harness"
)

// TestLiveAgent is the whole way: a backend that is not there yet, starts, burns and
// dies, watched by an agent and a poller over loopback.
func TestLiveAgent(t *testing.T) {
	ports, err := harness.FreePorts(1)
	if err != nil {
		t.Fatal(err)
	}
	backend := &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: ports[0]}

	var out log
	cfg := DefaultConfig()
	cfg.Listen, cfg.Backend.Port = "127.0.0.1:7070", backend.Port // runAgent brings its own listener
	a, err := NewAgent(cfg, Env{Logger: out.logger(), Version: "test"})
	if err != nil {
		t.Fatal(err)
	}
	addr := runAgent(t, a)
	poll := DefaultPollConfig()
	poll.Interval = 100 * ms
	p := NewPoller(poll, PollEnv{})
	p.SetTargets([]Target{{ID: "b", Addr: addr}})
	next := collect(t, p)

	got := next("b", func(Sample) bool { return true })
	if r := got.Report; r.Listening != Some(false) || !r.Cores.IsZero() || !r.Used.IsZero() || !r.Mem.IsZero() || r.Epoch != "" {
		t.Errorf("before the backend starts: %+v", r)
	}
	for range 3 {
		next("b", func(Sample) bool { return true })
	}
	if n := out.count("nothing listens on port"); n != 1 {
		t.Errorf("waiting was logged %d times", n)
	}
	h := startHelper(t, lastCPU(t))
	h.listen(backend.String())
	got = next("b", func(s Sample) bool { return s.Report.Used.Or(-1) >= 0 })
	if r := got.Report; r.Listening != Some(true) || r.Cores != Some(1.0) || r.MemBytes.Or(0) == 0 || r.AgentVersion != "test" {
		t.Errorf("the backend runs: %+v", r)
	}
	h.do("burn")
	next("b", func(s Sample) bool { return s.Report.Used.Or(0) > 0.15 })
	h.stop()
	next("b", func(s Sample) bool { return s.Report.Listening == Some(false) && s.Report.Used.IsZero() })

	if r, ok := a.Report(); !ok || r.Listening != Some(false) {
		t.Errorf("Report: %+v, %v", r, ok)
	}
}

// TestLiveUnprivileged: an agent that may not look into the backend's process says so
// and reports what it can.
func TestLiveUnprivileged(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, to have a process that this one may look into and another user may not")
	}
	h := startHelper(t, -1)
	port := h.listen("127.0.0.1:0")
	// By this path, because the other user cannot reach the one of the test binary.
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = []string{helperEnv + "=sample", fmt.Sprintf("PORT=%d", port)}
	const nobody = 65534
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	body, state, _ := strings.Cut(string(out), "\n")
	r, err := Decode([]byte(body))
	if err != nil || r != (Report{Version: Version, At: 1, Listening: Some(true)}) || !strings.Contains(state, "as the backend's user or as root") {
		t.Errorf("got %s, %v", out, err)
	}
}
