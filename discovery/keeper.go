package discovery

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
)

// keeper holds the set of one service for one source, and judges what the source
// reads: README has its rules as a table ("What is believed"). Its methods may be
// called by any goroutine; apply is called with its lock held, so never twice at
// once, and must not call back. The set outlives a Watch.
type keeper struct {
	from   string // who answers, for the log: "Consul", "the file"
	hint   string // what to look at when nothing is listed
	cfg    Config
	env    Env
	log    hclog.Logger
	record record

	mu    sync.Mutex
	apply func([]Instance) // nil: nobody watches

	seen     bool       // something was applied, or would have been
	inUse    []Instance // by ID: what was believed, and what is kept beside it
	shown    []Instance // the same as it was applied: by distance with Query.Near
	index    uint64     // of the last believed answer
	filtered bool       // ACLs filtered that
	size     int        // of that
	peaks    peaks      // of those before
	loss     *loss      // nil: nothing is amiss

	verify  bool            // the next read is a consistent one
	fails   int             // reads that failed in a row
	failing time.Time       // since when
	held    int             // answers in a row that were doubted for their circumstances
	told    []string        // the doubts that were logged since the last believed answer
	odd     map[oddity]bool // of the last believed answer, all logged

	saver *saver // nil: nothing is kept on disk
	early early  // what that knew at the start, until something is known
	first firstRead
}

// newKeeper returns a keeper of nothing. from and hint are its words for the log.
func newKeeper(from, hint, service string, cfg Config, env Env) *keeper {
	if env.Logger == nil {
		env.Logger = hclog.NewNullLogger()
	}
	if env.Now == nil {
		env.Now = time.Now
	}
	if env.Rand == nil {
		env.Rand = rand.Float64
	}
	if env.Probe == nil {
		env.Probe = Connects
	}
	if env.Probes == nil {
		env.Probes = NewProbeLimit(maxProbes)
	}
	if env.Successes == nil {
		env.Successes = func(string) uint64 { return 0 }
	}
	return &keeper{from: from, hint: hint, cfg: cfg, env: env, log: env.Logger.With("service", service)}
}

// begin applies the set that is known, if any, and from now on each new one.
func (k *keeper) begin(apply func([]Instance)) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.apply = apply
	k.record.begin(k.env.Now())
	if k.seen {
		apply(k.shown)
	}
}

// end returns when apply will not be called any more.
func (k *keeper) end() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.apply = nil
}

// status is the Status of a source of this kind.
func (k *keeper) status(source string) Status {
	s := k.record.status(k.env.Now())
	s.Source = source
	s.Disk = k.saver.disk(k.env.Now())
	return s
}

// believed returns the set that the registry was last believed to list, with its
// index and the time when it last said so; zero: never. A seed's is what it was
// given. The set is not to be changed.
func (k *keeper) believed() (set []Instance, index uint64, at time.Time) {
	return k.record.believed()
}

// seed applies a set from an earlier life, believed at that time. It does nothing
// and returns false when something is known already.
func (k *keeper) seed(set []Instance, at time.Time) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.seedLocked(set, at)
}

func (k *keeper) seedLocked(set []Instance, at time.Time) bool {
	if k.seen {
		return false
	}
	set = byID(set)
	now := k.env.Now()
	// Filtered, for all that is known: a token that never saw everything must not
	// be taken for one that lost its rights.
	k.seen, k.size, k.filtered = true, len(set), true
	k.use(set, set)
	k.record.seed(now, at, set)
	k.log.Warn("serving from the snapshot of an earlier run until "+k.from+" answers",
		"instances", len(set), "age", max(0, now.Sub(at)).Round(time.Second))
	return true
}

// failed keeps the set and slows the source down; busy: it was asked to.
func (k *keeper) failed(err error, busy bool) pace {
	k.mu.Lock()
	defer k.mu.Unlock()
	now := k.env.Now()
	if k.loss != nil {
		k.loss.pause()
	}
	k.recall()
	delay := k.cfg.backoff(k.fails, busy, k.env.Rand())
	text := presentable(err, k.cfg.Token)
	k.record.fail(now, text)
	k.fails++
	switch {
	case k.fails > 1:
		k.log.Debug("still no answer from "+k.from, "error", text, "retry_in", delay)
	case k.seen:
		k.failing = now
		k.log.Warn("no answer from "+k.from+": keeping the last good set", "error", text, "instances", len(k.inUse))
	default:
		k.failing = now
		k.log.Warn("no answer from "+k.from+": the service is still unknown", "error", text)
	}
	// An agent's cache answers what does not block from what it has, while blocking
	// on it fails: it is not asked before Consul itself has answered.
	return pace{delay, k.verify || k.cfg.Cached && k.record.answered()}
}

// take judges an answer and applies what is believed of it. Where endpoints are
// missing it may ask them first, for some seconds at most; ctx ends that, and then
// the answer counts for nothing.
func (k *keeper) take(ctx context.Context, a reading) pace {
	k.mu.Lock()
	defer k.mu.Unlock()
	now := k.env.Now()
	if k.fails > 0 {
		k.log.Info(k.from+" answers again", "after", now.Sub(k.failing).Round(time.Millisecond), "errors", k.fails)
		k.fails = 0
	}
	k.record.answer(a.LastContact)
	k.compare(&a)
	v, d := k.judge(now, &a)
	switch {
	case v.decision == accept:
		return k.believe(now, a, d, "")
	case v.decision == hold:
		return k.doubt(now, v.doubt)
	case !a.Consistent && k.seen:
		k.record.hold(now, Doubted, v.doubt)
		k.verify = true
		return pace{0, true} // usually the first consistent read settles it
	}
	k.verify = true
	return k.shrunk(ctx, now, a, d, v.doubt == doubtFiltered)
}

