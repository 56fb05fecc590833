package e2e

import (
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"outrigger/sidecar/admin"
)

// A shadow picks beside the policy and changes nothing. Here it never takes one
// of two backends, whose agent watches a port that nobody listens on; so what it
// would do otherwise is known to the request.
func TestShadow(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("takes Linux: an agent samples nothing elsewhere")
	}
	all := startBackends(t, "a", "b")
	a := all[0]
	silent := freePort(t)
	name, _ := registerWithAgents(t, func(b *backend) string {
		port := b.port
		if b == a {
			port = silent
		}
		return fmt.Sprintf("pid = %d\nport = %d", b.proc.PID(), port)
	}, all...)
	discover := fmt.Sprintf("discover { service = %q }\nslow_start = \"0s\"\nshadow \"resource\" {}\n", name)
	s := startSidecar(t, sidecarSpec{services: []block{
		{"counts", discover + `policy "least_conn" {}`},
		{"turns", discover + `policy "round_robin" {}`},
	}})
	for service := range s.addrs {
		s.awaitFigures(service, all...)
		s.awaitService(service, "a not to listen", func(doc admin.ServiceDoc) bool { return !figuresOf(doc, a).Listening })
	}
	if by := getMany(t, s.addrs["turns"], 60); by["a"] != 30 {
		t.Errorf("round robin beside a shadow that takes b alone: answers %v, want 30 of each", by)
	}
	shadowCounted(t, s, "turns", a, 60)

	a.sleep(40 * time.Millisecond)
	all[1].sleep(10 * time.Millisecond)
	load := startLoad(t, loadSpec{addr: s.addrs["counts"], clients: 8})
	load.awaitMore(300)
	saw := load.stop()
	saw.clean(t)
	s.awaitIdle("counts")
	// As least_conn does: each backend has half of what is in flight, so a, which
	// takes four times as long, has about a fifth of all.
	if share := shareOf(a, tally{}, saw); share < 0.05 || share > 0.45 {
		t.Errorf("a gave %.0f %% of the answers, want about 20", 100*share)
	}
	sh := shadowCounted(t, s, "counts", a, uint64(saw.ok))
	if sh.GainSeconds == nil || *sh.GainSeconds <= 0 || *sh.GainShare <= 0 || *sh.GainShare >= 1 || sh.PredictedTotal == 0 {
		t.Errorf("%+v, want a gain predicted, for all of the slower backend's would go to the faster one", sh)
	} else {
		t.Logf("predicted to be sooner by %v s, %.0f %%", *sh.GainSeconds, 100**sh.GainShare)
	}

	out, _, _ := outrigger(t, "status", "-addr", s.admin)
	if want := fmt.Sprintf("%d picks compared, ", sh.PicksTotal); !strings.Contains(out, want) || !strings.Contains(out, " would differ") {
		t.Errorf("the status lacks %q:\n%s", want, out)
	}
	if out = s.explain("counts"); !strings.Contains(out, "beside it, without effect, resource: ") || !strings.Contains(out, "sees nobody listen") {
		t.Errorf("explain does not show the shadow's part:\n%s", out)
	}
}

// shadowCounted checks that the shadow was compared for each of n requests and
// disagreed on those that went to a, and no others.
func shadowCounted(t *testing.T, s *sidecar, service string, a *backend, n uint64) admin.ShadowDoc {
	t.Helper()
	s.awaitIdle(service)
	doc := s.service(service)
	var toA uint64
	for _, e := range doc.Endpoints {
		if e.Address == a.addr() {
			toA = e.RequestsTotal
		}
	}
	sh := doc.Shadow
	if sh == nil {
		t.Fatalf("the status of %s has no shadow", service)
	}
	if sh.Policy != "resource" || sh.PicksTotal != n || sh.DisagreedTotal != toA || sh.NoneTotal != 0 {
		t.Errorf("%s: %+v, want %d picks compared and %d disagreed on, as many as went to a", service, *sh, n, toA)
	}
	series := s.metrics()
	for what, want := range map[string]float64{
		"picks_total": float64(n), "disagreed_total": float64(toA), "none_total": 0, "predicted_picks_total": float64(sh.PredictedTotal),
	} {
		metric := fmt.Sprintf("outrigger_service_shadow_%s{service=%q}", what, service)
		if got, ok := series[metric]; !ok || got != want {
			t.Errorf("/metrics: %s is %v (there: %v), want %v", metric, got, ok, want)
		}
	}
	return *sh
}
