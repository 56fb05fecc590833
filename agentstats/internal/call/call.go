// Package call has what the parts of agentstats share that speak to Consul: pauses,
// and bounds on text that is not ours. All functions are safe for concurrent use.
package call

import (
	"context"
	"strings"
	"time"
	"unicode"
)

// Clean makes foreign text fit for a log line: printable, and of at most 400 bytes.
func Clean(text string) string {
	const limit = 400
	text = strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return ' '
	}, strings.TrimSpace(text))
	if len(text) > limit {
		text = strings.ToValidUTF8(text[:limit], "") + "..."
	}
	return text
}

// Plain reports whether s is printable and no longer than limit bytes.
func Plain(s string, limit int) bool {
	return len(s) <= limit && !strings.ContainsFunc(s, func(r rune) bool {
		return !unicode.IsPrint(r) || r == unicode.ReplacementChar
	})
}

// Sleep waits for d or the end of ctx, whose error it returns.
func Sleep(ctx context.Context, d time.Duration) error {
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

// Backoff returns the pause after the n-th error in a row, from 0: it doubles from
// least to most, and half of it is chance, in [0, 1).
func Backoff(n int, least, most time.Duration, chance float64) time.Duration {
	span := least
	for ; n > 0 && span < most; n-- {
		span *= 2
	}
	span = min(span, most)
	return span/2 + time.Duration(chance*float64(span/2))
}
