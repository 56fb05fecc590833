package admin

import (
	"encoding/json"
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"outrigger/discovery"
)

// liar is what discovery says of a registry that dropped what still answers, with
// everything that may be told set.
func liar() discovery.Status {
	return discovery.Status{
		State: discovery.Kept, StateFor: 90 * time.Second, Source: "prepared_query", Datacenter: "dc2",
		Seen: true, Current: true, Instances: 5, Unlisted: 4, Index: 7, Age: time.Second,
		Holding: "nothing is listed, but old endpoints answer", HoldingFor: 80 * time.Second, Doubt: "empty_alive",
		ProbesAlive: 12, ProbesDead: 3,
		DoubtsTotal: map[string]uint64{"empty_alive": 2, "lagging": 1, "made up": 9},
		Fallbacks: []discovery.NamedStatus{
			{Name: "dr", Status: discovery.Status{State: discovery.Failing, Seen: true, Instances: 2, FailingFor: time.Minute, LastError: "EOF"}},
			{Name: "last", Status: discovery.Status{State: discovery.Current, Source: "static", Seen: true, Current: true, Instances: 1}},
		},
	}
}

func liarOptions(f *fleet, d func() discovery.Status) Options {
	o := Options{
		Consul: func() Consul {
			return Consul{Limit: 150, InUse: 140, Waiting: 360, Readers: 500, LongestWait: 3 * time.Second, BusyConnections: 4, BusyRate: 5}
		},
		Services: []Service{{
			Name: "web", Discovery: d,
			Snapshots: func() Snapshots {
				return Snapshots{Writes: 8, ReadErrors: 1, WriteErrors: 2, Bytes: 4096, Age: 2 * time.Minute}
			},
			Checks: func(id string) Check {
				switch id {
				case "n/1":
					return Check{Checked: true, State: "down", For: 4 * time.Second, Error: "status 500", Took: 20 * time.Millisecond, Successes: 6, Failures: 3, Unmade: 1}
				case "n/2":
					return Check{Checked: true, State: "unknown"}
				case "n/3":
					return Check{Checked: true, State: "up", Took: time.Millisecond, Successes: 1}
				}
				return Check{}
			},
		}},
	}
	if f != nil {
		o.Services[0].Status = f.Status
	}
	return o
}

func checkedFleet(t *testing.T) *fleet {
	f := newFleet(t, nil)
	set := []discovery.Instance{instance("n/1", 81), instance("n/2", 82), instance("n/3", 83), instance("n/4", 84)}
	set[0].Unlisted = true
	f.Update(set)
	return f
}

