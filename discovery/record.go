package discovery

import (
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
}

// status returns the record as of now.
func (r *record) status(now time.Time) Status {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.s
	s.Age = since(now, r.good)
	s.SinceChange = since(now, r.changed)
	s.LastErrorAge = since(now, r.erred)
	s.FailingFor = since(now, r.failingSince)
	s.HoldingFor = since(now, r.holdingSince)
	return s
}

func since(now, t time.Time) time.Duration {
	if t.IsZero() {
		return 0
	}
	return max(0, now.Sub(t))
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
}

// answer notes a read that was answered, believed or not.
func (r *record) answer(lastContact time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.s.AnswersTotal++
	r.s.LastContact = lastContact
	r.failingSince = time.Time{}
}

// hold notes an answer that was not believed.
func (r *record) hold(now time.Time, reason string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.s.HeldTotal++
	r.s.Current = false
	r.s.Holding = reason
	if r.holdingSince.IsZero() {
		r.holdingSince = now
	}
}

// believe notes an answer that was believed and, if it changed the set, that
// apply has returned.
func (r *record) believe(now time.Time, index uint64, instances, unusable int, changed bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.s.Seen, r.s.Current = true, true
	r.s.Index, r.s.Instances, r.s.Unusable = index, instances, unusable
	r.s.Holding, r.holdingSince = "", time.Time{}
	r.good = now
	if changed {
		r.s.UpdatesTotal++
		r.changed = now
	}
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
