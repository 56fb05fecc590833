package h1

import (
	"context"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"outrigger/picker"
	"outrigger/sidecar/balance"
	"outrigger/sidecar/tunnel"
)

// word is one call of a LoadFunc.
type word struct {
	ep    *picker.Endpoint
	now   time.Duration
	own   int
	value string
}

// ears keep what a LoadFunc is told.
type ears struct {
	mu    sync.Mutex
	heard []word
}

func (e *ears) load(ep *picker.Endpoint, now time.Duration, own int, value []byte) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.heard = append(e.heard, word{ep, now, own, string(value)})
}

// take returns what was heard since the last call.
func (e *ears) take() []word {
	e.mu.Lock()
	defer e.mu.Unlock()
	all := e.heard
	e.heard = nil
	return all
}

// listens puts a server before the rig's backends that tells the ears.
func (r *rig) listens(cfg Config, e *ears) {
	r.t.Helper()
	s := r.e.NewServer(cfg, r.b, Options{Tunnel: tunnel.Run, Load: e.load})
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		r.t.Fatal(err)
	}
	r.url = "http://" + ln.Addr().String()
	served := make(chan struct{})
	go func() {
		defer close(served)
		s.Serve(ln)
	}()
	r.t.Cleanup(func() {
		dead, stop := context.WithCancel(context.Background())
		stop()
		_ = s.Shutdown(dead)
		<-served
	})
}

// What a backend says of its load is heard, with the requests that this sidecar
// has there, and goes on to the client.
func TestLoadHeaderIsHeardAndPassedOn(t *testing.T) {
	const value = "TEXT named_metrics.in_flight:3"
	hold := make(chan bool)
	b := newBackend(t, func(b *backend, p *peer) {
		for h := b.head(p); h != ""; h = b.head(p) {
			if strings.Contains(h, "/hold") {
				await(t, hold)
			}
			p.send(lines("HTTP/1.1 200 OK", "Content-Length: 0", "Endpoint-LOAD-Metrics:  "+value+" ", "endpoint-load-metrics: second"))
		}
	})
	r := newRig(t, quick(), balance.DefaultConfig(), b.addr)
	var e ears
	r.listens(quick(), &e)
	held := r.dial()
	held.send(lines("GET /hold HTTP/1.1", "Host: a"))
	r.eventually("the first request is held", func() bool { return len(b.got()) == 1 })

	c := r.dial()
	before := r.b.Now()
	c.send(get("Endpoint-Load-Metrics: of the client"))
	a := c.want("GET", 200, "")
	if got := a.Header.Values("Endpoint-Load-Metrics"); len(got) != 2 || got[0] != value {
		t.Errorf("the client got %q", got)
	}
	heard := e.take()
	if len(heard) != 1 {
		t.Fatalf("heard %v", heard)
	}
	w := heard[0]
	if w.ep.Addr != b.addr || w.value != value || w.own != 2 || w.now < before || w.now > r.b.Now() {
		t.Errorf("heard %+v of %s", w, w.ep.Addr)
	}
	if heads := b.got(); fieldOf(heads[1], "Endpoint-Load-Metrics") != "of the client" {
		t.Errorf("the backend got %q", heads[1])
	}
	give(t, hold)
	held.want("GET", 200, "")
}

// An answer that is not passed on tells of its endpoint all the same, and so
// does one that switches protocols; what we answer ourselves does not.
func TestLoadHeaderOfOddAnswers(t *testing.T) {
	cfg := statusRetries()
	r, bad, _ := twoTries(t, cfg, balance.DefaultConfig(), lines("HTTP/1.1 503 No", "Content-Length: 0", "Endpoint-Load-Metrics: tired"))
	var e ears
	r.listens(cfg, &e)
	c := r.dial()
	c.send(get())
	c.want("GET", 200, "good")
	if heard := e.take(); len(heard) != 1 || heard[0].value != "tired" || heard[0].ep.Addr != bad.addr {
		t.Errorf("of an answer that was retried: %v", heard)
	}

	up := newBackend(t, func(b *backend, p *peer) {
		b.head(p)
		p.send(lines("HTTP/1.1 101 Go", "Connection: Upgrade", "Upgrade: x", "Endpoint-Load-Metrics: up"))
	})
	r.set(up.addr)
	c = r.dial()
	c.send(get("Connection: Upgrade", "Upgrade: x"))
	if h := c.head(); fieldOf(h, "Endpoint-Load-Metrics") != "up" {
		t.Errorf("the client got %q", h)
	}
	if heard := e.take(); len(heard) != 1 || heard[0].value != "up" {
		t.Errorf("of a 101: %v", heard)
	}

	r.set(nobody(t))
	c = r.dial()
	c.send(get())
	c.wantOwn(503, "unreachable")
	if heard := e.take(); len(heard) != 0 {
		t.Errorf("of our own answer: %v", heard)
	}
}

