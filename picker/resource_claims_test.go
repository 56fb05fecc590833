package picker

import (
	"testing"
	"time"
)

// TestResourceAllDeaf: that nobody listens counts while there is someone else,
// and memory always.
func TestResourceAllDeaf(t *testing.T) {
	eps := equal(4)
	deaf, full := live(2, 2, 0), live(2, 2, 0)
	deaf.Listening, full.Mem = false, 0.95
	for _, e := range eps[:3] {
		e.SetLoad(deaf)
	}
	eps[3].SetLoad(live(2, 2, 50))
	k := rate(t, 8, eps)
	if got := count(t, k, eps, 500, Request{Now: now}); got[3] != 500 {
		t.Errorf("beside one that listens: %v", got)
	}
	for _, refreshed := range []bool{false, true} {
		eps[3].SetLoad(full) // before the next Refresh, too
		if refreshed {
			heard(k, eps, now)
		}
		if got := count(t, k, eps, 900, Request{Now: now}); got[3] != 0 || got[0] < 200 || got[1] < 200 || got[2] < 200 {
			t.Errorf("none listens, one's memory is full, refreshed: %v: %v", refreshed, got)
		}
		for i, e := range eps {
			if k.Vetoes(e, now) != (i == 3) {
				t.Errorf("refreshed: %v: veto of %s: %v", refreshed, e.ID, i != 3)
			}
		}
	}
	eps[1].SetLoad(live(2, 2, 0))
	heard(k, eps, now)
	if got := count(t, k, eps, 500, Request{Now: now}); got[1] != 500 {
		t.Errorf("one listens again: %v", got)
	}
	// A report that has expired is no veto, so its endpoint is another one.
	eps[1].SetLoad(&Load{At: now - 2, Expires: now - 1, Listening: true, Cores: Absent, InFlight: Absent})
	heard(k, eps, now)
	if got := count(t, k, eps, 500, Request{Now: now}); got[1] != 500 {
		t.Errorf("beside one whose agent is silent: %v", got)
	}
}

// TestResourceClaimBounded: a claim of capacity is worth no more than eight
// times the middle one, once there are three.
func TestResourceClaimBounded(t *testing.T) {
	eps := equal(4)
	for i, e := range eps {
		l := live(2, 0.5, 0)
		if i == 0 {
			l = live(4096, 4096, 0)
			l.Conc = 1e9
		}
		e.SetLoad(l)
	}
	k := rate(t, 8, eps)
	around(t, "cores", term(t, k, eps[0], now, "capacity_cores"), 4, 1e-9)
	around(t, "conc", term(t, k, eps[0], now, "sustained"), 8, 1e-9)
	around(t, "cores of an honest one", term(t, k, eps[1], now, "capacity_cores"), 0.5, 1e-9)
	if got := serve(t, k, eps, 110); got[0] < 75 || got[0] > 85 { // 8 of 11 parts
		t.Errorf("in flight %v, want about 80 at the first", got)
	}
	// An endpoint without a report counts as the mean of what is believed.
	eps = append(eps, equal(1)...)
	around(t, "cores of one unknown", term(t, rate(t, 8, eps), eps[4], now, "capacity_cores"), (4+3*0.5)/4, 1e-6)
	// Of two, neither is more likely to lie.
	around(t, "cores beside one", term(t, rate(t, 8, eps[:2]), eps[0], now, "capacity_cores"), 4096, 0)
}

// TestResourceHearsayAges: in-flight that nobody polled is expected elsewhere
// for a while only, and admits nobody and refuses nobody.
func TestResourceHearsayAges(t *testing.T) {
	eps := equal(3)
	for i, e := range eps {
		l := live(2, 2, 60)
		l.Expires, l.Hearsay = now+90*time.Second, i > 0
		e.SetLoad(l)
	}
	k := rate(t, 8, eps)
	for range 50 {
		for _, e := range eps {
			done(k, e, now, Success, 20*time.Millisecond)
		}
	}
	heard(k, eps, now)
	if k.table.Load().seeing {
		t.Error("admission goes by what nobody polled")
	}
	if w := k.Wait(eps[1], now); w != 0 {
		t.Errorf("by hearsay it foretells %v", w)
	}
	around(t, "expected at first", term(t, k, eps[1], now, "others_expected"), 60, 0.01)
	eps[0].SetLoad(&Load{At: now, Expires: now, Listening: true, Cores: 2, Avail: 2, InFlight: Absent})
	k.Refresh(now + hearsayLasts - time.Millisecond)
	around(t, "expected while young", term(t, k, eps[1], now, "others_expected"), 60, 0.01)
	k.Refresh(now + hearsayLasts)
	around(t, "expected when aged", term(t, k, eps[1], now, "others_expected"), 0, 0)
	// What was polled counts for as long as it is fresh: polls may be rarer.
	for _, e := range eps {
		l := live(2, 2, 60)
		l.Expires = now + 6*time.Second
		e.SetLoad(l)
	}
	k.Refresh(now + 5*time.Second)
	if tb := k.table.Load(); !tb.seeing || tb.rated[1].expect < 59 {
		t.Errorf("5 s after a poll that lasts 6: seeing %v, %v expected", tb.seeing, tb.rated[1].expect)
	}
	// After a pause the tables are old: the same holds.
	for _, e := range eps[1:] {
		l := *e.Load()
		l.Hearsay = true
		e.SetLoad(&l)
	}
	if w := k.Wait(eps[1], now+5500*time.Millisecond); w != 0 {
		t.Errorf("after a pause, by hearsay of 5.5 s it foretells %v", w)
	}
	if w := k.Wait(eps[0], now+5500*time.Millisecond); w == 0 {
		t.Error("after a pause, by a poll that is believed it foretells nothing")
	}
}
