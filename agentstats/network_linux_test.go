package agentstats

import (
	"math"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/prometheus/procfs"
)

const netDevHeader = "Inter-|   Receive                                                |  Transmit\n" +
	" face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed\n"

func (h *host) netDev(pid string, rows string) { h.write(h.proc, pid+"/net/dev", netDevHeader+rows) }

func TestParseNetDev(t *testing.T) {
	const rows = "    lo: 111 1 0 0 0 0 0 0 222 1 0 0 0 0 0 0\n" +
		"  eth0:618120383   48315    0    0    0     0          0         0  4373671   41413    0    0    0     0       0          0\n" +
		"eth0:1: 5 0 0 0 0 0 0 0 6 0 0 0 0 0 0 0\n"
	got, err := parseNetDev([]byte(netDevHeader+rows), nil, nil)
	if err != nil || len(got) != 2 || got[0] != (link{"eth0", 618120383, 4373671}) || got[1] != (link{"eth0:1", 5, 6}) {
		t.Errorf("got %+v, %v", got, err)
	}
	if got, err := parseNetDev([]byte(netDevHeader), nil, nil); err != nil || len(got) != 0 {
		t.Errorf("no interfaces: %v, %v", got, err)
	}
	for _, bad := range []string{"", "one line\n", netDevHeader + "eth0 1 2\n", netDevHeader + "eth0: 1 2 3\n", netDevHeader + "eth0: -1 0 0 0 0 0 0 0 1\n"} {
		if got, err := parseNetDev([]byte(bad), nil, nil); err == nil {
			t.Errorf("%q was accepted as %v", bad, got)
		}
	}
}

// FuzzNetDev holds that nothing panics the parser, and that it reads what
// prometheus/procfs reads.
func FuzzNetDev(f *testing.F) {
	f.Add([]byte(netDevHeader + "  eth0:618120383   48315    0    0    0     0          0         0  4373671   41413    0    0    0     0       0          0\n"))
	dir := f.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "net"), 0o755); err != nil {
		f.Fatal(err)
	}
	proc, err := procfs.NewFS(dir)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		links, err := parseNetDev(data, nil, nil)
		if err != nil {
			return
		}
		var tr traffic
		for _, l := range links {
			if l.name == "" || l.name == "lo" {
				t.Fatalf("interface %q", l.name)
			}
			if tr.rx = add(tr.rx, 0, l.rx); tr.rx < 0 {
				t.Fatal("the sum overflowed")
			}
		}
		if len(links) != 1 || len(data) > 1000 {
			return
		}
		if err := os.WriteFile(filepath.Join(dir, "net/dev"), data, 0o644); err != nil {
			t.Fatal(err)
		}
		defer func() { _ = recover() }() // it indexes fields that need not be there
		if ref, err := proc.NetDev(); err == nil {
			if l, ok := ref[links[0].name]; ok && (l.RxBytes != links[0].rx || l.TxBytes != links[0].tx) {
				t.Errorf("%q: got %+v, procfs %+v", data, links[0], l)
			}
		}
	})
}

// TestNetworkRates: what comes and goes, and counters that go back, give neither
// spikes nor negative rates.
func TestNetworkRates(t *testing.T) {
	h := newHost(t, 2, v2Mount)
	h.process(fixtureProc{pid: 10, ppid: 1, session: 10, start: 5, name: "app", cpus: "0-1", cgroup: "0::/\n"})
	s := h.sampler(Backend{PID: 10})
	now := time.Now()
	step := func(what string, rx, tx Opt[float64], rows string) {
		t.Helper()
		now = now.Add(250 * ms)
		if rows == "" {
			_ = os.Remove(filepath.Join(h.proc, "10/net/dev"))
			s.proc.drop(filepath.Join(h.proc, "10/net/dev"))
		} else {
			h.netDev("10", rows)
		}
		r, _ := s.sample(now)
		if r.RxBytes != rx || r.TxBytes != tx {
			t.Errorf("%s: got %v, %v, want %v, %v", what, r.RxBytes, r.TxBytes, rx, tx)
		}
	}
	none := Opt[float64]{}
	const lo = "lo: 77 0 0 0 0 0 0 0 99999 0 0 0 0 0 0 0\n"
	step("no window yet", none, none, lo+"eth0: 5000 0 0 0 0 0 0 0 800 0 0 0 0 0 0 0\n")
	step("loopback is left out", Some(4000.0), Some(400.0), "lo: 9999977 0 0 0 0 0 0 0 99999 0 0 0 0 0 0 0\neth0: 6000 0 0 0 0 0 0 0 900 0 0 0 0 0 0 0\n")
	step("an interface comes with a past", Some(4000.0), Some(0.0), "veth1: 1000000 0 0 0 0 0 0 0 5000000 0 0 0 0 0 0 0\n"+lo+"eth0: 7000 0 0 0 0 0 0 0 900 0 0 0 0 0 0 0\n")
	step("and counts from then on", Some(4000.0), Some(40.0), "veth1: 1001000 0 0 0 0 0 0 0 5000010 0 0 0 0 0 0 0\n"+lo+"eth0: 7000 0 0 0 0 0 0 0 900 0 0 0 0 0 0 0\n")
	step("its counters are reset", Some(8.0), Some(0.0), "veth1: 3 0 0 0 0 0 0 0 1 0 0 0 0 0 0 0\n"+lo+"eth0: 7002 0 0 0 0 0 0 0 900 0 0 0 0 0 0 0\n")
	step("it goes", Some(8.0), Some(0.0), lo+"eth0: 7004 0 0 0 0 0 0 0 900 0 0 0 0 0 0 0\n")
	step("the file cannot be read", none, none, "")
	step("nor a rate be told from one reading", none, none, lo+"eth0: 7104 0 0 0 0 0 0 0 900 0 0 0 0 0 0 0\n")
	step("beyond any counter", Some(0.0), Some(0.0), lo+"eth0: 18446744073709551615 0 0 0 0 0 0 0 900 0 0 0 0 0 0 0\n")
	step("from there back", Some(0.0), Some(4.0), lo+"eth0: 7 0 0 0 0 0 0 0 901 0 0 0 0 0 0 0\n")
	if s.traffic.rx < 0 || s.traffic.tx < 0 || s.traffic.rx > math.MaxInt64/2 {
		t.Errorf("sums %d, %d", s.traffic.rx, s.traffic.tx)
	}
}

func TestNetworkReadAllocatesNothing(t *testing.T) {
	p := &procDir{root: "/proc"}
	t.Cleanup(p.close)
	var tr traffic
	read := func() {
		if err := tr.read(p, "/proc/self/net/dev"); err != nil {
			t.Fatal(err)
		}
	}
	read()
	read()
	if n := testing.AllocsPerRun(50, read); n > 0 {
		t.Errorf("%v allocations a reading", n)
	}
}
