package tunnel

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"testing"
	"time"
)

const (
	patience = 10 * time.Second
	short    = 100 * time.Millisecond
)

// pair is a TCP connection over loopback, both ends.
func pair(t testing.TB) (far, near *net.TCPConn) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	a, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	b, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close(); b.Close() })
	_ = a.SetDeadline(time.Now().Add(patience))
	return a.(*net.TCPConn), b.(*net.TCPConn)
}

// rig runs a tunnel between two connections, whose far ends the test has.
type rig struct {
	t               testing.TB
	client, backend *net.TCPConn // far ends
	nearC, nearB    *net.TCPConn
	over            chan time.Time
}

func run(t testing.TB, idle time.Duration, fromClient, fromBackend string) *rig {
	r := &rig{t: t, over: make(chan time.Time, 1)}
	r.client, r.nearC = pair(t)
	r.backend, r.nearB = pair(t)
	go func() {
		Run(r.nearC, r.nearB, []byte(fromClient), []byte(fromBackend), idle)
		r.over <- time.Now()
	}()
	return r
}

// ended waits for Run to return.
func (r *rig) ended() time.Time {
	r.t.Helper()
	select {
	case at := <-r.over:
		return at
	case <-time.After(patience):
		r.t.Fatal("Run does not return")
		panic("unreachable")
	}
}

func (r *rig) running() bool {
	select {
	case at := <-r.over:
		r.over <- at
		return false
	default:
		return true
	}
}

func send(t testing.TB, c net.Conn, s string) {
	t.Helper()
	if _, err := io.WriteString(c, s); err != nil {
		t.Error(err)
	}
}

func expect(t testing.TB, c net.Conn, want string) {
	t.Helper()
	got := make([]byte, len(want))
	n, err := io.ReadFull(c, got)
	if string(got[:n]) != want {
		t.Errorf("%.40q (%v), want %.40q", got[:n], err, want)
	}
}

func TestBothWays(t *testing.T) {
	r := run(t, patience, "read ahead of the client; ", "and of the backend; ")
	send(t, r.client, "from the client")
	send(t, r.backend, "from the backend")
	expect(t, r.backend, "read ahead of the client; from the client")
	expect(t, r.client, "and of the backend; from the backend")
	for range 100 {
		send(t, r.client, "ping")
		expect(t, r.backend, "ping")
		send(t, r.backend, "pong")
		expect(t, r.client, "pong")
	}
	if !r.running() {
		t.Error("it ended by itself")
	}
	_ = r.client.CloseWrite()
	_ = r.backend.CloseWrite()
	r.ended()
}

// Much in both directions at once, neither waiting for the other.
func TestBulk(t *testing.T) {
	r := run(t, patience, "", "")
	rnd := rand.New(rand.NewPCG(1, 1))
	up, down := make([]byte, 5<<20), make([]byte, 5<<20)
	for i := range up {
		up[i], down[i] = byte(rnd.Uint32()), byte(rnd.Uint32())
	}
	var wg sync.WaitGroup
	for _, d := range []struct {
		from, to *net.TCPConn
		data     []byte
	}{{r.client, r.backend, up}, {r.backend, r.client, down}} {
		wg.Go(func() {
			if _, err := d.from.Write(d.data); err != nil {
				t.Error(err)
			}
			_ = d.from.CloseWrite()
		})
		wg.Go(func() {
			if got, err := io.ReadAll(d.to); err != nil || !bytes.Equal(got, d.data) {
				t.Errorf("%d bytes of %d, %v", len(got), len(d.data), err)
			}
		})
	}
	wg.Wait()
	r.ended()
}

// The end of one direction is passed on and leaves the other open.
func TestHalfClose(t *testing.T) {
	for name, pick := range map[string]func(*rig) (first, second *net.TCPConn){
		"client first":  func(r *rig) (*net.TCPConn, *net.TCPConn) { return r.client, r.backend },
		"backend first": func(r *rig) (*net.TCPConn, *net.TCPConn) { return r.backend, r.client },
	} {
		r := run(t, patience, "", "")
		first, second := pick(r)
		send(t, first, "last words")
		_ = first.CloseWrite()
		if got, err := io.ReadAll(second); string(got) != "last words" || err != nil {
			t.Errorf("%s: %q %v", name, got, err)
		}
		send(t, second, "still here")
		expect(t, first, "still here")
		if !r.running() {
			t.Errorf("%s: one end ended both", name)
		}
		_ = second.CloseWrite()
		if got, err := io.ReadAll(first); len(got) != 0 || err != nil {
			t.Errorf("%s: %q %v", name, got, err)
		}
		r.ended()
	}
}

