package agentstats

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"
)

// model is a backend with processor sharing, as in the simulator: requests work w of
// each second on the CPU, at most cores at once, and sleep the rest.
type model struct{ cores, work float64 }

// window is what an agent measures over a window with n requests in flight.
func (m model) window(n float64) (used, avail float64) {
	return min(n*m.work, m.cores), m.cores
}

func TestConcOfKnownBackends(t *testing.T) {
	for name, c := range map[string]struct {
		m    model
		most float64 // in flight
		want float64
	}{
		"every request burns":         {model{2, 1}, 1.5, 2},
		"a fifth of the time burning": {model{2, 0.2}, 7, 10},
		"sleepers":                    {model{1, 0.01}, 60, 100},
		"hardly any CPU: the bound":   {model{4, 0.0001}, 500, 800},
		"half a core, throttled":      {model{0.5, 0.5}, 0.7, 1},
	} {
		var e concEstimator
		chance := rand.New(rand.NewPCG(1, 2))
		now := time.Unix(1e9, 0)
		if _, ok := e.value(5, 0); ok {
			t.Errorf("%s: an estimate out of nothing", name)
		}
		for range 400 {
			now = now.Add(span)
			n := chance.Float64() * c.most
			used, avail := c.m.window(n)
			e.observe(now, used, avail, n, 0)
		}
		if got, ok := e.value(3, 0); !ok || math.Abs(got-c.want) > 1e-6*c.want {
			t.Errorf("%s: got %v, %v, want %v", name, got, ok, c.want)
		}
	}
}

// TestConcIgnoresFullWindows: a queue makes requests look as if they needed little.
func TestConcIgnoresFullWindows(t *testing.T) {
	var e concEstimator
	now := time.Unix(1e9, 0)
	step := func(used, avail, inFlight, queue float64) {
		now = now.Add(span)
		e.observe(now, used, avail, inFlight, queue)
	}
	step(1.6, 2, 1000, 0) // exactly full
	step(0, 2, 0, 0)
	step(0.05, 2, 0, 0) // a collector's run between requests
	if _, ok := e.value(1, 0); ok {
		t.Error("an estimate from windows that tell nothing")
	}
	step(1, 2, 2, 0)
	for range 100 {
		step(2, 2, 400, 0)
	}
	if got, _ := e.value(400, 0); got != 4 {
		t.Errorf("got %v, want 4: full windows moved it", got)
	}
	// avail is of the last window, whatever it was.
	step(0.9, 1, 40, 0)
	if got, _ := e.value(40, 0); got != 2 {
		t.Errorf("got %v, want 2 while a neighbour takes half", got)
	}
	// Connections pile up unaccepted: what is in there already is what it sustains.
	step(1, 1, 40, 0.6)
	if got, _ := e.value(1.5, 1); got != 0.5 {
		t.Errorf("with a queue got %v, want 0.5", got)
	}
	if got, _ := e.value(1, 3); got != 0 {
		t.Errorf("with more queued than in flight got %v, want 0", got)
	}
	step(1, 1, 40, 0.5)
	if got, _ := e.value(1.5, 1); got != 2 {
		t.Errorf("with a short queue got %v, want 2", got)
	}
	e.reset()
	if _, ok := e.value(1, 0); ok {
		t.Error("an estimate of the next life")
	}
}

// TestConcMemory: after ten seconds of another kind of request, 1 - 1/e of the sums is
// of those, as in the simulator.
func TestConcMemory(t *testing.T) {
	var e concEstimator
	now := time.Unix(1e9, 0)
	for range 4000 {
		now = now.Add(span)
		e.observe(now, 0.5, 2, 1, 0) // phi 0.5
	}
	for range int(phiMemory / span) {
		now = now.Add(span)
		e.observe(now, 0.5, 2, 5, 0) // phi 0.1
	}
	keep := math.Exp(-1)
	want := 2 / (0.5 / (1*keep + 5*(1-keep)))
	if got, _ := e.value(1, 0); math.Abs(got-want) > 1e-6 {
		t.Errorf("got %v, want %v", got, want)
	}
	// A day without figures counts as ten seconds, not as for ever.
	now = now.Add(24 * time.Hour)
	e.observe(now, 0.5, 2, 1, 0)
	before := 1*keep + 5*(1-keep)
	want = 2 / (0.5 / (before*keep + 1*(1-keep)))
	if got, _ := e.value(1, 0); math.Abs(got-want) > 1e-6 {
		t.Errorf("after a gap got %v, want %v", got, want)
	}
}

func TestConcRefusesNonsense(t *testing.T) {
	var e concEstimator
	now := time.Unix(1e9, 0)
	e.observe(now, 0.5, 2, 1, 0)
	want, _ := e.value(1, 0)
	for _, v := range []float64{math.NaN(), math.Inf(1), -1} {
		now = now.Add(span)
		e.observe(now, v, 2, 1, 0)
		e.observe(now, 0.5, v, 1, 0)
		e.observe(now, 0.5, 2, v, 0)
		e.observe(now, 0.5, 2, 1, v)
	}
	e.observe(now.Add(-time.Hour), 0.1, 2, 1, 0) // a clock that goes back
	if got, ok := e.value(1, 0); !ok || got != want {
		t.Errorf("got %v, %v, want %v", got, ok, want)
	}
}

func TestMeanGauge(t *testing.T) {
	var g meanGauge
	at := func(n int) time.Time { return time.Unix(1e9, 0).Add(time.Duration(n) * ms) }
	check := func(what string, now int, want float64, known bool) {
		t.Helper()
		got, ok := g.take(at(now))
		if ok != known || math.Abs(got-want) > 1e-9 {
			t.Errorf("%s: got %v, %v, want %v, %v", what, got, ok, want, known)
		}
	}
	check("nothing sampled", 0, 0, false)
	g.add(at(0), 4)
	check("one sample", 0, 4, true)
	g.add(at(100), 4)
	g.add(at(200), 8)
	g.add(at(250), 8)
	check("4 for 100 ms, rising to 8 over 100 ms, 8 for 50 ms", 250, (400+600+400)/250., true)
	// Samples crowd: their number must not count, only their time.
	g.add(at(251), 0)
	for range 100 {
		g.add(at(252), 0)
	}
	g.add(at(500), 0)
	check("8 falling to 0 within 1 ms", 500, 4./250, true)
	g.add(at(400), 1e6) // older than the last
	g.add(at(750), math.NaN())
	g.add(at(750), -1)
	check("nothing usable in the window", 750, 0, false)
	g.add(at(900), 3)
	check("after a gap only what was seen counts", 1000, 3, true)
	g.add(at(1100), 3)
	g.add(at(1200), 3)
	check("a caller that read the clock before it looked", 1150, 3, true)
	g.add(at(1300), 3)
	check("and the window after it", 1300, 3, true)
	g.add(at(1400), 5)
	g.reset()
	check("after a reset", 1450, 0, false)
}
