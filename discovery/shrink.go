package discovery

import (
	"slices"
	"strings"
	"time"
)

const (
	// minEmptyReads is how many consistent reads in a row must find nothing;
	// minShrunkReads is the same for too few.
	minEmptyReads  = 2
	minShrunkReads = 3
	// minEmptySpacing is how far apart such reads are at least.
	minEmptySpacing = time.Second
	// deadMisses is how many probes in a row nobody answers where an instance is
	// dead; probeSpacing is how far apart they are at least.
	deadMisses   = 2
	probeSpacing = 2 * time.Second
)

// loss is a doubt about answers that take too much away: a spell of them, with
// the instances that they lost. All of it is by consistent reads, but for a first
// answer that is held against a snapshot.
type loss struct {
	since  time.Time  // of the first answer
	before []Instance // what was in use then
	listed []Instance
	most   int    // how many were listed at most since nothing was
	lost   []lost // by ID, none of it in listed
	hidden bool   // ACLs remove instances from the answers: repeating them proves nothing
	rounds int

	last time.Time // of the last answer; zero: something came between
	// Since when nothing is listed and nothing that was lost answers, without a
	// break, and how many answers said so.
	quiet      time.Time
	quietReads int
}

// lost is an instance that the registry does not list any more.
type lost struct {
	Instance
	served   uint64    // its answered requests when they were last looked at
	probed   time.Time // when it was last asked; zero: never
	alive    bool      // it answered then
	misses   int       // how often in a row it did not
	answered bool      // at any time of the spell
	recalled bool      // known from a snapshot alone: it is used once it has answered
	added    bool      // was first listed during the spell

	gone  time.Duration // for how long answers have left it out
	reads int           // how many did
}

func (l *lost) dead() bool { return l.misses >= deadMisses }

// used reports whether it belongs to the set in use.
func (l *lost) used() bool { return l.answered || !l.recalled }

// recalled begins a spell with what an earlier run knew, none of it in use.
func recalled(set []Instance, served func(id string) uint64) *loss {
	l := new(loss)
	for _, i := range byID(set) {
		i.Unlisted = true
		l.lost = append(l.lost, lost{Instance: i, served: served(i.ID), recalled: true})
	}
	return l
}

// take adds an answer to the spell: listed, in the place of the set in use.
// served counts the requests that an instance answered.
func (l *loss) take(now time.Time, listed, inUse []Instance, served func(id string) uint64) {
	if l.since.IsZero() {
		l.since, l.before = now, inUse
		if len(inUse) == 0 {
			l.before = listed // beside what is recalled
		}
	}
	var step time.Duration
	if !l.last.IsZero() {
		step = now.Sub(l.last)
	}
	l.last = now
	anew := l.recovers(listed)
	known := l.lost
	l.listed, l.lost = listed, nil
	for _, i := range l.missing(listed, inUse, known) {
		x := lost{Instance: i, served: served(i.ID)}
		_, before := find(l.before, i.ID)
		x.added = !before
		if at, ok := slices.BinarySearchFunc(known, i.ID, func(k lost, id string) int { return strings.Compare(k.ID, id) }); ok {
			x = known[at]
			x.gone += step
		}
		if anew {
			x.gone, x.reads = 0, 0
		}
		x.reads++
		l.lost = append(l.lost, x)
	}
}

// recovers reports whether an answer shows the registry on the mend: it lists one
// that was lost, or more than it did before. Whoever is missing then may be next,
// so that the repetition begins anew. That more is lost, or that one who came
// meanwhile goes and comes, is no such sign.
func (l *loss) recovers(listed []Instance) bool {
	if len(listed) == 0 {
		l.most = 0
		return true // another claim: see settle
	}
	grown := len(listed) > l.most
	l.most = max(l.most, len(listed))
	return grown || slices.ContainsFunc(l.lost, func(x lost) bool {
		_, ok := find(listed, x.ID)
		return ok && !x.added
	})
}

// missing returns those in use, and those that wait to be, that a list leaves out,
// by ID.
func (l *loss) missing(listed, inUse []Instance, waiting []lost) (out []Instance) {
	renamed := newAddresses(listed, inUse)
	add := func(i Instance) {
		switch _, ok := find(listed, i.ID); {
		case ok, renamed[i.HostPort()]:
		case i.Weight == 0 || i.Health == Maintenance:
			// On its way out before: nothing is lost.
		default:
			i.Unlisted = true
			out = append(out, i)
		}
	}
	for _, i := range inUse {
		add(i)
	}
	for i := range waiting {
		if _, ok := find(inUse, waiting[i].ID); !ok && !waiting[i].used() {
			add(waiting[i].Instance)
		}
	}
	return byID(out)
}

// pause stops the clock of the repetition, and breaks the quiet: a read failed, or
// was doubted for another reason.
func (l *loss) pause() { l.last, l.quiet, l.quietReads = time.Time{}, time.Time{}, 0 }

// obeyed reports whether the registry has left out x for long enough.
func (l *loss) obeyed(x *lost, cfg *Config) bool {
	return len(l.listed) > 0 && !l.hidden && x.reads >= minShrunkReads && x.gone >= cfg.ShrinkConfirm
}

// answering counts the lost that answered when last asked.
func (l *loss) answering() (n int) {
	for i := range l.lost {
		if l.lost[i].alive {
			n++
		}
	}
	return n
}

