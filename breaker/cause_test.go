package breaker

import (
	"testing"
	"time"
)

// causes returns what the guard counted, what is 0 apart.
func (o *one) causes() map[string]uint64 {
	o.t.Helper()
	got, sum := map[string]uint64{}, uint64(0)
	for _, c := range Causes() {
		if n := o.guard.Ejections(c); n > 0 {
			got[c], sum = n, sum+n
		}
	}
	if sum != o.Ejections() {
		o.t.Errorf("%d ejections, by cause %v", o.Ejections(), got)
	}
	return got
}

// TestCauses: each way out is counted under its own name, and once.
func TestCauses(t *testing.T) {
	ratio := append(times(10, Good, Bad), times(5, Bad, Bad, Good)...)
	for want, verdicts := range map[string][]Verdict{
		"consecutive": {Good, Bad, Bad, Bad},
		"ratio":       ratio[:20],
		"unreachable": {Bad, Bad, Gone}, // a third in a row too
	} {
		bubble(t, func(t *testing.T, w *world) {
			o := w.endpoint(t, DefaultConfig())
			if o.LastCause() != "" {
				t.Errorf("%q before any ejection", o.LastCause())
			}
			if want == "ratio" {
				o.send(Bad) // from here on successes count
			}
			for _, v := range verdicts {
				if o.State(w.clock()) == Closed {
					o.send(v)
				}
			}
			o.want(Open)
			if got := o.causes(); len(got) != 1 || got[want] != 1 || o.LastCause() != want {
				t.Errorf("%v, last %q, want %s", got, o.LastCause(), want)
			}
			o.waitOut()
			o.Report(o.probe(), Bad, w.clock())
			if o.LastCause() != "probe" {
				t.Errorf("after a failed probe: %q", o.LastCause())
			}
			o.waitOut()
			o.Report(o.probe(), Gone, w.clock())
			if o.LastCause() != "unreachable" {
				t.Errorf("after a refused probe: %q", o.LastCause())
			}
			o.waitOut()
			o.Report(o.probe(), Good, w.clock())
			if got := o.causes(); got["probe"] != 1 || o.Ejections() != 3 || o.LastCause() != "unreachable" {
				t.Errorf("at the end %v, last %q", got, o.LastCause())
			}
		})
	}
	if NewGuard(50).Ejections("nonsense") != 0 || noCause.String() != "" || cause(200).String() != "" {
		t.Error("an unknown cause counts")
	}
}

// TestBothCauses: where a failure is one too many in a row and of all, the row is named.
func TestBothCauses(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		cfg := DefaultConfig()
		cfg.MinRequests, cfg.ConsecutiveFailures = 3, 3
		o := w.endpoint(t, cfg)
		o.send(Bad, Bad, Bad)
		if o.LastCause() != "consecutive" {
			t.Errorf("%q", o.LastCause())
		}
	})
}

func TestEject(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		o := w.endpoint(t, DefaultConfig())
		o.send(Good, Bad, Good)
		for _, want := range []time.Duration{1, 2, 4, 8} { // grows like any other
			late, _ := o.Admit(w.clock())
			if !o.Eject() {
				t.Fatal("not ejected")
			}
			o.want(Open)
			if o.openFor() != want*time.Second {
				t.Errorf("ejected for %v, want %d s", o.openFor(), want)
			}
			o.Report(late, Bad, w.clock())
			if o.Eject() {
				t.Error("ejected twice")
			}
			o.waitOut()
			p := o.probe()
			if o.Eject() {
				t.Error("ejected while half-open")
			}
			o.Report(p, Good, w.clock())
			o.want(Closed)
			o.send(Good, Bad, Bad, Good) // starts from nothing
			o.want(Closed)
		}
		if got := o.causes(); got["success_rate"] != 4 || o.LastCause() != "success_rate" {
			t.Errorf("%v, last %q", got, o.LastCause())
		}
		time.Sleep(DefaultConfig().MaxEjection)
		o.send(Bad, Bad, Bad) // forgiven, and another cause
		if o.LastCause() != "consecutive" || o.openFor() != time.Second {
			t.Errorf("%q for %v", o.LastCause(), o.openFor())
		}
	})
}

// TestEjectNeedsAPlace: without one nothing is counted, neither as an ejection nor
// as a failure; nor where the endpoint takes no requests anyway.
func TestEjectNeedsAPlace(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		eps, g := w.service(t, DefaultConfig(), 3)
		eps[1].Retire()
		if eps[1].Eject() || eps[1].Ejections() != 0 {
			t.Error("one that left was ejected")
		}
		if !eps[0].Eject() {
			t.Fatal("not ejected with a place free")
		}
		eps[2].send(Bad, Bad)
		for range 5 {
			if eps[2].Eject() {
				t.Fatal("a second of three was ejected")
			}
		}
		if g.Ejected() != 1 || g.Ejections("success_rate") != 1 || eps[2].c.seen.sum.failures != 2 {
			t.Errorf("%d out, %d counted, %+v", g.Ejected(), g.Ejections("success_rate"), eps[2].c.seen.sum)
		}
		if s := eps[2].State(w.clock()); s != Closed {
			t.Errorf("state %v", s)
		}
	})
}
