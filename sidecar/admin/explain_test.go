package admin

import (
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"outrigger/discovery"
	"outrigger/picker"
	"outrigger/sidecar/balance"
)

// explained is a service with all that /v1/explain asks for.
func (f *fleet) explained(name string) Service {
	return Service{Name: name, Status: f.Status, Explain: f.Explain, Decisions: f.Decisions, Denials: f.Denials}
}

func clockAt() func() time.Time {
	at := time.Date(2026, 7, 1, 12, 0, 0, 0, time.UTC)
	return func() time.Time { return at }
}

func TestExplain(t *testing.T) {
	t.Parallel()
	f := busyFleet(t)
	_, addr := start(t, Options{Now: clockAt(), Services: []Service{f.explained("web")}})
	code, body := get(t, addr, "/v1/explain?service=web")
	if code != 200 {
		t.Fatalf("%d %s", code, body)
	}
	want := `{"service":"web","time":"2026-07-01T12:00:00Z","draining":false,"panic":false,"pick":"n/good",
	"policy":{"name":"least_conn","rule":"RULE","mode":"MODE","pick":"n/good","candidates":[
	{"id":"n/good","address":"10.0.0.1:81","picked":true,"share":1,"score":1,
	"terms":[{"name":"in_flight","value":1},{"name":"weight","value":1}],
	"weight":1,"ramp":RAMP,"in_flight":1,"limit":2,"latency_ewma_seconds":0.02,"figures_age_seconds":0.2},
	{"id":"n/gone","address":"10.0.0.1:82","picked":false,"out":"ejected, back in SHORT s","weight":1,"ramp":1,"in_flight":0,"limit":1,
	"returns_in_seconds":RETURNS},
	{"id":"n/sick","address":"10.0.0.1:83","picked":false,"out":"critical","weight":1,"ramp":1,"in_flight":0,"limit":2},
	{"id":"n/old","address":"10.0.0.1:84","picked":false,"out":"draining (weight 0)","weight":0,"ramp":1,"in_flight":0,"limit":2}]}}`
	x, err := f.Explain(balance.Question{})
	if err != nil {
		t.Fatal(err)
	}
	st := f.Status()
	returns := st.Endpoints[1].Returns.Seconds()
	want = strings.NewReplacer("SHORT", fmt.Sprintf("%.1f", returns), "RETURNS", fmt.Sprint(returns),
		"RULE", x.Policy.Rule, "MODE", st.Mode, "RAMP", fmt.Sprint(st.Endpoints[0].Ramp)).Replace(want)
	sameJSON(t, body, want)
	var doc ExplainDoc
	if err := json.Unmarshal([]byte(body), &doc); err != nil {
		t.Fatal(err)
	}
	again, err := json.Marshal(doc)
	if err != nil {
		t.Fatal(err)
	}
	sameJSON(t, string(again), want) // whoever decodes with the types loses nothing

	// Of a request that was there already there is nothing left.
	code, body = get(t, addr, "/v1/explain?service=web&tried=n/good&key=alice")
	if code != 200 || json.Unmarshal([]byte(body), &doc) != nil || doc.Reason != "all_ejected" || doc.RetryAfterSeconds < 1 ||
		doc.WaitsForSlotSeconds != nil || !strings.Contains(body, `"out": "tried already"`) || strings.Contains(body, `"pick"`) {
		t.Errorf("%d %s", code, body)
	}
	f.lease(t)
	code, body = get(t, addr, "/v1/explain?service=web")
	if code != 200 || !strings.Contains(body, `"reason": "queue_timeout"`) || !strings.Contains(body, `"waits_for_slot_seconds": 0.05`) {
		t.Errorf("with all at their limits: %d %s", code, body)
	}
	if n := f.Status().Refused["queue_full"]; n != 1 || f.Status().Refused["all_ejected"] != 0 {
		t.Errorf("explaining counts as refusing: %v", f.Status().Refused)
	}
}