// A failure on one side ends both directions.
func TestFailureEndsBoth(t *testing.T) {
	for name, fail := range map[string]func(*rig){
		"client reset":  func(r *rig) { _ = r.client.SetLinger(0); r.client.Close() },
		"backend reset": func(r *rig) { _ = r.backend.SetLinger(0); r.backend.Close() },
		"client cut":    func(r *rig) { r.nearC.Close() }, // as Shutdown does
		"backend cut":   func(r *rig) { r.nearB.Close() },
	} {
		r := run(t, patience, "", "")
		send(t, r.client, "x")
		expect(t, r.backend, "x")
		start := time.Now()
		fail(r)
		if took := r.ended().Sub(start); took > patience/2 {
			t.Errorf("%s: it took %v", name, took)
		}
	}
}

// Also while a write is stuck, for its reader has stopped.
func TestFailureEndsAStuckWrite(t *testing.T) {
	r := run(t, patience, "", "")
	go func() { // nobody reads on the backend's side: this gets stuck
		piece := make([]byte, 1<<20)
		for {
			if _, err := r.client.Write(piece); err != nil {
				return
			}
		}
	}()
	expect(t, r.backend, "\x00")
	r.nearB.Close()
	r.ended()
}

// Bytes in either direction keep the tunnel; without any it ends when idle has
// passed, not before.
func TestIdle(t *testing.T) {
	t.Parallel()
	for name, pick := range map[string]func(*rig) (from, to *net.TCPConn){
		"client speaks":  func(r *rig) (*net.TCPConn, *net.TCPConn) { return r.client, r.backend },
		"backend speaks": func(r *rig) (*net.TCPConn, *net.TCPConn) { return r.backend, r.client },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			const idle = 8 * short
			r := run(t, idle, "", "")
			from, to := pick(r)
			var last time.Time
			for range 12 { // longer than idle, one way alone
				time.Sleep(short)
				last = time.Now()
				send(t, from, "x")
				expect(t, to, "x")
			}
			if took := r.ended().Sub(last); took < idle {
				t.Errorf("it ended %v after a byte, idle is %v", took, idle)
			}
			// Deadlines are spent, the connections still open: their owner closes them.
			if _, err := r.nearC.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Error(err)
			}
		})
	}
}

func TestIdleFromTheStart(t *testing.T) {
	t.Parallel()
	start := time.Now()
	r := run(t, short, "", "")
	if took := r.ended().Sub(start); took < short {
		t.Errorf("ended after %v, idle is %v", took, short)
	}
}

// After one direction has ended, the other's idle time still runs.
func TestIdleAfterHalfClose(t *testing.T) {
	t.Parallel()
	r := run(t, 3*short, "", "")
	_ = r.client.CloseWrite()
	if got, err := io.ReadAll(r.backend); len(got) != 0 || err != nil {
		t.Errorf("%q %v", got, err)
	}
	r.ended()
}

// A reader that stops for good ends the tunnel by the idle time.
func TestStuckReader(t *testing.T) {
	t.Parallel()
	r := run(t, 3*short, "", "")
	go func() { // until the connection is closed with the test
		piece := make([]byte, 1<<20)
		for {
			if _, err := r.client.Write(piece); err != nil {
				return
			}
		}
	}()
	r.ended()
}

func BenchmarkTunnel(b *testing.B) {
	r := run(b, time.Hour, "", "")
	_ = r.client.SetDeadline(time.Time{})
	_ = r.backend.SetDeadline(time.Time{})
	msg, got := make([]byte, 512), make([]byte, 512)
	b.ReportAllocs()
	b.SetBytes(int64(len(msg)))
	for b.Loop() {
		if _, err := r.client.Write(msg); err != nil {
			b.Fatal(err)
		}
		if _, err := io.ReadFull(r.backend, got); err != nil {
			b.Fatal(err)
		}
	}
	r.client.Close()
	r.backend.Close()
	r.ended()
}
