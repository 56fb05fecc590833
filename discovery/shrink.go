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
// the instances that they lost. All of it is by consistent reads.
type loss struct {
	since  time.Time // of the first answer
	listed []Instance
	lost   []lost // by ID, none of it in listed
	rounds int

	// Since when the same are listed, without a break, and how many answers said so.
	same  time.Time
	reads int
	// The same for: nothing is listed, and nothing that was lost answers.
	quiet      time.Time
	quietReads int
}

// lost is an instance that the registry does not list any more.
type lost struct {
	Instance
	served uint64    // its answered requests when they were last looked at
	probed time.Time // when it was last asked; zero: never
	alive  bool      // it answered then
	misses int       // how often in a row it did not
}

func (l *lost) dead() bool { return l.misses >= deadMisses }

// take adds an answer to the spell: listed, in the place of the set in use.
// served counts the requests that an instance answered.
func (l *loss) take(now time.Time, listed, inUse []Instance, served func(id string) uint64) {
	if l.since.IsZero() {
		l.since = now
	}
	if l.same.IsZero() || !sameIDs(l.listed, listed) {
		l.pause()
		l.same = now
	}
	l.listed = listed
	l.reads++
	known := l.lost
	l.lost = nil
	renamed := newAddresses(listed, inUse)
	for _, i := range inUse {
		switch _, ok := find(listed, i.ID); {
		case ok, renamed[i.HostPort()]:
			continue
		case i.Weight == 0 || i.Health == Maintenance:
			continue // on its way out before: nothing is lost
		}
		i.Unlisted = true
		x := lost{Instance: i, served: served(i.ID)}
		if at, ok := slices.BinarySearchFunc(known, i.ID, func(k lost, id string) int { return strings.Compare(k.ID, id) }); ok {
			x = known[at]
		}
		l.lost = append(l.lost, x)
	}
}

// pause interrupts the repetition: a read failed, or was doubted for another
// reason, or said something else.
func (l *loss) pause() { l.same, l.reads, l.quiet, l.quietReads = time.Time{}, 0, time.Time{}, 0 }

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
	repeated        // it said so for long enough: it is to be obeyed
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
	case len(l.listed) > 0 && l.reads >= minShrunkReads && now.Sub(l.same) >= cfg.ShrinkConfirm:
		return repeated
	case now.Sub(l.since) >= cfg.EmptyHold:
		return expired
	}
	return goesOn
}

// bury takes the dead out of the lost and returns them. Where nothing is listed
// and nothing answers they stay: that is for settle alone to decide.
func (l *loss) bury() (gone []Instance) {
	if len(l.listed) == 0 && l.answering() == 0 {
		return nil
	}
	l.lost = slices.DeleteFunc(l.lost, func(x lost) bool {
		if x.dead() {
			gone = append(gone, x.Instance)
		}
		return x.dead()
	})
	return gone
}

// union is what is listed with what was lost and is not buried, by ID; shown is
// the same in the order to be applied, given that of the listed (nil: by ID).
func (l *loss) union(order []Instance) (set, shown []Instance) {
	kept := make([]Instance, 0, len(l.lost))
	for i := range l.lost {
		kept = append(kept, l.lost[i].Instance)
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
	case len(l.listed) > 0 || missed:
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

func sameIDs(a, b []Instance) bool {
	return slices.EqualFunc(a, b, func(x, y Instance) bool { return x.ID == y.ID })
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
