package agentstats

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
)

// scripted is a sampler whose figures the test sets.
type scripted struct {
	mu    sync.Mutex
	r     Report
	state string
}

func (s *scripted) sample(time.Time) (Report, string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.r, s.state
}

func (s *scripted) set(r Report) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.r = r
}

// log collects what is logged.
type log struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *log) count(text string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.buf.String(), text)
}

func (l *log) logger() hclog.Logger {
	return hclog.New(&hclog.LoggerOptions{Output: l, Level: hclog.Debug})
}

// runAgent runs an agent on a free loopback port until the test ends, and returns its
// address.
func runAgent(t *testing.T, a *Agent) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	a.env.Listen = func(string, string) (net.Listener, error) { return l, nil }
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return l.Addr().String()
}

// scriptedAgent is an agent with everything real but its sampler.
func scriptedAgent(s *scripted, logger hclog.Logger) *Agent {
	cfg := DefaultConfig()
	cfg.Interval = 50 * ms
	cfg.Instance = "web-1"
	return &Agent{cfg: cfg, env: Env{Logger: logger, Version: "1.2.3", Now: time.Now}, sampler: s, counting: &counting{now: time.Now}, started: time.Now()}
}

func fetch(t *testing.T, method, url string) (int, string, http.Header) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body), resp.Header
}

func TestAgentServes(t *testing.T) {
	s := &scripted{r: Report{Cores: Some(2.0), Used: Some(0.5), Listening: Some(true), Epoch: "1-2"}, state: "process 1 (app)"}
	url := "http://" + runAgent(t, scriptedAgent(s, hclog.NewNullLogger()))

	code, body, head := fetch(t, "GET", url+ReportPath)
	r, err := Decode([]byte(body))
	if code != 200 || err != nil || head.Get("Content-Type") != "application/json" || head.Get("Cache-Control") != "no-store" {
		t.Fatalf("%d %s %v, %v", code, body, head, err)
	}
	if age := time.Since(time.UnixMilli(r.At)); age < -time.Second || age > patience {
		t.Errorf("the sample is %s old", age)
	}
	first := r.At
	r.At = 0
	if want := (Report{Version: Version, Instance: "web-1", AgentVersion: "1.2.3", Cores: Some(2.0), Used: Some(0.5), Listening: Some(true), Epoch: "1-2"}); r != want {
		t.Errorf("got %+v, want %+v", r, want)
	}

	s.set(Report{Listening: Some(false)})
	for deadline := time.Now().Add(patience); ; {
		_, body, _ = fetch(t, "GET", url+ReportPath)
		if r, err := Decode([]byte(body)); err == nil && r.At > first && r.Listening == Some(false) && r.Cores.IsZero() {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("no new sample is served: %s", body)
		}
	}

	for _, c := range []struct {
		method, path string
		code         int
		body         string
	}{
		{"HEAD", ReportPath, 200, ""},
		{"POST", ReportPath, 405, ""},
		{"DELETE", "/healthz", 405, ""},
		{"GET", "/healthz", 200, "ok\nprocess 1 (app)\n"},
		{"GET", "/", 404, ""},
		{"GET", "/v1/report/", 404, ""},
	} {
		code, body, _ := fetch(t, c.method, url+c.path)
		if code != c.code || c.body != "" && body != c.body {
			t.Errorf("%s %.20s: %d %q, want %d %q", c.method, c.path, code, body, c.code, c.body)
		}
	}
}

func TestAgentBoundsHeads(t *testing.T) {
	addr := runAgent(t, scriptedAgent(&scripted{}, hclog.NewNullLogger()))
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(patience))
	// The end of the head never comes: the agent must not wait for it and keep what came.
	_, _ = io.WriteString(c, "GET "+ReportPath+" HTTP/1.1\r\nHost: x\r\nX: "+strings.Repeat("x", 16<<10))
	answer, err := io.ReadAll(c)
	if ok := strings.HasPrefix(string(answer), "HTTP/1.1 431 "); !ok && (len(answer) > 0 || isTimeout(err)) {
		t.Errorf("got %q, %v, want 431 or a closed connection", answer, err)
	}
}