func TestExplainLast(t *testing.T) {
	t.Parallel()
	f := busyFleet(t)
	f.now += time.Second
	_, addr := start(t, Options{Now: clockAt(), Services: []Service{f.explained("web")}})
	code, body := get(t, addr, "/v1/explain?service=web&last=2")
	if code != 200 {
		t.Fatalf("%d %s", code, body)
	}
	first, older := f.Decisions(2)[0], f.Decisions(2)[1]
	want := fmt.Sprintf(`{"service":"web","time":"2026-07-01T12:00:00Z","decisions":[
	{"age_seconds":1.2,"endpoint":"n/good","address":"10.0.0.1:81","in_flight":1,"tries":0},
	{"age_seconds":1.22,"endpoint":%q,"address":%q,"in_flight":1,"tries":0}],
	"refusals":[{"age_seconds":1.2,"reason":"queue_full","retry_after_seconds":%d,"tries":0,"waiting":0,"endpoints":1}]}`,
		older.Endpoint, older.Addr, f.Denials(1)[0].RetryAfter)
	sameJSON(t, body, want)
	if first.Endpoint != "n/good" {
		t.Errorf("%+v", first)
	}
	f2 := newFleet(t, nil)
	_, addr = start(t, Options{Now: clockAt(), Services: []Service{f2.explained("web"), {Name: "mute", Status: f2.Status}}})
	for _, service := range []string{"web", "mute"} {
		_, body = get(t, addr, "/v1/explain?last=256&service="+service)
		sameJSON(t, body, `{"service":"`+service+`","time":"2026-07-01T12:00:00Z","decisions":[],"refusals":[]}`)
	}
	if code, body = get(t, addr, "/v1/explain?service=mute"); code != 404 || !strings.Contains(body, "cannot explain") {
		t.Errorf("%d %s", code, body)
	}
}

func TestExplainRefuses(t *testing.T) {
	t.Parallel()
	f := busyFleet(t)
	_, addr := start(t, Options{Services: []Service{f.explained("web"), f.explained("db\x1b")}})
	for query, want := range map[string]string{
		"":                               "400 service is missing: ask /v1/explain?service=NAME",
		"?service=":                      "400 service is missing",
		"?service=wbe":                   `404 there is no service "wbe"; known are: web, db`,
		"?service=web&service=db":        "400 service is there twice",
		"?service=web&last=0":            `400 last is "0", allowed are 1 to 256`,
		"?service=web&last=257":          `400 last is "257", allowed are 1 to 256`,
		"?service=web&last=":             `400 last is "", allowed are 1 to 256`,
		"?service=web&last=x":            `400 last is "x", allowed`,
		"?service=web&last=5&key=a":      "400 last lists what was decided",
		"?service=web&last=5&tried=a":    "400 last lists what was decided",
		"?service=web&trid=a":            `400 there is no parameter "trid"; allowed are service, key, hash, tried, top and last`,
		"?service=web&key=a&key=b":       "400 key is there twice",
		"?service=web&tried=n/good,n/no": `400 tried: service "web" has no endpoint "n/no"; /v1/status lists them`,
		"?a=1&b=2&c=3&d=4&e=5":           `400 there is no parameter "a"`, // each time the same
		"?service=web&last=5&hash=1":     "400 last lists what was decided",
		"?service=web&last=5&top=1":      "400 last lists what was decided",
		"?service=web&key=a&hash=1":      "400 key is hashed and hash is the result",
		"?service=web&hash=007x":         `400 hash is "007x", which is no number of 64 bits like 12345 or 0xff; a text is a key`,
		"?service=web&top=0":             `400 top is "0", allowed are 1 to 10000`,
		"?service=web&top=10001":         `400 top is "10001", allowed`,
		"?service=web&key=%zz":           "400 the query of the URL cannot be read",
		"?service=web;key=a":             "400 the query of the URL cannot be read",
	} {
		code, body := get(t, addr, "/v1/explain"+query)
		var doc ErrorDoc
		if err := json.Unmarshal([]byte(body), &doc); err != nil {
			t.Errorf("%s: %v in %s", query, err, body)
		}
		if got := fmt.Sprint(code, " ", doc.Error); !strings.HasPrefix(got, want) || strings.Contains(body, "\x1b") {
			t.Errorf("%s: %s, want %s", query, got, want)
		}
	}
	for _, method := range []string{"POST", "PUT", "DELETE", "OPTIONS"} {
		resp, _ := ask(t, method, addr, "/v1/explain?service=web", "")
		if resp.StatusCode != http.StatusMethodNotAllowed || !strings.Contains(resp.Header.Get("Allow"), "GET") {
			t.Errorf("%s: %d, Allow %q", method, resp.StatusCode, resp.Header.Get("Allow"))
		}
	}
	if resp, body := ask(t, "HEAD", addr, "/v1/explain?service=web", ""); resp.StatusCode != 200 || body != "" {
		t.Errorf("HEAD: %d %q", resp.StatusCode, body)
	}
	if resp, _ := ask(t, "GET", addr, "/v1/explain?service=web", "evil.example"); resp.StatusCode != http.StatusMisdirectedRequest {
		t.Errorf("by another name: %d", resp.StatusCode)
	}
	if _, body := get(t, addr, "/"); !strings.Contains(body, "/v1/explain?service=NAME") {
		t.Errorf("the index does not tell:\n%s", body)
	}
}

