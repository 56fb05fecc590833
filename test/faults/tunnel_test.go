package faults

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// tunnels is how many are open at once.
const tunnels = 6

// Upgraded connections are cut by their backends' side in the middle of a
// conversation. Each client sees an end, and until then its own bytes alone.
func TestTunnelFaults(t *testing.T) {
	needToxiproxy(t)
	reset := down("reset_peer", map[string]int{"timeout": 0})
	for _, tt := range []struct {
		name   string
		before []toxic // there from the start
		strike func(t testing.TB, p *proxy)
		hush   bool // the clients say no more: toxiproxy's time-out runs from the last byte on
		idle   bool // only the tunnel's idle time can end it
	}{
		{name: "reset", before: []toxic{reset.dormant()}, strike: func(t testing.TB, p *proxy) { p.rouse(t, reset) }},
		{name: "end", strike: func(t testing.TB, p *proxy) { p.add(t, reset) }}, // too late for a real reset
		{name: "reset_request", before: []toxic{up("reset_peer", nil).dormant()},
			strike: func(t testing.TB, p *proxy) { p.rouse(t, up("reset_peer", map[string]int{"timeout": 0})) }},
		{name: "timeout", hush: true, strike: func(t testing.TB, p *proxy) { p.add(t, down("timeout", map[string]int{"timeout": 50})) }},
		{name: "timeout_for_ever", hush: true, idle: true, strike: func(t testing.TB, p *proxy) { p.add(t, down("timeout", map[string]int{"timeout": 0})) }},
		{name: "closed", strike: func(t testing.TB, p *proxy) { p.enable(t, false) }},
		{name: "limit", before: []toxic{down("limit_data", map[string]int{"bytes": 200_000})}, strike: func(testing.TB, *proxy) {}},
		{name: "slow_and_sliced", before: []toxic{down("slicer", map[string]int{"average_size": 50, "size_variation": 40, "delay": 10}),
			up("latency", map[string]int{"latency": 5, "jitter": 4})},
			strike: func(t testing.TB, p *proxy) {
				p.add(t, down("slow_close", map[string]int{"delay": 50}))
				p.enable(t, false)
			}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var proxies []*proxy
			var addrs []string
			for _, b := range suite.backends {
				p := suite.toxic.proxy(t, b)
				for _, x := range tt.before {
					p.add(t, x)
				}
				proxies, addrs = append(proxies, p), append(addrs, p.addr)
			}
			cfg := patient()
			if tt.idle {
				cfg.Timeouts.Tunnel = 300 * time.Millisecond
			}
			r := newRig(t, cfg, balancing(), addrs...)
			r.cutTunnels(tt.hush, func() {
				for _, p := range proxies {
					tt.strike(t, p)
				}
			})
			if failed := r.failures(); failed != 0 {
				t.Errorf("%d failures: a tunnel that ends is no answer that failed", failed)
			}
		})
	}
}

// cutTunnels opens tunnels, lets them talk, strikes, and waits until each has
// ended at its client.
func (r *rig) cutTunnels(hush bool, strike func()) {
	t := r.t
	var talked sync.WaitGroup // until each has heard an echo
	var ended sync.WaitGroup
	var struck atomic.Bool
	defer ended.Wait()
	for i := range tunnels {
		tn := openTunnel(t, r.addr, i)
		talked.Add(1)
		ended.Go(func() {
			defer tn.Close()
			heard := sync.OnceFunc(talked.Done)
			defer heard()
			tn.talk(heard, func() bool { return hush && struck.Load() })
		})
	}
	talked.Wait()
	strike()
	struck.Store(true)
	ended.Wait()
	if n := r.s.Stats().Passed[1]; n != tunnels {
		t.Errorf("%d upgrades, want %d", n, tunnels)
	}
	r.checkIdle()
}

func (r *rig) failures() (n uint64) {
	for _, e := range r.b.Status().Endpoints {
		n += e.Totals.Failures
	}
	return n
}

// tunnelEnd is a client's end of an upgraded connection.
type tunnelEnd struct {
	t testing.TB
	*net.TCPConn
	in   *bufio.Reader
	name string
}

func openTunnel(t testing.TB, addr string, i int) *tunnelEnd {
	t.Helper()
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	e := &tunnelEnd{t, nc.(*net.TCPConn), bufio.NewReader(nc), fmt.Sprint("tunnel-", i)}
	_ = e.SetDeadline(time.Now().Add(patience)) // fails only on a closed connection
	fmt.Fprint(e, "GET /upgrade HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
	res, err := http.ReadResponse(e.in, nil)
	if err != nil || res.StatusCode != http.StatusSwitchingProtocols || res.Header.Get("Upgrade") != "echo" {
		t.Fatalf("no tunnel: %+v, %v", res, err)
	}
	return e
}

// talk sends and checks the echo, until the connection ends or hush says to
// send no more. It returns when the connection has ended.
func (e *tunnelEnd) talk(heard func(), hush func() bool) {
	text := content(e.name, 1<<20)
	at := 0
	done := make(chan struct{})
	go func() {
		defer close(done)
		for sent := 0; !hush(); sent = (sent + 1000) % len(text) {
			if _, err := e.Write(text[sent:min(len(text), sent+1000)]); err != nil {
				return
			}
			time.Sleep(time.Millisecond)
		}
	}()
	buf := make([]byte, 16<<10)
	for {
		n, err := e.in.Read(buf)
		for got := buf[:n]; len(got) > 0; {
			k := min(len(got), len(text)-at)
			if !bytes.Equal(got[:k], text[at:at+k]) {
				e.t.Errorf("%s: the echo is not what was sent, after %d bytes", e.name, at)
				got = nil
				break
			}
			got, at = got[k:], (at+k)%len(text)
			heard()
		}
		if err == nil {
			continue
		}
		if errors.Is(err, os.ErrDeadlineExceeded) {
			e.t.Errorf("%s: was not ended", e.name)
		}
		_ = e.SetWriteDeadline(time.Now()) // fails only on a closed connection
		<-done
		return
	}
}

// rst ends a connection with a reset.
func rst(nc net.Conn) {
	_ = nc.(*net.TCPConn).SetLinger(0) // fails only on a closed connection
	_ = nc.Close()
}