// judge fills in what the keeper knows of an answer's circumstances.
func (k *keeper) judge(now time.Time, a *reading) (verdict, delta) {
	a.Seen, a.WasFiltered = k.seen, k.filtered
	a.Backwards = a.index < k.index || a.index >= maxIndex
	a.Most = k.peaks.most(now, k.size)
	d := diff(k.inUse, a.set)
	v := plausible(&k.cfg, k.inUse, a.set, d, a.circumstances)
	if l := k.loss; l != nil && v.decision == accept && !a.Moved && len(l.missing(a.set, k.inUse, l.lost)) > 0 {
		// While the registry recovers, whoever it does not list yet may be next.
		v = verdict{confirm, doubtShrunk}
		if len(a.set) == 0 {
			v.doubt = doubtEmpty
		}
	}
	return v, d
}

// doubt keeps the whole set and arranges for a consistent read: the first at
// once, then ever more slowly.
func (k *keeper) doubt(now time.Time, doubt string) pace {
	if k.loss != nil {
		k.loss.pause()
	}
	k.record.hold(now, Doubted, doubt)
	if !k.verify {
		k.verify = true
		return pace{0, true} // not logged: usually that settles it
	}
	k.tellDoubt(doubt)
	delay := k.cfg.backoff(k.held, false, k.env.Rand())
	k.held++
	return pace{delay, true}
}

// shrunk deals with a consistent answer that takes away implausibly much: it asks
// those that are missing, and believes what they say. hidden: by ACLs. So it does
// with a first answer, consistent or not, that lacks much of what a snapshot has.
func (k *keeper) shrunk(ctx context.Context, now time.Time, a reading, d delta, hidden bool) pace {
	if k.loss == nil {
		k.loss = new(loss)
	}
	l := k.loss
	l.hidden = hidden
	l.take(now, a.set, k.inUse, k.env.Successes)
	if !k.seen && len(a.set) > 0 {
		k.join(now, a.shown) // those who are asked come later
		d = diff(k.inUse, a.set)
	}
	asking := prober{k.env.Probe, k.env.Probes, k.env.Successes, k.cfg.ProbeTimeout, k.env.Rand}
	alive, dead := asking.round(ctx, now, l.lost)
	if ctx.Err() != nil {
		l.pause()
		return pace{0, true}
	}
	k.record.probed(alive, dead)
	end := goesOn
	if a.Consistent {
		end = l.settle(now, &k.cfg)
	}
	switch end {
	case proven:
		return k.believe(now, a, d, "none of the missing answers")
	case repeated:
		return k.believe(now, a, d, "it was repeated for "+k.cfg.ShrinkConfirm.String())
	case expired:
		k.log.Error("too little was listed for "+k.cfg.EmptyHold.String()+" (empty_hold): believing it",
			"listed", len(a.set), "answering", l.answering())
		return k.believe(now, a, d, "empty_hold is over")
	}
	died, obeyed := l.bury(&k.cfg)
	k.tellGone(died, "not listed and not answering any more: dropped")
	k.tellGone(obeyed, "not listed for "+k.cfg.ShrinkConfirm.String()+" (shrink_confirm): dropped, though it answers")
	state, doubt := l.state()
	if len(a.set) > 0 || state == Kept || !k.seen {
		k.join(now, a.shown)
	}
	k.record.hold(now, state, doubt)
	k.tellLoss(state, doubt)
	return pace{l.next(&k.cfg), true}
}

// join uses what is listed together with what is kept; order is that of the listed.
func (k *keeper) join(now time.Time, order []Instance) {
	set, shown := k.loss.union(order)
	d := diff(k.inUse, set)
	if k.seen && d.none() {
		return
	}
	k.tellChange(d, len(set))
	k.seen = true
	k.use(set, shown)
	unlisted := 0
	for i := range set {
		if set[i].Unlisted {
			unlisted++
		}
	}
	k.record.use(now, len(set), unlisted)
}

// believe takes an answer, which may be the set held, for the truth; why, if it was
// doubted for what is missing.
func (k *keeper) believe(now time.Time, a reading, d delta, why string) pace {
	first, changed := !k.seen, !k.seen || !d.none()
	late := a.CacheAge > k.cfg.MaxStale
	if late {
		k.tellLate(a.CacheAge)
	} else {
		k.tellEnd(why, len(a.set))
		k.told = nil
	}
	switch {
	case why != "":
		k.peaks = nil // it was looked into: from here on it counts
	case len(a.set) < k.size:
		k.peaks = k.peaks.replaced(now, k.size, k.cfg.ShrinkConfirm)
	}
	k.verify, k.held, k.loss = false, 0, nil
	k.seen, k.size = true, len(a.set)
	if !a.Streaming {
		k.filtered = a.Filtered // a streamed answer never says so
	}
	if a.index < maxIndex {
		k.index = a.index
	}
	k.tellOdd(a.odd)
	if first {
		k.tellFirst(len(a.set))
	} else if changed {
		k.tellChange(d, len(a.set))
	}
	if changed {
		shown := a.shown
		if shown == nil {
			shown = a.set
		}
		k.use(a.set, shown)
	}
	dropped := 0
	for _, o := range a.odd {
		if o.Dropped {
			dropped++
		}
	}
	k.record.believe(now, belief{k.index, a.set, dropped, changed, a.CacheAge, late})
	k.saver.poke()
	return pace{}
}

// use applies a set; the caller records it.
func (k *keeper) use(set, shown []Instance) {
	k.inUse, k.shown = set, shown
	if k.apply != nil {
		k.apply(shown)
	}
}
