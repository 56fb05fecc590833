package main

import (
	"bytes"
	"context"
	"encoding/json"
	"strings"
	"testing"
	"time"
	"unicode"

	"outrigger/discovery"
	"outrigger/picker"
	"outrigger/sidecar/admin"
	"outrigger/sidecar/balance"
)

func explainRun(ctx context.Context, args ...string) (code int, out, errs string) {
	var o, e bytes.Buffer
	code = runExplain(ctx, args, streams{strings.NewReader(""), &o, &e})
	return code, o.String(), e.String()
}

func explainExample() *admin.ExplainDoc {
	return &admin.ExplainDoc{
		Service: "web", Pick: "n1/web-1",
		Policy: admin.PolicyDoc{
			Name: "resource", Rule: "lowest score of 8", Mode: "in-flight per available core", Pick: "n1/web-1",
			Candidates: []admin.CandidateDoc{
				{
					ID: "n2/web-2", Address: "10.0.0.2:80", Share: number(.25), Score: number(.5), Weight: 1, Ramp: .4, InFlight: 1,
					Terms:            []admin.TermDoc{{Name: "in_flight", Value: number(1.0)}, {Name: "cores", Value: number(1.98765)}, {Name: "others", Value: nil}, {Name: "ghosts", Value: number(0.0)}},
					LatencySeconds:   number(.0123),
					PredictedSeconds: number(.025),
				},
				{
					ID: "n1/web-1", Address: "10.0.0.1:80", Picked: true, Share: number(.75), Score: number(1.25), Weight: 3, Ramp: 1, InFlight: 3, Limit: number(1024),
					Terms:             []admin.TermDoc{{Name: "weight", Value: number(3.0)}, {Name: "cores", Value: number(2.0)}, {Name: "age_s", Value: number(.2)}, {Name: "ghosts", Value: number(0.0)}},
					FiguresAgeSeconds: number(.21),
				},
				{ID: "n3/web-3", Address: "[fd00::3]:80", Out: "ejected, back in 3.2 s", Weight: 10, Ramp: 1, FiguresAgeSeconds: number(90.0), FiguresExpired: true},
			},
		},
		Shadow: &admin.PolicyDoc{Name: "p2c", Rule: "weighted two choices", Mode: "weighted two choices"},
	}
}

const explainGolden = `web by resource: in-flight per available core
a pick made now took n1/web-1
rule: lowest score of 8
the same for all: ghosts 0
     ENDPOINT  ADDRESS       SCORE  SHARE  IN-FLIGHT  WEIGHT    cores  others  age_s  LATENCY  FIGURES        PREDICTED  OUT BECAUSE
     n2/web-2  10.0.0.2:80   0.5    25%    1          1 at 40%  1.988  -       -      12ms     -              25ms       
  >  n1/web-1  10.0.0.1:80   1.25   75%    3/1024     3         2      -       0.2    -        0.2s           -          
     n3/web-3  [fd00::3]:80  -      -      0          10        -      -       -      -        1m30s expired  -          ejected, back in 3.2 s

beside it, without effect, p2c: weighted two choices
a pick made now took none
`

