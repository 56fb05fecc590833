package balance

import (
	"math/rand/v2"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"outrigger/picker"
)

func TestStatus(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, func(c *Config) {
			limit(2, 10, time.Minute)(c)
			c.Picker.Policy = "resource"
		})
		r.run()
		set := instances(2)
		set[0].Weight, set[0].Tags = 3, []string{"a"}
		r.Update(set)
		r.SetLoad("n/0", &picker.Load{At: r.Now(), Expires: r.Now() + time.Hour, Cores: 4, Avail: 4, InFlight: 1, Listening: true})
		time.Sleep(2 * time.Second)
		held := []*Lease{r.getAt(0), r.getAt(0)}
		r.getAt(1).Done(picker.Result{Outcome: picker.Drop})
		r.getAt(1).Done(ok)
		retry, err := r.Retry(Key{})
		if err != nil {
			t.Fatal(err)
		}
		retry.Done(skip)
		s := r.Status()
		if s.Service != "web" || !s.Seen || s.Draining || s.Policy != "resource" || s.Ready != 1 || s.Panic || s.Reason != "" ||
			s.Mode != "requests per free capacity, 1 of 2 with live figures" ||
			s.Requests != 5 || s.Retries != 1 || s.BudgetSpent != 0 || s.Capacity != "closed" || s.CapacityFor != 0 {
			t.Errorf("service %+v", s)
		}
		for _, name := range Reasons() {
			if n, there := s.Refused[name]; !there || n != 0 {
				t.Errorf("refused %q: %d, %v", name, n, there)
			}
		}
		a, b := s.Endpoints[0], s.Endpoints[1]
		if a.Instance.ID != "n/0" || a.Instance.Weight != 3 || a.Instance.Tags[0] != "a" || a.Ready || a.Why != "at its limit of 2" ||
			a.InFlight != 2 || a.Limit != 2 || a.Load == nil || a.Load.Cores != 4 || a.LoadAge != 2*time.Second || a.Breaker != "closed" {
			t.Errorf("first endpoint %+v", a)
		}
		if !b.Ready || b.Why != "" || b.InFlight != 0 || b.Load != nil || b.LoadAge != 0 || b.Latency != time.Millisecond ||
			b.Totals != (picker.Totals{Requests: 3, Successes: 1, Drops: 1, Ignored: 1}) || b.Returns != 0 {
			t.Errorf("second endpoint %+v", b)
		}
		held = append(held, r.getAt(1), r.getAt(1))
		r.refuses(Saturated)
		if s := r.Status(); s.Ready != 0 || s.Reason != "saturated" || s.Refused["saturated"] != 1 {
			t.Errorf("all at their limits: %d ready, reason %q", s.Ready, s.Reason)
		}
		for _, l := range held {
			l.Done(ok)
		}
	})
}

func TestReasonNames(t *testing.T) {
	want := "no_backends all_ejected saturated queue_full queue_timeout unreachable draining"
	if got := strings.Join(Reasons(), " "); got != want {
		t.Errorf("reasons %s, want %s", got, want)
	}
	for i, name := range Reasons() {
		if Reason(i).String() != name {
			t.Errorf("reason %d is called %s", i, Reason(i))
		}
	}
	if s := Reason(99).String(); s != "unknown" {
		t.Errorf("reason 99 is called %q", s)
	}
	if s := (&Refusal{QueueFull, 3}).Error(); s != "queue_full, retry after 3 s" {
		t.Errorf("error %q", s)
	}
}

// TestRetryAfterRange: whole seconds from 1 to 30 for every reason, in every
// state, whatever chance says.
func TestRetryAfterRange(t *testing.T) {
	for name, chance := range map[string]picker.Rand{
		"least": func(uint32) uint32 { return 0 }, "most": func(n uint32) uint32 { return n - 1 }, "random": rand.Uint32N,
	} {
		bubble(t, func(t *testing.T) {
			r := newRig(t, limit(1, 0, time.Second))
			r.env.Rand = chance
			r.run()
			check := func(state string) {
				t.Helper()
				for reason := range numReasons {
					for range 20 {
						refused(t, r.Refuse(reason), reason)
					}
				}
			}
			check("new")
			r.Update(instances(2))
			check("healthy")
			r.eject(0)
			check("one ejected")
			for range 9 {
				r.expire(0)
				r.getAt(0).Done(down)
				synctest.Wait()
			}
			check("ejected for long")
			r.Update(nil)
			check("nobody there")
			time.Sleep(time.Hour)
			check("for an hour")
			if s := r.Status(); s.Refused["unreachable"] != 6*20 {
				t.Errorf("%s: counted %d", name, s.Refused["unreachable"])
			}
		})
	}
}

