package agentstats

import (
	"math"
	"testing"
	"time"
)

const ms = time.Millisecond

func TestWindow(t *testing.T) {
	var w window
	if _, ok := w.push(counters{at: 0, used: 5 * time.Second, idle: time.Second, levels: [maxLevels]time.Duration{0, -1}}); ok {
		t.Fatal("rates from one reading")
	}
	if _, ok := w.push(counters{at: 100 * ms, used: 5*time.Second + 100*ms, levels: [maxLevels]time.Duration{0, -1}}); ok {
		t.Fatal("rates over less than the span")
	}
	// A timer that fired 10 ms early still gives the whole window.
	r, ok := w.push(counters{at: 240 * ms, used: 5*time.Second + 120*ms, idle: time.Second + 60*ms, levels: [maxLevels]time.Duration{240 * ms, 3}})
	if !ok || r.used != 0.5 || r.idle != 0.25 || r.levels[0] != 1 || !math.IsNaN(r.levels[1]) {
		t.Errorf("got %+v, %v", r, ok)
	}
	// From here the base moves on: the youngest old enough (100 ms), not the oldest.
	r, ok = w.push(counters{at: 350 * ms, used: 5*time.Second + 350*ms, idle: time.Second, levels: [maxLevels]time.Duration{0, 0}})
	if !ok || r.used != 1 {
		t.Errorf("got %+v, %v, want 250 ms used of 250 ms", r, ok)
	}
	if r.levels[0] != 0 || r.idle < 0 {
		t.Errorf("counters that go back must give 0, got %+v", r)
	}
	for i := range 1000 {
		w.push(counters{at: time.Duration(400+50*i) * ms, levels: [maxLevels]time.Duration{0, 0}})
	}
	if len(w.ring) > 8 {
		t.Errorf("the ring holds %d readings", len(w.ring))
	}
	w.reset()
	if _, ok := w.push(counters{at: 2 * time.Minute}); ok {
		t.Error("rates right after a reset")
	}
}

func TestCPUFigures(t *testing.T) {
	nan := math.NaN()
	for name, c := range map[string]struct {
		cpus                          int
		quotas                        []float64
		m                             rates
		wantCores, used, avail, share float64
	}{
		"alone on the host":       {4, nil, rates{used: 1, idle: 3}, 4, 1, 4, 0.25},
		"a neighbour takes two":   {4, nil, rates{used: 1, idle: 1}, 4, 1, 2, 0.25},
		"quota below the idle":    {4, []float64{1.5}, rates{used: 0.5, idle: 3.5, levels: [maxLevels]float64{0.5}}, 1.5, 0.5, 1.5, 0.3333},
		"the host's idle below":   {4, []float64{1.5}, rates{used: 0.5, idle: 0.5, levels: [maxLevels]float64{0.5}}, 1.5, 0.5, 1, 0.3333},
		"others share the quota":  {4, []float64{2}, rates{used: 0.5, idle: 3, levels: [maxLevels]float64{1.75}}, 2, 0.5, 0.75, 0.25},
		"quota shared, uncounted": {4, []float64{2}, rates{used: 0.5, idle: 3, levels: [maxLevels]float64{nan}}, 2, 0.5, 2, 0.25},
		"tightest of two levels":  {8, []float64{4, 2}, rates{used: 1, idle: 7, levels: [maxLevels]float64{1, 1.5}}, 2, 1, 1.5, 0.5},
		"others beyond the quota": {2, []float64{1}, rates{used: 0, idle: 2, levels: [maxLevels]float64{1.2}}, 1, 0, 0, 0},
		"overshoot":               {2, []float64{0.5}, rates{used: 0.6, idle: 1, levels: [maxLevels]float64{0.6}}, 0.5, 0.5, 0.5, 1},
		"rounding at the limit":   {2, []float64{1. / 3}, rates{used: 1. / 3, idle: 1, levels: [maxLevels]float64{1. / 3}}, 0.3333, 0.3333, 0.3333, 1},
	} {
		var r Report
		r.cpuFigures(c.cpus, c.quotas, &c.m)
		got := [4]float64{r.Cores.Or(-1), r.Used.Or(-1), r.Avail.Or(-1), r.CPU.Or(-1)}
		if want := [4]float64{c.wantCores, c.used, c.avail, c.share}; got != want {
			t.Errorf("%s: cores, used, avail, cpu = %v, want %v", name, got, want)
		}
		r.Version, r.At = Version, 1
		if _, err := Encode(r); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	var r Report
	r.cpuFigures(4, []float64{0.5}, nil)
	if r != (Report{Cores: Some(0.5)}) {
		t.Errorf("before the first window only cores is known, got %+v", r)
	}
}

func TestMemFigures(t *testing.T) {
	const mib = 1 << 20
	for name, c := range map[string]struct {
		own                   int64
		limits                []memLevel
		mem                   Opt[float64]
		wantBytes, tightestMB int64
	}{
		"host only":                    {100 * mib, []memLevel{{100 * mib, 1000 * mib}}, Some(0.1), 100 * mib, 1000},
		"own limit":                    {100 * mib, []memLevel{{100 * mib, 200 * mib}, {100 * mib, 1000 * mib}}, Some(0.5), 100 * mib, 200},
		"a shared limit nearer to OOM": {100 * mib, []memLevel{{100 * mib, 200 * mib}, {450 * mib, 500 * mib}}, Some(0.9), 100 * mib, 200},
		"above the limit":              {900 * mib, []memLevel{{900 * mib, 200 * mib}}, Some(2.0), 900 * mib, 200},
		"no limit known":               {100 * mib, nil, Opt[float64]{}, 100 * mib, 0},
	} {
		var r Report
		r.memFigures(c.own, c.limits)
		if r.Mem != c.mem || r.MemBytes != Some(c.wantBytes) || r.MemLimit.Or(0) != c.tightestMB*mib {
			t.Errorf("%s: got %+v", name, r)
		}
	}
}

func TestPollAsked(t *testing.T) {
	for conns, want := range map[int64]Opt[int64]{
		0: {}, 40: {}, 41: Some(int64(103)), 400: Some(int64(1000)), 4096: Some(int64(2000)),
	} {
		if got := pollAsked(conns); got != want {
			t.Errorf("%d sidecars: got %v, want %v", conns, got, want)
		}
	}
}
