package simulate

import (
	"fmt"
	"math"
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestParse(t *testing.T) {
	parse := map[string]func(string) (any, error){
		"backends":   func(s string) (any, error) { return ParseBackends(s) },
		"work":       func(s string) (any, error) { return ParseWork(s) },
		"neighbours": func(s string) (any, error) { return ParseNeighbours(s) },
		"surge":      func(s string) (any, error) { return ParseSurge(s) },
		"loads":      func(s string) (any, error) { return ParseLoads(s) },
		"rates":      func(s string) (any, error) { return ParseRates(s) },
		"limits":     func(s string) (any, error) { return ParseLimits(s) },
		"share":      func(s string) (any, error) { return ParseShare(s) },
		"policies":   func(s string) (any, error) { return ParsePolicies(s, "p2c") },
	}
	const ms, s = time.Millisecond, time.Second
	for _, c := range []struct {
		what, text string
		want       any
		err        string // part of it, where it is an error
	}{
		{"backends", "12x2", []Group{{12, 2, 1}}, ""},
		{"backends", "12x2@1.0, 4x8@1.3,1x0.5@.7", []Group{{12, 2, 1}, {4, 8, 1.3}, {1, 0.5, 0.7}}, ""},
		{"backends", "", nil, `"" is not COUNTxCORES[@SPEED]: write "12x2"`},
		{"backends", "12", nil, `"12" is not COUNTxCORES`},
		{"backends", "12x", nil, `number of cores is "", not a plain number`},
		{"backends", "x2", nil, `count of backends is "", not a whole number`},
		{"backends", "0x2", nil, "count of backends is 0, allowed are 1 to 5000"},
		{"backends", "1x2@", nil, `speed is "", not a plain number`},
		{"backends", "1x2@NaN", nil, `speed is "NaN", not a plain number`},
		{"backends", "1x1e1", nil, `"1e1", not a plain number`},
		{"backends", "1x-2", nil, `"-2", not a plain number`},
		{"backends", "1x300", nil, "number of cores is 300, allowed are 0.1 to 256"},
		{"backends", "3000x1,3000x1", nil, "more than 5000 backends"},
		{"backends", "1x2,", nil, `"" is not COUNTxCORES`},
		{"backends", "9999999999999999999999x1", nil, "not a whole number"},

		{"work", "lognormal 20ms", Work{"lognormal", 20 * ms, 1}, ""},
		{"work", "  lognormal  20ms sigma 0.5 ", Work{"lognormal", 20 * ms, 0.5}, ""},
		{"work", "exponential 1.5s", Work{"exponential", 1500 * ms, 0}, ""},
		{"work", "fixed 5ms", Work{"fixed", 5 * ms, 0}, ""},
		{"work", "pareto 20ms alpha 1.5", Work{"pareto", 20 * ms, 1.5}, ""},
		{"work", "pareto 20ms", Work{"pareto", 20 * ms, 2}, ""},
		{"work", "", nil, `"" is not KIND MEAN`},
		{"work", "20ms", nil, `"20ms" is not KIND MEAN`},
		{"work", "normal 20ms", nil, `"normal" is no distribution: write lognormal, exponential, fixed or pareto`},
		{"work", "fixed 20", nil, `the mean is "20", not a duration such as 20ms`},
		{"work", "fixed 2h", nil, "the mean is 2h0m0s, allowed are 100µs to 1m0s"},
		{"work", "fixed -2s", nil, "allowed are 100µs to"},
		{"work", "fixed 20ms sigma 1", nil, `leave out "sigma 1"`},
		{"work", "lognormal 20ms 1", nil, `is written "lognormal 20ms sigma 1"`},
		{"work", "lognormal 20ms alpha 1", nil, `is written "lognormal 20ms sigma 1"`},
		{"work", "pareto 20ms alpha 1", nil, "alpha is 1, allowed are 1.1 to 10"},

		{"neighbours", "none", Neighbours{}, ""},
		{"neighbours", "20%-60%", Neighbours{0.2, 0.6, 3 * s, 6 * s}, ""},
		{"neighbours", "0.5 1s/500ms", Neighbours{0.5, 0.5, s, 500 * ms}, ""},
		{"neighbours", "60%-20%", nil, "the lower share first"},
		{"neighbours", "20%-99%", nil, "allowed are 0.1% to 95%"},
		{"neighbours", "0%", nil, "allowed are 0.1% to 95%"},
		{"neighbours", "some", nil, `is "some", not a plain number`},
		{"neighbours", "20% 3s", nil, `"20% 3s" is not understood`},
		{"neighbours", "20% 3s/6", nil, `the idle time is "6", not a duration`},
		{"neighbours", "", nil, "is not understood"},

		{"surge", "none", Surge{}, ""},
		{"surge", "1.6x 5s", Surge{1.6, 5 * s}, ""},
		{"surge", "1.6 5s", nil, "is not FACTORx DURATION"},
		{"surge", "99x 5s", nil, "the factor is 99, allowed are 0.05 to 20"},
		{"surge", "2x 5", nil, `its length is "5", not a duration`},

		{"loads", "0.9,50%, 0.7", []float64{0.5, 0.7, 0.9}, ""},
		{"loads", "1.5", []float64{1.5}, ""},
		{"loads", "90", nil, "a load is 90, allowed are 0.01 to 3; it is a share"},
		{"loads", "0.5,50%", nil, "a load of 50% is there twice"},
		{"loads", strings.Repeat("1,", 30), nil, "twice"},
		{"rates", "4000/s,300", []float64{300, 4000}, ""},
		{"rates", "4000/m", nil, `a rate is "4000/m", not a plain number; write requests a second`},
		{"limits", "0,32, 8", []int{8, 32, 0}, ""},
		{"limits", "-1", nil, "a limit is -1, allowed are 0 to 1000000"},
		{"limits", "1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21", nil, "too many: 20 are the most"},
		{"share", "20%", 0.2, ""},
		{"share", "0.2", 0.2, ""},
		{"share", "120%", nil, "is 120, allowed are 0 to 100 percent"},

		{"policies", "", []string{"p2c", "resource", "least_conn", "round_robin"}, ""},
		{"policies", "resource, oracle", []string{"resource", "oracle"}, ""},
		{"policies", "best", nil, `"best" is no policy; write some of least_conn, resource,`},
		{"policies", "consistent_hash", nil, "depends on the keys"},
		{"policies", "p2c,p2c", nil, "of p2c is there twice"},
	} {
		got, err := parse[c.what](c.text)
		switch {
		case c.err == "" && err != nil:
			t.Errorf("%s %q: %v", c.what, c.text, err)
		case c.err == "" && !reflect.DeepEqual(got, c.want):
			t.Errorf("%s %q: got %+v, want %+v", c.what, c.text, got, c.want)
		case c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)):
			t.Errorf("%s %q: error %v, want one with %q", c.what, c.text, err, c.err)
		}
	}
}