// part returns what a document has at a path, as JSON; "absent" if nothing.
func part(t *testing.T, doc any, path ...any) string {
	t.Helper()
	for _, p := range path {
		switch p := p.(type) {
		case string:
			m, _ := doc.(map[string]any)
			v, is := m[p]
			if !is {
				return "absent"
			}
			doc = v
		case int:
			list, _ := doc.([]any)
			if p >= len(list) {
				return "absent"
			}
			doc = list[p]
		}
	}
	text, err := json.Marshal(doc)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestStatusOfDiscovery(t *testing.T) {
	t.Parallel()
	f := checkedFleet(t)
	_, addr := start(t, liarOptions(f, liar))
	_, body := get(t, addr, "/v1/status")
	var doc any
	if err := json.Unmarshal([]byte(body), &doc); err != nil {
		t.Fatal(err)
	}
	want := func(json string, path ...any) {
		t.Helper()
		if got := part(t, doc, path...); got != json {
			t.Errorf("%v is %s, want %s", path, got, json)
		}
	}
	want(`{"busy_total":{"connections":4,"rate":5},"http2":false,"longest_wait_seconds":3,"readers":500,"reads_in_use":140,"reads_limit":150,"reads_waiting":360}`, "consul")
	web := []any{"services", 0, "discovery"}
	for k, v := range map[string]string{
		"state": `"kept"`, "state_for_seconds": "90", "source": `"prepared_query"`, "datacenter": `"dc2"`, "unlisted": "4",
		"doubt": `"empty_alive"`, "holding_for_seconds": "80", "snapshot_age_seconds": "absent",
		"probes_answered_total": "12", "probes_dead_total": "3",
		"snapshot": `{"age_seconds":120,"bytes":4096,"read_errors_total":1,"write_errors_total":2,"writes_total":8}`,
	} {
		want(v, append(web, k)...)
	}
	for _, code := range discovery.Doubts() {
		want(fmt.Sprint(liar().DoubtsTotal[code]), append(web, "doubts_total", code)...)
	}
	want("absent", append(web, "doubts_total", "made up")...)
	for i, v := range []map[string]string{
		{"name": `"dr"`, "state": `"failing"`, "instances": "2", "failing_for_seconds": "60", "fallbacks": "absent", "snapshot": "absent"},
		{"name": `"last"`, "state": `"current"`, "source": `"static"`, "current": "true"},
	} {
		for k, v := range v {
			want(v, append(web, "fallbacks", i, k)...)
		}
	}
	for i, v := range []string{
		`{"error":"status 500","failures_total":3,"for_seconds":4,"state":"down","successes_total":6,"took_seconds":0.02,"unmade_total":1}`,
		`{"failures_total":0,"state":"unknown","successes_total":0,"unmade_total":0}`,
		`{"failures_total":0,"for_seconds":0,"state":"up","successes_total":1,"took_seconds":0.001,"unmade_total":0}`,
		"absent",
	} {
		want(v, "services", 0, "endpoints", i, "check")
		want([]string{"true", "absent"}[min(i, 1)], "services", 0, "endpoints", i, "unlisted")
	}
	var typed StatusDoc
	if err := json.Unmarshal([]byte(body), &typed); err != nil {
		t.Fatal(err)
	}
	again, err := json.Marshal(typed)
	if err != nil {
		t.Fatal(err)
	}
	sameJSON(t, string(again), body)
}

func TestMetricsOfDiscovery(t *testing.T) {
	t.Parallel()
	f := checkedFleet(t)
	d := liar()
	_, addr := start(t, liarOptions(f, func() discovery.Status { return d }))
	got := scrape(t, addr)
	maps.DeleteFunc(got, func(k string, _ float64) bool {
		return !strings.Contains(k, "_consul_") && !strings.Contains(k, "_check") &&
			!strings.Contains(k, "discovery_fallback") && !strings.Contains(k, "discovery_snapshot") &&
			!strings.Contains(k, "discovery_state") && !strings.Contains(k, "discovery_doubts") &&
			!strings.Contains(k, "discovery_probes") && !strings.Contains(k, "discovery_unlisted") && !strings.Contains(k, "discovery_kept")
	})
	want := map[string]float64{
		`consul_connections_limit`: 150, `consul_connections_in_use`: 140, `consul_reads_waiting`: 360,
		`consul_busy_total{kind="connections"}`: 4, `consul_busy_total{kind="rate"}`: 5,
		`discovery_fallback_instances{fallback="dr",service="web"}`: 2, `discovery_fallback_instances{fallback="last",service="web"}`: 1,
		`discovery_fallback_current{fallback="dr",service="web"}`: 0, `discovery_fallback_current{fallback="last",service="web"}`: 1,
		`discovery_snapshot_writes_total{service="web"}`:            8,
		`discovery_snapshot_errors_total{op="read",service="web"}`:  1,
		`discovery_snapshot_errors_total{op="write",service="web"}`: 2,
		`discovery_snapshot_age_seconds{service="web"}`:             120,
		`discovery_snapshot_bytes{service="web"}`:                   4096,
		`discovery_probes_total{result="answers",service="web"}`:    12,
		`discovery_probes_total{result="dead",service="web"}`:       3,
		`discovery_unlisted_instances{service="web"}`:               4,
		`discovery_kept_seconds{service="web"}`:                     90,
		`endpoint_check_up{endpoint="n/1",service="web"}`:           0,
		`endpoint_check_up{endpoint="n/3",service="web"}`:           1,
		`endpoint_check_seconds{endpoint="n/1",service="web"}`:      .02,
		`endpoint_check_seconds{endpoint="n/3",service="web"}`:      .001,
	}
	for id, counts := range map[string][3]float64{"n/1": {6, 3, 1}, "n/2": {}, "n/3": {1, 0, 0}} {
		for i, result := range []string{"success", "failure", "unmade"} {
			want[fmt.Sprintf("endpoint_checks_total{endpoint=%q,result=%q,service=\"web\"}", id, result)] = counts[i]
		}
	}
	for _, s := range discovery.States() {
		want[fmt.Sprintf("discovery_state{service=\"web\",state=%q}", s)] = truth(s == "kept")
	}
	for _, code := range discovery.Doubts() {
		want[fmt.Sprintf("discovery_doubts_total{reason=%q,service=\"web\"}", code)] = float64(d.DoubtsTotal[code])
	}
	for k, v := range want {
		if g, is := got[prefix+k]; !is || g != v {
			t.Errorf("%s is %v (there: %t), want %v", k, g, is, v)
		}
		delete(got, prefix+k)
	}
	if len(got) > 0 {
		t.Errorf("not expected: %v", got)
	}

	// A set from disk has an age, and nothing is kept against a registry then.
	d = discovery.Status{State: discovery.Snapshot, StateFor: time.Minute, SnapshotAge: time.Hour, Seen: true}
	got = scrape(t, addr)
	if got[`outrigger_discovery_snapshot_age_seconds{service="web"}`] != 3600 || got[`outrigger_discovery_kept_seconds{service="web"}`] != 0 ||
		got[`outrigger_discovery_state{service="web",state="snapshot"}`] != 1 {
		t.Error("a snapshot in use does not show")
	}
	if got := describeDiscovery(&d).SnapshotAgeSeconds; got == nil || *got != 3600 {
		t.Errorf("snapshot age in status: %v", got)
	}
}

// TestConsulOnHTTP2: the limit of connections does not apply, so it is not told.
func TestConsulOnHTTP2(t *testing.T) {
	t.Parallel()
	f := newFleet(t, nil)
	o := liarOptions(f, liar)
	o.Consul = func() Consul { return Consul{Limit: 150, HTTP2: true} }
	_, addr := start(t, o)
	if v, is := scrape(t, addr)["outrigger_consul_connections_limit"]; is {
		t.Errorf("a limit of %v is exported", v)
	}
	var doc any
	_, body := get(t, addr, "/v1/status")
	if err := json.Unmarshal([]byte(body), &doc); err != nil {
		t.Fatal(err)
	}
	if got := part(t, doc, "consul", "reads_limit"); got != "absent" {
		t.Errorf("status has %s", got)
	}
}
