package h1

import (
	"fmt"
	"testing"
)

// Max-Forwards counts for TRACE and OPTIONS alone (RFC 9110 section 7.6.2).
func TestMaxForwards(t *testing.T) {
	show := func(h *Head) string { return fmt.Sprint(h.MaxForwards) }
	for _, r := range []struct {
		method string
		fields []string
		want   string
	}{
		{"TRACE", nil, "-1"},
		{"TRACE", []string{"Max-Forwards: 0"}, "0"},
		{"OPTIONS", []string{"mAX-fORWARDS: 10"}, "10"},
		{"OPTIONS", []string{"Max-Forwards: 007"}, "7"},
		{"OPTIONS", []string{"Max-Forwards: 99999999999999999999999999999999"}, fmt.Sprint(mostForwards)},
		{"OPTIONS", []string{"Max-Forwards:"}, "400"},
		{"OPTIONS", []string{"Max-Forwards: -1"}, "400"},
		{"OPTIONS", []string{"Max-Forwards: +1"}, "400"},
		{"OPTIONS", []string{"Max-Forwards: 1, 1"}, "400"},
		{"OPTIONS", []string{"Max-Forwards: 1x"}, "400"},
		{"TRACE", []string{"Max-Forwards: 1", "Max-Forwards: 1"}, "400"},
		{"GET", []string{"Max-Forwards: 1"}, "-1"},
		{"GET", []string{"Max-Forwards: x", "Max-Forwards: y"}, "-1"},
		{"trace", []string{"Max-Forwards: x"}, "-1"}, // another method, as methods are case-sensitive
	} {
		in := lines(append([]string{r.method + " / HTTP/1.1", "Host: a"}, r.fields...)...)
		m, err := readRequest([]byte(in), DefaultLimits())
		if got := outcome(m, err, show); got != r.want+" " && got != r.want {
			t.Errorf("%q: %s, want %s (%v)", in, got, r.want, err)
		}
	}
}

// What of Accept makes our own answers JSON (RFC 9110 section 12.5.1).
func TestWantsJSON(t *testing.T) {
	for _, r := range []struct {
		accept []string
		want   bool
	}{
		{nil, false},
		{[]string{""}, false},
		{[]string{"*/*"}, false}, // plain text will do
		{[]string{"application/*"}, false},
		{[]string{"application/json"}, true},
		{[]string{"Application/JSON"}, true},
		{[]string{"application/json;charset=utf-8"}, true},
		{[]string{"application/json, text/plain, */*"}, true}, // axios
		{[]string{"text/html", "application/json"}, true},
		{[]string{"application/json;q=0"}, false},
		{[]string{"application/json;q=0.000"}, false},
		{[]string{"application/json;q=0.001"}, true},
		{[]string{"application/json; q=0, */*"}, false},
		{[]string{"application/json;q=0.5, text/plain"}, false},
		{[]string{"application/json;q=0.5, text/plain;q=0.5"}, true},
		{[]string{"application/json;q=0.5, text/plain;q=0.51"}, false},
		{[]string{"text/plain;q=0.4, application/json ; Q=0.5"}, true},
		{[]string{"application/json;q=0.5, */*"}, false},
		{[]string{"application/json;q=0.5, */*;q=0.1"}, true},
		{[]string{"application/json;q=0.5, text/*;q=0.9, text/plain;q=0.1"}, true}, // the closest range counts
		{[]string{"text/plain;q=0.1, text/*;q=0.9, application/json;q=0.5, */*"}, true},
		{[]string{"application/json;q=0.5, */*;q=0.1, text/*"}, false},
		{[]string{"application/json;q=x"}, false},
		{[]string{"application/json;q=2"}, false},
		{[]string{"application/json;q=0.0001"}, false},
		{[]string{"application/json;q="}, false},
		{[]string{"application/jsonp"}, false},
		{[]string{"application/problem+json"}, false},
	} {
		var fields []string
		for _, a := range r.accept {
			fields = append(fields, "Accept: "+a)
		}
		m, err := readRequest([]byte(get(fields...)), DefaultLimits())
		if err != nil {
			t.Fatal(err)
		}
		if got := m.head.wants("application/json"); got != r.want {
			t.Errorf("Accept %q: %v", r.accept, got)
		}
	}
}
