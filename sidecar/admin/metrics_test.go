package admin

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"outrigger/breaker"
	"outrigger/discovery"
	"outrigger/picker"
	"outrigger/sidecar/balance"
)

func fullOptions(f *fleet) Options {
	return Options{Version: "1.2.3", Services: []Service{{
		Name: "web", Status: f.Status,
		Discovery: func() discovery.Status {
			return discovery.Status{Seen: true, Instances: 4, Unusable: 1, Index: 42, Age: 3 * time.Second,
				SinceChange: 5 * time.Second, LastContact: 10 * time.Millisecond, FailingFor: 2 * time.Second,
				Holding: "empty", HoldingFor: time.Minute, AnswersTotal: 9, ErrorsTotal: 3, HeldTotal: 2, UpdatesTotal: 6}
		},
		Traffic: func() Traffic {
			return Traffic{Accepted: 5, Open: 2, Tunnels: 1, Passed: [6]uint64{0, 1, 10, 2, 3, 4},
				Own: [6]uint64{4: 6, 5: 7}, ClientErrors: 8, ClientGone: 9, Aborted: 11,
				RetryCauses: []string{"reset", "timeout"}, Retries: []uint64{12, 13}, LogWritten: 14, LogDropped: 15, LogErrors: 16}
		},
		Loads: func() Loads {
			return Loads{Declared: 21, DeclaredRefused: 22, Published: true, Reports: 3, Reads: 23, ReadFails: 24, PublishedRefused: 25,
				Gauges: true, Streams: 2, Frames: 26, StreamsEnded: 27}
		},
		Agents: func(id string) AgentStatus {
			return AgentStatus{Polled: id == "n/good", Polls: 8, Failures: 2, Rejected: 1, Repeated: 4, Report: reportOf(id), Expires: f.now + time.Second}
		},
	}}}
}

