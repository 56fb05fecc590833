// Package orca reads the load that a backend declares in the header
// "endpoint-load-metrics" of its answers: Open Request Cost Aggregation, as Envoy,
// gRPC and vLLM speak it (message xds.data.orca.v3.OrcaLoadReport; the grammar is that
// of Envoy's source/common/orca/orca_parser.cc).
//
// The value is a word for the form, a blank, and the report:
//
//	TEXT cpu_utilization:0.7, named_metrics.in_flight:12
//	JSON {"cpu_utilization": 0.7, "named_metrics": {"in_flight": 12}}
//	BIN  base64 of the protobuf message
//
// ORCA has no figure for requests in flight: it is taken from a named metric.
//
// This is stricter than Envoy where a figure is out of its range (negative, say), which
// refuses the whole report, and more lenient where it is unknown: it is skipped, so that
// backends may say what is meant for others. In TEXT, "=" may stand for ":", as vLLM
// writes it.
package orca

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"strconv"
)

// Header is the name of the header, in lower case. Envoy also reads
// "endpoint-load-metrics-bin", which gRPC sends in trailers; those are of HTTP/2.
const Header = "endpoint-load-metrics"

// DefaultInFlight is the named metric that tells the requests in flight.
const DefaultInFlight = "in_flight"

// Bounds of a value: many times what backends send. The worst value in TEXT or BIN takes
// microseconds, in JSON some tens of them.
const (
	MaxSize    = 4 << 10 // bytes
	maxJSON    = 1 << 10 // bytes of the form that is dear to read
	maxMetrics = 64
	maxNumber  = 64 // bytes of one number
	maxName    = 128
)

// Bounds of figures: above anything real, they keep nonsense out of arithmetic.
const (
	maxUtilization = 1e6
	maxMem         = 2
	maxRate        = 1e12
	maxInFlight    = 1e9
)

// Absent marks a figure that the report does not tell: unknown is not zero.
const Absent = -1

// Report is what one value tells, of which the sender's other figures are left out.
// Every figure may be Absent.
type Report struct {
	InFlight float64 // requests in the backend, 0 to 1e9, by the named metric asked for
	CPU      float64 // cpu_utilization: share of the CPU it may use; above 1 over a soft limit
	Mem      float64 // mem_utilization: share of the memory it may use, 0 to 2
	App      float64 // application_utilization: as CPU, of whatever is scarce in it
	RPS      float64 // rps_fractional: requests per second, from everyone
	EPS      float64 // eps: errors per second
}

// ErrShare is the share of requests that fail, 0 to 1, Absent where the report does not
// tell both rates or nothing is asked of the backend.
func (r Report) ErrShare() float64 {
	if r.EPS < 0 || r.RPS <= 0 {
		return Absent
	}
	return min(1, r.EPS/r.RPS)
}

// Parse reads an untrusted value. inFlight names the metric below named_metrics that
// tells the requests in flight; the report keeps nothing of value. TEXT is read without
// an allocation. A report with one figure that is malformed, out of range or there twice
// is refused as a whole.
func Parse(value []byte, inFlight string) (Report, error) {
	r := Report{Absent, Absent, Absent, Absent, Absent, Absent}
	if len(value) > MaxSize {
		return r, fmt.Errorf("load report refused: %d bytes, more than %d", len(value), MaxSize)
	}
	form, rest, _ := bytes.Cut(value, []byte(" "))
	var err error
	switch string(form) {
	case "TEXT":
		err = r.text(rest, inFlight)
	case "JSON":
		if len(rest) > maxJSON {
			err = fmt.Errorf("%d bytes of JSON, more than %d", len(rest), maxJSON)
			break
		}
		err = r.json(rest, inFlight)
	case "BIN":
		err = r.bin(bytes.TrimSpace(rest), inFlight)
	default:
		err = fmt.Errorf("it begins with %.16q, not TEXT, JSON or BIN", form)
	}
	if err != nil {
		return Report{Absent, Absent, Absent, Absent, Absent, Absent}, fmt.Errorf("load report refused: %w", err)
	}
	return r, nil
}

