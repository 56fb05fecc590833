package register_test

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"
	"github.com/hashicorp/go-hclog"

	"outrigger/agentstats/register"
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
		fmt.Fprintln(os.Stderr, "register:", err)
		return 1
	}
	code := m.Run()
	if err := shared.Stop(); err != nil {
		fmt.Fprintln(os.Stderr, "register:", err)
		return 1
	}
	return code
}

// ownConsul is a Consul for one test.
func ownConsul(t *testing.T, config, token string) *harness.Consul {
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

func needsConsul(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("needs a Consul")
	}
}

// rig is a backend, a Consul and what registers the one in the other.
type rig struct {
	t      *testing.T
	client *api.Client
	cfg    register.Config
	logs   *logBuffer
	up     *httptest.Server
	sick   atomic.Bool // the backend's /health fails

	inFlight atomic.Int64
	unknown  atomic.Bool // in-flight is
}

var services atomic.Int64

func newRig(t *testing.T, c *harness.Consul) *rig {
	t.Helper()
	needsConsul(t)
	if c == nil {
		c = shared
	}
	client, err := c.Client()
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{t: t, client: client, logs: &logBuffer{}}
	r.up = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if r.sick.Load() {
			w.WriteHeader(http.StatusInternalServerError)
		}
		fmt.Fprintln(w, req.Method, req.URL.Path, req.Header.Get("X-Check"))
	}))
	t.Cleanup(r.up.Close)
	r.cfg = register.DefaultConfig()
	r.cfg.Service = fmt.Sprintf("%s-%d", strings.ToLower(strings.TrimPrefix(strings.ReplaceAll(t.Name(), "/", "-"), "Test")), services.Add(1))
	r.cfg.Address = "127.0.0.1"
	r.cfg.Port = r.up.Listener.Addr().(*net.TCPAddr).Port
	r.cfg.Check.Interval = time.Second
	r.cfg.Check.Timeout = time.Second
	r.cfg.Refresh = time.Second
	r.cfg.Drain = register.Drain{Timeout: 20 * time.Second, Quiet: 300 * time.Millisecond, Blind: 500 * time.Millisecond}
	return r
}

// agent is a Registrar that runs.
type agent struct {
	*register.Registrar
	end func() // of Run, as the process's death would be
}

// start runs a Registrar; the test's end ends it.
func (r *rig) start() *agent {
	r.t.Helper()
	reg, err := register.New(r.cfg, register.Env{
		Client: r.client,
		Logger: hclog.New(&hclog.LoggerOptions{Output: r.logs, Level: hclog.Debug}),
		Meta:   map[string]string{"outrigger_agent": "9912"},
		InFlight: func() (float64, bool) {
			return float64(r.inFlight.Load()), !r.unknown.Load()
		},
		Hostname: "host",
	})
	if err != nil {
		r.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- reg.Run(ctx) }()
	var once sync.Once
	end := func() {
		once.Do(func() {
			cancel()
			if err := <-done; err != nil {
				r.t.Errorf("Run: %v", err)
			}
		})
	}
	r.t.Cleanup(func() {
		end()
		if r.t.Failed() {
			r.t.Logf("log:\n%s", r.logs)
		}
	})
	return &agent{reg, end}
}

// entry is what sidecars see of the service: its only instance, or nil.
func (r *rig) entry() *api.ServiceEntry {
	r.t.Helper()
	entries, _, err := r.client.Health().Service(r.cfg.Service, "", false, nil)
	if err != nil {
		r.t.Fatal(err)
	}
	if len(entries) > 1 {
		r.t.Fatalf("%d instances of %s", len(entries), r.cfg.Service)
	}
	if len(entries) == 0 {
		return nil
	}
	return entries[0]
}

// await waits until what sidecars see is as ok says.
func (r *rig) await(what string, ok func(*api.ServiceEntry) bool) *api.ServiceEntry {
	r.t.Helper()
	var found *api.ServiceEntry
	eventually(r.t, what, func() bool {
		found = r.entry()
		return ok(found)
	})
	return found
}

func passing(e *api.ServiceEntry) bool {
	return e != nil && e.Checks.AggregatedStatus() == api.HealthPassing
}
func inMaintenance(e *api.ServiceEntry) bool {
	return e != nil && e.Checks.AggregatedStatus() == api.HealthMaint
}
func absent(e *api.ServiceEntry) bool { return e == nil }

// limit is far beyond what anything here takes; no test waits for it to pass.
const limit = 30 * time.Second

func eventually(t *testing.T, what string, ok func() bool) {
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
