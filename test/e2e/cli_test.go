package e2e

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"outrigger/sidecar/admin"
)

// outrigger runs a command to its end.
func outrigger(t *testing.T, args ...string) (stdout, stderr string, status int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), slack(time.Minute))
	defer cancel()
	cmd := exec.CommandContext(ctx, suite.outrigger, args...)
	var out, err bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &err
	var exit *exec.ExitError
	if e := cmd.Run(); e != nil && !errors.As(e, &exit) {
		t.Fatalf("outrigger %v: %v", args, e)
	}
	return out.String(), err.String(), cmd.ProcessState.ExitCode()
}

func TestCheckGoodConfig(t *testing.T) {
	t.Parallel()
	s := configure(t, sidecarSpec{services: []block{
		{"web", `policy "round_robin" {}`}, {"api", `timeouts { connect = "250ms" }`},
	}})
	out, stderr, status := outrigger(t, "check", "-config", s.dir)
	if status != 0 || stderr != "" {
		t.Fatalf("exit status %d, stderr %q", status, stderr)
	}
	for _, want := range []string{
		`service "web"`, `service "api"`, s.addrs["web"], `policy "round_robin"`, "250ms", `"5s"`,
		`policy "least_conn"`, "max_in_flight", "first_byte", "empty_confirm", // defaults
	} {
		if !strings.Contains(out, want) {
			t.Errorf("the effective configuration lacks %s:\n%s", want, out)
		}
	}
	// What is printed is a configuration that means the same.
	s.write("effective.hcl", out)
	again, stderr, status := outrigger(t, "check", "-config", filepath.Join(s.dir, "effective.hcl"))
	if status != 0 || again != out {
		t.Errorf("the effective configuration checked again: status %d, %s, and it prints\n%s\ninstead of\n%s", status, stderr, again, out)
	}
}

func TestCheckBadConfig(t *testing.T) {
	t.Parallel()
	s := configure(t, sidecarSpec{services: []block{{"web", `
  capacity {
    max_inflight = 3
  }
  timeouts { connect = "soon" }`}}})
	s.write("other.hcl", "service \"api\" {\n  polcy \"least_conn\" {}\n}\n")
	for _, command := range []string{"check", "sidecar"} {
		out, stderr, status := outrigger(t, command, "-config", s.dir)
		if status != 1 || out != "" {
			t.Errorf("outrigger %s: exit status %d, want 1; stdout %q, want none", command, status, out)
		}
		for _, want := range []string{
			filepath.Join(s.dir, "web.hcl") + ":5:", "max_inflight = 3", `Did you mean "max_in_flight"`,
			filepath.Join(s.dir, "web.hcl") + ":7:", `"soon"`,
			filepath.Join(s.dir, "other.hcl") + ":2:", `Did you mean "policy"`,
			"listen", // service "api" has none
		} {
			if !strings.Contains(stderr, want) {
				t.Errorf("outrigger %s: the errors lack %q:\n%s", command, want, stderr)
			}
		}
	}
	if _, stderr, status := outrigger(t, "check"); status != 2 || !strings.Contains(stderr, "-config") {
		t.Errorf("check without -config: status %d, want 2; %s", status, stderr)
	}
	if _, stderr, status := outrigger(t, "check", "-config", filepath.Join(s.dir, "none.hcl")); status != 1 || !strings.Contains(stderr, "none.hcl") {
		t.Errorf("check of a file that is not there: status %d, want 1; %s", status, stderr)
	}
}

// A port that is taken shows at once, with its reason.
func TestSidecarPortTaken(t *testing.T) {
	t.Parallel()
	a := startBackend(t, "a")
	s := configure(t, sidecarSpec{})
	s.write("web.hcl", fmt.Sprintf("service \"web\" { listen = %q }\n", a.addr()))
	_, stderr, status := outrigger(t, "sidecar", "-config", s.dir)
	if status != 1 || !strings.Contains(stderr, a.addr()) || !strings.Contains(stderr, "address already in use") {
		t.Errorf("status %d, want 1; %s", status, stderr)
	}
}

func TestStatusCommand(t *testing.T) {
	t.Parallel()
	cat, name := sharedCatalog(t), uniqueService(t)
	all := startBackends(t, "a", "b")
	idA := cat.register(name, all[0], withTTL)
	cat.register(name, all[1])
	s := startSidecar(t, sidecarSpec{services: oneService(name, "")})
	s.awaitReady(2)
	getMany(t, s.addr(), 7)
	cat.setTTL(idA, "critical")
	s.awaitEndpoint(idA, "critical", notReady)

	out, stderr, status := outrigger(t, "status", "-addr", s.admin)
	if status != 0 || stderr != "" {
		t.Fatalf("exit status %d, stderr %q", status, stderr)
	}
	for _, want := range []string{"web", "least_conn", s.addr(), all[0].addr(), all[1].addr(), idA, "critical"} {
		if !strings.Contains(out, want) {
			t.Errorf("the table lacks %q:\n%s", want, out)
		}
	}
	if regexp.MustCompile(`[^\n[:print:]]`).FindString(strings.ToValidUTF8(out, "")) == "\x1b" {
		t.Errorf("the table has escape sequences though this is no terminal:\n%q", out)
	}
	if _, stderr, status := outrigger(t, "status", "-addr", s.admin, "-service", "nope"); status != 1 || !strings.Contains(stderr, "web") {
		t.Errorf("status of an unknown service: status %d, want 1 and the known ones; %s", status, stderr)
	}
	if _, stderr, status := outrigger(t, "status", "-addr", loopback(freePort(t))); status != 1 || stderr == "" {
		t.Errorf("status of no sidecar: status %d, want 1 and a reason; %s", status, stderr)
	}
}

