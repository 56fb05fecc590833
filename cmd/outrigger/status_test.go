package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"strings"
	"testing"
	"time"
	"unicode"

	"outrigger/discovery"
	"outrigger/picker"
	"outrigger/sidecar/admin"
	"outrigger/sidecar/balance"
)

func number[T int | float64](v T) *T { return &v }

// statusExample shows every kind of cell.
func statusExample() *admin.StatusDoc {
	return &admin.StatusDoc{
		Version: "1.2.3", UptimeSeconds: 3725, Ready: true,
		Services: []admin.ServiceDoc{
			{
				Name: "web", Listen: "127.0.0.1:8080", Policy: "resource", Mode: "requests per free capacity",
				EndpointsTotal: 3, EndpointsReady: 2, EndpointsEjected: 1,
				AttemptsTotal: 1234, RetriesTotal: 2, RetriesDeniedTotal: 1,
				RefusedTotal: map[string]uint64{"saturated": 0, "queue_full": 3, "no_backends": 1},
				Queue:        admin.QueueDoc{Waiting: 1, ServedTotal: 2, OverflowedTotal: 3, TimedOutTotal: 4},
				Capacity:     admin.CapacityDoc{State: "open", OpenForSeconds: number(1.25), TripsTotal: 1},
				Discovery: &admin.DiscoveryDoc{
					Seen: true, Instances: 3, Unusable: 1, Index: 42, AgeSeconds: number(75.0),
					LastError: "connection refused", FailingForSeconds: number(12.0),
					Holding: "an empty answer that nothing confirms", HoldingForSeconds: number(30.0),
				},
				Traffic: &admin.TrafficDoc{
					ConnectionsOpen: 4, TunnelsOpen: 1, BackendResponsesTotal: map[string]uint64{"2xx": 1200, "5xx": 3, "1xx": 0},
					OwnResponsesTotal: map[string]uint64{"5xx": 4}, ClientErrorsTotal: 5, ClientsGoneTotal: 6, ResponsesAbortedTotal: 7,
				},
				Endpoints: []admin.EndpointDoc{
					{
						ID: "n1/web-1", Address: "10.0.0.1:80", Weight: 1, Health: "passing", Ready: true,
						InFlight: 3, Limit: number(1024), RequestsTotal: 1000, FailuresTotal: 2, LatencySeconds: number(.0123),
						Breaker: admin.EndpointBreakerDoc{State: "closed"},
						Agent:   &admin.AgentDoc{PollsTotal: 9},
						Figures: &admin.FiguresDoc{AgeSeconds: .31, CPU: number(.355), Memory: number(0.0), Listening: true},
					},
					{
						ID: "n2/web-2", Address: "10.0.0.2:80", Weight: 10, Health: "warning",
						Why: "ejected, back in 3.2 s", RequestsTotal: 230, FailuresTotal: 9, LatencySeconds: number(.00042),
						Breaker: admin.EndpointBreakerDoc{State: "open", ReturnsInSeconds: number(3.2), EjectionsTotal: 2},
						Agent:   &admin.AgentDoc{PollsTotal: 9, FailuresTotal: 4},
						Figures: &admin.FiguresDoc{AgeSeconds: 12.4, Expired: true, CPU: number(.9), Listening: true},
					},
					{
						ID: "n3/web-3", Address: "[fd00::3]:80", Health: "passing", Why: "draining (weight 0)",
						LatencySeconds: number(1.26), Breaker: admin.EndpointBreakerDoc{State: "closed"},
					},
				},
			},
			{
				Name: "db", Listen: "127.0.0.1:8081", Policy: "p2c", Mode: "weighted two choices", WhyNoneReady: "no_backends",
				Capacity: admin.CapacityDoc{State: "closed"}, Discovery: &admin.DiscoveryDoc{},
			},
		},
	}
}

const statusGolden = `outrigger 1.2.3 at 127.0.0.1:9911, up 1h02m, ready

web on 127.0.0.1:8080, resource: requests per free capacity; 2 of 3 ready
  discovery  3 instances, index 42, answered 1m15s ago, 1 registrations unusable; HOLDING the set for 30s: an empty answer that nothing confirms; FAILING for 12s: connection refused
  capacity   breaker open for 1.2s, trips: 1; queue: 1 waiting, 2 served, 3 overflowed, 4 timed out
  requests   1234 sent, 2 of them retries, 1 retries denied; own 503s: no_backends 1, queue_full 3
  clients    4 connected, 1 tunnels; passed on: 2xx 1200, 5xx 3; own answers: 5xx 4; bad requests: 5, left early: 6, cut short: 7
  ENDPOINT  ADDRESS       WEIGHT  HEALTH   STATE                   IN-FLIGHT  REQUESTS  FAILED  LATENCY  CPU  MEM  FIGURES      BREAKER
  n1/web-1  10.0.0.1:80   1       passing  ready                   3/1024     1000      2       12ms     36%  0%   0.3s         closed
  n2/web-2  10.0.0.2:80   10      warning  ejected, back in 3.2 s  0          230       9       420µs    90%  -    12s expired  open, ejected 2x
  n3/web-3  [fd00::3]:80  0       passing  draining (weight 0)     0          0         0       1.3s     -    -    -            closed

db on 127.0.0.1:8081, p2c: weighted two choices; 0 of 0 ready, NONE READY: no_backends
  discovery  no answer yet
  capacity   breaker closed, trips: 0; queue: 0 waiting, 0 served, 0 overflowed, 0 timed out
  requests   0 sent, 0 of them retries, 0 retries denied; own 503s: none
`

