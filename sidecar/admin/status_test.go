package admin

import (
	"encoding/json"
	"fmt"
	"math"
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode"

	"outrigger/agentstats"
	"outrigger/discovery"
	"outrigger/picker"
	"outrigger/sidecar/balance"
)

// busyFleet has one endpoint in each state: ready with figures and a request in
// flight, ejected, critical, drained.
func busyFleet(t *testing.T) *fleet {
	t.Helper()
	f := newFleet(t, func(c *balance.Config) { c.MaxInFlight, c.PanicThreshold = 2, 0 })
	set := []discovery.Instance{instance("n/good", 81), instance("n/gone", 82), instance("n/sick", 83), instance("n/old", 84)}
	set[2].Health, set[3].Weight = discovery.Critical, 0
	f.Update(set)
	// Two at once: least connections sends them to different endpoints.
	leases := []balance.Lease{f.lease(t), f.lease(t)}
	f.now += 20 * time.Millisecond
	for i := range leases {
		if leases[i].Endpoint().ID == "n/gone" {
			leases[i].Done(picker.Result{Outcome: picker.Failure, Down: true})
		} else {
			leases[i].Done(picker.Result{FirstByte: 20 * time.Millisecond})
		}
	}
	f.Tick()
	f.lease(t)
	f.Refuse(balance.QueueFull)
	f.SetLoad("n/good", &picker.Load{
		At: f.now, Expires: f.now + 2*time.Second, CPU: .25, Mem: 0, Cores: 2, Avail: 1.5,
		InFlight: 7, OwnInFlight: 2, Conc: picker.Absent, Err: math.NaN(), Listening: true,
	})
	f.now += 200 * time.Millisecond
	return f
}

// reportOf is what the agent of an endpoint said besides what policies look at.
func reportOf(id string) agentstats.Report {
	if id != "n/good" {
		return agentstats.Report{}
	}
	return agentstats.Report{
		Version: agentstats.Version, InFlight: agentstats.Some(7.0), InFlightSource: agentstats.SourceKernel,
		AcceptQueue: agentstats.Some[int64](3), AcceptLimit: agentstats.Some[int64](128),
		MemBytes: agentstats.Some[int64](300), MemLimit: agentstats.Some[int64](400), RxBytes: agentstats.Some(0.0),
		Pressure: agentstats.Pressure{
			Scope: "group", CPU: agentstats.Stall{Some: agentstats.Some(0.5)}, Memory: agentstats.Stall{Full: agentstats.Some(0.0)},
		},
	}
}

