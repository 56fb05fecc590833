package declared

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"outrigger/agentstats/orca"
)

// patient is a configuration whose times no test strikes unless it shortens one.
func patient(url string) Config {
	c := DefaultConfig()
	c.URL, c.MaxAge, c.Timeout = url, time.Second, 2*time.Second
	return c
}

func parseORCA(value []byte, named string) (float64, float64, error) {
	r, err := orca.Parse(value, named)
	return r.InFlight, r.ErrShare(), err
}

// clock is a time that only the test moves.
type clock struct{ ns atomic.Int64 }

func (c *clock) now() time.Time               { return time.Unix(1_700_000_000, c.ns.Load()) }
func (c *clock) advance(d time.Duration)      { c.ns.Add(int64(d)) }
func (c *clock) env(log hclog.Logger) Env     { return Env{Now: c.now, ORCA: parseORCA, Logger: log} }
func (c *clock) at(d time.Duration) time.Time { return time.Unix(1_700_000_000, int64(d)) }

// app is a server whose answers a test writes.
type app struct {
	*httptest.Server
	asked atomic.Int64
	mu    sync.Mutex
	serve http.HandlerFunc
}

func newApp(t testing.TB, serve http.HandlerFunc) *app {
	a := &app{serve: serve}
	a.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a.asked.Add(1)
		a.mu.Lock()
		f := a.serve
		a.mu.Unlock()
		f(w, r)
	}))
	t.Cleanup(a.Close)
	return a
}

func (a *app) set(serve http.HandlerFunc) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.serve = serve
}

func says(text string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, text) }
}

