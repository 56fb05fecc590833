package healthcheck

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// TestSetTargets: who stays keeps state and schedule; another address is another
// endpoint.
func TestSetTargets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		c := New(tcpConfig(), Env{Rand: middle, Dial: n.dial})
		c.SetTargets([]Target{{ID: "a", Addr: "a:1"}, {ID: "b", Addr: "b:1"}, {ID: "x", Addr: "x:1"}})
		h := running(t, c)
		time.Sleep(10 * time.Second)
		h.take()
		c.SetTargets([]Target{{ID: "c", Addr: "old:1"}, {ID: "b", Addr: "b:2"}, {ID: "a", Addr: "a:1"}, {ID: "c", Addr: "c:1"}})
		state := func(id string) State {
			s, ok := c.Status(id)
			if !ok {
				t.Errorf("%s is not there", id)
			}
			return s.State
		}
		if state("a") != Up || state("b") != Unknown || state("c") != Unknown {
			t.Errorf("%v", c.All())
		}
		if _, ok := c.Status("x"); ok || len(c.All()) != 3 || c.All()[2].ID != "c" || c.All()[2].Addr != "c:1" {
			t.Errorf("%v", c.All())
		}
		time.Sleep(10 * time.Second)
		got := h.take()
		slices.SortFunc(got, func(a, b told) int { return strings.Compare(a.id, b.id) })
		if text(got) != "b up 10.5s\nc up 10.5s\n" {
			t.Errorf("heard %s", text(got))
		}
		if times := n.times("a:1"); !slices.Equal(times, []time.Duration{500 * ms, 5500 * ms, 10500 * ms, 15500 * ms}) {
			t.Errorf("a was checked at %v", times)
		}
		if len(n.times("x:1")) != 2 || len(n.times("b:1")) != 2 || len(n.times("old:1")) != 0 {
			t.Error("one that left was checked")
		}
	})
}

// TestLeavingWhileChecked: a check of one that left is called off at once and tells
// nobody, also not of the next one by that ID.
func TestLeavingWhileChecked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		n.hang["a:1"] = true
		c := New(tcpConfig(), Env{Rand: middle, Dial: n.dial})
		c.SetTargets([]Target{{ID: "a", Addr: "a:1"}})
		h := running(t, c)
		time.Sleep(time.Second)
		c.SetTargets(nil)
		synctest.Wait()
		n.mu.Lock()
		running := n.running
		n.mu.Unlock()
		if running != 0 {
			t.Error("its check goes on")
		}
		c.SetTargets([]Target{{ID: "a", Addr: "a:2"}})
		time.Sleep(time.Minute)
		if got := text(h.take()); got != "a up 1.5s\n" {
			t.Errorf("heard %s", got)
		}
		if len(n.times("a:1")) != 1 {
			t.Error("the old one is checked still")
		}
	})
}

// TestAnySets: whatever sets follow each other, those that are there are checked at
// their times, the others never, and the sink hears of none that left.
func TestAnySets(t *testing.T) {
	for seed := range uint64(3) {
		synctest.Test(t, func(t *testing.T) {
			n := newNetwork()
			r := rand.New(rand.NewPCG(seed, 1))
			universe := targetsNamed("t", 150)
			for i, x := range universe {
				switch i % 5 {
				case 0:
					n.hang[x.Addr] = true
				case 1:
					n.answer[x.Addr] = syscall.ECONNREFUSED
				case 2:
					n.delay[x.Addr] = 1500 * ms
				}
			}
			c := New(tcpConfig(), Env{Dial: n.dial})
			var mu sync.Mutex
			now := map[string]bool{}
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			go func() {
				_ = c.Run(ctx, func(id string, _ Verdict) {
					mu.Lock()
					defer mu.Unlock()
					if !now[id] {
						t.Errorf("told of %s, which left", id)
					}
				})
			}()
			for range 100 {
				set := slices.Clone(universe)
				r.Shuffle(len(set), func(i, j int) { set[i], set[j] = set[j], set[i] })
				set = set[:r.IntN(len(set))]
				mu.Lock() // those to come may be told of
				for _, x := range set {
					now[x.ID] = true
				}
				mu.Unlock()
				c.SetTargets(set)
				mu.Lock()
				clear(now)
				for _, x := range set {
					now[x.ID] = true
				}
				mu.Unlock()
				time.Sleep(time.Duration(r.Int64N(int64(3 * time.Second))))
			}
			c.SetTargets(universe)
			mu.Lock()
			for _, x := range universe {
				now[x.ID] = true
			}
			mu.Unlock()
			time.Sleep(time.Minute)
			for i, s := range c.All() {
				want := Up
				if k := slices.IndexFunc(universe, func(x Target) bool { return x.ID == s.ID }); k%5 < 2 {
					want = Down
				}
				if s.State != want || s.LastAt < time.Since(n.start)-10*time.Second {
					t.Fatalf("%d: %+v", i, s)
				}
			}
		})
	}
}

// TestEnd: Run ends with its checks, and runs once.
func TestEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		for _, x := range targetsNamed("h", 100) {
			n.hang[x.Addr] = true
		}
		c := New(tcpConfig(), Env{Dial: n.dial})
		c.SetTargets(targetsNamed("h", 100))
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- c.Run(ctx, func(string, Verdict) { t.Error("told") }) }()
		time.Sleep(1900 * ms)
		if err := c.Run(ctx, nil); err == nil {
			t.Error("it runs twice")
		}
		cancel()
		synctest.Wait()
		select {
		case err := <-done:
			if err != nil || n.running != 0 {
				t.Errorf("%v, %d checks go on", err, n.running)
			}
		default:
			t.Fatal("it did not end at once")
		}
		c.SetTargets(nil)
	})
}

// TestRealSinks: with real connections under way, the sink is silent about a target
// from the moment that SetTargets returned.
func TestRealSinks(t *testing.T) {
	t.Parallel()
	var flip sync.Mutex
	good := true
	addr := rawServer(t, func(c net.Conn) {
		flip.Lock()
		good = !good
		answer := good
		flip.Unlock()
		readHead(c)
		if answer {
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
		}
	})
	c := New(httpConfig(func(c *Config) { c.Interval, c.FastInterval, c.Timeout, c.Rise, c.Fall = 100*ms, 10*ms, 100*ms, 1, 1 }), Env{})
	var mu sync.Mutex
	allowed, told := map[string]bool{}, 0
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan error, 1)
	go func() {
		done <- c.Run(ctx, func(id string, _ Verdict) {
			mu.Lock()
			defer mu.Unlock()
			told++
			if !allowed[id] {
				t.Errorf("told of %s", id)
			}
		})
	}()
	for round := range 60 {
		var set []Target
		next := map[string]bool{}
		for i := range 30 {
			x := Target{ID: fmt.Sprint(round, "-", i), Addr: addr}
			set = append(set, x)
			next[x.ID] = true
		}
		mu.Lock()
		maps.Copy(allowed, next)
		mu.Unlock()
		c.SetTargets(set)
		mu.Lock()
		allowed = next
		mu.Unlock()
		time.Sleep(15 * ms)
	}
	heard := func() bool {
		mu.Lock()
		defer mu.Unlock()
		return told > 0
	}
	for end := time.Now().Add(patience); !heard(); time.Sleep(ms) {
		if time.Now().After(end) {
			t.Fatal("the sink heard nothing")
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestOnceOfAnInvalidKind(t *testing.T) {
	if err := New(DefaultConfig(), Env{}).Once(t.Context(), Target{Addr: "127.0.0.1:1"}); !errors.Is(err, ErrNoVerdict) {
		t.Error(err)
	}
}