func TestStatusTable(t *testing.T) {
	t.Parallel()
	if got := string(statusTable(statusExample(), "127.0.0.1:9911")); got != statusGolden {
		t.Errorf("got\n%s\nwant\n%s", got, statusGolden)
	}
}

func TestStatusHead(t *testing.T) {
	t.Parallel()
	for want, doc := range map[string]admin.StatusDoc{
		"up 5.0s, not ready, discovery has not answered yet about: a, b": {UptimeSeconds: 5, WaitingFor: []string{"a", "b"}},
		"up 1m01s, shutting down": {UptimeSeconds: 61, Draining: true},
	} {
		if got, _, _ := strings.Cut(string(statusTable(&doc, "x:1")), "\n"); !strings.HasSuffix(got, want) {
			t.Errorf("got %q, want it to end with %q", got, want)
		}
	}
}

func TestStatusFiguresColumn(t *testing.T) {
	t.Parallel()
	for want, e := range map[string]admin.EndpointDoc{
		"-":                {},
		"waiting":          {Agent: &admin.AgentDoc{}},
		"no answer":        {Agent: &admin.AgentDoc{FailuresTotal: 1}},
		"rejected":         {Agent: &admin.AgentDoc{FailuresTotal: 1, RejectedTotal: 1}},
		"0.5s":             {Figures: &admin.FiguresDoc{AgeSeconds: .5, Listening: true}},
		"0.5s port closed": {Figures: &admin.FiguresDoc{AgeSeconds: .5}},
		"2m05s expired":    {Figures: &admin.FiguresDoc{AgeSeconds: 125, Expired: true}},
	} {
		if got := statusFigures(&e); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

// FuzzStatusTable: whatever the other side says, it stays one row, and moves
// no cursor.
func FuzzStatusTable(f *testing.F) {
	for _, s := range []string{"plain", "\x1b[2J", "\u009b2J", "a\nb", "a\tb", "a\rb", "\u202eevil", "\xff", "\v\f", strings.Repeat("x", 5000), "世界"} {
		f.Add(s)
	}
	lines := strings.Count(statusGolden, "\n")
	f.Fuzz(func(t *testing.T, s string) {
		doc := statusExample()
		web := &doc.Services[0]
		doc.Version, web.Name, web.Listen, web.Mode, web.WhyNoneReady = s, s, s, s, s
		web.RefusedTotal = map[string]uint64{s: 1}
		web.Capacity.State, web.Discovery.LastError, web.Discovery.Holding = s, s, s
		e := &web.Endpoints[1]
		e.ID, e.Address, e.Health, e.Why, e.Breaker.State = s, s, s, s, s
		out := string(statusTable(doc, "x:1"))
		if n := strings.Count(out, "\n"); n != lines {
			t.Errorf("%d lines, want %d:\n%q", n, lines, out)
		}
		for _, r := range out {
			if r != '\n' && !unicode.IsPrint(r) {
				t.Fatalf("%U reaches the terminal in %q", r, out)
			}
		}
	})
}

func TestStatusCleanKeepsBothEnds(t *testing.T) {
	t.Parallel()
	long := "first" + strings.Repeat("x", 100) + "last"
	got := statusClean(long, 20)
	if len([]rune(got)) != 20 || !strings.HasPrefix(got, "first") || !strings.HasSuffix(got, "last") {
		t.Errorf("got %q", got)
	}
}

// statusRun runs the command and returns its exit status and both outputs.
func statusRun(ctx context.Context, args ...string) (code int, out, errs string) {
	var o, e bytes.Buffer
	code = runStatus(ctx, args, streams{strings.NewReader(""), &o, &e})
	return code, o.String(), e.String()
}

// statusSidecar serves a real admin listener over a real balancer.
func statusSidecar(t *testing.T, services ...string) (addr string) {
	t.Helper()
	o := admin.Options{Version: "1.2.3"}
	for _, name := range services {
		cfg := balance.DefaultConfig()
		cfg.Service = name
		b, err := balance.New(cfg, balance.RealEnv(nil))
		if err != nil {
			t.Fatal(err)
		}
		b.Update([]discovery.Instance{{ID: "n/\x1b[2J" + name, Service: name, Address: "10.0.0.1", Port: 80, Weight: 3}})
		l, err := b.TryAcquire(balance.Key{})
		if err != nil {
			t.Fatal(err)
		}
		l.Done(picker.Result{FirstByte: 2 * time.Millisecond})
		o.Services = append(o.Services, admin.Service{Name: name, Listen: "127.0.0.1:1", Status: b.Status})
	}
	return serveAdmin(t, o)
}

// serveAdmin runs an admin listener and returns its address.
func serveAdmin(t *testing.T, o admin.Options) string {
	t.Helper()
	s, err := admin.New(admin.Config{Listen: "127.0.0.1:0"}, o)
	if err != nil {
		t.Fatal(err)
	}
	a, err := s.Listen()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return a.String()
}

func TestStatusOfASidecar(t *testing.T) {
	t.Parallel()
	addr := statusSidecar(t, "web", "db")
	code, out, errs := statusRun(t.Context(), "-addr", addr)
	if code != 0 || errs != "" {
		t.Fatalf("exit %d: %s", code, errs)
	}
	for _, want := range []string{"outrigger 1.2.3 at " + addr, "web on 127.0.0.1:1, least_conn", "db on", "1 of 1 ready",
		"n/\ufffd[2Jweb  10.0.0.1:80  3       passing  ready  0/1024     1         0       2.0ms"} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is missing in\n%s", want, out)
		}
	}
	code, out, _ = statusRun(t.Context(), "-addr", addr, "-service", "db")
	if code != 0 || strings.Contains(out, "web") || !strings.Contains(out, "db on") {
		t.Errorf("-service db: exit %d\n%s", code, out)
	}
	code, out, _ = statusRun(t.Context(), "-addr", addr, "-json")
	var doc admin.StatusDoc
	if err := json.Unmarshal([]byte(out), &doc); code != 0 || err != nil || len(doc.Services) != 2 || strings.Contains(out, "\x1b") {
		t.Errorf("-json: exit %d, %v\n%s", code, err, out)
	}
	code, out, errs = statusRun(t.Context(), "-addr", addr, "-service", "wbe\x1b[2J")
	if code != 1 || out != "" || !strings.Contains(errs, "known are: web, db") || strings.Contains(errs, "\x1b") {
		t.Errorf("unknown service: exit %d, %q, %q", code, out, errs)
	}
}

