package discovery

import (
	"context"
	"time"
)

// grace is how long a source's first answer is waited for before the snapshot of
// an earlier run is used: an ordinary start sends no request to an old address.
const grace = time.Second

// early is what an earlier run knew.
type early struct {
	set []Instance
	at  time.Time
}

// keepOn has what the keeper believes written to a store, and read from it at the
// start. Block names the file, query is the fingerprint.
func (k *keeper) keepOn(store *Store, block, service, query string) {
	if store == nil {
		return
	}
	k.saver = newSaver(store, block, service, query, k.cfg, k.log)
	k.saver.believed = k.believed
}

// persist reads the snapshot, for use when it is needed, and keeps writing what is
// believed until ctx ends; stop then waits for the last write. Neither waits for a
// disk that hangs.
func (k *keeper) persist(ctx context.Context) (stop func()) {
	s := k.saver
	if s == nil {
		return func() {}
	}
	loaded, ran := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(loaded)
		if set, at, ok := s.load(); ok {
			k.mu.Lock()
			k.early = early{set, at}
			k.mu.Unlock()
		}
	}()
	late := time.NewTimer(grace)
	defer late.Stop()
	select {
	case <-loaded: // before the first answer, which is judged against it
	case <-late.C:
	}
	unanswered := k.first.begin() // grace after the read had its turn at the gate, see firstRead
	go func() {
		defer close(ran)
		select {
		case <-ctx.Done():
		case <-unanswered:
			k.mu.Lock()
			k.recall()
			k.mu.Unlock()
		}
		s.run(ctx)
	}()
	return func() { s.finish(ran) }
}

// recall seeds what an earlier run knew, as there is nothing else. k.mu is held.
func (k *keeper) recall() {
	if len(k.early.set) > 0 {
		k.seedLocked(k.early.set, k.early.at)
		k.early = early{}
	}
}

// compare lets a first answer that takes implausibly much of what an earlier run
// knew be doubted: who starts while the registry lies is not to believe it. But
// those who are missing are used only once they have answered a probe, for their
// addresses may be others' by now. Any other first answer makes that superfluous.
// k.mu is held.
func (k *keeper) compare(a *reading) {
	if k.seen || len(k.early.set) == 0 {
		return
	}
	set, at := k.early.set, k.early.at
	k.early = early{}
	c := a.circumstances
	c.Seen, c.WasFiltered, c.Backwards, c.Most = true, true, a.index >= maxIndex, len(set)
	if plausible(&k.cfg, set, a.set, diff(set, a.set), c).decision == accept {
		return
	}
	k.filtered, k.size, k.loss = true, len(set), recalled(set, k.env.Successes)
	k.log.Info(k.from+" lists too little of what an earlier run knew: asking those that are missing",
		"listed", len(a.set), "known", len(set), "age", max(0, k.env.Now().Sub(at)).Round(time.Second))
}

// Persist keeps what is believed of the service in store, in a file named after
// block, and starts from it when Consul is not there. It is called before the
// first Watch; store nil: nothing is kept.
func (c *Consul) Persist(store *Store, block string) {
	c.keep.keepOn(store, block, c.query.Service, c.query.fingerprint(c.cfg))
}
