package agentstats

import (
	"encoding/json"
	"math"
	"strings"
	"testing"
)

// full is a report with every field known.
func full() Report {
	return Report{
		Version: Version, Instance: "web-1", Epoch: "4711-123456", At: 1_780_000_000_123,
		InFlight: Some(7.5), Avail: Some(1.25), Cores: Some(2.0), Used: Some(0.75), CPU: Some(0.375),
		Mem: Some(0.5), MemBytes: Some(int64(1 << 30)), MemLimit: Some(int64(2 << 30)),
		Conc: Some(12.0), Listening: Some(true), Err: Some(0.01),
		InFlightSource: SourceKernel, AcceptQueue: Some(int64(2)), AcceptLimit: Some(int64(511)),
		Pressure: Pressure{
			Scope: "group", CPU: Stall{Some: Some(0.25), Full: Some(0.125)},
			Memory: Stall{Some: Some(0.0), Full: Some(0.0)}, IO: Stall{Some: Some(0.01)},
		},
		RxBytes: Some(1234.5), TxBytes: Some(99.0),
		PollMS: Some(int64(500)), OwnInFlight: Some(int64(3)), AgentVersion: "0.1.0",
	}
}

func TestReportRoundTrip(t *testing.T) {
	zeros := Report{
		Version: Version, At: 1, InFlight: Some(0.0), Avail: Some(0.0), Cores: Some(0.001), Used: Some(0.0), CPU: Some(0.0),
		Mem: Some(0.0), MemBytes: Some(int64(0)), Conc: Some(0.0), Listening: Some(false), Err: Some(0.0), OwnInFlight: Some(int64(0)),
	}
	for name, r := range map[string]Report{"full": full(), "empty": {Version: Version, At: 1}, "zeros are known": zeros} {
		b, err := Encode(r)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		back, err := Decode(b)
		if err != nil || back != r {
			t.Errorf("%s: %s\ndecoded to %+v, %v\nwant %+v", name, b, back, err, r)
		}
	}
}

func TestReportJSON(t *testing.T) {
	got, err := Encode(full())
	want := `{"version":1,"instance":"web-1","epoch":"4711-123456","at":1780000000123,"in_flight":7.5,"in_flight_source":"kernel","avail":1.25,"cores":2,"used":0.75,"cpu":0.375,"mem":0.5,"mem_bytes":1073741824,"mem_limit":2147483648,"conc":12,"listening":true,"err":0.01,"accept_queue":2,"accept_limit":511,"pressure":{"scope":"group","cpu":{"some":0.25,"full":0.125},"memory":{"some":0,"full":0},"io":{"some":0.01}},"rx_bytes_per_second":1234.5,"tx_bytes_per_second":99,"poll_ms":500,"own_in_flight":3,"agent_version":"0.1.0"}`
	if err != nil || string(got) != want {
		t.Errorf("got  %s, %v\nwant %s", got, err, want)
	}
	got, err = Encode(Report{Version: Version, At: 5})
	if want := `{"version":1,"at":5}`; err != nil || string(got) != want {
		t.Errorf("unknown figures must be absent: got %s, %v, want %s", got, err, want)
	}
}

func TestDecodeRefuses(t *testing.T) {
	const head = `{"version":1,"at":5,`
	for name, in := range map[string]string{
		"nothing":             ``,
		"no object":           `[1]`,
		"null":                `null`,
		"truncated":           head + `"cores":1`,
		"trailing bytes":      head + `"cores":1} {}`,
		"NaN":                 head + `"cores":NaN}`,
		"overflow":            head + `"cores":1e999}`,
		"number in a string":  head + `"cores":"1"}`,
		"no version":          `{"at":5}`,
		"another version":     `{"version":2,"at":5}`,
		"no time":             `{"version":1}`,
		"negative time":       `{"version":1,"at":-5}`,
		"absurd time":         `{"version":1,"at":9223372036854775807}`,
		"zero cores":          head + `"cores":0}`,
		"too many cores":      head + `"cores":4096.5}`,
		"negative avail":      head + `"cores":1,"avail":-0.1}`,
		"avail above cores":   head + `"cores":1,"avail":1.1}`,
		"avail without cores": head + `"avail":0}`,
		"used above cores":    head + `"cores":1,"used":1.1}`,
		"cpu above 1":         head + `"cores":1,"cpu":1.1}`,
		"negative mem":        head + `"mem":-1}`,
		"mem above 2":         head + `"mem":2.01}`,
		"negative in flight":  head + `"in_flight":-1}`,
		"negative bytes":      head + `"mem_bytes":-1}`,
		"zero limit":          head + `"mem_limit":0}`,
		"err above 1":         head + `"err":1.5}`,
		"zero poll":           head + `"poll_ms":0}`,
		"listening 1":         head + `"listening":1}`,
		"control character":   head + `"instance":"a\u001b[31m"}`,
		"long text":           head + `"epoch":"` + strings.Repeat("x", maxText+1) + `"}`,
		"too long":            head + `"x":"` + strings.Repeat("x", MaxReportSize) + `"}`,
		"too deep":            head + `"x":` + strings.Repeat("[", MaxReportSize-100),
	} {
		if r, err := Decode([]byte(in)); err == nil {
			t.Errorf("%s: %.80s was accepted as %+v", name, in, r)
		} else if r != (Report{}) || !strings.Contains(err.Error(), "agent report refused") {
			t.Errorf("%s: got %+v and %v", name, r, err)
		}
	}
}

