package declared

import (
	"bytes"
	"context"
	"fmt"
	"math"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// registry is that of an app with much to tell.
func registry(t testing.TB) (*prometheus.Registry, *prometheus.GaugeVec) {
	r := prometheus.NewRegistry()
	r.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	busy := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "app_busy", Help: "Requests now.\nTwo lines, \\ and all."}, []string{"pool", "worker"})
	total := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "app_busy_total", Help: "app_busy 5"}, []string{"pool"})
	times := prometheus.NewHistogram(prometheus.HistogramOpts{Name: "app_seconds", Buckets: prometheus.DefBuckets})
	r.MustRegister(busy, total, times)
	total.WithLabelValues("app_busy 7\napp_busy 8").Add(3)
	times.Observe(1)
	return r, busy
}

func TestPrometheusOfAGoApp(t *testing.T) {
	r, busy := registry(t)
	srv := httptest.NewServer(promhttp.HandlerFor(r, promhttp.HandlerOpts{}))
	defer srv.Close()
	busy.WithLabelValues("web", "1").Set(4)
	busy.WithLabelValues("web", "2").Set(2.5)
	busy.WithLabelValues("jobs", "1").Set(100)
	for name, tt := range map[string]struct {
		metric string
		labels map[string]string
		want   float64
		err    string
	}{
		"all series":       {"app_busy", nil, 106.5, ""},
		"those of a pool":  {"app_busy", map[string]string{"pool": "web"}, 6.5, ""},
		"one":              {"app_busy", map[string]string{"pool": "web", "worker": "2"}, 2.5, ""},
		"none":             {"app_busy", map[string]string{"pool": "x"}, 0, "no series"},
		"no such label":    {"app_busy", map[string]string{"zone": ""}, 0, "no series"},
		"no such metric":   {"app_bus", nil, 0, "no series"},
		"a counter":        {"app_busy_total", nil, 0, "is a counter"},
		"a histogram":      {"app_seconds", nil, 0, "no series"},
		"a part of one":    {"app_seconds_count", nil, 1, ""},
		"of the collector": {"go_info", nil, 1, ""},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := patient(srv.URL)
			cfg.Metric, cfg.Labels = tt.metric, tt.labels
			s := open(t, cfg, Env{})
			if tt.err != "" {
				wantError(t, s, tt.err)
			} else {
				wantInFlight(t, s, tt.want)
			}
		})
	}
}

func TestPrometheusPages(t *testing.T) {
	now := time.UnixMilli(1_700_000_000_000)
	for name, tt := range map[string]struct {
		page string
		want float64
		err  string
	}{
		"bare":              {"busy 3", 3, ""},
		"windows":           {"# TYPE busy gauge\r\nbusy 3\r\n", 3, ""},
		"float":             {"busy 1.5e1\n", 15, ""},
		"blanks":            {"  busy\t{ a = \"b\" , }\t3\n", 3, ""},
		"quoted name":       {"# TYPE \"busy\" gauge\n{\"busy\",a=\"b\"} 3\n", 3, ""},
		"longer names":      {"busy_x 9\nbusy:y 9\nxbusy 9\nbusy 3\n", 3, ""},
		"others are broken": {"%%%\nbusy 3\nbusy_x {{{\n", 3, ""},
		"zero":              {"busy 0\n", 0, ""},
		"stamped now":       {fmt.Sprintf("busy 3 %d\n", now.UnixMilli()-20), 3, ""},
		"stamped long ago":  {fmt.Sprintf("busy 3 %d\n", now.UnixMilli()-21), 0, "older than"},
		"empty":             {"", 0, "no series"},
		"comment alone":     {"# busy 3\n# HELP busy 3\n", 0, "no series"},
		"NaN":               {"busy NaN\n", 0, "outside"},
		"infinite":          {"busy +Inf\n", 0, "outside"},
		"negative":          {"busy{a=\"1\"} -1\nbusy{a=\"2\"} 5\n", 0, "outside"},
		"absurd":            {"busy 1e10\n", 0, "outside"},
		"absurd sum":        {"busy{a=\"1\"} 9e8\nbusy{a=\"2\"} 9e8\n", 0, "outside"},
		"no number":         {"busy three\n", 0, "parsing error"},
		"summary":           {"# TYPE busy summary\nbusy_sum 1\nbusy{quantile=\"1\"} 3\n", 0, "summary"},
	} {
		t.Run(name, func(t *testing.T) {
			r := &promReader{metric: []byte("busy"), now: func() time.Time { return now }, maxAge: 20 * time.Millisecond}
			got, err := r.sum([]byte(tt.page))
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Errorf("%+v, %v, want an error with %q", got, err, tt.err)
				}
			} else if err != nil || got.InFlight != tt.want || got.Err != Absent {
				t.Errorf("%+v, %v, want %v", got, err, tt.want)
			}
		})
	}
}