func TestStatus(t *testing.T) {
	t.Parallel()
	f := busyFleet(t)
	clock := time.Date(2026, 7, 1, 12, 0, 0, 0, time.UTC)
	now := func() time.Time { clock = clock.Add(90 * time.Second); return clock }
	_, addr := start(t, Options{
		Version: "1.2.3", Now: now,
		Services: []Service{{
			Name: "web", Listen: "127.0.0.1:8080", Status: f.Status,
			Discovery: func() discovery.Status {
				return discovery.Status{Seen: true, Current: true, Instances: 4, Index: 42, Age: 3 * time.Second,
					LastError: "EOF", LastErrorAge: time.Minute, AnswersTotal: 9, ErrorsTotal: 1}
			},
			Traffic: func() Traffic {
				return Traffic{Accepted: 5, Open: 2, Passed: [6]uint64{2: 10, 5: 1}, Own: [6]uint64{5: 3}, ClientErrors: 4}
			},
			Agents: func(id string) AgentStatus {
				return AgentStatus{Polled: id == "n/good", Addr: "10.0.0.1:9000", Polls: 8, Failures: 2, Rejected: 1, LastError: "no", Report: reportOf(id), Expires: f.now + time.Second}
			},
		}},
	})
	code, body := get(t, addr, "/v1/status")
	if code != 200 {
		t.Fatalf("%d %s", code, body)
	}
	want := `{"version":"1.2.3","time":"2026-07-01T12:03:00Z","uptime_seconds":90,"ready":true,"draining":false,
	"services":[{"name":"web","listen":"127.0.0.1:8080","policy":"least_conn","mode":"least in-flight per weight",
	"draining":false,"panic":false,"panic_healthy_share":SHARE,"panics_total":0,"failovers_total":0,"endpoints_total":4,"endpoints_ready":1,"endpoints_ejected":1,
	"endpoints_listed":3,"endpoints_healthy":1,
	"ejections_by_reason_total":{"consecutive":0,"ratio":0,"unreachable":1,"success_rate":0,"probe":0},
	"attempts_total":3,"retries_total":0,"retries_denied_total":0,"pinned_total":0,"pin_missed_total":0,
	"refused_total":{"all_ejected":0,"draining":0,"no_backends":0,"queue_full":1,"queue_timeout":0,"saturated":0,"unreachable":0},
	"queue":{"waiting":0,"served_total":0,"overflowed_total":0,"timed_out_total":0},
	"capacity_breaker":{"state":"closed","trips_total":0},
	"discovery":{"seen":true,"current":true,"instances":4,"unlisted":0,"unusable":0,"index":42,"age_seconds":3,"since_change_seconds":0,
	"last_contact_seconds":0,"last_error":"EOF","last_error_age_seconds":60,"answers_total":9,"errors_total":1,"held_total":0,"updates_total":0,
	"probes_answered_total":0,"probes_dead_total":0,
	"doubts_total":DOUBTS},
	"traffic":{"connections_open":2,"tunnels_open":0,"connections_accepted_total":5,
	"backend_responses_total":{"1xx":0,"2xx":10,"3xx":0,"4xx":0,"5xx":1},"own_responses_total":{"1xx":0,"2xx":0,"3xx":0,"4xx":0,"5xx":3},
	"client_errors_total":4,"clients_gone_total":0,"responses_aborted_total":0,"retries_total":{},"access_log_dropped_total":0},
	"endpoints":[
	{"id":"n/good","node":"n","datacenter":"dc1","address":"10.0.0.1:81","weight":1,"health":"passing","ready":true,
	"falls_total":0,"in_flight":1,"limit":2,"requests_total":1,"successes_total":1,"failures_total":0,"drops_total":0,
	"ignored_total":0,"latency_ewma_seconds":0.02,"breaker":{"state":"closed","ejections_total":0},
	"agent":{"address":"10.0.0.1:9000","polls_total":8,"failures_total":2,"rejected_total":1,"last_error":"no"},
	"figures":{"age_seconds":0.2,"expired":false,"cpu":0.25,"memory":0,"cores":2,"available_cores":1.5,"in_flight":7,"own_in_flight":2,"listening":true,
	"in_flight_source":"kernel","accept_queue":3,"accept_limit":128,"memory_bytes":300,"memory_limit_bytes":400,"receive_bytes_per_second":0,
	"pressure":{"scope":"group","cpu_some":0.5,"memory_full":0}}},
	{"id":"n/gone","node":"n","datacenter":"dc1","address":"10.0.0.1:82","weight":1,"health":"passing","ready":false,
	"why_not_ready":"ejected, back in SHORT s","falls_total":0,"in_flight":0,"limit":1,"requests_total":1,"successes_total":0,"failures_total":1,"drops_total":0,
	"ignored_total":0,"breaker":{"state":"open","returns_in_seconds":RETURNS,"ejections_total":1,"last_reason":"unreachable"}},
	{"id":"n/sick","node":"n","datacenter":"dc1","address":"10.0.0.1:83","weight":1,"health":"critical","ready":false,
	"why_not_ready":"critical","falls_total":0,"in_flight":0,"limit":2,"requests_total":0,"successes_total":0,"failures_total":0,"drops_total":0,
	"ignored_total":0,"breaker":{"state":"closed","ejections_total":0}},
	{"id":"n/old","node":"n","datacenter":"dc1","address":"10.0.0.1:84","weight":0,"health":"passing","ready":false,
	"why_not_ready":"draining (weight 0)","falls_total":0,"in_flight":0,"limit":2,"requests_total":0,"successes_total":0,"failures_total":0,"drops_total":0,
	"ignored_total":0,"breaker":{"state":"closed","ejections_total":0}}]}]}`
	doubts := map[string]int{}
	for _, code := range discovery.Doubts() {
		doubts[code] = 0
	}
	none, err := json.Marshal(doubts)
	if err != nil {
		t.Fatal(err)
	}
	returns := f.Status().Endpoints[1].Returns.Seconds()
	want = strings.NewReplacer("SHORT", fmt.Sprintf("%.1f", returns), "RETURNS", fmt.Sprint(returns), "SHARE", fmt.Sprint(1.0/3), "DOUBTS", string(none)).Replace(want)
	sameJSON(t, body, want)
	if strings.Contains(body, "hunter2") {
		t.Error("service meta shows in status")
	}
	// Whoever decodes with the exported types loses nothing.
	var doc StatusDoc
	if err := json.Unmarshal([]byte(body), &doc); err != nil {
		t.Fatal(err)
	}
	again, err := json.Marshal(doc)
	if err != nil {
		t.Fatal(err)
	}
	sameJSON(t, string(again), want)
}

