package picker

import (
	"runtime"
	"time"
)

// leastConn sends each request to the endpoint with the lowest in-flight per
// weight, exact over the whole set; ties are drawn in proportion to weight.
//
// Few endpoints are compared one by one. Of many, a tree keeps the minimum at
// hand, for which whoever reserves or ends a request pays: O(log n) at worst.
type leastConn struct{ rand Rand }

func (leastConn) Name() string { return "least_conn" }

// scanned is up to how many endpoints are compared one by one: where the scan
// costs about what the tree does (BenchmarkPick).
const scanned = 32

func (p leastConn) Build(ready []*Endpoint) Picker {
	s := slots(ready)
	k := &leastConnPicker{slots: s, rand: p.rand}
	if len(s) <= scanned {
		for i := range s { // nobody is to keep a tree for a picker without one
			s[i].reportTo(nil)
		}
		return k
	}
	k.alias, k.tree = newAlias(s), newTree(s)
	// The endpoints hold the tree, and nothing of it holds the picker.
	runtime.AddCleanup(k, (*tree).release, k.tree)
	return k
}

type leastConnPicker struct {
	slots []slot
	rand  Rand
	alias alias
	tree  *tree // nil for few endpoints
}

// tieDraws is how often a tie is looked for among all endpoints, drawn by
// weight, before the tree is asked. While ties are plenty, as when most are
// idle, it makes the draw among them exact.
const tieDraws = 4

func (p *leastConnPicker) Pick(r Request) (*Endpoint, bool) {
	t := p.tree
	if t == nil || t.superseded.Load() { // the second: a pick that raced with a rebuild
		return scanFree(p.slots, &r, p.rand)
	}
	if least := t.root(); least != noRoom {
		for range tieDraws {
			i := p.alias.draw(p.rand)
			if t.key(0, i) != least {
				continue
			}
			if e := p.slots[i].ep; r.takes(e) {
				return e, true
			}
		}
	}
	skip := t.leavesOf(&r.Tried)
	for range redraws {
		i, ok := t.find(&skip, dice(p.rand(1<<31)))
		if !ok {
			return nil, false
		}
		if i >= 0 && r.takes(p.slots[i].ep) {
			return p.slots[i].ep, true
		}
	}
	return scanFree(p.slots, &r, p.rand)
}

func (*leastConnPicker) Mode(time.Duration) string { return "least in-flight per weight" }

// Explain implements Picker.
func (p *leastConnPicker) Explain(r Request) Explanation {
	return explain("lowest in-flight per weight of all; ties by weight", p.slots, &r, everyone)
}
