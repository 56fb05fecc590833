package picker

import (
	"cmp"
	"slices"
	"time"
)

// told is an endpoint whose report tells what others have there.
type told struct{ others, share float64 }

// hearsayLasts is the age up to which in-flight that nobody polled counts for what
// is to be expected elsewhere: that of three default polls. It may come once in 30 s,
// and a surge long over must not be what all are taken to have.
const hearsayLasts = 1500 * time.Millisecond

// hearsay returns whether e's in-flight comes of no poll, and whether it is then still
// young enough to count.
func hearsay(l *Load, age float32) (is, young bool) {
	is = l != nil && l.Hearsay
	return is, !is || age < float32(hearsayLasts/time.Millisecond)
}

// mostWaiting is how many requests per available core a report's concurrency may tell
// and still foretell a wait: beyond it a request keeps a core busy for less than a
// twentieth of its time (PICKING.md's phi = avail/conc).
const mostWaiting = 20

// foretells reports whether what the backend has in flight tells a wait. It does not
// where requests compute next to nothing: they wait for something else, a lock or a
// database, of which conc, made of CPU, knows nothing; nor while conc is not known.
// Admission then learns from latencies. (PICKING.md trusts conc to its end, 200 per
// core; but how little a waiting request computes is noise, and on a busy machine a
// backend that serves one request at a time passed for one that serves 100 at once.)
func (l *Load) foretells() bool {
	return l.Conc > 0 && (l.Avail <= 0 || l.Conc <= mostWaiting*l.Avail)
}

// expect computes E: what others have in all, by share. An endpoint that hangs
// piles up requests that are not to be expected anywhere else, so none counts
// with more than outlier times what the middle one has for its share.
func (t *table) expect(now time.Duration) {
	all := make([]told, 0, len(t.rated))
	telling := 0
	for i := range t.rated {
		c := &t.rated[i]
		if o, age, ok := othersOf(c.ep.others.Load(), now); ok && t.why[i].fresh == 1 {
			l := c.ep.Load()
			heard, young := hearsay(l, age)
			if !heard && l.foretells() {
				telling++
			}
			if young && c.state == isFresh && c.share > 0 {
				all = append(all, told{float64(o), float64(c.share)})
			}
		}
	}
	// Without a pace no wait can be foretold, and all of a first crowd would come in.
	t.seeing = t.pace > 0 && 2*telling >= len(t.rated)
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
