package orca

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
)

func report(f func(*Report)) Report {
	r := Report{Absent, Absent, Absent, Absent, Absent, Absent}
	if f != nil {
		f(&r)
	}
	return r
}

// envoys is the example of Envoy's orca_parser_test.cc.
var envoys = report(func(r *Report) { r.CPU, r.App, r.Mem, r.RPS, r.EPS, r.InFlight = 0.7, 0.8, 0.9, 1000, 2, 123 })

// message builds an OrcaLoadReport as protoc's code would write it.
func message(doubles map[protowire.Number]float64, named map[string]float64) []byte {
	var b []byte
	for num := protowire.Number(1); num < 16; num++ {
		if v, ok := doubles[num]; ok {
			b = protowire.AppendFixed64(protowire.AppendTag(b, num, protowire.Fixed64Type), math.Float64bits(v))
		}
	}
	for k, v := range named {
		e := protowire.AppendString(protowire.AppendTag(nil, 1, protowire.BytesType), k)
		e = protowire.AppendFixed64(protowire.AppendTag(e, 2, protowire.Fixed64Type), math.Float64bits(v))
		b = protowire.AppendBytes(protowire.AppendTag(b, 8, protowire.BytesType), e)
	}
	return b
}

func TestParse(t *testing.T) {
	bin := message(map[protowire.Number]float64{1: 0.7, 2: 0.9, 6: 1000, 7: 2, 9: 0.8}, map[string]float64{"foo": 123, "bar": 0.2})
	bin = protowire.AppendVarint(protowire.AppendTag(bin, 3, protowire.VarintType), 1000) // rps, deprecated
	for name, tt := range map[string]struct {
		value string
		want  Report
	}{
		"text": {"TEXT cpu_utilization:0.7,application_utilization:0.8,mem_utilization:0.9," +
			"rps_fractional:1000,eps:2,named_metrics.foo:123,named_metrics.bar:0.2", envoys},
		"text with blanks":        {"TEXT  cpu_utilization: 0.7 ,\tapplication_utilization :0.8,, mem_utilization:0.9,rps_fractional:1e3,eps:2,named_metrics.foo:+123,", envoys},
		"text of vLLM":            {"TEXT named_metrics.kv_cache_usage_perc=0.4, named_metrics.foo=3.0", report(func(r *Report) { r.InFlight = 3 })},
		"text with other metrics": {"TEXT request_cost.db:-3, utilization.disk:0.5, rps:7, x:1", report(nil)},
		"text, other named below": {"TEXT named_metrics.bar:-5,named_metrics.foo:0", report(func(r *Report) { r.InFlight = 0 })},
		"text with a colon":       {"TEXT named_metrics.vllm:running:4,named_metrics.foo:1", report(func(r *Report) { r.InFlight = 1 })},
		"text without a metric":   {"TEXT", report(nil)},
		"over a soft limit":       {"TEXT cpu_utilization:1.5", report(func(r *Report) { r.CPU = 1.5 })},
		"json": {`JSON {"cpu_utilization": 0.7, "application_utilization": 0.8, "mem_utilization": 0.9, "rps_fractional": 1000, "eps": 2,
			"named_metrics": {"foo": 123,"bar": 0.2}}`, envoys},
		"json in camel case": {`JSON {"cpuUtilization":0.7,"applicationUtilization":0.8,"memUtilization":0.9,"rpsFractional":1e3,"eps":"2","namedMetrics":{"foo":"123"}}`, envoys},
		"json with others":   {`JSON {"a":{"b":[{}]},"named_metrics":null,"utilization":{"disk":7},"eps":null,"request_cost":"x"}`, report(nil)},
		"json, blanks":       {"JSON  {\t\"eps\" : 0 } ", report(func(r *Report) { r.EPS = 0 })},
		"json, escaped name": {`JSON {"named_metrics":{"f\u006fo":5}}`, report(func(r *Report) { r.InFlight = 5 })},
		"bin":                {"BIN " + base64.StdEncoding.EncodeToString(bin), envoys},
		"bin without pads":   {"BIN " + base64.RawStdEncoding.EncodeToString(bin), envoys},
		"bin, empty entry":   {"BIN " + base64.StdEncoding.EncodeToString(message(nil, map[string]float64{"": 0})), report(nil)},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := Parse([]byte(tt.value), "foo")
			if err != nil || got != tt.want {
				t.Errorf("Parse(%q) = %+v, %v, want %+v", tt.value, got, err, tt.want)
			}
		})
	}
}

