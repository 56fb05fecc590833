package breaker

import (
	"math"
	"testing"
	"time"
)

// queued is a capacity breaker with its clock and test.
type queued struct {
	*Capacity
	t testing.TB
	w *world
}

func (w *world) capacity(t testing.TB) *queued {
	return &queued{NewCapacity(DefaultConfig().Capacity, w.env()), t, w}
}

// wait has one request queue, and be served or not.
func (q *queued) wait(served ...bool) {
	q.t.Helper()
	for _, s := range served {
		p, ok := q.MayQueue(q.w.clock())
		if !ok {
			q.t.Fatalf("may not queue, state %v", q.State(q.w.clock()))
		}
		q.Queued(p, s)
	}
}

func (q *queued) want(s State, trips uint64) {
	q.t.Helper()
	if got := q.State(q.w.clock()); got != s || q.Trips() != trips {
		q.t.Fatalf("%v after %d trips, want %v after %d", got, q.Trips(), s, trips)
	}
	if s == HalfOpen {
		return
	}
	p, ok := q.MayQueue(q.w.clock())
	if ok != (s == Closed) {
		q.t.Fatalf("may queue while %v: %v", s, ok)
	}
	q.Abandoned(p)
}

func (q *queued) waitOut() {
	time.Sleep(q.Until() - q.w.clock())
	q.t.Helper()
	q.want(HalfOpen, q.Trips())
}

func TestCapacityNothingReady(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		q := w.capacity(t)
		q.SetReady(true)
		q.want(Closed, 0)
		q.SetReady(false) // at once
		q.want(Open, 1)
		if d := q.Until() - w.clock(); d != time.Second {
			t.Errorf("open for %v", d)
		}
		until := q.Until()
		time.Sleep(time.Millisecond)
		q.SetReady(false)
		q.want(Open, 1)
		if q.Until() != until {
			t.Error("told twice, opened twice")
		}
		q.SetReady(true) // there is nothing left to wait for
		q.want(Closed, 1)
		time.Sleep(time.Millisecond)
		q.SetReady(false) // flapping makes it longer
		q.want(Open, 2)
		if d := q.Until() - w.clock(); d != 2*time.Second {
			t.Errorf("open for %v the second time", d)
		}
		q.waitOut()
		time.Sleep(time.Hour)
		q.want(HalfOpen, 2)
		q.SetReady(true)
		q.want(Closed, 2)
		time.Sleep(time.Hour) // all is forgiven
		q.SetReady(false)
		if d := q.Until() - w.clock(); d != time.Second {
			t.Errorf("open for %v after an hour without trouble", d)
		}
		if w.changes.Load() == 0 {
			t.Error("no change told")
		}
	})
}

func TestCapacityQueueFailures(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) { // half of at least 20
		q := w.capacity(t)
		for range 10 {
			q.wait(true, false)
		}
		q.want(Open, 1)
	})
	bubble(t, func(t *testing.T, w *world) { // too few
		q := w.capacity(t)
		for range 19 {
			q.wait(false)
		}
		q.want(Closed, 0)
		q.wait(false)
		q.want(Open, 1)
	})
	bubble(t, func(t *testing.T, w *world) { // too good
		q := w.capacity(t)
		for range 100 {
			q.wait(true, true, false)
		}
		q.want(Closed, 0)
	})
	bubble(t, func(t *testing.T, w *world) { // spread over more than the window
		q := w.capacity(t)
		for range 100 {
			q.wait(false)
			time.Sleep(350 * time.Millisecond)
		}
		q.want(Closed, 0)
	})
	bubble(t, func(t *testing.T, w *world) { // clients that leave are no evidence
		q := w.capacity(t)
		for range 100 {
			p, _ := q.MayQueue(w.clock())
			q.Abandoned(p)
		}
		q.want(Closed, 0)
	})
}

func (q *queued) trip() {
	q.t.Helper()
	for range DefaultConfig().Capacity.MinQueued {
		q.wait(false)
	}
	q.want(Open, 1)
}

func (q *queued) probe() Probe {
	q.t.Helper()
	p, ok := q.MayQueue(q.w.clock())
	if !ok || p.done == nil {
		q.t.Fatal("no probe")
	}
	if _, ok := q.MayQueue(q.w.clock()); ok {
		q.t.Fatal("two queue in half-open")
	}
	return p
}

func TestCapacityProbes(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		q := w.capacity(t)
		q.trip()
		time.Sleep(time.Millisecond)
		q.SetReady(true) // readiness does not heal what it did not break
		q.want(Open, 1)
		q.waitOut()
		for range 5 {
			q.Abandoned(q.probe())
			q.want(HalfOpen, 1)
		}
		q.Queued(q.probe(), false)
		q.want(Open, 2)
		if d := q.Until() - w.clock(); d != 2*time.Second {
			t.Errorf("open for %v the second time", d)
		}
		q.waitOut()
		q.Queued(q.probe(), true)
		q.want(Closed, 2)
		q.wait(times(19, false)...) // counts start from nothing
		q.want(Closed, 2)
	})
}

// TestCapacityLateWaits: those that queued before it opened, and fail while it
// is open or after, trip nothing again.
func TestCapacityLateWaits(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		q := w.capacity(t)
		var waits []Probe
		for range 60 {
			p, _ := q.MayQueue(w.clock())
			waits = append(waits, p)
		}
		late := func() {
			for _, p := range waits[:20] {
				q.Queued(p, false)
			}
			waits = waits[20:]
		}
		q.trip()
		late()
		q.want(Open, 1)
		q.waitOut()
		p := q.probe()
		late()
		q.want(HalfOpen, 1)
		q.Queued(p, true)
		late()
		q.want(Closed, 1)
	})
}

func TestShedRetryAfter(t *testing.T) {
	for _, c := range []struct {
		shed, offered uint64
		top           int
	}{
		{0, 0, 4}, {5, 0, 4}, {0, 100, 4}, {1, 100, 5}, {50, 100, 8}, {75, 100, 16}, {86, 100, 29}, {87, 100, 30},
		{99, 100, 30}, {100, 100, 30}, {300, 100, 30}, {math.MaxUint64 - 1, math.MaxUint64, 30},
	} {
		if lo, hi := ShedRetryAfter(c.shed, c.offered, least), ShedRetryAfter(c.shed, c.offered, most); lo != 1 || hi != c.top {
			t.Errorf("%d of %d shed: %d to %d, want 1 to %d", c.shed, c.offered, lo, hi, c.top)
		}
	}
}

func TestWaitRetryAfter(t *testing.T) {
	for _, c := range []struct {
		wait   time.Duration
		lo, hi int
	}{
		{math.MinInt64, 1, 4}, {-time.Second, 1, 4}, {0, 1, 4}, {1, 1, 2}, {time.Second, 1, 2}, {time.Second + 1, 2, 3},
		{28500 * time.Millisecond, 29, 30}, {29 * time.Second, 29, 30}, {30 * time.Second, 30, 30}, {time.Hour, 30, 30},
		{math.MaxInt64, 30, 30},
	} {
		if lo, hi := WaitRetryAfter(c.wait, least), WaitRetryAfter(c.wait, most); lo != c.lo || hi != c.hi {
			t.Errorf("wait of %v: %d to %d, want %d to %d", c.wait, lo, hi, c.lo, c.hi)
		}
	}
}
