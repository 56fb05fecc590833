package picker

import (
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// rebuildKeepsCounters: the counts are the endpoint's, not the picker's, so a
// picker of a later generation sees what the earlier one's requests hold.
func rebuildKeepsCounters(t *testing.T, p Policy) {
	eps := equal(3)
	before := build(p, eps[:2])
	var last held
	for i := range 6 {
		h, ok := acquire(before, Request{Now: now, Key: keyAt(i)})
		if !ok {
			t.Fatal("no room without a limit")
		}
		last = h
	}
	last.end(before, now, Result{Outcome: Success, FirstByte: time.Millisecond})
	was := []int{eps[0].InFlight(), eps[1].InFlight()}
	after := build(p, eps)
	if is := []int{eps[0].InFlight(), eps[1].InFlight()}; !slices.Equal(was, is) || was[0]+was[1] != 5 {
		t.Fatalf("in flight %v, after a rebuild %v", was, is)
	}
	if last.ep.Totals().Successes != 1 || last.ep.Latency() == 0 {
		t.Error("totals or latency forgotten")
	}
	if p.Name() == "least_conn" {
		hold(eps[0], 1)
		hold(eps[1], 1)
		if got := count(t, after, eps, 20, Request{Now: now}); got[2] != 20 {
			t.Errorf("the idle newcomer got %v of 20", got)
		}
	}
	got := count(t, build(p, eps[2:]), eps, 20, Request{Now: now})
	if got[2] != 20 {
		t.Errorf("endpoints that left are picked: %v", got)
	}
}

// rebuildKeepsMind: what a picker has learnt from requests, the next one knows,
// even of an endpoint that was out of the set in between, and even from requests
// that somebody else picked the endpoint for.
func rebuildKeepsMind(t *testing.T, p Policy) {
	eps := equal(4)
	k := build(p, eps)
	o, learns := k.(Observer)
	if !learns || byKey(p) { // which keeps a sum up to date, and learns nothing
		return
	}
	at := now
	for i := range 400 {
		at += 5 * time.Millisecond
		e := eps[i%4]
		e.TryReserve()
		took := 10 * time.Millisecond
		if i%4 == 1 {
			took *= 20
		}
		h := held{e, o.Sent(e, at), at}
		h.end(k, at+took, Result{Outcome: Success, FirstByte: took, Total: took})
	}
	at += time.Second
	for _, e := range eps { // resource compares what it learnt only beside figures
		l := live(4, 4, 0)
		l.At, l.Expires = at, at+lifetime
		e.SetLoad(l)
	}
	score := func(k Picker) (s [4]float64) {
		refresh(k, at)
		for _, c := range k.Explain(Request{Now: at, Key: 1}).Candidates {
			s[slices.Index(eps, c.Endpoint)] = c.Score
		}
		return s
	}
	before := score(k)
	if before[1] <= 2*before[0] {
		t.Fatalf("scores %v: nothing was learnt of the slow second", before)
	}
	build(p, eps[2:])
	if after := score(build(p, eps)); after != before {
		t.Errorf("scores %v, after two rebuilds %v", before, after)
	}
	// A new policy, as a reload of the configuration makes it.
	if after := score(build(policy(t, p.Name(), seeded(5)), eps)); after[1] <= 2*after[0] {
		t.Errorf("scores %v, after a reload %v", before, after)
	}
}

func sliceNotKept(t *testing.T, p Policy) {
	for _, n := range []int{3, 40} {
		eps := equal(n)
		mine := slices.Clone(eps)
		k := build(p, mine)
		clear(mine)
		count(t, k, eps, 30, Request{Now: now})
		mine = slices.Clone(eps)
		build(p, mine)
		if !slices.Equal(mine, eps) {
			t.Error("Build changed its argument")
		}
	}
}

// olderPicker: requests that hold a snapshot pick on from it while newer ones
// are built and used over sets that overlap. The older one still keeps limits,
// and still finds room, at endpoints of its own.
func olderPicker(t *testing.T, p Policy) {
	for _, n := range []int{4, 70} {
		eps := equal(n)
		for _, e := range eps {
			e.SetLimit(2)
		}
		old := build(p, eps)
		for _, newer := range [][]*Endpoint{eps[:n/2], eps[n/2:], slices.Concat(eps[1:], equal(3))} {
			k := build(p, newer)
			for _, e := range eps {
				fill(e)
			}
			none(t, old, Request{Now: now})
			for _, i := range []int{0, n / 2, n - 1} {
				eps[i].Finish(now, Result{Outcome: Ignore})
				if got := count(t, old, eps, 5, Request{Now: now}); got[i] != 5 {
					t.Errorf("%d endpoints, %d has room: %v", n, i, got)
				}
				if in := slices.Contains(newer, eps[i]); in {
					if e, ok := k.Pick(Request{Now: now, Key: keyAt(i)}); !ok || !e.HasRoom() {
						t.Errorf("the newer one picked %v", e)
					}
				}
				fill(eps[i])
			}
			for _, e := range eps {
				e.Cancel()
				e.Cancel()
			}
		}
	}
}

// twoPickers: a shadow policy's picker is built over the endpoints of the one
// that serves, and neither disturbs the other.
func twoPickers(t *testing.T, p Policy) {
	for _, name := range Names() {
		eps := equal(50)
		serving := build(p, eps)
		shadow := build(policy(t, name, seeded(3)), eps)
		var leases []held
		for i := range 500 {
			r := Request{Now: now, Key: keyAt(i)}
			if _, ok := shadow.Pick(r); !ok {
				t.Fatal("the shadow picked nothing")
			}
			h, ok := acquire(serving, r)
			if !ok {
				t.Fatal("nothing was picked")
			}
			leases = append(leases, h)
			agree(t, p, serving, r)
		}
		for _, h := range leases {
			h.end(serving, now, Result{Outcome: Success, FirstByte: 1e6})
		}
	}
}

// generation is a picker with the set that it was built over.
type generation struct {
	picker Picker
	set    []*Endpoint
}

// membershipChanges: while others pick, reserve and end, the set changes under
// them. Each pick is of its own picker's set, and at the end every slot is
// given back.
func membershipChanges(t *testing.T, p Policy) {
	eps := equal(90)
	for i, e := range eps {
		e.SetWeight(1 + i%3)
		e.SetLimit(8)
	}
	var current atomic.Pointer[generation]
	publish := func(set []*Endpoint) { current.Store(&generation{build(p, set), set}) }
	publish(eps[:40])
	var stop atomic.Bool
	var changer, users sync.WaitGroup
	changer.Go(func() {
		rand := seeded(6)
		for !stop.Load() {
			from := int(rand(60))
			publish(eps[from : from+1+int(rand(30))*int(rand(2))]) // often just one
		}
	})
	var served atomic.Int64
	for g := range 6 {
		users.Go(func() {
			for i := range 600 {
				c := current.Load()
				h, ok := acquire(c.picker, Request{Now: now, Key: keyAt(g<<16 | i)})
				if !ok {
					continue
				}
				if !slices.Contains(c.set, h.ep) {
					t.Errorf("picked %s, which is not in the picker's set", h.ep.ID)
				}
				served.Add(1)
				h.end(current.Load().picker, now, Result{Outcome: Outcome(i % 4), FirstByte: 1e6})
			}
		})
	}
	users.Wait()
	stop.Store(true)
	changer.Wait()
	var ended uint64
	for _, e := range eps {
		ended += e.Totals().Requests
		if e.InFlight() != 0 {
			t.Errorf("%s: %d in flight at the end", e.ID, e.InFlight())
		}
	}
	if served.Load() < 600 || ended != uint64(served.Load()) {
		t.Errorf("%d were served, %d counted", served.Load(), ended)
	}
}
