package discovery

import (
	"context"
	"time"
)

// bucket is a token bucket, as a virtual clock (GCRA): burst events at once,
// then one per interval.
type bucket struct {
	burst int
	every time.Duration
	next  time.Time // when the bucket is full again
}

// take takes a token and returns how long to wait for it.
func (b *bucket) take(now time.Time) time.Duration {
	if b.next.Before(now) {
		b.next = now
	}
	wait := b.next.Sub(now) - time.Duration(b.burst-1)*b.every
	b.next = b.next.Add(b.every)
	return max(0, wait)
}

// busyFactor lengthens the first pause after a 429: the agent or a server asks
// for less, not for a retry. The longest pause grows by half of it.
const busyFactor = 8

// backoff returns the pause after the n-th error in a row, from 0: between half
// and all of a span that doubles each time. chance is in [0, 1).
func (c Config) backoff(n int, busy bool, chance float64) time.Duration {
	span, limit := c.BackoffMin, c.BackoffMax
	if busy {
		span, limit = span*busyFactor, limit*busyFactor/2
	}
	for ; n > 0 && span < limit; n-- {
		span *= 2
	}
	span = min(span, limit)
	return span/2 + time.Duration(chance*float64(span/2))
}

// sleep waits for d or the end of ctx, whose error it returns.
func sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}
