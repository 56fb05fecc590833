package agentstats

import (
	"net/http"
	"runtime"
	"strings"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// MetricsPath is where an agent serves its figures for Prometheus.
const MetricsPath = "/metrics"

const (
	metricsPrefix = "outrigger_agent_"
	maxScrapes    = 4 // at once; a Prometheus pair has two
)

// metricsSource is what metrics are read from when they are scraped. Its functions
// are called concurrently.
type metricsSource struct {
	version string
	// instance is Config.Instance.
	instance string
	// report returns the newest report, with the figures of this moment where there are
	// such, and the age of its sample; false while there is none.
	report func() (r Report, age time.Duration, ok bool)
	counts func() counts
}

// counts is what an agent did since its start; open and polling are of now.
type counts struct {
	polls         uint64 // reports sent
	open, polling int64  // connections, and those among them that polled
	turnedAway    uint64 // connections above Config.MaxConns
	refused       uint64 // requests without the right token
	samplesFailed uint64 // samples that could not be encoded

	checks, checksTurnedAway Opt[int64] // of HAProxy; unknown where these are not served
	partCounts
}

// metricsHandler serves every figure of the report, and the agent's own, in
// Prometheus' formats. A figure that is not known is a series that is not there.
// Labels come from the configuration and from fixed lists, so nobody can grow their
// number.
func metricsHandler(src metricsSource, log hclog.Logger) (http.Handler, error) {
	reg := prometheus.NewRegistry()
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: metricsPrefix + "build_info", Help: "1, labelled with what this agent was built from.",
		ConstLabels: prometheus.Labels{"version": strings.ToValidUTF8(src.version, "\ufffd"), "goversion": runtime.Version()},
	})
	build.Set(1)
	for _, c := range []prometheus.Collector{
		// Without the two dozen series of the memory allocator: the agent is small.
		collectors.NewGoCollector(collectors.WithGoCollectorMemStatsMetricsDisabled()),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		build, &reportCollector{src: src, rows: reportMetrics()},
	} {
		if err := reg.Register(c); err != nil {
			return nil, err
		}
	}
	return promhttp.HandlerFor(reg, promhttp.HandlerOpts{
		ErrorLog:            log.StandardLogger(&hclog.StandardLoggerOptions{ForceLevel: hclog.Warn}),
		ErrorHandling:       promhttp.ContinueOnError, // one odd figure must not hide the others
		MaxRequestsInFlight: maxScrapes,
	}), nil
}

// scraped is what one scrape reads from.
type scraped struct {
	Report
	known    bool // there is a report
	age      time.Duration
	instance string
	counts   counts
}

// reportMetric is one metric and how to read it; read hands every value to emit.
type reportMetric struct {
	desc *prometheus.Desc
	kind prometheus.ValueType
	read func(s *scraped, emit func(v float64, labels ...string))
}

type reportTable struct{ rows []reportMetric }

func (t *reportTable) add(kind prometheus.ValueType, name, help string, labels []string,
	read func(s *scraped, emit func(float64, ...string))) {
	t.rows = append(t.rows, reportMetric{prometheus.NewDesc(metricsPrefix+name, help, labels, nil), kind, read})
}

// figure adds a gauge of the report.
func (t *reportTable) figure(name, help string, read func(*scraped) Opt[float64]) {
	t.add(prometheus.GaugeValue, name, help, nil, func(s *scraped, emit func(float64, ...string)) {
		if v, ok := read(s).Get(); ok {
			emit(v)
		}
	})
}

// number adds a gauge of whole numbers.
func (t *reportTable) number(name, help string, read func(*scraped) Opt[int64]) {
	t.figure(name, help, func(s *scraped) Opt[float64] { return float(read(s)) })
}

// own adds a metric of the agent itself.
func (t *reportTable) own(kind prometheus.ValueType, name, help string, read func(*counts) Opt[int64]) {
	t.add(kind, name, help, nil, func(s *scraped, emit func(float64, ...string)) {
		if v, ok := read(&s.counts).Get(); ok {
			emit(float64(v))
		}
	})
}

func float(o Opt[int64]) Opt[float64] {
	v, ok := o.Get()
	if !ok {
		return Opt[float64]{}
	}
	return Some(float64(v))
}

func reportMetrics() []reportMetric {
	t := &reportTable{}
	t.backend()
	t.pressure()
	t.agent()
	t.parts()
	return t.rows
}

