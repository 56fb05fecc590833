package main

import (
	"math"
	"slices"
	"testing"
)

func TestMedian(t *testing.T) {
	for _, c := range []struct {
		xs   []float64
		want float64
	}{{[]float64{3}, 3}, {[]float64{5, 1, 3}, 3}, {[]float64{4, 1, 3, 2}, 2.5}, {[]float64{2, 2, 9, 2}, 2}} {
		in := slices.Clone(c.xs)
		if got := median(c.xs); got != c.want {
			t.Errorf("median of %v is %v, want %v", c.xs, got, c.want)
		}
		if !slices.Equal(in, c.xs) {
			t.Errorf("median has changed %v to %v", in, c.xs)
		}
	}
}

func TestPercentile(t *testing.T) {
	hundred := make([]int, 100)
	for i := range hundred {
		hundred[i] = i + 1
	}
	for _, c := range []struct {
		sorted []int
		p      float64
		want   int
	}{
		{nil, 50, 0}, {[]int{7}, 0, 7}, {[]int{7}, 50, 7}, {[]int{7}, 100, 7},
		{hundred, 0, 1}, {hundred, 1, 1}, {hundred, 50, 50}, {hundred, 99, 99}, {hundred, 99.5, 100}, {hundred, 100, 100},
		{[]int{1, 2, 3}, 50, 2}, {[]int{1, 2, 3, 4}, 50, 2}, {[]int{1, 2, 3, 4}, 51, 3},
	} {
		if got := percentile(c.sorted, c.p); got != c.want {
			t.Errorf("percentile %v of %d figures is %d, want %d", c.p, len(c.sorted), got, c.want)
		}
	}
}

func TestSpread(t *testing.T) {
	if got, want := spreadOf([]float64{3, 1, 2}), (spread{Median: 2, Min: 1, Max: 3, N: 3}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	if got := spreadOf(nil); got != (spread{}) {
		t.Errorf("of nothing: %+v", got)
	}
}

func TestRatio(t *testing.T) {
	for _, c := range []struct {
		ours   float64
		peers  []float64
		higher bool
		want   float64
		ok     bool
	}{
		{ours: 3, peers: []float64{2, 4}, want: 1.5, ok: true},
		{ours: 3, peers: []float64{2, 4}, higher: true, want: 0.75, ok: true},
		{ours: 0, peers: []float64{2}, want: 0, ok: true},
		{ours: -1, peers: []float64{2}, want: 0, ok: true},
		{ours: 3, peers: []float64{-1, 4}},
		{ours: 3, peers: []float64{0, 4}},
		{ours: 3},
		{ours: math.NaN(), peers: []float64{1}},
		{ours: 3, peers: []float64{math.NaN(), 1}},
	} {
		if got, ok := ratio(c.ours, c.peers, c.higher); got != c.want || ok != c.ok {
			t.Errorf("%+v: got %v, %v", c, got, ok)
		}
	}
}

func TestEachBeginsOnceInTurn(t *testing.T) {
	names := []string{"a", "b", "c"}
	for i, want := range [][]string{{"a", "b", "c"}, {"b", "c", "a"}, {"c", "a", "b"}, {"a", "b", "c"}} {
		if got := rotated(names, i); !slices.Equal(got, want) {
			t.Errorf("round %d: %v, want %v", i, got, want)
		}
	}
}
