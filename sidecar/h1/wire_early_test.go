package h1

import (
	"strings"
	"testing"

	"outrigger/sidecar/balance"
)

// An early answer reaches the client also when the body was buffered whole and
// the backend takes no more of it: a body that may be sent twice is no reason to
// miss an answer that one not kept would have got.
func TestEarlyAnswerToABufferedBody(t *testing.T) {
	t.Parallel()
	const size = 4 << 20
	for _, closes := range []bool{true, false} {
		stuck, over := make(chan bool), make(chan bool)
		b := newBackend(t, func(b *backend, p *peer) {
			_ = p.nc.SetReadBuffer(64 << 10)
			b.head(p)
			await(t, stuck)
			p.send(lines("HTTP/1.1 413 Too Large", "Content-Length: 5", "Connection: close") + "large")
			if !closes {
				await(t, over)
			}
		})
		cfg := quick()
		cfg.Retry.BodyBuffer = size
		cfg.Retry.Reset = false
		cfg.Timeouts.FirstByte = 10 * short
		r := newRig(t, cfg, balance.DefaultConfig(), b.addr)
		c := r.dial()
		c.send(post("Content-Length: 4194304") + strings.Repeat("x", size))
		give(t, stuck)
		if a := c.anything("POST"); a.StatusCode != 413 || a.body != "large" {
			t.Errorf("backend closes %v: %d %q", closes, a.StatusCode, a.Header.Get("Outrigger-Reason"))
		}
		close(over)
		r.wantTotals(1, 0, 0)
	}
}
