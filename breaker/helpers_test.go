package breaker

import (
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// world is the environment of breakers under test: a clock, chance, and a
// count of changes.
type world struct {
	clock   func() time.Duration
	rand    func(n uint32) uint32
	changes atomic.Int64
}

func least(uint32) uint32  { return 0 }
func most(n uint32) uint32 { return n - 1 }

// bubble runs f in virtual time. gobreaker reads the real clock for its open
// state's nanosecond, so the injected one and that of the bubble go together.
func bubble(t *testing.T, f func(t *testing.T, w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		f(t, &world{clock: func() time.Duration { return time.Since(start) + time.Second }, rand: least})
	})
}

func (w *world) env() Env {
	return Env{Now: w.clock, Rand: func(n uint32) uint32 { return w.rand(n) }, Changed: func() { w.changes.Add(1) }}
}

// one is an endpoint's breaker with others beside it, so that it may be
// ejected, and the clock and the test to hold it against.
type one struct {
	*Endpoint
	t     testing.TB
	w     *world
	guard *Guard
}

func (w *world) endpoint(t testing.TB, cfg Config) *one {
	g := NewGuard(cfg.MaxEjectedPercent)
	g.SetTotal(10)
	return &one{NewEndpoint(&cfg, g, w.env()), t, w, g}
}

// send admits a request and reports it at once.
func (o *one) send(verdicts ...Verdict) {
	o.t.Helper()
	for i, v := range verdicts {
		p, ok := o.Admit(o.w.clock())
		if !ok {
			o.t.Fatalf("request %d of %d was turned away, state %v", i+1, len(verdicts), o.State(o.w.clock()))
		}
		o.Report(p, v, o.w.clock())
	}
}

// want holds the state, and the guard's places, which go with it.
func (o *one) want(s State) {
	o.t.Helper()
	if got := o.State(o.w.clock()); got != s {
		o.t.Fatalf("state %v, want %v", got, s)
	}
	places := 1
	if s == Closed {
		places = 0
	}
	if o.guard.Ejected() != places {
		o.t.Fatalf("%d places of the guard taken while %v", o.guard.Ejected(), s)
	}
	if s == Open {
		if _, ok := o.Admit(o.w.clock()); ok {
			o.t.Fatal("admitted while open")
		}
	}
}

// openFor returns how long the breaker stays open from now.
func (o *one) openFor() time.Duration { return o.Until() - o.w.clock() }

// probe admits the one that tries, which must be there.
func (o *one) probe() Probe {
	o.t.Helper()
	p, ok := o.Admit(o.w.clock())
	if !ok || p.done == nil {
		o.t.Fatalf("no probe, state %v", o.State(o.w.clock()))
	}
	return p
}

// waitOut sleeps until the ejection has run out.
func (o *one) waitOut() {
	o.t.Helper()
	time.Sleep(o.openFor())
	o.want(HalfOpen)
}

// times repeats v n times.
func times[T any](n int, v ...T) (out []T) {
	for range n {
		out = append(out, v...)
	}
	return out
}
