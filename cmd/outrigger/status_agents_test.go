package main

import (
	"strings"
	"testing"

	"outrigger/sidecar/admin"
)

// What is in a backend has a column where an agent knows it.
func TestStatusAtBackend(t *testing.T) {
	num := func(v float64) *float64 { return &v }
	queue := int64(3)
	doc := &admin.StatusDoc{Services: []admin.ServiceDoc{{Endpoints: []admin.EndpointDoc{
		{ID: "n1/a", Figures: &admin.FiguresDoc{Listening: true, InFlight: num(7), Concurrency: num(40.4), InFlightSource: "kernel", AcceptQueue: &queue}},
		{ID: "n1/b", Figures: &admin.FiguresDoc{Listening: true, InFlight: num(0), InFlightSource: "\x1b[31mx"}},
		{ID: "n1/c", Figures: &admin.FiguresDoc{Listening: true, Concurrency: num(9)}},
		{ID: "n1/d"},
	}}}}
	page := string(statusTable(doc, "x:1"))
	for _, want := range []string{"BREAKER  AT BACKEND\n", "  7 of 40, kernel, 3 queued\n", "  0, �[31mx\n"} {
		if !strings.Contains(page, want) {
			t.Errorf("%q is not in\n%s", want, page)
		}
	}
	if n := strings.Count(page, "  -\n"); n != 2 {
		t.Errorf("%d endpoints are said to have nothing known, want 2:\n%s", n, page)
	}
	doc.Services[0].Endpoints = doc.Services[0].Endpoints[2:]
	if page := string(statusTable(doc, "x:1")); strings.Contains(page, "AT BACKEND") {
		t.Errorf("the column is there with nothing in it:\n%s", page)
	}
}
