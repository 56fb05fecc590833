package picker

import "math/bits"

// leaves are those of a request's tried endpoints.
type leaves struct {
	at [maxTried]int
	n  int
}

func (t *tree) leavesOf(tried *Tried) (out leaves) {
	for _, e := range tried.eps[:min(tried.n, maxTried)] {
		if w := e.watch.Load(); w != nil && w.of == any(t) {
			out.at[out.n] = w.leaf
			out.n++
		}
	}
	return out
}

// below reports whether one of them is under node i of level l.
func (s *leaves) below(l, i int) bool {
	for _, leaf := range s.at[:s.n] {
		if leaf>>(3*l) == i {
			return true
		}
	}
	return false
}

// least returns the least key under a node, the skipped leaves left out.
func (t *tree) least(l, i int, skip *leaves) uint64 {
	if skip.n == 0 || !skip.below(l, i) {
		return t.key(l, i)
	}
	least := uint64(noRoom)
	if l > 0 {
		for j := i * fanOut; j < min((i+1)*fanOut, len(t.weight[l-1])); j++ {
			least = min(least, t.least(l-1, j, skip))
		}
	}
	return least
}

// find returns a leaf with the least key of those not skipped, -1 if others
// were quicker and another try is due; false when none has room. Among children
// of a node that tie, the weight below them decides.
func (t *tree) find(skip *leaves, d dice) (int, bool) {
	l, i, room := len(t.levels)-1, 0, true
	if t.least(l, i, skip) == noRoom {
		// Nobody is told that there is no room before the first inner nodes agree:
		// who gave up a slot and wakes a waiter now has been there (see tree).
		l = 1
		i = t.anyRoom(l, skip)
		room = i >= 0
	}
	for ; l > 0 && i >= 0; l-- {
		i = t.down(l-1, i*fanOut, skip, &d)
	}
	return i, room
}

// anyRoom returns the first node of a level with room below it, -1 if none has.
func (t *tree) anyRoom(l int, skip *leaves) int {
	for i := range t.weight[l] {
		if t.least(l, i, skip) != noRoom {
			return i
		}
	}
	return -1
}

// down draws one of the nodes from first on that share a parent: one with the
// least key. -1: none has room. It has no branch that depends on a key, for
// those would be guessed wrong half of the time.
func (t *tree) down(l, first int, skip *leaves, d *dice) int {
	var keys [fanOut]uint64
	g, least := &t.levels[l][first/fanOut], uint64(noRoom)
	for j := range keys {
		keys[j] = keyOf(g[j].Load())
		if skip.n > 0 {
			keys[j] = t.least(l, first+j, skip)
		}
		least = min(least, keys[j])
	}
	if least == noRoom {
		return -1
	}
	tied := 0
	for j := range keys {
		tied |= int(((keys[j]^least)-1)>>63) << j
	}
	if tied&(tied-1) == 0 {
		return first + bits.TrailingZeros(uint(tied))
	}
	weight := t.weight[l][first:]
	var sums [fanOut]int64
	var sum int64
	for j := range min(fanOut, len(weight)) {
		sum += weight[j] & -int64(tied>>j&1)
		sums[j] = sum
	}
	x := d.below(sum)
	at := 0
	for j := range min(fanOut, len(weight)) {
		at += int(uint64(sums[j]-x-1) >> 63) // sums[j] <= x
	}
	return first + at
}
