package healthcheck

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// TestRiseAndFall: an endpoint is up after one success, down after three failures, the
// second and third of which come fast, and up again after two successes.
func TestRiseAndFall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, log := newNetwork(), &logged{}
		c := New(tcpConfig(), Env{Rand: middle, Dial: n.dial, Logger: log.logger()})
		c.SetTargets([]Target{{ID: "a", Addr: "a:1"}})
		h := running(t, c)
		if s, ok := c.Status("a"); !ok || s.State != Unknown || s.Since != 0 {
			t.Errorf("at first: %+v, %v", s, ok)
		}
		at := func(d time.Duration, want string) {
			t.Helper()
			time.Sleep(d - time.Since(n.start))
			synctest.Wait()
			if got := text(h.take()); got != want {
				t.Errorf("at %s:\n%s\nwant\n%s", d, got, want)
			}
		}
		at(500*ms, "a up 500ms\n")
		at(5500*ms, "") // a second check, the same
		n.set("a:1", syscall.ECONNREFUSED)
		at(11500*ms, "") // 10.5 failed, 11.5 failed
		at(12500*ms, "a down 12.5s\n")
		n.set("a:1", nil)
		at(17500*ms, "a down 12.5s\n") // the next is slow again; it can be reached
		if s, _ := c.Status("a"); s.State != Down || s.InARow != 1 || s.Error != "" || s.LastError == "" {
			t.Errorf("rising: %+v", s)
		}
		at(18500*ms, "a up 18.5s\n")
		at(60*time.Second, "")
		s, _ := c.Status("a")
		if s.Checks != s.Successes+s.Failures || s.Failures != 3 || s.Unmade != 0 || s.State != Up {
			t.Errorf("%+v", s)
		}
		if want := []time.Duration{500 * ms, 5500 * ms, 10500 * ms, 11500 * ms, 12500 * ms, 17500 * ms, 18500 * ms, 23500 * ms}; !slices.Equal(n.times("a:1")[:8], want) {
			t.Errorf("checked at %v, want %v", n.times("a:1"), want)
		}
		if log.count("find an endpoint down") != 1 || log.count("find an endpoint well again") != 1 || log.count("nothing listens") != 1 {
			t.Errorf("logged:\n%s", log.buf.String())
		}
	})
}

// TestUnknownIsNotDown: a newcomer that fails is Unknown until the last of `fall`.
func TestUnknownIsNotDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		n.set("a:1", syscall.ECONNREFUSED)
		c := New(tcpConfig(), Env{Rand: middle, Dial: n.dial})
		c.SetTargets([]Target{{ID: "a", Addr: "a:1"}})
		h := running(t, c)
		time.Sleep(2400 * ms)
		synctest.Wait()
		if s, _ := c.Status("a"); s.State != Unknown || s.Failures != 2 || s.Error == "" {
			t.Errorf("%+v", s)
		}
		time.Sleep(100 * ms)
		synctest.Wait()
		if got := h.take(); text(got) != "a down 2.5s\n" || !got[0].Unreachable {
			t.Errorf("got %+v", got)
		}
	})
}

// TestBrokenRow: failures count only in a row.
func TestBrokenRow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		c := New(tcpConfig(), Env{Rand: middle, Dial: n.dial})
		c.SetTargets([]Target{{ID: "a", Addr: "a:1"}})
		h := running(t, c)
		time.Sleep(5600 * ms)
		for range 20 { // two failures, a success
			n.set("a:1", syscall.ECONNREFUSED)
			time.Sleep(6 * time.Second)
			n.set("a:1", nil)
			time.Sleep(time.Second)
		}
		if got := text(h.take()); got != "a up 500ms\n" {
			t.Errorf("got %s", got)
		}
		if s, _ := c.Status("a"); s.Failures < 39 {
			t.Errorf("%+v", s)
		}
	})
}

// TestUnreachableIsTold: a sink hears when an endpoint that is down can be reached.
func TestUnreachableIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		n.set("a:1", syscall.ECONNREFUSED)
		cfg := httpConfig(nil)
		c := New(cfg, Env{Rand: middle, Dial: n.dial})
		c.SetTargets([]Target{{ID: "a", Addr: "a:1"}})
		h := running(t, c)
		time.Sleep(3 * time.Second)
		n.set("a:1", nil) // connects now, and breaks off
		time.Sleep(20 * time.Second)
		got := h.take()
		if len(got) != 2 || !got[0].Unreachable || got[1].Unreachable || got[1].State != Down || got[1].Since != got[0].Since {
			t.Errorf("got %+v", got)
		}
	})
}

// TestNoVerdict: what this machine lacks changes no state, and is said once a minute.
func TestNoVerdict(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, log := newNetwork(), &logged{}
		c := New(tcpConfig(), Env{Rand: middle, Dial: n.dial, Logger: log.logger()})
		c.SetTargets([]Target{{ID: "a", Addr: "a:1"}, {ID: "b", Addr: "b:1"}})
		n.set("b:1", syscall.EMFILE)
		h := running(t, c)
		time.Sleep(time.Second)
		n.set("a:1", syscall.ENFILE)
		time.Sleep(89 * time.Second)
		if got := text(h.take()); got != "a up 500ms\n" {
			t.Errorf("got %s", got)
		}
		for _, id := range []string{"a", "b"} {
			if s, _ := c.Status(id); s.Failures != 0 || s.Unmade < 10 || s.LastErrorAt == 0 {
				t.Errorf("%+v", s)
			}
		}
		if log.count("could not be checked") != 2 || log.count("too many open files") != 2 {
			t.Errorf("logged:\n%s", log.buf.String())
		}
		n.set("b:1", nil)
		time.Sleep(time.Second + ms)
		if got := text(h.take()); !strings.HasPrefix(got, "b up") {
			t.Errorf("then %s", got)
		}
	})
}

