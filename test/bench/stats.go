package main

import (
	"math"
	"slices"
)

// spread is a set of figures in short.
type spread struct {
	Median float64 `json:"median"`
	Min    float64 `json:"min"`
	Max    float64 `json:"max"`
	N      int     `json:"n"` // how many figures there were; 0: the others mean nothing
}

func spreadOf(xs []float64) spread {
	if len(xs) == 0 {
		return spread{}
	}
	return spread{Median: median(xs), Min: slices.Min(xs), Max: slices.Max(xs), N: len(xs)}
}

// median is the middle figure, or the mean of the two in the middle. There
// must be at least one.
func median(xs []float64) float64 {
	s := slices.Sorted(slices.Values(xs))
	m := len(s) / 2
	if len(s)%2 == 1 {
		return s[m]
	}
	return (s[m-1] + s[m]) / 2
}

// percentile is the nearest-rank percentile, p in 0 to 100, of sorted figures:
// the smallest of them that at least p percent do not exceed. 0 of none.
func percentile[T any](sorted []T, p float64) (zero T) {
	if len(sorted) == 0 {
		return zero
	}
	rank := int(math.Ceil(p / 100 * float64(len(sorted))))
	return sorted[min(max(rank, 1), len(sorted))-1]
}

// ratio compares ours with the better of the peers. ok is false without peers
// or where the better one is not above zero, so that a ratio says nothing.
// Less than nothing, as noise may make of an added latency, is nothing.
func ratio(ours float64, peers []float64, higherIsBetter bool) (r float64, ok bool) {
	if len(peers) == 0 {
		return 0, false
	}
	best := slices.Min(peers)
	if higherIsBetter {
		best = slices.Max(peers)
	}
	if !(best > 0) || math.IsInf(best, 1) || math.IsNaN(ours) {
		return 0, false
	}
	return max(ours, 0) / best, true
}

// rotated are the names in the order of a round: each begins once in turn.
func rotated[T any](names []T, round int) []T {
	k := round % len(names)
	return append(slices.Clone(names[k:]), names[:k]...)
}
