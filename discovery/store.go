package discovery

import (
	"context"
	"errors"
	"io/fs"
	"math/rand/v2"
	"path/filepath"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	"outrigger/discovery/statefile"
)

const (
	snapshotSuffix = ".snapshot"
	// Hundreds of services that change at once are not to hold up the disk.
	writeSpacing = 50 * time.Millisecond
	// confirmEvery is how often the time of the last belief is written, alone.
	confirmEvery = 5 * time.Minute
	// lastWrite bounds writing when a source ends: a disk that hangs is not to
	// hang the sidecar.
	lastWrite = time.Second
	// A temporary file of another process that is older than this is nobody's.
	leftover = time.Minute
)

// Store keeps the believed sets of services on disk, one file each. It is shared
// by all sources of a sidecar; all methods may be called by any goroutine. A nil
// *Store keeps nothing.
type Store struct {
	dir string
	env Env
	log hclog.Logger

	turn  chan struct{} // held by the one who writes
	last  time.Time     // end of the last write; held by turn
	wrong bool          // the last write failed; held by turn
	write func(dir, name string, payload []byte) error

	mu         sync.Mutex
	ending     context.Context // of the last writes of all that end together; nil: none does
	ended      context.CancelFunc
	unfinished int  // how many of these are not done
	told       bool // that they come too late
}

// NewStore keeps snapshots in the folder "discovery" of stateDir, which is made
// when it is first needed; stateDir "" is no Store. Of env it uses Logger, Now and
// Rand.
func NewStore(stateDir string, env Env) *Store {
	if stateDir == "" {
		return nil
	}
	env = env.orDefault()
	s := &Store{
		dir: filepath.Join(stateDir, "discovery"), env: env, log: env.Logger,
		turn: make(chan struct{}, 1), write: statefile.Write,
	}
	if n, err := statefile.Sweep(s.dir, snapshotSuffix, env.Now().Add(-leftover)); n > 0 || err != nil {
		s.log.Debug("unfinished snapshots removed", "dir", s.dir, "files", n, "error", err)
	}
	return s
}

// put writes one file. It waits for its turn, and, unless the program ends, keeps
// a distance to the write before.
func (s *Store) put(ctx context.Context, name string, payload []byte, ending bool) error {
	select {
	case s.turn <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-s.turn }()
	if !ending {
		if err := sleep(ctx, writeSpacing-s.env.Now().Sub(s.last)); err != nil {
			return err
		}
	}
	err := s.write(s.dir, name, payload)
	s.last = s.env.Now()
	switch {
	case err != nil && !s.wrong:
		// Once for all services: it is one disk.
		s.log.Warn("cannot write what is known of a service: a restart while Consul is down would not know it", "error", err)
	case err == nil && s.wrong:
		s.log.Info("what is known of services can be written again", "dir", s.dir)
	}
	s.wrong = err != nil
	return err
}

// DiskStatus is what a source has on disk.
type DiskStatus struct {
	Writes      uint64 `json:"writes_total"`       // snapshots written
	WriteErrors uint64 `json:"write_errors_total"` // writes that failed
	ReadErrors  uint64 `json:"read_errors_total"`  // snapshots that were there and could not be used
	Bytes       int    `json:"bytes"`              // of the last one that was written or read, 0: none
	// Age is the time since what the file says was last known to be so, 0: there
	// is no file.
	Age time.Duration `json:"age"`
}

// saver keeps what one keeper believes in a Store. A nil *saver keeps nothing.
type saver struct {
	store         *Store
	believed      func() (set []Instance, index uint64, at time.Time) // at zero: nothing yet
	service       string
	name          string // of the file
	query         string
	interval, max time.Duration
	log           hclog.Logger
	wake          chan struct{}

	mu        sync.Mutex
	loaded    bool
	saved     []Instance // what the file holds
	has       bool       // there is a file, and it is of this query
	written   time.Time  // or tried to
	confirmed time.Time  // as the file says it
	status    DiskStatus
}

func newSaver(store *Store, block, service, query string, cfg Config, log hclog.Logger) *saver {
	return &saver{
		store: store, service: service, name: statefile.Name(block, snapshotSuffix), query: query,
		interval: cfg.SnapshotInterval, max: cfg.SnapshotMaxAge, log: log, wake: make(chan struct{}, 1),
	}
}

