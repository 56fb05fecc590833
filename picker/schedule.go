package picker

import "slices"

// schedule is a cycle of turns. Endpoint i of weight w(i), of W in all, has
// w(i)/W of the turns; in any row of m turns, over the cycle's end too, it has
// m*w(i)/W, give or take less than 1 + K*w(i)/W turns, K being the number of
// different weights. (In a stretch of time each endpoint's turns that are due,
// and those of all endpoints of one weight together, are less than one off. So
// a row of m turns is a stretch in which less than K more or less than m should
// have been due.)
//
// That needs W turns, divided by the weights' common divisor. Where those are
// too many, the cycle has fewer, T: endpoint i has the whole part of
// T*w(i)/W for itself, and what is left over is turns for which an endpoint is
// drawn by what it lacks. Then too its mean share is w(i)/W exactly, be it less
// than one turn in a cycle; its count in one cycle varies by chance, with a
// standard deviation below one turn.
type schedule struct {
	turns []int32 // index of the endpoint, or byChance
	lack  alias   // for turns by chance
}

const (
	byChance = -1
	// A cycle is at most turnsEach times as long as there are endpoints, so that
	// at most an eighth of the turns is by chance, or minTurns: 256 KiB.
	turnsEach = 8
	minTurns  = 1 << 16
)

// turn returns whose turn it is.
func (s *schedule) turn(seq uint64, rand Rand) int {
	if i := s.turns[seq%uint64(len(s.turns))]; i != byChance {
		return int(i)
	}
	return s.lack.draw(rand)
}

// newSchedule lays out at most so many turns. There is at least one slot.
func newSchedule(s []slot, most int, d dice) schedule {
	var sum, unit int64
	for i := range s {
		sum += s[i].w
		unit = gcd(s[i].w, unit)
	}
	length := sum / unit
	if length <= int64(most) {
		counts := make([]int64, len(s))
		for i := range s {
			counts[i] = s[i].w / unit
		}
		return schedule{turns: layOut(counts, int(length), d)}
	}
	// The last count is of the turns by chance.
	counts, lack, left := make([]int64, len(s)+1), make([]float64, len(s)), int64(most)
	for i := range s {
		counts[i] = s[i].w * int64(most) / sum
		lack[i] = float64(s[i].w * int64(most) % sum)
		left -= counts[i]
	}
	counts[len(s)] = left
	out := schedule{turns: layOut(counts, most, d)}
	if left > 0 {
		out.lack = newAliasOf(lack)
		for at, i := range out.turns {
			if int(i) == len(s) {
				out.turns[at] = byChance
			}
		}
	}
	return out
}

func gcd(a, b int64) int64 {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}

// layOut returns a cycle in which i comes counts[i] times, length in all: the
// turns of all, in the order of their due times. Those of endpoints with the
// same count are due at even intervals, from a random phase on and in a random
// order of endpoints that stays.
func layOut(counts []int64, length int, d dice) []int32 {
	type class struct {
		members, placed int64
		phase           float64
	}
	classes := make(map[int64]*class)
	for _, n := range counts {
		c := classes[n]
		if c == nil {
			c = &class{phase: float64(d.below(1<<20)) / (1 << 20)}
			classes[n] = c
		}
		c.members++
	}
	due := make([]uint64, 0, length) // 40 bits of the cycle, 24 of the endpoint
	for _, i := range shuffled(len(counts), &d) {
		n := counts[i]
		c := classes[n]
		for k := range n {
			at := (float64(k*c.members+c.placed) + c.phase) / float64(n*c.members)
			due = append(due, uint64(at*(1<<40))<<24|uint64(i))
		}
		c.placed++
	}
	slices.Sort(due)
	turns := make([]int32, length)
	for at := range turns {
		turns[at] = int32(due[at] & (1<<24 - 1))
	}
	return turns
}

func shuffled(n int, d *dice) []int32 {
	out := make([]int32, n)
	for i := range out {
		j := d.below(int64(i + 1))
		out[i] = out[j]
		out[j] = int32(i)
	}
	return out
}
