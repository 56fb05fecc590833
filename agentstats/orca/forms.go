package orca

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math"

	"google.golang.org/protobuf/encoding/protowire"
)

// camel maps the names of proto3's JSON mapping, of which a reader takes both, to those
// of the message.
var camel = map[string]string{ // read-only
	"cpuUtilization":         "cpu_utilization",
	"memUtilization":         "mem_utilization",
	"applicationUtilization": "application_utilization",
	"rpsFractional":          "rps_fractional",
	"namedMetrics":           "named_metrics",
}

// json reads an OrcaLoadReport in proto3's JSON mapping. Numbers may stand in quotes;
// null is absent.
func (r *Report) json(text []byte, inFlight string) error {
	var seen names
	return eachMember(text, func(name string, value []byte) error {
		if plain := camel[name]; plain != "" {
			name = plain
		}
		switch name {
		case "named_metrics":
			if err := seen.add([]byte(name)); err != nil || string(value) == "null" {
				return err
			}
			return eachMember(value, func(name string, value []byte) error {
				return r.member([]byte("named_metrics."+name), value, &seen, inFlight)
			})
		case "cpu_utilization", "mem_utilization", "application_utilization", "rps_fractional", "eps":
			return r.member([]byte(name), value, &seen, inFlight)
		}
		return seen.add([]byte(name))
	})
}

func (r *Report) member(name, value []byte, seen *names, inFlight string) error {
	if err := seen.add(name); err != nil || string(value) == "null" {
		return err
	}
	if n := len(value); n > 1 && value[0] == '"' { // valid JSON, so it ends in one
		value = value[1 : n-1]
	}
	v, err := number(value)
	if err != nil {
		return fmt.Errorf("%.64q %w", name, err)
	}
	return r.set(name, v, inFlight)
}

// eachMember calls f with every member of a JSON object, also with those that are there
// twice, of which a map would show one.
func eachMember(text []byte, f func(name string, value []byte) error) error {
	if !json.Valid(text) {
		return errors.New("it is not JSON")
	}
	d := json.NewDecoder(bytes.NewReader(text))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return errors.New("it is not a JSON object")
	}
	for d.More() {
		t, err := d.Token()
		if err != nil {
			return err
		}
		name, _ := t.(string) // a member's name is nothing else
		var value json.RawMessage
		if err := d.Decode(&value); err != nil {
			return err
		}
		if err := f(name, value); err != nil {
			return err
		}
	}
	return nil
}

// Field numbers of xds.data.orca.v3.OrcaLoadReport.
const (
	numCPU           = 1
	numMem           = 2
	numRPS           = 6
	numEPS           = 7
	numNamed         = 8
	numApp           = 9
	numKey, numValue = 1, 2 // of a map's entry
)

// bin reads an OrcaLoadReport in base64. The wire format leaves out what is 0, which
// here reads as absent, and lets the last of several count.
func (r *Report) bin(text []byte, inFlight string) error {
	msg, err := base64.RawStdEncoding.AppendDecode(nil, bytes.TrimRight(text, "="))
	if err != nil || len(msg) == 0 {
		return errors.New("it is not base64 of a message")
	}
	for left := maxMetrics; len(msg) > 0; left-- {
		if left == 0 {
			return fmt.Errorf("more than %d metrics", maxMetrics)
		}
		num, typ, value, rest, err := field(msg)
		if err != nil {
			return err
		}
		msg = rest
		switch {
		case num == numNamed && typ == protowire.BytesType:
			err = r.entry(value, inFlight)
		case typ == protowire.Fixed64Type:
			err = r.double(num, value)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// double takes in a top-level figure.
func (r *Report) double(num protowire.Number, value []byte) error {
	name := ""
	switch num {
	case numCPU:
		name = "cpu_utilization"
	case numMem:
		name = "mem_utilization"
	case numApp:
		name = "application_utilization"
	case numRPS:
		name = "rps_fractional"
	case numEPS:
		name = "eps"
	default:
		return nil
	}
	return r.set([]byte(name), float(value), "")
}

// entry takes in an entry of the map named_metrics.
func (r *Report) entry(msg []byte, inFlight string) error {
	var key []byte
	v := 0.0
	for len(msg) > 0 {
		num, typ, value, rest, err := field(msg)
		if err != nil {
			return err
		}
		msg = rest
		switch {
		case num == numKey && typ == protowire.BytesType:
			key = value
		case num == numValue && typ == protowire.Fixed64Type:
			v = float(value)
		}
	}
	if len(key) > 0 && string(key) == inFlight {
		return take(&r.InFlight, key, v, maxInFlight)
	}
	return nil
}

// field cuts a field off msg: value is its content, 8 bytes of a Fixed64Type.
func field(msg []byte) (num protowire.Number, typ protowire.Type, value, rest []byte, err error) {
	num, typ, n := protowire.ConsumeTag(msg)
	if n < 0 {
		return 0, 0, nil, nil, errors.New("it is not a protobuf message")
	}
	msg = msg[n:]
	if n = protowire.ConsumeFieldValue(num, typ, msg); n < 0 {
		return 0, 0, nil, nil, errors.New("it is not a protobuf message")
	}
	value = msg[:n]
	if typ == protowire.BytesType {
		value, _ = protowire.ConsumeBytes(msg)
	}
	return num, typ, value, msg[n:], nil
}

// float reads the content of a double.
func float(b []byte) float64 {
	bits, _ := protowire.ConsumeFixed64(b)
	return math.Float64frombits(bits)
}
