package discovery

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"
)

// away is something that takes an agent's connections and, while that is away,
// closes them without a word: a port of docker's, HAProxy, ssh -L.
type away struct {
	net.Listener
	down  atomic.Bool
	taken atomic.Int32 // connections while it was down

	mu   sync.Mutex
	open map[net.Conn]bool
}

func (a *away) Accept() (net.Conn, error) {
	for {
		c, err := a.Listener.Accept()
		if err != nil {
			return nil, err
		}
		a.mu.Lock()
		if !a.down.Load() {
			a.open[c] = true
			a.mu.Unlock()
			return c, nil
		}
		a.mu.Unlock()
		a.taken.Add(1)
		_ = c.Close()
	}
}

// leave ends what is open.
func (a *away) leave() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.down.Store(true)
	for c := range a.open {
		_ = c.Close()
	}
	clear(a.open)
}

func startAway(t *testing.T) (*away, *crowd, string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	a, c := &away{Listener: l, open: map[net.Conn]bool{}}, newCrowd()
	srv := &http.Server{Handler: c}
	go func() { _ = srv.Serve(a) }()
	t.Cleanup(func() { _ = srv.Close() })
	return a, c, l.Addr().String()
}

// An agent that is away is an error at once, and says nothing of its limit.
func TestAwayIsNoRefusal(t *testing.T) {
	cleanEnv(t)
	l, c, addr := startAway(t)
	a := crowdClient(t, c, addr, func(*Config) {})
	all := names("s", 60)
	var sources []*Consul
	ctx, cancel := context.WithCancel(t.Context())
	var over sync.WaitGroup
	for _, s := range all {
		src := NewConsul(a.client, Query{Service: s}, a.cfg, Env{})
		sources = append(sources, src)
		over.Go(func() { _ = src.Watch(ctx, func([]Instance) {}) })
	}
	defer over.Wait()
	defer cancel()
	eventually := func(what string, ok func(Status) bool) {
		t.Helper()
		for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
			left := 0
			for _, src := range sources {
				if !ok(src.Status()) {
					left++
				}
			}
			switch {
			case left == 0:
				return
			case time.Now().After(deadline):
				t.Fatalf("%d are not %s: %+v", left, what, a.gate.Status())
			}
		}
	}
	eventually("current", func(s Status) bool { return s.Current })
	l.leave()
	eventually("failing", func(s Status) bool { return s.ErrorsTotal > 1 })
	errs := 0
	for _, src := range sources {
		errs += int(src.Status().ErrorsTotal)
	}
	// Some reads are on their way, and what ended with an old connection was not
	// counted here.
	if n := int(l.taken.Load()); n > errs+2*len(sources) {
		t.Errorf("%d connections for %d errors: reads were begun again behind their readers' backs", n, errs)
	}
	// One that was answered just before may be mistaken.
	if s := a.gate.Status(); s.BusyConnections > 5 {
		t.Errorf("an agent that is away was taken for one that refuses: %+v", s)
	}
	l.down.Store(false)
	eventually("current", func(s Status) bool { return s.State == Current })
	for deadline := time.Now().Add(30 * time.Second); a.gate.Status().Limit < a.cfg.MaxConnections; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("still fewer connections: %+v", a.gate.Status())
		}
	}
}

// The only one who asks learns at once that its connection was closed.
func TestAloneIsNoRefusal(t *testing.T) {
	cleanEnv(t)
	l, c, addr := startAway(t)
	l.leave()
	a := crowdClient(t, c, addr, func(*Config) {})
	_, _, err := a.client.Health().Service("web", "", false, nil)
	if s := a.gate.Status(); err == nil || l.taken.Load() != 1 || s.BusyConnections != 0 || s.Limit != a.cfg.MaxConnections || s.InUse != 0 {
		t.Errorf("%v after %d connections, %+v", err, l.taken.Load(), s)
	}
}

