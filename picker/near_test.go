package picker

import (
	"reflect"
	"strings"
	"testing"
	"time"
)

// scattered is Near over a policy, with the endpoints spread over three
// distances by their IDs.
type scattered struct{ Policy }

func (p scattered) Build(ready []*Endpoint) Picker {
	for _, e := range ready {
		e.SetDistance(int(e.ID[len(e.ID)-1]) % 3)
	}
	return p.Policy.Build(ready)
}

func nearOf(t testing.TB, name string, seed uint64) Policy {
	t.Helper()
	rand := seeded(seed)
	return Near(policy(t, name, rand), []string{"node", "zone"}, 2, rand)
}

// evenly are the cases of the conformance table that want every endpoint to be
// picked although the nearest are idle, which is just what Near prevents, or to
// be told that it can be.
var evenly = []string{
	"two endpoints", "tried endpoints are avoided", "order of the set does not matter",
	"the first pick after a build is fair", "everyone gets something", "every key", "slow start", "ties are drawn by weight",
	"rebuild keeps", "two pickers", "explain lists", "explain says", "explain agrees",
}

func TestNearConformance(t *testing.T) {
	ran := 0
	for i, name := range Names() {
		t.Run(name, func(t *testing.T) {
		cases:
			for _, c := range conformance {
				for _, e := range evenly {
					if strings.HasPrefix(c.name, e) {
						continue cases
					}
				}
				ran++
				t.Run(c.name, func(t *testing.T) { c.run(t, scattered{nearOf(t, name, uint64(i+1))}) })
			}
		})
	}
	if ran < 8*len(Names()) {
		t.Errorf("%d cases were run", ran)
	}
}

// placed makes a fleet of weight 1 at these distances.
func placed(distances ...int) []*Endpoint {
	eps := equal(len(distances))
	for i, d := range distances {
		eps[i].SetDistance(d)
	}
	return eps
}

// TestNearPrefers: while nobody is crowded, the nearest get everything.
func TestNearPrefers(t *testing.T) {
	for seed, name := range Names() {
		t.Run(name, func(t *testing.T) {
			eps := placed(2, 1, 0, 0, 1, 2, 2)
			k := rebuilt(nearOf(t, name, uint64(seed+1)), eps, now)
			got := make([]int, len(eps))
			for i := range 400 {
				e, _ := k.Pick(Request{Now: now, Key: uint64(i+1) * 0x9e3779b97f4a7c15})
				for j := range eps {
					if eps[j] == e {
						got[j]++
					}
				}
			}
			if got[2]+got[3] != 400 || got[2] == 0 || got[3] == 0 {
				t.Errorf("picks %v, want those of the nearest two alone", got)
			}
			if e, ok := k.Pick(Request{Now: now, Key: 7, Tried: triedOf(eps[2], eps[3])}); !ok || e.Distance() != 1 {
				t.Errorf("with the nearest tried: %v", e)
			}
			for _, e := range eps[1:5] {
				e.SetLimit(1)
				fill(e)
			}
			if e, ok := k.Pick(Request{Now: now, Key: 7}); !ok || e.Distance() != 2 {
				t.Errorf("with the nearer ones full: %v", e)
			}
		})
	}
}

// TestNearSpills puts requests in flight, as under a rising load, and looks how
// far the groups are used: each takes requests once all nearer ones have more
// than twice as many, and one more.
func TestNearSpills(t *testing.T) {
	for seed, name := range Names() {
		t.Run(name, func(t *testing.T) {
			eps := placed(0, 1, 1, 2, 2, 2)
			k := rebuilt(nearOf(t, name, uint64(seed+1)), eps, now)
			var at [3]int
			for i := range 120 {
				e, ok := k.Pick(Request{Now: now, Key: uint64(i+1) * 0x9e3779b97f4a7c15})
				if !ok || !e.TryReserve() {
					t.Fatal("nothing picked")
				}
				at[e.Distance()]++
				if i == 1 && at[0] != 2 {
					t.Fatalf("first picks %v", at)
				}
			}
			// Alone by the margins it would be about 39, 19 and 9 each.
			if at[0] < 20 || at[0] > 60 || at[1] < 20 || at[1] > 60 || at[2] < 15 || at[2] > 60 || at[0] < at[1]/2 || at[1]/2 < at[2]/3 {
				t.Errorf("in flight %v at 1, 2 and 3 endpoints", at)
			}
		})
	}
}

