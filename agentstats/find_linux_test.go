package agentstats

import (
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
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

func TestParseListeners(t *testing.T) {
	const table = tcpHeader +
		"   0: 00000000:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 5 1 0\n" +
		"   1: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 0 1 0\n" +
		"   2: 00000000:1F91 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 6 1 0\n" +
		"   3: 00000000000000000000000000000000:1F90 00000000000000000000000000000000:0000 0A 0:0 0:0 0     0        0 7 1 0\n" +
		"   4: 0100007F:1F90 0100007F:9999 01 00000000:00000000 00:00000000 00000000     0        0 8 1 0\n" +
		"   5: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 9 1 0\n"
	got := map[uint64]bool{}
	parseListeners([]byte(table), 8080, got)
	if !maps.Equal(got, map[uint64]bool{5: true, 7: true}) {
		t.Errorf("got %v", got)
	}
}

func TestParseStat(t *testing.T) {
	const rest = " 2 3 4 0 -1 0 0 0 0 0 50 7 0 0 20 0 1 0 770 1 9 18446744073709551615\n"
	got, err := parseStat([]byte("1 (a) S (b) R" + rest))
	if want := (procStat{ppid: 2, session: 4, start: 770, cpu: 570 * ms, rss: 9 * int64(os.Getpagesize()), name: "a) S (b"}); err != nil || got != want {
		t.Errorf("got %+v, %v, want %+v", got, err, want)
	}
	for _, state := range []string{"Z", "X"} {
		if _, err := parseStat([]byte("1 (a) " + state + rest)); err != errGone {
			t.Errorf("state %s: %v", state, err)
		}
	}
	for _, bad := range []string{"", "1", "1 (a", "1 )a( S", "1 (a) S 2 3"} {
		if _, err := parseStat([]byte(bad)); err == nil {
			t.Errorf("%q was accepted", bad)
		}
	}
}

func TestParseIdle(t *testing.T) {
	const stat = "cpu  9 9 9 900 90 9 9 9\ncpu0 1 2 3 100 10 7 7 500 0 0\ncpu2 1 2 3 200 20 7 7 500 0 0\nintr 5 cpu\ncpu3 1 1 1 1 1\n"
	for _, c := range []struct {
		cpus   cpuSet
		idle   time.Duration
		online int
	}{
		{nil, 3300 * ms, 2},
		{cpuSet{0: true, 1: true}, 1100 * ms, 1}, // 1 is offline
		{cpuSet{1: true}, 0, 0},
	} {
		idle, online, err := parseIdle([]byte(stat), c.cpus)
		if idle != c.idle || online != c.online || (err == nil) != (c.online > 0) {
			t.Errorf("%v: got %v, %d, %v", c.cpus, idle, online, err)
		}
	}
}

func TestLevels(t *testing.T) {
	for _, c := range []struct {
		root, group string
		want        []string
	}{
		{"/", "/a/b", []string{"/m/a/b", "/m/a", "/m"}},
		{"/", "/", []string{"/m"}},
		{"/docker/x", "/docker/x/y", []string{"/m/y", "/m"}},
		{"/docker/x", "/docker/x", []string{"/m"}},
		{"/docker/x", "/docker/xy", nil},
		{"/", "/../other", nil},
		{"/../..", "/a", nil},
	} {
		h := hierarchy{mount: "/m", root: c.root}
		if got := h.levels(c.group); !slices.Equal(got, c.want) {
			t.Errorf("%s mounted from %s: got %v, want %v", c.group, c.root, got, c.want)
		}
	}
}

// FuzzProc holds that no content of the files we parse ourselves panics a parser or
// gives a figure out of range.
func FuzzProc(f *testing.F) {
	f.Add([]byte("1 (a) b) S 2 3 4 0 -1 0 0 0 0 0 5 6 0 0 20 0 1 0 77 1 9 0\n"))
	f.Add([]byte("cpu  1 2 3 4\ncpu0 1 2 3 4 5\n"))
	f.Add([]byte(tcpHeader + "   0: 00000000:1F90 0:0 0A 0:0 0:0 0 0 0 5 1 0\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if s, err := parseStat(data); err == nil && s.cpu == 0 && s.start == 0 && s.ppid == 0 && len(data) < 24 {
			t.Errorf("a process from %q", data)
		}
		if _, online, err := parseIdle(data, nil); err == nil && online < 1 {
			t.Errorf("no CPU and no error")
		}
		inodes := map[uint64]bool{}
		parseListeners(data, 8080, inodes)
		if inodes[0] {
			t.Error("inode 0")
		}
	})
}