// load returns what the disk knows, the first time that it is called: a set that
// is not empty and when it was last believed.
func (s *saver) load() (set []Instance, confirmed time.Time, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.loaded {
		return nil, time.Time{}, false
	}
	s.loaded = true
	path := filepath.Join(s.store.dir, s.name)
	payload, changed, err := statefile.Read(s.store.dir, s.name, maxSnapshot)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, time.Time{}, false
	}
	var snap snapshot
	if err == nil {
		snap, set, err = decodeSnapshot(payload, s.query)
	}
	if err != nil {
		s.status.ReadErrors++
		s.log.Warn("not using what the disk knows of the service", "file", path, "error", presentable(err, ""))
		return nil, time.Time{}, false
	}
	s.saved, s.has, s.status.Bytes = set, true, len(payload)
	now := s.store.env.Now()
	confirmed = snap.Confirmed
	if changed.After(confirmed) && !changed.After(now) {
		confirmed = changed // Touch says that it was so later on too
	}
	if confirmed.After(now) {
		// The clock was wrong then or is now. It is better than nothing.
		s.log.Warn("what the disk knows of the service is of the future: its age is unknown", "file", path, "confirmed", confirmed)
		confirmed = now
	}
	s.confirmed = confirmed
	if age := now.Sub(confirmed); age > s.max {
		s.log.Warn("not using what the disk knows of the service: it is too old", "file", path, "age", age.Round(time.Second), "snapshot_max_age", s.max)
		return nil, time.Time{}, false
	}
	return set, confirmed, len(set) > 0
}

// poke says that something was believed, changed or not. It does not wait.
func (s *saver) poke() {
	if s == nil {
		return
	}
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// run writes what is believed until ctx ends.
func (s *saver) run(ctx context.Context) {
	confirm := time.NewTicker(confirmEvery)
	defer confirm.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.wake:
			if !s.dirty() {
				continue
			}
			if sleep(ctx, s.pause()) != nil {
				return
			}
			if s.save(ctx, false) != nil {
				s.poke() // once more after the next interval
			}
		case <-confirm.C:
			s.confirm()
		}
	}
}

// dirty reports whether the file does not hold what is believed.
func (s *saver) dirty() bool {
	set, _, at := s.believed()
	s.mu.Lock()
	defer s.mu.Unlock()
	return !at.IsZero() && (!s.has || !diff(s.saved, set).none())
}

// pause is how long the next write has to wait: the interval, give or take a fifth
// so that services that changed together part.
func (s *saver) pause() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.written.IsZero() {
		return 0
	}
	spread := time.Duration((0.8 + 0.4*s.store.env.Rand()) * float64(s.interval))
	return s.written.Add(spread).Sub(s.store.env.Now())
}

// save writes what is believed if the file does not hold it.
func (s *saver) save(ctx context.Context, ending bool) error {
	if !s.dirty() {
		return nil
	}
	set, index, at := s.believed()
	payload, err := encodeSnapshot(snapshot{
		Service: s.service, Query: s.query, Written: s.store.env.Now(), Confirmed: at, Index: index,
	}, set)
	if err != nil {
		s.log.Warn("cannot write what is known of the service", "error", err)
	} else if err = s.store.put(ctx, s.name, payload, ending); err != nil && ctx.Err() != nil && errors.Is(err, ctx.Err()) {
		return err // it did not come to writing
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.written = s.store.env.Now()
	if err != nil {
		s.status.WriteErrors++
		return err
	}
	s.saved, s.has, s.confirmed = set, true, at
	s.status.Writes++
	s.status.Bytes = len(payload)
	return nil
}

// confirm writes the time of the last belief if the file holds what is believed.
func (s *saver) confirm() {
	_, _, at := s.believed()
	same := !s.dirty()
	s.mu.Lock()
	due := s.has && same && at.After(s.confirmed)
	s.mu.Unlock()
	if !due {
		return
	}
	err := statefile.Touch(s.store.dir, s.name, at)
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil {
		s.confirmed = at
		return
	}
	s.status.WriteErrors++
	s.has = false // somebody removed it: write it again
	s.poke()
}

// finish writes what the end came before, once run has ended.
func (s *saver) finish(ran <-chan struct{}) {
	ctx := s.store.end()
	done := make(chan struct{})
	go func() {
		defer close(done)
		<-ran
		s.confirm()
		_ = s.save(ctx, true) // logged and counted there
	}()
	select {
	case <-done:
		s.store.done(false)
	case <-ctx.Done():
		s.store.done(true)
	}
}

// end begins a last write. One deadline is for all that end together: they write
// one after the other.
func (s *Store) end() context.Context {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ending == nil {
		s.ending, s.ended = context.WithTimeout(context.Background(), lastWrite)
		s.told = false
	}
	s.unfinished++
	return s.ending
}

// done ends one, which may have come too late.
func (s *Store) done(late bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if late && !s.told {
		s.told = true
		s.log.Warn("the disk takes too long: what was learnt last of some services is not written", "services", s.unfinished, "dir", s.dir)
	}
	if s.unfinished--; s.unfinished == 0 {
		s.ended()
		s.ending = nil
	}
}

// disk returns the state of the file.
func (s *saver) disk(now time.Time) DiskStatus {
	if s == nil {
		return DiskStatus{}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	st := s.status
	if s.has {
		st.Age = since(now, s.confirmed)
	}
	return st
}

// orDefault fills in what is not given.
func (e Env) orDefault() Env {
	if e.Logger == nil {
		e.Logger = hclog.NewNullLogger()
	}
	if e.Now == nil {
		e.Now = time.Now
	}
	if e.Rand == nil {
		e.Rand = rand.Float64
	}
	return e
}
