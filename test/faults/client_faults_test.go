package faults

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"slices"
	"testing"
	"time"
)

// abortion is a moment at which a client leaves.
type abortion struct {
	name    string
	request string
	read    int  // bytes of the answer that the client takes first
	held    bool // the backend knows of the request
	ready   func(r *rig)
}

var abortions = []abortion{ // read-only
	{name: "waiting_for_the_backend", request: "GET /hang HTTP/1.1\r\nHost: a\r\n\r\n", held: true},
	{name: "streaming", request: "GET /drip HTTP/1.1\r\nHost: a\r\n\r\n", read: 5000, held: true},
	{name: "not_reading", request: "GET /flood HTTP/1.1\r\nHost: a\r\n\r\n", read: 5000, held: true, ready: (*rig).jammed},
	{name: "uploading", request: "POST /sink HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n" + string(make([]byte, 100_000)), held: true},
	{name: "uploading_chunks", request: "POST /sink HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n186a0\r\n" + string(make([]byte, 50_000)), held: true},
	{name: "tunnel", request: "GET /upgrade HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\nhello", read: 20, held: true},
	{name: "queueing", request: "GET /hang HTTP/1.1\r\nHost: a\r\n\r\n"},
}

// jammed waits until the backend cannot send any more: the sidecar is stuck
// writing to a client that does not read.
func (r *rig) jammed() {
	last := -1
	r.await("nothing moves towards a client that does not read", func() bool {
		n := ask(r.t, "/ctl/flooded")
		same := n == last && n > 0
		last = n
		time.Sleep(20 * time.Millisecond) // between two looks
		return same
	})
}

// A client that leaves, whatever its request was doing, gives up its lease at
// once. Every time-out is an hour (a minute in the queue, which is longer than
// the test waits), so none can be why.
func TestClientAbort(t *testing.T) {
	needToxiproxy(t)
	const times = 5
	for _, a := range abortions {
		for _, end := range []string{"close", "reset"} {
			t.Run(a.name+"_"+end, func(t *testing.T) {
				bcfg := balancing()
				bcfg.Queue.Timeout = time.Minute
				if !a.held {
					bcfg.MaxInFlight = 1
				}
				r := newRig(t, patient(), bcfg, suite.origin)
				front := suite.toxic.proxy(t, r.addr)
				if end == "reset" {
					front.add(t, up("reset_peer", nil).dormant())
				}
				if a.name == "not_reading" {
					front.add(t, down("bandwidth", map[string]int{"rate": 100}))
				}
				var took []time.Duration
				for range times {
					took = append(took, r.abort(front, a, end == "reset"))
				}
				slices.Sort(took)
				t.Logf("the lease was free after %v (median of %d), %v at most; toxiproxy's hop is in it", took[times/2], times, took[times-1])
				if took[times-1] >= time.Second {
					t.Errorf("%v from the client's end to that of its lease", took[times-1])
				}
				for _, e := range r.b.Status().Endpoints {
					if e.Totals.Failures != 0 || e.Ejections != 0 {
						t.Errorf("the backend is blamed for a client that left: %+v", e)
					}
				}
				if st := r.s.Stats(); st.Own != [6]uint64{} || st.Aborted != 0 {
					t.Errorf("a client that left got an answer: %+v", st)
				}
			})
		}
	}
}