// FuzzExplain: any query gets an answer in JSON that a terminal can show.
func FuzzExplain(f *testing.F) {
	for _, q := range []string{"service=web", "service=web&key=a&tried=n/good", "service=web&last=3", "last=%00", "service=web&tried=,,", "&&=;", "service=web&hash=0x1&top=7"} {
		f.Add(q)
	}
	fl := &fleet{now: time.Second}
	b, err := balance.New(balance.DefaultConfig(), balance.Env{
		Now: func() time.Duration { return fl.now }, Rand: func(uint32) uint32 { return 0 },
	})
	if err != nil {
		f.Fatal(err)
	}
	fl.Balancer = b
	s, err := New(DefaultConfig(), Options{Services: []Service{fl.explained("web")}})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, query string) {
		w := &recorder{header: http.Header{}}
		s.explain(w, &http.Request{Method: "GET", URL: &url.URL{RawQuery: query}})
		var doc map[string]any
		if err := json.Unmarshal(w.body, &doc); err != nil {
			t.Fatalf("%q: %v in %q", query, err, w.body)
		}
		if w.status != 200 && doc["error"] == "" || w.status == 500 {
			t.Errorf("%q: %d %s", query, w.status, w.body)
		}
	})
}

type recorder struct {
	header http.Header
	status int
	body   []byte
}

func (r *recorder) Header() http.Header         { return r.header }
func (r *recorder) WriteHeader(status int)      { r.status = status }
func (r *recorder) Write(b []byte) (int, error) { r.body = append(r.body, b...); return len(b), nil }

// shadowed is a fleet with a shadow that has something to say.
func shadowed(t *testing.T) *fleet {
	t.Helper()
	f := newFleet(t, func(c *balance.Config) { c.Picker.Policy, c.Shadow.Policy = "round_robin", "least_conn" })
	f.Update([]discovery.Instance{instance("n/a", 81), instance("n/b", 82)})
	for range 10 {
		l := f.lease(t)
		f.now += 10 * time.Millisecond
		l.Done(picker.Result{FirstByte: 10 * time.Millisecond})
	}
	for range 3 {
		f.lease(t)
	}
	return f
}

