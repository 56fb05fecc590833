package agentstats

import (
	"encoding/json"
	"strconv"
)

// Opt is a figure that may be unknown; the zero value is unknown.
//
// A value type instead of a pointer: a report stays immutable when it is copied,
// two reports compare with ==, decoding allocates nothing per figure, and a reader
// has to say what it does when the figure is absent instead of dereferencing nil.
// In JSON an unknown figure is left out (the fields carry omitzero); null reads as
// unknown.
type Opt[T bool | int64 | float64] struct {
	v  T
	ok bool
}

// Some returns a known figure.
func Some[T bool | int64 | float64](v T) Opt[T] { return Opt[T]{v: v, ok: true} }

// Get returns the figure and whether it is known; an unknown one is the zero value.
func (o Opt[T]) Get() (T, bool) { return o.v, o.ok }

// Or returns the figure, or d where it is unknown.
func (o Opt[T]) Or(d T) T {
	if o.ok {
		return o.v
	}
	return d
}

// IsZero reports that the figure is unknown; encoding/json's omitzero asks it.
func (o Opt[T]) IsZero() bool { return !o.ok }

// MarshalJSON writes the figure, or null where it is unknown.
func (o Opt[T]) MarshalJSON() ([]byte, error) {
	if !o.ok {
		return []byte("null"), nil
	}
	switch v := any(o.v).(type) {
	case float64:
		return strconv.AppendFloat(nil, v, 'f', -1, 64), nil
	case int64:
		return strconv.AppendInt(nil, v, 10), nil
	}
	return json.Marshal(o.v)
}

// UnmarshalJSON reads a figure; null is unknown. data is one valid JSON value, as
// encoding/json hands it over, of which strconv takes exactly the numbers of the kind;
// handing it back to encoding/json would double the cost of a report.
func (o *Opt[T]) UnmarshalJSON(data []byte) (err error) {
	*o = Opt[T]{}
	if string(data) == "null" {
		return nil
	}
	switch v := any(&o.v).(type) {
	case *float64:
		*v, err = strconv.ParseFloat(string(data), 64)
	case *int64:
		*v, err = strconv.ParseInt(string(data), 10, 64)
	default:
		err = json.Unmarshal(data, v)
	}
	if err != nil {
		*o = Opt[T]{}
		return err
	}
	o.ok = true
	return nil
}