func TestParseRefuses(t *testing.T) {
	b64 := func(b []byte) string { return base64.StdEncoding.EncodeToString(b) }
	many := "TEXT a:1"
	for i := range maxMetrics {
		many += ",m" + strconv.Itoa(i) + ":1"
	}
	whole := message(map[protowire.Number]float64{1: 0.7}, nil)
	for value, why := range map[string]string{
		"":                                         "not TEXT, JSON or BIN",
		"BAD x":                                    "not TEXT, JSON or BIN",
		"text cpu_utilization:1":                   "not TEXT, JSON or BIN",
		"cpu_utilization:0.7":                      "not TEXT, JSON or BIN",
		"TEXT not-a-list-of-key-value-pairs":       "NAME:NUMBER",
		"TEXT :1":                                  "no name",
		"TEXT named_metrics.:1":                    "no name",
		"TEXT cpu_utilization:":                    "number of 0 bytes",
		"TEXT cpu_utilization:\"0.7\"":             "not a decimal number",
		"TEXT cpu_utilization:NaN":                 "not a decimal number",
		"TEXT cpu_utilization:inf":                 "not a decimal number",
		"TEXT cpu_utilization:-inf":                "not a decimal number",
		"TEXT cpu_utilization:1e999":               "not a decimal number",
		"TEXT cpu_utilization:0x1p-2":              "not a decimal number",
		"TEXT cpu_utilization:1_0":                 "not a decimal number",
		"TEXT cpu_utilization:1 2":                 "not a decimal number",
		"TEXT other:x":                             "not a decimal number",
		"TEXT cpu_utilization:-0.1":                "outside",
		"TEXT mem_utilization:2.1":                 "outside",
		"TEXT named_metrics.foo:-1":                "outside",
		"TEXT named_metrics.foo:1e10":              "outside",
		"TEXT eps:-1":                              "outside",
		"TEXT cpu_utilization:1,cpu_utilization:1": "twice",
		"TEXT named_metrics.d:1,named_metrics.d=2": "twice",
		"TEXT cpu_utilization:0." + strings.Repeat("1", maxNumber): "number of",
		"TEXT " + strings.Repeat("a", MaxSize):                     "bytes, more than",
		`JSON {"a":"` + strings.Repeat("a", maxJSON) + `"}`:        "bytes of JSON, more than",
		many:                             "more than 64 metrics",
		"JSON":                           "not JSON",
		"JSON not-a-valid-json-string":   "not JSON",
		`JSON {"cpu_utilization": "0.7"`: "not JSON",
		`JSON {"eps":NaN}`:               "not JSON",
		`JSON {"eps":1}{}`:               "not JSON",
		`JSON [1]`:                       "not a JSON object",
		`JSON 1`:                         "not a JSON object",
		`JSON {"eps":"NaN"}`:             "not a decimal number",
		`JSON {"eps":"1\u0030"}`:         "not a decimal number",
		`JSON {"eps":true}`:              "not a decimal number",
		`JSON {"eps":{}}`:                "not a decimal number",
		`JSON {"eps":""}`:                "number of 0 bytes",
		`JSON {"eps":-1}`:                "outside",
		`JSON {"eps":1,"eps":1}`:         "twice",
		`JSON {"x":1,"x":1}`:             "twice",
		`JSON {"cpu_utilization":1,"cpuUtilization":1}`: "twice",
		`JSON {"named_metrics":{},"namedMetrics":{}}`:   "twice",
		`JSON {"named_metrics":{"a":1,"a":1}}`:          "twice",
		`JSON {"named_metrics":{"":1}}`:                 "no name",
		`JSON {"named_metrics":[]}`:                     "not a JSON object",
		"BIN":                                           "base64",
		"BIN ====":                                      "base64",
		"BIN not-ok":                                    "base64",
		"BIN " + b64(whole[:len(whole)-1]):              "protobuf",
		"BIN " + b64(message(map[protowire.Number]float64{1: math.NaN()}, nil)):        "outside",
		"BIN " + b64(message(map[protowire.Number]float64{2: math.Inf(1)}, nil)):       "outside",
		"BIN " + b64(message(map[protowire.Number]float64{7: -1}, nil)):                "outside",
		"BIN " + b64(message(nil, map[string]float64{"foo": -1})):                      "outside",
		"BIN " + b64([]byte(strings.Repeat(string(whole), maxMetrics+1))):              "more than 64",
		"BIN " + b64(protowire.AppendBytes(protowire.AppendTag(nil, 8, 2), []byte{9})): "protobuf",
	} {
		got, err := Parse([]byte(value), "foo")
		if err == nil || !strings.Contains(err.Error(), why) || got != report(nil) {
			t.Errorf("Parse(%.80q) = %+v, %v, want an error with %q", value, got, err, why)
		}
	}
}