func sameJSON(t *testing.T, got, want string) {
	t.Helper()
	var g, w any
	if err := json.Unmarshal([]byte(got), &g); err != nil {
		t.Fatalf("%v in %s", err, got)
	}
	if err := json.Unmarshal([]byte(want), &w); err != nil {
		t.Fatalf("%v in %s", err, want)
	}
	if !reflect.DeepEqual(g, w) {
		gi, _ := json.MarshalIndent(g, "", " ")
		wi, _ := json.MarshalIndent(w, "", " ")
		t.Errorf("got %s\nwant %s", gi, wi)
	}
}

// TestStatusOfLittle: what is not known is absent, and empty lists are lists.
func TestStatusOfLittle(t *testing.T) {
	t.Parallel()
	f := newFleet(t, func(c *balance.Config) { c.MaxInFlight = 0 })
	o := Options{Services: []Service{{Name: "web", Status: f.Status, Discovery: func() discovery.Status {
		return discovery.Status{LastError: "connection refused", ErrorsTotal: 2, FailingFor: time.Minute}
	}}}}
	_, addr := start(t, o)
	raw := func() (doc map[string]any) {
		t.Helper()
		_, body := get(t, addr, "/v1/status")
		if err := json.Unmarshal([]byte(body), &doc); err != nil {
			t.Fatal(err)
		}
		return doc
	}
	doc := raw()
	if doc["ready"] != false || !reflect.DeepEqual(doc["waiting_for"], []any{"web"}) {
		t.Errorf("before the first answer: ready %v, waiting for %v", doc["ready"], doc["waiting_for"])
	}
	web := doc["services"].([]any)[0].(map[string]any)
	if web["why_none_ready"] != "no_backends" || !reflect.DeepEqual(web["endpoints"], []any{}) || web["traffic"] != nil {
		t.Errorf("without endpoints: %v", web)
	}
	if d := web["discovery"].(map[string]any); d["age_seconds"] != nil || d["failing_for_seconds"] != 60.0 || d["seen"] != false {
		t.Errorf("discovery before the first answer: %v", d)
	}
	f.Update([]discovery.Instance{instance("n/1", 80)})
	doc = raw()
	if doc["ready"] != true || doc["waiting_for"] != nil {
		t.Errorf("after the first answer: ready %v, waiting for %v", doc["ready"], doc["waiting_for"])
	}
	e := doc["services"].([]any)[0].(map[string]any)["endpoints"].([]any)[0].(map[string]any)
	for _, absent := range []string{"limit", "latency_ewma_seconds", "agent", "figures", "why_not_ready"} {
		if v, is := e[absent]; is {
			t.Errorf("%s is %v, though it is not known", absent, v)
		}
	}
	for _, zero := range []string{"in_flight", "requests_total", "failures_total"} {
		if e[zero] != 0.0 {
			t.Errorf("%s is %v, want 0", zero, e[zero])
		}
	}
	f.SetLoad("n/1", &picker.Load{At: f.now, Expires: f.now + time.Second, CPU: picker.Absent})
	f.now += time.Second
	figures := raw()["services"].([]any)[0].(map[string]any)["endpoints"].([]any)[0].(map[string]any)["figures"].(map[string]any)
	if _, is := figures["cpu"]; is || figures["expired"] != true || figures["listening"] != false || figures["memory"] != 0.0 {
		t.Errorf("figures of age 1 s: %v", figures)
	}
}