// teller is a connection whose backend has just answered so.
func teller(t testing.TB, e LoadFunc, fields ...string) (*conn, *upstream) {
	t.Helper()
	r := newRig(t, quick(), balance.DefaultConfig(), "127.0.0.1:1") // never dialled
	c := &conn{s: &Server{load: e}, work: &work{}, now: time.Second}
	head := []byte(lines(append([]string{"HTTP/1.1 200 OK"}, fields...)...))
	if err := c.res.ParseResponse(head, DefaultLimits(), false); err != nil {
		t.Fatal(err)
	}
	var err error
	if c.lease, err = r.b.TryAcquire(balance.Key{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.lease.Done(picker.Result{Outcome: picker.Ignore}) })
	return c, &upstream{pool: c.lease.Conns().(*pool)}
}

// An endpoint is heard once in 10 ms, whatever it says in between.
func TestLoadHeaderIsThrottled(t *testing.T) {
	var e ears
	c, u := teller(t, e.load, "Endpoint-Load-Metrics: x")
	begin := c.now
	for at, want := range []int{0: 1, 1: 1, 9: 1, 10: 2, 11: 2, 19: 2, 20: 3, 50: 4, 59: 4, 60: 5} {
		if want == 0 {
			continue
		}
		c.now = begin + time.Duration(at)*time.Millisecond
		c.told(u)
		if n := len(e.heard); n != want {
			t.Errorf("after %d ms: heard %d times, want %d", at, n, want)
		}
	}
}

// Of many at once one is heard.
func TestLoadHeaderIsHeardOnce(t *testing.T) {
	var e ears
	c, u := teller(t, e.load, "Endpoint-Load-Metrics: x")
	for range 500 {
		c.now += loadEvery
		begin := make(chan struct{})
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				<-begin
				c.told(u)
			})
		}
		close(begin)
		wg.Wait()
		if n := len(e.take()); n != 1 {
			t.Fatalf("heard %d times", n)
		}
	}
}

func TestLoadHeaderDoesNotAllocate(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	heard := 0
	c, u := teller(t, func(*picker.Endpoint, time.Duration, int, []byte) { heard++ }, "A: b", "Endpoint-Load-Metrics: x")
	if n := testing.AllocsPerRun(100, func() {
		c.now += loadEvery
		c.told(u)
	}); n != 0 || heard == 0 {
		t.Errorf("%v allocations, heard %d times", n, heard)
	}
}

// BenchmarkLoadHeader is what hearing costs an answer: nothing but a look at its
// fields, when it does not tell.
func BenchmarkLoadHeader(b *testing.B) {
	fields := strings.Split(strings.TrimRight(string(benchResponse), "\r\n"), "\r\n")[1:]
	for name, more := range map[string]int{"absent": 0, "throttled": 1, "absent of 30 fields": 22} {
		b.Run(name, func(b *testing.B) {
			all := fields
			for i := range more {
				if more == 1 {
					all = append(all[:len(all):len(all)], "Endpoint-Load-Metrics: TEXT named_metrics.in_flight:3")
				} else {
					all = append(all[:len(all):len(all)], fmt.Sprintf("X-Field-%d: value", i))
				}
			}
			c, u := teller(b, func(*picker.Endpoint, time.Duration, int, []byte) {}, all...)
			b.ReportAllocs()
			for b.Loop() {
				c.told(u)
			}
		})
	}
}