// A connection that was made for another read and never used may have ended since.
func TestNeverUsedIsNoRefusal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAudience(t, newCrowd())
		tr := &transport{gate: a.gate}
		for _, tc := range []struct {
			idle         time.Duration
			served       bool
			again, count bool
		}{
			{idle: time.Minute, again: true},
			{idle: time.Minute, served: true, again: true},
			{},
			{served: true, again: true, count: true},
		} {
			turn, err := a.gate.enter(t.Context(), "", 0)
			if err != nil {
				t.Fatal(err)
			}
			var conn fresh
			conn.trace(a.gate, turn).GotConn(httptrace.GotConnInfo{WasIdle: tc.idle > 0, IdleTime: tc.idle})
			if tc.served {
				time.AfterFunc(lookAgain/2, a.gate.spoke)
			}
			before := a.gate.Status().BusyConnections
			again := tr.silent(httptest.NewRequest("GET", "/v1/health/service/web", nil), turn, &conn, io.EOF)
			if n := a.gate.Status().BusyConnections - before; again != tc.again || n > 0 != tc.count {
				t.Errorf("%+v: again %t, %d refusals", tc, again, n)
			}
			a.gate.leave(turn)
			time.Sleep(time.Minute)
		}
	})
}

// Who holds connections that the agent serves is told of others' refusals.
func TestServing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newAudience(t, newCrowd()).gate
		enter := func() *turn {
			turn, err := g.enter(t.Context(), "", 0)
			if err != nil {
				t.Fatal(err)
			}
			return turn
		}
		us, other := enter(), enter()
		g.connected(us, time.Now(), true)
		time.Sleep(time.Hour)
		ask := func(want bool) {
			t.Helper()
			since := time.Now()
			time.Sleep(lookAgain)
			if got := g.serving(since, us); got != want {
				t.Errorf("serving %t, want %t", got, want)
			}
		}
		ask(false)
		g.connected(other, time.Now(), false)
		ask(false) // it is as new as ours
		time.Sleep(provenAfter)
		ask(true)
		g.connected(other, time.Now(), true)
		ask(true) // it was answered on before
		g.connected(other, time.Time{}, false)
		ask(false) // it has ended
		g.spoke()
		time.Sleep(time.Second)
		ask(false) // long ago
		time.AfterFunc(lookAgain/2, g.spoke)
		ask(true)
		g.leave(us)
		g.leave(other)
	})
}

// A limit that was only guessed is dropped while there are answers; one that shows
// again is believed.
func TestWindowGuess(t *testing.T) {
	now := time.Unix(1000, 0)
	w := newWindow(150, now)
	w.refused(now, now, 20, 0, false)
	if w.limit != 16 {
		t.Fatalf("%+v", w)
	}
	w.grow(now.Add(time.Hour))
	if w.limit != 16 {
		t.Fatalf("%+v: grown without an answer", w)
	}
	now = now.Add(time.Hour)
	w.answered(now)
	for _, want := range []int{32, 64, 128, 150} {
		now = now.Add(windowRegrow)
		w.answered(now)
		if w.grow(now); w.limit != want {
			t.Fatalf("%+v, want a limit of %d", w, want)
		}
	}
	w.refused(now, now, 20, 0, false)
	w.answered(now)
	if w.grow(now.Add(9 * time.Second)); w.limit != 16 {
		t.Fatalf("%+v: it was refused twice", w)
	}
	w.grow(now.Add(15 * time.Hour))
	if w.limit != 150 {
		t.Fatalf("%+v after long", w)
	}
	now = now.Add(15 * time.Hour)
	w.refused(now, now, 20, 0, false)
	w.refused(now, now.Add(-time.Second), 20, 0, true) // an older one's reason counts
	w.answered(now)
	if w.grow(now.Add(9 * time.Second)); w.limit != 16 {
		t.Fatalf("%+v: the agent has said so", w)
	}
}

