package publish_test

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"
	"github.com/hashicorp/go-hclog"

	"outrigger/agentstats/publish"
	"outrigger/test/harness"
)

// shared is a Consul for tests that leave it running.
var (
	shared     *harness.Consul
	consulPath string
)

func TestMain(m *testing.M) {
	flag.Parse()
	os.Exit(run(m))
}

func run(m *testing.M) int {
	if testing.Short() {
		return m.Run() // those with a Consul skip
	}
	var err error
	if consulPath, err = harness.FindOrBuildConsul(context.Background(), harness.SayStderr); err == nil {
		shared, err = harness.StartConsul(context.Background(), harness.Options{Path: consulPath})
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "publish:", err)
		return 1
	}
	code := m.Run()
	if err := shared.Stop(); err != nil {
		fmt.Fprintln(os.Stderr, "publish:", err)
		return 1
	}
	return code
}

// ownConsul is a Consul for one test.
func ownConsul(t testing.TB, config, token string) *harness.Consul {
	t.Helper()
	needsConsul(t)
	c, err := harness.StartConsul(t.Context(), harness.Options{Path: consulPath, Config: config, Token: token})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Stop(); err != nil {
			t.Error(err)
		}
	})
	return c
}

func needsConsul(t testing.TB) {
	t.Helper()
	if testing.Short() {
		t.Skip("needs a Consul")
	}
}

// report is what a test's agent reports; a nil figure is unknown.
type report struct {
	At        int64    `json:"at"`
	Epoch     string   `json:"epoch,omitempty"`
	InFlight  *float64 `json:"in_flight,omitempty"`
	Cores     *float64 `json:"cores,omitempty"`
	Avail     *float64 `json:"avail,omitempty"`
	Listening *bool    `json:"listening,omitempty"`
	Rest      string   `json:"rest,omitempty"` // stands for all the other figures
}

func some[T any](v T) *T { return &v }

// rig is a service in a Consul, with agents that publish and sidecars that watch.
type rig struct {
	t       testing.TB
	client  *api.Client
	service string
	cfg     publish.Config
	watch   publish.WatchConfig
	logs    *logBuffer
}

var services atomic.Int64

func newRig(t testing.TB, c *harness.Consul) *rig {
	t.Helper()
	needsConsul(t)
	if c == nil {
		c = shared
	}
	client, err := c.Client()
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{
		t: t, client: client, cfg: publish.DefaultConfig(), watch: publish.DefaultWatchConfig(), logs: &logBuffer{},
		service: fmt.Sprintf("%s-%d", strings.ToLower(strings.TrimPrefix(strings.ReplaceAll(t.Name(), "/", "-"), "Test")), services.Add(1)),
	}
	r.cfg.MinInterval, r.cfg.SessionTTL = time.Second, 10*time.Second
	r.watch.Pause, r.watch.Hold = 100*time.Millisecond, 0
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("log:\n%s", r.logs)
		}
	})
	return r
}

func (r *rig) logger() hclog.Logger {
	return hclog.New(&hclog.LoggerOptions{Output: r.logs, Level: hclog.Debug})
}

// agent is a Publisher that runs.
type agent struct {
	*publish.Publisher
	report atomic.Pointer[report]
	end    func()
}

func (r *rig) agent(instance string, first report) *agent {
	r.t.Helper()
	a := &agent{}
	a.report.Store(&first)
	var err error
	a.Publisher, err = publish.New(r.cfg, publish.Env{
		Client: r.client, Logger: r.logger(), Service: r.service, Instance: instance,
		Report: func() ([]byte, time.Time, bool) {
			now := time.Now()
			rep := a.report.Load()
			if rep == nil {
				return nil, now, false
			}
			out := *rep
			out.At = now.UnixMilli()
			b, err := json.Marshal(out)
			return b, now, err == nil
		},
	})
	if err != nil {
		r.t.Fatal(err)
	}
	a.end = r.background(a.Publisher.Run)
	return a
}

// background runs something until the test's end, or until end is called.
func (r *rig) background(f func(context.Context) error) (end func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f(ctx) }()
	var once sync.Once
	end = func() {
		once.Do(func() {
			cancel()
			if err := <-done; err != nil {
				r.t.Errorf("it ended with %v", err)
			}
		})
	}
	r.t.Cleanup(end)
	return end
}

// sidecar is a Watcher that runs, and what it was given.
type sidecar struct {
	*publish.Watcher
	t testing.TB

	mu      sync.Mutex
	newest  map[string]report
	updates map[string]int
	gone    map[string]int
}

func (r *rig) sidecar() *sidecar {
	r.t.Helper()
	w, err := publish.NewWatcher(r.service, r.watch, publish.WatchEnv{Client: r.client, Logger: r.logger()})
	if err != nil {
		r.t.Fatal(err)
	}
	s := &sidecar{Watcher: w, t: r.t, newest: map[string]report{}, updates: map[string]int{}, gone: map[string]int{}}
	r.background(func(ctx context.Context) error { return w.Run(ctx, s.update) })
	return s
}

func (s *sidecar) update(instance string, value []byte, gone bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if gone {
		s.gone[instance]++
		delete(s.newest, instance)
		return
	}
	var rep report
	if err := json.Unmarshal(value, &rep); err != nil {
		rep.Epoch = "unreadable"
	}
	s.newest[instance] = rep
	s.updates[instance]++
}

// await waits until what the sidecar has of an instance is as ok says.
func (s *sidecar) await(instance, what string, ok func(r report, there bool) bool) {
	s.t.Helper()
	eventually(s.t, what, func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		r, there := s.newest[instance]
		return ok(r, there)
	})
}

func (s *sidecar) count(of map[string]int, instance string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return of[instance]
}

func present(_ report, there bool) bool { return there }
func gone(_ report, there bool) bool    { return !there }

// node is the name of the Consul agent's node.
func (r *rig) node() string {
	r.t.Helper()
	name, err := r.client.Agent().NodeName()
	if err != nil {
		r.t.Fatal(err)
	}
	return name
}

// limit is far beyond what anything here takes; no test waits for it to pass.
const limit = time.Minute

func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(limit); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited %v for %s", limit, what)
		}
	}
}

// logBuffer is a log that can be read while it is written.
type logBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

func (l *logBuffer) count(text string) int { return strings.Count(l.String(), text) }

func (r *rig) awaitLog(text string) {
	r.t.Helper()
	eventually(r.t, fmt.Sprintf("%q in the log", text), func() bool { return r.logs.count(text) > 0 })
}
