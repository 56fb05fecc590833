package main

import (
	"bytes"
	"encoding/json"
	"io"
	"slices"
	"strings"
	"testing"
	"time"
)

func someResult() *result {
	f := func(cpu, rate, peak float64) figures {
		return figures{keyCPU: cpu, keyRate: rate, keyP50: 1, keyP99: 2, keyPeak: peak * (1 << 20)}
	}
	return &result{
		Name: "small-64", Title: "small GET", Setting: "3 rounds of 1 s", metrics: closedMetrics(), headline: keyCPU,
		Rounds: []round{
			{haproxy: f(10, 1000, 15), nginx: f(20, 500, 10), ours: f(15, 800, 20)},
			{haproxy: f(40, 250, 15), nginx: f(20, 500, 10), ours: f(16, 800, 20)}, // the better peer changes
			{haproxy: f(10, 1000, 15), nginx: f(20, 500, 10), ours: f(11, 800, 20)},
		},
	}
}

func TestTable(t *testing.T) {
	var out bytes.Buffer
	r := someResult()
	r.Rounds[1][ours][keyForeign] = 0.2
	r.print(&out)
	want := `
small-64: small GET
3 rounds of 1 s
                     CPU µs/req            req/s              p50 µs             p99 µs             peak RSS MiB
  haproxy            10.00 (10.00-40.00)   1000               1                  2                  15.0
  nginx              20.00 (20.00-20.00)   500                1                  2                  10.0
  outrigger          15.00 (11.00-16.00)   800                1                  2                  20.0
  ours/better peer   1.10 (0.80-1.50)      0.80 (0.80-1.60)   1.00 (1.00-1.00)   1.00 (1.00-1.00)   2.00 (2.00-2.00)
  ! other processes took up to 20 % of the proxy's processor: requests per second and latencies are too bad, CPU times a little
`
	if got := out.String(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestTableWithoutAPeerAndWithoutRatio(t *testing.T) {
	var out bytes.Buffer
	r := &result{Name: "slow-body", metrics: slowMetrics(), Rounds: []round{{haproxy: figures{keyHeld: 500}, ours: figures{keyHeld: 3}}}}
	r.print(&out)
	if got := out.String(); strings.Contains(got, nginx) || strings.Contains(got, "better") || !strings.Contains(got, "outrigger   3") {
		t.Errorf("got\n%s", got)
	}
	r = &result{Name: latencyCase, metrics: latencyMetrics(), Rounds: []round{{
		haproxy: figures{keyAdded50: -1}, nginx: figures{keyAdded50: 2}, ours: figures{keyAdded50: 3},
	}}}
	if xs := r.ratios(latencyMetrics()[0]); len(xs) != 0 {
		t.Errorf("a ratio to less than nothing: %v", xs)
	}
}

func TestSummary(t *testing.T) {
	var out bytes.Buffer
	a, b := someResult(), someResult()
	b.Name = "other"
	printSummary(&out, []*result{a, {Name: "slow-body", metrics: slowMetrics()}, b})
	want := `
ours/better peer, per round: median (extremes); below 1 is better
  case       figure       ratio
  small-64   CPU µs/req   1.10 (0.80-1.50)
  other      CPU µs/req   1.10 (0.80-1.50)
`
	if got := out.String(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	out.Reset()
	printSummary(&out, []*result{a})
	if out.Len() > 0 {
		t.Errorf("a summary of one case:\n%s", out.String())
	}
}

func TestJSON(t *testing.T) {
	var out bytes.Buffer
	if err := encode(&out, about{Kernel: "6.1"}, []*result{someResult()}); err != nil {
		t.Fatal(err)
	}
	var doc struct {
		About struct{ Kernel string }
		Cases []struct {
			Name    string
			Rounds  []map[string]map[string]float64
			Proxies map[string]map[string]spread
			Ratios  map[string]spread `json:"ours_to_better_peer"`
		}
	}
	if err := json.Unmarshal(out.Bytes(), &doc); err != nil {
		t.Fatal(err)
	}
	c := doc.Cases[0]
	if doc.About.Kernel != "6.1" || c.Name != "small-64" || len(c.Rounds) != 3 || c.Rounds[1][haproxy][keyCPU] != 40 {
		t.Errorf("%+v", doc)
	}
	if got, want := c.Proxies[ours][keyCPU], (spread{15, 11, 16, 3}); got != want {
		t.Errorf("ours: %+v, want %+v", got, want)
	}
	if got, want := c.Ratios[keyCPU], (spread{1.1, 0.8, 1.5, 3}); got != want {
		t.Errorf("ratio: %+v, want %+v", got, want)
	}
}

func TestOptions(t *testing.T) {
	all := caseNames()
	for _, c := range []struct {
		args  []string
		cases []string // nil: an error
	}{
		{nil, all[:len(all)-len(ownFleet())-1]},
		{[]string{"-cases", "slow"}, []string{slowCase}},
		{[]string{"-cases", "all,slow"}, all[:len(all)-len(ownFleet())]},
		{[]string{"-cases", "flask,all,agent,balance,slow,catalog,discovery"}, all},
		{[]string{"-cases", "balance", "-loads", "0"}, nil},
		{[]string{"-cases", "balance", "-picture", "x.svg"}, []string{balanceCase}},
		{[]string{"-cases", "flask", "-picture", "x.svg"}, nil},
		{[]string{"-cases", "balance", "-loads", "50,x"}, nil},
		{[]string{"-cases", "close-32, small-1"}, []string{"small-1", "close-32"}},
		{[]string{"-cases", "small"}, nil},
		{[]string{"-cases", ""}, nil},
		{[]string{"-rounds", "0"}, nil},
		{[]string{"-seconds", "601"}, nil},
		{[]string{"small-1"}, nil},
		{[]string{"-nonsense"}, nil},
	} {
		opt, err := parseOptions(c.args, io.Discard)
		if (err != nil) != (c.cases == nil) || (err == nil && !slices.Equal(opt.cases, c.cases)) {
			t.Errorf("%q: %q, %v", c.args, opt.cases, err)
		}
	}
	if opt, err := parseOptions([]string{"-loads", "90, 50,90"}, io.Discard); err != nil || !slices.Equal(opt.loads, []int{50, 90}) {
		t.Errorf("-loads: %v, %v", opt.loads, err)
	}
	if opt, err := parseOptions([]string{"-quick"}, io.Discard); err != nil || opt.rounds != 2 || opt.seconds != 1 {
		t.Errorf("-quick: %+v, %v", opt, err)
	}
}

func TestCountsMustAgree(t *testing.T) {
	for _, c := range []struct {
		answered, conns, served, accepted int64
		ok                                bool
	}{
		{10000, 64, 10000, 30, true},
		{10000, 64, 10064, 30, true},
		{10000, 64, 9999, 30, false},   // answers that no backend gave
		{10000, 64, 10400, 30, false},  // tried more than once
		{10000, 64, 10000, 900, false}, // connections to backends not reused
	} {
		if err := checkCounts(c.answered, c.conns, c.served, c.accepted); (err == nil) != c.ok {
			t.Errorf("%+v: %v", c, err)
		}
	}
}

func TestAddedLatencyIsToThatOfItsRound(t *testing.T) {
	values := round{direct: {keyP50: 10, keyP90: 20, keyP99: 30}, ours: {keyP50: 15, keyP90: 27, keyP99: 29}}
	addedTo(values)
	f := values[ours]
	if f[keyAdded50] != 5 || f[keyAdded90] != 7 || f[keyAdded99] != -1 {
		t.Errorf("%v", f)
	}
	if _, ok := values[direct][keyAdded50]; ok {
		t.Error("direct has added to itself")
	}
}

func TestPlanSurvivesItsCommandLine(t *testing.T) {
	p := plan{addr: "127.0.0.1:1", path: "/x", conns: 3, rate: 1234.5678, warm: time.Second / 3, run: time.Minute}
	got, err := parsePlan(p.args()[1:], io.Discard)
	if err != nil || got != p {
		t.Errorf("%+v, %v; want %+v", got, err, p)
	}
}

func TestSightings(t *testing.T) {
	var s sightings
	const step = time.Second
	s.add(0, sockets{clients: []int{1, 2}, backends: 1}, 1)
	s.add(step, sockets{clients: []int{1, 2, 3}, backends: 4}, 3)
	s.add(2*step, sockets{clients: []int{1}, backends: 1}, 0)
	f := s.figures(2 * step)
	for key, want := range (figures{keyHeld: 3, keyUpstream: 4, keyInFlight: 3, keyLongest: 2}) {
		if f[key] != want {
			t.Errorf("%s is %v, want %v", key, f[key], want)
		}
	}
	if got := s.figures(10 * step)[keyAlive]; got != 0 {
		t.Errorf("%v are open at the end of an attack that outlasted them", got)
	}
}
