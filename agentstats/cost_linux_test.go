package agentstats

import (
	"os"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/sys/unix"
)

// benchSampler watches this process, by its pid, or whatever listens on the port.
func benchSampler(b *testing.B, port int) *sampler {
	b.Helper()
	cfg := DefaultConfig()
	if cfg.Backend.Port = port; port == 0 {
		cfg.Backend.PID = os.Getpid()
	}
	s, err := newSampler(cfg, hclog.NewNullLogger())
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(s.close)
	return s
}

// BenchmarkSample is the cost of one sample of a real backend on this machine, with
// everything in the CPU's caches.
func BenchmarkSample(b *testing.B) {
	s := benchSampler(b, 0)
	b.ReportAllocs()
	for b.Loop() {
		s.sample(time.Now())
	}
}

// BenchmarkRefresh is the cost of finding everything anew, which happens every 2 s.
func BenchmarkRefresh(b *testing.B) {
	s := benchSampler(b, 0)
	b.ReportAllocs()
	for b.Loop() {
		if err := s.refresh(time.Now()); err != nil {
			b.Fatal(err)
		}
	}
}

func cpuTime(b *testing.B) time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkIdle is what a process costs that does nothing but sample at the default
// interval, with cold caches and a CPU that sleeps in between, and what it costs to
// wake up for nothing. Run it with -benchtime 80x.
func BenchmarkIdle(b *testing.B) {
	for _, c := range []struct {
		name string
		work func(*sampler)
	}{
		{"wake-ups alone", func(*sampler) {}},
		{"samples", func(s *sampler) { s.sample(time.Now()) }},
	} {
		b.Run(c.name, func(b *testing.B) {
			s := benchSampler(b, 0)
			s.sample(time.Now())
			tick := time.NewTicker(DefaultConfig().Interval)
			defer tick.Stop()
			<-tick.C
			before := cpuTime(b)
			for b.Loop() {
				<-tick.C
				c.work(s)
			}
			spent := cpuTime(b) - before
			b.ReportMetric(float64(spent.Microseconds())/float64(b.N), "cpu-us/op")
			b.ReportMetric(100*spent.Seconds()/(float64(b.N)*DefaultConfig().Interval.Seconds()), "%core")
		})
	}
}