func (t *reportTable) backend() {
	t.add(prometheus.GaugeValue, "backend_info", "1, labelled with the ID in Consul of the backend that is watched; absent when the agent was not told.",
		[]string{"service_id"}, func(s *scraped, emit func(float64, ...string)) {
			if s.instance != "" {
				emit(1, s.instance)
			}
		})
	t.add(prometheus.GaugeValue, "backend_found", "1 while the backend's process is found.", nil,
		func(s *scraped, emit func(float64, ...string)) {
			if s.known {
				emit(truth(s.Epoch != ""))
			}
		})
	t.add(prometheus.GaugeValue, "listening", "1 while the backend accepts connections on its port.", nil,
		func(s *scraped, emit func(float64, ...string)) {
			if v, ok := s.Listening.Get(); ok {
				emit(truth(v))
			}
		})
	t.add(prometheus.GaugeValue, "in_flight_requests", "Requests in the backend, by where the number comes from.", []string{"source"},
		func(s *scraped, emit func(float64, ...string)) {
			if v, ok := s.InFlight.Get(); ok {
				emit(v, knownAs(s.InFlightSource, SourceDeclared, SourceKernel, SourceSidecars))
			}
		})
	t.figure("sustained_concurrency", "Requests that the backend sustains at once without slowing.", func(s *scraped) Opt[float64] { return s.Conc })
	t.figure("cpu_limit_cores", "CPU limit that applies to the backend.", func(s *scraped) Opt[float64] { return s.Cores })
	t.figure("cpu_available_cores", "Cores that the backend could use now, those in use included.", func(s *scraped) Opt[float64] { return s.Avail })
	t.figure("cpu_used_cores", "Cores that the backend uses, mean over 250 ms.", func(s *scraped) Opt[float64] { return s.Used })
	t.figure("cpu_used_ratio", "Share of its cores that the backend uses, mean over 250 ms.", func(s *scraped) Opt[float64] { return s.CPU })
	t.figure("memory_used_ratio", "Memory in use over its limit, at the limit that is closest to being reached.", func(s *scraped) Opt[float64] { return s.Mem })
	t.number("memory_working_set_bytes", "Working set of the backend.", func(s *scraped) Opt[int64] { return s.MemBytes })
	t.number("memory_limit_bytes", "Tightest memory limit that applies to the backend.", func(s *scraped) Opt[int64] { return s.MemLimit })
	t.figure("error_ratio", "Share of requests that fail, where the backend declares it.", func(s *scraped) Opt[float64] { return s.Err })
	t.number("accept_queue_connections", "Connections that wait for the backend to accept them.", func(s *scraped) Opt[int64] { return s.AcceptQueue })
	t.number("accept_queue_limit_connections", "Waiting connections above which the kernel refuses more.", func(s *scraped) Opt[int64] { return s.AcceptLimit })
	t.figure("network_receive_bytes_per_second", "Bytes that the backend's network namespace receives, loopback left out.", func(s *scraped) Opt[float64] { return s.RxBytes })
	t.figure("network_transmit_bytes_per_second", "Bytes that the backend's network namespace sends, loopback left out.", func(s *scraped) Opt[float64] { return s.TxBytes })
}

func (t *reportTable) pressure() {
	t.add(prometheus.GaugeValue, "pressure_ratio",
		"Share of time in which some or all (full) tasks waited for a resource; scope tells whether of the backend's control group or of the host.",
		[]string{"scope", "resource", "kind"}, func(s *scraped, emit func(float64, ...string)) {
			scope := knownAs(s.Pressure.Scope, "group", "host")
			for _, r := range []struct {
				name  string
				stall Stall
			}{{"cpu", s.Pressure.CPU}, {"memory", s.Pressure.Memory}, {"io", s.Pressure.IO}} {
				if v, ok := r.stall.Some.Get(); ok {
					emit(v, scope, r.name, "some")
				}
				if v, ok := r.stall.Full.Get(); ok {
					emit(v, scope, r.name, "full")
				}
			}
		})
}

func (t *reportTable) agent() {
	t.figure("sample_age_seconds", "Age of the newest sample.", func(s *scraped) Opt[float64] {
		if !s.known {
			return Opt[float64]{}
		}
		return Some(max(0, s.age.Seconds()))
	})
	t.figure("poll_interval_asked_seconds", "Interval at which sidecars are asked to poll; absent while theirs will do.", func(s *scraped) Opt[float64] {
		v, ok := s.PollMS.Get()
		if !ok {
			return Opt[float64]{}
		}
		return Some(float64(v) / 1000)
	})
	total := func(name, help string, read func(*counts) uint64) {
		t.own(prometheus.CounterValue, name, help, func(c *counts) Opt[int64] { return Some(int64(min(read(c), maxInteger))) })
	}
	total("polls_total", "Reports sent.", func(c *counts) uint64 { return c.polls })
	total("connections_turned_away_total", "Connections closed at once because all that max_conns allows were open.", func(c *counts) uint64 { return c.turnedAway })
	total("requests_unauthorized_total", "Requests refused for want of the right token.", func(c *counts) uint64 { return c.refused })
	total("samples_failed_total", "Samples that were dropped because they could not be told.", func(c *counts) uint64 { return c.samplesFailed })
	t.own(prometheus.GaugeValue, "connections_open", "Connections open, this scrape's included.", func(c *counts) Opt[int64] { return Some(c.open) })
	t.own(prometheus.GaugeValue, "connections_polling", "Open connections that have polled: the sidecars.", func(c *counts) Opt[int64] { return Some(c.polling) })
	t.own(prometheus.CounterValue, "checks_total", "Agent-checks of HAProxy answered.", func(c *counts) Opt[int64] { return c.checks })
	t.own(prometheus.CounterValue, "checks_turned_away_total", "Agent-checks of HAProxy closed unanswered because as many as allowed were open.",
		func(c *counts) Opt[int64] { return c.checksTurnedAway })
}

// knownAs returns v if it is one of known, else "other": labels have bounds.
func knownAs(v string, known ...string) string {
	for _, k := range known {
		if v == k {
			return k
		}
	}
	return "other"
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// reportCollector reads the newest report when it is scraped. It has no state.
type reportCollector struct {
	src  metricsSource
	rows []reportMetric
}

// Describe implements prometheus.Collector.
func (c *reportCollector) Describe(out chan<- *prometheus.Desc) {
	for _, m := range c.rows {
		out <- m.desc
	}
}

// Collect implements prometheus.Collector.
func (c *reportCollector) Collect(out chan<- prometheus.Metric) {
	s := &scraped{instance: c.src.instance, counts: c.src.counts()}
	s.Report, s.age, s.known = c.src.report()
	for _, m := range c.rows {
		m.read(s, func(v float64, labels ...string) {
			pm, err := prometheus.NewConstMetric(m.desc, m.kind, v, labels...)
			if err != nil {
				pm = prometheus.NewInvalidMetric(m.desc, err)
			}
			out <- pm
		})
	}
}