func TestDecodeTolerates(t *testing.T) {
	r, err := Decode([]byte(` {"version":1,"at":5,"psi":{"cpu":[1,2,{"x":null}]},"cores":1.5,"avail":null,"zz":"\u0000"} `))
	if want := (Report{Version: 1, At: 5, Cores: Some(1.5)}); err != nil || r != want {
		t.Errorf("got %+v, %v, want %+v", r, err, want)
	}
}

func TestEncodeRefuses(t *testing.T) {
	for name, change := range map[string]func(*Report){
		"NaN":           func(r *Report) { r.Used = Some(math.NaN()) },
		"infinity":      func(r *Report) { r.Cores = Some(math.Inf(1)) },
		"no version":    func(r *Report) { r.Version = 0 },
		"no UTF-8":      func(r *Report) { r.Instance = "a\xff" },
		"negative conc": func(r *Report) { r.Conc = Some(-1.0) },
	} {
		r := full()
		change(&r)
		if b, err := Encode(r); err == nil {
			t.Errorf("%s: encoded to %s", name, b)
		}
	}
}

// plainReport is the report as encoding/json reads it with no help of ours.
type plainReport struct {
	Version     int         `json:"version"`
	Instance    string      `json:"instance"`
	Epoch       string      `json:"epoch"`
	At          int64       `json:"at"`
	InFlight    *float64    `json:"in_flight"`
	Source      string      `json:"in_flight_source"`
	Avail       *float64    `json:"avail"`
	Cores       *float64    `json:"cores"`
	Used        *float64    `json:"used"`
	CPU         *float64    `json:"cpu"`
	Mem         *float64    `json:"mem"`
	MemBytes    *int64      `json:"mem_bytes"`
	MemLimit    *int64      `json:"mem_limit"`
	Conc        *float64    `json:"conc"`
	Listening   *bool       `json:"listening"`
	Err         *float64    `json:"err"`
	AcceptQueue *int64      `json:"accept_queue"`
	AcceptLimit *int64      `json:"accept_limit"`
	Pressure    plainStalls `json:"pressure"`
	RxBytes     *float64    `json:"rx_bytes_per_second"`
	TxBytes     *float64    `json:"tx_bytes_per_second"`
	PollMS      *int64      `json:"poll_ms"`
	OwnInFlight *int64      `json:"own_in_flight"`
	Agent       string      `json:"agent_version"`
}

type plainStalls struct {
	Scope  string     `json:"scope"`
	CPU    plainStall `json:"cpu"`
	Memory plainStall `json:"memory"`
	IO     plainStall `json:"io"`
}

type plainStall struct {
	Some *float64 `json:"some"`
	Full *float64 `json:"full"`
}

func (p plainStall) stall() Stall { return Stall{Some: optional(p.Some), Full: optional(p.Full)} }

// valid is the range check written a second time, the other way round.
func (p plainReport) valid() bool {
	in := func(v *float64, low, high float64) bool { return v == nil || low <= *v && *v <= high }
	whole := func(v *int64, low, high int64) bool { return v == nil || low <= *v && *v <= high }
	cores := 0.0
	if p.Cores != nil {
		cores = *p.Cores
	} else if p.Avail != nil || p.Used != nil || p.CPU != nil {
		return false
	}
	for _, s := range []plainStall{p.Pressure.CPU, p.Pressure.Memory, p.Pressure.IO} {
		if !in(s.Some, 0, 1) || !in(s.Full, 0, 1) {
			return false
		}
	}
	for _, s := range []string{p.Instance, p.Epoch, p.Agent, p.Source, p.Pressure.Scope} {
		if checkText(s) != nil {
			return false
		}
	}
	return p.Version == 1 && p.At >= 1 && p.At <= 1<<53 &&
		(p.Cores == nil || cores > 0 && cores <= 4096) &&
		in(p.Avail, 0, cores) && in(p.Used, 0, cores) && in(p.CPU, 0, 1) && in(p.Mem, 0, 2) && in(p.Err, 0, 1) &&
		in(p.InFlight, 0, 1e9) && in(p.Conc, 0, 1e9) && in(p.RxBytes, 0, 1<<53) && in(p.TxBytes, 0, 1<<53) &&
		whole(p.MemBytes, 0, 1<<53) && whole(p.MemLimit, 1, 1<<53) && whole(p.PollMS, 1, 3_600_000) && whole(p.OwnInFlight, 0, 1e9) &&
		whole(p.AcceptQueue, 0, 1<<53) && whole(p.AcceptLimit, 0, 1<<53)
}