// TestMetrics names every series that a fleet exports, apart from the Go
// runtime's and the histogram's.
func TestMetrics(t *testing.T) {
	t.Parallel()
	f := busyFleet(t)
	_, addr := start(t, fullOptions(f))
	got := scrape(t, addr)
	maps.DeleteFunc(got, func(k string, _ float64) bool {
		return !strings.HasPrefix(k, prefix) || strings.HasPrefix(k, "outrigger_request_duration_seconds") ||
			strings.HasPrefix(k, "outrigger_build_info")
	})
	want := map[string]float64{"outrigger_ready": 1}
	add := func(text string) {
		for line := range strings.Lines(text) {
			line = strings.TrimSpace(line)
			if line == "" {
				continue
			}
			var v float64
			i := strings.LastIndexByte(line, ' ')
			if _, err := fmt.Sscan(line[i+1:], &v); err != nil {
				t.Fatal(err)
			}
			want[prefix+line[:i]] = v
		}
	}
	add(`
		declared_loads_total{service="web"} 21
		declared_loads_refused_total{service="web"} 22
		published_reports{service="web"} 3
		published_reads_total{service="web"} 23
		published_read_failures_total{service="web"} 24
		published_reports_refused_total{service="web"} 25
		agent_streams{service="web"} 2
		agent_frames_total{service="web"} 26
		agent_streams_dropped_total{service="web"} 27`)
	add(`
		service_endpoints{service="web"} 4
		service_endpoints_ready{service="web"} 1
		service_endpoints_ejected{service="web"} 1
		service_panic{service="web"} 0
		service_panics_total{service="web"} 0
		service_failovers_total{service="web"} 0
		service_endpoints_listed{service="web"} 3
		service_endpoints_healthy{service="web"} 1
		service_draining{service="web"} 0
		service_attempts_total{service="web"} 3
		service_retries_total{service="web"} 0
		service_retries_denied_total{service="web"} 0
		service_pinned_total{service="web"} 0
		service_pin_missed_total{service="web"} 0
		queue_waiting{service="web"} 0
		queue_served_total{service="web"} 0
		queue_overflowed_total{service="web"} 0
		queue_timed_out_total{service="web"} 0
		capacity_breaker_state{service="web",state="closed"} 1
		capacity_breaker_state{service="web",state="half-open"} 0
		capacity_breaker_state{service="web",state="open"} 0
		capacity_breaker_trips_total{service="web"} 0
		discovery_seen{service="web"} 1
		discovery_current{service="web"} 0
		discovery_instances{service="web"} 4
		discovery_unusable_instances{service="web"} 1
		discovery_index{service="web"} 42
		discovery_age_seconds{service="web"} 3
		discovery_last_change_age_seconds{service="web"} 5
		discovery_last_contact_seconds{service="web"} 0.01
		discovery_failing_seconds{service="web"} 2
		discovery_holding{service="web"} 1
		discovery_holding_seconds{service="web"} 60
		discovery_answers_total{service="web"} 9
		discovery_errors_total{service="web"} 3
		discovery_held_answers_total{service="web"} 2
		discovery_updates_total{service="web"} 6
		client_errors_total{service="web"} 8
		clients_gone_total{service="web"} 9
		responses_aborted_total{service="web"} 11
		retries_by_cause_total{cause="reset",service="web"} 12
		retries_by_cause_total{cause="timeout",service="web"} 13
		access_log_lines_total{service="web"} 14
		access_log_dropped_total{service="web"} 15
		access_log_errors_total{service="web"} 16
		client_connections_open{service="web"} 2
		client_connections_accepted_total{service="web"} 5
		tunnels_open{service="web"} 1
		endpoint_in_flight{endpoint="n/good",service="web"} 1
		endpoint_in_flight_limit{endpoint="n/gone",service="web"} 1
		endpoint_latency_ewma_seconds{endpoint="n/good",service="web"} 0.02
		endpoint_agent_polls_total{endpoint="n/good",service="web"} 8
		endpoint_agent_poll_failures_total{endpoint="n/good",service="web"} 2
		endpoint_agent_reports_rejected_total{endpoint="n/good",service="web"} 1
		endpoint_agent_reports_repeated_total{endpoint="n/good",service="web"} 4
		endpoint_agent_report_age_seconds{endpoint="n/good",service="web"} 0.2
		endpoint_agent_cpu_ratio{endpoint="n/good",service="web"} 0.25
		endpoint_agent_memory_ratio{endpoint="n/good",service="web"} 0
		endpoint_agent_cores{endpoint="n/good",service="web"} 2
		endpoint_agent_available_cores{endpoint="n/good",service="web"} 1.5
		endpoint_agent_in_flight{endpoint="n/good",service="web"} 7
		endpoint_agent_listening{endpoint="n/good",service="web"} 1
		endpoint_agent_in_flight_source{endpoint="n/good",service="web",source="kernel"} 1
		endpoint_agent_accept_queue_connections{endpoint="n/good",service="web"} 3
		endpoint_agent_accept_queue_limit_connections{endpoint="n/good",service="web"} 128
		endpoint_agent_memory_bytes{endpoint="n/good",service="web"} 300
		endpoint_agent_memory_limit_bytes{endpoint="n/good",service="web"} 400
		endpoint_agent_receive_bytes_per_second{endpoint="n/good",service="web"} 0
		endpoint_agent_pressure_ratio{endpoint="n/good",service="web",stall="cpu_some"} 0.5
		endpoint_agent_pressure_ratio{endpoint="n/good",service="web",stall="memory_full"} 0`)
	add(`
		discovery_unlisted_instances{service="web"} 0
		discovery_kept_seconds{service="web"} 0
		discovery_probes_total{result="answers",service="web"} 0
		discovery_probes_total{result="dead",service="web"} 0`)
	for _, cause := range breaker.Causes() {
		add(fmt.Sprintf("service_ejections_total{reason=%q,service=\"web\"} %v", cause, truth(cause == "unreachable")))
	}
	for _, s := range discovery.States() {
		add(fmt.Sprintf("discovery_state{service=\"web\",state=%q} 0", s))
	}
	for _, code := range discovery.Doubts() {
		add(fmt.Sprintf("discovery_doubts_total{reason=%q,service=\"web\"} 0", code))
	}
	for i, n := range []int{1, 10, 2, 3, 4} {
		add(fmt.Sprintf("backend_responses_total{class=\"%dxx\",service=\"web\"} %d", i+1, n))
	}
	for i, n := range []int{0, 0, 0, 6, 7} {
		add(fmt.Sprintf("own_responses_total{class=\"%dxx\",service=\"web\"} %d", i+1, n))
	}
	for _, reason := range balance.Reasons() {
		n := truth(reason == "queue_full")
		add(fmt.Sprintf("service_refused_total{reason=%q,service=\"web\"} %v", reason, n))
	}
	for _, id := range []string{"n/good", "n/gone", "n/sick", "n/old"} {
		good, gone := id == "n/good", id == "n/gone"
		label := fmt.Sprintf("endpoint=%q", id)
		add(fmt.Sprintf("endpoint_ready{%s,service=\"web\"} %v", label, truth(good)))
		add(fmt.Sprintf("endpoint_weight{%s,service=\"web\"} %v", label, truth(id != "n/old")))
		add(fmt.Sprintf("endpoint_ejections_total{%s,service=\"web\"} %v", label, truth(gone)))
		add(fmt.Sprintf("endpoint_breaker_state{%s,service=\"web\",state=\"open\"} %v", label, truth(gone)))
		add(fmt.Sprintf("endpoint_breaker_state{%s,service=\"web\",state=\"closed\"} %v", label, truth(!gone)))
		add(fmt.Sprintf("endpoint_breaker_state{%s,service=\"web\",state=\"half-open\"} 0", label))
		add(fmt.Sprintf("endpoint_requests_total{%s,outcome=\"success\",service=\"web\"} %v", label, truth(good)))
		add(fmt.Sprintf("endpoint_requests_total{%s,outcome=\"failure\",service=\"web\"} %v", label, truth(gone)))
		add(fmt.Sprintf("endpoint_requests_total{%s,outcome=\"drop\",service=\"web\"} 0", label))
		add(fmt.Sprintf("endpoint_requests_total{%s,outcome=\"ignore\",service=\"web\"} 0", label))
		add(fmt.Sprintf("endpoint_flaps_total{%s,service=\"web\"} 0", label))
		if !good {
			add(fmt.Sprintf("endpoint_in_flight{%s,service=\"web\"} 0", label))
		}
		if !gone {
			add(fmt.Sprintf("endpoint_in_flight_limit{%s,service=\"web\"} 2", label))
		}
	}
	for _, k := range slices.Sorted(maps.Keys(want)) {
		if v, is := got[k]; !is || math.Abs(v-want[k]) > 1e-9 {
			t.Errorf("%s is %v (there: %t), want %v", k, v, is, want[k])
		}
	}
	for _, k := range slices.Sorted(maps.Keys(got)) {
		if _, is := want[k]; !is {
			t.Errorf("%s %v is not expected", k, got[k])
		}
	}
}

