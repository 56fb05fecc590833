package agentstats

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestFastSweep: connections on which nothing comes are closed, those that never
// polled sooner.
func TestFastSweep(t *testing.T) {
	a := someAgent()
	a.crowd.most = 10
	f := &fastLoop{a: a, conns: map[int32]*fastConn{}}
	add := func(age time.Duration, polled bool) int32 {
		pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = unix.Close(pair[1]) })
		a.crowd.enter()
		if polled {
			a.crowd.polling.Add(1)
		}
		fd := int32(pair[0])
		f.conns[fd] = &fastConn{seen: time.Now().Add(-age), polled: polled}
		return fd
	}
	add(ioTimeout+time.Second, false)
	fresh := add(ioTimeout-time.Second, false)
	quiet := add(idleTimeout-time.Second, true)
	add(idleTimeout+time.Second, true)
	f.sweep()
	if len(f.conns) != 2 || f.conns[fresh] == nil || f.conns[quiet] == nil || a.crowd.open.Load() != 2 || a.crowd.polling.Load() != 1 {
		t.Errorf("left %v, counted %d and %d", f.conns, a.crowd.open.Load(), a.crowd.polling.Load())
	}
	for fd, c := range f.conns {
		f.close(fd, c)
	}
}
