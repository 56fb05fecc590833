package sim

import (
	"math"
	"slices"
	"testing"
	"time"
)

// near fails unless got is within the share tolerance of want.
func near(t *testing.T, what string, got, want, tolerance float64) {
	t.Helper()
	if !(math.Abs(got-want) <= tolerance*math.Abs(want)) {
		t.Errorf("%s is %.5g, want %.5g within %.1f %%", what, got, want, 100*tolerance)
	}
}

// TestWork holds mean and median of every distribution against their formulas.
func TestWork(t *testing.T) {
	const n = 400000
	const mean = 0.02
	for _, c := range []struct {
		w         Work
		median    float64
		tolerance float64 // of the mean
	}{
		{Work{Distribution: LogNormal, Shape: 1}, mean * math.Exp(-0.5), 0.02},
		{Work{Distribution: LogNormal, Shape: 0}, mean, 1e-9},
		{Work{Distribution: Exponential}, mean * math.Ln2, 0.02},
		{Work{Distribution: Pareto, Shape: 2.5}, mean * 1.5 / 2.5 * math.Pow(2, 1/2.5), 0.03},
		{Work{Distribution: Fixed}, mean, 1e-9},
	} {
		c.w.Mean = 20 * time.Millisecond
		r := stream(7, 7)
		x := make([]float64, n)
		sum := 0.0
		for i := range x {
			x[i] = c.w.draw(r)
			sum += x[i]
			if !(x[i] > 0) {
				t.Fatalf("%v: work of %v", c.w, x[i])
			}
		}
		slices.Sort(x)
		near(t, c.w.Distribution.String()+": the mean", sum/n, mean, c.tolerance)
		near(t, c.w.Distribution.String()+": the median", x[n/2], c.median, 0.01)
		if d, err := ParseDistribution(c.w.Distribution.String()); err != nil || d != c.w.Distribution {
			t.Errorf("%v is read as %v, %v", c.w.Distribution, d, err)
		}
	}
	if _, err := ParseDistribution("zipf"); err == nil {
		t.Error("an unknown distribution is accepted")
	}
}

// TestArrivals holds the numbers in each part of a load with surges against the
// rate there, and the spread of the numbers in equal times against Poisson's.
func TestArrivals(t *testing.T) {
	c := Default()
	c.Load = Load{Rate: 1000, Surges: []Surge{
		{From: 10 * time.Second, For: 5 * time.Second, Factor: 3},
		{From: 20 * time.Second, For: 5 * time.Second, Factor: 0},
		{From: 30 * time.Second, For: 20 * time.Second, Factor: 0.1},
		{From: 40 * time.Second, For: 5 * time.Second, Factor: 2}, // the later one counts
	}}
	p := newPoisson(&c)
	var got [50]float64
	last := time.Duration(0)
	for {
		at, ok := p.next()
		if !ok {
			t.Fatal("arrivals ended")
		}
		if at < last {
			t.Fatalf("an arrival at %v after one at %v", at, last)
		}
		if last = at; at >= 50*time.Second {
			break
		}
		got[at/time.Second]++
	}
	for i, n := range got {
		want := c.Rate(time.Duration(i) * time.Second)
		if math.Abs(n-want) > 5*math.Sqrt(want) {
			t.Errorf("second %d: %v arrivals, want %v", i, n, want)
		}
	}
	c.Load = Load{Rate: 1000}
	p = newPoisson(&c)
	var sum, squares float64
	const slots = 20000
	counts := make([]float64, slots)
	for {
		at, _ := p.next()
		if i := int(at / (10 * time.Millisecond)); i < slots {
			counts[i]++
		} else {
			break
		}
	}
	for _, n := range counts {
		sum += n
		squares += n * n
	}
	mean := sum / slots
	near(t, "variance over mean", (squares/slots-mean*mean)/mean, 1, 0.05)
	c.Load.Surges = []Surge{{From: time.Second, For: time.Hour, Factor: 0}, {From: time.Hour, For: 1, Factor: 0}}
	c.Load.Surges = append(c.Load.Surges, Surge{From: 0, For: 48 * time.Hour, Factor: 0})
	p = newPoisson(&c)
	if at, ok := p.next(); ok && at < 48*time.Hour {
		t.Errorf("an arrival at %v, when there is none", at)
	}
}
