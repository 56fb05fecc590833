package agentstats

import (
	"net/http"
	"net/http/httptest"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
)

// scrapeMetrics returns the agent's own series, and the whole text.
func scrapeMetrics(t *testing.T, src metricsSource) (series map[string]float64, text string) {
	t.Helper()
	h, err := metricsHandler(src, hclog.NewNullLogger())
	if err != nil {
		t.Fatal(err)
	}
	rec := httptest.NewRecorder()
	h.ServeHTTP(rec, httptest.NewRequest("GET", MetricsPath, nil))
	if rec.Code != http.StatusOK {
		t.Fatalf("%d: %s", rec.Code, rec.Body)
	}
	series = map[string]float64{}
	for line := range strings.Lines(rec.Body.String()) {
		if !strings.HasPrefix(line, metricsPrefix) {
			continue
		}
		line = strings.TrimSuffix(line, "\n")
		i := strings.LastIndexByte(line, ' ')
		if series[line[:i]], err = strconv.ParseFloat(line[i+1:], 64); err != nil {
			t.Fatalf("line %q: %v", line, err)
		}
	}
	for name := range series {
		if strings.HasPrefix(name, metricsPrefix+"build_info{") {
			delete(series, name)
		}
	}
	return series, rec.Body.String()
}

func fullReport() Report {
	return Report{
		Version: Version, Instance: "web-1", Epoch: "e1", At: 1,
		InFlight: Some(7.0), InFlightSource: SourceKernel,
		Avail: Some(1.5), Cores: Some(2.0), Used: Some(0.5), CPU: Some(0.25),
		Mem: Some(0.75), MemBytes: Some[int64](300), MemLimit: Some[int64](400),
		Conc: Some(40.0), Listening: Some(true), Err: Some(0.125),
		AcceptQueue: Some[int64](3), AcceptLimit: Some[int64](128),
		Pressure: Pressure{
			Scope:  "group",
			CPU:    Stall{Some: Some(0.5), Full: Some(0.25)},
			Memory: Stall{Some: Some(0.0625), Full: Some(0.0)},
			IO:     Stall{Some: Some(0.75), Full: Some(0.375)},
		},
		RxBytes: Some(1000.0), TxBytes: Some(2000.0),
		PollMS: Some[int64](1500), OwnInFlight: Some[int64](2),
	}
}

func fullSource() metricsSource {
	return metricsSource{
		version: "v1\xff", instance: "web-1",
		report: func() (Report, time.Duration, bool) { return fullReport(), 200 * time.Millisecond, true },
		counts: func() counts {
			return counts{
				polls: 11, open: 12, polling: 10, turnedAway: 13, refused: 14, samplesFailed: 15,
				checks: Some[int64](16), checksTurnedAway: Some[int64](17),
				partCounts: partCounts{
					gaugeStreams: Some[int64](18), gaugeFrames: Some[int64](19), gaugesRefused: Some[int64](20),
					declaredAsked: Some[int64](21), declaredFailed: Some[int64](22),
					registered: Some[int64](1), maintenance: Some[int64](0), registerErrors: Some[int64](23),
					published: Some[int64](24), publishErrors: Some[int64](25), publishHeld: Some[int64](1),
				},
			}
		},
	}
}