func TestErrShare(t *testing.T) {
	for _, tt := range []struct{ rps, eps, want float64 }{
		{1000, 2, 0.002}, {10, 0, 0}, {10, 20, 1}, {0, 0, Absent}, {0, 5, Absent}, {Absent, 5, Absent}, {5, Absent, Absent},
	} {
		if got := report(func(r *Report) { r.RPS, r.EPS = tt.rps, tt.eps }).ErrShare(); got != tt.want {
			t.Errorf("%v errors of %v per second: %v, want %v", tt.eps, tt.rps, got, tt.want)
		}
	}
}

func TestCheckName(t *testing.T) {
	for name, ok := range map[string]bool{
		"in_flight": true, "vllm:running": true, "": false, "a,b": false, "a b": false, `a"`: false, "ä": false,
		strings.Repeat("a", maxName): true, strings.Repeat("a", maxName+1): false,
	} {
		if err := CheckName(name); (err == nil) != ok {
			t.Errorf("CheckName(%q) = %v", name, err)
		}
		if ok { // what may be configured can be told, in every form
			quoted, _ := json.Marshal(name)
			for _, v := range []string{"TEXT named_metrics." + name + ":7", `JSON {"named_metrics":{` + string(quoted) + `:7}}`,
				"BIN " + base64.StdEncoding.EncodeToString(message(nil, map[string]float64{name: 7}))} {
				if r, err := Parse([]byte(v), name); err != nil || r.InFlight != 7 {
					t.Errorf("Parse(%q) = %+v, %v", v, r, err)
				}
			}
		}
	}
}

const typical = "TEXT cpu_utilization:0.71, mem_utilization:0.42, rps_fractional:120.5, eps:0.25, named_metrics.in_flight:17"

func TestTextDoesNotAllocate(t *testing.T) {
	value := []byte(typical)
	if n := testing.AllocsPerRun(100, func() {
		if _, err := Parse(value, DefaultInFlight); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkParse(b *testing.B) {
	worst := []byte("TEXT ")
	for i := range maxMetrics {
		worst = append(worst, strings.Repeat("a", 50)...)
		worst = strconv.AppendInt(worst, int64(10+i), 10)
		worst = append(worst, ":1e300,"...)
	}
	manyJSON := []byte(`JSON {"named_metrics":{`)
	for i := range maxMetrics - 2 {
		manyJSON = fmt.Appendf(manyJSON, `"aaaa%d":1e300,`, i)
	}
	manyJSON = append(manyJSON, `"a":1}}`...)
	for name, value := range map[string][]byte{
		"text": []byte(typical), "worst text": worst[:len(worst):len(worst)],
		"json":       []byte(`JSON {"cpu_utilization":0.71,"mem_utilization":0.42,"rps_fractional":120.5,"eps":0.25,"named_metrics":{"in_flight":17}}`),
		"worst json": manyJSON, "deep json": []byte(`JSON {"a":` + strings.Repeat("[", 500) + strings.Repeat("]", 500) + "}"),
		"bin": []byte("BIN " + base64.StdEncoding.EncodeToString(message(map[protowire.Number]float64{1: 0.71, 2: 0.42, 6: 120.5, 7: 0.25},
			map[string]float64{"in_flight": 17}))),
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := Parse(value, DefaultInFlight); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
