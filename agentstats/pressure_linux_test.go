package agentstats

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/prometheus/procfs"
	"golang.org/x/sys/unix"
)

const pressureText = "some avg10=0.38 avg60=0.82 avg300=4.85 total=12007609611\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=153\n"

func TestParsePressure(t *testing.T) {
	for text, want := range map[string][2]time.Duration{
		pressureText: {12007609611 * time.Microsecond, 153 * time.Microsecond},
		"some avg10=0.00 avg60=0.00 avg300=0.00 total=7\n": {7 * time.Microsecond, unknown}, // cpu before 5.13
		"more total=1\nsome total=2":                       {2 * time.Microsecond, unknown},
	} {
		if got, err := parsePressure([]byte(text)); err != nil || got != want {
			t.Errorf("%q: got %v, %v", text, got, err)
		}
	}
	for _, bad := range []string{"", "some", "some total=", "some total=-5\n", "some total=x", "full total=1\n", "some total=99999999999999999999", "some total=9223372036854775807"} {
		if got, err := parsePressure([]byte(bad)); err == nil {
			t.Errorf("%q was accepted as %v", bad, got)
		}
	}
}

// FuzzPressure holds that nothing panics the parser, and that it reads what
// prometheus/procfs reads.
func FuzzPressure(f *testing.F) {
	f.Add([]byte(pressureText))
	f.Add([]byte("some avg10=0.00 avg60=0.00 avg300=0.00 total=7\n"))
	dir := f.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "pressure"), 0o755); err != nil {
		f.Fatal(err)
	}
	proc, err := procfs.NewFS(dir)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		got, err := parsePressure(data)
		if err != nil {
			return
		}
		if got[0] < 0 || got[1] < unknown {
			t.Fatalf("%v from %q", got, data)
		}
		if err := os.WriteFile(filepath.Join(dir, "pressure/cpu"), data, 0o644); err != nil {
			t.Fatal(err)
		}
		ref, err := proc.PSIStatsForResource("cpu")
		if err != nil || ref.Some == nil {
			return // it also insists on the averages
		}
		if us := time.Duration(ref.Some.Total) * time.Microsecond; us != got[0] {
			t.Errorf("%q: got %v, procfs %v", data, got[0], us)
		}
	})
}

// pressure writes the files of the host ("") or of a v2 group, in microseconds.
func (h *host) pressure(group string, cpu, memory, io [2]int) {
	for name, v := range map[string][2]int{"cpu": cpu, "memory": memory, "io": io} {
		text := "some avg10=9.00 avg60=9.00 avg300=9.00 total=" + lines(v[:1]) + "full avg10=9.00 avg60=9.00 avg300=9.00 total=" + lines(v[1:])
		if group == "" {
			h.write(h.proc, "pressure/"+name, text)
		} else {
			h.write(h.cgroup+group, name+".pressure", text)
		}
	}
}

func TestPressureOfTheGroup(t *testing.T) {
	h := newHost(t, 2, v2Mount)
	h.v2("/web", "max 100000", "max", 1_000_000, mib, 0, 10)
	h.process(fixtureProc{pid: 10, ppid: 1, session: 10, start: 5, name: "app", cpus: "0-1", cgroup: "0::/web\n"})
	h.pressure("", [2]int{900_000, 0}, [2]int{1, 1}, [2]int{1, 1})
	h.pressure("/web", [2]int{10_000_000, 5_000_000}, [2]int{40, 30}, [2]int{1000, 1000})
	s := h.sampler(Backend{PID: 10})
	start := time.Now()
	r, _ := s.sample(start)
	want(t, "pressure before a window", r.Pressure, Pressure{})

	h.pressure("/web", [2]int{10_125_000, 5_050_000}, [2]int{40, 30}, [2]int{500_000, 1000})
	r, _ = s.sample(start.Add(250 * ms))
	want(t, "pressure", r.Pressure, Pressure{
		Scope:  "group",
		CPU:    Stall{Some: Some(0.5), Full: Some(0.2)},
		Memory: Stall{Some: Some(0.0), Full: Some(0.0)},
		IO:     Stall{Some: Some(1.0), Full: Some(0.0)}, // bounded by the window
	})
	// The group's accounting is switched off: the host's figures take over, of which the
	// first window cannot be mixed with the group's last.
	for _, name := range []string{"cpu", "memory", "io"} {
		if err := os.Remove(filepath.Join(h.cgroup, "web", name+".pressure")); err != nil {
			t.Fatal(err)
		}
		s.proc.drop(filepath.Join(h.cgroup, "web", name+".pressure")) // a regular file stays readable
	}
	r, _ = s.sample(start.Add(refreshEvery + 250*ms))
	want(t, "right after the change", r.Pressure, Pressure{})
	h.pressure("", [2]int{925_000, 0}, [2]int{1, 1}, [2]int{1, 1})
	r, _ = s.sample(start.Add(refreshEvery + 500*ms))
	want(t, "scope", r.Pressure.Scope, "host")
	want(t, "cpu; full means nothing for a host", r.Pressure.CPU, Stall{Some: Some(0.1)})
	want(t, "memory", r.Pressure.Memory, Stall{Some: Some(0.0), Full: Some(0.0)})
}

// TestPressureShared: in a group with others the pressure is not the backend's.
func TestPressureShared(t *testing.T) {
	h := newHost(t, 2, v2Mount)
	h.v2("/box", "max 100000", "max", 1_000_000, mib, 0, 10, 50)
	h.process(fixtureProc{pid: 10, ppid: 1, session: 10, start: 5, name: "app", cpus: "0-1", cgroup: "0::/box\n"})
	h.process(fixtureProc{pid: 50, ppid: 1, session: 50, start: 5, name: "other", cpus: "0-1", cgroup: "0::/box\n"})
	h.pressure("/box", [2]int{1, 1}, [2]int{1, 1}, [2]int{1, 1})
	s := h.sampler(Backend{PID: 10})
	start := time.Now()
	s.sample(start)
	r, _ := s.sample(start.Add(250 * ms))
	want(t, "no pressure where the kernel has none for the host", r.Pressure, Pressure{})

	h.pressure("", [2]int{5, 0}, [2]int{1, 1}, [2]int{1, 1})
	s = h.sampler(Backend{PID: 10})
	s.sample(start)
	r, _ = s.sample(start.Add(250 * ms))
	want(t, "scope", r.Pressure.Scope, "host")
	s = h.sampler(Backend{Cgroup: "/box"})
	s.sample(start)
	r, _ = s.sample(start.Add(250 * ms))
	want(t, "scope of a group that is declared", r.Pressure.Scope, "group")
}

// TestLivePressure: the kernel's own files of a real group, whatever this machine has.
func TestLivePressure(t *testing.T) {
	if _, err := os.Stat("/proc/pressure/cpu"); err != nil {
		t.Skipf("no pressure stall information here: %v", err)
	}
	p := &procDir{root: "/proc"}
	t.Cleanup(p.close)
	pair, err := p.stalls("/proc/pressure/cpu")
	if errors.Is(err, unix.EOPNOTSUPP) {
		t.Skip("pressure stall information is off (psi=0)")
	}
	fs, err2 := procfs.NewFS("/proc")
	ref, err3 := fs.PSIStatsForResource("cpu")
	if err := errors.Join(err, err2, err3); err != nil {
		t.Fatal(err)
	}
	if late := time.Duration(ref.Some.Total)*time.Microsecond - pair[0]; pair[0] < 0 || late < 0 || late > time.Minute {
		t.Errorf("got %v, procfs right afterwards %d us", pair, ref.Some.Total)
	}
}
