package balance

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"outrigger/discovery"
	"outrigger/picker"
)

// meter stands where the sender's gauge is. It keeps what it would have sent last.
type meter struct {
	ep      *picker.Endpoint
	mu      sync.Mutex
	seen    atomic.Int64
	calls   atomic.Int64
	retired atomic.Int32
}

func (g *meter) Changed() {
	g.calls.Add(1)
	g.mu.Lock() // the newest read is to win, whoever comes last
	defer g.mu.Unlock()
	g.seen.Store(int64(g.ep.InFlight()))
}

func (g *meter) Retire() { g.retired.Add(1) }

// metered is a rig with gauges, but for the endpoints left out.
func metered(t testing.TB, without string, change func(*Config)) (*rig, map[string][]*meter) {
	meters := map[string][]*meter{}
	r := newRig(t, change)
	r.env.NewGauge = func(ep *picker.Endpoint) Gauge {
		if ep.ID == without {
			return nil
		}
		g := &meter{ep: ep}
		meters[ep.ID] = append(meters[ep.ID], g)
		return g
	}
	return r, meters
}

func TestGaugeHearsEveryChange(t *testing.T) {
	r, meters := metered(t, instance(1).ID, nil)
	r.Update(instances(2))
	if len(meters) != 1 {
		t.Fatalf("gauges for %d endpoints", len(meters))
	}
	g := meters[instance(0).ID][0]
	said := func(calls, seen int64) {
		t.Helper()
		if g.calls.Load() != calls || g.seen.Load() != seen {
			t.Errorf("%d changes, the last to %d; want %d to %d", g.calls.Load(), g.seen.Load(), calls, seen)
		}
	}
	a, b := r.getAt(0), r.getAt(0)
	said(2, 2)
	r.getAt(1).Done(ok) // without a gauge
	said(2, 2)
	a.Done(ok)
	a.Done(ok) // no second time
	said(3, 1)
	b.Done(skip)
	said(4, 0)
	r.quiet()
}

// TestGaugeHearsTakenBack: a slot that the breaker did not allow was seen, perhaps.
func TestGaugeHearsTakenBack(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r, meters := metered(t, "", nil)
		r.Update(instances(3))
		g := meters[instance(0).ID][0]
		r.getAt(0).Done(down)
		// Ejected, and the snapshot does not know yet.
		if s := r.snap.Load(); s.ignoring || len(s.ready) != 3 {
			t.Fatal("the snapshot was built anew by itself")
		}
		calls := g.calls.Load()
		s, k := r.snap.Load(), Key{}
		if _, ok := r.reserve(s, r.member(0), &k, r.env.Now(), 0); ok {
			t.Fatal("an ejected endpoint was leased")
		}
		if n := g.calls.Load() - calls; n != 1 || g.seen.Load() != 0 {
			t.Errorf("%d changes, the last to %d", n, g.seen.Load())
		}
		r.Tick()
		r.quiet()
	})
}

func TestGaugeMembership(t *testing.T) {
	r, meters := metered(t, "", nil)
	r.Update(instances(2))
	l := r.getAt(0)
	old := meters[instance(0).ID][0]
	r.Update([]discovery.Instance{instance(1)})
	if n := old.retired.Load(); n != 1 {
		t.Errorf("retired %d times", n)
	}
	l.Done(ok)
	if old.seen.Load() != 0 || old.calls.Load() != 2 {
		t.Errorf("a lease's end after it left: %d changes, the last to %d", old.calls.Load(), old.seen.Load())
	}
	r.Update(instances(2)) // it comes back as another
	moved := instance(1)
	moved.Port++
	r.Update([]discovery.Instance{instance(0), moved})
	if n := len(meters[moved.ID]); n != 2 || meters[moved.ID][0].retired.Load() != 1 || meters[moved.ID][1].retired.Load() != 0 {
		t.Errorf("%d gauges for an endpoint that moved", n)
	}
	if n := len(meters[instance(0).ID]); n != 2 || old.retired.Load() != 1 {
		t.Errorf("%d gauges for an endpoint that came back", n)
	}
}

// TestGaugeStress: at rest every gauge has seen the truth last.
func TestGaugeStress(t *testing.T) {
	r, meters := metered(t, "", limit(4, 100, time.Minute))
	r.Update(instances(3))
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			for j := range 300 {
				l, err := r.Acquire(context.Background(), Key{})
				if err != nil {
					t.Error(err)
					return
				}
				if (i+j)%50 == 0 {
					time.Sleep(time.Microsecond)
				}
				l.Done(ok)
			}
		})
	}
	wg.Wait()
	r.quiet()
	for id, list := range meters {
		if n := list[0].seen.Load(); n != 0 {
			t.Errorf("%s: the gauge stands at %d", id, n)
		}
		if n := list[0].calls.Load(); n%2 != 0 || n == 0 {
			t.Errorf("%s: %d changes", id, n)
		}
	}
}

// pendingGauge is one with a change to be sent already, as under load most times.
type pendingGauge struct{ queued atomic.Bool }

func (g *pendingGauge) Changed() {
	if g.queued.Load() {
		return
	}
	g.queued.Store(true)
}

func (*pendingGauge) Retire() {}

// BenchmarkGauge is what gauges cost a request in the balancer.
func BenchmarkGauge(b *testing.B) {
	for _, on := range []bool{false, true} {
		r := newRig(b, nil)
		if on {
			r.env.NewGauge = func(*picker.Endpoint) Gauge { return &pendingGauge{} }
		}
		r.Update(instances(10))
		ctx := context.Background()
		b.Run(fmt.Sprint("on=", on), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				l, err := r.Acquire(ctx, Key{})
				if err != nil {
					b.Fatal(err)
				}
				l.Done(ok)
			}
		})
	}
}
