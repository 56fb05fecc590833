package picker

import (
	"cmp"
	"slices"
	"time"
)

// told is an endpoint whose report tells what others have there.
type told struct{ others, share float64 }

// expect computes E: what others have in all, by share. An endpoint that hangs
// piles up requests that are not to be expected anywhere else, so none counts
// with more than outlier times what the middle one has for its share.
func (t *table) expect(now time.Duration) {
	all := make([]told, 0, len(t.rated))
	telling := 0
	for i := range t.rated {
		c := &t.rated[i]
		if o, _, ok := othersOf(c.ep.others.Load(), now); ok && t.why[i].fresh == 1 {
			telling++
			if c.state == isFresh && c.share > 0 {
				all = append(all, told{float64(o), float64(c.share)})
			}
		}
	}
	t.seeing = 2*telling >= len(t.rated)
	if len(all) == 0 {
		return
	}
	slices.SortFunc(all, func(a, b told) int { return cmp.Compare(a.others*b.share, b.others*a.share) })
	middle := all[(len(all)-1)/2] // of two the lower: the other may be the one that hangs
	var others, share, most float64
	for _, x := range all {
		o := min(x.others, outlierLeast+outlier*middle.others/middle.share*x.share)
		others, share, most = others+o, share+x.share, max(most, o)
	}
	for i := range t.rated {
		if c := &t.rated[i]; c.state == isFresh {
			c.expect = float32(min(most, float64(c.share)/share*others))
		}
	}
}