func TestAgentDropsImpossibleSamples(t *testing.T) {
	var out log
	s := &scripted{r: Report{Cores: Some(2.0)}}
	a := scriptedAgent(s, out.logger())
	a.take()
	good := a.newest.Load()
	s.set(Report{Cores: Some(-1.0)})
	a.take()
	if a.newest.Load() != good || out.count("a sample was dropped") != 1 {
		t.Error("a sample out of range was published")
	}
	// Health tells that nothing new comes.
	now := time.Now().Add(time.Minute)
	a.env.Now = func() time.Time { return now }
	url := "http://" + runAgent(t, a)
	if code, body, _ := fetch(t, "GET", url+"/healthz"); code != 503 || !strings.Contains(body, "old") {
		t.Errorf("%d %s", code, body)
	}
}

func TestAgentBoundsConnections(t *testing.T) {
	var out log
	a := scriptedAgent(&scripted{}, out.logger())
	a.cfg.MaxConns = 2
	addr := runAgent(t, a)
	var conns []net.Conn
	ask := func() (net.Conn, error) {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			return nil, err
		}
		_ = c.SetDeadline(time.Now().Add(patience))
		_, _ = io.WriteString(c, "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
		_, err = io.ReadFull(c, make([]byte, len("HTTP/1.1 200 OK")))
		return c, err
	}
	for range 2 {
		c, err := ask()
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		conns = append(conns, c)
	}
	for range 3 {
		c, err := ask()
		if err == nil {
			t.Fatal("a third connection was served")
		}
		c.Close()
	}
	if n := out.count("turned away"); n != 1 {
		t.Errorf("logged %d times, want once", n)
	}
	conns[0].Close()
	for deadline := time.Now().Add(patience); ; {
		c, err := ask()
		if err == nil {
			c.Close()
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("a closed connection is not given back: %v", err)
		}
	}
}

func TestAgentErrors(t *testing.T) {
	if _, err := NewAgent(DefaultConfig(), Env{}); err == nil || !strings.Contains(err.Error(), "listen") {
		t.Errorf("an invalid config: %v", err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	a := scriptedAgent(&scripted{}, hclog.NewNullLogger())
	a.cfg.Listen, a.env.Listen = l.Addr().String(), net.Listen
	if err := a.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "cannot listen on "+l.Addr().String()) {
		t.Errorf("a taken port: %v", err)
	}
}

// collect runs a poller until the test ends and returns a function that waits for a
// sample of the endpoint that is as wished.
func collect(t *testing.T, p *Poller) func(id string, wished func(Sample) bool) Sample {
	samples := make(chan struct {
		id string
		s  Sample
	}, 1000)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- p.Run(ctx, func(id string, s Sample) {
			samples <- struct {
				id string
				s  Sample
			}{id, s}
		})
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return func(id string, wished func(Sample) bool) Sample {
		t.Helper()
		deadline := time.After(patience)
		for {
			select {
			case got := <-samples:
				if got.id == id && wished(got.s) {
					return got.s
				}
			case <-deadline:
				t.Fatalf("no such sample of %s; status %+v", id, fmt.Sprint(p.All()))
			}
		}
	}
}

// patience bounds each wait for something real. Nothing here takes longer than a
// second on an idle machine.
const patience = 60 * time.Second

// TestPollerAndAgent polls a real agent over loopback, through an agent restart.
func TestPollerAndAgent(t *testing.T) {
	s := &scripted{r: Report{Cores: Some(1.5), Epoch: "1-1"}}
	addr := runAgent(t, scriptedAgent(s, hclog.NewNullLogger()))
	cfg := DefaultPollConfig()
	cfg.Interval = 100 * ms
	p := NewPoller(cfg, PollEnv{InFlight: func(id string) int64 { return int64(len(id)) }})
	p.SetTargets([]Target{{ID: "web-1", Addr: addr, Instance: "web-1"}, {ID: "other", Addr: addr, Instance: "other"}})
	next := collect(t, p)
	got := next("web-1", func(Sample) bool { return true })
	if got.Report.Cores != Some(1.5) || got.Report.Instance != "web-1" || got.OwnInFlight != 5 || got.RTT <= 0 || got.RTT > patience || got.At <= 0 {
		t.Errorf("got %+v", got)
	}
	s.set(Report{Cores: Some(1.5), Epoch: "2-2"})
	next("web-1", func(s Sample) bool { return s.Report.Epoch == "2-2" })
	for deadline := time.Now().Add(patience); ; {
		st, ok := p.Status("other")
		if ok && st.Rejected > 0 && st.Accepted == 0 && strings.Contains(st.LastError, `about instance "web-1"`) {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("the report of another instance: %+v", st)
		}
	}
}