func optional[T bool | int64 | float64](p *T) Opt[T] {
	if p == nil {
		return Opt[T]{}
	}
	return Some(*p)
}

func (p plainReport) report() Report {
	return Report{
		Version: p.Version, Instance: p.Instance, Epoch: p.Epoch, At: p.At,
		InFlight: optional(p.InFlight), InFlightSource: p.Source,
		Avail: optional(p.Avail), Cores: optional(p.Cores), Used: optional(p.Used),
		CPU: optional(p.CPU), Mem: optional(p.Mem), MemBytes: optional(p.MemBytes), MemLimit: optional(p.MemLimit),
		Conc: optional(p.Conc), Listening: optional(p.Listening), Err: optional(p.Err),
		AcceptQueue: optional(p.AcceptQueue), AcceptLimit: optional(p.AcceptLimit),
		Pressure: Pressure{
			Scope: p.Pressure.Scope, CPU: p.Pressure.CPU.stall(), Memory: p.Pressure.Memory.stall(), IO: p.Pressure.IO.stall(),
		},
		RxBytes: optional(p.RxBytes), TxBytes: optional(p.TxBytes),
		PollMS: optional(p.PollMS), OwnInFlight: optional(p.OwnInFlight), AgentVersion: p.Agent,
	}
}

// FuzzReport holds that Decode accepts exactly what encoding/json reads and the ranges
// allow, reads the same, and that what it accepts survives a round trip.
func FuzzReport(f *testing.F) {
	b, _ := Encode(full())
	f.Add(b)
	f.Add([]byte(`{"version":1,"at":5,"cores":1e0,"avail":null,"Avail":0.5,"avail":1}`))
	f.Add([]byte(`{"version":1,"at":5,"mem":-0,"mem_bytes":9007199254740993,"x":[[[]]]}`))
	f.Add([]byte(`{"version":1,"at":5,"mem":0.1,"mem":0.2,"pressure":{"scope":"host","cpu":{"some":-0.0},"cpu":{"full":1}}}`))
	f.Add([]byte(`{"version":1,"at":5,"in_flight":9007199254740993.5,"conc":0.30000000000000004,"rx_bytes_per_second":000001}`))
	f.Add([]byte(`{"version":1,"at":5,"in_flight":12345678901234567890,"conc":1.,"listening":true,"pressure":{}}`))
	f.Add([]byte(`{"version":1,"at":5,"cores":4096,"listening":false,"instance":"\ud800"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := Decode(data)
		var plain plainReport
		want := len(data) <= MaxReportSize && json.Unmarshal(data, &plain) == nil && plain.valid()
		if want != (err == nil) {
			t.Fatalf("Decode: %v; encoding/json and the ranges: accept = %v", err, want)
		}
		if err != nil {
			return
		}
		if r != plain.report() {
			t.Fatalf("read %+v\nencoding/json reads %+v", r, plain.report())
		}
		b, err := Encode(r)
		if err != nil {
			t.Fatalf("accepted, but cannot be encoded: %v", err)
		}
		if back, err := Decode(b); err != nil || back != r {
			t.Fatalf("round trip of %s: %+v, %v", b, back, err)
		}
	})
}

// TestDecodeFast: what agents write takes the short way.
func TestDecodeFast(t *testing.T) {
	for name, r := range map[string]Report{"full": full(), "least": {Version: Version, At: 1}} {
		b, err := Encode(r)
		if err != nil {
			t.Fatal(err)
		}
		if got, ok := decodeFast(b); !ok || got != r {
			t.Errorf("%s: %s was read as %+v, %v", name, b, got, ok)
		}
	}
	for _, in := range []string{`{"at":1,"at":2}`, `{"at":1,"new":2}`, `{"at": 1}`, `{"at":01}`, `{"at":1}}`, `{"mem":1e0}`, `{"mem":null}`, `{}`, `{"AT":1}`, `{"at":1.5}`, `{"epoch":"\\"}`} {
		if r, ok := decodeFast([]byte(in)); ok {
			t.Errorf("%s was read as %+v", in, r)
		}
	}
}

func BenchmarkEncode(b *testing.B) {
	r := full()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Encode(r); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkDecode(b *testing.B) {
	data, _ := Encode(full())
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Decode(data); err != nil {
			b.Fatal(err)
		}
	}
}
