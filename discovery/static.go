package discovery

import (
	"context"
	"slices"
	"strings"
	"sync"
)

// Static is a source whose set is given by the program. All methods may be
// called by any goroutine.
type Static struct {
	mu      sync.Mutex
	set     []Instance
	version uint64        // of set, from 1
	applied uint64        // version that was applied last
	updates uint64        // calls of apply
	changed chan struct{} // closed and replaced by Set
}

var _ Source = (*Static)(nil)

// NewStatic returns a source with this set. It trusts the caller: instances are
// not validated.
func NewStatic(instances []Instance) *Static {
	return &Static{set: byID(instances), version: 1, changed: make(chan struct{})}
}

// Set replaces the set. Watch applies it, or a newer one if Set was called
// again meanwhile.
func (s *Static) Set(instances []Instance) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.set = byID(instances)
	s.version++
	close(s.changed)
	s.changed = make(chan struct{})
}

func byID(instances []Instance) []Instance {
	set := slices.Clone(instances)
	slices.SortStableFunc(set, func(a, b Instance) int { return strings.Compare(a.ID, b.ID) })
	return set
}

// Watch implements Source.
func (s *Static) Watch(ctx context.Context, apply func([]Instance)) error {
	for done := uint64(0); ; {
		if err := ctx.Err(); err != nil {
			return err
		}
		s.mu.Lock()
		set, version, changed := s.set, s.version, s.changed
		s.mu.Unlock()
		if version != done {
			apply(set)
			done = version
			s.mu.Lock()
			s.applied = version
			s.updates++
			s.mu.Unlock()
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		}
	}
}

// Status implements Source. A static set has no age: all times are 0.
func (s *Static) Status() Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	return Status{
		Seen: s.applied > 0, Current: s.applied == s.version, Instances: len(s.set),
		Index: s.version, AnswersTotal: s.version, UpdatesTotal: s.updates,
	}
}
