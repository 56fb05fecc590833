package balance

import (
	"testing"
	"time"
)

// TestCheckUnreachable: an active check's word counts in a panic as a request's does.
func TestCheckUnreachable(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, nil)
		r.run()
		r.Update(instances(3))
		refused := CheckState{Known: true, Unreachable: true, Since: r.Now(), Error: "connection refused"}
		r.SetCheck("n/0", refused)
		r.wantReady("n/1 n/2")
		r.wantWhy(0, "active check: connection refused")
		r.SetCheck("n/1", CheckState{Known: true, Error: "status 500"})
		r.wantReady("n/1 n/2")
		r.SetCheck("n/2", refused)
		r.wantReady("n/1")
		r.SetCheck("n/1", refused)
		r.wantReady("n/0 n/1 n/2")
		time.Sleep(3 * time.Second)
		if e := r.Status().Endpoints[0]; e.Check != refused || e.CheckAge != 3*time.Second || e.Despite != "check down" {
			t.Errorf("%+v", e)
		}
		r.SetCheck("n/0", CheckState{Known: true, Up: true})
		r.wantReady("n/0")
		r.SetCheck("n/0", CheckState{}) // not known any more: Consul's word
		r.wantReady("n/0")
		if e := r.Status().Endpoints[0]; e.Check.Known || e.CheckAge != 0 {
			t.Errorf("%+v", e)
		}
	})
}

// TestCheckOfNobody: what is said of an endpoint that left or never was is dropped, and
// one that returns is not known.
func TestCheckOfNobody(t *testing.T) {
	r := newRig(t, nil)
	r.SetCheck("n/0", CheckState{Known: true})
	r.Update(instances(3))
	r.SetCheck("n/0", CheckState{Known: true})
	r.Update(instances(3)[1:])
	r.SetCheck("n/0", CheckState{Known: true})
	r.Update(instances(3))
	r.wantWhy(0, "")
	if got := r.readyIDs(); got != "n/0 n/1 n/2" {
		t.Errorf("ready are %s", got)
	}
}
