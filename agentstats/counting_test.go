package agentstats

import (
	"context"
	"errors"
	"testing"
	"time"

	"outrigger/agentstats/declared"
	"outrigger/agentstats/sockets"
)

// The three that tell, as a test wants them to.
type (
	saysDeclared struct {
		f   declared.Figures
		err error
	}
	saysKernel struct {
		s       sockets.Sample
		err     error
		looks   int
		follows []int
	}
	saysBoard struct {
		sum     float64
		streams int
	}
)

func (d *saysDeclared) Read(context.Context) (declared.Figures, error) { return d.f, d.err }
func (d *saysDeclared) Close()                                         {}
func (k *saysKernel) follow(pid int)                                   { k.follows = append(k.follows, pid) }
func (k *saysKernel) close()                                           {}
func (k *saysKernel) sample(time.Time) (sockets.Sample, error) {
	k.looks++
	return k.s, k.err
}
func (b *saysBoard) Sum(time.Time) (float64, int, time.Duration) { return b.sum, b.streams, 0 }
func (b *saysBoard) Close()                                      {}

// TestWhoCounts: what the backend declares goes first, then the larger of kernel and
// gauges; what is too old, or unknown, does not count.
func TestWhoCounts(t *testing.T) {
	now := time.Unix(1000, 0)
	kernel := func(n float64, age time.Duration) *saysKernel {
		return &saysKernel{s: sockets.Sample{At: now.Add(-age), InFlight: n, Established: 10, AcceptQueue: 2, AcceptLimit: 128}}
	}
	tells := func(n float64, age time.Duration) *saysDeclared {
		return &saysDeclared{f: declared.Figures{At: now.Add(-age), InFlight: n, Err: declared.Absent}}
	}
	none := Opt[float64]{}
	unsure := kernel(5, 0)
	unsure.s.Unsure = 2
	for _, c := range []struct {
		name   string
		app    *saysDeclared
		kernel *saysKernel
		board  *saysBoard
		want   Opt[float64]
		source string
	}{
		{"nobody", nil, nil, nil, none, ""},
		{"the app, whatever others say", tells(3, 0), kernel(9, 0), &saysBoard{12, 2}, Some(3.0), SourceDeclared},
		{"the app says 0", tells(0, 0), kernel(9, 0), nil, Some(0.0), SourceDeclared},
		{"the app fails", &saysDeclared{err: errors.New("x")}, kernel(9, 0), nil, Some(9.0), SourceKernel},
		{"the app tells other things", tells(declared.Absent, 0), kernel(9, 0), nil, Some(9.0), SourceKernel},
		{"the kernel sees more", nil, kernel(9, 0), &saysBoard{5, 1}, Some(9.0), SourceKernel},
		{"the kernel sees less", nil, kernel(4, 0), &saysBoard{5, 1}, Some(5.0), SourceSidecars},
		{"no sidecar sends", nil, kernel(4, 0), &saysBoard{0, 0}, Some(4.0), SourceKernel},
		{"the kernel's is old", nil, kernel(4, 51*ms), &saysBoard{1, 3}, Some(1.0), SourceSidecars},
		{"only an old one", nil, kernel(4, 51*ms), &saysBoard{0, 0}, none, ""},
		{"only sidecars", nil, nil, &saysBoard{0, 3}, Some(0.0), SourceSidecars},
		{"a sidecar of three", nil, nil, &saysBoard{0, 1}, none, ""},
		{"a sidecar of three sees more", nil, kernel(4, 0), &saysBoard{6, 1}, Some(6.0), SourceSidecars},
		{"sidecars claim what ten connections may hold", nil, kernel(4, 0), &saysBoard{36, 3}, Some(36.0), SourceSidecars},
		{"sidecars claim more than that", nil, kernel(4, 0), &saysBoard{1e5, 3}, Some(36.0), SourceSidecars},
		{"sidecars claim more than an old count's connections", nil, kernel(4, 51*ms), &saysBoard{1e5, 3}, Some(36.0), SourceSidecars},
		{"nobody knows the connections", nil, nil, &saysBoard{1e5, 3}, Some(1e5), SourceSidecars},
		{"the kernel is unsure", nil, unsure, &saysBoard{2, 3}, Some(2.0), SourceSidecars},
		{"the kernel is unsure, and nobody else knows", nil, unsure, nil, none, ""},
	} {
		n := &counting{now: func() time.Time { return now }, log: new(log).logger(), polling: func() int64 { return 3 }}
		if c.app != nil {
			n.declared = c.app
		}
		if c.kernel != nil {
			n.conns = c.kernel
		}
		if c.board != nil {
			n.board = c.board
		}
		l := n.look()
		if l.InFlight != c.want || l.Source != c.source {
			t.Errorf("%s: %+v, want %v by %q", c.name, l, c.want, c.source)
		}
		if queue, ok := l.AcceptQueue.Get(); (c.kernel != nil) != ok || ok && (queue != 2 || l.AcceptLimit != Some(int64(128))) {
			t.Errorf("%s: accept queue %+v", c.name, l)
		}
	}
}

// TestCountsAreShared: polls at once are answered by one look, later ones by another.
func TestCountsAreShared(t *testing.T) {
	now := time.Unix(1000, 0)
	k := &saysKernel{}
	c := &counting{now: func() time.Time { return now }, conns: k, log: new(log).logger()}
	for _, step := range []struct {
		after time.Duration
		looks int
	}{{0, 1}, {0, 1}, {7 * ms, 1}, {2 * ms, 2}, {8 * ms, 3}} {
		now = now.Add(step.after)
		k.s = sockets.Sample{At: now, InFlight: float64(k.looks)}
		if l := c.look(); k.looks != step.looks || l.InFlight != Some(float64(step.looks-1)) {
			t.Errorf("at %v: %d looks, want %d; %+v", now, k.looks, step.looks, l)
		}
	}
}