// TestNearByReports: what others have at an endpoint counts too where both
// agents tell, and what the endpoints can take.
func TestNearByReports(t *testing.T) {
	eps := placed(0, 1)
	p := rebuilt(nearOf(t, "least_conn", 1), eps, now)
	pick := func() int {
		e, _ := p.Pick(Request{Now: now})
		return e.Distance()
	}
	eps[0].SetLoad(live(2, 2, 9))
	if got := pick(); got != 0 {
		t.Error("spilled over to one of which nothing is known but that it is idle, by a report of the other")
	}
	eps[1].SetLoad(live(2, 2, 0))
	if got := pick(); got != 1 {
		t.Error("stayed with 9 requests on 2 cores, 0 on the others")
	}
	eps[0].SetLoad(live(16, 16, 9))
	if got := pick(); got != 0 {
		t.Error("left 9 requests on 16 cores")
	}
	eps[0].SetLoad(live(2, 2, 9))
	old := live(2, 2, 0)
	old.Expires = now
	eps[1].SetLoad(old)
	if got := pick(); got != 0 {
		t.Error("believed an old report")
	}
}

// TestNearWeights: crowding is per weight, and slow starts count as weight.
func TestNearWeights(t *testing.T) {
	eps := placed(0, 1)
	eps[0].SetWeight(300)
	eps[1].SetWeight(100)
	k := rebuilt(nearOf(t, "least_conn", 1), eps, now)
	hold(eps[0], 1) // 0.67 of the mean weight's
	if e, _ := k.Pick(Request{Now: now}); e != eps[0] {
		t.Error("one request in flight at a heavy one is taken for a crowd")
	}
	hold(eps[0], 1)
	if e, _ := k.Pick(Request{Now: now}); e != eps[1] {
		t.Error("two are no crowd")
	}
	hold(eps[1], 1)
	if e, _ := k.Pick(Request{Now: now}); e != eps[0] {
		t.Error("two against one of a third of the weight are a crowd")
	}
	eps[0].SetRamp(now, 10*time.Second) // counts a third
	k = rebuilt(nearOf(t, "least_conn", 1), eps, now)
	hold(eps[1], -1)
	if e, _ := k.Pick(Request{Now: now}); e != eps[1] {
		t.Error("one request in flight at a newcomer is taken for nothing")
	}
}

// TestNearInterfaces: a picker over several distances is of the kinds that one
// of the policy itself is of.
func TestNearInterfaces(t *testing.T) {
	for seed, name := range Names() {
		inner := nearOf(t, name, uint64(seed+1))
		if inner.Name() != name {
			t.Errorf("%s is called %s", name, inner.Name())
		}
		plain, wrapped := inner.Build(placed(0, 0)), inner.Build(placed(0, 1))
		for _, kind := range []reflect.Type{
			reflect.TypeFor[Vetoer](), reflect.TypeFor[Refresher](), reflect.TypeFor[Observer](), reflect.TypeFor[Forecaster](),
		} {
			if a, b := reflect.TypeOf(plain).Implements(kind), reflect.TypeOf(wrapped).Implements(kind); a != b {
				t.Errorf("%s: %v %v, near %v", name, kind, a, b)
			}
		}
		if strings.Contains(plain.Mode(now), "nearest") || !strings.HasPrefix(wrapped.Mode(now), "nearest first: node (1), then zone (1); ") {
			t.Errorf("%s: modes %q and %q", name, plain.Mode(now), wrapped.Mode(now))
		}
	}
}

// spy is a policy with all that a picker can have, which notes who is asked.
type spy struct {
	Policy
	asked map[*Endpoint]string
}

type spyPicker struct {
	Picker
	*spy
	of *Endpoint
}

func (s *spy) Build(ready []*Endpoint) Picker { return &spyPicker{s.Policy.Build(ready), s, ready[0]} }

func (p *spyPicker) note(what string)                      { p.asked[p.of] += what + " " }
func (p *spyPicker) Vetoes(*Endpoint, time.Duration) bool  { p.note("vetoes"); return true }
func (p *spyPicker) Due(time.Duration) bool                { p.note("due"); return p.of.Distance() == 5 }
func (p *spyPicker) Refresh(time.Duration)                 { p.note("refresh") }
func (p *spyPicker) Sent(*Endpoint, time.Duration) float32 { p.note("sent"); return 3 }
func (p *spyPicker) Reported(*Endpoint, time.Duration)     { p.note("reported") }
func (p *spyPicker) Done(_ *Endpoint, _ time.Duration, x float32, _ Result) {
	if x == 3 {
		p.note("done")
	}
}
func (p *spyPicker) Wait(*Endpoint, time.Duration) time.Duration { p.note("wait"); return 9 }

