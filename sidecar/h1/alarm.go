package h1

import (
	"context"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// alarm is the deadline of a connection without a timer of its own: arming is
// one store, and a reaper that walks over all alarms every reapEvery wakes the
// connection by a deadline in the past.
//
// set and off belong to the connection's owner; fire may come from anywhere.
type alarm struct {
	at    atomic.Int64 // engine clock; 0: off, fired: has struck
	conn  net.Conn
	owner *conn // whose client connection it is; nil: a backend's
	slot  int   // in the reaper; under its mu

	// A write that waits is not late while the peer takes bytes: the poller wakes
	// us only when megabytes have gone.
	sock    *sock
	idle    time.Duration // the most that is granted at once
	perByte time.Duration // what a byte earns; 0: idle for any
	last    atomic.Int64  // no grant goes beyond; 0: none such
}

const (
	fired     = -1
	reapEvery = 50 * time.Millisecond
)

var longAgo = time.Unix(1, 0) // read-only

// set arms the alarm, unless it has struck.
func (a *alarm) set(at time.Duration) {
	for {
		if old := a.at.Load(); old == fired || a.at.CompareAndSwap(old, int64(at)) {
			return
		}
	}
}

// off disarms it and reports whether the connection is still usable: once
// struck, its I/O fails for good.
func (a *alarm) off() bool {
	for {
		old := a.at.Load()
		if old == fired {
			return false
		}
		if a.at.CompareAndSwap(old, 0) {
			return true
		}
	}
}

// struck reports whether the alarm has gone off.
func (a *alarm) struck() bool { return a.at.Load() == fired }

// fire makes all I/O on the connection fail from now on.
func (a *alarm) fire() {
	a.at.Store(fired)
	_ = a.conn.SetDeadline(longAgo) // fails only on a closed connection
}

// grant puts off an alarm that is due, if it is for a write whose bytes the peer
// has been taking. Called by the reaper.
func (a *alarm) grant(at int64, now time.Duration) bool {
	last := time.Duration(a.last.Load())
	if a.sock == nil || last > 0 && now >= last {
		return false
	}
	n := a.sock.taken()
	if n <= 0 {
		return false
	}
	until := now + a.idle
	if a.perByte > 0 {
		until = min(until, time.Duration(at)+time.Duration(n)*a.perByte)
	}
	if last > 0 {
		until = min(until, last)
	}
	return until > now && a.at.CompareAndSwap(at, int64(until))
}

// reaper strikes alarms that are due, and looks after client connections that
// wait.
type reaper struct {
	now   func() time.Duration
	mu    sync.Mutex
	all   []*alarm
	wake  chan struct{}
	sweep []func(now time.Duration) // called every second
	// needed reports whether there is something to sweep without any alarm.
	needed func() bool
}

func newReaper(now func() time.Duration) *reaper {
	return &reaper{now: now, wake: make(chan struct{}, 1)}
}

func (r *reaper) add(a *alarm) {
	r.mu.Lock()
	a.slot = len(r.all)
	r.all = append(r.all, a)
	first := a.slot == 0
	r.mu.Unlock()
	if first {
		select {
		case r.wake <- struct{}{}:
		default:
		}
	}
}

func (r *reaper) remove(a *alarm) {
	r.mu.Lock()
	last := r.all[len(r.all)-1]
	r.all[a.slot], last.slot = last, a.slot
	r.all[len(r.all)-1] = nil
	r.all = r.all[:len(r.all)-1]
	r.mu.Unlock()
}

// run strikes until ctx ends. It sleeps while there is no connection at all.
func (r *reaper) run(ctx context.Context) {
	tick := time.NewTicker(reapEvery)
	defer tick.Stop()
	var swept time.Duration
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		now := r.now()
		if r.strike(now) == 0 && !r.needed() {
			tick.Stop()
			select {
			case <-ctx.Done():
				return
			case <-r.wake:
			}
			tick.Reset(reapEvery)
		}
		if now-swept >= time.Second {
			swept = now
			r.sweepAll(now)
		}
	}
}

func (r *reaper) strike(now time.Duration) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	patience := patienceIn(len(r.all))
	for _, a := range r.all {
		if a.owner != nil {
			a.owner.tick(now, patience)
		}
		at := a.at.Load()
		if at <= 0 || time.Duration(at) > now || a.grant(at, now) {
			continue
		}
		if a.at.CompareAndSwap(at, fired) {
			_ = a.conn.SetDeadline(longAgo)
		}
	}
	return len(r.all)
}

// each calls f with every client connection. f must not add or remove any.
func (r *reaper) each(f func(*conn)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, a := range r.all {
		if a.owner != nil {
			f(a.owner)
		}
	}
}

// onSweep registers f to be called about once a second while there are
// connections.
func (r *reaper) onSweep(f func(now time.Duration)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sweep = append(r.sweep, f)
}

func (r *reaper) sweepAll(now time.Duration) {
	r.mu.Lock()
	fs := r.sweep[:len(r.sweep):len(r.sweep)]
	r.mu.Unlock()
	for _, f := range fs {
		f(now)
	}
}
