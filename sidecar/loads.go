package sidecar

import (
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"

	"outrigger/agentstats"
	"outrigger/agentstats/orca"
	"outrigger/discovery"
	"outrigger/picker"
	"outrigger/sidecar/h1"
)

const (
	// adoptOne of this many reports of a broadcast have their in-flight adopted
	// (PICKING.md, "Polling"): else all sidecars act on the same news at once.
	adoptOne = 10
	// replays is for how long after a polled report an older one that was published
	// is told by the agent's clock: one that was set back must not silence it.
	replays = time.Minute
)

// loadsEnv is what loads get from their surroundings. Every field is needed.
type loadsEnv struct {
	Now      func() time.Duration
	Rand     func(n uint32) uint32
	InFlight func(id string) int64              // this sidecar's own, balance.Balancer.InFlight
	Set      func(id string, load *picker.Load) // balance.Balancer.SetLoad
	// Published is the age from which a published report does not count.
	Published time.Duration
	// After calls f once this long has passed; nil: time.AfterFunc.
	After func(d time.Duration, f func())
	Log   hclog.Logger
}

// loads makes one picture of each endpoint's load out of what comes of it: its
// agent's answers to polls, what its answers declare (ORCA), and reports that its
// agent publishes. Polls count before publications; what the better one does not
// tell is taken from the others. All methods are safe for concurrent use.
type loads struct {
	cfg ORCAConfig
	env loadsEnv

	mu    sync.RWMutex // guards byID and early
	byID  map[string]*endpointLoad
	early map[string]earlyReport // of IDs that are not in byID

	declared, refused atomic.Uint64 // headers that were believed, and that were not
	badPublished      atomic.Uint64
}

// loadStats counts what came besides polls.
type loadStats struct {
	Declared         uint64 // headers of answers that were read, of which each endpoint is heard at most every 10 ms
	DeclaredRefused  uint64 // of those that were not believed
	PublishedRefused uint64 // published reports that were not believed
}

// endpointLoad is what is known of one endpoint, as long as it keeps its address.
type endpointLoad struct {
	id, addr string

	mu          sync.Mutex // guards below, and is held while the balancer is told
	gone        bool       // it left: nothing more is said of it
	polled      *picker.Load
	polledAt    int64 // Report.At of it
	published   *picker.Load
	publishedAt int64  // Report.At of it
	adopted     flight // from a published report
	told        told
	epoch       string // newest known
	set         picker.Load
	waits       bool // for what was told to expire
	badHeader   bool // one that was not believed was logged
	badReport   bool // likewise, of what was published
}

// flight is a figure of requests in flight with when it was true. Zero: none.
type flight struct {
	n, own      float64
	at, expires time.Duration
}

// told is what the endpoint declared last. Zero: nothing.
type told struct {
	cpu, mem, err float64 // or picker.Absent
	flight        flight
	at, expires   time.Duration
}

func newLoads(cfg ORCAConfig, env loadsEnv) *loads {
	if env.After == nil {
		env.After = func(d time.Duration, f func()) { time.AfterFunc(d, f) }
	}
	return &loads{cfg: cfg, env: env, byID: map[string]*endpointLoad{}, early: map[string]earlyReport{}}
}

// stats returns the counts so far.
func (s *loads) stats() loadStats {
	return loadStats{s.declared.Load(), s.refused.Load(), s.badPublished.Load()}
}

// follow takes the full set of instances, after the balancer: it forgets those
// that left or moved, of which nothing is said to the balancer once it returns.
func (s *loads) follow(set []discovery.Instance) {
	for id, r := range s.swap(set) {
		s.publishAt(id, r.value, r.at)
	}
}

