package picker

import (
	"fmt"
	"math"
	"testing"
	"time"
)

// rampsAt puts the endpoints at these shares of their weight in slow starts of
// 10 s, as of now; 1: in none.
func rampsAt(eps []*Endpoint, shares ...float64) {
	for i, s := range shares {
		if s < 1 {
			eps[i].SetRamp(now-time.Duration(s*float64(10*time.Second)), 10*time.Second)
		}
	}
	HoldRamps(eps, now)
}

func TestRampIsLinear(t *testing.T) {
	e := NewEndpoint("a", "a:1", 1, 0, nil)
	if e.Ramp(now) != 1 || e.percent() != 100 {
		t.Errorf("share %v, %d %% without a slow start", e.Ramp(now), e.percent())
	}
	e.SetRamp(now, 10*time.Second)
	for _, c := range []struct {
		after time.Duration
		want  float64
	}{
		{-time.Hour, 0.1}, {0, 0.1}, {time.Second, 0.1}, {3 * time.Second, 0.3}, {9900 * time.Millisecond, 0.99},
		{10 * time.Second, 1}, {time.Hour, 1},
	} {
		if got := e.Ramp(now + c.after); math.Abs(got-c.want) > 1e-9 {
			t.Errorf("%v after: share %v, want %v", c.after, got, c.want)
		}
	}
	set := []*Endpoint{e, NewEndpoint("b", "b:1", 1, 0, nil)}
	if !HoldRamps(set, now+3*time.Second) || e.percent() != 30 {
		t.Errorf("held %d %%, want 30", e.percent())
	}
	if HoldRamps(set, now+10*time.Second) || e.percent() != 100 || e.ramp.Load() != nil {
		t.Errorf("held %d %% at the end", e.percent())
	}
	e.SetRamp(now, 10*time.Second)
	HoldRamps(set, now)
	e.SetRamp(now, 0)
	if e.percent() != 100 || e.Ramp(now) != 1 || HoldRamps(set, now) {
		t.Errorf("cancelled: share %v, %d %%", e.Ramp(now), e.percent())
	}
}

// TestRampFloor: slow starts leave half of the weight, and what they leave is
// the least that does.
func TestRampFloor(t *testing.T) {
	for _, c := range []struct {
		weights []int
		shares  []float64
		want    []int64
	}{
		{[]int{1, 1}, []float64{1, 0}, []int64{100, 10}},
		{[]int{1, 1, 1, 1}, []float64{0, 0, 0, 0}, []int64{50, 50, 50, 50}},            // all at once: alike
		{[]int{1, 1, 1}, []float64{0.9, 0.2, 0}, []int64{90, 30, 30}},                  // a deploy, one by one
		{[]int{1, 1, 1, 1, 1}, []float64{1, 0, 0, 0, 0}, []int64{100, 38, 38, 38, 38}}, // 1 + 4 * 0.375 = 2.5
		{[]int{1, 9}, []float64{1, 0}, []int64{100, 45}},
		{[]int{9, 1}, []float64{1, 0}, []int64{100, 10}},
		{[]int{5}, []float64{0}, []int64{50}},
		{[]int{0, 0}, []float64{0, 1}, []int64{10, 100}},
	} {
		eps := fleet(c.weights...)
		rampsAt(eps, c.shares...)
		for i, e := range eps {
			if e.percent() != c.want[i] {
				t.Errorf("weights %v at %v: endpoint %d at %d %%, want %d", c.weights, c.shares, i, e.percent(), c.want[i])
			}
			if got := int64(math.Round(100 * e.Ramp(now))); got != c.want[i] {
				t.Errorf("weights %v at %v: endpoint %d ramps at %d %%, want %d", c.weights, c.shares, i, got, c.want[i])
			}
		}
	}
	// What was raised for a crowd of newcomers sinks to their own when they are few.
	eps := equal(5)
	rampsAt(eps, 1, 0, 0, 0, 0)
	HoldRamps(eps[:2], now)
	if eps[1].percent() != 10 {
		t.Errorf("left alone: %d %%", eps[1].percent())
	}
}

func TestRampedSlots(t *testing.T) {
	eps := fleet(3, 1, 0, 65535)
	if s := slots(eps); s[0].w != 3 || s[2].w != 65535 {
		t.Errorf("without a slow start: %v", s)
	}
	rampsAt(eps, 1, 0.3)
	if s := slots(eps); s[0].w != 300 || s[1].w != 30 || s[2].w != 6553500 || len(s) != 3 {
		t.Errorf("in a slow start: %v", s)
	}
	eps = fleet(append(make([]int, 0), 65535, 65535, 1, 1)...)
	for range 1000 {
		eps = append(eps, fleet(65535)...)
	}
	rampsAt(eps, 0.5, 1, 0.1)
	if s := slots(eps); s[0].w != 32768 || s[1].w != 65535 || s[2].w != 1 || s[3].w != 1 {
		t.Errorf("weights too large for a hundredfold: %v", s[:4])
	}
}

