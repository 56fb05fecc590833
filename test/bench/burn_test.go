package main

import (
	"io"
	"testing"
)

func TestWorkOf(t *testing.T) {
	for _, c := range []struct {
		head string
		want int // -1: an error
	}{
		{"GET /w/2500 HTTP/1.1\r\nHost: x\r\n\r\n", 2500},
		{"GET /w/0 HTTP/1.1\r\n\r\n", 0},
		{"GET /w/60000000 HTTP/1.1\r\n\r\n", 60000000},
		{"GET /w/60000001 HTTP/1.1\r\n\r\n", -1},
		{"GET /w/-1 HTTP/1.1\r\n\r\n", -1},
		{"GET /w/ HTTP/1.1\r\n\r\n", -1},
		{"GET /w/12", -1},
		{"POST /w/12 HTTP/1.1\r\n\r\n", -1},
		{"", -1},
	} {
		got, err := workOf([]byte(c.head))
		if (err != nil) != (c.want < 0) || err == nil && got != c.want {
			t.Errorf("%q: %d, %v", c.head, got, err)
		}
	}
}

func FuzzWorkOf(f *testing.F) {
	f.Add([]byte("GET /w/2500 HTTP/1.1\r\n\r\n"))
	f.Add([]byte("GET /w/99999999999999999999 "))
	f.Fuzz(func(t *testing.T, head []byte) {
		if n, err := workOf(head); err == nil && (n < 0 || n > maxWork) {
			t.Errorf("%q: %d units", head, n)
		}
	})
}

func TestBurnPlanSurvivesItsCommandLine(t *testing.T) {
	p := burnPlan{addr: "127.0.0.1:1", gauge: "/x y", unit: 321}
	got, err := parseBurnPlan(p.args()[1:], io.Discard)
	if err != nil || got != p {
		t.Errorf("%+v, %v; want %+v", got, err, p)
	}
	for _, args := range [][]string{nil, {"-addr", "a", "-gauge", "g"}, {"-addr", "a", "-unit", "3"}, {"-nonsense"}} {
		if _, err := parseBurnPlan(args, io.Discard); err == nil {
			t.Errorf("%q is a backend", args)
		}
	}
}
