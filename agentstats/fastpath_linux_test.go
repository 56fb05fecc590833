package agentstats

import (
	"io"
	"net/http"
	"sync"
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

// TestFastBatches: with many sidecars polls wait for each other, and none is
// forgotten.
func TestFastBatches(t *testing.T) {
	const conns, turns = 2 * batchFrom, 20
	a := someAgent()
	a.live = func(time.Time) Live { return Live{InFlight: Some(1.0)} }
	addr := serving(t, a)
	poll := "GET /v1/report HTTP/1.1\r\nHost: a\r\n\r\n"
	var done sync.WaitGroup
	for range conns {
		conn, r := dialed(t, addr)
		_ = conn.SetDeadline(time.Now().Add(patience))
		done.Go(func() {
			for range turns {
				if _, err := io.WriteString(conn, poll); err != nil {
					t.Error(err)
					return
				}
				resp, err := http.ReadResponse(r, nil)
				if err != nil || resp.StatusCode != 200 {
					t.Errorf("%+v, %v", resp, err)
					return
				}
				if _, err := io.Copy(io.Discard, resp.Body); err != nil {
					t.Error(err)
				}
			}
		})
	}
	done.Wait()
	if n := a.crowd.polling.Load(); n != conns {
		t.Errorf("%d poll, want %d", n, conns)
	}
}
