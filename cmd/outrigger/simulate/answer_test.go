package simulate

import (
	"bytes"
	"context"
	"encoding/json"
	"encoding/xml"
	"errors"
	"flag"
	"io"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"outrigger/picker"
	"outrigger/sidecar/balance"
)

var update = flag.Bool("update", false, "write the golden files anew")

func question() *Question {
	b := balance.DefaultConfig()
	b.MaxInFlight = 1024
	return &Question{
		Service: "web", Balance: b, Own: true, Told: true,
		Backends: []Group{{12, 2, 1}, {4, 8, 1.3}}, Sidecars: 100,
		Work: Work{"lognormal", 20 * time.Millisecond, 1}, Neighbours: Neighbours{0.2, 0.6, 3 * time.Second, 6 * time.Second},
		Interval: 500 * time.Millisecond, Timeout: time.Second, Silent: 0.2,
		Policies: []string{"least_conn", "resource", "oracle"}, Limits: []int{1024}, Loads: []float64{0.5, 0.9},
		Seed: 7, Seeds: 3, Warmup: 12 * time.Second, Duration: 25 * time.Second,
	}
}

// pretend is a Runner whose figures are a plain function of the case and seed:
// worse with load, worst under least_conn, best under the oracle, and the same
// under all limits but 8, which sheds.
func pretend(_ context.Context, _ *Question, c Case, seed uint64) (Outcome, error) {
	base := map[string]float64{"least_conn": 30, "resource": 16, "oracle": 12}[c.Policy]
	p99 := base * 5 / (1.05 - c.Load) * (1 + 0.02*float64(seed%3))
	o := Outcome{Sent: 1000}
	if c.Limit == 8 {
		p99, o.Shed = p99/2, 0.25
	}
	ms := func(v float64) time.Duration { return time.Duration(v * float64(time.Millisecond)) }
	o.P50, o.P99, o.P999 = ms(base), ms(p99), ms(2*p99)
	if o.P999 > time.Second {
		o.P999 = math.MaxInt64
	}
	o.Goodput = 1 - o.Shed - p99*p99/5e7
	return o, nil
}

func answered(t *testing.T, q *Question) []Line {
	t.Helper()
	if err := q.Validate(); err != nil {
		t.Fatal(err)
	}
	lines, err := Run(t.Context(), q, pretend, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	return lines
}

// golden compares with a file that -update writes.
func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s (write it anew with -update) is\n%s\nwant\n%s", path, got, want)
	}
}

func TestGolden(t *testing.T) {
	q := question()
	lines := answered(t, q)
	const command = `outrigger simulate -config /etc/outrigger -backends 12x2,4x8@1.3 -work 'lognormal 20ms'`
	golden(t, "table.txt", []byte(q.Table(lines)))
	golden(t, "picture.svg", q.SVG(lines, command))
	text, err := q.JSON(lines, command)
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "figures.json", text)
}

// TestAdvice holds what is recommended, and that what only the simulator has
// never is.
func TestAdvice(t *testing.T) {
	for _, c := range []struct {
		name   string
		set    func(*Question)
		want   []string
		absent []string
	}{
		{"another policy", func(*Question) {},
			[]string{"Advice: policy \"resource\" {} in service \"web\".", "alone among", "Configured is least_conn: at 90% load p99 ", "(more than 1.8 times as long)"},
			[]string{"oracle", "max_in_flight"}},
		{"as configured", func(q *Question) { q.Balance.Picker.Policy = "resource" },
			[]string{"Advice: leave it as configured: resource.\n"}, []string{"Configured is"}},
		{"a limit that sheds is not taken for its latency", func(q *Question) { q.Limits = []int{8, 32, 1024} },
			[]string{"policy \"resource\" {} in service", "not tell these limits apart: 32, 1024.", "Configured is least_conn with max_in_flight 1024"}, nil},
		{"the configured limit is not among them", func(q *Question) { q.Limits = []int{8, 32, 64} },
			[]string{"policy \"resource\" {} and capacity { max_in_flight = 32 } in"}, []string{"Configured is"}},
		{"a limit that is better for sure", func(q *Question) { q.Policies, q.Limits, q.Balance.MaxInFlight = []string{"resource"}, []int{8, 32}, 8 },
			[]string{"Advice: policy \"resource\" {} and capacity { max_in_flight = 32 }", "  With the limit as configured it is resource with max_in_flight 8: at 90% load p99 272ms; goodput 74.9% (-24.6 points).\n"}, []string{"Configured is"}},
		{"rates", func(q *Question) { q.Rates = []float64{1000, 2500} }, []string{" at 2500/s", "(1.9 times as long)"}, []string{"% load"}},
		{"every one is over the time-out", func(q *Question) { q.Timeout, q.Policies = 50*time.Millisecond, []string{"least_conn"} },
			[]string{"leave it as configured", ">50ms", "At 90% load one request in a hundred and more is not answered in time."}, nil},
		{"none to be configured", func(q *Question) { q.Policies = []string{"oracle"} }, []string{"No advice"}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			q := question()
			c.set(q)
			got := q.Advice(answered(t, q))
			for _, want := range c.want {
				if !strings.Contains(got, want) {
					t.Errorf("%q is missing in\n%s", want, got)
				}
			}
			for _, absent := range c.absent {
				if strings.Contains(got, absent) {
					t.Errorf("%q is in\n%s", absent, got)
				}
			}
		})
	}
}

