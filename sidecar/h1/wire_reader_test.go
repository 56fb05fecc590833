package h1

import (
	"testing"
	"time"

	"outrigger/sidecar/balance"
)

// A client that takes a long answer at eighty times the least rate, never
// resting, keeps its lease, whatever lies in the kernel's buffers between: with
// those at their default sizes a blocked write comes free only with every
// megabyte or two that the client has read.
func TestSteadyReaderBehindLargeBuffers(t *testing.T) {
	t.Parallel()
	cfg := quick()
	cfg.Timeouts.Idle, cfg.MinRate = time.Minute, 240 // the defaults
	const piece, pieces = 64 << 10, 60
	b := pours(t, 32<<20)
	r := newClocked(t, cfg, balance.DefaultConfig(), b.addr)
	c := r.dial()
	// Its pauses take no real time: the kernel would grow its buffer as for a fast
	// reader, and hold back acknowledgements that real pauses leave time for.
	if err := c.nc.SetReadBuffer(2 << 20); err != nil {
		t.Fatal(err)
	}
	c.send(get1("/"))
	c.head()
	r.wantClientAlarm(time.Minute) // it waits for the client
	for i := range pieces {
		if got := len(c.read(piece)); got != piece || r.s.Stats().ClientGone > 0 {
			t.Fatalf("cut off after %v at %d bytes a second", time.Duration(i)*3*time.Second, piece/3)
		}
		if i%15 == 14 { // 45 s, and once in each wait of a minute
			time.Sleep(300 * time.Millisecond) // Linux delays them for 200 ms at most
		}
		r.pass(3 * time.Second)
	}
}
