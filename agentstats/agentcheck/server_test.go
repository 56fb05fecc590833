package agentcheck

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
)

// run starts a server on a port of the kernel's choice until the test ends.
func run(t *testing.T, cfg Config, env Env) (s *Server, addr string, stop func()) {
	t.Helper()
	cfg.Listen = "127.0.0.1:1" // the listener below stands for it
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	env.Listen = func(network, address string) (net.Listener, error) {
		if network != "tcp" || address != cfg.Listen {
			t.Errorf("it listens on %s %s", network, address)
		}
		return l, nil
	}
	if s, err = New(cfg, env); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	t.Cleanup(stop)
	return s, l.Addr().String(), stop
}

func dial(t *testing.T, addr string) *net.TCPConn {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	return c.(*net.TCPConn)
}

func check(t *testing.T, addr, send string) string {
	t.Helper()
	c := dial(t, addr)
	if _, err := io.WriteString(c, send); err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(c)
	if err != nil {
		t.Fatalf("after %q: %v", text, err)
	}
	_ = c.Close()
	return string(text)
}

// Every answer is of the moment, whatever is sent before it, and is not lost to a
// reset when that is not read.
func TestAnswers(t *testing.T) {
	var avail atomic.Int64
	s, addr, _ := run(t, DefaultConfig(), Env{State: func() State {
		return State{Cores: 100, Avail: float64(avail.Load()), Mem: Unknown}
	}})
	for i, send := range []string{"", "web\n", "no newline", strings.Repeat("x", maxSent-1) + "\n", "\x00\xff\r\n\r\n"} {
		avail.Store(int64(50 + i))
		want := "up 5" + string(rune('0'+i)) + "%\n"
		if got := check(t, addr, send); got != want {
			t.Errorf("after %.20q the answer is %q, want %q", send, got, want)
		}
		if got := s.Line(); got != want {
			t.Errorf("Line is %q, want %q", got, want)
		}
	}
	if st := s.Stats(); st.Answered != 5 || st.TurnedAway != 0 {
		t.Errorf("stats are %+v, want 5 answered", st)
	}
}

// The line comes before anything was sent, and whoever stays is not waited for.
func TestSilentPeers(t *testing.T) {
	s, addr, stop := run(t, DefaultConfig(), Env{State: nothing})
	idle := dial(t, addr)
	text, err := io.ReadAll(idle) // our half is open still
	if err != nil || string(text) != "up 100%\n" {
		t.Fatalf("a silent peer reads %q, %v", text, err)
	}
	if n := s.Stats().Open; n != 1 {
		t.Errorf("%d are open, want the silent one", n)
	}
	for s.Stats().Open > 0 { // the deadline ends it
		time.Sleep(time.Millisecond)
	}
	dial(t, addr)
	stop() // with one open
}

func TestTurnedAway(t *testing.T) {
	cfg := DefaultConfig()
	cfg.MaxConns = 2
	var log bytes.Buffer
	hold := make(chan struct{})
	s, addr, stop := run(t, cfg, Env{
		State:  func() State { <-hold; return nothing() },
		Logger: hclog.New(&hclog.LoggerOptions{Output: &log}),
	})
	first, second := dial(t, addr), dial(t, addr)
	for s.Stats().Open < 2 {
		time.Sleep(time.Millisecond)
	}
	for range 3 {
		if text := check(t, addr, ""); text != "" {
			t.Errorf("the third reads %q, want to be turned away", text)
		}
	}
	close(hold)
	for _, c := range []net.Conn{first, second} {
		if text, err := io.ReadAll(c); err != nil || string(text) != "up 100%\n" {
			t.Errorf("one of the two reads %q, %v", text, err)
		}
	}
	stop()
	if st := s.Stats(); st.TurnedAway != 3 || st.Answered != 2 || st.Open != 0 {
		t.Errorf("stats are %+v", st)
	}
	if n := strings.Count(log.String(), "turned away"); n != 1 {
		t.Errorf("the log says %d times that checks are turned away, want once:\n%s", n, &log)
	}
}

// A peer that sends without end is read for a second, and no further.
func TestEndlessPeer(t *testing.T) {
	s, addr, _ := run(t, DefaultConfig(), Env{State: nothing})
	c := dial(t, addr)
	buf := bytes.Repeat([]byte("y"), 64<<10)
	for {
		if _, err := c.Write(buf); err != nil {
			var timeout net.Error
			if errors.As(err, &timeout) && timeout.Timeout() {
				t.Fatal("it was let send until this side gave up")
			}
			break
		}
	}
	for s.Stats().Open > 0 {
		time.Sleep(time.Millisecond)
	}
}

// failing is a listener that fails to accept a few times, as when there are no file
// descriptors left.
type failing struct {
	net.Listener
	times atomic.Int64
}

func (f *failing) Accept() (net.Conn, error) {
	if f.times.Add(-1) >= 0 {
		return nil, errors.New("too many open files")
	}
	return f.Listener.Accept()
}

func TestAcceptFails(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f := &failing{Listener: l}
	f.times.Store(3)
	cfg := DefaultConfig()
	cfg.Listen = l.Addr().String()
	s, err := New(cfg, Env{State: nothing, Listen: func(string, string) (net.Listener, error) { return f, nil }})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	if got := check(t, cfg.Listen, ""); got != "up 100%\n" {
		t.Errorf("after the failures it answers %q", got)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestCannotListen(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	cfg := DefaultConfig()
	cfg.Listen = l.Addr().String()
	s, err := New(cfg, Env{State: nothing})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Run(t.Context()); err == nil || !strings.Contains(err.Error(), cfg.Listen) || !strings.Contains(err.Error(), "set listen") {
		t.Errorf("Run on a taken port: %v", err)
	}
	for _, cfg := range []Config{{}, DefaultConfig()} {
		if _, err := New(cfg, Env{State: nothing}); err == nil {
			t.Errorf("New(%+v) succeeds", cfg)
		}
	}
}

func BenchmarkLine(b *testing.B) {
	cfg := DefaultConfig()
	cfg.Listen = "127.0.0.1:1"
	s, err := New(cfg, Env{State: func() State { return State{Cores: 4, Avail: 3, Mem: 0.5, MemStall: Unknown, Err: Unknown} }})
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		s.Line()
	}
}