func TestParsePoliciesAll(t *testing.T) {
	all, err := ParsePolicies("all", "least_conn")
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, name := range all {
		if seen[name] || name == "consistent_hash" {
			t.Errorf("%s is there, in %q", name, all)
		}
		seen[name] = true
	}
	if !seen["oracle"] || !seen["resource"] || !seen["round_robin"] {
		t.Errorf("all are %q", all)
	}
	if list, err := ParsePolicies("", "consistent_hash"); err != nil || list[0] != "resource" {
		t.Errorf("beside consistent_hash: %q, %v", list, err)
	}
}

// FuzzBackends holds that what is read is in range and can be written and read
// again, and that what is not read has a message.
func FuzzBackends(f *testing.F) {
	for _, s := range []string{"12x2@1.0,4x8@1.3", "1x0.5", "x@", "5000x256@20", "1x1@0x1p4", "１x1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		groups, err := ParseBackends(text)
		if err != nil {
			if groups != nil || err.Error() == "" {
				t.Fatalf("%q: %v and %v", text, groups, err)
			}
			return
		}
		n := 0
		for _, g := range groups {
			n += g.Count
			if g.Count < 1 || !(g.Cores >= 0.1 && g.Cores <= 256) || !(g.Speed >= 0.05 && g.Speed <= 20) {
				t.Fatalf("%q: %+v", text, g)
			}
		}
		if n < 1 || n > maxBackends {
			t.Fatalf("%q: %d backends", text, n)
		}
		again, err := ParseBackends(groupsText(groups))
		if err != nil || !reflect.DeepEqual(again, groups) {
			t.Fatalf("%q: %+v came back as %+v, %v", text, groups, again, err)
		}
	})
}

// FuzzWork holds the same of -work, -neighbours and -surge.
func FuzzWork(f *testing.F) {
	for _, s := range []string{"lognormal 20ms", "pareto 1s alpha 1.5", "fixed 20ms sigma", "20%-60% 3s/6s", "none", "1.6x 5s", "x 1s", "0.001-0.95 1h/1h"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if w, err := ParseWork(text); err == nil {
			if w.Mean < 100*time.Microsecond || w.Mean > time.Minute || math.IsNaN(w.Spread) {
				t.Fatalf("%q: %+v", text, w)
			}
			roundTrip(t, w, ParseWork)
		}
		if n, err := ParseNeighbours(text); err == nil {
			if n.Any() && !(n.mean() > 0 && n.mean() < 1) || n.High > 0.95 {
				t.Fatalf("%q: %+v takes %v", text, n, n.mean())
			}
			if again, err := ParseNeighbours(n.String()); err != nil || math.Abs(again.Low-n.Low)+math.Abs(again.High-n.High) > 1e-7 {
				t.Fatalf("%q: %+v came back as %+v, %v", text, n, again, err)
			}
		}
		if s, err := ParseSurge(text); err == nil {
			roundTrip(t, s, ParseSurge)
		}
	})
}

func roundTrip[T interface {
	comparable
	fmt.Stringer
}](t *testing.T, v T, parse func(string) (T, error)) {
	t.Helper()
	if again, err := parse(v.String()); err != nil || again != v {
		t.Fatalf("%+v came back as %+v, %v", v, again, err)
	}
}
