package sim

import (
	"math"
	"slices"
	"time"

	"outrigger/sidecar/balance"
)

// fate is what becomes of a request.
type fate uint8

const (
	fateAnswered fate = iota
	fateTimedOut
	fateFailed
	fateTurned
	fates
)

// stats gathers what a Result tells.
type stats struct {
	from, until time.Duration // the measured time
	timeout     time.Duration
	measuring   bool
	began       bool
	closed      bool

	requests, pending int
	fates             [fates]int
	took              []time.Duration // of the answered
	tries             int
	shed              []int // by reason
	retries           int

	seconds []second
}

// second is one second of arrivals.
type second struct {
	arrived int
	fates   [fates]int
	hist    []uint32 // of the answered, by latency
	flying  float64
}

// The histogram of a second: classes 2 % wide from 0.1 ms on.
const (
	histFirst = 100 * time.Microsecond
	histWidth = 1.02
	histSize  = 1024 // up to 18 hours
)

func class(d time.Duration) int {
	if d <= histFirst {
		return 0
	}
	return min(histSize-1, int(math.Log(float64(d)/float64(histFirst))/math.Log(histWidth)))
}

// middle of a class.
func middle(class int) time.Duration {
	return time.Duration(float64(histFirst) * math.Pow(histWidth, float64(class)+0.5))
}

func (s *stats) init(c *Config) {
	s.from, s.until, s.timeout = c.Warm, c.Warm+c.Measured, c.Client.Timeout
	s.shed = make([]int, len(balance.Reasons()))
	s.took = make([]time.Duration, 0, int(min(c.Rate(c.Warm)*c.Measured.Seconds()*1.1, 1e7)))
	s.measuring = c.Warm == 0
}

// upTo goes on to the time at, before what happens then.
func (s *stats) upTo(f *fleet, at time.Duration) {
	if !s.began && at >= s.from {
		s.began, s.measuring = true, true
		for i := range f.machines {
			m := &f.machines[i]
			m.advance(s.from)
			m.measured = m.sum
		}
	}
	if !s.closed && at >= s.until {
		s.measuring, s.closed = false, true
		for i := range f.machines {
			m := &f.machines[i]
			m.advance(s.until)
			was := m.measured
			m.measured = m.sum
			m.measured.used -= was.used
			m.measured.avail -= was.avail
		}
	}
	for n := int(at / time.Second); len(s.seconds) <= n; {
		if k := len(s.seconds); k > 0 {
			for i := range f.machines {
				s.seconds[k-1].flying += float64(f.machines[i].inFlight())
			}
		}
		s.seconds = append(s.seconds, second{})
	}
}

// over reports whether all that is measured has come to its end before the
// time at.
func (s *stats) over(at time.Duration) bool { return at >= s.until && s.pending == 0 }

// of returns the second in which a request arrived.
func (s *stats) of(r *request) *second { return &s.seconds[r.born/time.Second] }

func (s *stats) asked(r *request) {
	s.of(r).arrived++
	if r.measured {
		s.tries++
	}
}

func (s *stats) turned(r *request, why balance.Reason) {
	s.of(r).fates[fateTurned]++
	if r.measured {
		s.shed[why]++
	}
}

func (s *stats) ended(r *request, how fate, took time.Duration) {
	x := s.of(r)
	if how != fateTurned { // counted already
		x.fates[how]++
	}
	if how == fateAnswered {
		if x.hist == nil {
			x.hist = make([]uint32, histSize)
		}
		x.hist[class(took)]++
	}
	if !r.measured {
		return
	}
	s.pending--
	s.fates[how]++
	if how == fateAnswered {
		s.took = append(s.took, took)
	}
}

// quantiles fills in how long requests took.
func (s *stats) quantiles(r *Result) {
	slices.Sort(s.took)
	late := s.fates[fateTimedOut]
	r.P50, r.P90 = quantile(s.took, late, 0.5), quantile(s.took, late, 0.9)
	r.P99, r.P999 = quantile(s.took, late, 0.99), quantile(s.took, late, 0.999)
	sum := time.Duration(0)
	for _, t := range s.took {
		sum += t
	}
	r.Mean = sum / time.Duration(max(1, len(s.took)))
}

// quantile is the value that a share q of the answered and of the late are at
// or below.
func quantile(sorted []time.Duration, late int, q float64) time.Duration {
	n := len(sorted) + late
	if n == 0 {
		return 0
	}
	i := max(0, int(math.Ceil(q*float64(n)))-1)
	if i >= len(sorted) {
		return Never
	}
	return sorted[i]
}

// quantile is the same over a second's classes.
func (x *second) quantile(q float64) time.Duration {
	n := x.fates[fateAnswered] + x.fates[fateTimedOut]
	if n == 0 {
		return 0
	}
	left := int(math.Ceil(q * float64(n)))
	for i, k := range x.hist {
		if left -= int(k); left <= 0 {
			return middle(i)
		}
	}
	return Never
}