// Consul's request limits answer 503 as well, but so do agents without servers.
func TestLimitsAmong503(t *testing.T) {
	cleanEnv(t)
	for text, limit := range map[string]bool{
		"rate limit exceeded for operation that can only be performed by the leader, try again later": true,
		"rpc error: code = ResourceExhausted desc = too much":                                         true,
		"rpc error making call: error reading from server: EOF":                                       false,
		"No known Consul servers": false,
	} {
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			http.Error(w, text, http.StatusServiceUnavailable)
		}))
		a := crowdClient(t, nil, srv.URL, func(*Config) {})
		_, _, err := a.client.Health().Service("web", "", false, nil)
		if s := a.gate.Status(); err == nil || busy(fmt.Errorf("consul: %w", err)) != limit || s.BusyRate > 0 != limit {
			t.Errorf("%v: busy %t, %+v", err, busy(err), s)
		}
		srv.Close()
	}
	if busy(errors.New("rate limit")) {
		t.Error("no answer is no limit's")
	}
}

func TestBusy503SlowsDown(t *testing.T) {
	asked := func(code int, body string) int {
		var n int
		synctest.Test(t, func(t *testing.T) {
			b := watch(t, func(int, asked) answer { return answer{code: code, body: body} })
			b.after(time.Minute)
			n = len(b.fake.asked())
			_ = b.stop()
		})
		return n
	}
	said := asked(http.StatusServiceUnavailable, "rate limit exceeded for operation that can only be performed by the leader, try again later")
	lost := asked(http.StatusServiceUnavailable, "No known Consul servers")
	if other := asked(http.StatusInternalServerError, "No cluster leader"); said != asked(http.StatusTooManyRequests, "rate limit exceeded") || lost != other || said >= lost {
		t.Errorf("asked %d times under a limit, %d times without servers, %d times without a leader", said, lost, other)
	}
}

// earlier has these services watched by an earlier run, and leaves its snapshots.
func (a *audience) persisting(dir string, services []string, env Env) (stop func()) {
	ctx, cancel := context.WithCancel(a.ctx)
	store := NewStore(dir, env)
	var over sync.WaitGroup
	for _, s := range services {
		src := NewConsul(a.client, Query{Service: s}, a.cfg, env)
		src.Persist(store, s)
		over.Go(func() {
			_ = src.Watch(ctx, func(set []Instance) {
				a.mu.Lock()
				defer a.mu.Unlock()
				a.port[s], a.at[s] = set[0].Port, time.Now()
			})
		})
	}
	return func() { cancel(); over.Wait() }
}

// The grace of a snapshot begins when the read has its turn: hundreds of services
// on a healthy agent start without one. An agent that never answers does not keep
// those who wait for a turn from starting.
func TestGraceBeginsAtTheGate(t *testing.T) {
	dir, all := t.TempDir(), names("s", 500)
	life := func(c *crowd, d time.Duration) (warnings int, a *audience) {
		synctest.Test(t, func(t *testing.T) {
			a = newAudience(t, c)
			var out bytes.Buffer
			log := hclog.New(&hclog.LoggerOptions{Output: &out, Mutex: new(sync.Mutex), Level: hclog.Warn})
			stop := a.persisting(dir, all, Env{Logger: log, Rand: func() float64 { return 0.5 }})
			time.Sleep(d)
			stop()
			warnings = strings.Count(out.String(), "snapshot of an earlier run")
		})
		return warnings, a
	}
	if n, _ := life(newCrowd(), time.Minute); n != 0 {
		t.Fatalf("%d of no snapshots were used", n)
	}
	if n, a := life(newCrowd(), time.Minute); n != 0 || len(a.port) != len(all) {
		t.Errorf("%d services of %d used their snapshot beside a healthy agent", n, len(a.port))
	}
	dead := newCrowd()
	dead.hangs = true
	if n, a := life(dead, graceQueued+100*time.Millisecond); n != len(all) || len(a.port) != len(all) {
		t.Errorf("%d services of %d used their snapshot beside a dead agent", n, len(a.port))
	}
}
