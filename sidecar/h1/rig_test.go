package h1

import (
	"context"
	"fmt"
	"net"
	"net/url"
	"os"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"outrigger/discovery"
	"outrigger/picker"
	"outrigger/sidecar/access"
	"outrigger/sidecar/balance"
	"outrigger/sidecar/tunnel"
)

// patience is how long a condition may take to come true. No test waits for
// it to pass unless it fails.
const patience = 10 * time.Second

// rig is a server before real backends.
type rig struct {
	t   testing.TB
	e   *Engine
	b   *balance.Balancer
	s   *Server
	url string
}

func instance(id, addr string) discovery.Instance {
	host, port, _ := net.SplitHostPort(addr)
	n, _ := strconv.Atoi(port)
	return discovery.Instance{ID: id, Address: host, Port: n, Weight: 1}
}

// newRig serves on loopback before the given backend addresses. At the end of
// the test it cuts what is left and checks that nothing leaked.
func newRig(t testing.TB, cfg Config, bcfg balance.Config, addrs ...string) *rig {
	t.Helper()
	return newRigLogging(t, cfg, bcfg, nil, addrs...)
}

func newRigLogging(t testing.TB, cfg Config, bcfg balance.Config, log *access.Logger, addrs ...string) *rig {
	t.Helper()
	if err := cfg.Validate(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	env := balance.RealEnv(nil)
	e, err := NewEngine(env.Now)
	if err != nil {
		t.Fatal(err)
	}
	go e.Run(ctx)
	cfg.FailureStatuses = bcfg.Breaker.FailureStatuses
	env.NewConns = e.Conns(cfg, nil)
	b, err := balance.New(bcfg, env)
	if err != nil {
		t.Fatal(err)
	}
	go b.Run(ctx)
	r := &rig{t: t, e: e, b: b}
	r.set(addrs...)
	r.serve(cfg, log, cancel)
	return r
}

// serve serves on loopback. At the end of the test, cancel is called last.
func (r *rig) serve(cfg Config, log *access.Logger, cancel func()) {
	r.t.Helper()
	r.s = r.e.NewServer(cfg, r.b, Options{Tunnel: tunnel.Run, Access: log, AffinityKey: []byte("of every rig")})
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		r.t.Fatal(err)
	}
	r.url = "http://" + ln.Addr().String()
	served := make(chan struct{})
	go func() {
		defer close(served)
		r.s.Serve(ln)
	}()
	r.t.Cleanup(func() {
		dead, stop := context.WithCancel(context.Background())
		stop()
		_ = r.s.Shutdown(dead)
		<-served
		r.checkLeaks()
		cancel()
	})
}

// checkLeaks holds that a server that was shut down has given everything back.
func (r *rig) checkLeaks() {
	r.t.Helper()
	r.settled()
	if st := r.s.Stats(); st.Open != 0 || st.Tunnels != 0 {
		r.t.Errorf("connections left after Shutdown: %+v", st)
	}
	r.b.Update(nil) // retires the pools
	r.eventually("no connection is left in the reaper", func() bool {
		r.e.reaper.mu.Lock()
		defer r.e.reaper.mu.Unlock()
		return len(r.e.reaper.all) == 0
	})
	r.e.pools.mu.Lock()
	defer r.e.pools.mu.Unlock()
	if n := len(r.e.pools.set); n != 0 {
		r.t.Errorf("%d pools left", n)
	}
}

func (r *rig) set(addrs ...string) {
	var is []discovery.Instance
	for _, a := range addrs {
		a = strings.TrimPrefix(a, "http://")
		is = append(is, instance("i-"+a, a))
	}
	r.b.Update(is)
}

func (r *rig) addr() string { u, _ := url.Parse(r.url); return u.Host }

// eventually waits for a condition. It may be called from the test's goroutine
// alone.
func (r *rig) eventually(what string, cond func() bool) {
	r.t.Helper()
	eventually(r.t, what, cond)
}

func eventually(t testing.TB, what string, cond func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !cond(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("still waiting for: %s", what)
		}
	}
}

func (r *rig) inFlight() (n int) {
	for _, e := range r.b.Status().Endpoints {
		n += e.InFlight
	}
	return n
}

// settled waits until no lease is held: the engine ends one after the client
// has got its answer.
func (r *rig) settled() {
	r.t.Helper()
	r.eventually("all leases have ended", func() bool { return r.inFlight() == 0 })
}

// totals sums the endpoints' counts, once no lease is held.
func (r *rig) totals() (sum picker.Totals) {
	r.t.Helper()
	r.settled()
	for _, e := range r.b.Status().Endpoints {
		sum.Requests += e.Totals.Requests
		sum.Successes += e.Totals.Successes
		sum.Failures += e.Totals.Failures
		sum.Drops += e.Totals.Drops
		sum.Ignored += e.Totals.Ignored
	}
	return sum
}

// wantTotals checks how the requests so far were judged. An endpoint counts a
// request a moment after it has given its slot back.
func (r *rig) wantTotals(successes, failures, ignored uint64) {
	r.t.Helper()
	r.wantTotal(picker.Totals{Requests: successes + failures + ignored, Successes: successes, Failures: failures, Ignored: ignored})
}

func (r *rig) wantTotal(want picker.Totals) {
	r.t.Helper()
	got := r.totals()
	for deadline := time.Now().Add(patience / 10); got != want && time.Now().Before(deadline); got = r.totals() {
		time.Sleep(time.Millisecond)
	}
	if got != want {
		r.t.Errorf("judged %+v, want %+v", got, want)
	}
}

// quick are time-outs that no test strikes unless it shortens one.
func quick() Config {
	c := DefaultConfig()
	c.Timeouts = Timeouts{Connect: patience, FirstByte: patience, Idle: patience, Tunnel: patience, Head: patience}
	return c
}

// short is a time-out that a test means to strike.
const short = 100 * time.Millisecond

// TestMain holds that no goroutine of the engine is left at the end.
func TestMain(m *testing.M) {
	code := m.Run()
	if left := engineGoroutines(); code == 0 && left != "" {
		fmt.Fprintf(os.Stderr, "goroutines left after all tests:\n%s\n", left)
		code = 1
	}
	os.Exit(code)
}

// engineGoroutines returns the stacks of goroutines that serve a connection,
// after giving them time to end. The watcher of an engine lives on.
func engineGoroutines() string {
	var left []string
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		buf := make([]byte, 4<<20)
		buf = buf[:runtime.Stack(buf, true)]
		left = left[:0]
		for _, g := range strings.Split(string(buf), "\n\n") {
			for _, f := range []string{"h1.(*conn)", "h1.(*upload)", "h1.(*Server)", "tunnel.", "h1.(*pool)", "h1.(*reaper)"} {
				if strings.Contains(g, f) {
					left = append(left, g)
					break
				}
			}
		}
		if len(left) == 0 {
			return ""
		}
	}
	return strings.Join(left, "\n\n")
}
