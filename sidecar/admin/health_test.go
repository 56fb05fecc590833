package admin

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"outrigger/discovery"
	"outrigger/sidecar/balance"
)

// TestPanicAndDampingShow: with a real balancer of which too few endpoints are well,
// one of them for falling too often.
func TestPanicAndDampingShow(t *testing.T) {
	t.Parallel()
	f := newFleet(t, nil)
	set := []discovery.Instance{instance("n/1", 81), instance("n/2", 82), instance("n/3", 83), instance("n/4", 84)}
	set[3].Health = discovery.Maintenance
	for range 6 { // up and down and up again
		for _, h := range []discovery.Health{discovery.Passing, discovery.Critical} {
			set[0].Health = h
			f.Update(append([]discovery.Instance(nil), set...))
		}
	}
	set[0].Health, set[1].Health = discovery.Passing, discovery.Critical
	f.Update(set)
	_, addr := start(t, Options{Services: []Service{{Name: "web", Status: f.Status}}})
	_, body := get(t, addr, "/v1/status")
	var doc any
	if err := json.Unmarshal([]byte(body), &doc); err != nil {
		t.Fatal(err)
	}
	st := f.Status()
	if !st.Panic || st.Endpoints[0].Damped <= 0 {
		t.Fatalf("the fleet is not as it should be: %+v", st)
	}
	share, err := json.Marshal(1.0 / 3)
	if err != nil {
		t.Fatal(err)
	}
	num := func(v float64) string {
		text, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	for want, path := range map[string][]any{
		string(share): {"panic_healthy_share"}, "true": {"panic"}, "3": {"endpoints_listed"},
		num(st.Endpoints[0].Damped.Seconds()): {"endpoints", 0, "damped_for_seconds"},
		num(st.Endpoints[0].Flaps):            {"endpoints", 0, "flaps"},
		num(float64(st.Endpoints[0].Falls)):   {"endpoints", 0, "falls_total"},
		`"damped"`:                            {"endpoints", 0, "despite"},
		`"critical"`:                          {"endpoints", 1, "despite"},
		"absent":                              {"endpoints", 2, "despite"},
	} {
		if got := part(t, doc, append([]any{"services", 0}, path...)...); got != want {
			t.Errorf("%v is %s, want %s", path, got, want)
		}
	}
	series := scrape(t, addr)
	for name, want := range map[string]float64{
		`service_panic{service="web"}`: 1, `service_panics_total{service="web"}`: float64(st.Panics),
		`service_endpoints_listed{service="web"}`: 3, `service_endpoints_healthy{service="web"}`: 1,
		`endpoint_damped_seconds{endpoint="n/1",service="web"}`: st.Endpoints[0].Damped.Seconds(),
		`endpoint_flaps_total{endpoint="n/1",service="web"}`:    float64(st.Endpoints[0].Falls),
		`endpoint_flaps_total{endpoint="n/3",service="web"}`:    0,
	} {
		if got, is := series[prefix+name]; !is || got != want {
			t.Errorf("%s is %v (there: %t), want %v", name, got, is, want)
		}
	}
	if v, is := series[`outrigger_endpoint_damped_seconds{endpoint="n/3",service="web"}`]; is {
		t.Errorf("one that is not damped has %v s to go", v)
	}
}

// TestLittleOfHealth: where nothing is listed there is no share of it.
func TestLittleOfHealth(t *testing.T) {
	t.Parallel()
	sv := Service{Name: "web", Status: func() balance.Status {
		return balance.Status{Endpoints: []balance.EndpointStatus{{Instance: instance("n/1", 80), Damped: -time.Second}}}
	}}
	doc := sv.describe()
	if e := doc.Endpoints[0]; doc.PanicHealthyShare != nil || e.Flaps != nil || e.DampedForSeconds != nil {
		t.Errorf("%+v", doc)
	}
}

// TestTiersShow: by the names that the fallbacks have.
func TestTiersShow(t *testing.T) {
	t.Parallel()
	e := []balance.EndpointStatus{{Instance: instance("n/1", 80)}, {Instance: instance("@dr/n/1", 80)}, {Instance: instance("@x/n/1", 80)}}
	e[1].Instance.Tier, e[2].Instance.Tier = 1, 3
	d := liar()
	sv := Service{Name: "web", Discovery: func() discovery.Status { return d }, Status: func() balance.Status {
		return balance.Status{Tier: 1, TierFor: 5 * time.Second, Failovers: 2, Endpoints: e}
	}}
	doc := sv.describe()
	if doc.Tier != "dr" || *doc.TierForSeconds != 5 || doc.FailoversTotal != 2 ||
		doc.Endpoints[0].Tier != "" || doc.Endpoints[1].Tier != "dr" || doc.Endpoints[2].Tier != "fallback 3" {
		t.Errorf("%+v", doc)
	}
	_, addr := start(t, Options{Services: []Service{sv}})
	series := scrape(t, addr)
	for name, want := range map[string]float64{
		`service_tier{name="primary",service="web"}`: 0, `service_tier{name="dr",service="web"}`: 1,
		`service_tier{name="last",service="web"}`: 0, `service_failovers_total{service="web"}`: 2,
	} {
		if got, is := series[prefix+name]; !is || got != want {
			t.Errorf("%s is %v (there: %t), want %v", name, got, is, want)
		}
	}
	d.Fallbacks = nil
	if doc := sv.describe(); doc.Tier != "" || doc.TierForSeconds != nil {
		t.Errorf("without a fallback: %+v", doc)
	}
	for name := range scrape(t, addr) {
		if strings.Contains(name, "service_tier") {
			t.Errorf("without a fallback there is %s", name)
		}
	}
}
