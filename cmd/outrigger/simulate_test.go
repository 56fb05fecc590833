package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"outrigger/cmd/outrigger/simulate"
	"outrigger/config"
)

// simulateConfig writes a configuration of two services and returns its path.
func simulateConfig(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "fleet.hcl")
	text := `
agents { interval = "2s" }
service "web" {
  listen = "127.0.0.1:8080"
  policy "resource" { samples = 4 }
  capacity {
    max_in_flight = 48
    queue { length = 7 }
  }
  breaker { consecutive_failures = 9 }
  retry { attempts = 1 }
  timeouts { request = "800ms" }
}
service "api" { listen = "127.0.0.1:8081" }
`
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// simulated runs the command over a stand-in for the simulator.
func simulated(ctx context.Context, engine simulate.Runner, args ...string) (status int, out, errs string) {
	var o, e bytes.Buffer
	status = simulateWith(ctx, args, streams{strings.NewReader(""), &o, &e}, engine, config.OS())
	return status, o.String(), e.String()
}

func noEngine(context.Context, *simulate.Question, simulate.Case, uint64) (simulate.Outcome, error) {
	return simulate.Outcome{}, errors.New("the simulator was started")
}

// TestSimulateQuestion holds that configuration and flags reach the simulator.
func TestSimulateQuestion(t *testing.T) {
	path := simulateConfig(t)
	var q *simulate.Question
	ask := func(args ...string) {
		t.Helper()
		var seen atomic.Pointer[simulate.Question] // runs are side by side
		status, _, errs := simulated(t.Context(), func(_ context.Context, got *simulate.Question, _ simulate.Case, _ uint64) (simulate.Outcome, error) {
			seen.Store(got)
			return simulate.Outcome{P50: 1, P99: 1, P999: 1, Goodput: 1, Sent: 1}, nil
		}, append([]string{"-config", path, "-backends", "2x2", "-seeds", "1", "-load", "0.5", "-policies", "p2c"}, args...)...)
		if q = seen.Load(); status != 0 || q == nil {
			t.Fatalf("%q: status %d\n%s", args, status, errs)
		}
	}
	ask("-service", "web")
	if b := q.Balance; b.Picker.Policy != "resource" || b.Picker.Resource.Samples != 4 || b.Queue.Length != 7 || b.Breaker.ConsecutiveFailures != 9 || b.Service != "web" {
		t.Errorf("balance %+v", b)
	}
	if q.Service != "web" || q.Timeout != 800*time.Millisecond || !q.Own || !q.Told || q.Interval != 2*time.Second || q.Retry.Attempts != 1 || q.Limits[0] != 48 || q.ByCores || q.Sidecars != 10 {
		t.Errorf("question %+v", q)
	}
	ask("-service", "api", "-limits", "0,5", "-interval", "100ms", "-weights", "cores", "-sidecars", "3", "-silent", "10%",
		"-neighbours", "10%-30%", "-surge", "2x 1s", "-seed", "9", "-warmup", "1s", "-duration", "2s", "-work", "pareto 5ms")
	if q.Timeout != time.Second || q.Own || q.Told || q.Interval != 100*time.Millisecond || len(q.Limits) != 2 || !q.ByCores || q.Sidecars != 3 || q.Silent != 0.1 ||
		q.Neighbours.High != 0.3 || q.Surge.Factor != 2 || q.Seed != 9 || q.Warmup != time.Second || q.Duration != 2*time.Second || q.Work.Kind != "pareto" {
		t.Errorf("question %+v", q)
	}
	ask("-service", "web", "-timeout", "2s")
	if q.Timeout != 2*time.Second || !q.Own {
		t.Errorf("question %+v", q)
	}
}