// swap takes the set in and returns what was published of those that are new.
func (s *loads) swap(set []discovery.Instance) map[string]earlyReport {
	s.mu.Lock()
	defer s.mu.Unlock()
	known := map[string]earlyReport{}
	next := make(map[string]*endpointLoad, len(set))
	for i := range set {
		id, addr := set[i].ID, set[i].HostPort()
		if next[id] != nil {
			continue // as in the balancer, the first counts
		}
		if e := s.byID[id]; e != nil && e.addr == addr {
			next[id] = e
		} else {
			next[id] = &endpointLoad{id: id, addr: addr}
		}
	}
	for id, e := range s.byID {
		if next[id] != e {
			e.mu.Lock()
			e.gone = true
			e.mu.Unlock()
		}
	}
	s.byID = next
	for id, r := range s.early {
		if next[id] != nil {
			known[id] = r
			delete(s.early, id)
		}
	}
	return known
}

// of returns an endpoint, locked, nil if it is not there.
func (s *loads) of(id string) *endpointLoad {
	s.mu.RLock()
	e := s.byID[id]
	s.mu.RUnlock()
	if e == nil {
		return nil
	}
	e.mu.Lock()
	if e.gone {
		e.mu.Unlock()
		return nil
	}
	return e
}

// poll takes the answer to a poll: it is the poller's sink.
func (s *loads) poll(id string, sample agentstats.Sample) {
	e := s.of(id)
	if e == nil {
		return
	}
	defer e.mu.Unlock()
	l := loadFrom(&sample.Report)
	l.At, l.Expires, l.OwnInFlight = sample.At, sample.At+sample.Expiry, float64(sample.OwnInFlight)
	e.lives(l.Epoch)
	e.polled, e.polledAt = l, sample.Report.At
	s.tell(e, true)
}

// publish takes a report that the endpoint's agent published, an untrusted
// value, or that it is gone.
func (s *loads) publish(id string, value []byte, gone bool) {
	now := s.env.Now()
	if s.keep(id, value, gone, now) {
		return
	}
	if !gone {
		s.publishAt(id, value, now)
		return
	}
	if e := s.of(id); e != nil {
		s.unpublish(e)
		e.mu.Unlock()
	}
}

// publishAt takes a published report that came at now.
func (s *loads) publishAt(id string, value []byte, now time.Duration) {
	r, err := agentstats.Decode(value)
	e := s.of(id)
	if e == nil {
		return
	}
	defer e.mu.Unlock()
	if _, service, ok := strings.Cut(id, "/"); ok && err == nil && r.Instance != "" && r.Instance != service {
		err = fmt.Errorf("it is about instance %q, not %q", r.Instance, service)
	}
	if err != nil {
		s.badPublished.Add(1)
		s.complain(&e.badReport, e.id, "the endpoint's published report is not believed", err)
		return
	}
	if e.polled != nil && now-e.polled.At < replays && r.At < e.polledAt {
		return // older than what was polled
	}
	if e.published != nil && now-e.published.At < replays && r.At < e.publishedAt {
		return // older than the last
	}
	l := loadFrom(&r)
	l.At, l.Expires = now, now+s.env.Published
	// The first may be what was there when the watcher began, of whatever age.
	if n := l.InFlight; n >= 0 && e.published != nil && s.env.Rand(adoptOne) == 0 {
		e.adopted = flight{n: n, own: float64(s.env.InFlight(id)), at: now, expires: l.Expires}
	}
	l.InFlight = picker.Absent
	e.lives(l.Epoch)
	e.published, e.publishedAt = l, r.At
	s.tell(e, false)
}

// unpublish forgets what was published. A picture that was made of it alone ends
// now, not when it would have expired. e.mu is held.
func (s *loads) unpublish(e *endpointLoad) {
	now := s.env.Now()
	e.published, e.adopted = nil, flight{}
	if _, ok := e.compose(now); ok || e.set.Expires <= now {
		s.tell(e, false)
		return
	}
	l := e.set
	l.Expires = max(now, l.At)
	e.set = l
	s.env.Set(e.id, &l)
}

// hear is what the engine tells of answers' headers; nil if that is not wanted.
func (s *loads) hear() h1.LoadFunc {
	if !s.cfg.Enabled {
		return nil
	}
	return s.declare
}

