package orca

import (
	"encoding/base64"
	"encoding/json"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
)

// FuzzParse holds for every value that what is accepted is within its range, that its
// TEXT form says the same, and that JSON is read as encoding/json does.
func FuzzParse(f *testing.F) {
	for _, s := range []string{
		"", "TEXT", typical, "TEXT a=1,b:2", "TEXT named_metrics.in_flight:1e1,x:-3",
		`JSON {"cpu_utilization":0.7,"named_metrics":{"in_flight":3,"a":-1}}`, `JSON {"namedMetrics":null,"eps":"1"}`, `JSON {"a":{"a":[1]}}`,
		"BIN " + base64.StdEncoding.EncodeToString(message(map[protowire.Number]float64{1: 1, 9: 2}, map[string]float64{"in_flight": 3})),
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, value []byte) {
		r, err := Parse(value, DefaultInFlight)
		if err != nil {
			if r != report(nil) {
				t.Fatalf("%q: figures %+v with error %v", value, r, err)
			}
			return
		}
		for _, v := range []float64{r.InFlight, r.CPU, r.Mem, r.App, r.RPS, r.EPS} {
			if v != Absent && !(v >= 0 && v <= maxRate) {
				t.Fatalf("%q: %v of %+v", value, v, r)
			}
		}
		if e := r.ErrShare(); e != Absent && !(e >= 0 && e <= 1) {
			t.Fatalf("%q: error share %v", value, e)
		}
		if text, ok := strings.CutPrefix(string(value), "JSON "); ok {
			sameAsEncodingJSON(t, text, r)
		}
	})
}

// sameAsEncodingJSON reads an accepted report again with encoding/json alone.
func sameAsEncodingJSON(t *testing.T, text string, got Report) {
	var m map[string]json.RawMessage
	if err := json.Unmarshal([]byte(text), &m); err != nil {
		t.Fatalf("accepted %q: %v", text, err)
	}
	either := func(from map[string]json.RawMessage, names ...string) float64 {
		for _, name := range names {
			raw, ok := from[name]
			if !ok || string(raw) == "null" {
				continue
			}
			var v json.Number // takes quotes as well
			if err := json.Unmarshal(raw, &v); err != nil {
				// Only what strconv takes and JSON does not, in quotes: "1.", "+1".
				var s string
				if json.Unmarshal(raw, &s) != nil {
					t.Fatalf("%q: %s is %s", text, name, raw)
				}
				v = json.Number(s)
			}
			x, err := v.Float64()
			if err != nil {
				t.Fatalf("%q: %s is %s: %v", text, name, raw, err)
			}
			return x
		}
		return Absent
	}
	var named map[string]json.RawMessage
	for _, name := range []string{"named_metrics", "namedMetrics"} {
		if raw, ok := m[name]; ok {
			if err := json.Unmarshal(raw, &named); err != nil {
				t.Fatalf("%q: %v", text, err)
			}
		}
	}
	want := Report{
		InFlight: either(named, DefaultInFlight),
		CPU:      either(m, "cpu_utilization", "cpuUtilization"),
		Mem:      either(m, "mem_utilization", "memUtilization"),
		App:      either(m, "application_utilization", "applicationUtilization"),
		RPS:      either(m, "rps_fractional", "rpsFractional"),
		EPS:      either(m, "eps"),
	}
	if got != want {
		t.Fatalf("%q: %+v, encoding/json reads %+v", text, got, want)
	}
}
