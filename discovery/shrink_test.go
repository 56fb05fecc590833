package discovery

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

func listOf(ids ...string) []Instance {
	var out []Instance
	for _, id := range ids {
		out = append(out, Instance{ID: id, Address: id, Port: 80, Weight: 1})
	}
	return out
}

func noneServed(string) uint64 { return 0 }

func TestTooFew(t *testing.T) {
	for _, c := range []struct {
		shrink  float64
		most, n int
		want    bool
	}{
		{0.5, 0, 0, false}, {0.5, 1, 0, true}, {0.5, 1, 1, false}, {0.5, 2, 1, false}, {0.5, 3, 1, true}, {0.5, 3, 2, false},
		{0.5, 10, 5, false}, {0.5, 10, 4, true}, {0.5, 10, 12, false},
		{0, 10, 9, true}, {0, 10, 10, false}, {0, 10, 11, false}, {0, 1, 0, true},
		{1, 10, 1, false}, {1, 10, 0, true},
		{0.7, 10, 3, false}, {0.7, 10, 2, true}, {0.9, 10, 1, false}, {0.1, 10, 9, false}, {0.3, 10, 7, false},
	} {
		if got := tooFew(c.shrink, c.most, c.n); got != c.want {
			t.Errorf("shrink %v: %d of %d: %v", c.shrink, c.n, c.most, got)
		}
	}
}

func TestPeaks(t *testing.T) {
	t0 := time.Unix(1e9, 0)
	at := func(s int) time.Time { return t0.Add(time.Duration(s) * time.Second) }
	var p peaks
	p = p.replaced(at(0), 10, time.Minute)
	p = p.replaced(at(10), 6, time.Minute)
	p = p.replaced(at(20), 4, time.Minute)
	for s, want := range map[int]int{20: 10, 59: 10, 60: 6, 69: 6, 70: 4, 79: 4, 80: 3, 1000: 3} {
		if got := p.most(at(s), 3); got != want {
			t.Errorf("after %d s: %d, want %d", s, got, want)
		}
	}
	if got := p.most(at(30), 12); got != 12 {
		t.Errorf("grown beyond: %d", got)
	}
	p = p.replaced(at(30), 8, time.Minute) // after it had grown to 8
	if len(p) != 2 || p.most(at(65), 1) != 8 || p.most(at(89), 1) != 8 || p.most(at(90), 1) != 1 {
		t.Errorf("peaks %v", p)
	}
}