// TestSVG holds that pictures of all shapes are XML without figures that a
// browser cannot draw, whatever the names in them.
func TestSVG(t *testing.T) {
	for name, set := range map[string]func(*Question){
		"loads":        func(*Question) {},
		"one load":     func(q *Question) { q.Loads = []float64{0.7} },
		"limits":       func(q *Question) { q.Loads, q.Limits = []float64{0.9}, []int{8, 32, 0} },
		"both":         func(q *Question) { q.Limits = []int{8, 32, 0} },
		"one point":    func(q *Question) { q.Loads, q.Policies, q.Seeds = []float64{0.7}, []string{"resource"}, 1 },
		"a rate":       func(q *Question) { q.Rates = []float64{12.5} },
		"hostile name": func(q *Question) { q.Service = "<script>&\"'\x00\xff" },
	} {
		t.Run(name, func(t *testing.T) {
			q := question()
			set(q)
			svg := q.SVG(answered(t, q), "outrigger simulate -config '<&>' "+strings.Repeat("x", 500)+strings.Repeat(" ü", 900))
			dec := xml.NewDecoder(bytes.NewReader(svg))
			texts, marks := 0, 0
			for {
				tok, err := dec.Token()
				if errors.Is(err, io.EOF) {
					break
				}
				if err != nil {
					t.Fatalf("%v in\n%s", err, svg)
				}
				if e, ok := tok.(xml.StartElement); ok {
					switch e.Name.Local {
					case "text":
						texts++
					case "path":
						marks++
					case "script":
						t.Error("a name became an element")
					}
					for _, a := range e.Attr {
						if strings.Contains(a.Value, "NaN") || strings.Contains(a.Value, "Inf") {
							t.Errorf("<%s %s=%q>", e.Name.Local, a.Name.Local, a.Value)
						}
					}
				}
			}
			if texts < 8 || marks < 4 {
				t.Errorf("%d texts and %d paths in\n%s", texts, marks, svg)
			}
		})
	}
}

// TestRunOrder holds that the answer does not depend on which run ends first,
// and that it is there in part when the work is interrupted.
func TestRunOrder(t *testing.T) {
	q := question()
	want := q.Table(answered(t, q))
	lines, err := Run(t.Context(), q, func(ctx context.Context, q *Question, c Case, seed uint64) (Outcome, error) {
		time.Sleep(time.Duration((seed*7+uint64(len(c.Policy))*5)%11) * time.Millisecond)
		return pretend(ctx, q, c, seed)
	}, io.Discard)
	if got := q.Table(lines); err != nil || got != want {
		t.Errorf("%v\n%s\nwant\n%s", err, got, want)
	}

	ctx, cancel := context.WithCancel(t.Context())
	lines, err = Run(ctx, q, func(ctx context.Context, q *Question, c Case, seed uint64) (Outcome, error) {
		if c.Policy == "resource" {
			cancel()
			<-ctx.Done()
			return Outcome{}, ctx.Err()
		}
		return pretend(ctx, q, c, seed)
	}, io.Discard)
	if !errors.Is(err, context.Canceled) || len(lines) != 1 || lines[0].Policy != "least_conn" || q.complete(lines) {
		t.Errorf("interrupted: %v with %d lines", err, len(lines))
	}
	text, jsonErr := q.JSON(lines, "")
	if !strings.Contains(q.Table(lines), "No advice") || jsonErr != nil || !json.Valid(text) || !bytes.Contains(text, []byte(`"interrupted": true`)) {
		t.Errorf("interrupted: %v\n%s\n%s", jsonErr, text, q.Table(lines))
	}

	broken := errors.New("broken")
	if _, err = Run(t.Context(), q, func(context.Context, *Question, Case, uint64) (Outcome, error) { return Outcome{}, broken }, io.Discard); !errors.Is(err, broken) || !strings.Contains(err.Error(), "policy least_conn at 50% of the capacity, seed") {
		t.Errorf("a run that fails: %v", err)
	}
}

