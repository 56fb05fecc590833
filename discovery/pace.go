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

// wait returns what take would, without taking.
func (b *bucket) wait(now time.Time) time.Duration {
	if b.next.Before(now) {
		return 0 // it is full
	}
	return max(0, b.next.Sub(now)-time.Duration(b.burst-1)*b.every)
}

// window is how many connections at once an agent stands, learned from its
// refusals (AIMD). It is not safe for concurrent use.
type window struct {
	limit, least, most int
	// ceiling is the limit at which the agent refused last; 0: none, or it is
	// passed. Up there the window grows slowly: the agent's limit is a setting and
	// seldom changes.
	ceiling int
	cut     time.Time // of the last refusal that counted
	grown   time.Time // when limit last moved
	// shown: the agent has said so, or done it twice. Otherwise the ceiling is a
	// guess from connections that were closed without a word, as those are too that
	// were made while the agent came or went.
	shown bool
	heard bool      // an answer came since the last cut
	tried time.Time // when a guess was last dropped
}

const (
	windowCut       = 0.8
	windowFloor     = 8 // connections; an agent with fewer for us cannot be used in any other way
	windowGrow      = 10 * time.Second
	windowGrowAbove = 5 * time.Minute // at the ceiling
	windowRegrow    = 2 * time.Second // the distance of two doublings, if it was but a guess
)

func newWindow(most int, now time.Time) window {
	return window{limit: most, least: min(windowFloor, most), most: most, grown: now}
}

// refused notes that the agent refused a connection for a read that began at
// start, while inUse were in use, proven of them for certain. Reads that began
// before the last cut say nothing of the limit since. said: the agent gave the
// reason.
func (w *window) refused(now, start time.Time, inUse, proven int, said bool) {
	w.shown = w.shown || said
	if start.Before(w.cut) {
		return
	}
	w.shown = w.shown || !w.tried.IsZero() && now.Sub(w.tried) < windowGrowAbove
	w.heard = false
	w.ceiling = min(w.limit, max(inUse, w.least))
	w.limit = min(w.ceiling, max(w.least, proven, int(windowCut*float64(w.ceiling))))
	w.cut, w.grown = now, now
}

// answered notes an answer.
func (w *window) answered(now time.Time) {
	if !w.heard {
		w.heard, w.grown = true, now
	}
}

// grow adds one for each time that nothing was refused. A limit that is but a guess
// doubles while there are answers.
func (w *window) grow(now time.Time) {
	for !w.shown && w.ceiling > 0 {
		if !w.heard || now.Sub(w.grown) < windowRegrow {
			return
		}
		w.grown, w.tried = w.grown.Add(windowRegrow), now
		if w.limit = min(w.most, 2*w.limit); w.limit == w.most {
			w.ceiling = 0
		}
	}
	for w.limit < w.most {
		every := windowGrow
		if w.ceiling > 0 && w.limit >= w.ceiling-1 {
			every = windowGrowAbove
		}
		if now.Sub(w.grown) < every {
			return
		}
		w.grown = w.grown.Add(every)
		w.limit++
		if w.limit > w.ceiling {
			w.ceiling, w.shown = 0, false
		}
	}
	w.grown = now
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