func TestStatusUsage(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"-h"}, 0, "Usage: outrigger status"},
		{[]string{"-nonsense"}, 2, "Usage: outrigger status"},
		{[]string{"web"}, 2, "use -service NAME"},
		{[]string{"-addr", "nowhere"}, 2, "ADDR:PORT"},
		{[]string{"-service", ""}, 2, "-service needs a name"},
		{[]string{"-watch", "-interval", "1ms"}, 2, "100ms to 1h"},
		{[]string{"-watch", "-interval", "-1s"}, 2, "100ms to 1h"},
		{[]string{"-interval", "2s"}, 2, "needs -watch"},
	} {
		if code, out, errs := statusRun(t.Context(), c.args...); code != c.code || out != "" || !strings.Contains(errs, c.want) {
			t.Errorf("%q: exit %d, %q, %q; want %d and %q", c.args, code, out, errs, c.code, c.want)
		}
	}
}

// serveRaw answers every connection with the bytes given.
func serveRaw(t *testing.T, answer string) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ln.Close() })
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			_, _ = c.Read(make([]byte, 4096))
			_, _ = io.WriteString(c, answer)
			_ = c.Close()
		}
	}()
	return ln.Addr().String()
}

func TestStatusErrors(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ addr, want string }{
		"nobody":     {"127.0.0.1:1", "no sidecar answers at"},
		"not HTTP":   {serveRaw(t, "SSH-2.0-\x1b[2J\r\n"), "no sidecar answers at"},
		"other HTTP": {serveRaw(t, "HTTP/1.1 404 Not\x1b Found\r\nContent-Length: 5\r\n\r\nno\x1b[m"), "answers /v1/status with 404"},
		"redirect":   {serveRaw(t, "HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n"), "with 302"},
		"not JSON":   {serveRaw(t, "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n<html>"), "is no sidecar's admin listener"},
		"cut short":  {serveRaw(t, "HTTP/1.1 200 OK\r\nContent-Length: 600\r\n\r\n{}"), "broke off"},
		"too long":   {serveRaw(t, "HTTP/1.1 200 OK\r\n\r\n"+strings.Repeat(" ", statusMaxBody+1)), "longer than 32 MiB"},
	} {
		t.Run(name, func(t *testing.T) {
			code, out, errs := statusRun(t.Context(), "-addr", c.addr)
			if code != 1 || out != "" || !strings.Contains(errs, c.want) || !strings.Contains(errs, c.addr) {
				t.Errorf("exit %d, %q, %q", code, out, errs)
			}
			if strings.Contains(errs, "\x1b") {
				t.Errorf("control characters reach the terminal: %q", errs)
			}
			// -watch says so at once too.
			if code, _, again := statusRun(t.Context(), "-addr", c.addr, "-watch"); code != 1 || !strings.Contains(again, c.want) {
				t.Errorf("-watch: exit %d, %q", code, again)
			}
		})
	}
}