func TestValidate(t *testing.T) {
	for _, c := range []struct {
		set  func(*Question)
		want string
	}{
		{func(q *Question) { q.Sidecars = 0 }, "-sidecars is 0, allowed are 1 to 5000"},
		{func(q *Question) { q.Seeds = 101 }, "-seeds is 101, allowed are 1 to 100"},
		{func(q *Question) { q.Interval = time.Millisecond }, "-interval is 1ms, allowed are 50ms to 1m"},
		{func(q *Question) { q.Timeout = 0 }, "-timeout is 0s, allowed are 10ms to 10m"},
		{func(q *Question) { q.Duration = time.Millisecond }, "-duration is 1ms, allowed are 1s to 1h"},
		{func(q *Question) { q.Warmup = -1 }, "-warmup is -1ns, allowed are 0s to 10m"},
		{func(q *Question) { q.Surge = Surge{2, time.Minute} }, "-surge lasts 1m0s, which is longer than -duration 25s"},
		{func(q *Question) { q.Rates = []float64{20000} }, "-rate asks for 20000/s of a fleet that serves"},
		{func(q *Question) { q.Policies = nil }, "there is nothing to compare"},
		{func(q *Question) { q.Duration = time.Hour; q.Seeds = 100 }, "million requests (a fleet that serves"},
		{func(q *Question) { q.Backends = []Group{{5000, 0.1, 1}}; q.Sidecars = 5000 }, "million polls (5000 sidecars poll 5000 agents every 500ms"},
		{func(q *Question) {
			q.Seeds, q.Limits = 100, []int{1, 2, 3, 4, 5, 6, 7, 8, 9}
		}, "3 policies x 9 limits x 2 loads x 100 seeds = 5400 runs, 5000 are the most"},
	} {
		q := question()
		c.set(q)
		if err := q.Validate(); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("got %v, want %q", err, c.want)
		}
	}
}

// TestConfig holds what the simulator gets of a case.
func TestConfig(t *testing.T) {
	q := question()
	q.ByCores, q.Surge = true, Surge{2, 5 * time.Second}
	c := q.config(Case{"p2c", 8, 0.9}, 4)
	if err := c.Validate(); err != nil {
		t.Fatal(err)
	}
	if c.Balance.Picker.Policy != "p2c" || c.Baseline != "" || c.Balance.MaxInFlight != 8 || c.Seed != 4 || c.Client.Outcome != picker.Failure || c.Balance.MaxWait != 0.15 {
		t.Errorf("%+v", c)
	}
	if len(c.Backends) != 16 || c.Backends[0].Weight < 1 || c.Backends[15].Weight != 4*c.Backends[0].Weight || c.Backends[15].Speed != 1.3 {
		t.Errorf("%d backends, the first %+v and the last %+v", len(c.Backends), c.Backends[0], c.Backends[15])
	}
	if s := c.Load.Surges; c.Load.Level != 0.9 || len(s) != 1 || s[0].From != 22*time.Second || s[0].For != 5*time.Second || s[0].Factor != 2 {
		t.Errorf("load %+v", c.Load)
	}
	if math.Abs(c.Capacity()-q.Capacity()) > 1e-6 {
		t.Errorf("the simulator's capacity is %v, ours %v", c.Capacity(), q.Capacity())
	}
	q.Own, q.Told = false, false
	if c = q.config(Case{"oracle", 0, 0.9}, 4); c.Baseline != "oracle" || c.Balance.MaxWait != 0 || c.Client.Outcome != picker.Ignore || c.Validate() != nil {
		t.Errorf("%+v", c)
	}
	for _, name := range append(ours(), reference()...) {
		if c = q.config(Case{name, 0, 0.9}, 4); c.Validate() != nil {
			t.Errorf("%s: %v", name, c.Validate())
		}
	}
}

// TestApart holds that what differs by chance is told from what does not.
func TestApart(t *testing.T) {
	line := func(p99 ...time.Duration) *Line {
		l := &Line{}
		for i, d := range p99 {
			l.Runs = append(l.Runs, Outcome{Seed: uint64(i), P99: d})
		}
		return l
	}
	for _, c := range []struct {
		a, b *Line
		want bool
	}{
		{line(10, 50, 90), line(11, 51, 91), true}, // their ranges overlap, but each seed says the same
		{line(10, 50, 90), line(11, 49, 91), false},
		{line(10, 50, 90), line(11, 50, 91), false},
		{line(10, 20, 30), line(5, 6), true}, // interrupted
		{line(10, 20), line(10, 20), false},
	} {
		if apart(c.a, c.b, p99) != c.want || apart(c.b, c.a, p99) != c.want {
			t.Errorf("%v and %v: %v", c.a.Runs, c.b.Runs, !c.want)
		}
	}
}
