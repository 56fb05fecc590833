package discovery

import (
	"maps"
	"strings"
	"sync"
	"time"
	"unicode"
)

// record is a Status in the making: with times instead of ages. One goroutine
// writes it, any may read.
type record struct {
	mu sync.Mutex

	s                          Status
	good, changed, erred       time.Time
	failingSince, holdingSince time.Time
	stateSince                 time.Time
	set                        []Instance // the last that was believed
	seeded                     bool       // from a snapshot, and by nothing since
}

// status returns the record as of now.
func (r *record) status(now time.Time) Status {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.s
	if s.State == "" {
		s.State = Unknown
	}
	s.StateFor = since(now, r.stateSince)
	s.Age = since(now, r.good)
	if s.State == Snapshot {
		s.SnapshotAge = s.Age
	}
	s.SinceChange = since(now, r.changed)
	s.LastErrorAge = since(now, r.erred)
	s.FailingFor = since(now, r.failingSince)
	s.HoldingFor = since(now, r.holdingSince)
	s.DoubtsTotal = maps.Clone(s.DoubtsTotal)
	return s
}

func since(now, t time.Time) time.Duration {
	if t.IsZero() {
		return 0
	}
	return max(0, now.Sub(t))
}

func (r *record) become(now time.Time, s State) {
	if r.s.State != s {
		r.s.State, r.stateSince = s, now
	}
}

// begin notes that somebody waits for the service.
func (r *record) begin(now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.s.State == "" {
		r.become(now, Unknown)
	}
}

// fail notes a read that failed.
func (r *record) fail(now time.Time, text string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.s.ErrorsTotal++
	r.s.LastError, r.erred = text, now
	r.s.Current = false
	if r.failingSince.IsZero() {
		r.failingSince = now
	}
	switch {
	case !r.s.Seen:
		r.become(now, Unknown)
	case r.seeded:
		r.become(now, Snapshot)
	default:
		r.become(now, Failing)
	}
}

// answer notes a read that was answered, believed or not.
func (r *record) answer(lastContact time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.s.AnswersTotal++
	r.s.LastContact = lastContact
	r.failingSince = time.Time{}
}

// seed notes a set of that time that was applied.
func (r *record) seed(now, at time.Time, set []Instance) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.s.Seen, r.s.Instances = true, len(set)
	r.set, r.good, r.seeded = set, at, true
	r.s.UpdatesTotal++
	r.changed = now
	r.become(now, Snapshot)
}

// hold notes an answer that was not believed, or not all of it.
func (r *record) hold(now time.Time, s State, doubt string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.s.HeldTotal++
	r.doubt(now, s, doubt)
}

func (r *record) doubt(now time.Time, s State, doubt string) {
	r.s.Current = false
	if r.s.Doubt != doubt {
		r.s.Doubt, r.s.Holding = doubt, reason(doubt)
		if r.s.DoubtsTotal == nil {
			r.s.DoubtsTotal = make(map[string]uint64)
		}
		r.s.DoubtsTotal[doubt]++
	}
	if r.holdingSince.IsZero() {
		r.holdingSince = now
	}
	r.become(now, s)
}

// use notes that apply has returned from a set that is not the registry's alone.
func (r *record) use(now time.Time, instances, unlisted int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.s.Seen, r.s.Instances, r.s.Unlisted = true, instances, unlisted
	r.s.UpdatesTotal++
	r.changed = now
}

// probed notes a round of probes.
func (r *record) probed(alive, dead int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.s.ProbesAlive += uint64(alive)
	r.s.ProbesDead += uint64(dead)
}

// belief is an answer that was believed.
type belief struct {
	index    uint64
	set      []Instance
	unusable int
	changed  bool          // the set in use, and apply has returned
	age      time.Duration // how long ago it was known to be so
	late     bool          // that is too long for it to be current
}

// believe notes an answer that was believed.
func (r *record) believe(now time.Time, b belief) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.s.Seen = true
	r.s.Index, r.s.Instances, r.s.Unlisted, r.s.Unusable = b.index, len(b.set), 0, b.unusable
	if at := now.Add(-b.age); b.changed || r.seeded || at.After(r.good) {
		r.good = at // what was known of the same set later on still is
	}
	r.set, r.seeded = b.set, false
	if b.changed {
		r.s.UpdatesTotal++
		r.changed = now
	}
	if b.late {
		r.doubt(now, Doubted, doubtLagging)
		return
	}
	r.s.Current = true
	r.s.Holding, r.s.Doubt, r.holdingSince = "", "", time.Time{}
	if len(b.set) == 0 {
		r.become(now, Empty)
	} else {
		r.become(now, Current)
	}
}

// answered reports whether any answer was believed.
func (r *record) answered() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return !r.good.IsZero() && !r.seeded
}

// believed is keeper.believed.
func (r *record) believed() (set []Instance, index uint64, at time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.set, r.s.Index, r.good
}

// presentable makes an error's text fit for a line in logs, status and
// terminals: parts of it come from whoever answered. The token is not expected
// in it, and cut out if an answer repeats it.
func presentable(err error, token Secret) string {
	const limit = 400
	text := err.Error()
	if token != "" {
		text = strings.ReplaceAll(text, string(token), redacted)
	}
	text = strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return ' '
	}, strings.TrimSpace(text))
	if len(text) > limit {
		text = strings.ToValidUTF8(text[:limit], "") + "..."
	}
	return text
}