// TestSettle is the table of endings. Each step is a round, at that second.
func TestSettle(t *testing.T) {
	type step struct {
		at     int
		listed []Instance
		alive  string // IDs, one letter each; the others miss a probe
	}
	a, ab := listOf("a"), listOf("a", "b")
	cfg := DefaultConfig()
	cfg.EmptyHold = time.Hour
	for name, c := range map[string]struct {
		steps []step
		want  ending
		state State
		doubt string
	}{
		"one miss is not dead":     {[]step{{0, a, ""}}, goesOn, Doubted, doubtShrunk},
		"two misses are":           {[]step{{0, a, ""}, {2, a, ""}}, proven, Doubted, doubtShrunk},
		"one lives":                {[]step{{0, a, "c"}, {2, a, "c"}}, goesOn, Kept, doubtShrunkAlive},
		"two misses, not in a row": {[]step{{0, a, ""}, {2, a, "bcd"}, {4, a, ""}}, goesOn, Doubted, doubtShrunk},
		"repeated":                 {[]step{{0, a, "c"}, {30, a, "c"}, {60, a, "c"}}, repeated, Kept, doubtShrunkAlive},
		"repeated, too soon":       {[]step{{0, a, "c"}, {30, a, "c"}, {59, a, "c"}}, goesOn, Kept, doubtShrunkAlive},
		"repeated too seldom":      {[]step{{0, a, "c"}, {60, a, "c"}}, goesOn, Kept, doubtShrunkAlive},
		"another list":             {[]step{{0, a, "c"}, {30, a, "c"}, {60, ab, "c"}}, goesOn, Kept, doubtShrunkAlive},
		"one of them instead":      {[]step{{0, a, "bcd"}, {30, a, "bcd"}, {60, listOf("b"), "acd"}}, goesOn, Kept, doubtShrunkAlive},
		"a later loss":             {[]step{{0, ab, "cd"}, {30, a, "bcd"}, {60, a, "bcd"}}, goesOn, Kept, doubtShrunkAlive},
		"all repeated":             {[]step{{0, ab, "cd"}, {30, a, "bcd"}, {60, a, "bcd"}, {90, a, "bcd"}}, repeated, Kept, doubtShrunkAlive},
		"from empty to one":        {[]step{{0, nil, "c"}, {30, nil, "c"}, {600, a, "c"}, {602, a, "c"}, {604, a, "c"}}, goesOn, Kept, doubtShrunkAlive},
		"empty, all dead at once":  {[]step{{0, nil, ""}, {5, nil, ""}}, goesOn, Doubted, doubtEmpty},
		"empty, all dead for 10s":  {[]step{{0, nil, ""}, {5, nil, ""}, {10, nil, ""}}, proven, Doubted, doubtEmpty},
		"empty, dead since lately": {[]step{{0, nil, "c"}, {20, nil, ""}, {25, nil, ""}}, goesOn, Doubted, doubtEmpty},
		"empty, but they live":     {[]step{{0, nil, "c"}, {60, nil, "c"}, {3599, nil, "c"}}, goesOn, Kept, doubtAlive},
		"empty hold is over":       {[]step{{0, nil, "c"}, {60, nil, "c"}, {3600, nil, "c"}}, expired, Kept, doubtAlive},
	} {
		t0 := time.Unix(1e9, 0)
		l, inUse := new(loss), listOf("a", "b", "c", "d")
		var got ending
		for _, s := range c.steps {
			now := t0.Add(time.Duration(s.at) * time.Second)
			l.take(now, s.listed, inUse, noneServed)
			p := prober{func(_ context.Context, i Instance) error {
				if slices.Contains([]byte(s.alive), i.ID[0]) {
					return nil
				}
				return syscall.ECONNREFUSED
			}, NewProbeLimit(maxProbes), noneServed, time.Second, func() float64 { return 0 }}
			p.round(t.Context(), now, l.lost)
			got = l.settle(now, &cfg)
		}
		if state, doubt := l.state(); got != c.want || state != c.state || doubt != c.doubt {
			t.Errorf("%s: ending %d, %s, %s; want %d, %s, %s", name, got, state, doubt, c.want, c.state, c.doubt)
		}
	}
}

func TestPauseStopsTheClock(t *testing.T) {
	cfg := DefaultConfig()
	l, now := new(loss), time.Unix(1e9, 0)
	step := func(after time.Duration, want ending, gone time.Duration) {
		t.Helper()
		now = now.Add(after)
		l.take(now, listOf("a"), listOf("a", "b", "c"), noneServed)
		if got := l.settle(now, &cfg); got != want || l.lost[0].gone != gone {
			t.Errorf("ending %d, want %d; gone for %s, want %s", got, want, l.lost[0].gone, gone)
		}
	}
	step(0, goesOn, 0)
	step(40*time.Second, goesOn, 40*time.Second)
	l.pause() // nobody knows what was listed in these 10 minutes
	step(10*time.Minute, goesOn, 40*time.Second)
	step(19*time.Second, goesOn, 59*time.Second)
	step(time.Second, repeated, time.Minute)
	// Nothing listed is another claim.
	l.take(now.Add(time.Second), nil, listOf("a", "b", "c"), noneServed)
	step(2*time.Second, goesOn, 0)
}

func TestNextPause(t *testing.T) {
	cfg := DefaultConfig()
	asked := time.Unix(1e9, 0)
	in := func(listed []Instance, lost ...lost) *loss { return &loss{listed: listed, lost: lost} }
	live, ill, dead := lost{probed: asked, alive: true}, lost{probed: asked, misses: 1}, lost{probed: asked, misses: 2}
	for name, c := range map[string]struct {
		l    *loss
		want []time.Duration
	}{
		"some listed":    {in(listOf("a"), live), []time.Duration{2e9, 2e9, 2e9}},
		"nobody answers": {in(nil, dead, ill), []time.Duration{2500e6, 2500e6, 2500e6}},
		"all answer":     {in(nil, live, live), []time.Duration{2e9, 4e9, 8e9, 15e9, 15e9}},
		"one may be ill": {in(nil, live, ill), []time.Duration{2e9, 2e9}},
		"not all asked":  {in(nil, live, lost{}), []time.Duration{0, 0}},
	} {
		for n, want := range c.want {
			if got := c.l.next(&cfg); got != want {
				t.Errorf("%s: pause %d is %s, want %s", name, n, got, want)
			}
		}
	}
	l := in(nil, live)
	l.rounds = 1 << 40
	if got := l.next(&cfg); got != 15*time.Second {
		t.Errorf("after many rounds: %s", got)
	}
}

func TestRoundIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var running, most, total atomic.Int64
		p := prober{func(ctx context.Context, _ Instance) error {
			most.Store(max(most.Load(), running.Add(1)))
			total.Add(1)
			<-ctx.Done() // a black hole
			running.Add(-1)
			return ctx.Err()
		}, NewProbeLimit(maxProbes), noneServed, time.Second, func() float64 { return 0.5 }}
		var all []lost
		for i := range 1000 {
			all = append(all, lost{Instance: Instance{ID: fmt.Sprint(i)}})
		}
		start := time.Now()
		for n := range 8 { // 4 rounds reach everybody, 4 more twice
			alive, dead := p.round(t.Context(), time.Now(), all)
			if n < 3 && dead != maxRound || alive != 0 {
				t.Errorf("round %d: %d alive, %d dead", n, alive, dead)
			}
		}
		if most.Load() > maxProbes || total.Load() > 8*maxRound {
			t.Errorf("%d probes at once, %d in all", most.Load(), total.Load())
		}
		if took := time.Since(start); took > 8*(8*time.Second+probeJitter) {
			t.Errorf("took %s", took)
		}
		for _, x := range all {
			if x.misses < 1 {
				t.Fatalf("%s was asked %d times", x.ID, x.misses)
			}
		}
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(10*time.Millisecond, cancel)
		start = time.Now()
		before := slices.Clone(all)
		p.round(ctx, start, all)
		if took := time.Since(start); took > 200*time.Millisecond {
			t.Errorf("ended %s after it was to", took)
		}
		for i := range all {
			if all[i].misses != before[i].misses {
				t.Fatal("a round that was broken off counts")
			}
		}
	})
}

// TestProbesShareALimit: who gets no slot gets no verdict, and who gets one late
// has as long to answer as others.
func TestProbesShareALimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		limit := NewProbeLimit(2)
		var running, most atomic.Int64
		one := func(takes time.Duration, out *[]lost, done chan<- struct{}) {
			p := prober{func(ctx context.Context, _ Instance) error {
				most.Store(max(most.Load(), running.Add(1)))
				defer running.Add(-1)
				return sleep(ctx, takes)
			}, limit, noneServed, time.Second, func() float64 { return 0 }}
			p.round(t.Context(), time.Now(), *out)
			done <- struct{}{}
		}
		a, b := make([]lost, 4), make([]lost, 4)
		done := make(chan struct{})
		go one(700*time.Millisecond, &a, done)
		go one(700*time.Millisecond, &b, done)
		<-done
		<-done
		alive := 0
		for _, x := range slices.Concat(a, b) {
			if x.misses > 0 {
				t.Errorf("%+v: it waited for a slot and counts as dead", x)
			}
			if x.alive {
				alive++
			}
		}
		if most.Load() != 2 || alive < 4 || alive == 8 {
			t.Errorf("%d at once, %d of 8 answered", most.Load(), alive)
		}
	})
}

// TestNotLost: what was on its way out, and what is listed under another ID, does
// not count.
func TestNotLost(t *testing.T) {
	inUse := listOf("a", "b", "c", "d", "e")
	inUse[0].Weight = 0
	inUse[1].Health = Maintenance
	inUse[2].Health = Critical
	again := listOf("d")
	again[0].ID = "new"
	l := new(loss)
	l.take(time.Unix(1e9, 0), again, inUse, noneServed)
	if set, _ := l.union(nil); ids(set) != "c? e? new" {
		t.Errorf("union %q", ids(set))
	}
}

