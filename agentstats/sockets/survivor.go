package sockets

import "math/bits"

// survivor learns how probable it is that a time lasts longer than some age, as a
// histogram in steps of a quarter of an octave from 1 ms to 4.6 hours.
type survivor struct {
	whole, part [buckets]float64 // times that ended, and times still running
	wholes      float64
	parts       float64
}

const buckets = 96

func (s *survivor) add(ms uint32, ended bool, weight float64) {
	h, n := &s.part, &s.parts
	if ended {
		h, n = &s.whole, &s.wholes
	}
	h[bucket(ms)] += weight
	if *n += weight; *n > oddsMemory {
		*n = 0
		for i := range h {
			h[i] /= 2
			*n += h[i]
		}
	}
}

// survival is the probability that a time lasts longer than ms, by Kaplan and Meier (1958):
// a time still running counts up to where it was seen. One time beforehand lasts longer
// with the probability given.
func (s *survivor) survival(ms uint32, beforehand float64) float64 {
	share, known, b := 1.0, s.wholes, bucket(ms)
	var risk float64 // times that were running in this step
	for i := buckets - 1; i >= 0; i-- {
		ended := s.whole[i]
		risk += ended + s.part[i]
		switch {
		case i > b:
			known += s.part[i]
			continue
		case ended == 0:
			continue
		case i == b:
			ended /= 2 // somewhere in this step
		}
		share *= 1 - ended/risk
	}
	return (share*known + beforehand) / (known + 1)
}

func bucket(ms uint32) int {
	if ms < 4 {
		return int(ms)
	}
	octave := bits.Len32(ms) - 1
	return min(4*(octave-1)+int(ms>>(octave-2))&3, buckets-1)
}