func open(t testing.TB, cfg Config, env Env) *Source {
	t.Helper()
	s, err := New(cfg, env)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

func wantInFlight(t *testing.T, s *Source, want float64) Figures {
	t.Helper()
	f, err := s.Read(context.Background())
	if err != nil || f.InFlight != want {
		t.Fatalf("Read = %+v, %v, want %v in flight", f, err, want)
	}
	return f
}

func wantError(t *testing.T, s *Source, text string) {
	t.Helper()
	f, err := s.Read(context.Background())
	if err == nil || !strings.Contains(err.Error(), text) || f.InFlight != Absent || f.Err != Absent {
		t.Fatalf("Read = %+v, %v, want an error with %q", f, err, text)
	}
}

// A figure is given again for 5 ms; after that the app is asked, unless it is too soon,
// and then the newest is given until it is too old.
func TestReadAsksWhenItMust(t *testing.T) {
	a := newApp(t, says(`{"n": 1}`))
	cfg := patient(a.URL)
	cfg.Field, cfg.Interval = "n", 50*time.Millisecond
	var c clock
	s := open(t, cfg, c.env(nil))
	s.cfg.MaxAge = 20 * time.Millisecond // after New: the time-out is real time's, and long
	for _, step := range []struct {
		at    time.Duration
		says  int
		want  float64 // Absent: ErrStale
		asked int64
	}{
		{0, 1, 1, 1},
		{5 * time.Millisecond, 2, 1, 1},  // fresh
		{20 * time.Millisecond, 3, 1, 1}, // tolerable, and too soon to ask
		{21 * time.Millisecond, 4, Absent, 1},
		{49 * time.Millisecond, 5, Absent, 1},
		{50 * time.Millisecond, 6, 6, 2},
		{55 * time.Millisecond, 7, 6, 2},
		{time.Second, 8, 8, 3},
	} {
		c.ns.Store(int64(step.at))
		a.set(says(fmt.Sprintf(`{"n": %d}`, step.says)))
		f, err := s.Read(context.Background())
		if step.want == Absent {
			if !errors.Is(err, ErrStale) || f.InFlight != Absent {
				t.Errorf("at %v: %+v, %v, want ErrStale", step.at, f, err)
			}
		} else if err != nil || f.InFlight != step.want {
			t.Errorf("at %v: %+v, %v, want %v", step.at, f, err, step.want)
		}
		if n := a.asked.Load(); n != step.asked {
			t.Errorf("at %v: asked %d times, want %d", step.at, n, step.asked)
		}
	}
}

// To the nanosecond: the app is not asked for a figure of 5 ms.
func TestFreshIsGivenAgain(t *testing.T) {
	a := newApp(t, says(`{"n": 1}`))
	cfg := patient(a.URL)
	cfg.Field, cfg.Interval = "n", time.Millisecond
	var c clock
	s := open(t, cfg, c.env(nil))
	for _, tt := range []struct {
		at    time.Duration
		asked int64
	}{{0, 1}, {fresh, 1}, {fresh + 1, 2}} {
		c.ns.Store(int64(tt.at))
		wantInFlight(t, s, 1)
		if n := a.asked.Load(); n != tt.asked {
			t.Errorf("at %v: asked %d times, want %d", tt.at, n, tt.asked)
		}
	}
}

// A figure is dated to the middle of its exchange, and one that took too long is none.
func TestFiguresAreDated(t *testing.T) {
	var c clock
	took := 10 * time.Millisecond
	a := newApp(t, nil)
	a.set(func(w http.ResponseWriter, _ *http.Request) {
		c.advance(took)
		fmt.Fprint(w, `{"n": 3}`)
	})
	cfg := patient(a.URL)
	cfg.Field = "n"
	s := open(t, cfg, c.env(nil))
	s.cfg.MaxAge = 20 * time.Millisecond // after New: the time-out is real time's, and long
	if f := wantInFlight(t, s, 3); !f.At.Equal(c.at(5 * time.Millisecond)) {
		t.Errorf("dated %v", f.At.Sub(c.at(0)))
	}
	c.ns.Store(int64(time.Second))
	took = 41 * time.Millisecond
	if f, err := s.Read(context.Background()); !errors.Is(err, ErrStale) {
		t.Errorf("after 41 ms: %+v, %v, want ErrStale", f, err)
	}
}

// What the app is asked costs at most a twentieth of its time, by the quickest answers.
func TestSpacingFollowsCost(t *testing.T) {
	var c clock
	var took time.Duration
	a := newApp(t, nil)
	a.set(func(w http.ResponseWriter, _ *http.Request) {
		c.advance(took)
		fmt.Fprint(w, `{"n": 3}`)
	})
	cfg := patient(a.URL)
	cfg.Field = "n"
	for _, tt := range []struct{ took, want time.Duration }{
		{10 * time.Microsecond, fresh}, {time.Millisecond, 20 * time.Millisecond}, {30 * time.Millisecond, slowest},
	} {
		s := open(t, cfg, c.env(nil))
		took = tt.took
		wantInFlight(t, s, 3)
		if got := s.spacing(); got != tt.want {
			t.Errorf("answers in %v are %v apart, want %v", tt.took, got, tt.want)
		}
		// One that had to queue does not make it dear, what stays slow does.
		took = 20*time.Millisecond + tt.took
		c.advance(time.Second)
		wantInFlight(t, s, 3)
		if got := s.spacing(); got > 2*tt.want+10*time.Millisecond {
			t.Errorf("one slow answer: %v apart", got)
		}
		for range 200 {
			c.advance(time.Second)
			wantInFlight(t, s, 3)
		}
		if got := s.spacing(); got != slowest {
			t.Errorf("200 slow answers: %v apart", got)
		}
	}
}

// Many polls at once are one request to the app.
func TestReadIsShared(t *testing.T) {
	var c clock
	release := make(chan struct{})
	a := newApp(t, func(w http.ResponseWriter, _ *http.Request) {
		<-release
		fmt.Fprint(w, `{"n": 9}`)
	})
	cfg := patient(a.URL)
	cfg.Field = "n"
	s := open(t, cfg, c.env(nil))
	const readers = 50
	got := make(chan error, readers)
	for range readers {
		go func() {
			f, err := s.Read(context.Background())
			if err == nil && f.InFlight != 9 {
				err = fmt.Errorf("%+v", f)
			}
			got <- err
		}()
	}
	// One whose own time is up does not wait, and does not end it for the others.
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := s.Read(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("a reader that left got %v", err)
	}
	close(release)
	for range readers {
		if err := <-got; err != nil {
			t.Error(err)
		}
	}
	if n := a.asked.Load(); n != 1 {
		t.Errorf("%d readers asked %d times", readers, n)
	}
}

// A dead app holds up one poll; then it is asked behind their backs, ever more rarely,
// until it answers.
func TestFailuresAreNotWaitedFor(t *testing.T) {
	var c clock
	var log bytes.Buffer
	a := newApp(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(503) })
	cfg := patient(a.URL)
	cfg.Field = "n"
	s := open(t, cfg, c.env(hclog.New(&hclog.LoggerOptions{Output: &log})))
	wantError(t, s, "503")
	for i, pause := range []time.Duration{100, 200, 400, 800, 1600, 3200, 5000, 5000} {
		c.advance(pause*time.Millisecond - 1)
		wantError(t, s, "503")
		settled(t, s, uint64(i+1))
		c.advance(1)
		wantError(t, s, "503")
		settled(t, s, uint64(i+2))
	}
	hang := make(chan struct{})
	a.set(func(w http.ResponseWriter, _ *http.Request) {
		<-hang
		fmt.Fprint(w, `{"n": 4}`)
	})
	c.advance(lastPause)
	for range 3 {
		wantError(t, s, "503") // or the test would hang
	}
	close(hang)
	settled(t, s, 10)
	wantInFlight(t, s, 4)
	if st := s.Status(); st.InARow != 0 || st.Failed != 9 || st.Asked != 10 {
		t.Errorf("%+v", st)
	}
	if n := strings.Count(log.String(), "[WARN]"); n != 1 || strings.Count(log.String(), "[INFO]") != 1 {
		t.Errorf("log:\n%s", &log)
	}
}

