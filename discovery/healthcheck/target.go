package healthcheck

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
)

// State is what the checks of an endpoint say.
type State uint8

const (
	Unknown State = iota // none has come to a result that counts; not Down
	Up
	Down
)

// String returns "unknown", "up" or "down".
func (s State) String() string {
	switch s {
	case Up:
		return "up"
	case Down:
		return "down"
	}
	return "unknown"
}

// Verdict is the state of an endpoint after a check.
type Verdict struct {
	Addr  string // of the instance; Config.Port may take the place of its port
	State State
	// Since is when State began, on Env.Now.
	Since time.Duration
	// Error is why the last check failed, one printable line of at most about 300 bytes;
	// "" where it did not.
	Error string
	// Unreachable says that the last check could not make a connection, TLS included.
	Unreachable bool
	Took        time.Duration // by the last check
}

// TargetStatus is what the checks of one target came to. Times are on Env.Now.
type TargetStatus struct {
	ID string
	// Verdict is the state now and the last check that said anything.
	Verdict
	Checks    uint64 // that were made, with or without a verdict
	Successes uint64
	Failures  uint64
	Unmade    uint64        // those without a verdict
	InARow    int           // successes or failures since the last of the other kind
	LastAt    time.Duration // end of the last check that said anything; 0: never
	// LastError is of the last check that failed or had no verdict; kept after recovery.
	LastError   string
	LastErrorAt time.Duration // 0: never
}

// target is one target's state and place in the schedule.
type target struct {
	Target
	c *Checker

	// Under Checker.mu.
	at      time.Duration // of the next check, or the one that runs
	index   int           // in Checker.due
	running bool
	parked  bool // in Checker.parked
	slow    bool // the last check ran into the timeout
	cancel  context.CancelFunc

	mu      sync.Mutex // guards below, and is held while the sink runs
	stopped bool
	ok      bool // the last result
	status  TargetStatus
	said    sparing
}

// stop ends a running check; when it returns the sink is not running and will not run
// again. Checker.mu is held.
func (t *target) stop() {
	t.mu.Lock()
	t.stopped = true
	t.mu.Unlock()
	if t.cancel != nil {
		t.cancel()
	}
}

func (t *target) snapshot() TargetStatus {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.status
	s.ID, s.Addr = t.ID, t.Addr
	return s
}

// settled reports whether the last result is what the state says.
func (t *target) settled() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.status.State == Up && t.ok || t.status.State == Down && !t.ok
}

// deliver takes a result in and tells the sink and the log of what it changes.
func (t *target) deliver(err error, begun, end time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.stopped {
		return
	}
	s := &t.status
	s.Checks++
	if err != nil {
		s.LastError, s.LastErrorAt = errorText(err), end
	}
	if errors.Is(err, ErrNoVerdict) {
		s.Unmade++
		return
	}
	before := s.Verdict
	s.LastAt, s.Took = end, end-begun
	s.Unreachable = Unreachable(err)
	s.Error = ""
	if err != nil {
		s.Error = s.LastError
	}
	if s.InARow++; t.ok != (err == nil) {
		s.InARow = 1
	}
	if t.ok = err == nil; t.ok {
		s.Successes++
	} else {
		s.Failures++
	}
	if s.State = t.next(); s.State != before.State {
		s.Since = end
	} else if s.State != Down || s.Unreachable == before.Unreachable {
		return
	}
	t.tell(before.State)
	t.c.sink(t.ID, s.Verdict)
}

// next is the state after the last result. t.mu is held.
func (t *target) next() State {
	s := &t.status
	switch {
	case t.ok && (s.State == Unknown || s.State == Down && s.InARow >= t.c.cfg.Rise):
		return Up
	case !t.ok && s.InARow >= t.c.cfg.Fall:
		return Down
	}
	return s.State
}

// tell logs a change: at most one a minute of an endpoint that comes and goes, and as
// many as lines lets through of all. t.mu is held.
func (t *target) tell(before State) {
	log := t.c.env.Logger
	switch s := t.status; {
	case s.State == before:
	case before == Unknown && s.State == Up:
		log.Debug("health checks find an endpoint well", "endpoint", t.ID, "address", t.Addr)
	case s.State == Down && t.said.may(s.Since):
		if t.said.on = t.c.lines.may(s.Since, log); t.said.on {
			log.Warn("health checks find an endpoint down", "endpoint", t.ID, "address", t.Addr, "failures", s.InARow, "error", s.Error)
		}
	case s.State == Up && t.said.on:
		t.said.on = false
		log.Info("health checks find an endpoint well again", "endpoint", t.ID, "address", t.Addr, "successes", s.InARow)
	}
}

// maxLines is how many endpoints may be said to be out in a minute.
const maxLines = 20

// lines keeps a fleet that goes down from filling the log. Safe for concurrent use.
type lines struct {
	mu    sync.Mutex
	begun time.Duration // of the minute
	n     int           // lines in it
}

// may reports whether there is room for a line, and says once where there is no more.
func (l *lines) may(now time.Duration, log hclog.Logger) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.n == 0 || now-l.begun >= sayEvery {
		l.begun, l.n = now, 0
	}
	l.n++
	if l.n == maxLines+1 {
		log.Warn("health checks take more endpoints out, which are not named; see the status")
	}
	return l.n <= maxLines
}

// sparing keeps what an endpoint can provoke from filling the log.
type sparing struct {
	on   bool // what was said last still holds
	used bool
	last time.Duration
}

// may reports whether it is time to say something again, and takes it that it is said.
func (p *sparing) may(now time.Duration) bool {
	if p.used && now-p.last < sayEvery {
		return false
	}
	p.on, p.used, p.last = true, true, now
	return true
}
