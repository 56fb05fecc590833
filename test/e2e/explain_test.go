package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"outrigger/sidecar/admin"
)

// explain runs `outrigger explain`, which must succeed.
func (s *sidecar) explain(args ...string) string {
	s.t.Helper()
	out, stderr, status := outrigger(s.t, append(append([]string{"explain"}, args...), "-addr", s.admin)...)
	if status != 0 || stderr != "" {
		s.t.Fatalf("explain %v: exit status %d, %s", args, status, stderr)
	}
	return out
}

// explainJSON decodes what explain -json says, which must be all of doc's.
func (s *sidecar) explainJSON(doc any, args ...string) {
	s.t.Helper()
	out := s.explain(append(args, "-json")...)
	d := json.NewDecoder(strings.NewReader(out))
	d.DisallowUnknownFields()
	if err := d.Decode(doc); err != nil {
		s.t.Fatalf("explain %v: %v in\n%s", args, err, out)
	}
}

func TestExplain(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("takes Linux: an agent samples nothing elsewhere")
	}
	all := startBackends(t, "a", "b")
	name, _ := registerWithAgents(t, byPort, all...)
	discover := fmt.Sprintf("discover { service = %q }\n", name)
	s := startSidecar(t, sidecarSpec{services: []block{
		{"resource", discover + `policy "resource" {}`},
		{"small", discover + "capacity {\n max_in_flight = 1\n queue { length = 0 }\n}"},
		{"none", fmt.Sprintf("discover { service = %q }", uniqueService(t))},
	}})
	s.awaitFigures("resource", all...)
	for _, b := range all {
		b.sleep(20 * time.Millisecond)
	}
	load := startLoad(t, loadSpec{addr: s.addrs["resource"], clients: 4})
	load.awaitFrom(all[0], 20)
	load.awaitFrom(all[1], 20)
	load.stop().clean(t)
	t.Run("Pick", func(t *testing.T) { explainPick(t, s, all) })
	t.Run("Last", func(t *testing.T) { explainLast(t, s, all) })
	t.Run("AtLimit", func(t *testing.T) { explainAtLimit(t, s, all) })
	t.Run("NoBackends", func(t *testing.T) { explainNoBackends(t, s) })
	t.Run("Wrong", func(t *testing.T) { explainWrong(t, s) })
}

// explainPick checks what is said of a pick by agents' figures.
func explainPick(t *testing.T, s *sidecar, all []*backend) {
	var doc admin.ExplainDoc
	s.explainJSON(&doc, "resource")
	if doc.Policy.Name != "resource" || doc.Pick == "" || doc.Pick != doc.Policy.Pick || doc.Reason != "" || len(doc.Policy.Candidates) != 2 {
		t.Fatalf("%+v, want a pick among two candidates", doc)
	}
	var share float64
	for i, c := range doc.Policy.Candidates {
		if c.Picked != (c.ID == doc.Pick) || c.Out != "" || c.Share == nil || c.Score == nil || *c.Score <= 0 || c.LatencySeconds == nil {
			t.Fatalf("%s: %+v, want a share, a score and a latency", c.ID, c)
		}
		if share += *c.Share; i > 0 && *c.Score < *doc.Policy.Candidates[i-1].Score {
			t.Errorf("%s with the score %v comes behind one with a higher one", c.ID, *c.Score)
		}
		if c.FiguresAgeSeconds == nil || c.FiguresExpired || *c.FiguresAgeSeconds > 10 {
			t.Errorf("%s: figures of age %v, expired: %v; want fresh ones", c.ID, c.FiguresAgeSeconds, c.FiguresExpired)
		}
		for name, low := range map[string]float64{
			"n": 0, "capacity_cores": 0.001, "slowness": 0.7, "health": 0.001, "pace_ms": 1, "pace_samples": 1, "freshness": 1,
		} {
			if got := termOf(&c, name); !(got >= low) {
				t.Errorf("%s: term %s is %v, want at least %v", c.ID, name, got, low)
			}
		}
	}
	if math.Abs(share-1) > 1e-6 {
		t.Errorf("the shares sum up to %v, want 1", share)
	}
	text := s.explain("resource")
	for _, want := range []string{
		"resource by resource: requests per free capacity", "a pick made now took ", "slowness", "capacity_cores", "health",
		"SCORE", "SHARE", "LATENCY", "FIGURES", all[0].addr(), all[1].addr(), doc.Policy.Candidates[0].ID,
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the text lacks %q:\n%s", want, text)
		}
	}
	if strings.Contains(text, "expired") {
		t.Errorf("fresh figures are said to have expired:\n%s", text)
	}
	if api := get(t, s.admin, "/v1/explain?service=resource"); api.status != 200 || !bytes.Contains(api.body, []byte(`"slowness"`)) {
		t.Errorf("/v1/explain: %d %s", api.status, api.body)
	}
}

// termOf returns a term of a candidate's score, NaN without a known one.
func termOf(c *admin.CandidateDoc, name string) float64 {
	for _, t := range c.Terms {
		if t.Name == name && t.Value != nil {
			return *t.Value
		}
	}
	return math.NaN()
}