func TestRoundSpacing(t *testing.T) {
	all := []lost{{Instance: Instance{ID: "a"}}}
	p := prober{func(context.Context, Instance) error { return syscall.EHOSTUNREACH }, NewProbeLimit(maxProbes), noneServed, time.Second, func() float64 { return 0 }}
	now := time.Unix(1e9, 0)
	for _, c := range []struct {
		after  time.Duration
		misses int
	}{{0, 1}, {time.Second, 1}, {1999 * time.Millisecond, 1}, {2 * time.Second, 2}, {3 * time.Second, 2}, {4 * time.Second, 3}} {
		p.round(t.Context(), now.Add(c.after), all)
		if all[0].misses != c.misses {
			t.Errorf("after %s: %d misses, want %d", c.after, all[0].misses, c.misses)
		}
	}
}

func TestProbeVerdicts(t *testing.T) {
	refused := &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}
	for _, c := range []struct {
		err  error
		deaf bool
	}{
		{refused, false},
		{syscall.EHOSTUNREACH, false},
		{syscall.ENETUNREACH, false},
		{syscall.ECONNRESET, false},
		{context.DeadlineExceeded, false},
		{errors.New("status 503"), false},
		{&net.DNSError{Err: "no such host", IsNotFound: true}, false},
		{&net.DNSError{Err: "server misbehaving", IsTemporary: true}, true},
		{&net.OpError{Op: "dial", Err: &net.DNSError{IsTimeout: true}}, true},
		{&net.OpError{Op: "socket", Err: syscall.EMFILE}, true},
		{fmt.Errorf("check: %w", syscall.EADDRNOTAVAIL), true},
		{context.Canceled, true},
		{fmt.Errorf("check: %w", ErrNoVerdict), true},
	} {
		x := []lost{{alive: true}}
		p := prober{func(context.Context, Instance) error { return c.err }, NewProbeLimit(maxProbes), noneServed, time.Second, func() float64 { return 0 }}
		p.round(t.Context(), time.Unix(1e9, 0), x)
		if deaf := x[0].misses == 0; deaf != c.deaf || x[0].alive != c.deaf {
			t.Errorf("%v: %d misses, alive %v; no verdict wanted: %v", c.err, x[0].misses, x[0].alive, c.deaf)
		}
	}
}

func TestConnects(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	i := Instance{Address: "127.0.0.1", Port: l.Addr().(*net.TCPAddr).Port}
	if err := Connects(t.Context(), i); err != nil {
		t.Errorf("a listener: %v", err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if err := Connects(t.Context(), i); !errors.Is(err, syscall.ECONNREFUSED) || deaf(err) {
		t.Errorf("nobody: %v", err)
	}
}

// TestRepetitionBeginsAnew: b is missing throughout; what else happens decides
// whether that counts on.
func TestRepetitionBeginsAnew(t *testing.T) {
	l, now := new(loss), time.Unix(1e9, 0)
	inUse := listOf("a", "b", "c", "d")
	for n, s := range []struct {
		listed []Instance
		gone   time.Duration // of b
	}{
		{listOf("a", "c"), 0},
		{listOf("a", "c"), 10 * time.Second},
		{listOf("a"), 20 * time.Second},      // more is lost
		{listOf("a", "x"), 30 * time.Second}, // a newcomer: no more are listed than before
		{listOf("a"), 40 * time.Second},
		{listOf("a", "x"), 50 * time.Second}, // it returns
		{listOf("a", "c"), 0},                // one of those before returns
		{listOf("a", "c"), 10 * time.Second},
		{listOf("a", "c", "x"), 0}, // more are listed
		{listOf("a", "c", "x"), 10 * time.Second},
		{nil, 0},
		{nil, 0},
		{listOf("y"), 0},
		{listOf("y"), 10 * time.Second},
	} {
		l.take(now, s.listed, inUse, noneServed)
		if at := slices.IndexFunc(l.lost, func(x lost) bool { return x.ID == "b" }); at < 0 || l.lost[at].gone != s.gone && len(s.listed) > 0 {
			t.Errorf("step %d: lost %+v, b is to be gone for %s", n, l.lost, s.gone)
		}
		inUse, _ = l.union(nil)
		now = now.Add(10 * time.Second)
	}
}
