package discovery

import (
	"testing"
	"time"
)

func TestBucket(t *testing.T) {
	b := bucket{burst: 2, every: time.Second}
	now := time.Unix(1000, 0)
	for i, tc := range []struct{ pass, want time.Duration }{
		{0, 0}, {0, 0}, {0, time.Second}, {0, 2 * time.Second}, // burst, then one a second
		{4 * time.Second, 0},                            // one back
		{10 * time.Second, 0}, {0, 0}, {0, time.Second}, // never more than the burst
	} {
		now = now.Add(tc.pass)
		if got := b.wait(now); got != tc.want {
			t.Fatalf("step %d: would wait %s, want %s", i, got, tc.want)
		}
		if got := b.take(now); got != tc.want {
			t.Fatalf("step %d: wait %s, want %s", i, got, tc.want)
		}
	}
}

func TestBackoffBounds(t *testing.T) {
	c := DefaultConfig()
	for _, busy := range []bool{false, true} {
		limit := c.BackoffMax
		if busy {
			limit *= busyFactor / 2
		}
		for n := range 100 {
			low, high := c.backoff(n, busy, 0), c.backoff(n, busy, 0.999999)
			if low < c.BackoffMin/2 || high > limit || high < low || low < limit/2 && n > 50 {
				t.Errorf("error %d, busy %t: %s to %s", n, busy, low, high)
			}
		}
	}
}
