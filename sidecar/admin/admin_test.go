package admin

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"outrigger/discovery"
	"outrigger/sidecar/balance"
)

func TestNewRefuses(t *testing.T) {
	t.Parallel()
	status := func() balance.Status { return balance.Status{} }
	for name, c := range map[string]struct {
		listen   string
		services []Service
		want     string
	}{
		"not loopback": {"192.0.2.1:9911", nil, "not a loopback address"},
		"everywhere":   {":9911", nil, "not a loopback address"},
		"no port":      {"127.0.0.1", nil, "ADDR:PORT"},
		"no name":      {"127.0.0.1:0", []Service{{Status: status}}, "empty or not UTF-8"},
		"bad name":     {"127.0.0.1:0", []Service{{Name: "\xff", Status: status}}, "empty or not UTF-8"},
		"twice":        {"127.0.0.1:0", []Service{{Name: "a", Status: status}, {Name: "a", Status: status}}, "twice"},
		"no status":    {"127.0.0.1:0", []Service{{Name: "a"}}, "no Status"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := New(Config{Listen: c.listen}, Options{Services: c.services}); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want an error with %q", err, c.want)
			}
		})
	}
}

func TestListenErrors(t *testing.T) {
	t.Parallel()
	s, err := New(Config{Listen: "127.0.0.1:0"}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if s.Addr() != nil {
		t.Errorf("Addr before Listen is %v", s.Addr())
	}
	if err := s.Serve(t.Context()); err == nil {
		t.Error("Serve before Listen did not fail")
	}
	addr, err := s.Listen()
	if err != nil {
		t.Fatal(err)
	}
	defer s.ln.Close()
	taken, err := New(Config{Listen: addr.String()}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := taken.Listen(); err == nil || !strings.Contains(err.Error(), addr.String()) {
		t.Errorf("listening on a taken port: %v", err)
	}
}

func TestReadiness(t *testing.T) {
	t.Parallel()
	var draining atomic.Bool
	a, b := newFleet(t, nil), newFleet(t, nil)
	_, addr := start(t, Options{
		Services: []Service{{Name: "a", Status: a.Status}, {Name: "b", Status: b.Status}},
		Draining: draining.Load,
	})
	steps := []struct {
		do     func()
		status int
		body   string
	}{
		{func() {}, 503, "waiting for the first answer of discovery about: a, b\n"},
		{func() { b.Update([]discovery.Instance{instance("n/1", 80)}) }, 503, "waiting for the first answer of discovery about: a\n"},
		// An answer that there are none is an answer.
		{func() { a.Update(nil) }, 200, "ready\n"},
		{func() { b.Update(nil) }, 200, "ready\n"},
		{func() { draining.Store(true) }, 503, "draining\n"},
		{func() { draining.Store(false) }, 200, "ready\n"},
	}
	for i, step := range steps {
		step.do()
		if status, body := get(t, addr, "/readyz"); status != step.status || body != step.body {
			t.Errorf("step %d: %d %q, want %d %q", i, status, body, step.status, step.body)
		}
		if ready := scrape(t, addr)["outrigger_ready"]; ready != truth(step.status == 200) {
			t.Errorf("step %d: outrigger_ready is %v", i, ready)
		}
		if status, body := get(t, addr, "/healthz"); status != 200 || body != "ok\n" {
			t.Errorf("step %d: /healthz says %d %q", i, status, body)
		}
	}
}

func TestMethodsAndPaths(t *testing.T) {
	t.Parallel()
	_, addr := start(t, Options{})
	for _, path := range []string{"/", "/healthz", "/readyz", "/metrics", "/v1/status"} {
		resp, body := ask(t, "GET", addr, path, "")
		if resp.StatusCode != 200 || body == "" {
			t.Errorf("GET %s: %d with %d bytes", path, resp.StatusCode, len(body))
		}
		for name, want := range map[string]string{
			"X-Content-Type-Options": "nosniff", "Cache-Control": "no-store", "Access-Control-Allow-Origin": "",
		} {
			if got := resp.Header.Get(name); got != want {
				t.Errorf("GET %s: %s is %q, want %q", path, name, got, want)
			}
		}
		if resp, body := ask(t, "HEAD", addr, path, ""); resp.StatusCode != 200 || body != "" {
			t.Errorf("HEAD %s: %d with body %q", path, resp.StatusCode, body)
		}
		for _, method := range []string{"POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"} {
			resp, _ := ask(t, method, addr, path, "")
			if resp.StatusCode != http.StatusMethodNotAllowed || resp.Header.Get("Allow") != "GET, HEAD" {
				t.Errorf("%s %s: %d, Allow %q", method, path, resp.StatusCode, resp.Header.Get("Allow"))
			}
		}
		if path != "/" && !strings.Contains(index, path+" ") {
			t.Errorf("the index does not name %s", path)
		}
	}
	if status, _ := get(t, addr, "/v2"); status != 404 {
		t.Errorf("an unknown path gets %d", status)
	}
	c := dial(t, addr)
	if _, err := io.WriteString(c, "OPTIONS * HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if answer, _ := io.ReadAll(c); !strings.HasPrefix(string(answer), "HTTP/1.1 421 ") {
		t.Errorf("OPTIONS * of a foreign host: %q", answer)
	}
}

func TestHostHeader(t *testing.T) {
	t.Parallel()
	_, addr := start(t, Options{})
	_, port, _ := net.SplitHostPort(addr)
	for host, want := range map[string]int{
		"localhost": 200, "LocalHost:" + port: 200, "127.0.0.1": 200, "127.0.0.1:1": 200, "127.9.9.9:" + port: 200,
		"[::1]": 200, "[::1]:9911": 200, "::1": 200,
		"evil.example": 421, "evil.example:" + port: 421, "localhost.evil.example": 421, "127.0.0.1.evil.example": 421,
		"10.0.0.1": 421, "0.0.0.0": 421, "[::]": 421, "localhost.": 421, "127.1": 421, "::1%]": 421, "2130706433": 421,
	} {
		for _, path := range []string{"/", "/healthz", "/metrics", "/v1/status", "/nothing"} {
			want := want
			if want == 200 && path == "/nothing" {
				want = 404
			}
			if resp, _ := ask(t, "GET", addr, path, host); resp.StatusCode != want {
				t.Errorf("GET %s of host %q: %d, want %d", path, host, resp.StatusCode, want)
			}
		}
	}
	// What a URL in the request line says overrides the header.
	c := dial(t, addr)
	if _, err := io.WriteString(c, "GET http://evil.example/v1/status HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if answer, _ := io.ReadAll(c); !strings.HasPrefix(string(answer), "HTTP/1.1 421 ") {
		t.Errorf("absolute form of a foreign host: %q", answer)
	}
}

func FuzzLoopbackHost(f *testing.F) {
	for _, s := range []string{"", "localhost", "localhost:1", "[::1]:80", "[::1", "::1", "127.0.0.1:", "evil.example:80", "[localhost]", "::ffff:127.0.0.1", "::1%]", "[::1%lo]:80"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, host string) {
		if !loopbackHost(host) {
			return
		}
		// Whatever passes is the name or a literal address: nothing that a
		// resolver, and so a stranger, has a say in.
		bare := host
		if h, _, err := net.SplitHostPort(host); err == nil {
			bare = h
		}
		bare = strings.TrimSuffix(strings.TrimPrefix(bare, "["), "]")
		if strings.EqualFold(bare, "localhost") {
			return
		}
		if ip, err := netip.ParseAddr(bare); err != nil || !ip.Unmap().IsLoopback() {
			t.Errorf("%q passed as %q", host, bare)
		}
	})
}

// TestServeEnds lets an answer under way finish, and takes no more.
func TestServeEnds(t *testing.T) {
	t.Parallel()
	asked, answer := make(chan struct{}), make(chan struct{})
	f := newFleet(t, nil)
	s, err := New(Config{Listen: "127.0.0.1:0"}, Options{Services: []Service{{Name: "web", Status: func() balance.Status {
		asked <- struct{}{}
		<-answer
		return f.Status()
	}}}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Listen(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(ctx) }()

	c := dial(t, s.Addr().String())
	if _, err := io.WriteString(c, "GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	<-asked
	cancel()
	for { // until the listener is closed
		late, err := net.Dial("tcp", s.Addr().String())
		if err != nil {
			break
		}
		_ = late.Close()
	}
	close(answer)
	body, err := io.ReadAll(c)
	if err != nil || !strings.Contains(string(body), "waiting for the first answer") {
		t.Errorf("the request under way got %q, %v", body, err)
	}
	if err := <-ended; err != nil {
		t.Errorf("Serve: %v", err)
	}
}

// TestServeEndsThoughAnAnswerHangs: a stuck answer must not keep the process.
func TestServeEndsThoughAnAnswerHangs(t *testing.T) {
	t.Parallel()
	asked, answer := make(chan struct{}), make(chan struct{})
	defer close(answer)
	s, err := New(Config{Listen: "127.0.0.1:0"}, Options{Services: []Service{{Name: "web", Status: func() balance.Status {
		asked <- struct{}{}
		<-answer
		return balance.Status{}
	}}}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Listen(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(ctx) }()
	c := dial(t, s.Addr().String())
	if _, err := io.WriteString(c, "GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	<-asked
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("Serve: %v", err)
	}
	if _, err := c.Read(make([]byte, 1)); err == nil {
		t.Error("the hanging request got an answer")
	}
}

func TestServeReportsABrokenListener(t *testing.T) {
	t.Parallel()
	s, err := New(Config{Listen: "127.0.0.1:0"}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Listen(); err != nil {
		t.Fatal(err)
	}
	_ = s.ln.Close()
	if err := s.Serve(t.Context()); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Serve on a closed listener: %v", err)
	}
}

// TestConnectionsAreBounded opens all there may be, sees the next one closed,
// and sees room again when one has left.
func TestConnectionsAreBounded(t *testing.T) {
	t.Parallel()
	s, addr := start(t, Options{})
	answered := func(c net.Conn) bool {
		if _, err := io.WriteString(c, "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"); err != nil {
			return false
		}
		_, err := c.Read(make([]byte, 1))
		return err == nil
	}
	conns := make([]net.Conn, maxConns)
	for i := range conns {
		conns[i] = dial(t, addr)
		if !answered(conns[i]) {
			t.Fatalf("connection %d got no answer", i+1)
		}
	}
	if answered(dial(t, addr)) {
		t.Errorf("connection %d got an answer", maxConns+1)
	}
	_ = conns[0].Close()
	deadline := time.Now().Add(30 * time.Second)
	for s.conns.Load() >= maxConns {
		if time.Now().After(deadline) {
			t.Fatalf("%d connections are counted after one of %d closed", s.conns.Load(), maxConns)
		}
		time.Sleep(time.Millisecond)
	}
	if !answered(dial(t, addr)) {
		t.Error("no answer though a connection has left")
	}
}
