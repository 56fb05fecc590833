package h1

import (
	"context"
	"net"
	"strings"
	"testing"
	"time"

	"outrigger/sidecar/balance"
)

// soon is how fast a client's leaving must be felt (the charter: a second).
const soon = time.Second

// leave are the ways of a client to hang up.
var leave = map[string]func(*peer){
	"closed":      func(c *peer) { c.nc.Close() },
	"reset":       (*peer).reset,
	"half-closed": func(c *peer) { c.nc.CloseWrite() }, // looks the same from here
}

func TestClientGoneWhileWaiting(t *testing.T) {
	t.Parallel()
	for name, hangUp := range leave {
		b := silent(t)
		r := newRig(t, quick(), balance.DefaultConfig(), b.addr)
		c := r.dial()
		c.send(get1("/"))
		r.eventually("the backend has the request", func() bool { return len(b.got()) == 1 })
		start := time.Now()
		hangUp(c)
		r.settled()
		r.eventually("the backend's connection is closed", func() bool { return b.open.Load() == 0 })
		if took := time.Since(start); took > soon {
			t.Errorf("%s: it took %v", name, took)
		}
		r.wantTotals(0, 0, 1)
		if st := r.s.Stats(); st.ClientGone != 1 || st.Own[5] != 0 {
			t.Errorf("%s: %+v", name, st)
		}
		if st := r.b.Status(); st.Retries != 0 {
			t.Errorf("%s: tried again for nobody", name)
		}
	}
}

func TestClientGoneWhileQueued(t *testing.T) {
	t.Parallel()
	release := make(chan bool)
	b := newBackend(t, func(b *backend, p *peer) {
		for b.head(p) != "" {
			await(t, release)
			p.send(ok200("b"))
		}
	})
	bcfg := balance.DefaultConfig()
	bcfg.MaxInFlight = 1
	bcfg.Queue.Timeout = patience
	r := newRig(t, quick(), bcfg, b.addr)
	first, second, third := r.dial(), r.dial(), r.dial()
	first.send(get1("/1"))
	r.eventually("the slot is taken", func() bool { return len(b.got()) == 1 })
	second.send(get1("/2"))
	r.eventually("the second waits", func() bool { return r.b.Status().Waiting == 1 })
	third.send(get1("/3"))
	r.eventually("the third waits", func() bool { return r.b.Status().Waiting == 2 })
	start := time.Now()
	second.nc.Close()
	r.eventually("the second has left the queue", func() bool { return r.b.Status().Waiting == 1 })
	if took := time.Since(start); took > soon {
		t.Errorf("it took %v", took)
	}
	give(t, release)
	first.want("GET", 200, "b")
	give(t, release)
	third.want("GET", 200, "b")
	r.wantTotals(2, 0, 0)
	for _, h := range b.got() {
		if strings.HasPrefix(h, "GET /2") {
			t.Error("the backend got the request of a client that had left")
		}
	}
	if st := r.s.Stats(); st.ClientGone != 1 {
		t.Errorf("%+v", st)
	}
}

// While an answer is on its way and the backend rests.
func TestClientGoneInAnAnswer(t *testing.T) {
	t.Parallel()
	for name, answer := range map[string]string{
		"length":  lines("HTTP/1.1 200 OK", "Content-Length: 10") + "12345",
		"chunked": lines("HTTP/1.1 200 OK", "Transfer-Encoding: chunked") + "5\r\n12345\r\n",
		"eof":     lines("HTTP/1.1 200 OK") + "12345",
	} {
		b := newBackend(t, func(b *backend, p *peer) {
			b.head(p)
			p.send(answer)
			p.wantEnd("eof")
		})
		r := newRig(t, quick(), balance.DefaultConfig(), b.addr)
		c := r.dial()
		c.send(get1("/"))
		c.head()
		start := time.Now()
		c.nc.Close()
		r.settled()
		if took := time.Since(start); took > soon {
			t.Errorf("%s: it took %v", name, took)
		}
		r.wantTotals(0, 0, 1)
		if st := r.s.Stats(); st.ClientGone != 1 || st.Aborted != 0 {
			t.Errorf("%s: %+v", name, st)
		}
	}
}

// While it reads an endless answer: found out by writing.
func TestClientGoneInAStream(t *testing.T) {
	t.Parallel()
	piece := strings.Repeat("x", 64<<10)
	b := newBackend(t, func(b *backend, p *peer) {
		b.head(p)
		p.send(lines("HTTP/1.1 200 OK"))
		for {
			if _, err := p.nc.Write([]byte(piece)); err != nil {
				return
			}
		}
	})
	r := newRig(t, quick(), balance.DefaultConfig(), b.addr)
	c := r.dial()
	c.send(get1("/"))
	c.read(1 << 20)
	start := time.Now()
	c.reset()
	r.settled()
	r.eventually("the backend's connection is closed", func() bool { return b.open.Load() == 0 })
	if took := time.Since(start); took > soon {
		t.Errorf("it took %v", took)
	}
	r.wantTotals(0, 0, 1)
}

// While the backend is being dialled there is nothing yet to close. The
// backlog of a listener that never accepts takes a few connections, then a
// dial hangs until its time-out or the client's end.
func TestClientGoneWhileDialling(t *testing.T) {
	t.Parallel()
	addr := fullBacklog(t)
	r := newRig(t, quick(), balance.DefaultConfig(), addr)
	c := r.dial()
	c.send(get1("/"))
	r.eventually("the request is leased", func() bool { return r.inFlight() == 1 })
	time.Sleep(10 * time.Millisecond) // the dial has begun, most likely; if not, it ends the sooner
	start := time.Now()
	c.nc.Close()
	r.settled()
	if took := time.Since(start); took > soon {
		t.Errorf("it took %v", took)
	}
	r.wantTotals(0, 0, 1)
}

func TestConnectTimeout(t *testing.T) {
	t.Parallel()
	addr, good := fullBacklog(t), named(t, "good")
	cfg := quick()
	cfg.Timeouts.Connect = short
	r := newRig(t, cfg, balance.DefaultConfig(), addr)
	c := r.dial()
	c.send(get1("/"))
	c.wantOwn(503, "unreachable")
	r.wantTotals(0, 1, 0)
	r.set(addr, good.addr)
	for range 3 {
		c.send(get1("/"))
		c.want("GET", 200, "good") // at the second try, if the first went to the other
	}
}

// A bug that panics on one connection ends that one: its lease is freed, and
// the server goes on.
func TestCrashedConnection(t *testing.T) {
	t.Parallel()
	b := named(t, "b")
	r := newRig(t, quick(), balance.DefaultConfig(), b.addr)
	crashing := r.e.NewServer(quick(), r.b, Options{Observe: func(status int, _ time.Duration) { panic(status) }})
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan struct{})
	go func() {
		defer close(served)
		crashing.Serve(ln)
	}()
	for range 3 {
		nc, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		c := newPeer(t, nc)
		c.send(get1("/"))
		c.rest()
		nc.Close()
	}
	if err := crashing.Shutdown(context.Background()); err != nil {
		t.Error(err)
	}
	<-served
	c := r.dial()
	c.send(get1("/"))
	c.want("GET", 200, "b")
	r.wantTotals(4, 0, 0)
}
