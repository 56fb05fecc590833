package agentstats

import (
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
)

// TestAgentCounts: what an agent does shows in its own metrics.
func TestAgentCounts(t *testing.T) {
	s := &scripted{r: Report{Cores: Some(2.0), Listening: Some(true)}}
	a := scriptedAgent(s, new(log).logger())
	a.guard = newGuard("a-token-of-some-length")
	m, err := a.metrics()
	if err != nil {
		t.Fatal(err)
	}
	a.routes = append(a.routes, route{"GET " + MetricsPath, m})
	addr := runAgent(t, a)
	get := func(path, token string) (int, string) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), "GET", "http://"+addr+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		if token != "" {
			req.Header.Set("Authorization", bearer(token))
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, string(body)
	}
	if status, _ := get(ReportPath, "another-token-of-length"); status != 401 {
		t.Errorf("a wrong token: %d", status)
	}
	for range 3 {
		if status, _ := get(ReportPath, "a-token-of-some-length"); status != 200 {
			t.Errorf("the right token: %d", status)
		}
	}
	if status, _ := get(MetricsPath, ""); status != 401 {
		t.Errorf("metrics without a token: %d", status)
	}
	for end := time.Now().Add(5 * time.Second); ; time.Sleep(10 * ms) {
		_, text := get(MetricsPath, "a-token-of-some-length")
		missing := ""
		for _, want := range []string{"outrigger_agent_polls_total 3\n", "outrigger_agent_requests_unauthorized_total 2\n",
			"outrigger_agent_cpu_limit_cores 2\n", "outrigger_agent_samples_failed_total 0\n"} {
			if !strings.Contains(text, want) {
				missing += want
			}
		}
		if missing == "" {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("missing:\n%s in\n%s", missing, text)
		}
	}
}