// declare takes what an answer of the endpoint says of its load.
func (s *loads) declare(ep *picker.Endpoint, now time.Duration, own int, value []byte) {
	r, err := orca.Parse(value, s.cfg.InFlight) // at the request's cost alone
	e := s.of(ep.ID)
	if e == nil {
		return
	}
	defer e.mu.Unlock()
	if e.addr != ep.Addr {
		return // a late answer of where the instance was before
	}
	if err != nil {
		s.refused.Add(1)
		s.complain(&e.badHeader, e.id, "the load that the endpoint declares in its answers is not believed", err)
		return
	}
	s.declared.Add(1)
	t := told{cpu: r.CPU, mem: picker.Absent, err: r.ErrShare(), at: now, expires: now + s.cfg.Expiry}
	if t.cpu > 1 {
		t.cpu = 1 // over a limit that only the backend knows
	}
	if s.cfg.Memory {
		t.mem = r.Mem
	}
	if r.InFlight >= 0 {
		t.flight = flight{n: r.InFlight, own: float64(own), at: now, expires: t.expires}
	}
	e.told = t
	s.tell(e, false)
	s.await(e, now)
}

// await has the picture made anew when what was told expires: the agent's figures
// then stand alone. e.mu is held.
func (s *loads) await(e *endpointLoad, now time.Duration) {
	if e.waits || e.told.expires <= now {
		return
	}
	e.waits = true
	s.env.After(e.told.expires-now, func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		e.waits = false
		if e.gone {
			return
		}
		if now := s.env.Now(); now < e.told.expires {
			s.await(e, now) // something was told meanwhile
		} else {
			s.tell(e, false)
		}
	})
}

// tell gives the balancer the endpoint's picture, if it is another than before;
// asked says that it comes of an answer to a poll. e.mu is held.
func (s *loads) tell(e *endpointLoad, asked bool) {
	l, ok := e.compose(s.env.Now())
	if !ok || l == e.set {
		return
	}
	e.set = l
	l.Unasked = !asked
	s.env.Set(e.id, &l)
}

// lives takes note of the process that the agent tells of: figures of the one
// before do not count any more. e.mu is held.
func (e *endpointLoad) lives(epoch string) {
	if epoch == "" || epoch == e.epoch {
		return
	}
	if e.epoch != "" {
		e.told, e.adopted = told{}, flight{}
		if e.published != nil && e.published.Epoch != epoch {
			e.published = nil // or its epoch would look like another restart
		}
	}
	e.epoch = epoch
}

// compose makes the picture out of what has not expired at now; false if there
// is nothing. e.mu is held.
func (e *endpointLoad) compose(now time.Duration) (picker.Load, bool) {
	t, base := e.told, e.polled
	if now >= t.expires {
		t = told{cpu: picker.Absent, mem: picker.Absent, err: picker.Absent}
	}
	if base == nil || now >= base.Expires {
		base = e.published
	}
	var l picker.Load
	switch {
	case base != nil && now < base.Expires:
		l = *base
	case t.flight.expires > 0 || t.err >= 0 || t.mem >= 0: // CPU alone would tell a policy nothing
		l = e.unheard(t)
	default:
		return l, false
	}
	fill := func(to *float64, with float64) {
		if *to < 0 && with >= 0 {
			*to, l.Expires = with, min(l.Expires, t.expires)
		}
	}
	fill(&l.CPU, t.cpu)
	fill(&l.Mem, t.mem)
	fill(&l.Err, t.err)
	if l.Epoch == "" {
		l.Epoch = e.epoch // so that the next life is seen to be another
	}
	if l.InFlight < 0 {
		f := e.adopted
		if f.expires <= now || t.flight.at >= f.at {
			f = t.flight
		}
		if f.expires > 0 {
			// A picture has one time, that of the figure which ages fastest.
			l.InFlight, l.OwnInFlight, l.At, l.Hearsay = f.n, f.own, f.at, true
			if f == t.flight {
				l.Expires = min(l.Expires, f.expires)
			}
		}
	}
	return l, true
}