// An app that does not answer holds a poll up for as long as the configuration says.
func TestTimeout(t *testing.T) {
	a := newApp(t, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	cfg := patient(a.URL)
	cfg.Field, cfg.Timeout = "n", 50*time.Millisecond
	wantError(t, open(t, cfg, Env{}), "no answer within 50ms")
}

// settled waits until the n-th exchange has ended.
func settled(t *testing.T, s *Source, n uint64) {
	t.Helper()
	s.mu.Lock()
	x, asked := s.running, s.status.Asked
	s.mu.Unlock()
	if asked != n {
		t.Fatalf("asked %d times, want %d", asked, n)
	}
	if x != nil {
		<-x.done
	}
}

func TestCloseEndsWaiting(t *testing.T) {
	a := newApp(t, nil)
	began := make(chan struct{})
	a.set(func(_ http.ResponseWriter, r *http.Request) {
		close(began)
		<-r.Context().Done()
	})
	cfg := patient(a.URL)
	cfg.Field = "n"
	s := open(t, cfg, Env{})
	got := make(chan error)
	go func() {
		_, err := s.Read(context.Background())
		got <- err
	}()
	<-began
	s.Close()
	if err := <-got; !errors.Is(err, context.Canceled) {
		t.Errorf("Read ended with %v", err)
	}
	if f, err := s.Read(context.Background()); err == nil || a.asked.Load() != 1 {
		t.Errorf("Read after Close = %+v, %v", f, err)
	}
}

func TestRefusedAnswers(t *testing.T) {
	elsewhere := newApp(t, says(`{"n": 1}`))
	for name, tt := range map[string]struct {
		serve http.HandlerFunc
		want  string
	}{
		"redirect": {func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, elsewhere.URL, http.StatusFound) }, "302"},
		"status":   {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(503) }, "503"},
		"too long": {says(`{"n": 1}` + strings.Repeat(" ", maxBody)), "longer than"},
		"cut off": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "100")
			fmt.Fprint(w, `{"n": 1}`)
		}, "broke off"},
		"huge header": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("X", strings.Repeat("x", 64<<10))
			fmt.Fprint(w, `{"n": 1}`)
		}, "exceeded"},
		"no document": {says(`n: 1`), "invalid character"},
		"negative":    {says(`{"n": -1}`), "outside"},
	} {
		t.Run(name, func(t *testing.T) {
			a := newApp(t, tt.serve)
			cfg := patient(a.URL)
			cfg.Field = "n"
			wantError(t, open(t, cfg, Env{}), tt.want)
		})
	}
	if n := elsewhere.asked.Load(); n != 0 {
		t.Errorf("a redirect was followed %d times", n)
	}
}

// One connection is kept. The environment's proxy, which net/http would never ask
// for loopback, is not asked for any address.
func TestOneConnectionAndNoProxy(t *testing.T) {
	if tr := newClient().Transport.(*http.Transport); tr.Proxy != nil {
		t.Error("a proxy may be used")
	}
	conns := map[string]bool{}
	a := newApp(t, nil)
	a.set(func(w http.ResponseWriter, r *http.Request) {
		conns[r.RemoteAddr] = true
		fmt.Fprint(w, `{"n": 1}`)
	})
	cfg := patient(a.URL)
	cfg.Field = "n"
	var c clock
	s := open(t, cfg, c.env(nil))
	for range 5 {
		wantInFlight(t, s, 1)
		c.advance(time.Second)
	}
	if len(conns) != 1 {
		t.Errorf("5 requests came over %d connections", len(conns))
	}
}