// TestConcOfCounts: the concurrency comes of what was in flight over the windows, and
// is forgotten with the backend's life.
func TestConcOfCounts(t *testing.T) {
	now := time.Unix(1000, 0)
	k := &saysKernel{}
	c := &counting{now: func() time.Time { return now }, conns: k, log: new(log).logger()}
	window := func(epoch string) {
		for range 10 {
			now = now.Add(25 * ms)
			k.s = sockets.Sample{At: now, InFlight: 10}
			c.look()
		}
		r := Report{Epoch: epoch, Used: Some(0.5), Avail: Some(2.0), Cores: Some(2.0)}
		c.tick(now, &r, 7)
		now = now.Add(5 * ms)
		k.s.At = now
	}
	for range 4 {
		window("1")
	}
	// 10 requests keep half a core busy, so 40 do two.
	if got := c.look().Conc.Or(-1); got < 39 || got > 41 {
		t.Errorf("conc %v, want 40", got)
	}
	now = now.Add(5 * ms)
	k.s.At = now
	c.tick(now, &Report{Epoch: "2"}, 8)
	now = now.Add(5 * ms)
	k.s.At = now
	if l := c.look(); !l.Conc.IsZero() || l.InFlight != Some(10.0) {
		t.Errorf("of the next life: %+v", l)
	}
	if n := len(k.follows); k.follows[0] != 7 || k.follows[n-1] != 8 {
		t.Errorf("followed %v", k.follows)
	}
}

// TestKernelFailsOnce: why the kernel does not tell is logged when that changes.
func TestKernelFailsOnce(t *testing.T) {
	now := time.Unix(1000, 0)
	var out log
	k := &saysKernel{err: errors.New("no sock_diag here")}
	c := &counting{now: func() time.Time { return now }, conns: k, log: out.logger()}
	for range 3 {
		now = now.Add(10 * ms)
		if l := c.look(); l != (Live{}) {
			t.Errorf("%+v without a source", l)
		}
	}
	k.err = nil
	now = now.Add(10 * ms)
	k.s.At = now
	if l := c.look(); l.Source != SourceKernel {
		t.Errorf("%+v after it came back", l)
	}
	if out.count("no sock_diag here") != 1 || out.count("tells of the backend's connections again") != 1 {
		t.Errorf("logged:\n%s", out.buf.String())
	}
}

// TestLyingSidecarsAreNamed: once, however often they claim what cannot be.
func TestLyingSidecarsAreNamed(t *testing.T) {
	now := time.Unix(1000, 0)
	var out log
	k := &saysKernel{s: sockets.Sample{At: now, InFlight: 1, Established: 2}}
	c := &counting{now: func() time.Time { return now }, conns: k, board: &saysBoard{500, 1}, log: out.logger()}
	for range 3 {
		now = now.Add(10 * ms)
		k.s.At = now
		if l := c.look(); l.InFlight != Some(20.0) {
			t.Errorf("%+v, want 20: twice the connections, and 16", l)
		}
	}
	if out.count("claim more requests") != 1 || out.count("claimed=500") != 1 {
		t.Errorf("logged:\n%s", out.buf.String())
	}
}

// TestNobodyAsks: an agent that nobody asks does not look at the backend's connections,
// and what it saw before does not count for the time between.
func TestNobodyAsks(t *testing.T) {
	now := time.Unix(1000, 0)
	k := &saysKernel{}
	c := &counting{now: func() time.Time { return now }, conns: k, log: new(log).logger()}
	tick := func() {
		now = now.Add(250 * ms)
		k.s = sockets.Sample{At: now, InFlight: 10}
		c.tick(now, &Report{Used: Some(0.5), Avail: Some(2.0), Cores: Some(2.0)}, 7)
	}
	tick()
	if k.looks != 0 {
		t.Errorf("%d looks before anybody asked", k.looks)
	}
	c.look()
	for range 8 {
		tick()
	}
	if k.looks != 9 {
		t.Errorf("%d looks, want 9", k.looks)
	}
	now = now.Add(2 * time.Minute)
	tick()
	if k.looks != 9 || c.inFlight != (meanGauge{}) {
		t.Errorf("%d looks two minutes after the last question, mean %+v", k.looks, c.inFlight)
	}
}

// TestDeclaredStands: while the app must not be asked again, what it said last stands;
// the kernel, which counts other things, does not take its place.
func TestDeclaredStands(t *testing.T) {
	now := time.Unix(1000, 0)
	app := &saysDeclared{f: declared.Figures{At: now, InFlight: 7, Err: 0.1}}
	k := &saysKernel{}
	c := &counting{now: func() time.Time { return now }, declared: app, conns: k, log: new(log).logger()}
	look := func(after time.Duration) Live {
		now = now.Add(after)
		k.s = sockets.Sample{At: now, InFlight: 3}
		return c.look()
	}
	look(0)
	app.err = declared.ErrStale
	if l := look(100 * ms); l.InFlight != Some(7.0) || l.Source != SourceDeclared || c.err != Some(0.1) {
		t.Errorf("100 ms later: %+v, errors %v", l, c.err)
	}
	if l := look(100 * ms); l.InFlight != Some(3.0) || l.Source != SourceKernel || !c.err.IsZero() {
		t.Errorf("when it is too old: %+v, errors %v", l, c.err)
	}
	app.err = errors.New("refused")
	if l := look(10 * ms); l.Source != SourceKernel {
		t.Errorf("when the app is gone: %+v", l)
	}
}