// rebuilt is p over the endpoints as the balancer builds it.
func rebuilt(p Policy, eps []*Endpoint, at time.Duration) Picker {
	HoldRamps(eps, at)
	k := p.Build(eps)
	if f, ok := k.(Refresher); ok {
		f.Refresh(at)
	}
	return k
}

// TestSlowStartOfEveryPolicy: with requests that stay a while, a newcomer gets
// little at first, something all the same, and its full part in the end.
func TestSlowStartOfEveryPolicy(t *testing.T) {
	const n, flying = 4, 40 // endpoints, requests in flight
	for seed, name := range Names() {
		t.Run(name, func(t *testing.T) {
			eps := equal(n)
			p := policy(t, name, seeded(uint64(seed+1)))
			key := uint64(0)
			var queue []*Endpoint
			run := func(k Picker, at time.Duration) (newcomer float64) {
				const picks = 4000
				for range picks {
					key += 0x9e3779b97f4a7c15
					e, ok := k.Pick(Request{Now: at, Key: key})
					if !ok {
						t.Fatal("nothing picked")
					}
					e.TryReserve()
					if e == eps[n-1] {
						newcomer++
					}
					if queue = append(queue, e); len(queue) > flying {
						queue[0].Finish(at, Result{Outcome: Success, FirstByte: time.Millisecond})
						queue = queue[1:]
					}
				}
				return newcomer / picks
			}
			run(rebuilt(p, eps[:n-1], now), now)
			eps[n-1].SetRamp(now, 10*time.Second)
			var got []float64
			for _, after := range []time.Duration{0, 5 * time.Second, 10 * time.Second} {
				got = append(got, run(rebuilt(p, eps, now+after), now+after))
			}
			if got[0] <= 0.005 || got[0] > 0.15 || got[1] < got[0] || got[2] < 0.15 || got[2] > 0.35 {
				t.Errorf("parts of the newcomer: %.3f at first, %.3f half way, %.3f at the end, of %.3f", got[0], got[1], got[2], 1./n)
			}
		})
	}
}

// TestSlowStartDoesNotStarve is envoy #19437: one request in flight at a
// newcomer does not keep the next away when the others are busy.
func TestSlowStartDoesNotStarve(t *testing.T) {
	for seed, name := range Names() {
		t.Run(name, func(t *testing.T) {
			eps := equal(3)
			hold(eps[0], 15)
			hold(eps[1], 15)
			hold(eps[2], 1)
			eps[2].SetRamp(now, 10*time.Second)
			k := rebuilt(policy(t, name, seeded(uint64(seed+1))), eps, now)
			got := 0
			for i := range 2000 {
				if e, _ := k.Pick(Request{Now: now, Key: uint64(i+1) * 0x9e3779b97f4a7c15}); e == eps[2] {
					got++
				}
			}
			if got < 20 {
				t.Errorf("%d of 2000 picks for a newcomer with 1 in flight while the others have 15", got)
			}
		})
	}
}

// TestAllNew: when everyone is new, everyone counts the same.
func TestAllNew(t *testing.T) {
	for seed, name := range Names() {
		if name == "consistent_hash" {
			continue // its ring does not know of slow starts
		}
		t.Run(name, func(t *testing.T) {
			eps := fleet(1, 1, 2)
			for _, e := range eps {
				e.SetRamp(now, 10*time.Second)
			}
			got := count(t, rebuilt(policy(t, name, seeded(uint64(seed+7))), eps, now), eps, 8000, Request{Now: now})
			fits(t, fmt.Sprint("shares ", got), got, sharesOf(eps))
		})
	}
}

func TestRampAge(t *testing.T) {
	e := equal(1)[0]
	if got := e.RampAge(now); got != 1 {
		t.Errorf("without a slow start %v", got)
	}
	e.SetRamp(now, 10*time.Second)
	for after, want := range map[time.Duration]float64{-time.Second: 0, 0: 0, time.Second: 0.1, 5 * time.Second: 0.5, time.Minute: 1} {
		if got := e.RampAge(now + after); got != want {
			t.Errorf("after %v: %v, want %v", after, got, want)
		}
	}
}