// TestNoDrift: slow answers do not stretch the schedule, and jitter averages out.
func TestNoDrift(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		n.delay["a:1"] = 700 * ms
		r := rand.New(rand.NewPCG(1, 2))
		c := New(tcpConfig(), Env{Rand: r.Uint32N, Dial: n.dial})
		c.SetTargets([]Target{{ID: "a", Addr: "a:1"}})
		running(t, c)
		time.Sleep(10 * time.Hour)
		got := n.times("a:1")
		// The mean of 7200 intervals of 4.5 to 5.5 s: a standard error of 3.4 ms.
		if mean := (got[len(got)-1] - got[0]) / time.Duration(len(got)-1); mean < 4980*ms || mean > 5020*ms {
			t.Errorf("an interval of %s on average", mean)
		}
		low, high := time.Hour, time.Duration(0)
		for i := 1; i < len(got); i++ {
			low, high = min(low, got[i]-got[i-1]), max(high, got[i]-got[i-1])
		}
		if low < 4500*ms || low > 4600*ms || high > 5500*ms || high < 5400*ms {
			t.Errorf("intervals from %s to %s", low, high)
		}
	})
}

func targetsNamed(prefix string, n int) []Target {
	all := make([]Target, n)
	for i := range all {
		all[i] = Target{ID: fmt.Sprintf("%s%d", prefix, i), Addr: fmt.Sprintf("%s%d:1", prefix, i)}
	}
	return all
}

// TestFirstChecks: those of newcomers are spread over a FastInterval, also where Run is
// called long after SetTargets.
func TestFirstChecks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		r := rand.New(rand.NewPCG(3, 4))
		c := New(tcpConfig(), Env{Rand: r.Uint32N, Dial: n.dial})
		c.SetTargets(targetsNamed("a", 500))
		time.Sleep(time.Hour)
		running(t, c)
		time.Sleep(time.Minute)
		c.SetTargets(append(targetsNamed("a", 500), targetsNamed("b", 500)...))
		time.Sleep(time.Minute)
		for prefix, from := range map[string]time.Duration{"a": time.Hour, "b": time.Hour + time.Minute} {
			var quarters [4]int
			for _, x := range targetsNamed(prefix, 500) {
				first := n.times(x.Addr)[0] - from
				if first < 0 || first >= time.Second {
					t.Fatalf("%s: first check after %s", x.ID, first)
				}
				quarters[first*4/time.Second]++
			}
			if slices.Min(quarters[:]) < 80 { // of 125
				t.Errorf("%s: quarters of a second: %v", prefix, quarters)
			}
		}
	})
}

// TestHangingDoNotDelay: 300 endpoints that let checks run into the timeout take their
// places among themselves; the others are checked in time, and nobody is forgotten.
func TestHangingDoNotDelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, log := newNetwork(), &logged{}
		r := rand.New(rand.NewPCG(5, 6))
		hanging, good := targetsNamed("hang", 300), targetsNamed("good", 150)
		for _, x := range hanging {
			n.hang[x.Addr] = true
		}
		c := New(tcpConfig(), Env{Rand: r.Uint32N, Dial: n.dial, Logger: log.logger()})
		c.SetTargets(append(slices.Clone(hanging), good...))
		running(t, c)
		// Before they are known: 300 at 64 in 2 s.
		time.Sleep(time.Minute)
		from := time.Since(n.start)
		time.Sleep(4 * time.Minute)
		n.mu.Lock()
		most := n.most
		n.mu.Unlock()
		if most != maxAtOnce {
			t.Errorf("%d at once", most)
		}
		worst := time.Duration(0)
		for _, x := range good {
			times := n.times(x.Addr)
			for i := 1; i < len(times); i++ {
				if times[i-1] > from {
					worst = max(worst, times[i]-times[i-1])
				}
			}
			if s, _ := c.Status(x.ID); s.State != Up {
				t.Fatalf("%+v", s)
			}
		}
		if worst > 5500*ms {
			t.Errorf("a good endpoint was not checked for %s", worst)
		}
		// 32 at a time, 2 s each: all 300 within 19 s.
		for _, x := range hanging {
			if s, _ := c.Status(x.ID); s.State != Down || !s.Unreachable || s.Checks < 14 {
				t.Fatalf("%+v", s)
			}
		}
		if k := log.count("checks are late"); k < 1 || k > 5 {
			t.Errorf("said %d times that checks are late", k)
		}
		if k := log.count("find an endpoint down"); k < maxLines || k > 5*maxLines || log.count("which are not named") < 1 {
			t.Errorf("%d lines of 300 endpoints", k)
		}
		// They recover all at once.
		n.mu.Lock()
		clear(n.hang)
		n.mu.Unlock()
		time.Sleep(time.Minute)
		for _, x := range hanging {
			if s, _ := c.Status(x.ID); s.State != Up {
				t.Fatalf("%+v", s)
			}
		}
	})
}
