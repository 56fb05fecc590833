package balance

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// line is who waits in a queue, and who has been granted, in order.
type line struct {
	*rig
	waiters []*Waiter
	granted []string
	leases  []Lease
}

// join queues a request with so much time left, or without an end for 0.
func (q *line) join(name string, left time.Duration) *Waiter {
	q.t.Helper()
	w := &Waiter{Grant: func(l Lease, err error) {
		if err != nil {
			q.t.Error(name, err)
		}
		q.granted, q.leases = append(q.granted, name), append(q.leases, l)
	}}
	if left > 0 {
		w.Key.Deadline = q.Now() + left
	}
	if _, waits, err := q.Ask(w); !waits || err != nil {
		q.t.Fatalf("%s: waits %v, %v", name, waits, err)
	}
	q.waiters = append(q.waiters, w)
	return w
}

func (q *line) want(what string, names ...string) {
	q.t.Helper()
	synctest.Wait()
	if !slices.Equal(q.granted, names) {
		q.t.Errorf("%s: granted %q, want %q", what, q.granted, names)
	}
}

// leave ends everything.
func (q *line) leave() {
	for _, w := range q.waiters {
		q.Cancel(w, true)
	}
	for i := range q.leases {
		q.leases[i].Done(skip)
	}
	q.quiet()
}

// crowdedLine has n requests of others in each backend: with 20, about 2 s of
// waiting are foretold, which nobody with less than 13 s left accepts.
func crowdedLine(t *testing.T, n float64) *line {
	r := foretelling(t, 0.15, 400)
	q := &line{rig: r}
	q.fill(1000)
	r.refresh()
	q.fill(n)
	return q
}

func (q *line) fill(n float64) {
	for i := range 2 {
		q.crowded(i, n)
	}
	synctest.Wait()
}

// TestHeadOfLine: a waiter that has too little time left for any endpoint is
// not in the way of those with more, wherever it is in the line.
func TestHeadOfLine(t *testing.T) {
	bubble(t, func(t *testing.T) {
		q := crowdedLine(t, 1000)
		q.join("short", time.Second)
		q.join("long", 5*time.Minute)
		q.join("shorter", time.Second/2)
		q.want("all full")
		q.fill(20)
		q.want("with room for those who have time", "long")
		q.fill(0)
		q.want("with room for all", "long", "short", "shorter")
		q.leave()
	})
	bubble(t, func(t *testing.T) { // newest first
		q := crowdedLine(t, 1000)
		for i := range 210 {
			q.join(fmt.Sprint(i), 10*time.Minute)
		}
		q.join("short", time.Second)
		q.fill(20)
		// Until half of the queue is free, then oldest first.
		if want := "209 208 207 206 205 204 203 202 201 200 199 0 1"; len(q.granted) != 210 || strings.Join(q.granted[:13], " ") != want {
			t.Errorf("granted %v", q.granted)
		}
		if slices.Contains(q.granted, "short") {
			t.Error("granted to one with too little time")
		}
		q.leave()
	})
}

// TestTriedInLine: one that has tried every endpoint is not in the way either.
func TestTriedInLine(t *testing.T) {
	r := newRig(t, limit(1, 10, time.Second))
	r.Update(instances(2))
	a, b := r.getAt(0), r.getAt(1)
	q := &line{rig: r}
	picky := &Waiter{Grant: func(Lease, error) { t.Error("granted what it had tried") }}
	picky.Key.Tried.Add(r.endpoint(0))
	if err := r.Enqueue(picky); err != nil {
		t.Fatal(err)
	}
	q.join("any", 0)
	q.join("timed", time.Minute) // least_conn foretells nothing, so it is as any
	a.Done(ok)
	if !slices.Equal(q.granted, []string{"any"}) {
		t.Errorf("granted %v", q.granted)
	}
	if !r.Cancel(picky, true) {
		t.Error("it has left")
	}
	b.Done(ok)
	if !slices.Equal(q.granted, []string{"any", "timed"}) {
		t.Errorf("granted %v", q.granted)
	}
	q.leave()
}

// TestCancelMakesWay: so many are in the way that those behind are not looked
// at; when they leave, nobody waits for the next event.
func TestCancelMakesWay(t *testing.T) {
	bubble(t, func(t *testing.T) {
		q := crowdedLine(t, 1000)
		for i := range serveTries {
			q.join(fmt.Sprint("short ", i), time.Second+time.Duration(i)*time.Millisecond)
		}
		q.join("long", 5*time.Minute)
		q.fill(20)
		q.want("behind too many")
		if !q.Cancel(q.waiters[0], false) {
			t.Fatal("it does not wait")
		}
		q.want("when one has left", "long")
		q.leave()
	})
}

// TestServeIsBounded: however long the line, few are asked for.
func TestServeIsBounded(t *testing.T) {
	bubble(t, func(t *testing.T) {
		q := crowdedLine(t, 1000)
		for i := range 150 {
			q.join(fmt.Sprint("short ", i), time.Second-time.Duration(i)*time.Millisecond)
		}
		q.join("long", 5*time.Minute)
		q.fill(20)
		q.want("behind more than are looked at")
		q.leave()
	})
}
