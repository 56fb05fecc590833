package breaker

import (
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// TestMeterSums holds the ring against a plain list of events, over busy and
// idle times, windows of every length, and the turn of the ring.
func TestMeterSums(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	var m Meter
	var events []int64 // seconds
	now := time.Duration(0)
	for range 3000 {
		if rnd.IntN(3) == 0 {
			step := []time.Duration{time.Millisecond, 300 * time.Millisecond, time.Second, 7 * time.Second, time.Hour}[rnd.IntN(5)]
			now += time.Duration(rnd.Int64N(int64(step)))
		} else {
			m.Add(now)
			events = append(events, int64(now/time.Second))
		}
		for _, seconds := range []int{0, 1, 2, 10, 15, 16, 100} {
			var want uint64
			for i := len(events) - 1; i >= 0 && events[i] > int64(now/time.Second)-int64(min(seconds, 15)); i-- {
				want++
			}
			if got := m.Sum(now, seconds); got != want {
				t.Fatalf("at %v: %d in %d s, want %d", now, got, seconds, want)
			}
		}
	}
}

// TestMeterLongIdle: nothing old shows, nor where the second's 24 bits wrap.
func TestMeterLongIdle(t *testing.T) {
	var m Meter
	for range 100 {
		m.Add(5 * time.Second)
	}
	for _, idle := range []time.Duration{16 * time.Second, time.Hour, (1<<24 - 3) * time.Second, (1<<24 + 40) * time.Second} {
		if got := m.Sum(5*time.Second+idle, 15); got != 0 {
			t.Errorf("%d after %v without an event", got, idle)
		}
	}
}

// TestMeterLosesNothing: concurrent events around a slot's turnover all count.
func TestMeterLosesNothing(t *testing.T) {
	const goroutines, each = 8, 3000
	var m Meter
	for round := range 20 {
		base := time.Duration(round*3) * time.Second
		var wg sync.WaitGroup
		for range goroutines {
			wg.Go(func() {
				for i := range each {
					m.Add(base + time.Duration(i)*time.Millisecond)
				}
			})
		}
		wg.Wait()
		if got := m.Sum(base+2999*time.Millisecond, 3); got != goroutines*each {
			t.Fatalf("round %d: %d counted, want %d", round, got, goroutines*each)
		}
	}
}

// TestMeterTurnover has two events meet at the first moment of every second.
func TestMeterTurnover(t *testing.T) {
	const seconds = 20000
	var m Meter
	var arrived atomic.Int64
	both := func(n int) { // are here for the nth time
		arrived.Add(1)
		for arrived.Load() < int64(2*n) {
			runtime.Gosched()
		}
	}
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for i := range seconds {
				both(2*i + 1)
				m.Add(time.Duration(i) * time.Second)
				both(2*i + 2)
				if got := m.Sum(time.Duration(i)*time.Second, 1); got < 2 {
					t.Errorf("second %d: %d counted", i, got)
				}
			}
		})
	}
	wg.Wait()
}

func TestMeterDoesNotAllocate(t *testing.T) {
	var m Meter
	now := time.Duration(0)
	if a := testing.AllocsPerRun(1000, func() {
		now += 100 * time.Millisecond
		m.Add(now)
		m.Sum(now, 10)
	}); a != 0 {
		t.Errorf("%v allocations", a)
	}
}

// spendAll retries until the budget is gone, and counts.
func spendAll(b *Budget, now time.Duration) int {
	for n := 0; ; n++ {
		if b.Exhausted(now) || n == 1e6 {
			return n
		}
		b.Spend(now)
	}
}

func TestBudget(t *testing.T) {
	now := 100 * time.Second
	requests := func(n int) *Meter {
		m := new(Meter)
		for range n {
			m.Add(now)
		}
		return m
	}
	for _, c := range []struct {
		cfg      BudgetConfig
		requests int
		want     int
	}{
		{DefaultBudgetConfig(), 0, 30},
		{DefaultBudgetConfig(), 1000, 130},
		{BudgetConfig{Ratio: 0.1}, 0, 0},
		{BudgetConfig{Ratio: 0.1}, 9, 0},
		{BudgetConfig{Ratio: 0.1}, 10, 1},
		{BudgetConfig{Ratio: 1}, 77, 77},
		{BudgetConfig{}, 1000, 0},
		{BudgetConfig{MinPerSecond: 1}, 1000, 10},
	} {
		if got := spendAll(NewBudget(c.cfg, requests(c.requests)), now); got != c.want {
			t.Errorf("%+v: %d retries for %d requests, want %d", c.cfg, got, c.requests, c.want)
		}
	}
}

// TestBudgetRefills: it is a window of 10 s, of requests and of retries.
func TestBudgetRefills(t *testing.T) {
	m := new(Meter)
	b := NewBudget(BudgetConfig{Ratio: 0.5, MinPerSecond: 1}, m)
	now := 100 * time.Second
	for range 100 {
		m.Add(now)
	}
	if got := spendAll(b, now); got != 60 {
		t.Fatalf("%d retries, want 60", got)
	}
	if got := spendAll(b, now+9*time.Second); got != 0 {
		t.Errorf("%d retries more within the window", got)
	}
	if got := spendAll(b, now+10*time.Second); got != 10 {
		t.Errorf("%d retries with the requests forgotten, want 10", got)
	}
	if got := spendAll(b, now+time.Hour); got != 10 {
		t.Errorf("%d retries after an hour, want 10", got)
	}
}

func TestConfig(t *testing.T) {
	if err := DefaultConfig().Validate(); err != nil {
		t.Errorf("the defaults: %v", err)
	}
	if err := DefaultBudgetConfig().Validate(); err != nil {
		t.Errorf("the default budget: %v", err)
	}
	for name, change := range map[string]func(*Config){
		"consecutive_failures": func(c *Config) { c.ConsecutiveFailures = 0 },
		"failure_ratio":        func(c *Config) { c.FailureRatio = 0 },
		"min_requests":         func(c *Config) { c.MinRequests = 0 },
		"bucket":               func(c *Config) { c.BucketPeriod = time.Millisecond },
		"window":               func(c *Config) { c.Window = c.BucketPeriod - 1 },
		"base_ejection":        func(c *Config) { c.BaseEjection = c.MaxEjection + 1 },
		"max_ejection":         func(c *Config) { c.MaxEjection = time.Hour + 1 },
		"max_ejected_percent":  func(c *Config) { c.MaxEjectedPercent = 101 },
		"failure_statuses":     func(c *Config) { c.FailureStatuses = []int{200} },
		"queue_failure_ratio":  func(c *Config) { c.Capacity.QueueFailureRatio = 1.1 },
		"min_queued":           func(c *Config) { c.Capacity.MinQueued = 0 },
		"base_open":            func(c *Config) { c.Capacity.BaseOpen = c.Capacity.MaxOpen + 1 },
	} {
		c := DefaultConfig()
		change(&c)
		if err := c.Validate(); err == nil {
			t.Errorf("%s out of range is accepted", name)
		}
	}
	for _, c := range []BudgetConfig{{Ratio: -0.1}, {Ratio: 1.1}, {MinPerSecond: -1}, {MinPerSecond: 10001}} {
		if c.Validate() == nil {
			t.Errorf("budget %+v is accepted", c)
		}
	}
}