// TestRetryAfterKnownWait: who is told that all are ejected is told when the
// first comes back; who is shed, a time that grows with the share shed.
func TestRetryAfterKnownWait(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, func(c *Config) {
			limit(1, 0, time.Second)(c)
			c.Breaker.BaseEjection = 8 * time.Second
		})
		r.env.Rand = func(uint32) uint32 { return 0 }
		r.run()
		r.Update(instances(2))
		most := 0
		for range 100 {
			r.env.Rand = rand.Uint32N
			most = max(most, r.retryAfter(Saturated, r.Now()))
		}
		if most != 4 {
			t.Errorf("up to %d s with nothing shed, want 4", most)
		}
		l, m := r.get(), r.get()
		for range 98 {
			r.refuses(Saturated)
		}
		for range 1000 {
			most = max(most, r.retryAfter(QueueFull, r.Now()))
		}
		if most != 30 {
			t.Errorf("up to %d s with 98 of 100 shed, want 30", most)
		}
		time.Sleep(2 * time.Second) // the window is two seconds
		l.Done(ok)
		m.Done(ok)
		most = 0
		for range 1000 {
			most = max(most, r.retryAfter(QueueFull, r.Now()))
		}
		if most != 4 {
			t.Errorf("up to %d s once it is over, want 4", most)
		}
		r.eject(0)
		left := r.member(0).br.Until() - r.Now()
		for _, reason := range []Reason{AllEjected, Unreachable} {
			if got := time.Duration(r.retryAfter(reason, r.Now())) * time.Second; got < left || got > left+2*time.Second {
				t.Errorf("%v: retry after %v, it comes back in %v", reason, got, left)
			}
		}
	})
}

func TestConfig(t *testing.T) {
	if err := DefaultConfig().Validate(); err != nil {
		t.Errorf("the defaults: %v", err)
	}
	for want, change := range map[string]func(*Config){
		"max_in_flight is -1,":     func(c *Config) { c.MaxInFlight = -1 },
		"max_in_flight is 1000001": func(c *Config) { c.MaxInFlight = 1000001 },
		"queue length is -1,":      func(c *Config) { c.Queue.Length = -1 },
		"queue length is 100001,":  func(c *Config) { c.Queue.Length = 100001 },
		"queue timeout is 1µs,":    func(c *Config) { c.Queue.Timeout = time.Microsecond },
		"queue timeout is 1m1s,":   func(c *Config) { c.Queue.Timeout = 61 * time.Second },
		"policy \"x\" is not":      func(c *Config) { c.Picker.Policy = "x" },
		"consecutive_failures":     func(c *Config) { c.Breaker.ConsecutiveFailures = 0 },
		"budget ratio":             func(c *Config) { c.Budget.Ratio = 2 },
	} {
		c := DefaultConfig()
		change(&c)
		if err := c.Validate(); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("error %v, want %q", err, want)
		}
		if b, err := New(c, RealEnv(nil)); err == nil || b != nil {
			t.Errorf("New took what Validate says is wrong: %s", want)
		}
	}
}

// TestRealEnv is all that reads the machine's clock and chance.
func TestRealEnv(t *testing.T) {
	env := RealEnv(nil)
	last := env.Now()
	if last < time.Second {
		t.Errorf("the clock starts at %v", last)
	}
	for range 1000 {
		now := env.Now()
		if now < last {
			t.Fatalf("the clock went back from %v to %v", last, now)
		}
		last = now
		if n := env.Rand(7); n > 6 {
			t.Fatalf("drew %d of 7", n)
		}
	}
	b, err := New(DefaultConfig(), env)
	if err != nil {
		t.Fatal(err)
	}
	b.Update(instances(1)) // without connections beside it
	l, err := b.TryAcquire(Key{})
	if err != nil || l.Conns() != nil {
		t.Errorf("%v, connections %v", err, l.Conns())
	}
	l.Done(ok)
	b.Update(nil)
}