func TestSimulateUsage(t *testing.T) {
	path := simulateConfig(t)
	bad := filepath.Join(t.TempDir(), "bad.hcl")
	if err := os.WriteFile(bad, []byte("service \"x\" {\n  lisen = 1\n}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	good := []string{"-config", path, "-service", "web", "-backends", "2x2"}
	with := func(args ...string) []string { return append(append([]string{}, good...), args...) }
	for _, c := range []struct {
		args   []string
		status int
		want   string
	}{
		{nil, 2, "say which configuration to use: -config DIR"},
		{[]string{"-h"}, 0, "Usage: outrigger simulate -config"},
		{[]string{"-polices", "all"}, 2, "flag provided but not defined: -polices"},
		{[]string{"-config", path}, 2, `say what the fleet is: -backends "12x2,4x8@1.3"`},
		{with("what"), 2, `"what" is not understood`},
		{with("-load", "0.5", "-rate", "5/s"), 2, "-load and -rate both say how much"},
		{with("-load", "x"), 2, `-load "x": a load is "x", not a plain number`},
		{with("-rate", "9999/s"), 2, "-rate asks for 9999/s of a fleet that serves 200/s"},
		{with("-work", "20ms"), 2, `-work "20ms": "20ms" is not KIND MEAN`},
		{with("-weights", "size"), 2, `-weights is "size", not equal or cores`},
		{with("-policies", "fair"), 2, `-policies "fair": "fair" is no policy; write some of`},
		{with("-limits", "a"), 2, `-limits "a": a limit is "a", not a whole number`},
		{with("-silent", "2"), 2, `-silent "2": is 2, allowed are 0 to 1`},
		{with("-seeds", "0"), 2, "-seeds is 0, allowed are 1 to 100"},
		{with("-duration", "1h", "-backends", "500x16"), 2, "million requests"},
		{[]string{"-config", path, "-backends", "2x2"}, 2, "the configuration has the services web, api: choose one with -service NAME"},
		{[]string{"-config", path, "-backends", "2x2", "-service", "db"}, 2, `-service "db" is not in the configuration, which has web, api`},
		{[]string{"-config", bad, "-backends", "2x2"}, 1, bad + ":2:3: unknown setting \"lisen\""},
		{[]string{"-config", bad + ".none", "-backends", "2x2"}, 1, "cannot be read"},
		{with(), 1, "the simulator was started"},
	} {
		status, out, errs := simulated(t.Context(), noEngine, c.args...)
		if status != c.status || out != "" || !strings.Contains(errs, c.want) {
			t.Errorf("%q: status %d, want %d with %q; printed\n%s%s", c.args, status, c.status, c.want, out, errs)
		}
	}
}

// TestSimulate asks about a tiny fleet, twice.
func TestSimulate(t *testing.T) {
	path, dir := simulateConfig(t), t.TempDir()
	svg, figures := filepath.Join(dir, "fleet.svg"), filepath.Join(dir, "fleet.json")
	args := []string{"-config", path, "-service", "web", "-backends", "2x1,1x2@1.3", "-weights", "cores", "-sidecars", "2", "-load", "0.7", "-seeds", "2",
		"-warmup", "2s", "-duration", "3s", "-limits", "4,0", "-policies", "resource,round_robin,oracle", "-svg", svg, "-json", figures}
	status, out, errs := simulated(t.Context(), simulate.Engine, args...)
	if status != 0 {
		t.Fatalf("status %d\n%s", status, errs)
	}
	for _, want := range []string{`service "web": 3 backends (2x1,1x2@1.3), weights by cores, serve 230 requests/s; 2 sidecars`, "\nLOAD", "\n70%   resource", "\n70%   oracle", "Advice: "} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is missing in\n%s", want, out)
		}
	}
	if n := strings.Count(errs, "\n"); n != 6 || !strings.Contains(errs, "6 of 6: ") {
		t.Errorf("progress is\n%s", errs)
	}
	picture, err := os.ReadFile(svg)
	if err != nil || !bytes.Contains(picture, []byte("-limits 4,0")) {
		t.Errorf("the picture: %v\n%s", err, picture)
	}
	var doc struct {
		Command string
		Cases   []struct{ Runs []struct{ Requests int } }
	}
	text, err := os.ReadFile(figures)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &doc); err != nil || len(doc.Cases) != 6 || len(doc.Cases[0].Runs) != 2 || doc.Cases[0].Runs[0].Requests < 100 {
		t.Errorf("%v, figures\n%s", err, text)
	}
	_, again, _ := simulated(t.Context(), simulate.Engine, append(args, "-quiet")...)
	if again != out {
		t.Errorf("the same seeds gave\n%s\nthen\n%s", out, again)
	}
}

// interrupting is a stderr at which somebody presses Ctrl-C on reading some text.
type interrupting struct {
	bytes.Buffer
	on string
	do func()
}

func (i *interrupting) Write(b []byte) (int, error) {
	if strings.Contains(string(b), i.on) {
		i.do()
	}
	return i.Buffer.Write(b)
}

// TestSimulateInterrupted holds that Ctrl-C leaves what was done, and ends a
// run that is under way.
func TestSimulateInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	errs, out := &interrupting{on: "1 of 2", do: cancel}, new(bytes.Buffer)
	status := simulateWith(ctx, []string{"-config", simulateConfig(t), "-service", "web", "-backends", "500x2", "-seeds", "2", "-load", "0.9", "-policies", "resource,p2c", "-duration", "2m"},
		streams{strings.NewReader(""), out, errs}, func(ctx context.Context, q *simulate.Question, c simulate.Case, seed uint64) (simulate.Outcome, error) {
			if c.Policy == "p2c" {
				return simulate.Engine(ctx, q, c, seed)
			}
			return simulate.Outcome{P50: 1e6, P99: 2e6, P999: 3e6, Goodput: 1, Sent: 1}, nil
		}, config.OS())
	if status != 1 || !strings.Contains(errs.String(), "interrupted; this is what was done") || !strings.Contains(out.String(), "resource") || strings.Contains(out.String(), "p2c") {
		t.Errorf("status %d\n%s%s", status, errs.String(), out)
	}
}
