package sockets

import (
	"fmt"
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// connections opens n connections to a server that answers nothing; the first busy of
// them carry a request.
func connections(t testing.TB, n, busy int) (port int) {
	t.Helper()
	ln := listen(t, "127.0.0.1:0", 4096)
	for i := range n {
		c := dial(t, ln.Addr().String())
		s, err := ln.Accept()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.Close() })
		if i < busy {
			fmt.Fprint(c, "GET / HTTP/1.1\r\n")
		}
	}
	return ln.Addr().(*net.TCPAddr).Port
}

// TestSampleDoesNotAllocate in either way of looking.
func TestSampleDoesNotAllocate(t *testing.T) {
	w := open(t, connections(t, 100, 30), "")
	now := time.Now()
	for name, step := range map[string]time.Duration{"asking": 5 * time.Millisecond, "searching": 2 * time.Second} {
		sample := func() {
			now = now.Add(step)
			if s, err := w.Sample(now); err != nil || s.Busy != 30 {
				t.Fatal(s, err)
			}
		}
		sample()
		if n := testing.AllocsPerRun(50, sample); n != 0 {
			t.Errorf("%s: %v allocations per sample", name, n)
		}
	}
}

// TestBudget holds that samples never cost more than their budget, whatever they cost,
// and that a host with a large connection table does not make them old.
func TestBudget(t *testing.T) {
	for _, c := range []struct {
		search, ask time.Duration
		oldest      time.Duration
	}{
		{50 * time.Microsecond, 50 * time.Microsecond, 4 * time.Millisecond},
		{300 * time.Microsecond, 40 * time.Microsecond, 17 * time.Millisecond},
		{300 * time.Microsecond, 250 * time.Microsecond, 20 * time.Millisecond},
		{1100 * time.Microsecond, 3 * time.Millisecond, 350 * time.Millisecond},
		{20 * time.Millisecond, 100 * time.Microsecond, 25 * time.Millisecond},
		{20 * time.Millisecond, 10 * time.Millisecond, 2 * time.Second},
	} {
		w := open(t, connections(t, 3, 1), "")
		w.cfg.Budget = 0.02
		var clock, used time.Duration
		var dumps uint64
		w.cpu = func() int64 { // every look reads it three times
			if w.est.dumps != dumps {
				dumps, clock = w.est.dumps, clock+c.search
			} else {
				clock += c.ask / 3
			}
			return int64(clock)
		}
		start := time.Now()
		looks, oldest := 0, time.Duration(0)
		var last time.Time
		for at := time.Duration(0); at < 20*time.Second; at += time.Millisecond {
			now := start.Add(at)
			s, err := w.Sample(now)
			if err != nil {
				t.Fatal(err)
			}
			if s.Busy != 1 || s.Established != 3 {
				t.Fatalf("%+v", s)
			}
			if s.At != last {
				looks, last, used = looks+1, s.At, used+w.cost
			}
			oldest = max(oldest, now.Sub(s.At))
		}
		share := (used - w.cost).Seconds() / 20 // the last look is paid for later
		t.Logf("a look of %v: %d looks in 20 s, %.2f %% of a core, at most %v old", used/time.Duration(looks), looks, 100*share, oldest)
		if oldest > c.oldest {
			t.Errorf("a sample is %v old, at most %v is expected", oldest, c.oldest)
		}
		if share > 0.021 { // 20 s hold few of the dearest looks
			t.Errorf("%.2f %% of a core for samples, the budget is 2 %%", 100*share)
		}
	}
}

// BenchmarkSample reports the CPU time of one look. "asking" is what is done 200 times
// a second while no connections are opened, "searching" what is done when some were.
func BenchmarkSample(b *testing.B) {
	for _, n := range []int{0, 7, 70, 700} {
		for _, way := range []struct {
			name           string
			step           time.Duration
			rescan, search time.Duration
		}{{"asking", 5 * time.Millisecond, time.Minute, time.Hour}, {"searching", 20 * time.Millisecond, 0, 1}} {
			b.Run(fmt.Sprintf("%s/%d", way.name, n), func(b *testing.B) {
				w := open(b, connections(b, n, n/3), "")
				now := time.Now()
				step := func() {
					now = now.Add(way.step)
					w.cfg.Rescan, w.search = way.rescan, way.search
					if _, err := w.Sample(now); err != nil {
						b.Fatal(err)
					}
				}
				for range 300 {
					step()
				}
				b.ReportAllocs()
				before := processTime()
				b.ResetTimer()
				for range b.N {
					step()
				}
				b.ReportMetric(float64(processTime()-before)/float64(b.N)/1e3, "cpu-µs/op")
			})
		}
	}
}

func processTime() int64 {
	var ts unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_PROCESS_CPUTIME_ID, &ts)
	return ts.Nano()
}