func TestStatusFilter(t *testing.T) {
	t.Parallel()
	a, b := newFleet(t, nil), newFleet(t, nil)
	a.Update(nil)
	_, addr := start(t, Options{Services: []Service{{Name: "a b", Status: a.Status}, {Name: "c", Status: b.Status}}})
	names := func(query string) (names []string) {
		code, body := get(t, addr, "/v1/status"+query)
		var doc StatusDoc
		if err := json.Unmarshal([]byte(body), &doc); err != nil || code != 200 {
			t.Fatalf("%s: %d %s: %v", query, code, body, err)
		}
		if doc.Ready || !reflect.DeepEqual(doc.WaitingFor, []string{"c"}) {
			t.Errorf("%s: readiness is not of all services: %v %v", query, doc.Ready, doc.WaitingFor)
		}
		for _, s := range doc.Services {
			names = append(names, s.Name)
		}
		return names
	}
	for query, want := range map[string][]string{"": {"a b", "c"}, "?service=a%20b": {"a b"}, "?service=c": {"c"}} {
		if got := names(query); !reflect.DeepEqual(got, want) {
			t.Errorf("%s: got %q, want %q", query, got, want)
		}
	}
	for _, query := range []string{"?service=", "?service=x%1b%5B2J", "?service=%ff", "?service=<b>"} {
		code, body := get(t, addr, "/v1/status"+query)
		var doc ErrorDoc
		if err := json.Unmarshal([]byte(body), &doc); err != nil || code != 404 {
			t.Fatalf("%s: %d %s: %v", query, code, body, err)
		}
		if !reflect.DeepEqual(doc.Known, []string{"a b", "c"}) || !strings.Contains(doc.Error, "known are: a b, c") {
			t.Errorf("%s: %+v", query, doc)
		}
		if strings.ContainsAny(body, "\x1b<") {
			t.Errorf("%s: the answer echoes the question raw: %q", query, body)
		}
	}
}

func FuzzPrintable(f *testing.F) {
	for _, s := range []string{"", "plain", "\x1b[2J", "\u009b2J", "\u202eevil", "\x7f", "\U000e0001", "\xff\xfe", "世界", "a\tb\nc", "\u00a0"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		text, err := json.Marshal(map[string]string{"k": s})
		if err != nil {
			t.Fatal(err)
		}
		clean := Printable(text)
		for _, r := range string(clean) {
			if r != '\n' && r != '\t' && !unicode.IsPrint(r) {
				t.Fatalf("%q holds %U", clean, r)
			}
		}
		var before, after map[string]string
		if err := json.Unmarshal(text, &before); err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(clean, &after); err != nil {
			t.Fatalf("%v in %q", err, clean)
		}
		if before["k"] != after["k"] {
			t.Errorf("%q became %q", before["k"], after["k"])
		}
	})
}

func TestControlCharactersDoNotReachTerminals(t *testing.T) {
	t.Parallel()
	f := newFleet(t, nil)
	evil := "n/\x1b[2J\u009b2J\u202e\r\n\xff"
	f.Update([]discovery.Instance{instance(evil, 80), instance("n/fine", 81)})
	_, addr := start(t, Options{Services: []Service{{Name: "web", Status: f.Status}}})
	for _, path := range []string{"/v1/status", "/readyz"} {
		_, body := get(t, addr, path)
		for _, r := range body {
			if r != '\n' && !unicode.IsPrint(r) {
				t.Errorf("%s holds %U", path, r)
			}
		}
	}
	var doc StatusDoc
	_, body := get(t, addr, "/v1/status")
	if err := json.Unmarshal([]byte(body), &doc); err != nil {
		t.Fatal(err)
	}
	if got, want := doc.Services[0].Endpoints[0].ID, strings.ToValidUTF8(evil, "\ufffd"); got != want {
		t.Errorf("the ID became %q, want %q", got, want)
	}
	// An odd label must not cost the other endpoints their metrics.
	if v := scrape(t, addr)[`outrigger_endpoint_ready{endpoint="n/fine",service="web"}`]; v != 1 {
		t.Errorf("beside an odd endpoint the other one's metric is %v", v)
	}
}
