package publish_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/procfs"
)

// What one published change costs Consul, in its CPU time, by the number of
// sidecars that watch the service.
func BenchmarkConsulPerChange(b *testing.B) {
	for _, sidecars := range []int{0, 1, 10, 50} {
		b.Run(fmt.Sprintf("sidecars=%d", sidecars), func(b *testing.B) {
			c := ownConsul(b, `limits { http_max_conns_per_client = 1000 }`, "")
			r := newRig(b, c)
			r.watch.Pause = 100 * time.Millisecond
			r.cfg.MaxInterval, r.cfg.SessionTTL = time.Hour, time.Hour // nothing else happens
			const backends = 50
			rest := strings.Repeat("x", 350) // a report is then as long as a real one
			var agents []*agent
			for i := range backends {
				agents = append(agents, r.agent(fmt.Sprintf("web-%d", i), report{Epoch: "0", Cores: some(2.0), Avail: some(1.5), InFlight: some(17.0), Rest: rest}))
			}
			for _, a := range agents {
				eventually(b, "the first writes", func() bool { return a.Status().Writes > 0 })
			}
			var all []*sidecar
			for range sidecars {
				all = append(all, r.sidecar())
			}
			last := fmt.Sprintf("%s/web-%d", r.node(), backends-1)
			for _, s := range all {
				s.await(last, "the reports", present)
			}
			proc, err := procfs.NewProc(c.Process().PID())
			if err != nil {
				b.Fatal(err)
			}
			reads := func() (n int64) {
				for _, s := range all {
					n += s.Status().Reads
				}
				return n
			}
			used, read, start := cpu(b, proc), reads(), time.Now()
			b.ResetTimer()
			for n := range b.N {
				epoch := fmt.Sprint(n + 1)
				written := agents[backends-1].Status().Writes
				agents[backends-1].report.Store(&report{Epoch: epoch, Cores: some(2.0), Avail: some(1.5), InFlight: some(17.0), Rest: rest})
				eventually(b, "the write", func() bool { return agents[backends-1].Status().Writes > written })
				for _, s := range all {
					s.await(last, "the change", func(rep report, _ bool) bool { return rep.Epoch == epoch })
				}
			}
			b.ReportMetric((cpu(b, proc)-used)*1e3/float64(b.N), "consul-cpu-ms/op")
			b.ReportMetric(float64(reads()-read)/float64(b.N), "reads/op")
			b.ReportMetric(time.Since(start).Seconds()/float64(b.N), "s/op")
		})
	}
}

func cpu(b *testing.B, proc procfs.Proc) float64 {
	stat, err := proc.Stat()
	if err != nil {
		b.Fatal(err)
	}
	return stat.CPUTime()
}
