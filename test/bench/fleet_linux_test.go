package main

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"outrigger/test/harness"
)

// TestMain lets the test binary be a backend and a neighbour, as the bench is.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 {
		switch args := os.Args[2:]; os.Args[1] {
		case burnCommand:
			os.Exit(runBurner(args, os.Stderr))
		case neighbourCommand:
			os.Exit(runNeighbour(args, os.Stderr))
		}
	}
	os.Exit(m.Run())
}

func startChild(t *testing.T, args []string) *harness.Process {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	p, err := harness.StartProcess(harness.Spec{Path: self, Args: args, Stderr: os.Stderr})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Kill)
	return p
}

// until polls what must come true.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("never came true: " + what)
		}
	}
}

func TestBackendWorksAndCounts(t *testing.T) {
	addr, err := harness.FreeAddr()
	if err != nil {
		t.Fatal(err)
	}
	p := burnPlan{addr: addr, gauge: filepath.Join(t.TempDir(), "gauge"), unit: calibrate()}
	gauge, err := mapGauge(p.gauge)
	if err != nil {
		t.Fatal(err)
	}
	child := startChild(t, p.args())
	until(t, "the backend listens", func() bool { return dials(p.addr) == nil })
	before, err := cpuTime(child.PID())
	if err != nil {
		t.Fatal(err)
	}
	const units = 20_000
	client := newClient(time.Minute)
	for range 10 { // over one connection
		if got := ask(t.Context(), client, "http://"+p.addr+workPrefix+strconv.Itoa(units)); got != answered {
			t.Fatalf("fate %d", got)
		}
	}
	after, err := cpuTime(child.PID())
	if err != nil {
		t.Fatal(err)
	}
	// Never less than the work, but for what a processor that runs faster now makes of it.
	if took := (after - before).Microseconds(); took < 10*units/2 {
		t.Errorf("%d units of work took %d µs of CPU", 10*units, took)
	}
	if n := gauge.Load(); n != 0 {
		t.Errorf("%d in flight when all is answered", n)
	}

	// Three at once, whose clients leave: all are counted until they are worked off.
	for range 3 {
		c, err := net.Dial("tcp", p.addr)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(c, "GET /w/300000 HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	until(t, "three are in flight", func() bool { return gauge.Load() == 3 })
	c, err := net.Dial("tcp", p.addr)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(c, "GET /w/500000 HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	until(t, "the fourth is in flight", func() bool { return gauge.Load() == 4 })
	_ = c.Close()
	until(t, "all is worked off", func() bool { return gauge.Load() == 0 })
	if got := ask(t.Context(), client, "http://"+p.addr+workPrefix+"1"); got != answered {
		t.Errorf("afterwards: fate %d", got)
	}
}

func TestBackendHangsUpOnNonsense(t *testing.T) {
	addr, err := harness.FreeAddr()
	if err != nil {
		t.Fatal(err)
	}
	p := burnPlan{addr: addr, gauge: filepath.Join(t.TempDir(), "gauge"), unit: 1}
	startChild(t, p.args())
	until(t, "the backend listens", func() bool { return dials(p.addr) == nil })
	for _, text := range []string{"POST /w/1 HTTP/1.1\r\n\r\n", "GET /w/1 HTTP/1.1\r\n\r\nGET /w/1", string(bytes.Repeat([]byte{'x'}, 5000))} {
		c, err := net.Dial("tcp", p.addr)
		if err != nil {
			t.Fatal(err)
		}
		_, werr := io.WriteString(c, text)
		if err := c.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(c)
		if len(got) > 0 || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%.30q (%v): %q, %v", text, werr, got, err)
		}
		_ = c.Close()
	}
	if got := ask(t.Context(), newClient(20*time.Second), "http://"+p.addr+workPrefix+"1"); got != answered {
		t.Errorf("afterwards: fate %d", got)
	}
}

func TestNeighbourBurnsWhatItIsTold(t *testing.T) {
	file := filepath.Join(t.TempDir(), "noise")
	noise, err := mapGauge(file)
	if err != nil {
		t.Fatal(err)
	}
	child := startChild(t, []string{neighbourCommand, file})
	used := func() time.Duration {
		d, err := cpuTime(child.PID())
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	noise.Store(100_000) // a tenth of a processor
	start, before := time.Now(), used()
	until(t, "it burns", func() bool { return used()-before > 50*time.Millisecond })
	// It may get less on a busy machine, never much more.
	if most := time.Since(start)/10 + 100*time.Millisecond; used()-before > most {
		t.Errorf("it used %v of %v", used()-before, most)
	}
}

func TestGroupLimitsAndGoes(t *testing.T) {
	g, err := newGroup("outrigger-test-" + strconv.Itoa(os.Getpid()))
	if errors.Is(err, errNoCgroup) {
		_ = g.remove()
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := g.remove(); err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(g.dirs[0]); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is left", g.dirs[0])
		}
	}()
	if err := errors.Join(g.quota(0.1, quotaPeriod), g.shares(64)); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "noise")
	noise, err := mapGauge(file)
	if err != nil {
		t.Fatal(err)
	}
	noise.Store(1_000_000)
	child := startChild(t, []string{neighbourCommand, file})
	defer child.Kill() // before its group goes
	if err := g.add(child.PID()); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	before, err := g.usage()
	if err != nil {
		t.Fatal(err)
	}
	until(t, "the group has used CPU", func() bool {
		now, err := g.usage()
		return err == nil && now-before > 100*time.Millisecond
	})
	// A tenth of a processor, and what one tick of the kernel may overrun.
	if took := time.Since(start); took < 700*time.Millisecond {
		t.Errorf("a quota of a tenth of a processor let 100 ms pass in %v", took)
	}
}
