package main

import (
	"math"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"
	"time"
)

func TestBurstsAreAsLongAndAsStrongAsTheModelSays(t *testing.T) {
	const life = 100 * time.Hour
	all := bursts(rand.New(rand.NewPCG(1, 2)), groups+1, life)[groups]
	var last, on time.Duration
	for _, b := range all {
		if b.from < last || b.to < b.from || b.to > life || b.share < stealLeast || b.share > stealMost {
			t.Fatalf("burst %+v after %v", b, last)
		}
		last, on = b.to, on+b.to-b.from
	}
	const want = 1.0 / groups
	if got := on.Seconds() / life.Seconds(); math.Abs(got-want) > 0.01 {
		t.Errorf("a neighbour is busy %.3f of the time, want %.3f", got, want)
	}
	if got := stolen(all, 0, life); math.Abs(got-want*probeSteal) > 0.01 {
		t.Errorf("it takes %.3f of its machine, want %.3f", got, want*probeSteal)
	}
}

func TestStolenCountsWhatLiesWithin(t *testing.T) {
	all := []burst{{0, 2 * time.Second, 0.5}, {3 * time.Second, 9 * time.Second, 0.25}}
	for _, c := range []struct {
		from, to time.Duration
		want     float64
	}{
		{0, 2 * time.Second, 0.5},
		{time.Second, 5 * time.Second, (0.5 + 2*0.25) / 4},
		{2 * time.Second, 3 * time.Second, 0},
		{8 * time.Second, 10 * time.Second, 0.125},
	} {
		if got := stolen(all, c.from, c.to); math.Abs(got-c.want) > 1e-9 {
			t.Errorf("from %v to %v: %v, want %v", c.from, c.to, got, c.want)
		}
	}
}

func TestWorkIsLognormal(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	const n = 200_000
	var all []int
	var sum, logs, squares float64
	for range n {
		w := lognormal(r)
		all = append(all, w)
		l := math.Log(float64(w))
		sum, logs, squares = sum+float64(w), logs+l, squares+l*l
	}
	if mean := sum / n; math.Abs(mean-meanWork) > 0.02*meanWork {
		t.Errorf("mean %.0f, want %d", mean, meanWork)
	}
	if sigma := math.Sqrt(squares/n - logs*logs/n/n); math.Abs(sigma-workSigma) > 0.02 {
		t.Errorf("sigma %.3f, want %d", sigma, workSigma)
	}
	if slices.Min(all) < 1 || slices.Max(all) > maxWork {
		t.Errorf("%d to %d units", slices.Min(all), slices.Max(all))
	}
}

func TestArrivals(t *testing.T) {
	const rate, length = 500.0, 200 * time.Second
	all := arrivals(rand.New(rand.NewPCG(5, 6)), rate, length)
	if got, want := float64(len(all)), rate*length.Seconds(); math.Abs(got-want) > 5*math.Sqrt(want) {
		t.Errorf("%v arrivals, want %v", got, want)
	}
	if !slices.IsSortedFunc(all, func(a, b arrival) int { return int(a.due - b.due) }) || all[len(all)-1].due >= length {
		t.Error("arrivals are not in order or too late")
	}
	var of [fleetClients]int
	var gaps, squares float64
	for i, a := range all {
		of[a.client]++
		if i > 0 {
			gap := (a.due - all[i-1].due).Seconds()
			gaps, squares = gaps+gap, squares+gap*gap
		}
	}
	for i, n := range of {
		if want := float64(len(all)) / fleetClients; math.Abs(float64(n)-want) > 5*math.Sqrt(want) {
			t.Errorf("client %d has %d of %d", i, n, len(all))
		}
	}
	// Of exponential gaps the mean square is twice the square of the mean.
	n := float64(len(all) - 1)
	if ratio := squares / n / (gaps / n * gaps / n); math.Abs(ratio-2) > 0.1 {
		t.Errorf("gaps are not exponential: %.2f", ratio)
	}
}

func TestScenesRepeatAndAreSteady(t *testing.T) {
	const warm, run = 5 * time.Second, 15 * time.Second
	a, b := newScene(7, fleetCores(), warm, run), newScene(7, fleetCores(), warm, run)
	if !reflect.DeepEqual(a, b) || !reflect.DeepEqual(a.arrivals(300), b.arrivals(300)) {
		t.Error("one seed made two scenes")
	}
	if c := newScene(8, fleetCores(), warm, run); reflect.DeepEqual(a.bursts, c.bursts) || reflect.DeepEqual(a.arrivals(300), c.arrivals(300)) {
		t.Error("two seeds made one scene")
	}
	var total float64
	for _, c := range fleetCores() {
		total += c
	}
	for at := time.Duration(0); at+time.Second <= warm+run; at += time.Second / 4 {
		var sum float64
		for i, c := range fleetCores() {
			sum += c * stolen(a.bursts[i], at, at+time.Second) / total
		}
		if sum < stealLeast/groups-1e-9 || sum > stealMost/groups+1e-9 {
			t.Errorf("at %v neighbours take %.3f of the fleet", at, sum)
		}
	}
	noisy := 0
	for i, all := range a.bursts {
		if a.stolen[i] != stolen(all, warm, warm+run) {
			t.Errorf("machine %d: stolen is %v", i, a.stolen[i])
		}
		if len(all) > 0 {
			noisy++
		}
	}
	if noisy < len(fleetCores()) {
		t.Errorf("only %d of %d machines ever have noise", noisy, len(fleetCores()))
	}
}

func TestRateIsOfWhatNeighboursLeave(t *testing.T) {
	of := []capacity{{calm: 100 * meanWork, noisy: 60 * meanWork}, {calm: 200 * meanWork, noisy: 200 * meanWork}}
	s := scene{stolen: []float64{probeSteal / 2, probeSteal}}
	if got, want := s.rate(of, 0.5), 0.5*(80+200); math.Abs(got-want) > 1e-9 {
		t.Errorf("%v requests per second, want %v", got, want)
	}
	if got := (capacity{calm: 1, noisy: 0}).left(1); got != 0 {
		t.Errorf("less than nothing is left: %v", got)
	}
}

func TestProcessorsAndGroupsCarryAsMuch(t *testing.T) {
	var sum [2]float64
	var group [groups]float64
	for i, c := range fleetCores() {
		sum[i%2] += c
		group[i%groups] += c
	}
	for _, g := range group {
		if math.Abs(g-group[0]) > 1e-9 {
			t.Errorf("groups of %v cores", group)
		}
	}
	if math.Abs(sum[0]-sum[1]) > 1e-9 || sum[0] > 0.75 { // the rest is for proxies, agents and load
		t.Errorf("quotas of %v cores", sum)
	}
}