func TestExplainTable(t *testing.T) {
	t.Parallel()
	if got := string(explainTable(explainExample())); got != explainGolden {
		t.Errorf("got\n%s\nwant\n%s", got, explainGolden)
	}
	for want, doc := range map[string]admin.ExplainDoc{
		"web by : , DRAINING\na request made now would get 503 draining, Retry-After: 1\n": {Service: "web", Draining: true, Reason: "draining", RetryAfterSeconds: 1},
		"web by : , PANIC: too few endpoints are healthy, so health is ignored\na request made now would wait for a slot, up to 50ms, and then get 503 queue_timeout, Retry-After: 3\n": {
			Service: "web", Panic: true, Reason: "queue_timeout", RetryAfterSeconds: 3, WaitsForSlotSeconds: number(.05)},
	} {
		if got := string(explainTable(&doc)); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

const lastGolden = `web, the last 3 requests sent, the newest first
  AGO    ENDPOINT    ADDRESS      IN-FLIGHT  TRIES BEFORE  HOW
  800µs  n1/web-1    10.0.0.1:80  3          0             
  12ms   n1/web-1    10.0.0.1:80  1          1             waited for a slot, pinned, shadow differs, has left since
  1m30s  (has left)  -            1          0             

web, the last 1 own 503s, the newest first
  AGO   REASON      RETRY-AFTER  TRIES BEFORE  WAITING  ENDPOINTS  HOW
  2.0s  queue_full  4            1             128      3          waited for a slot
`

func TestLastTable(t *testing.T) {
	t.Parallel()
	yes, no := true, false
	doc := &admin.LastDoc{
		Service: "web",
		Decisions: []admin.DecisionDoc{
			{AgeSeconds: .0008, Endpoint: "n1/web-1", Address: "10.0.0.1:80", InFlight: 3, ShadowDiffers: &no},
			{AgeSeconds: .012, Endpoint: "n1/web-1", Address: "10.0.0.1:80", InFlight: 1, Tries: 1, Left: true, Queued: true,
				Pinned: true, ShadowDiffers: &yes},
			{AgeSeconds: 90, InFlight: 1, Left: true},
		},
		Refusals: []admin.RefusalDoc{{AgeSeconds: 2, Reason: "queue_full", RetryAfterSeconds: 4, Tries: 1, Queued: true, Waiting: 128, Endpoints: 3}},
	}
	if got := string(lastTable(doc)); got != lastGolden {
		t.Errorf("got\n%s\nwant\n%s", got, lastGolden)
	}
	all := admin.DecisionDoc{Probe: true, Panic: true, Again: true, ShadowDiffers: &no}
	if got := how(&all); got != "probe, panic, tried again" {
		t.Errorf("got %q", got)
	}
	empty := "web, the last 0 requests sent, the newest first\n\nweb, the last 0 own 503s, the newest first\n"
	if got := string(lastTable(&admin.LastDoc{Service: "web"})); got != empty {
		t.Errorf("got\n%s", got)
	}
}

// FuzzExplainTable: whatever the other side says moves no cursor and adds no row.
func FuzzExplainTable(f *testing.F) {
	for _, s := range []string{"plain", "\x1b[2J", "a\nb", "a\tb", "\u202eevil", "\xff", strings.Repeat("x", 5000)} {
		f.Add(s)
	}
	lines := strings.Count(explainGolden, "\n")
	f.Fuzz(func(t *testing.T, s string) {
		doc := explainExample()
		doc.Service, doc.Pick, doc.Policy.Name, doc.Policy.Mode = s, s, s, s
		doc.Policy.Rule = s + "!"
		c := &doc.Policy.Candidates[0]
		c.ID, c.Address, c.Out, c.Terms[1].Name = s, s, s, s
		out := string(explainTable(doc))
		if n := strings.Count(out, "\n"); n != lines {
			t.Errorf("%d lines, want %d:\n%q", n, lines, out)
		}
		out += string(lastTable(&admin.LastDoc{Service: s, Decisions: []admin.DecisionDoc{{Endpoint: s, Address: s}}, Refusals: []admin.RefusalDoc{{Reason: s}}}))
		for _, r := range out {
			if r != '\n' && !unicode.IsPrint(r) {
				t.Fatalf("%U reaches the terminal in %q", r, out)
			}
		}
	})
}

// explainSidecar serves a real admin listener over a real balancer with a
// shadow, one request sent and one refused.
func explainSidecar(t *testing.T) string {
	t.Helper()
	cfg := balance.DefaultConfig()
	cfg.Service, cfg.Shadow.Policy = "web", "p2c"
	b, err := balance.New(cfg, balance.RealEnv(nil))
	if err != nil {
		t.Fatal(err)
	}
	b.Update([]discovery.Instance{
		{ID: "n/a\x1b[2J", Service: "web", Address: "10.0.0.1", Port: 80, Weight: 3},
		{ID: "n/b", Service: "web", Address: "10.0.0.2", Port: 80, Weight: 1, Health: discovery.Critical},
	})
	l, err := b.TryAcquire(balance.Key{})
	if err != nil {
		t.Fatal(err)
	}
	l.Done(picker.Result{FirstByte: 2 * time.Millisecond})
	b.Refuse(balance.QueueFull)
	return serveAdmin(t, admin.Options{Services: []admin.Service{{
		Name: "web", Listen: "127.0.0.1:1", Status: b.Status, Explain: b.Explain, Decisions: b.Decisions, Denials: b.Denials,
	}}})
}

func TestExplainOfASidecar(t *testing.T) {
	t.Parallel()
	addr := explainSidecar(t)
	has := func(out string, wants ...string) {
		t.Helper()
		for _, want := range wants {
			if !strings.Contains(out, want) {
				t.Errorf("%q is missing in\n%s", want, out)
			}
		}
		if strings.Contains(out, "\x1b") {
			t.Errorf("control characters reach the terminal: %q", out)
		}
	}
	for _, args := range [][]string{{"web", "-addr", addr}, {"-addr", addr, "web"}, {"-addr", addr, "web", "-key", "a"}} {
		code, out, errs := explainRun(t.Context(), args...)
		if code != 0 || errs != "" {
			t.Fatalf("%q: exit %d: %s", args, code, errs)
		}
		has(out, "web by least_conn: ", "a pick made now took n/a\ufffd[2J\n", "  >  n/a", "n/b", "critical", "2.0ms", "beside it, without effect, p2c: ")
	}
	code, out, errs := explainRun(t.Context(), "web", "-addr", addr, "-key", "alice", "-tried", "n/b")
	if code != 0 || errs != "" {
		t.Errorf("with a key: exit %d: %s", code, errs)
	}
	has(out, "a pick made now took n/a")
	code, out, errs = explainRun(t.Context(), "-hash", "0xff", "web", "-addr", addr, "-top", "1")
	if code != 0 || errs != "" {
		t.Errorf("with a hash: exit %d: %s", code, errs)
	}
	has(out, "a pick made now took n/a", "and 1 more; -top shows up to 10000")
	code, out, _ = explainRun(t.Context(), "web", "-addr", addr, "-last", "50")
	if code != 0 {
		t.Errorf("-last: exit %d", code)
	}
	has(out, "the last 1 requests sent", "n/a\ufffd[2J   10.0.0.1:80  1 ", "the last 1 own 503s", "queue_full")
	code, out, _ = explainRun(t.Context(), "web", "-addr", addr, "-json")
	var doc admin.ExplainDoc
	if err := json.Unmarshal([]byte(out), &doc); code != 0 || err != nil || doc.Pick != "n/a\x1b[2J" || strings.Contains(out, "\x1b") {
		t.Errorf("-json: exit %d, %v\n%s", code, err, out)
	}
	code, out, _ = explainRun(t.Context(), "web", "-addr", addr, "-json", "-last", "1")
	var last admin.LastDoc
	if err := json.Unmarshal([]byte(out), &last); code != 0 || err != nil || len(last.Decisions) != 1 || len(last.Refusals) != 1 {
		t.Errorf("-json -last: exit %d, %v\n%s", code, err, out)
	}
	for want, args := range map[string][]string{
		`there is no service "wbe"`: {"wbe"}, `has no endpoint "n/x"; /v1/status lists them`: {"web", "-tried", "n/x"},
	} {
		code, out, errs = explainRun(t.Context(), append(args, "-addr", addr)...)
		if code != 1 || out != "" || !strings.HasPrefix(errs, "outrigger explain: the sidecar at "+addr+" says: ") || !strings.Contains(errs, want) {
			t.Errorf("%q: exit %d, %q, %q", args, code, out, errs)
		}
	}
	if code, _, errs = explainRun(t.Context(), "web", "-addr", "127.0.0.1:1"); code != 1 || !strings.Contains(errs, "no sidecar answers at") {
		t.Errorf("nobody there: exit %d, %q", code, errs)
	}
	// The shadow shows in the status too.
	if code, out, errs = statusRun(t.Context(), "-addr", addr); code != 0 || !strings.Contains(out, "  shadow     p2c: ") {
		t.Errorf("status: exit %d, %s\n%s", code, errs, out)
	}
}

func TestExplainUsage(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"-h"}, 0, "Usage: outrigger explain NAME"},
		{nil, 2, "which service? Write outrigger explain NAME"},
		{[]string{"-json"}, 2, "which service?"},
		{[]string{""}, 2, "which service?"},
		{[]string{"web", "db"}, 2, `"db" is not understood; one service at a time`},
		{[]string{"web", "-nonsense"}, 2, "Usage: outrigger explain"},
		{[]string{"web", "-addr", "nowhere"}, 2, `-addr "nowhere" is not "ADDR:PORT"`},
		{[]string{"web", "-last", "0"}, 2, "-last is 0, allowed are 1 to 256"},
		{[]string{"web", "-last", "257"}, 2, "allowed are 1 to 256"},
		{[]string{"web", "-last", "5", "-key", "a"}, 2, "have no meaning beside it"},
		{[]string{"-last", "5", "web", "-top", "3"}, 2, "have no meaning beside it"},
		{[]string{"-hash", "5", "web", "-key", "a"}, 2, "leave one out"},
		{[]string{"web", "-json", "db"}, 2, `"db" is not understood`},
		{[]string{"-json", "web", "-nonsense"}, 2, "flag provided but not defined: -nonsense"},
	} {
		if code, out, errs := explainRun(t.Context(), c.args...); code != c.code || out != "" || !strings.Contains(errs, c.want) {
			t.Errorf("%q: exit %d, %q, %q; want %d and %q", c.args, code, out, errs, c.code, c.want)
		}
	}
}

func TestStatusShadow(t *testing.T) {
	t.Parallel()
	for want, s := range map[string]admin.ShadowDoc{
		"p2c: two; 0 picks compared; no prediction yet": {},
		"p2c: two; 200 picks compared, 25.0% would differ (3 would be refused); predicted answers 1.5ms sooner (12.0%) in the mean": {
			PicksTotal: 200, DisagreedTotal: 50, NoneTotal: 3, GainSeconds: number(.0015), GainShare: number(.12)},
		"p2c: two; 8 picks compared, 50.0% would differ; predicted answers 20ms later (40.0%) in the mean": {
			PicksTotal: 8, DisagreedTotal: 4, GainSeconds: number(-.02), GainShare: number(-.4)},
	} {
		s.Policy, s.Mode = "p2c", "two"
		if got := statusShadow(&s); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