func TestShadowIsTold(t *testing.T) {
	t.Parallel()
	f := shadowed(t)
	sh := f.Status().Shadow
	if sh.Picks != 13 || sh.Disagreed == 0 || sh.Predicted == 0 {
		t.Fatalf("%+v", sh)
	}
	_, addr := start(t, Options{Now: clockAt(), Services: []Service{f.explained("web")}})
	var doc StatusDoc
	_, body := get(t, addr, "/v1/status")
	if err := json.Unmarshal([]byte(body), &doc); err != nil {
		t.Fatal(err)
	}
	gain, share, _ := sh.Gain()
	got := doc.Services[0].Shadow
	if got == nil || got.Policy != "least_conn" || got.Mode != sh.Mode || got.PicksTotal != sh.Picks || got.DisagreedTotal != sh.Disagreed ||
		got.NoneTotal != sh.None || got.PredictedTotal != sh.Predicted || got.PredictedPolicySecondsTotal != sh.PolicySeconds ||
		got.PredictedShadowSecondsTotal != sh.ShadowSeconds || *got.GainSeconds != gain || *got.GainShare != share {
		t.Errorf("%+v, want %+v", got, sh)
	}
	series := scrape(t, addr)
	for name, want := range map[string]float64{
		`outrigger_service_shadow_info{policy="least_conn",service="web"}`:            1,
		`outrigger_service_shadow_picks_total{service="web"}`:                         float64(sh.Picks),
		`outrigger_service_shadow_disagreed_total{service="web"}`:                     float64(sh.Disagreed),
		`outrigger_service_shadow_none_total{service="web"}`:                          0,
		`outrigger_service_shadow_predicted_picks_total{service="web"}`:               float64(sh.Predicted),
		`outrigger_service_shadow_predicted_seconds_total{by="policy",service="web"}`: sh.PolicySeconds,
		`outrigger_service_shadow_predicted_seconds_total{by="shadow",service="web"}`: sh.ShadowSeconds,
	} {
		if got, ok := series[name]; !ok || got != want {
			t.Errorf("%s is %v, %v; want %v", name, got, ok, want)
		}
	}
	var x ExplainDoc
	_, body = get(t, addr, "/v1/explain?service=web")
	if err := json.Unmarshal([]byte(body), &x); err != nil {
		t.Fatal(err)
	}
	if x.Shadow == nil || x.Shadow.Name != "least_conn" || x.Shadow.Pick == "" || len(x.Shadow.Candidates) != 2 || x.Policy.Name != "round_robin" ||
		x.Policy.Candidates[0].PredictedSeconds == nil {
		t.Errorf("%s", body)
	}
	if _, body = get(t, addr, "/v1/explain?service=web&last=1"); !strings.Contains(body, `"shadow_differs": `) {
		t.Errorf("%s", body)
	}
	// Without a shadow there is nothing of it.
	_, addr = start(t, Options{Services: []Service{busyFleet(t).explained("web")}})
	for name := range scrape(t, addr) {
		if strings.Contains(name, "shadow") {
			t.Errorf("%s without a shadow", name)
		}
	}
}

// TestExplainForetoldWait: absent where the policy cannot tell, and 0 is a 0.
func TestExplainForetoldWait(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		c    balance.Candidate
		want string
	}{
		{balance.Candidate{}, ""},
		{balance.Candidate{Foretells: true}, `"foretold_wait_seconds":0,`},
		{balance.Candidate{Foretells: true, Foretold: 1500 * time.Microsecond}, `"foretold_wait_seconds":0.0015,`},
		{balance.Candidate{Foretells: true, Foretold: math.MaxInt64}, `"foretold_wait_seconds":9223372036.854776,`},
	} {
		body, err := json.Marshal(describeCandidate(&c.c))
		if err != nil {
			t.Fatal(err)
		}
		if got := string(body); strings.Contains(got, "foretold") != (c.want != "") || !strings.Contains(got, c.want) {
			t.Errorf("%v: %s, want %s", c.c.Foretold, got, c.want)
		}
	}
	f := newFleet(t, func(c *balance.Config) { c.Picker.Policy = "resource" })
	f.Update([]discovery.Instance{instance("n/a", 81), instance("n/b", 82)})
	_, addr := start(t, Options{Services: []Service{f.explained("web")}})
	if code, body := get(t, addr, "/v1/explain?service=web"); code != 200 || strings.Count(body, `"foretold_wait_seconds": 0`) != 2 {
		t.Errorf("%d %s", code, body)
	}
}
