package breaker

import (
	"testing"
	"time"
)

// wantUnreachable holds what Unreachable says, and how often a change was told of.
func (o *one) wantUnreachable(what string, want bool, changes int64) {
	o.t.Helper()
	if _, yes := o.Unreachable(); yes != want {
		o.t.Errorf("%s: unreachable %v", what, yes)
	}
	if got := o.w.changes.Swap(0); got != changes {
		o.t.Errorf("%s: told of %d changes, want %d", what, got, changes)
	}
}

// TestUnreachable: the last result says it, whether it ejects or not.
func TestUnreachable(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		o := w.endpoint(t, DefaultConfig())
		o.guard.SetPanic(true)
		o.wantUnreachable("new", false, 0)
		o.send(Good, Bad, Neutral)
		o.wantUnreachable("after a failure", false, 0)
		o.send(NoConn)
		o.wantUnreachable("after a time-out", true, 1)
		o.send(Neutral)
		o.wantUnreachable("after nothing", true, 0)
		if again, _ := o.Unreachable(); again != w.clock()+o.cfg.MaxEjection {
			t.Errorf("again at %v", again)
		}
		o.send(Good)
		o.wantUnreachable("after an answer", false, 1)
		o.send(NoConn)
		o.wantUnreachable("after another time-out", true, 0) // it was told of one
		o.send(Bad)
		o.wantUnreachable("after a failure of one that was reached", false, 0)
		time.Sleep(tellEvery)
		o.send(Good)
		o.wantUnreachable("a second later", false, 1)
		o.send(Good)
		o.wantUnreachable("and then", false, 0)
		o.want(Closed)
	})
}

// TestNoConnCounts like any failure, and does not eject at once.
func TestNoConnCounts(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		o := w.endpoint(t, DefaultConfig())
		o.send(NoConn, NoConn)
		o.want(Closed)
		o.send(NoConn)
		o.want(Open)
		o.waitOut()
		o.wantUnreachable("half-open", true, 1)
		o.Report(o.probe(), Good, w.clock())
		o.want(Closed)
		if _, yes := o.Unreachable(); yes {
			t.Error("unreachable after its probe")
		}
		o.send(Gone)
		o.want(Open)
		if _, yes := o.Unreachable(); !yes {
			t.Error("reachable though nobody listens")
		}
	})
}

// TestUnreachableWhileItEnds: answers over connections from before do not say that
// there could be new ones.
func TestUnreachableWhileItEnds(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		o := w.endpoint(t, DefaultConfig())
		running := make([]Probe, 3)
		for i := range running {
			running[i], _ = o.Admit(w.clock())
		}
		o.send(Gone)
		o.want(Open)
		for i, v := range []Verdict{Good, Bad, Good} {
			if i == 2 {
				o.waitOut()
			}
			o.Report(running[i], v, w.clock())
			if _, yes := o.Unreachable(); !yes {
				t.Errorf("reachable by what was on its way, %d", i)
			}
		}
		o.Report(o.probe(), Good, w.clock())
		if _, yes := o.Unreachable(); yes {
			t.Error("unreachable after its probe")
		}
	})
}

// TestUnreachableAside: what is sent to one that others have taken out, in a panic,
// ejects nothing but is remembered; told again only when it is old news.
func TestUnreachableAside(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		o := w.endpoint(t, DefaultConfig())
		o.SetEligible(false)
		o.send(times(10, Gone)...)
		o.want(Closed)
		o.wantUnreachable("refused ten times", true, 1)
		time.Sleep(o.cfg.MaxEjection)
		o.send(Gone, Gone)
		o.wantUnreachable("refused again", true, 1)
		o.send(times(10, Good)...)
		o.wantUnreachable("answers", false, 1)
		o.SetEligible(true)
		o.want(Closed)
	})
}

// TestUnreachableToldSparingly: an endpoint of which a part refuses connections does
// not have everything built anew with every request, nor at all while it is in
// service and an ejection would tell; yet whoever was told hears of the end, and at
// once where requests might not come.
func TestUnreachableToldSparingly(t *testing.T) {
	for name, c := range map[string]struct {
		set         func(o *one)
		least, most int // times that it is said to be unreachable
		atOnce      bool
	}{
		"in service": {func(*one) {}, 0, 0, true},
		"a panic":    {func(o *one) { o.guard.SetPanic(true) }, 3, 11, false},
		"aside":      {func(o *one) { o.SetEligible(false) }, 9, 11, true},
		"no place":   {func(o *one) { o.guard.SetTotal(1) }, 3, 11, false},
	} {
		bubble(t, func(t *testing.T, w *world) {
			o := w.endpoint(t, DefaultConfig())
			c.set(o)
			builds, downs, thinks := 0, 0, false
			build := func() { // as the balancer does when told
				if w.changes.Swap(0) == 0 {
					return
				}
				builds++
				if _, thinks = o.Unreachable(); thinks {
					downs++
				}
			}
			for range 1000 { // in 10 s
				o.send(NoConn)
				build()
				o.send(Good)
				build()
				if thinks && c.atOnce {
					t.Fatalf("%s: unreachable after an answer", name)
				}
				o.send(Good)
				time.Sleep(10 * time.Millisecond)
			}
			if downs < c.least || downs > c.most || builds > 22 {
				t.Errorf("%s: said to be unreachable %d times, want %d to %d; %d builds", name, downs, c.least, c.most, builds)
			}
			time.Sleep(tellEvery)
			o.send(Good)
			if build(); thinks {
				t.Errorf("%s: unreachable in the end", name)
			}
		})
	}
}

// TestUnreachableEndsForWhoAsked: also if nobody was told of the beginning.
func TestUnreachableEndsForWhoAsked(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		o := w.endpoint(t, DefaultConfig())
		o.send(NoConn)
		o.wantUnreachable("in service", true, 0)
		o.guard.SetPanic(true) // and others are asked
		o.send(Good)
		o.wantUnreachable("it answers", false, 1)
	})
}

// TestReached: somebody else connected.
func TestReached(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		o := w.endpoint(t, DefaultConfig())
		if o.Reached(w.clock()) {
			t.Error("that is no news")
		}
		o.send(NoConn)
		if !o.Reached(w.clock()) || o.Reached(w.clock()) {
			t.Error("it is news once")
		}
		o.wantUnreachable("after that", false, 0)
		o.send(NoConn)
		o.wantUnreachable("refused again", true, 0)
		o.Reached(w.clock())
		o.wantUnreachable("who asked is told", false, 1)
	})
}