// What is left out before parsing changes nothing: the sum is that of the whole page.
func TestFilterKeepsWhatCounts(t *testing.T) {
	r, busy := registry(t)
	busy.WithLabelValues("a\nb\"c\\", "app_busy{} 5").Set(4)
	busy.WithLabelValues("", "").Set(0.25)
	rec := httptest.NewRecorder()
	promhttp.HandlerFor(r, promhttp.HandlerOpts{}).ServeHTTP(rec, httptest.NewRequest("GET", "/", nil))
	page := rec.Body.Bytes()
	p := expfmt.NewTextParser(model.UTF8Validation)
	all, err := p.TextToMetricFamilies(bytes.NewReader(page))
	if err != nil {
		t.Fatal(err)
	}
	gauges := 0
	for name, family := range all {
		want := 0.0
		for _, m := range family.GetMetric() {
			if m.GetGauge() == nil {
				want = math.NaN()
			}
			want += m.GetGauge().GetValue()
		}
		r := &promReader{metric: []byte(name), now: time.Now}
		got, err := r.sum(page)
		if math.IsNaN(want) || want > maxInFlight {
			if err == nil {
				t.Errorf("%s, a %s: %+v", name, family.GetType(), got)
			}
			continue
		}
		if gauges++; err != nil || got.InFlight != want {
			t.Errorf("%s: %+v, %v, want %v", name, got, err, want)
		}
	}
	if gauges < 10 || len(all) <= gauges {
		t.Errorf("%d gauges of %d metrics: the page shows too little", gauges, len(all))
	}
}

func TestJSONFields(t *testing.T) {
	const doc = ` {"a": {"b": [{"c": 7}, {"c": "7"}], "": 1}, "n": 2.5, "s": "1", "z": null, "t": true, "neg": -3, "big": 1e999, "e": 1E2}`
	for field, want := range map[string]any{
		"a.b.0.c": 7.0, "n": 2.5, "e": 100.0,
		"a.b.1.c": "not a number", "a.b": "not a number", "s": "not a number", "z": "not a number", "t": "not a number",
		"a.b.2.c": "not in an array of 2", "a.b.-1": "not in an array", "a.b.x": "not in an array",
		"a.x": "is not there", "A.b.0.c": "is not there", "n.x": "cannot unmarshal", "z.x": "is not there",
		"neg": "outside", "big": "cannot unmarshal",
	} {
		r := &jsonReader{field: field, path: strings.Split(field, ".")}
		got, err := r.find([]byte(doc))
		if v, ok := want.(float64); ok {
			if err != nil || got.InFlight != v {
				t.Errorf("%s: %+v, %v, want %v", field, got, err, v)
			}
		} else if err == nil || !strings.Contains(err.Error(), want.(string)) {
			t.Errorf("%s: %+v, %v, want an error with %q", field, got, err, want)
		}
	}
	r := &jsonReader{field: "1.n", path: []string{"1", "n"}}
	if got, err := r.find([]byte(`[0,{"n":4}]`)); err != nil || got.InFlight != 4 {
		t.Errorf("an array at the top: %+v, %v", got, err)
	}
}

func TestORCA(t *testing.T) {
	for value, want := range map[string]any{
		"TEXT named_metrics.busy:4,eps:1,rps_fractional:4": Figures{InFlight: 4, Err: 0.25},
		`JSON {"named_metrics":{"busy":4}}`:                Figures{InFlight: 4, Err: Absent},
		"TEXT eps:0,rps_fractional:9":                      Figures{InFlight: Absent, Err: 0},
		"TEXT cpu_utilization:0.5":                         "neither",
		"TEXT named_metrics.busy:-1":                       "outside",
		"garbage":                                          "not TEXT",
		"":                                                 "no header",
	} {
		a := newApp(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("endpoint-load-metrics", value)
			fmt.Fprint(w, "whatever")
		})
		cfg := patient(a.URL)
		cfg.Named = "busy"
		s := open(t, cfg, Env{ORCA: parseORCA})
		if text, ok := want.(string); ok {
			wantError(t, s, text)
			continue
		}
		got, err := s.Read(context.Background())
		got.At = time.Time{}
		if err != nil || got != want {
			t.Errorf("%q: %+v, %v, want %+v", value, got, err, want)
		}
	}
}
