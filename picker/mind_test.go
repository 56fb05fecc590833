package picker

import (
	"math"
	"testing"
	"time"
)

func around(t *testing.T, what string, got, want, within float64) {
	t.Helper()
	if !(math.Abs(got-want) <= within) {
		t.Errorf("%s is %v, want %v within %v", what, got, want, within)
	}
}

func TestPace(t *testing.T) {
	var p pace
	if m, n := p.get(now); m != 0 || n != 0 {
		t.Errorf("without a sample: %v, %v", m, n)
	}
	for _, ms := range []float64{10, 20, 60} {
		p.observe(now, ms)
	}
	m, n := p.get(now)
	around(t, "mean", m, 30, 0.1)
	around(t, "count", n, 3, 0.01)
	m, n = p.get(now + paceHalf)
	around(t, "mean after a half-life", m, 30, 0.1)
	around(t, "count after a half-life", n, 1.5, 0.02)
	for range 1000 {
		p.observe(now+paceHalf, 5)
	}
	m, n = p.get(now + paceHalf)
	around(t, "mean after many", m, 5, 0.01)
	around(t, "count after many", n, paceMost, 0.01)
	// From just ahead is of this moment; long ago counts as next to nothing.
	if _, n := p.get(now + paceHalf - 5*time.Second); n < paceMost-1 {
		t.Errorf("a sample from ahead counts %v", n)
	}
	for _, idle := range []time.Duration{time.Hour, 3 * time.Hour, 30 * time.Hour} {
		if _, n := p.get(now + idle); n > 0.01 {
			t.Errorf("after %v the samples count %v", idle, n)
		}
	}
	if _, n := p.get(now + 10*time.Minute); n > 0.01 {
		t.Errorf("after ten minutes the samples count %v", n)
	}
}

func TestFailures(t *testing.T) {
	var f failures
	f.observe(now, false)
	if f.word.Load() != 0 {
		t.Error("a success alone leaves a mark")
	}
	f.observe(now, true)
	around(t, "one failure", f.get(now), failMost, 1e-6)
	around(t, "one failure after the memory", f.get(now+failMemory), failMost/math.E, 1e-3)
	at := now
	for range 60 {
		at += 500 * time.Millisecond
		f.observe(at, true)
	}
	if got := f.get(at); got < 0.9 || got > 1 {
		t.Errorf("nothing but failures reads as %v", got)
	}
	for range 60 {
		at += 500 * time.Millisecond
		f.observe(at, false)
	}
	if got := f.get(at); got > 0.01 {
		t.Errorf("nothing but successes for 30 s reads as %v", got)
	}
}

// TestFailureShare: of many requests a second, some of which fail, the share is
// told.
func TestFailureShare(t *testing.T) {
	var f failures
	rand, at, sum := seeded(1), now, 0.0
	const n = 20000
	for range n {
		at += 10 * time.Millisecond
		f.observe(at, rand(10) < 3)
		sum += f.get(at)
	}
	around(t, "mean share", sum/n, 0.3, 0.03)
}

// TestFailuresFade over any time that the clock's word can tell.
func TestFailuresFade(t *testing.T) {
	var f failures
	f.observe(now, true)
	for _, idle := range []time.Duration{time.Hour, 25 * 24 * time.Hour, 40 * 24 * time.Hour} {
		if got := f.get(now + idle); got > 1e-6 {
			t.Errorf("after %v it reads %v", idle, got)
		}
	}
	if got := f.get(now - time.Second); got != failMost {
		t.Errorf("from just ahead it reads %v", got)
	}
}

// TestAIMDFallsAgain also when the last cut is long ago.
func TestAIMDFallsAgain(t *testing.T) {
	for _, idle := range []time.Duration{time.Second, 24 * time.Hour, 26 * 24 * time.Hour} {
		var a aimd
		a.observe(now, 1, true)
		a.observe(now+idle, 1, true)
		around(t, "limit after "+idle.String(), a.limit(1), aimdFirst*aimdLess*aimdLess, 1e-3)
	}
}

func TestAIMD(t *testing.T) {
	var a aimd
	ok := func(at time.Duration) { a.observe(at, 2, false) }
	slow := func(at time.Duration) { a.observe(at, 2, true) }

	around(t, "first limit", a.limit(2), 2*aimdFirst, 0)
	a.flying.Store(aimdFirst)
	ok(now)
	if a.limit(2) != 2*aimdFirst || a.full(2) {
		t.Errorf("far below the limit it moved to %v, full: %v", a.limit(2), a.full(2))
	}
	a.flying.Store(2 * aimdFirst)
	if !a.full(2) {
		t.Error("not full at the limit")
	}
	for range 2 * aimdFirst {
		ok(now)
	}
	around(t, "limit after as many as itself", a.limit(2), 2*aimdFirst+1, 0.1)

	was := a.limit(2)
	slow(now)
	around(t, "after a slow one", a.limit(2), was*aimdLess, 1e-3)
	slow(now + aimdPause - 1)
	around(t, "after another at once", a.limit(2), was*aimdLess, 1e-3)
	slow(now + aimdPause)
	around(t, "after another after the pause", a.limit(2), was*aimdLess*aimdLess, 1e-3)
	for i := range 100 {
		slow(now + time.Duration(i+2)*aimdPause)
	}
	around(t, "least", a.limit(2), 1, 1e-6)
}

func TestTooLate(t *testing.T) {
	if got := tooLate(time.Second, 20*time.Millisecond); got != 300*time.Millisecond {
		t.Errorf("of a second: %v", got)
	}
	if got := tooLate(5*time.Second, 2*time.Second); got != 4*time.Second {
		t.Errorf("of work that is slow by nature: %v", got)
	}
}

// TestCalm: it follows the pace down at once and up slowly, as overload must
// not count as normal.
func TestCalm(t *testing.T) {
	var c calm
	if c.observe(0, now) != 0 {
		t.Error("something of nothing")
	}
	c.observe(50, now)
	c.observe(20, now)
	around(t, "least", c.observe(400, now+time.Minute).Seconds()*1e3, 20*math.Exp2(0.1), 0.01)
	at := now
	for range 600 {
		at += time.Second
		c.observe(400, at)
	}
	around(t, "after ten minutes", c.ms, 20*math.Exp2(1.1), 0.1)
	around(t, "after an idle hour", c.observe(400, at+time.Hour).Seconds()*1e3, 400, 0.01)
	around(t, "at Build, without a clock", c.observe(1, 0).Seconds()*1e3, 400, 0.01)
}

func TestOthers(t *testing.T) {
	l := live(4, 4, 12)
	l.OwnInFlight = 5
	n, age, ok := othersOf(packOthers(l), now+250*time.Millisecond)
	if !ok || n != 7 || age != 250 {
		t.Errorf("others %v, age %v ms, %v; want 7, 250, true", n, age, ok)
	}
	l.OwnInFlight = 50 // read a moment apart
	if n, _, ok := othersOf(packOthers(l), now); !ok || n != 0 {
		t.Errorf("others %v, %v; want 0, true", n, ok)
	}
	if _, age, _ := othersOf(packOthers(l), now-time.Second); age != 0 {
		t.Errorf("age of a report from ahead: %v", age)
	}
	l.InFlight = Absent
	if _, _, ok := othersOf(packOthers(l), now); ok {
		t.Error("an absent figure is told")
	}
	l.InFlight, l.OwnInFlight, l.At = 0, 0, 0
	if n, _, ok := othersOf(packOthers(l), 0); !ok || n != 0 {
		t.Errorf("idle at the clock's start: %v, %v", n, ok)
	}
}
