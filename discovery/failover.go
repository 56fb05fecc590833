package discovery

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Named is a fallback source. Its name is unique among those of a service, not
// empty and without a slash.
type Named struct {
	Name   string
	Source Source
}

// fallbackGrace is how long a start waits for the primary before it makes do
// with fallbacks: they often answer first. Longer than the second after which a
// snapshot stands in for the primary.
const fallbackGrace = 2 * time.Second

// NewFailover returns a source whose set is the union of the primary's and of
// those of the fallbacks, in this order, with Instance.Tier saying of which an
// instance is: 0 for the primary, n for the n-th fallback. All are watched all
// the time, for a fallback that is looked up in an outage is none. Which tier is
// used is not decided here.
//
// IDs of fallbacks begin with @NAME/, so that one instance in two sources is two
// endpoints; an ID of the primary that looks the same begins with %40 instead.
//
// A fallback that fails changes nothing but its own part of the status. A wrong
// configuration of any is the whole's. Without fallbacks it is the primary itself.
func NewFailover(primary Source, fallbacks []Named) Source {
	if len(fallbacks) == 0 {
		return primary
	}
	f := &failover{tiers: make([]tier, 1+len(fallbacks)), grace: fallbackGrace}
	f.tiers[0].source = primary
	for i, n := range fallbacks {
		f.tiers[1+i] = tier{Named: n, source: n.Source}
	}
	return f
}

// InFallback returns the ID that the fallback's instance has in a source that
// NewFailover made.
func InFallback(name, id string) string { return "@" + name + "/" + id }

// escapedAt stands for the @ of a primary's ID that looks like a fallback's.
const escapedAt = "%40"

// InPrimary returns the ID that the primary's instance has in a source that
// NewFailover made with fallbacks of these names.
func InPrimary(id string, fallbacks []string) string {
	if strings.HasPrefix(id, "@") && slices.ContainsFunc(fallbacks, func(name string) bool {
		return strings.HasPrefix(id, InFallback(name, ""))
	}) {
		return escapedAt + id[1:]
	}
	return id
}

// Fallback returns the name of the fallback that the instance is of, "" for the
// primary.
func (i Instance) Fallback() string {
	if i.Tier == 0 {
		return ""
	}
	name, _, _ := strings.Cut(strings.TrimPrefix(i.ID, "@"), "/")
	return name
}

// ServiceID returns what the registry of its node calls the instance, "" where no
// registry does. It is the ID without what says whence it comes.
func (i Instance) ServiceID() string {
	id := i.ID
	if i.Tier > 0 {
		_, id, _ = strings.Cut(id, "/")
	} else if rest, ok := strings.CutPrefix(id, escapedAt); ok {
		id = "@" + rest // by InPrimary: elsewhere a % is always %25
	}
	id = strings.TrimPrefix(id, InFallback(i.Datacenter, "")) // of a prepared query
	_, id, _ = strings.Cut(id, "/")
	return id
}

type failover struct {
	tiers    []tier
	grace    time.Duration
	watching atomic.Bool
	applied  atomic.Bool // some set, at any time
}

// tier is one of the sources with what Watch knows of it.
type tier struct {
	Named  // of a fallback
	source Source
	set    []Instance // as it goes into the union
	seen   bool
}

// news is a set that a source applies, and where to say that this is done.
type news struct {
	tier int
	set  []Instance
	done chan struct{}
}

// Status implements Source: it is the primary's with the fallbacks' in it. Seen is
// also true where only fallbacks gave a set.
func (f *failover) Status() Status {
	s := f.tiers[0].source.Status()
	s.Seen = s.Seen || f.applied.Load()
	for i := range f.tiers[1:] {
		t := &f.tiers[1+i]
		s.Fallbacks = append(s.Fallbacks, NamedStatus{t.Name, t.source.Status()})
	}
	return s
}

// Watch implements Source. apply runs on the calling goroutine; a source goes on
// when its set is applied.
func (f *failover) Watch(ctx context.Context, apply func([]Instance)) error {
	if !f.watching.CompareAndSwap(false, true) {
		return errors.New("discovery with fallbacks: it is being watched already")
	}
	defer f.watching.Store(false)
	if err := ctx.Err(); err != nil {
		return err
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	changes, ended := make(chan news), make(chan error, len(f.tiers))
	for i := range f.tiers {
		wg.Go(func() { ended <- f.watch(ctx, i, changes) })
	}
	grace := time.NewTimer(f.grace)
	defer grace.Stop()
	waiting := true
	if f.applied.Load() {
		apply(f.union()) // the sources say again what it was made of
	}
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case err := <-ended:
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if err != nil {
				return err
			}
		case <-grace.C:
			waiting = false
			if !f.applied.Load() && f.usable(waiting) {
				f.give(apply)
			}
		case n := <-changes:
			if f.take(n) && f.usable(waiting) {
				f.give(apply)
			}
			close(n.done)
		}
	}
}

func (f *failover) give(apply func([]Instance)) {
	apply(f.union())
	f.applied.Store(true)
}

// watch follows one source.
func (f *failover) watch(ctx context.Context, i int, changes chan<- news) error {
	t := &f.tiers[i]
	err := t.source.Watch(ctx, func(set []Instance) {
		n := news{i, set, make(chan struct{})}
		select {
		case changes <- n:
			<-n.done
		case <-ctx.Done():
		}
	})
	if err != nil && i > 0 {
		return fmt.Errorf("fallback %q: %w", t.Name, err)
	}
	return err
}

// take notes a source's set and reports whether that changes anything.
func (f *failover) take(n news) bool {
	t := &f.tiers[n.tier]
	set := slices.Clone(n.set)
	names := f.names()
	for i := range set {
		x := &set[i]
		x.Tier = n.tier
		if n.tier > 0 {
			x.ID = InFallback(t.Name, x.ID)
		} else {
			x.ID = InPrimary(x.ID, names)
		}
	}
	if t.seen && slices.EqualFunc(t.set, set, func(a, b Instance) bool { return same(&a, &b) }) {
		return false
	}
	t.seen, t.set = true, set
	return true
}

func (f *failover) names() []string {
	var names []string
	for _, t := range f.tiers[1:] {
		names = append(names, t.Name)
	}
	return names
}

// usable reports whether the union is a set to work with, after others or as the
// first: the primary has spoken and something is there, or would be by now; or it
// is late and a fallback has something.
func (f *failover) usable(waiting bool) bool {
	if f.applied.Load() {
		return true
	}
	some, all := false, true
	for i := range f.tiers {
		some = some || len(f.tiers[i].set) > 0
		all = all && f.tiers[i].seen
	}
	if f.tiers[0].seen {
		return some || all || !waiting
	}
	return some && !waiting
}

func (f *failover) union() []Instance {
	n := 0
	for i := range f.tiers {
		n += len(f.tiers[i].set)
	}
	all := make([]Instance, 0, n)
	for i := range f.tiers {
		all = append(all, f.tiers[i].set...)
	}
	return all
}
