package picker

import (
	"math"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func peakPolicy(t testing.TB, decay, unknown time.Duration) *peakEWMA {
	t.Helper()
	c := DefaultConfig()
	c.Policy = "peak_ewma"
	c.PeakEWMA = PeakEWMAConfig{Decay: decay, Unknown: unknown}
	p, err := New(c, seeded(21))
	if err != nil {
		t.Fatal(err)
	}
	x := p.(peakEWMA)
	return &x
}

const ms = time.Millisecond

// event is the end of a request.
type event struct {
	at time.Duration
	r  Result
}

func success(took time.Duration) Result {
	return Result{Outcome: Success, FirstByte: took, Age: took}
}

// TestPeakAverage: what becomes of an endpoint's average, with a memory of 10 s
// and 1 s for unknown.
func TestPeakAverage(t *testing.T) {
	fade := func(ms float64, t time.Duration) float64 { return ms * math.Exp(-t.Seconds()/10) }
	failure := func(age time.Duration) Result { return Result{Outcome: Failure, Age: age} }
	for name, c := range map[string]struct {
		events []event
		read   time.Duration
		want   float64
	}{
		"nothing at all":                  {nil, 20 * time.Second, 1000},
		"unknown sinks once it was seen":  {[]event{{0, Result{Outcome: Drop}}}, 10 * time.Second, 1000 / math.E},
		"the first sample replaces it":    {[]event{{0, success(20 * ms)}}, 0, 20},
		"and does if it is above":         {[]event{{0, success(3000 * ms)}}, 0, 3000},
		"a peak replaces the average":     {[]event{{0, success(20 * ms)}, {time.Second, success(300 * ms)}}, time.Second, 300},
		"a sample below does not":         {[]event{{0, success(300 * ms)}, {0, success(20 * ms)}}, 0, 300},
		"it fades by time":                {[]event{{0, success(300 * ms)}}, 10 * time.Second, 300 / math.E},
		"no faster with samples below":    {[]event{{0, success(300 * ms)}, {5 * time.Second, success(ms)}, {9 * time.Second, success(ms)}}, 10 * time.Second, 300 / math.E},
		"down to the samples":             {[]event{{0, success(300 * ms)}, {30 * time.Second, success(200 * ms)}}, 30 * time.Second, 200},
		"a sample unknown to the ms":      {[]event{{0, success(40 * ms)}, {ms, success(time.Microsecond)}}, ms, fade(40, ms)},
		"success without a first byte":    {[]event{{0, success(40 * ms)}, {0, Result{Outcome: Success, Age: time.Minute}}}, 0, 40},
		"a fast failure lowers nothing":   {[]event{{0, success(40 * ms)}, {0, failure(ms)}}, 0, 40},
		"nor does it to an unknown":       {[]event{{0, failure(ms)}}, 0, 1000},
		"a time-out is a sample":          {[]event{{0, success(40 * ms)}, {0, failure(30 * time.Second)}}, 0, 30000},
		"also the first":                  {[]event{{0, failure(30 * time.Second)}}, 0, 30000},
		"failing is not getting better":   {[]event{{0, success(40 * ms)}, {20 * time.Second, failure(ms)}}, 20 * time.Second, 40},
		"nor is it to an unknown, again":  {[]event{{0, failure(ms)}, {20 * time.Second, failure(ms)}}, 20 * time.Second, 1000},
		"nor is refusing":                 {[]event{{0, success(40 * ms)}, {20 * time.Second, Result{Outcome: Drop, FirstByte: ms}}}, 20 * time.Second, 40},
		"a failure with an answer's time": {[]event{{0, success(40 * ms)}, {0, Result{Outcome: Failure, FirstByte: 90 * ms, Age: time.Hour}}}, 0, 90},
		"a client that left waited":       {[]event{{0, success(40 * ms)}, {0, Result{Outcome: Ignore, Age: 700 * ms}}}, 0, 700},
		"or sent slowly":                  {[]event{{0, success(40 * ms)}, {0, Result{Outcome: Ignore, Age: time.Hour}}}, 0, 1000},
		"or read slowly":                  {[]event{{0, success(40 * ms)}, {0, Result{Outcome: Ignore, FirstByte: 50 * ms, Age: time.Hour}}}, 0, 50},
		"or left at once":                 {[]event{{0, success(40 * ms)}, {5 * time.Second, Result{Outcome: Ignore, Age: ms}}}, 10 * time.Second, 40 / math.E},
		"the order of ends":               {[]event{{5 * ms, success(40 * ms)}, {0, success(50 * ms)}}, 0, 50},
		"read from just before":           {[]event{{5 * ms, success(40 * ms)}}, 0, 40},
	} {
		e := fleet(1)[0]
		p := peakPolicy(t, 10*time.Second, time.Second)
		k := p.Build([]*Endpoint{e}).(*peakEWMAPicker)
		for _, v := range c.events {
			k.Done(e, now+v.at, k.Sent(e, now), v.r)
		}
		if got := e.mind.peak.at(now+c.read, &p.cfg); math.Abs(got/c.want-1) > 1e-5 {
			t.Errorf("%s: %.3f ms, want %.3f", name, got, c.want)
		}
	}
}

// TestPeakClock: the stamp is 32 bits of milliseconds, and a sample at 0 is one.
func TestPeakClock(t *testing.T) {
	c := PeakEWMAConfig{Decay: 10 * time.Second, Unknown: time.Second}
	var p peak
	wrap := (1 << 32) * ms
	p.answered(wrap-5*time.Second, 100*ms, &c)
	if got := p.at(wrap+5*time.Second, &c); math.Abs(got-100/math.E) > 1e-3 {
		t.Errorf("over the wrap %v", got)
	}
	p = peak{}
	p.answered(0, 1, &c)
	if got := p.at(0, &c); got > 1e-5 || p.age(0) != 0 {
		t.Errorf("a sample of 1 ns reads %v ms, age %v", got, p.age(0))
	}
}

// TestPeakConcurrent: of two samples that race for one moment the higher stays.
func TestPeakConcurrent(t *testing.T) {
	const rounds = 20000
	c := DefaultPeakEWMAConfig()
	peaks := make([]peak, rounds)
	var arrived atomic.Int64
	var wg sync.WaitGroup
	for g := range 2 {
		wg.Go(func() {
			for i := range peaks {
				p := &peaks[i]
				p.answered(now, ms, &c)
				for arrived.Add(1); arrived.Load() < int64(2*i+2); {
					runtime.Gosched()
				}
				for range g * (i % 64) { // who arrives last has a start: of many lengths, some fit
					arrived.Load()
				}
				p.answered(now, time.Duration(10+(i+g)%2)*ms, &c)
			}
		})
	}
	wg.Wait()
	for i := range peaks {
		if got := peaks[i].at(now, &c); got != 11 {
			t.Fatalf("round %d: the higher of 10 and 11 ms reads %v", i, got)
		}
	}
}

// TestPeakCost: which of two wins, by latency, what is in flight and weight.
func TestPeakCost(t *testing.T) {
	for name, c := range map[string]struct {
		peak   [2]time.Duration // 0: unknown, which is 1 s
		n, w   [2]int
		winner int // -1: a tie
	}{
		"idle, the faster":           {[2]time.Duration{20 * ms, 21 * ms}, [2]int{}, [2]int{1, 1}, 0},
		"idle, the faster, smaller":  {[2]time.Duration{20 * ms, 21 * ms}, [2]int{}, [2]int{1, 50}, 0},
		"idle and equal":             {[2]time.Duration{20 * ms, 20 * ms}, [2]int{}, [2]int{1, 3}, -1},
		"equal per weight":           {[2]time.Duration{20 * ms, 20 * ms}, [2]int{2, 6}, [2]int{1, 3}, -1},
		"busier per weight":          {[2]time.Duration{20 * ms, 20 * ms}, [2]int{2, 5}, [2]int{1, 3}, 1},
		"as (n+1): 4*20 and 1*81":    {[2]time.Duration{20 * ms, 81 * ms}, [2]int{3, 0}, [2]int{1, 1}, 0},
		"as (n+1): 4*20 and 1*79":    {[2]time.Duration{20 * ms, 79 * ms}, [2]int{3, 0}, [2]int{1, 1}, 1},
		"unknown is not the best":    {[2]time.Duration{0, 900 * ms}, [2]int{}, [2]int{1, 1}, 1},
		"nor the worst":              {[2]time.Duration{0, 1100 * ms}, [2]int{}, [2]int{1, 1}, 0},
		"unknown, and busy known":    {[2]time.Duration{0, 20 * ms}, [2]int{0, 60}, [2]int{1, 1}, 0},
		"two unknown, by in-flight":  {[2]time.Duration{}, [2]int{3, 2}, [2]int{1, 1}, 1},
		"two unknown, nothing known": {[2]time.Duration{}, [2]int{}, [2]int{2, 1}, -1},
	} {
		eps := fleet(c.w[0], c.w[1])
		p := peakPolicy(t, 10*time.Second, time.Second)
		for i, e := range eps {
			hold(e, c.n[i])
			if c.peak[i] > 0 {
				e.mind.peak.answered(now, c.peak[i], &p.cfg)
			}
		}
		got := count(t, p.Build(eps), eps, 2000, Request{Now: now})
		switch {
		case c.winner < 0:
			fits(t, name, got, sharesOf(eps))
		case got[c.winner] != 2000:
			t.Errorf("%s: picks %v", name, got)
		}
	}
}

// TestPeakUnknownIsTried: one that nothing is known of sinks until it is tried,
// from when it was first looked at, so no endpoint is left out for ever.
func TestPeakUnknownIsTried(t *testing.T) {
	eps := equal(2)
	p := peakPolicy(t, 10*time.Second, time.Second)
	k := p.Build(eps)
	tick := func(at time.Duration) *Endpoint {
		h, _ := acquire(k, Request{Now: at})
		h.end(k, at+20*ms, success(20*ms))
		return h.ep
	}
	eps[0].mind.peak.answered(now, 20*ms, &p.cfg)
	for at := now; at < now+38*time.Second; at += time.Second {
		if tick(at) == eps[1] {
			t.Fatalf("tried after %v, when it was still the worse", at-now)
		}
	}
	for at := now + 38*time.Second; tick(at) != eps[1]; at += time.Second {
		if at > now+42*time.Second { // 1000 ms exp(-4.2) is 15 ms
			t.Fatal("not tried when it had become the better")
		}
	}
}

// fleetInTime runs requests that come every gap against endpoints that take the
// given times, in virtual time, and returns what each got.
func fleetInTime(k Picker, eps []*Endpoint, gap time.Duration, n int, answer func(e *Endpoint, at time.Duration) Result) []int {
	type end struct {
		at time.Duration
		h  held
		r  Result
	}
	got := make([]int, len(eps))
	var open []end
	at := now
	for range n {
		at += gap
		open = slices.DeleteFunc(open, func(x end) bool {
			if x.at > at {
				return false
			}
			x.h.end(k, x.at, x.r)
			return true
		})
		if h, ok := acquire(k, Request{Now: at}); ok {
			got[slices.Index(eps, h.ep)]++
			r := answer(h.ep, at)
			open = append(open, end{at + max(r.Age, r.FirstByte), h, r})
		}
	}
	return got
}

// TestPeakAvoidsSlow: one of ten that is ten times as slow gets far less than
// by requests in flight alone, and less than a 50th of the rest's mean.
func TestPeakAvoidsSlow(t *testing.T) {
	run := func(name string) []int {
		eps := equal(10)
		return fleetInTime(build(policy(t, name, seeded(4)), eps), eps, 2*ms, 20000, func(e *Endpoint, _ time.Duration) Result {
			if e == eps[3] {
				return success(200 * ms)
			}
			return success(20 * ms)
		})
	}
	peak, p2c := run("peak_ewma"), run("p2c")
	if peak[3]*50 > 20000/10 || peak[3]*4 > p2c[3] || peak[3] == 0 {
		t.Errorf("the slow one got %d of 20000, by p2c %d", peak[3], p2c[3])
	}
}

// TestPeakRecovers: an endpoint that was slow for a moment has its share again
// when the peak is forgotten, and not at once.
func TestPeakRecovers(t *testing.T) {
	eps := equal(4)
	var all, its [20]int // in each second
	fleetInTime(peakPolicy(t, time.Second, time.Second).Build(eps), eps, 5*ms, 4000, func(e *Endpoint, at time.Duration) Result {
		second := int((at - now - 1) / time.Second)
		all[second]++
		if e != eps[0] {
			return success(20 * ms)
		}
		its[second]++
		if second == 4 {
			return success(500 * ms)
		}
		return success(20 * ms)
	})
	for second, n := range its {
		share := float64(n) / float64(all[second])
		switch {
		case second == 5 && share > 0.1, second >= 10 && math.Abs(share-0.25) > 0.1:
			t.Errorf("second %d: a share of %.2f", second, share)
		}
	}
}

// TestPeakFailingFast: one of ten that fails within a millisecond gets no more
// than its even share and a half, however long it goes on.
func TestPeakFailingFast(t *testing.T) {
	eps := equal(10)
	k := peakPolicy(t, time.Second, time.Second).Build(eps)
	got := fleetInTime(k, eps, 10*ms, 30000, func(e *Endpoint, at time.Duration) Result {
		if e == eps[3] && at > now+10*time.Second {
			return Result{Outcome: Failure, Age: ms}
		}
		return success(20 * ms)
	})
	if got[3] > 30000/10*3/2 {
		t.Errorf("the failing one got %d of 30000: %v", got[3], got)
	}
}

func TestPeakExplain(t *testing.T) {
	eps := fleet(1, 3)
	p := peakPolicy(t, 10*time.Second, time.Second)
	k := p.Build(eps)
	eps[1].mind.peak.answered(now-10*time.Second, 200*ms, &p.cfg)
	hold(eps[1], 6)
	x := k.Explain(Request{Now: now})
	if !strings.Contains(x.Rule, "two choices") || len(x.Candidates) != 2 {
		t.Fatalf("%+v", x)
	}
	for i, want := range []map[string]float64{
		{"in_flight": 0, "weight": 1, "peak_ms": 2 * 200 / math.E, "peak_age_s": Absent, "score": 2 * 200 / math.E},
		{"in_flight": 6, "weight": 3, "peak_ms": 200 / math.E, "peak_age_s": 10, "score": 200 / math.E * (1 + 6*2/3)},
	} {
		got := map[string]float64{"score": x.Candidates[i].Score}
		for _, term := range x.Candidates[i].Terms {
			got[term.Name] = term.Value
		}
		for name, v := range want {
			if g, ok := got[name]; !ok || math.Abs(g-v) > 1e-3 {
				t.Errorf("candidate %d: %s is %v, want %v", i, name, g, v)
			}
		}
	}
}

// TestPeakNewcomer: one without a sample neither wins every pick nor starves
// beside endpoints that are much faster than Unknown.
func TestPeakNewcomer(t *testing.T) {
	eps := equal(2)
	p := peakPolicy(t, 10*time.Second, time.Second)
	k := p.Build(eps)
	eps[0].mind.peak.answered(now, ms, &p.cfg)
	if e, _ := k.Pick(Request{Now: now}); e != eps[0] {
		t.Error("it wins against an idle endpoint that is known to be fast")
	}
	hold(eps[0], 2)
	if e, _ := k.Pick(Request{Now: now}); e != eps[1] {
		t.Error("it is not tried beside a busy endpoint")
	}
	eps[0].mind.peak.answered(now, 10*time.Second, &p.cfg)
	around(t, "peak_ms beside a very slow one", k.Explain(Request{Now: now}).Candidates[1].Terms[2].Value, 1000, 1)
}

// TestPeakDoneDoesNotAllocate: it is called for every request.
func TestPeakDoneDoesNotAllocate(t *testing.T) {
	eps := equal(2)
	k := peakPolicy(t, time.Second, time.Second).Build(eps).(Observer)
	at := now
	for _, o := range []Outcome{Success, Failure, Drop, Ignore} {
		if a := testing.AllocsPerRun(50, func() {
			at += ms
			k.Done(eps[0], at, k.Sent(eps[0], at), Result{Outcome: o, FirstByte: at % 7777, Age: ms})
		}); a != 0 {
			t.Errorf("%v: %v allocations", o, a)
		}
	}
}

func BenchmarkPeakDone(b *testing.B) {
	eps := equal(10)
	k := peakPolicy(b, 10*time.Second, time.Second).Build(eps).(Observer)
	b.ReportAllocs()
	at := now
	for i := 0; b.Loop(); i++ {
		at += 50 * time.Microsecond
		k.Done(eps[i%10], at, 0, success(time.Duration(1+i%20)*ms))
	}
}

// BenchmarkPeakPick is a pick among averages of different ages, so that none of
// its terms comes for free.
func BenchmarkPeakPick(b *testing.B) {
	eps := busyFleet(10000)
	p := peakPolicy(b, 10*time.Second, time.Second)
	for i, e := range eps {
		e.mind.peak.answered(now-time.Duration(i%5000)*ms, time.Duration(1+i%50)*ms, &p.cfg)
	}
	k := p.Build(eps)
	b.ReportAllocs()
	for b.Loop() {
		k.Pick(Request{Now: now})
	}
}

// TestPeakForgotten: what was learnt sinks out of sight in hours of idleness, and
// in-flight counts all the same.
func TestPeakForgotten(t *testing.T) {
	for _, idle := range []time.Duration{3 * time.Hour, 400 * time.Hour} {
		eps := equal(2)
		k := build(policy(t, "peak_ewma", seeded(1)), eps)
		for _, e := range eps {
			k.(Observer).Done(e, now, 0, Result{Outcome: Success, FirstByte: 10 * time.Millisecond})
		}
		hold(eps[0], 50)
		if got := count(t, k, eps, 200, Request{Now: now + idle}); got[0] != 0 {
			t.Errorf("after %v: picks %v, want none of the busy one", idle, got)
		}
	}
}