// metrics scrapes /metrics: values by series, as in `name{label="value"}`.
func (s *sidecar) metrics() map[string]float64 {
	s.t.Helper()
	r := get(s.t, s.admin, "/metrics")
	if r.status != 200 {
		s.t.Fatalf("/metrics: %d %s", r.status, r.body)
	}
	all := map[string]float64{}
	lines := bufio.NewScanner(bytes.NewReader(r.body))
	for lines.Scan() {
		series, value, ok := cutLast(lines.Text(), " ")
		if strings.HasPrefix(series, "#") || !ok {
			continue
		}
		v, err := strconv.ParseFloat(value, 64)
		if err != nil {
			s.t.Fatalf("/metrics has the line %q: %v", lines.Text(), err)
		}
		all[series] = v
	}
	return all
}

func cutLast(s, sep string) (before, after string, ok bool) {
	if i := strings.LastIndex(s, sep); i >= 0 {
		return s[:i], s[i+len(sep):], true
	}
	return s, "", false
}

// Metrics and status count what was sent, no more and no less.
func TestTotals(t *testing.T) {
	t.Parallel()
	cat, name := sharedCatalog(t), uniqueService(t)
	all := startBackends(t, "a", "b")
	for _, b := range all {
		cat.register(name, b)
	}
	s := startSidecar(t, sidecarSpec{services: oneService(name, `policy "round_robin" {}`)})
	s.awaitReady(2)
	before := s.metrics()

	const n = 30
	getMany(t, s.addr(), n)
	all[0].control("/ctl/set?status=404")
	c := &client{addr: s.addr()}
	defer c.close()
	for range 10 {
		if _, err := c.get("/"); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := c.do("GET", "/bad path", ""); err != nil { // a blank in the target: 400, ours
		t.Fatal(err)
	}
	doc := s.awaitService("web", "all requests to be counted", func(doc admin.ServiceDoc) bool {
		return doc.Endpoints[0].RequestsTotal+doc.Endpoints[1].RequestsTotal >= n+10
	})
	for what, v := range map[string][2]uint64{
		"attempts":              {doc.AttemptsTotal, n + 10},
		"retries":               {doc.RetriesTotal, 0},
		"backend responses 2xx": {doc.Traffic.BackendResponsesTotal["2xx"], n + 5},
		"backend responses 4xx": {doc.Traffic.BackendResponsesTotal["4xx"], 5},
		"own responses 4xx":     {doc.Traffic.OwnResponsesTotal["4xx"], 1},
		"client errors":         {doc.Traffic.ClientErrorsTotal, 1},
		"connections":           {doc.Traffic.ConnectionsAcceptedTotal, 2},
		"requests of one":       {doc.Endpoints[0].RequestsTotal, (n + 10) / 2},
		"successes of one":      {doc.Endpoints[0].SuccessesTotal, (n + 10) / 2},
		"requests of other":     {doc.Endpoints[1].RequestsTotal, (n + 10) / 2},
		"failures":              {doc.Endpoints[0].FailuresTotal + doc.Endpoints[1].FailuresTotal, 0},
	} {
		if v[0] != v[1] {
			t.Errorf("status: %s %d, want %d", what, v[0], v[1])
		}
	}

	after := s.metrics()
	for series, want := range map[string]float64{
		`outrigger_service_attempts_total{service="web"}`:                     n + 10,
		`outrigger_backend_responses_total{class="2xx",service="web"}`:        n + 5,
		`outrigger_backend_responses_total{class="4xx",service="web"}`:        5,
		`outrigger_own_responses_total{class="4xx",service="web"}`:            1,
		`outrigger_client_errors_total{service="web"}`:                        1,
		`outrigger_service_refused_total{reason="saturated",service="web"}`:   0,
		`outrigger_request_duration_seconds_count{class="2xx",service="web"}`: n + 5,
	} {
		was, before := before[series]
		is, there := after[series]
		if !there {
			t.Errorf("/metrics lacks %s", series)
		} else if is-was != want {
			t.Errorf("/metrics: %s rose by %v (there before: %v), want %v", series, is-was, before, want)
		}
	}
	for series, want := range map[string]float64{
		`outrigger_service_endpoints_ready{service="web"}`: 2, `outrigger_discovery_current{service="web"}`: 1, `outrigger_ready`: 1,
	} {
		if got := after[series]; got != want {
			t.Errorf("/metrics: %s is %v, want %v", series, got, want)
		}
	}
	for _, e := range doc.Endpoints {
		series := fmt.Sprintf(`outrigger_endpoint_requests_total{endpoint=%q,outcome="success",service="web"}`, e.ID)
		if got := after[series]; got != float64(e.SuccessesTotal) {
			t.Errorf("/metrics: %s is %v, status says %d", series, got, e.SuccessesTotal)
		}
	}
}