// CheckName reports why a metric cannot be named so in every form.
func CheckName(name string) error {
	if name == "" || len(name) > maxName {
		return fmt.Errorf("it must have 1 to %d characters", maxName)
	}
	for _, c := range []byte(name) {
		if c <= ' ' || c >= 0x7f || c == ',' || c == '"' || c == '\\' {
			return errors.New(`it must be of visible ASCII without comma, quote and backslash`)
		}
	}
	return nil
}

// text reads "name:number, name:number".
func (r *Report) text(list []byte, inFlight string) error {
	var seen names
	for len(list) > 0 {
		var item []byte
		item, list, _ = bytes.Cut(list, []byte(","))
		if item = bytes.TrimSpace(item); len(item) == 0 {
			continue
		}
		// The last one: a number has neither, a name might.
		i := bytes.LastIndexAny(item, ":=")
		if i < 0 {
			return fmt.Errorf("%.64q is not NAME:NUMBER", item)
		}
		name := bytes.TrimSpace(item[:i])
		if len(name) == 0 {
			return errors.New("a metric has no name")
		}
		v, err := number(bytes.TrimSpace(item[i+1:]))
		if err != nil {
			return fmt.Errorf("%.64q %w", name, err)
		}
		if err := seen.add(name); err != nil {
			return err
		}
		if err := r.set(name, v, inFlight); err != nil {
			return err
		}
	}
	return nil
}

// set takes in the metric, named as TEXT does.
func (r *Report) set(name []byte, v float64, inFlight string) error {
	if named, ok := bytes.CutPrefix(name, []byte("named_metrics.")); ok {
		if len(named) == 0 {
			return errors.New("a named metric has no name")
		}
		if string(named) != inFlight {
			return nil // opaque: of whatever range
		}
		return take(&r.InFlight, name, v, maxInFlight)
	}
	switch string(name) {
	case "cpu_utilization":
		return take(&r.CPU, name, v, maxUtilization)
	case "mem_utilization":
		return take(&r.Mem, name, v, maxMem)
	case "application_utilization":
		return take(&r.App, name, v, maxUtilization)
	case "rps_fractional":
		return take(&r.RPS, name, v, maxRate)
	case "eps":
		return take(&r.EPS, name, v, maxRate)
	}
	return nil
}

func take(to *float64, name []byte, v, most float64) error {
	if !(v >= 0 && v <= most) { // also NaN
		return fmt.Errorf("%.64q is %v, outside 0 to %v", name, v, most)
	}
	*to = v
	return nil
}

// number reads a decimal number: no sign of infinity, NaN, hexadecimal or underscores,
// which strconv would take.
func number(b []byte) (float64, error) {
	if len(b) == 0 || len(b) > maxNumber {
		return 0, fmt.Errorf("has a number of %d bytes", len(b))
	}
	for _, c := range b {
		if (c < '0' || c > '9') && c != '.' && c != '-' && c != '+' && c != 'e' && c != 'E' {
			return 0, fmt.Errorf("is %.64q, not a decimal number", b)
		}
	}
	v, err := strconv.ParseFloat(string(b), 64)
	if err != nil || math.IsInf(v, 0) {
		return 0, fmt.Errorf("is %.64q, not a decimal number", b)
	}
	return v, nil
}

// names are those met in a value, which must differ.
type names struct {
	list [maxMetrics][]byte
	n    int
}

func (s *names) add(name []byte) error {
	if s.n == len(s.list) {
		return fmt.Errorf("more than %d metrics", maxMetrics)
	}
	for _, old := range s.list[:s.n] {
		if bytes.Equal(old, name) {
			return fmt.Errorf("%.64q is there twice", name)
		}
	}
	s.list[s.n] = name
	s.n++
	return nil
}
