package h1

import (
	"testing"
	"time"
)

func newCredit(idle time.Duration, minRate int) *credit {
	cfg := DefaultConfig()
	cfg.Timeouts.Idle, cfg.MinRate = idle, minRate
	k := &credit{left: 42, since: 42} // of a client before
	k.reset(&cfg)
	return k
}

// Each wait uses the credit up and each byte earns a MinRate-th of a second.
func TestCredit(t *testing.T) {
	k := newCredit(10*time.Second, 10)
	now := time.Hour
	for i, step := range []struct {
		wait  time.Duration
		bytes int
		left  time.Duration // after it
	}{
		{3 * time.Second, 10, 8 * time.Second},
		{0, 5, 8500 * time.Millisecond},
		{0, 1000, 10 * time.Second}, // no more than at the start
		{time.Second, 10, 10 * time.Second},
		{9 * time.Second, 1, 1100 * time.Millisecond},
		{time.Second, 0, 100 * time.Millisecond},
		{100 * time.Millisecond, 0, 0}, // then a wait ends as it begins
		{0, 1, 100 * time.Millisecond},
		{time.Second, 0, -900 * time.Millisecond}, // struck late
	} {
		before := k.left
		if got := k.offer(now); got != before {
			t.Errorf("step %d: %v offered of %v", i, got, before)
		}
		now += step.wait
		if k.earn(now, step.bytes); k.left != step.left {
			t.Fatalf("step %d: %v left, want %v", i, k.left, step.left)
		}
	}
	cfg := DefaultConfig()
	if k.reset(&cfg); k.offer(now) != cfg.Timeouts.Idle {
		t.Errorf("%v after a reset", k.left)
	}
}

// What a client that keeps just the rate may go on for has no end; below it, it
// is over after idle/(1-rate/min).
func TestCreditOfAStream(t *testing.T) {
	const idle, minRate = 10 * time.Second, 240
	for _, tt := range []struct {
		every time.Duration // a byte
		lasts time.Duration // 0: for ever
	}{
		{time.Second / minRate, 0},
		{time.Millisecond, 0},
		{2 * (time.Second / minRate), 20 * time.Second},
		{100 * (time.Second / minRate), 10*time.Second + 10*time.Second/99},
	} {
		k, now, start := newCredit(idle, minRate), time.Hour, time.Hour
		for range 100_000 {
			if k.offer(now) < tt.every {
				break
			}
			now += tt.every
			k.earn(now, 1)
		}
		lasted := now - start + k.left
		over := k.offer(now) < tt.every
		if over != (tt.lasts > 0) || over && (lasted < tt.lasts-tt.every || lasted > tt.lasts+tt.every) {
			t.Errorf("a byte every %v: over %v after %v, want %v", tt.every, over, lasted, tt.lasts)
		}
	}
}

func TestCreditWithoutARate(t *testing.T) {
	k := newCredit(10*time.Second, 0)
	now := time.Hour
	for range 100 {
		if got := k.offer(now); got != 10*time.Second {
			t.Fatalf("%v offered", got)
		}
		now += 9 * time.Second
		k.earn(now, 1)
	}
}

// The highest rate still earns something, or it would be none.
func TestCreditExtremes(t *testing.T) {
	for rate, want := range map[int]time.Duration{1: time.Second, 1e6: time.Microsecond} {
		k := newCredit(10*time.Second, rate)
		k.offer(0)
		k.earn(10*time.Second, 1)
		if k.left != want {
			t.Errorf("at %d bytes a second one earns %v, want %v", rate, k.left, want)
		}
	}
	// A buffer's worth at the lowest rate is far from an overflow.
	k := newCredit(maxTimeout, 1)
	k.offer(0)
	if k.earn(0, bufSize); k.left != maxTimeout {
		t.Errorf("%v", k.left)
	}
}
