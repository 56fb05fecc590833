package gauge

import (
	"context"
	"errors"
	"sync/atomic"
	"time"
)

// Pauses before a stream is opened (again). They start at the first figure, double with
// each failure in a row up to the last, and the upper half is random, so that the
// sidecars of one agent do not come back together.
const (
	// A new sidecar does not open all its streams at one moment.
	spread = 500 * time.Millisecond
	// The agent is away: its restart must not leave it blind for long.
	awayPause, awayMost = 250 * time.Millisecond, 10 * time.Second
	// The agent answers, but not so: an older version, or one that is full.
	refusedPause, refusedMost = 20 * time.Second, 80 * time.Second
	// A stream that lived for so long ends a row of failures.
	healthy = 10 * time.Second
)

// Gauge is one endpoint's.
type Gauge struct {
	s        *Sender
	id       string
	inFlight func() int

	queued  atomic.Bool // it is on the stack
	next    *Gauge      // who pushed it writes, who took the stack reads
	link    atomic.Pointer[link]
	retired atomic.Bool

	// Under Sender.mu: the stream there is or is to be; cancel is nil for none.
	addr   string
	cancel context.CancelFunc
}

// Changed is called after each change of the figure, by any goroutine. It does not
// block or allocate: with a change pending already, or without a stream, it is a load
// or two.
func (g *Gauge) Changed() {
	// The figure was changed before these loads. Who cleared queued, or set link and then
	// called this, reads it afterwards.
	if g.queued.Load() || g.link.Load() == nil || !g.queued.CompareAndSwap(false, true) {
		return
	}
	g.s.push(g)
}

// Retire is called when the endpoint has left. Its stream stays until nothing is in
// flight any more; once broken it does not come back.
func (g *Gauge) Retire() {
	g.retired.Store(true)
	g.s.mu.Lock()
	if g.s.current[g.id] == g {
		delete(g.s.current, g.id)
	}
	g.s.mu.Unlock()
	if g.link.Load() == nil {
		g.s.drop(g)
	}
	g.Changed() // at 0, it ends with the next flush
}

// keep has a stream for the gauge until ctx ends or it is retired.
func (g *Gauge) keep(ctx context.Context) {
	row := failures{g: g}
	for pause := g.s.uniform(spread); sleep(ctx, pause); pause = row.pause() {
		if g.retired.Load() {
			g.s.drop(g)
			return
		}
		began := g.s.env.Now()
		err := g.stream(ctx)
		if ctx.Err() != nil {
			return
		}
		row.note(err, g.s.env.Now()-began >= healthy)
	}
}

// stream opens one and has it used until it ends.
func (g *Gauge) stream(ctx context.Context) error {
	l, err := g.s.open(ctx, g.id)
	if err != nil {
		return err
	}
	defer l.close()
	stop := context.AfterFunc(ctx, func() { l.fail(ctx.Err()) })
	defer stop()
	g.s.mu.Lock()
	ended := ctx.Err() != nil
	if !ended { // else there may be another agent's by now
		g.link.Store(l)
	}
	g.s.mu.Unlock()
	if ended {
		return ctx.Err()
	}
	defer g.link.CompareAndSwap(l, nil)
	g.Changed()
	return l.wait()
}

// failures is a row of them, without a stream that worked in between.
type failures struct {
	g          *Gauge
	away       int
	refused    int
	complained bool
}

func (f *failures) note(err error, lived bool) {
	var r refusedError
	if errors.As(err, &r) {
		f.away = 0
		f.refused++
		if !f.complained {
			f.complained = true
			f.g.s.env.Logger.Warn("an agent takes no gauges; it is asked again from time to time",
				"endpoint", f.g.id, "agent", f.g.addrNow(), "error", err)
		}
		return
	}
	if lived {
		*f = failures{g: f.g}
	}
	f.refused = 0
	f.away++
	// That an agent is gone is said by its polls.
	f.g.s.env.Logger.Debug("a gauge stream ended", "endpoint", f.g.id, "error", err)
}

func (f *failures) pause() time.Duration {
	most := doubled(awayPause, f.away, awayMost)
	if f.refused > 0 {
		most = doubled(refusedPause, f.refused, refusedMost)
	}
	return most/2 + f.g.s.uniform(most/2)
}

// doubled returns d after the first of n failures, doubled with each further one.
func doubled(d time.Duration, n int, most time.Duration) time.Duration {
	for i := 1; i < n && d < most; i++ {
		d *= 2
	}
	return min(d, most)
}

func (g *Gauge) addrNow() string {
	g.s.mu.Lock()
	defer g.s.mu.Unlock()
	return g.addr
}

// uniform returns a duration in [0, d), in steps of a 2^20th of it.
func (s *Sender) uniform(d time.Duration) time.Duration {
	const steps = 1 << 20
	return time.Duration(float64(d) * float64(s.env.Rand(steps)) / steps)
}

// sleep reports whether ctx is still there after d.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