func TestMetricsFollowMembership(t *testing.T) {
	t.Parallel()
	f := newFleet(t, nil)
	_, addr := start(t, Options{Services: []Service{{Name: "web", Status: f.Status}}})
	endpoints := func() (ids []string) {
		for series := range scrape(t, addr) {
			if rest, is := strings.CutPrefix(series, `outrigger_endpoint_ready{endpoint="`); is {
				id, _, _ := strings.Cut(rest, `"`)
				ids = append(ids, id)
			} else if strings.HasPrefix(series, "outrigger_discovery") || strings.HasPrefix(series, "outrigger_client") {
				t.Errorf("%s is exported without a source", series)
			}
		}
		slices.Sort(ids)
		return ids
	}
	for _, want := range [][]string{nil, {"n/1", "n/2"}, {"n/2"}, nil} {
		var set []discovery.Instance
		for _, id := range want {
			set = append(set, instance(id, 80))
		}
		f.Update(set)
		if got := endpoints(); !slices.Equal(got, want) {
			t.Errorf("exported are %q, want %q", got, want)
		}
	}
}

// TestOddIDsShareALabel: of IDs that are alike once they are UTF-8 one is exported,
// and the rest of the scrape is well.
func TestOddIDsShareALabel(t *testing.T) {
	t.Parallel()
	f := newFleet(t, nil)
	f.Update([]discovery.Instance{instance("n/\xff", 80), instance("n/b", 81), instance("n/\xfe", 82), instance("n/a", 83)})
	_, addr := start(t, Options{Services: []Service{{Name: "web", Status: f.Status}}})
	n := 0
	for series := range scrape(t, addr) {
		if strings.HasPrefix(series, "outrigger_endpoint_ready{") {
			n++
		}
	}
	if n != 3 {
		t.Errorf("%d endpoints are exported, want 3", n)
	}
}

// TestExpiredFiguresAreNotExported: Prometheus would draw them as a steady state.
func TestExpiredFiguresAreNotExported(t *testing.T) {
	t.Parallel()
	f := newFleet(t, nil)
	f.Update([]discovery.Instance{instance("n/1", 80)})
	f.SetLoad("n/1", &picker.Load{At: f.now, Expires: f.now + 2*time.Second, CPU: .5})
	_, addr := start(t, Options{Services: []Service{{Name: "web", Status: f.Status, Agents: func(string) AgentStatus {
		r := reportOf("n/good")
		r.InFlightSource = "made up"
		return AgentStatus{Polled: true, Report: r, Expires: 3 * time.Second}
	}}}})
	const labels = `{endpoint="n/1",service="web"}`
	for age, want := range map[time.Duration]bool{0: true, time.Second: true, 2 * time.Second: false, time.Hour: false} {
		f.now = time.Second + age
		series := scrape(t, addr)
		if _, is := series["outrigger_endpoint_agent_cpu_ratio"+labels]; is != want {
			t.Errorf("at the age of %v a figure is exported: %t", age, is)
		}
		for _, name := range []string{
			`accept_queue_connections` + labels, `in_flight_source{endpoint="n/1",service="web",source="other"}`,
			`pressure_ratio{endpoint="n/1",service="web",stall="cpu_some"}`,
		} {
			if _, is := series["outrigger_endpoint_agent_"+name]; is != want {
				t.Errorf("at the age of %v %s is exported: %t", age, name, is)
			}
		}
		if got := series["outrigger_endpoint_agent_report_age_seconds"+labels]; got != age.Seconds() {
			t.Errorf("the age is %v, want %v", got, age)
		}
	}
}
