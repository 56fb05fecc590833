package picker

import (
	"math"
	"sync/atomic"
)

// tree keeps the minimum of in-flight per weight over all endpoints at hand: a
// tree of fan-out 8, each node the least of its children, brought up to date by
// whoever changes what an endpoint has in flight (Endpoint.touched).
//
// It is Jayanti's f-array ("f-arrays: implementation and applications", PODC
// 2002): a node is brought up to date, without locks, by reading it, reading its
// children and swapping the result in. If that fails twice, somebody else's
// swap has succeeded that read the node, and so the children too, after the
// first of our attempts had begun: it has seen our change. A swap always
// changes the word, be the minimum the same: it must make those fail that have
// read the children before it.
//
// Jayanti goes on to the root every time, which would have every request write
// one word. Here a change goes up from the first inner level only as far as the
// swap that it made itself changed a minimum: who changed one takes it further.
// So all minima are right when nobody is at it (each one's last change was
// followed by a refresh of its parent that saw it), and a node of the first
// inner level has seen every change whose maker has returned. Between the two a
// pick may act on what was true when the slowest of those at it began.
type tree struct {
	slots  []slot
	watch  []watch
	levels [][]group // leaves first; the last has one node, the root
	weight [][]int64 // by level and node: of all endpoints below it
	// superseded: endpoints have begun to report to a newer tree.
	superseded atomic.Bool
}

const (
	fanOut = 8 // children of a node share a cache line
	// noRoom is the key of an endpoint at its limit, above all others.
	noRoom      = 1<<keyBits - 1
	keyBits     = 40
	versionBits = 64 - keyBits
)

// group is the children of one node. A word is a key and the count, modulo
// 2^24, of the swaps that wrote it: for a stale swap to pass, a goroutine has to
// sleep through a whole multiple of 16.8 million changes of one word.
type group [fanOut]atomic.Uint64

func keyOf(word uint64) uint64 { return word >> versionBits }

// loadKey maps n/w to 40 bits so that the order is kept: 7 bits of exponent and
// 33 of mantissa of the quotient. Equal fractions have equal keys; different
// ones n/w < m/v have different keys as long as m*w <= 2^33, which is a weight of
// 65535 beside 131,072 in flight; beyond that, fractions closer than 2^-33 of
// their value may tie. No int64 overflows.
func loadKey(n, w int64) uint64 {
	if n <= 0 {
		return 0
	}
	const mantissa, bias = keyBits - 7, 1023 - 64 // n/w is in [2^-63, 2^63]
	return math.Float64bits(float64(n)/float64(w))>>(52-mantissa) - bias<<mantissa
}

// key of an endpoint as it is now.
func (s *slot) key() uint64 {
	n, limit := s.ep.inFlight.Load(), s.ep.limit.Load()
	if limit != 0 && n >= limit {
		return noRoom
	}
	return loadKey(n, s.w)
}

// newTree is for more than one endpoint. It has them report to it and then reads
// them all, so that a change is either read or reported.
func newTree(s []slot) *tree {
	t := &tree{slots: s, watch: make([]watch, len(s))}
	below := make([]int64, len(s))
	for i := range s {
		below[i] = s[i].w
	}
	for {
		t.levels = append(t.levels, newLevel(len(below)))
		t.weight = append(t.weight, below)
		if len(below) == 1 { // never at the leaves
			break
		}
		above := make([]int64, (len(below)+fanOut-1)/fanOut)
		for i, w := range below {
			above[i/fanOut] += w
		}
		below = above
	}
	for i := range s {
		t.watch[i] = watch{t, i}
		s[i].reportTo(&t.watch[i])
	}
	for l := range t.levels {
		for i := range t.weight[l] {
			t.refresh(l, i)
		}
	}
	return t
}

// newLevel has no room anywhere, and never will where there are no nodes.
func newLevel(nodes int) []group {
	level := make([]group, (nodes+fanOut-1)/fanOut)
	for i := range level {
		for j := range level[i] {
			level[i][j].Store(noRoom << versionBits)
		}
	}
	return level
}

// reportTo has the endpoint report to w, nil for nobody. The tree that it
// reported to does not hear everything any more.
func (s *slot) reportTo(w *watch) {
	old := s.ep.watch.Swap(w)
	if old == nil {
		return
	}
	if t, ok := old.of.(*tree); ok && !t.superseded.Load() {
		t.superseded.Store(true)
	}
}

// release ends the reports of endpoints that no newer tree has taken over: an
// endpoint that has left but lives on in a lease must not hold the tree, and by
// it others that have left, and so on.
func (t *tree) release() {
	t.superseded.Store(true)
	for i := range t.slots {
		t.slots[i].ep.watch.CompareAndSwap(&t.watch[i], nil)
	}
}

// changed brings the tree up to date with a change of the endpoint at leaf.
func (t *tree) changed(leaf int) {
	t.refresh(0, leaf)
	for l, i := 1, leaf/fanOut; l < len(t.levels) && t.refresh(l, i); l++ {
		i /= fanOut
	}
}

// refresh brings one node up to date and reports whether that changed its key.
func (t *tree) refresh(l, i int) bool {
	word := &t.levels[l][i/fanOut][i%fanOut]
	for range 2 {
		old := word.Load()
		var key uint64
		if l == 0 {
			key = t.slots[i].key()
		} else {
			key = t.levels[l-1][i].least()
		}
		if word.CompareAndSwap(old, key<<versionBits|(old+1)&(1<<versionBits-1)) {
			return key != keyOf(old)
		}
	}
	return false
}

func (g *group) least() uint64 {
	word := g[0].Load()
	for j := 1; j < fanOut; j++ {
		word = min(word, g[j].Load())
	}
	return keyOf(word)
}

func (t *tree) key(l, i int) uint64 { return keyOf(t.levels[l][i/fanOut][i%fanOut].Load()) }

// root returns the least key of all.
func (t *tree) root() uint64 { return t.key(len(t.levels)-1, 0) }
