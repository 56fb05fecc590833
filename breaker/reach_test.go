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
		o.send(NoConn, Bad)
		o.wantUnreachable("after a failure of one that was reached", false, 2)
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
		o.wantUnreachable("half-open", true, 2)
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