func TestMetricsOfAFullReport(t *testing.T) {
	got, text := scrapeMetrics(t, fullSource())
	want := map[string]float64{
		`backend_info{service_id="web-1"}`: 1, `backend_found`: 1, `listening`: 1,
		`in_flight_requests{source="kernel"}`: 7, `sustained_concurrency`: 40,
		`cpu_limit_cores`: 2, `cpu_available_cores`: 1.5, `cpu_used_cores`: 0.5, `cpu_used_ratio`: 0.25,
		`memory_used_ratio`: 0.75, `memory_working_set_bytes`: 300, `memory_limit_bytes`: 400,
		`error_ratio`: 0.125, `accept_queue_connections`: 3, `accept_queue_limit_connections`: 128,
		`pressure_ratio{kind="some",resource="cpu",scope="group"}`:    0.5,
		`pressure_ratio{kind="full",resource="cpu",scope="group"}`:    0.25,
		`pressure_ratio{kind="some",resource="memory",scope="group"}`: 0.0625,
		`pressure_ratio{kind="full",resource="memory",scope="group"}`: 0,
		`pressure_ratio{kind="some",resource="io",scope="group"}`:     0.75,
		`pressure_ratio{kind="full",resource="io",scope="group"}`:     0.375,
		`network_receive_bytes_per_second`:                            1000, `network_transmit_bytes_per_second`: 2000,
		`poll_interval_asked_seconds`: 1.5, `sample_age_seconds`: 0.2,
		`polls_total`: 11, `connections_open`: 12, `connections_polling`: 10,
		`connections_turned_away_total`: 13, `requests_unauthorized_total`: 14, `samples_failed_total`: 15,
		`checks_total`: 16, `checks_turned_away_total`: 17,
		`sidecar_streams_open`: 18, `sidecar_frames_total`: 19, `sidecar_streams_refused_total`: 20,
		`declared_asked_total`: 21, `declared_failed_total`: 22,
		`registered`: 1, `maintenance`: 0, `register_errors_total`: 23,
		`published_total`: 24, `publish_errors_total`: 25, `publish_held_by_another`: 1,
	}
	for name, v := range want {
		if g, ok := got[metricsPrefix+name]; !ok || g != v {
			t.Errorf("%s is %v (there: %v), want %v", name, g, ok, v)
		}
		delete(got, metricsPrefix+name)
	}
	for name, v := range got {
		t.Errorf("%s %v was not expected", name, v)
	}
	for _, part := range []string{"outrigger_agent_build_info{", "go_goroutines ", "process_resident_memory_bytes "} {
		if !strings.Contains(text, part) {
			t.Errorf("there is no %q", part)
		}
	}
	if n := strings.Count(text, "\n# TYPE "); n > 60 {
		t.Errorf("there are %d metrics: is that small?", n)
	}
	problems, err := promlint.New(strings.NewReader(text)).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		if strings.HasPrefix(p.Metric, metricsPrefix) { // those of Go and the process are not ours to name
			t.Errorf("promlint: %s: %s", p.Metric, p.Text)
		}
	}
}

// Every figure of the report has a metric: a report with one figure has one series
// more than the empty one has.
func TestMetricsAreComplete(t *testing.T) {
	of := func(r Report) map[string]float64 {
		src := fullSource()
		src.report = func() (Report, time.Duration, bool) { return r, 0, true }
		got, _ := scrapeMetrics(t, src)
		return got
	}
	none := of(Report{})
	full := reflect.ValueOf(fullReport())
	for i := range full.NumField() {
		f := full.Type().Field(i)
		switch f.Name {
		case "Version", "Instance", "At", "AgentVersion", "InFlightSource", // said otherwise
			"OwnInFlight": // of one poll
			continue
		}
		var r Report
		reflect.ValueOf(&r).Elem().Field(i).Set(full.Field(i))
		if reflect.DeepEqual(of(r), none) {
			t.Errorf("%s shows in no metric", f.Name)
		}
	}
}

func TestMetricsOfNothing(t *testing.T) {
	for name, known := range map[string]bool{"no report": false, "an empty report": true} {
		t.Run(name, func(t *testing.T) {
			got, _ := scrapeMetrics(t, metricsSource{
				report: func() (Report, time.Duration, bool) { return Report{}, time.Second, known },
				counts: func() counts { return counts{} },
			})
			want := []string{"polls_total", "connections_turned_away_total", "requests_unauthorized_total",
				"samples_failed_total", "connections_open", "connections_polling"}
			if known {
				want = append(want, "backend_found", "sample_age_seconds")
			}
			for _, w := range want {
				if _, ok := got[metricsPrefix+w]; !ok {
					t.Errorf("%s is missing", w)
				}
			}
			if len(got) != len(want) {
				t.Errorf("there are %d series, want %d: what is not known must be absent: %v", len(got), len(want), got)
			}
		})
	}
}

// A source or a scope that this agent does not know cannot add label values.
func TestMetricsLabelsAreBounded(t *testing.T) {
	src := fullSource()
	src.report = func() (Report, time.Duration, bool) {
		return Report{
			InFlight: Some(1.0), InFlightSource: "crystal_ball",
			Pressure: Pressure{Scope: "galaxy", CPU: Stall{Some: Some(0.5)}},
		}, 0, true
	}
	got, _ := scrapeMetrics(t, src)
	for _, name := range []string{`in_flight_requests{source="other"}`, `pressure_ratio{kind="some",resource="cpu",scope="other"}`} {
		if _, ok := got[metricsPrefix+name]; !ok {
			t.Errorf("there is no %s", name)
		}
	}
}
