package admin

import (
	"context"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"outrigger/discovery"
	"outrigger/sidecar/balance"
)

// fleet is a real balancer on a clock of its own.
type fleet struct {
	*balance.Balancer
	now time.Duration
}

func newFleet(t testing.TB, change func(*balance.Config)) *fleet {
	t.Helper()
	f := &fleet{now: time.Second}
	cfg := balance.DefaultConfig()
	cfg.Service = "web"
	if change != nil {
		change(&cfg)
	}
	b, err := balance.New(cfg, balance.Env{
		Now:  func() time.Duration { return f.now },
		Rand: func(uint32) uint32 { return 0 },
	})
	if err != nil {
		t.Fatal(err)
	}
	f.Balancer = b
	return f
}

func instance(id string, port int) discovery.Instance {
	node, _, _ := strings.Cut(id, "/")
	return discovery.Instance{
		ID: id, Service: "web", Node: node, Datacenter: "dc1", Address: "10.0.0.1", Port: port, Weight: 1,
		Meta: map[string]string{"secret": "hunter2"},
	}
}

func (f *fleet) lease(t testing.TB) balance.Lease {
	t.Helper()
	l, err := f.TryAcquire(balance.Key{})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// start serves until the test ends.
func start(t testing.TB, o Options) (s *Server, addr string) {
	t.Helper()
	s, err := New(Config{Listen: "127.0.0.1:0"}, o)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Listen(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	return s, s.Addr().String()
}

// ask sends a request over a connection of its own. host "" is the address.
func ask(t testing.TB, method, addr, path, host string) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, "http://"+addr+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Host = host
	tr := &http.Transport{DisableKeepAlives: true}
	defer tr.CloseIdleConnections()
	resp, err := tr.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(body)
}

func get(t testing.TB, addr, path string) (int, string) {
	t.Helper()
	resp, body := ask(t, "GET", addr, path, "")
	return resp.StatusCode, body
}

// scrape reads /metrics into values by series, as the text format writes them.
func scrape(t testing.TB, addr string) map[string]float64 {
	t.Helper()
	status, body := get(t, addr, "/metrics")
	if status != http.StatusOK {
		t.Fatalf("/metrics: %d\n%s", status, body)
	}
	series := map[string]float64{}
	for line := range strings.Lines(body) {
		line = strings.TrimSuffix(line, "\n")
		if strings.HasPrefix(line, "#") {
			continue
		}
		i := strings.LastIndexByte(line, ' ')
		v, err := strconv.ParseFloat(line[i+1:], 64)
		if err != nil {
			t.Fatalf("line %q: %v", line, err)
		}
		series[line[:i]] = v
	}
	return series
}

func dial(t testing.TB, addr string) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}
