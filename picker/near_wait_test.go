package picker

import (
	"testing"
	"time"
)

// TestNearGoesFartherForTime: where the nearest would have a request wait too
// long, it goes farther, although they are not so crowded that it spills over;
// and stays if it would wait as long there.
func TestNearGoesFartherForTime(t *testing.T) {
	eps := equal(20)
	for i, e := range eps {
		e.SetDistance(i % 2)
		e.SetLoad(live(2, 2, 10))
	}
	p, err := New(Config{Policy: "resource", Resource: DefaultResourceConfig(), PeakEWMA: DefaultPeakEWMAConfig(), Hash: DefaultHashConfig()}, seeded(1))
	if err != nil {
		t.Fatal(err)
	}
	k := Near(p, nil, 2, seeded(2)).Build(eps)
	for _, e := range eps {
		k.(Observer).Done(e, now, k.(Observer).Sent(e, now), Result{Outcome: Success, FirstByte: 100 * time.Millisecond})
	}
	far := func(r Request) (n int) {
		for range 100 {
			e, ok := k.Pick(r)
			if !ok {
				t.Fatal("no pick")
			}
			n += e.Distance()
		}
		return n
	}
	report := func(distance int, n float64) {
		for _, e := range eps {
			if e.Distance() == distance {
				e.SetLoad(live(2, 2, n))
			}
		}
		k.(Refresher).Refresh(now)
	}
	report(1, 6) // neither idle nor half as crowded
	wait := func(i int) time.Duration { return k.(Forecaster).Wait(eps[i], now) }
	if !(wait(0) > wait(1) && wait(1) > 0) {
		t.Fatalf("waits %v near, %v far", wait(0), wait(1))
	}
	between := (wait(0) + wait(1)) / 2
	for what, c := range map[string]struct {
		r    Request
		want int
	}{
		"no limit":       {Request{Now: now}, 0},
		"time enough":    {Request{Now: now, MaxWait: 2 * wait(0)}, 0},
		"too long near":  {Request{Now: now, MaxWait: between}, 100},
		"too long there": {Request{Now: now, MaxWait: wait(1) / 2}, 0},
	} {
		if got := far(c.r); got != c.want {
			t.Errorf("%s: %d of 100 go farther, want %d", what, got, c.want)
		}
	}
}
