package h1

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"outrigger/sidecar/balance"
)

// A request that comes together with its client's end is answered, and the
// connection is closed soon after, whether it was new, rested or parked.
func TestLastRequestWithTheEnd(t *testing.T) {
	t.Parallel()
	r := newRig(t, quick(), balance.DefaultConfig(), named(t, "b").addr)
	for _, rest := range []time.Duration{0, 4 * reapEvery, parkAfter + 4*reapEvery} {
		c := r.dial()
		c.send(get1("/"))
		c.want("GET", 200, "b")
		time.Sleep(rest) // what is tested is that it makes no difference
		raw, err := c.nc.SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		if err := raw.Control(func(fd uintptr) { // in one segment
			_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_CORK, 1)
			_, _ = unix.Write(int(fd), []byte(get1("/two")))
			_ = unix.Shutdown(int(fd), unix.SHUT_WR)
		}); err != nil {
			t.Fatal(err)
		}
		c.want("GET", 200, "b")
		c.wantEnd("eof")
	}
}