// TestNearForwards: what concerns an endpoint goes to the picker it is in, once.
func TestNearForwards(t *testing.T) {
	rand := seeded(1)
	s := &spy{policy(t, "random", rand), map[*Endpoint]string{}}
	eps := placed(5, 0)
	k := Near(s, nil, 2, rand).Build(eps)
	for _, e := range eps {
		if !k.(Vetoer).Vetoes(e, now) || k.(Forecaster).Wait(e, now) != 9 {
			t.Error("the answer is not the part's")
		}
		o := k.(Observer)
		o.Done(e, now, o.Sent(e, now), Result{})
		o.Reported(e, now)
	}
	if f := k.(Refresher); !f.Due(now) {
		t.Error("not due, though a part is")
	} else {
		f.Refresh(now)
	}
	want := "vetoes wait sent done reported due refresh "
	for i, e := range eps {
		if s.asked[e] != want {
			t.Errorf("endpoint %d's part was asked %q, want %q", i, s.asked[e], want)
		}
	}
	k.(Observer).Sent(NewEndpoint("x", "x:1", 1, 0, nil), now) // not in the set: the nearest part's
}

func TestNearExplains(t *testing.T) {
	for seed, name := range Names() {
		t.Run(name, func(t *testing.T) {
			eps := placed(0, 1, 1, 2)
			k := rebuilt(nearOf(t, name, uint64(seed+1)), eps, now)
			const farther = "farther than others that take the request"
			look := func(rule string, out ...string) {
				t.Helper()
				if f, ok := k.(Refresher); ok {
					f.Refresh(now)
				}
				x := k.Explain(Request{Now: now, Key: 7})
				if !strings.HasPrefix(x.Rule, rule) || len(x.Candidates) != len(eps) {
					t.Errorf("%d candidates, rule %q, want %q", len(x.Candidates), x.Rule, rule)
				}
				for _, c := range x.Candidates {
					d := c.Endpoint.Distance()
					last := c.Terms[len(c.Terms)-1]
					if last.Name != "distance" || last.Value != float64(d) || c.Out != out[d] {
						t.Errorf("distance %d: term %v, out %q, want %q", d, last, c.Out, out[d])
					}
				}
			}
			look("node, the nearest that takes the request: ", "", farther, farther)
			hold(eps[0], 4)
			look("zone, nearer ones are more than 2 times as crowded, and by a request more: ", "", "", "")
			hold(eps[3], 2)
			look("zone, nearer ones", "", "", farther)
			hold(eps[3], -2)
			eps[0].SetLimit(1)
			eps[1].SetLimit(1)
			fill(eps[1])
			hold(eps[2], 4)
			if f, ok := k.(Refresher); ok {
				f.Refresh(now)
			}
			x := k.Explain(Request{Now: now, Key: 7})
			if !strings.HasPrefix(x.Rule, "distance 2, ") || x.Candidates[0].Out != "at its limit" {
				t.Errorf("rule %q, %+v", x.Rule, x.Candidates[0])
			}
		})
	}
}

func TestNearAllocatesNothing(t *testing.T) {
	for seed, name := range Names() {
		eps := placed(0, 1, 2, 2)
		k := rebuilt(nearOf(t, name, uint64(seed+1)), eps, now)
		hold(eps[0], 9)
		hold(eps[1], 4)
		if n := testing.AllocsPerRun(100, func() { k.Pick(Request{Now: now, Key: 7}) }); n != 0 {
			t.Errorf("%s: %v allocations for a pick", name, n)
		}
	}
}

// BenchmarkNear is a pick that stays near, and one that spills over.
func BenchmarkNear(b *testing.B) {
	for _, n := range []int{0, 50} {
		b.Run(map[int]string{0: "stays", 50: "spills"}[n], func(b *testing.B) {
			eps := equal(1000)
			for i, e := range eps {
				e.SetDistance(i % 3)
				if i%3 == 0 {
					hold(e, n)
				}
			}
			k := nearOf(b, "p2c", 1).Build(eps)
			b.ReportAllocs()
			for b.Loop() {
				k.Pick(Request{Now: now})
			}
		})
	}
}

// TestNearChecksThePick: a policy that draws may draw a crowded one far away,
// though an idle one was seen there. Then the request stays.
func TestNearChecksThePick(t *testing.T) {
	eps := placed(0, 1, 1)
	hold(eps[0], 3)
	hold(eps[2], 9)
	got := count(t, nearOf(t, "random", 1).Build(eps), eps, 1000, Request{Now: now})
	if got[2] != 0 || got[1] < 200 || got[0] < 200 {
		t.Errorf("picks %v, want none of the crowded one", got)
	}
}
