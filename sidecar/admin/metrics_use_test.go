package admin

import (
	"bytes"
	"fmt"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"outrigger/discovery"
	"outrigger/picker"
	"outrigger/sidecar/balance"
)

func TestObserve(t *testing.T) {
	t.Parallel()
	status := func() balance.Status { return balance.Status{Seen: true} }
	s, addr := start(t, Options{Services: []Service{{Name: "a", Status: status}, {Name: "b", Status: status}}})
	if s.Observe("nobody") != nil {
		t.Error("an unknown service has an observer")
	}
	observe := s.Observe("a")
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for _, status := range []int{101, 200, 204, 301, 404, 503, 599, 0, -1, 99, 600, 999} {
				observe(status, 3*time.Millisecond)
			}
		})
	}
	wg.Wait()
	series := scrape(t, addr)
	for class, want := range map[string]float64{"1xx": 4, "2xx": 8, "3xx": 4, "4xx": 4, "5xx": 28} {
		for suffix, v := range map[string]float64{
			`_count{class="` + class + `",service="a"}`:              want,
			`_bucket{class="` + class + `",service="a",le="0.0025"}`: 0,
			`_bucket{class="` + class + `",service="a",le="0.005"}`:  want,
			`_count{class="` + class + `",service="b"}`:              0,
			`_bucket{class="` + class + `",service="b",le="+Inf"}`:   0,
			`_bucket{class="` + class + `",service="a",le="30"}`:     want,
			`_bucket{class="` + class + `",service="a",le="0.001"}`:  0,
		} {
			got, is := series["outrigger_request_duration_seconds"+suffix]
			if !is || got != v {
				t.Errorf("%s is %v (there: %t), want %v", suffix, got, is, v)
			}
		}
	}
}

func TestObserveDoesNotAllocate(t *testing.T) {
	status := func() balance.Status { return balance.Status{} }
	s, err := New(DefaultConfig(), Options{Services: []Service{{Name: "a", Status: status}}})
	if err != nil {
		t.Fatal(err)
	}
	observe := s.Observe("a")
	took := time.Duration(0)
	if n := testing.AllocsPerRun(10000, func() { took += 37 * time.Microsecond; observe(200, took) }); n != 0 {
		t.Errorf("an observation allocates %v times", n)
	}
}

func TestMetricsLint(t *testing.T) {
	t.Parallel()
	o := fullOptions(busyFleet(t))
	more := liarOptions(nil, liar)
	o.Consul, o.Services[0].Discovery, o.Services[0].Snapshots = more.Consul, liar, more.Services[0].Snapshots
	o.Services[0].Checks = func(string) Check { return more.Services[0].Checks("n/1") }
	_, addr := start(t, o)
	_, body := get(t, addr, "/metrics")
	var ours strings.Builder // the Go runtime's metrics are not ours to name
	for line := range strings.Lines(body) {
		if strings.Contains(line, prefix) {
			ours.WriteString(line)
		}
	}
	problems, err := promlint.New(strings.NewReader(ours.String())).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
	if !strings.Contains(body, "go_goroutines ") || !strings.Contains(body, "process_start_time_seconds ") ||
		!strings.Contains(body, `outrigger_build_info{goversion="go`) {
		t.Error("the runtime's, the process's or the build's metrics are missing")
	}
}

// TestConcurrentUse scrapes while members change and requests run: for -race.
func TestConcurrentUse(t *testing.T) {
	t.Parallel()
	env := balance.RealEnv(nil)
	cfg := balance.DefaultConfig()
	cfg.Service = "web"
	b, err := balance.New(cfg, env)
	if err != nil {
		t.Fatal(err)
	}
	s, addr := start(t, Options{Services: []Service{{Name: "web", Status: b.Status}}})
	observe := s.Observe("web")
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for n := 0; ; n++ {
			select {
			case <-stop:
				return
			default:
			}
			b.Update([]discovery.Instance{instance("n/stays", 80), instance(fmt.Sprint("n/", n%3), 81)})
			b.SetLoad("n/stays", &picker.Load{At: env.Now(), Expires: env.Now() + time.Second})
			if l, err := b.TryAcquire(balance.Key{}); err == nil {
				l.Done(picker.Result{FirstByte: time.Millisecond})
			}
			observe(200, time.Millisecond)
		}
	})
	for range 20 {
		for _, path := range []string{"/metrics", "/v1/status", "/readyz"} {
			if status, body := get(t, addr, path); status != 200 && path != "/readyz" {
				t.Errorf("%s: %d %s", path, status, body)
			}
		}
	}
	close(stop)
	wg.Wait()
}

func BenchmarkObserve(b *testing.B) {
	status := func() balance.Status { return balance.Status{} }
	s, err := New(DefaultConfig(), Options{Services: []Service{{Name: "a", Status: status}}})
	if err != nil {
		b.Fatal(err)
	}
	observe := s.Observe("a")
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for took := time.Duration(0); pb.Next(); took += time.Microsecond {
			observe(200, took)
		}
	})
}

// BenchmarkScrape is one answer of /metrics about 10,000 endpoints, without and with
// agents and active checks of each.
func BenchmarkScrape(b *testing.B) {
	f := newFleet(b, nil)
	var set []discovery.Instance
	for i := range 10_000 {
		set = append(set, instance(fmt.Sprintf("node-%d/web-%d", i%100, i), 80))
	}
	f.Update(set)
	for i := range set {
		f.SetLoad(set[i].ID, &picker.Load{At: f.now, Expires: f.now + time.Hour, CPU: .5, Mem: .5, Cores: 2, Avail: 1, InFlight: 3, Conc: 9, Err: 0})
	}
	bare := Service{Name: "web", Status: func() balance.Status {
		st := f.Status()
		for i := range st.Endpoints {
			st.Endpoints[i].Load = nil
		}
		return st
	}}
	full := Service{
		Name: "web", Status: f.Status, Discovery: liar,
		Agents: func(string) AgentStatus {
			return AgentStatus{Polled: true, Polls: 8, Report: reportOf("n/good"), Expires: 2 * time.Hour}
		},
		Checks: func(string) Check {
			return Check{Checked: true, State: "up", Took: time.Millisecond, Successes: 5}
		},
	}
	for name, sv := range map[string]Service{"bare": bare, "full": full} {
		b.Run(name, func(b *testing.B) {
			s, err := New(DefaultConfig(), Options{Services: []Service{sv}})
			if err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			for b.Loop() {
				w := httptest.NewRecorder()
				s.http.Handler.ServeHTTP(w, httptest.NewRequest("GET", "http://127.0.0.1/metrics", nil))
				if w.Code != 200 {
					b.Fatal(w.Code)
				}
				b.ReportMetric(float64(bytes.Count(w.Body.Bytes(), []byte("\n"))), "lines")
				b.ReportMetric(float64(w.Body.Len()), "bytes")
			}
		})
	}
}