// state is what the spell is while it goes on.
func (l *loss) state() (State, string) {
	switch none := len(l.listed) == 0; {
	case l.hidden && l.answering() > 0:
		return Kept, doubtFiltered
	case l.hidden:
		return Doubted, doubtFiltered
	case l.answering() > 0 && none:
		return Kept, doubtAlive
	case l.answering() > 0:
		return Kept, doubtShrunkAlive
	case none:
		return Doubted, doubtEmpty
	}
	return Doubted, doubtShrunk
}

func (l *loss) allDead() bool {
	return !slices.ContainsFunc(l.lost, func(x lost) bool { return !x.dead() })
}

// ending is how a spell ends.
type ending uint8

const (
	goesOn   ending = iota
	proven          // none of the lost lives: the registry was right
	repeated        // it left out those who live for long enough: it is to be obeyed
	expired         // it has been doubted for EmptyHold: no doubt lasts for ever
)

// settle judges the spell after a round of probes that began at now.
func (l *loss) settle(now time.Time, cfg *Config) ending {
	if len(l.listed) > 0 || slices.ContainsFunc(l.lost, func(x lost) bool { return x.misses == 0 }) {
		l.quiet, l.quietReads = time.Time{}, 0
	} else {
		if l.quietReads == 0 {
			l.quiet = now
		}
		l.quietReads++
	}
	switch {
	case len(l.listed) > 0 && l.allDead():
		return proven
	case l.allDead() && l.quietReads >= minEmptyReads && now.Sub(l.quiet) >= cfg.EmptyConfirm:
		// Not sooner: an agent may be restarted together with its backends.
		return proven
	case !slices.ContainsFunc(l.lost, func(x lost) bool { return !x.dead() && !l.obeyed(&x, cfg) }) && len(l.listed) > 0:
		return repeated
	case now.Sub(l.since) >= cfg.EmptyHold:
		return expired
	}
	return goesOn
}

// bury takes those out of the lost who are dead, and those who were left out for
// long enough, and returns them. Where nothing is listed and nothing answers they
// stay: that is for settle alone to decide.
func (l *loss) bury(cfg *Config) (dead, obeyed []Instance) {
	if len(l.listed) == 0 && l.answering() == 0 {
		return nil, nil
	}
	l.lost = slices.DeleteFunc(l.lost, func(x lost) bool {
		switch {
		case x.dead():
			dead = append(dead, x.Instance)
		case l.obeyed(&x, cfg):
			obeyed = append(obeyed, x.Instance)
		default:
			return false
		}
		return true
	})
	return dead, obeyed
}

// union is what is listed with what was lost, is in use and is not buried, by ID;
// shown is the same in the order to be applied, given that of the listed (nil: by ID).
func (l *loss) union(order []Instance) (set, shown []Instance) {
	kept := make([]Instance, 0, len(l.lost))
	for i := range l.lost {
		if l.lost[i].used() {
			kept = append(kept, l.lost[i].Instance)
		}
	}
	set = byID(slices.Concat(l.listed, kept))
	if order == nil {
		return set, set
	}
	return set, slices.Concat(order, kept) // how near the kept are is not known any more
}

// next is the pause before the next read and its probes.
func (l *loss) next(cfg *Config) time.Duration {
	l.rounds++
	missed := false
	for i := range l.lost {
		if l.lost[i].probed.IsZero() {
			return 0 // more than a round of probes can ask
		}
		missed = missed || l.lost[i].misses > 0
	}
	switch {
	case len(l.listed) == 0 && l.answering() == 0:
		// Some within the span, for what comes back to be seen soon.
		return max(minEmptySpacing, cfg.EmptyConfirm/4)
	case len(l.listed) > 0 && !l.hidden || missed:
		return probeSpacing
	}
	// It may last for days.
	longest := max(probeSpacing, cfg.BackoffMax)
	return min(longest, probeSpacing<<min(l.rounds-1, 20))
}

// newAddresses returns the addresses of those listed that are not in use: what is
// kept there already would be the same backend twice, under its old ID.
func newAddresses(listed, inUse []Instance) map[string]bool {
	at := make(map[string]bool)
	for _, i := range listed {
		if _, ok := find(inUse, i.ID); !ok {
			at[i.HostPort()] = true
		}
	}
	return at
}

// find returns the instance with this ID in a set ordered by ID.
func find(set []Instance, id string) (int, bool) {
	return slices.BinarySearchFunc(set, id, func(i Instance, id string) int { return strings.Compare(i.ID, id) })
}

// peaks remembers how large the sets were that were believed of late, for many
// small losses to be seen as the large one that they are. Sizes fall and times
// rise along it.
type peaks []peak

type peak struct {
	size  int
	until time.Time // forgotten then
}

// most returns the largest size, size being that of now.
func (p peaks) most(now time.Time, size int) int {
	for _, k := range p {
		if now.Before(k.until) {
			return max(size, k.size)
		}
	}
	return size
}

// replaced notes that a set of this size was believed until now.
func (p peaks) replaced(now time.Time, size int, memory time.Duration) peaks {
	p = slices.DeleteFunc(p, func(k peak) bool { return k.size <= size || !now.Before(k.until) })
	return append(p, peak{size, now.Add(memory)})
}
