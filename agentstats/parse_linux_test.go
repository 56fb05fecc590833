package agentstats

import (
	"encoding/binary"
	"errors"
	"maps"
	"os"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

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

func TestParseDiag(t *testing.T) {
	got := map[uint64]bool{}
	data := slices.Concat(diagAnswer(8080, stateListen, 5), diagAnswer(8081, stateListen, 6), diagAnswer(8080, 1, 7), diagAnswer(8080, stateListen, 0))
	if done, err := parseDiag(data, 8080, got); done || err != nil || !maps.Equal(got, map[uint64]bool{5: true}) {
		t.Errorf("got %v, %v, %v", got, done, err)
	}
	if done, err := parseDiag(netlinkMessage(unix.NLMSG_DONE, make([]byte, 4)), 8080, got); !done || err != nil {
		t.Errorf("the end: %v, %v", done, err)
	}
	no := binary.NativeEndian.AppendUint32(nil, uint32(0xffffffff-uint32(unix.ENOENT)+1))
	if _, err := parseDiag(netlinkMessage(unix.NLMSG_ERROR, append(no, make([]byte, 16)...)), 8080, got); !errors.Is(err, unix.ENOENT) {
		t.Errorf("an error: %v", err)
	}
	for _, bad := range [][]byte{nil, {1}, netlinkMessage(unix.NLMSG_ERROR, nil)} {
		if _, err := parseDiag(bad, 8080, got); err == nil {
			t.Errorf("%v was accepted", bad)
		}
	}
}

func netlinkMessage(kind uint16, data []byte) []byte {
	b := binary.NativeEndian.AppendUint32(nil, uint32(unix.NLMSG_HDRLEN+len(data)))
	b = binary.NativeEndian.AppendUint16(b, kind)
	return append(append(b, make([]byte, 10)...), data...)
}

func diagAnswer(port uint16, state byte, inode uint32) []byte {
	data := make([]byte, diagMessage)
	data[diagState] = state
	binary.BigEndian.PutUint16(data[diagPort:], port)
	binary.NativeEndian.PutUint32(data[diagInode:], inode)
	return netlinkMessage(unix.SOCK_DIAG_BY_FAMILY, data)
}

func TestCPUList(t *testing.T) {
	for list, want := range map[string][]int{
		"0": {0}, "0-3": {0, 1, 2, 3}, "1,3-4": {1, 3, 4}, "": nil, "x": nil, "3-1": nil, "-1": nil, "5,,6": {5, 6},
	} {
		s := cpuSet{}
		s.add(list)
		if got := slices.Sorted(maps.Keys(s)); !slices.Equal(got, want) {
			t.Errorf("%q: got %v, want %v", list, got, want)
		}
	}
	s := cpuSet{}
	if s.add("0-65535"); len(s) != maxCPU+1 {
		t.Errorf("%d CPUs", len(s))
	}
}

// FuzzProc holds that no content of the files we parse ourselves panics a parser or
// gives a figure out of range.
func FuzzProc(f *testing.F) {
	f.Add([]byte("1 (a) b) S 2 3 4 0 -1 0 0 0 0 0 5 6 0 0 20 0 1 0 77 1 9 0\n"))
	f.Add([]byte("cpu  1 2 3 4\ncpu0 1 2 3 4 5\n"))
	f.Add([]byte(tcpHeader + "   0: 00000000:1F90 0:0 0A 0:0 0:0 0 0 0 5 1 0\n"))
	f.Add(diagAnswer(8080, stateListen, 5))
	f.Add([]byte("0-3,8\n"))
	f.Add([]byte("usage_usec 5\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if s, err := parseStat(data); err == nil && s.cpu == 0 && s.start == 0 && s.ppid == 0 && len(data) < 24 {
			t.Errorf("a process from %q", data)
		}
		if _, online, err := parseIdle(data, nil); err == nil && online < 1 {
			t.Errorf("no CPU and no error")
		}
		inodes := map[uint64]bool{}
		parseListeners(data, 8080, inodes)
		_, _ = parseDiag(data, 8080, inodes)
		_, _ = keyed(data, "", "usage_usec")
		set := cpuSet{}
		if set.add(string(data)); len(set) > maxCPU+1 {
			t.Errorf("%d CPUs", len(set))
		}
		if inodes[0] {
			t.Error("inode 0")
		}
	})
}
