package picker

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

func resourcePolicy(t testing.TB, samples int) Policy {
	t.Helper()
	c := DefaultConfig()
	c.Policy, c.Resource.Samples = "resource", samples
	p, err := New(c, seeded(uint64(samples)))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// rate builds the policy's picker over eps and has it refreshed, as the
// balancer does, with every report heard.
func rate(t testing.TB, samples int, eps []*Endpoint) *resourcePicker {
	t.Helper()
	k := resourcePolicy(t, samples).Build(eps).(*resourcePicker)
	heard(k, eps, now)
	return k
}

// heard tells k of all reports and refreshes it.
func heard(k *resourcePicker, eps []*Endpoint, at time.Duration) {
	for _, e := range eps {
		if e.Load() != nil {
			k.Reported(e, at)
		}
	}
	k.Refresh(at)
}

// serve sends n requests that all stay in flight, and counts them.
func serve(t testing.TB, k Picker, eps []*Endpoint, n int) []int {
	t.Helper()
	before := make([]int, len(eps))
	for i, e := range eps {
		before[i] = e.InFlight()
	}
	for range n {
		e, ok := k.Pick(Request{Now: now})
		if !ok || !e.TryReserve() {
			t.Fatal("no endpoint picked")
		}
	}
	got := make([]int, len(eps))
	for i, e := range eps {
		got[i] = e.InFlight() - before[i]
	}
	return got
}

// TestResourceFollowsAvail: requests settle in proportion to the cores that
// are free, which is away from an endpoint whose CPU is burnt from outside.
func TestResourceFollowsAvail(t *testing.T) {
	eps := equal(3)
	for i, avail := range []float64{4, 0.4, 2} {
		eps[i].SetLoad(live(4, avail, 0))
	}
	got := serve(t, rate(t, 8, eps), eps, 640)
	for i, want := range []int{400, 40, 200} {
		if got[i] < want*94/100 || got[i] > want*106/100 {
			t.Errorf("in flight %v, want about 400, 40, 200", got)
		}
	}
}

// TestResourceAvailFloor: an endpoint with nothing free counts as 5 % of its
// cores, so it is neither divided by zero nor cut off for good.
func TestResourceAvailFloor(t *testing.T) {
	eps := equal(2)
	eps[0].SetLoad(live(4, 4, 0))
	eps[1].SetLoad(live(4, 0, 0))
	got := serve(t, rate(t, 8, eps), eps, 420)
	if got[1] < 17 || got[1] > 23 {
		t.Errorf("in flight %v, want 400 and 20", got)
	}
}

func TestResourceUsesWeight(t *testing.T) {
	eps := fleet(1, 3)
	for _, e := range eps {
		e.SetLoad(live(2, 2, 0))
	}
	if got := serve(t, rate(t, 8, eps), eps, 400); got[0] < 98 || got[0] > 102 {
		t.Errorf("in flight %v, want 100 and 300", got)
	}
	eps = fleet(1, 3)
	for _, e := range eps {
		e.SetLoad(live(2, 2, 0))
	}
	fits(t, "ties", count(t, rate(t, 8, eps), eps, 20000, Request{Now: now}), []float64{1, 3})
}

// TestResourceSeesOthers: what other sidecars have there counts, this one's
// own share of the report does not count twice.
func TestResourceSeesOthers(t *testing.T) {
	eps := equal(2)
	eps[0].SetLoad(live(2, 2, 30)) // 30 of others
	own := live(2, 2, 30)
	own.OwnInFlight = 30 // since ended: the endpoint is idle now
	eps[1].SetLoad(own)
	got := serve(t, rate(t, 8, eps), eps, 50)
	if got[1] < 39 || got[1] > 41 { // 30 + x = 50 - x
		t.Errorf("in flight %v, want 10 and 40", got)
	}
	// More of our own than of all (the two were not read at one moment).
	own = live(2, 2, 3)
	own.OwnInFlight = 7
	eps[1].SetLoad(own)
	if e, ok := rate(t, 8, eps[1:]).Pick(Request{Now: now}); !ok || e != eps[1] {
		t.Errorf("picked %v", e)
	}
}

func TestResourceVeto(t *testing.T) {
	veto := DefaultResourceConfig().MemoryVeto
	full, deaf, edge := live(4, 4, 0), live(4, 4, 0), live(4, 0.4, 50)
	full.Mem, deaf.Listening, edge.Mem = veto, false, veto-0.01
	for _, n := range []int{3, 40} { // all sampled, and not all
		eps := equal(n)
		for i, e := range eps {
			switch {
			case i%2 == 0:
				e.SetLoad(full)
			case i == 1:
				e.SetLoad(edge)
			default:
				e.SetLoad(deaf)
			}
		}
		// The vetoed ones look idle, the one that may be picked is busy.
		hold(eps[1], 100)
		k := rate(t, 8, eps)
		if got := count(t, k, eps, 500, Request{Now: now}); got[1] != 500 {
			t.Errorf("%d endpoints, all but one vetoed: %v", n, got)
		}
		none(t, k, Request{Now: now, Tried: triedOf(eps[1])})
		eps[1].SetLoad(full)
		for i := 3; i < n; i += 2 {
			eps[i].SetLoad(full)
		}
		heard(k, eps, now)
		none(t, k, Request{Now: now})
	}
}

// TestResourceVetoWithoutCores: the veto holds when reports carry no CPU
// figure, where picking falls back to least-conn. The rest stay even.
func TestResourceVetoWithoutCores(t *testing.T) {
	eps := equal(4)
	for i, e := range eps {
		l := live(Absent, Absent, Absent)
		if i == 1 {
			l.Mem = 0.99
		}
		e.SetLoad(l)
	}
	got := count(t, rate(t, 8, eps), eps, 20000, Request{Now: now})
	if got[1] != 0 {
		t.Fatalf("counts %v", got)
	}
	fits(t, "beside a vetoed one", got, []float64{1, 0, 1, 1})
}

// TestResourceIgnoresExpired: neither figures nor vetoes outlive their age.
func TestResourceIgnoresExpired(t *testing.T) {
	eps := equal(2)
	old := live(4, 4, 1000)
	old.Mem, old.Listening = 1, false
	eps[0].SetLoad(old)
	k := rate(t, 8, eps)
	at := Request{Now: now + lifetime - 1}
	if got := count(t, k, eps, 100, at); got[0] != 0 {
		t.Errorf("a report is disbelieved before it expires: %v", got)
	}
	at.Now++
	k.Refresh(at.Now)
	got := count(t, k, eps, 20000, at)
	fits(t, "expired", got, []float64{1, 1})
	if m := k.Mode(at.Now); !strings.HasPrefix(m, "no live figures") {
		t.Errorf("mode %q", m)
	}
}

// TestResourceWithoutFigures: it is weighted least-conn over a few draws, and
// says so.
func TestResourceWithoutFigures(t *testing.T) {
	for _, n := range []int{4, 40} {
		eps := equal(n)
		for i, e := range eps {
			e.SetWeight(1 + i%3)
		}
		k := rate(t, 8, eps)
		if m := k.Mode(now); m != "no live figures: weighted least-conn over a few draws" {
			t.Errorf("mode %q", m)
		}
		fits(t, "idle", count(t, k, eps, 40000, Request{Now: now}), sharesOf(eps))
		hold(eps[0], 1000)
		if got := count(t, k, eps, 2000, Request{Now: now}); got[0] != 0 {
			t.Errorf("the busiest of %d got %d", n, got[0])
		}
	}
}

func TestResourceMode(t *testing.T) {
	eps := equal(3)
	k := rate(t, 8, eps)
	for i, want := range []string{
		"requests per free capacity, 1 of 3 with live figures",
		"requests per free capacity, 2 of 3 with live figures",
		"requests per free capacity",
	} {
		eps[i].SetLoad(live(2, 1, 0))
		if got := k.Mode(now); got != want {
			t.Errorf("mode %q, want %q", got, want)
		}
	}
}

// TestResourceUnknown: an endpoint without a report, or whose report lacks a
// figure, counts as the mean of the others. It neither wins all picks, nor
// gets none, whatever the others' load.
func TestResourceUnknown(t *testing.T) {
	partial := live(Absent, Absent, Absent)
	noInFlight := live(2, 2, Absent)
	noCores := live(Absent, Absent, 12)
	for name, l := range map[string]*Load{"none": nil, "empty": partial, "no in-flight": noInFlight, "no cores": noCores} {
		for _, others := range []float64{0, 12, 200} {
			t.Run(fmt.Sprintf("%s/%v", name, others), func(t *testing.T) {
				eps := equal(4)
				for _, e := range eps[:3] {
					e.SetLoad(live(2, 2, others))
				}
				if l != nil {
					c := *l
					if c.InFlight >= 0 {
						c.InFlight = others
					}
					eps[3].SetLoad(&c)
				}
				got := serve(t, rate(t, 8, eps), eps, 400)
				if got[3] < 90 || got[3] > 110 {
					t.Errorf("in flight %v, want about 100 each", got)
				}
			})
		}
	}
}

// TestResourceUnknownMajority: one report among many endpoints decides
// nothing for those that have none.
func TestResourceUnknownMajority(t *testing.T) {
	eps := equal(40)
	eps[0].SetLoad(live(8, 8, 3))
	got := serve(t, rate(t, 8, eps), eps, 4000)
	for i, n := range got {
		if n < 50 || n > 200 {
			t.Errorf("endpoint %d has %d of 4000 in flight, want about 100: %v", i, n, got)
		}
	}
}

// TestResourceFromTheFuture: a report stamped after this pick's clock (it came
// in between) is a live one.
func TestResourceFromTheFuture(t *testing.T) {
	eps := equal(2)
	soon := live(4, 4, 0)
	soon.At, soon.Expires = now+50*time.Millisecond, now+lifetime+50*time.Millisecond
	eps[0].SetLoad(soon)
	if m := rate(t, 8, eps).Mode(now); !strings.Contains(m, "1 of 2") {
		t.Errorf("mode %q", m)
	}
}
