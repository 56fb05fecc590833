package main

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"outrigger/agentstats"
)

func someReport() agentstats.Report {
	return agentstats.Report{
		Version: agentstats.Version, Epoch: "7-8", At: 1000,
		Cores: agentstats.Some(0.2), Avail: agentstats.Some(0.15), Used: agentstats.Some(0.1), Listening: agentstats.Some(true),
	}
}

// someDeclarer asks an agent that serves what the real one would.
func someDeclarer(t *testing.T, r agentstats.Report, inFlight int64) *declarer {
	t.Helper()
	body, err := agentstats.Encode(r)
	if err != nil {
		t.Fatal(err)
	}
	agent := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if req.URL.Path == agentstats.ReportPath {
			_, _ = w.Write(body)
		}
	}))
	t.Cleanup(agent.Close)
	return &declarer{agent: agent.Listener.Addr().String(), client: agent.Client(), inFlight: func() int64 { return inFlight }}
}

func TestDeclaredReportIsTheAgentsAndTheCount(t *testing.T) {
	d := someDeclarer(t, someReport(), 5)
	front := httptest.NewServer(d)
	defer front.Close()
	resp, err := http.Get(front.URL + agentstats.ReportPath)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("without a report: %s", resp.Status)
	}
	if err := d.look(context.Background()); err != nil {
		t.Fatal(err)
	}
	before := time.Now().UnixMilli()
	text, err := getWith(context.Background(), front.Client(), front.URL+agentstats.ReportPath)
	if err != nil {
		t.Fatal(err)
	}
	got, err := agentstats.Decode([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	if got.At < before {
		t.Errorf("the count is of now, the report of %d ms before", before-got.At)
	}
	want := someReport()
	want.At, want.InFlight = got.At, agentstats.Some(5.0)
	if got != want {
		t.Errorf("got %+v\nwant %+v", got, want)
	}
	if d.newest.Load().InFlight != (agentstats.Opt[float64]{}) {
		t.Error("the agent's report was changed")
	}
	if _, err := getWith(context.Background(), front.Client(), front.URL+"/"); err == nil {
		t.Error("another path is answered")
	}
}

func TestAgentCheckLine(t *testing.T) {
	with := func(cores, avail float64) agentstats.Report {
		return agentstats.Report{Cores: agentstats.Some(cores), Avail: agentstats.Some(avail)}
	}
	for _, c := range []struct {
		r    agentstats.Report
		ok   bool
		want string
	}{
		{with(0.2, 0.15), true, "75%\n"},
		{with(0.2, 0.2), true, "100%\n"},
		{with(4, 1.011), true, "25%\n"},
		{with(0.2, 0), true, "1%\n"}, // 0% would drain it
		{agentstats.Report{}, true, "100%\n"},
		{agentstats.Report{Cores: agentstats.Some(2.0)}, true, "100%\n"},
		{with(0.2, 0.1), false, "100%\n"},
	} {
		if got := agentCheckLine(c.r, c.ok); got != c.want {
			t.Errorf("%+v, %v: %q, want %q", c.r, c.ok, got, c.want)
		}
	}
}

func TestAgentCheckAnswersAndCloses(t *testing.T) {
	d := someDeclarer(t, someReport(), 0)
	if err := d.look(context.Background()); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { defer close(ended); d.serveAgentCheck(l) }()
	for range 3 {
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(c)
		_ = c.Close()
		if err != nil || string(text) != "75%\n" {
			t.Errorf("%q, %v", text, err)
		}
	}
	_ = l.Close()
	<-ended
}

func TestALookThatFailsKeepsTheLastReport(t *testing.T) {
	d := someDeclarer(t, someReport(), 0)
	if err := d.look(context.Background()); err != nil {
		t.Fatal(err)
	}
	bad := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `{"version":99}`) }))
	defer bad.Close()
	d.agent = bad.Listener.Addr().String()
	if err := d.look(context.Background()); err == nil || !strings.Contains(err.Error(), "version") {
		t.Errorf("a bad report: %v", err)
	}
	if r, ok := d.report(time.Now()); !ok || r.Epoch != "7-8" {
		t.Errorf("%+v, %v", r, ok)
	}
}
