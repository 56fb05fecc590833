package faults

import (
	"context"
	"fmt"
	"net"
	"os"
	"runtime"
	"strconv"
	"testing"
	"time"

	"outrigger/discovery"
	"outrigger/sidecar/balance"
	"outrigger/sidecar/h1"
	"outrigger/sidecar/tunnel"
)

// rig is a service with an engine of its own, so that the engine's end is part
// of the test.
type rig struct {
	t    *testing.T
	b    *balance.Balancer
	s    *h1.Server
	addr string
	ids  []string // of the endpoints
	was  resources
}

const (
	poolSize     = 3 // small enough to be met
	baseEjection = 100 * time.Millisecond
	maxEjection  = 200 * time.Millisecond
)

// quick are the default settings with short time-outs.
func quick() h1.Config {
	c := h1.DefaultConfig()
	c.Timeouts.FirstByte = 1500 * time.Millisecond // a healthy backend keeps it on a busy machine too
	c.Timeouts.Idle = 1500 * time.Millisecond
	c.PoolSize = poolSize
	return c
}

// patient are settings under which no time-out can explain what a test sees.
func patient() h1.Config {
	c := h1.DefaultConfig()
	c.Timeouts = h1.Timeouts{Connect: time.Hour, FirstByte: time.Hour, Idle: time.Hour, Tunnel: time.Hour, Head: time.Hour}
	c.PoolSize = poolSize
	return c
}

// balancing are the default settings with short ejections and, so that bounds
// can be exact, retries without a budget.
func balancing() balance.Config {
	c := balance.DefaultConfig()
	c.Service = "faults"
	c.Breaker.BaseEjection, c.Breaker.MaxEjection = baseEjection, maxEjection
	c.Budget.Ratio, c.Budget.MinPerSecond = 1, 10_000
	return c
}

// newRig serves on loopback before the given addresses. At the end of the test,
// when its clients have left, nothing may be left of the rig.
func newRig(t *testing.T, cfg h1.Config, bcfg balance.Config, addrs ...string) *rig {
	t.Helper()
	env := balance.RealEnv(nil)
	engine, err := h1.NewEngine(env.Now)
	if err != nil {
		t.Fatal(err)
	}
	was := count() // with the engine's watcher, which lives on
	cfg.FailureStatuses = bcfg.Breaker.FailureStatuses
	env.NewConns = engine.Conns(cfg, nil)
	if err := cfg.Validate(); err != nil {
		t.Fatal(err)
	}
	b, err := balance.New(bcfg, env)
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{t: t, b: b, s: engine.NewServer(cfg, b, h1.Options{Tunnel: tunnel.Run}), addr: ln.Addr().String(), was: was}
	var set []discovery.Instance
	for i, addr := range addrs {
		host, port, _ := net.SplitHostPort(addr)
		n, _ := strconv.Atoi(port)
		r.ids = append(r.ids, fmt.Sprint("backend-", i))
		set = append(set, discovery.Instance{ID: r.ids[i], Address: host, Port: n, Weight: 1})
	}
	b.Update(set)
	ctx, cancel := context.WithCancel(context.Background())
	go engine.Run(ctx)
	go b.Run(ctx)
	go r.s.Serve(ln)
	t.Cleanup(func() {
		r.checkIdle()
		r.checkEnd()
		cancel()
		r.await("goroutines and descriptors are as before the rig", func() bool {
			now := count()
			return now.goroutines <= was.goroutines && now.files <= was.files
		})
	})
	return r
}

// checkIdle holds that a service whose clients have all left holds no lease, no
// waiter and no client's connection.
func (r *rig) checkIdle() {
	r.t.Helper()
	r.await("no lease is held and nobody waits", func() bool { return r.inFlight() == 0 && r.b.Status().Waiting == 0 })
	r.await("no client's connection is open", func() bool { st := r.s.Stats(); return st.Open == 0 && st.Tunnels == 0 })
	for _, id := range r.ids {
		if n := r.b.InFlight(id); n != 0 {
			r.t.Errorf("%d in flight at %s", n, id)
		}
	}
}

// checkEnd shuts the service down: pooled connections were bounded and are gone
// with their endpoints.
func (r *rig) checkEnd() {
	r.t.Helper()
	if r.was.files > 0 {
		const listener = 1
		most := r.was.files + listener + poolSize*len(r.ids)
		r.await("the pools are within their bounds", func() bool { return count().files <= most })
		r.b.Update(nil)
		r.await("retired pools leave no connection", func() bool { return count().files == r.was.files+listener })
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := r.s.Shutdown(ctx); err != nil {
		r.t.Errorf("Shutdown: %v", err)
	}
}

func (r *rig) inFlight() (n int) {
	for _, e := range r.b.Status().Endpoints {
		n += e.InFlight
	}
	return n
}

// await waits for a condition and tells what there is when it does not come.
func (r *rig) await(what string, cond func() bool) {
	r.t.Helper()
	for deadline := time.Now().Add(patience); !cond(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			buf := make([]byte, 1<<20)
			buf = buf[:runtime.Stack(buf, true)]
			r.t.Fatalf("still waiting for: %s\nbefore: %+v\nnow:    %+v\n%s\nserver: %+v\nbalancer: %+v\n%s",
				what, r.was, count(), openFiles(), r.s.Stats(), r.b.Status(), buf)
		}
	}
}

// resources are what may leak.
type resources struct {
	goroutines int
	files      int // 0 where that cannot be counted
}

func count() resources {
	return resources{runtime.NumGoroutine(), len(fileNames())}
}

// fileNames are the numbers of the descriptors of this process; none where
// there is no /proc. The one that reads the folder is among them, always.
func fileNames() []string {
	dir, err := os.Open("/proc/self/fd")
	if err != nil {
		return nil
	}
	defer dir.Close()
	names, _ := dir.Readdirnames(-1) // short at worst, and then noticed
	return names
}

// openFiles says what each descriptor is.
func openFiles() (s string) {
	for _, n := range fileNames() {
		what, _ := os.Readlink("/proc/self/fd/" + n) // one may be closed by now
		s += n + " " + what + "\n"
	}
	return s
}

// ask asks the origin itself, past the sidecar.
func ask(t testing.TB, path string) int {
	t.Helper()
	_, b := direct(t, "GET", suite.origin, path, nil)
	n, err := strconv.Atoi(string(b))
	if err != nil {
		t.Fatal(err)
	}
	return n
}