// abort makes a request, leaves, and returns how long it took until nothing
// was held for it.
func (r *rig) abort(front *proxy, a abortion, reset bool) time.Duration {
	t := r.t
	t.Helper()
	holds := func() bool { return r.inFlight() == 1 }
	if !a.held { // somebody else has the only slot
		other, err := net.Dial("tcp", r.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer r.await("the other's lease is free", func() bool { return r.inFlight() == 0 })
		defer other.Close()
		fmt.Fprint(other, a.request)
		r.await("the slot is taken", func() bool { return r.inFlight() == 1 })
		holds = func() bool { return r.b.Status().Waiting == 1 }
	}
	nc, err := net.Dial("tcp", front.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	_ = nc.SetDeadline(time.Now().Add(patience)) // fails only on a closed connection
	if _, err := io.WriteString(nc, a.request); err != nil {
		t.Fatal(err)
	}
	if _, err := io.CopyN(io.Discard, bufio.NewReader(nc), int64(a.read)); err != nil {
		t.Fatal(err)
	}
	r.await("the request is held", holds)
	if a.held {
		r.await("the backend knows of it", func() bool { return ask(t, "/ctl/held") == 1 })
	}
	if a.ready != nil {
		a.ready(r)
	}
	start := time.Now()
	if reset {
		rst(nc)
	} else {
		_ = nc.Close()
	}
	for holds() {
		if time.Since(start) > patience {
			r.await("the lease is free", func() bool { return !holds() })
		}
		time.Sleep(100 * time.Microsecond)
	}
	took := time.Since(start)
	if a.held { // and its connection is not kept
		r.await("the backend is rid of it", func() bool { return ask(t, "/ctl/held") == 0 })
	}
	return took
}

// A client that takes nothing holds its lease for the idle time and no longer.
func TestClientStalls(t *testing.T) {
	needToxiproxy(t)
	const idle = 300 * time.Millisecond
	cfg := patient()
	cfg.Timeouts.Idle = idle
	r := newRig(t, cfg, balancing(), suite.origin)
	front := suite.toxic.proxy(t, r.addr)
	front.add(t, down("bandwidth", map[string]int{"rate": 1}))
	nc, err := net.Dial("tcp", front.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	start := time.Now()
	fmt.Fprint(nc, "GET /flood HTTP/1.1\r\nHost: a\r\n\r\n")
	r.await("the request is held", func() bool { return r.inFlight() == 1 })
	r.await("the lease is free", func() bool { return r.inFlight() == 0 })
	if took := time.Since(start); took < idle {
		t.Errorf("the lease was gone after %v, before the client's time of %v was up", took, idle)
	}
	r.await("the backend is rid of it", func() bool { return ask(t, "/ctl/held") == 0 })
	r.await("the client's connection is gone", func() bool { return r.s.Stats().Open == 0 })
	if st := r.s.Stats(); st.ClientGone != 1 || st.Aborted != 0 || r.failures() != 0 {
		t.Errorf("the client is to blame and nobody else: %+v", st)
	}
}

// Faults between clients and the sidecar, and clients that leave at any moment:
// no backend is blamed, and nobody gets another's bytes.
func TestClientFaults(t *testing.T) {
	needToxiproxy(t)
	for _, tt := range []struct {
		name     string
		faithful bool
		leave    float64
		toxics   []toxic
	}{
		{name: "latency", faithful: true, toxics: []toxic{down("latency", map[string]int{"latency": 15, "jitter": 10}), up("latency", map[string]int{"latency": 15, "jitter": 10})}},
		{name: "slow_reads", faithful: true, toxics: []toxic{down("bandwidth", map[string]int{"rate": 2000})}},
		{name: "slow_sends", faithful: true, toxics: []toxic{up("bandwidth", map[string]int{"rate": 1000})}},
		{name: "slicer", faithful: true, toxics: []toxic{down("slicer", map[string]int{"average_size": 1000, "size_variation": 900, "delay": 10}),
			up("slicer", map[string]int{"average_size": 30, "size_variation": 29, "delay": 5})}},
		{name: "slow_close", faithful: true, leave: 0.2, toxics: []toxic{down("slow_close", map[string]int{"delay": 50}), up("slow_close", map[string]int{"delay": 50})}},
		{name: "leavers", leave: 0.5},
		{name: "resets", leave: 0.3, toxics: []toxic{up("reset_peer", map[string]int{"timeout": 10})}},
		{name: "resets_of_leavers", leave: 0.5, toxics: []toxic{up("reset_peer", nil).dormant()}},
		{name: "resets_of_answers", toxics: []toxic{down("reset_peer", map[string]int{"timeout": 1})}},
		{name: "cut_requests", toxics: []toxic{up("limit_data", map[string]int{"bytes": 50_000})}},
		{name: "cut_answers", toxics: []toxic{down("limit_data", map[string]int{"bytes": 100_000})}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t, quick(), balancing(), suite.backends...)
			front := suite.toxic.proxy(t, r.addr)
			for _, x := range tt.toxics {
				front.add(t, x)
			}
			l := newLoad(t, front.addr, tt.leave, untilEOF)
			defer l.end()
			r.await("traffic", func() bool { return l.now().sum("", "") >= 2*perFault })
			y := l.end()[0]
			t.Log(y)
			r.checkIdle()
			if n := y.sum("", "5") + y.sum("", "4"); n != 0 {
				t.Errorf("%d refusals, though every backend is well", n)
			}
			if n := y.sum("", ok) + y.sum("", left); tt.faithful && n != y.sum("", "") {
				t.Errorf("%d errors, though not a byte was lost", y.sum("", "")-n)
			}
			r.blameless()
		})
	}
}

// blameless holds that no backend was blamed.
func (r *rig) blameless() {
	r.t.Helper()
	for _, e := range r.b.Status().Endpoints {
		if e.Totals.Failures != 0 || e.Breaker != "closed" {
			r.t.Errorf("%s is blamed for its clients: %+v", e.Instance.ID, e.Totals)
		}
	}
	if st := r.s.Stats(); st.Aborted != 0 || st.Own[5] != 0 {
		r.t.Errorf("%+v", st)
	}
	if st := r.b.Status(); st.Ready != len(r.ids) || st.Capacity != "closed" {
		r.t.Errorf("%d ready, capacity breaker %s", st.Ready, st.Capacity)
	}
}