// explainLast checks that decisions are listed as they were made.
func explainLast(t *testing.T, s *sidecar, all []*backend) {
	var answered []string // newest first
	c := &client{addr: s.addrs["small"]}
	defer c.close()
	for range 20 {
		r, err := c.get("/")
		if err != nil || r.status != 200 {
			t.Fatal(r.status, err)
		}
		for _, b := range all {
			if b.name == r.header.Get("X-Backend") {
				answered = slices.Insert(answered, 0, b.addr())
			}
		}
	}
	var doc admin.LastDoc
	s.explainJSON(&doc, "small", "-last", "20")
	var listed []string
	for i, d := range doc.Decisions {
		if listed = append(listed, d.Address); d.InFlight != 1 || d.Tries != 0 || d.Queued || d.Pinned || d.Panic || d.ShadowDiffers != nil {
			t.Errorf("decision %d: %+v, want a plain first try", i, d)
		}
		if d.AgeSeconds < 0 || i > 0 && d.AgeSeconds < doc.Decisions[i-1].AgeSeconds {
			t.Errorf("decision %d has the age %v, want the newest first", i, d.AgeSeconds)
		}
	}
	if !slices.Equal(listed, answered) || len(doc.Refusals) != 0 {
		t.Errorf("the decisions are %v, the answers came from %v; refusals %v, want none", listed, answered, doc.Refusals)
	}
	text := s.explain("small", "-last", "20")
	for _, b := range all {
		if n := strings.Count(strings.Join(answered, " "), b.addr()); strings.Count(text, b.addr()) != n || !strings.Contains(text, "the last 20 requests sent") {
			t.Errorf("the text does not list 20 decisions, %d of them for %s:\n%s", n, b.addr(), text)
		}
	}
}

// explainAtLimit checks what is said when everyone is at its limit, before and
// after a client was told so.
func explainAtLimit(t *testing.T, s *sidecar, all []*backend) {
	held := []*pending{send(s.addrs["small"], "/hold"), send(s.addrs["small"], "/hold")}
	all[0].awaitHeld(1)
	all[1].awaitHeld(1)
	var doc admin.ExplainDoc
	s.explainJSON(&doc, "small")
	if doc.Reason != "saturated" || doc.RetryAfterSeconds < 1 || doc.Pick != "" {
		t.Errorf("%+v, want 503 saturated and no pick", doc)
	}
	for _, c := range doc.Policy.Candidates {
		if c.Out != "at its limit of 1" || c.InFlight != 1 || c.Limit == nil || *c.Limit != 1 {
			t.Errorf("%s is out because %q, in flight %d of %v; want at its limit of 1", c.ID, c.Out, c.InFlight, c.Limit)
		}
	}
	if text := s.explain("small"); !strings.Contains(text, "a request made now would get 503 saturated, Retry-After: ") || !strings.Contains(text, "at its limit of 1") {
		t.Errorf("the text does not tell of the 503:\n%s", text)
	}
	if got := s.service("small").RefusedTotal["saturated"]; got != 0 {
		t.Errorf("to be asked to explain counts as %d refusals", got)
	}
	told := get(t, s.addrs["small"], "/")
	if err := refusal(told, "saturated"); err != nil {
		t.Fatal(err)
	}
	s.listsRefusal(t, "small", told)
	for i, p := range held {
		all[i].release()
		defer p.answer(t)
	}
}

func explainNoBackends(t *testing.T, s *sidecar) {
	var doc admin.ExplainDoc
	s.explainJSON(&doc, "none")
	if doc.Reason != "no_backends" || doc.RetryAfterSeconds < 1 || len(doc.Policy.Candidates) != 0 {
		t.Errorf("%+v, want 503 no_backends without candidates", doc)
	}
	told := get(t, s.addrs["none"], "/")
	if err := refusal(told, "no_backends"); err != nil {
		t.Fatal(err)
	}
	s.listsRefusal(t, "none", told)
}

// listsRefusal checks that the service's only 503 is listed as the client got it.
func (s *sidecar) listsRefusal(t *testing.T, service string, told reply) {
	t.Helper()
	reason := told.header.Get("Outrigger-Reason")
	after, err := strconv.Atoi(told.header.Get("Retry-After"))
	if err != nil {
		t.Fatal(err)
	}
	var doc admin.LastDoc
	s.explainJSON(&doc, service, "-last", "20")
	if len(doc.Refusals) != 1 || doc.Refusals[0].Reason != reason || doc.Refusals[0].RetryAfterSeconds != after || doc.Refusals[0].Queued {
		t.Errorf("%s: listed is %+v, want the one 503 %s with Retry-After %d", service, doc.Refusals, reason, after)
	}
	text := s.explain(service, "-last", "20")
	if _, refusals, ok := strings.Cut(text, "the last 1 own 503s"); !ok || !strings.Contains(refusals, reason) {
		t.Errorf("%s: the text does not list the 503 %s:\n%s", service, reason, text)
	}
}

func explainWrong(t *testing.T, s *sidecar) {
	for _, bad := range []struct {
		args   []string
		status int
		says   string
	}{
		{[]string{"explain"}, 2, "which service?"},
		{[]string{"explain", "nope", "-addr", s.admin}, 1, "small"},
		{[]string{"explain", "small", "-last", "0", "-addr", s.admin}, 2, "1 to 256"},
		{[]string{"explain", "small", "-tried", "nope", "-addr", s.admin}, 1, "nope"},
	} {
		out, stderr, status := outrigger(t, bad.args...)
		if status != bad.status || out != "" || !strings.Contains(stderr, bad.says) {
			t.Errorf("%v: exit status %d, stdout %q, stderr %q; want status %d and %q", bad.args, status, out, stderr, bad.status, bad.says)
		}
	}
}
