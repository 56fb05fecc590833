package balance

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"outrigger/discovery"
	"outrigger/picker"
)

// conns stands where the engine's connection store is, and counts retirements.
type conns struct {
	ep      *picker.Endpoint
	retired atomic.Int32
}

func (c *conns) Retire() { c.retired.Add(1) }

// rig is a balancer under test.
type rig struct {
	*Balancer
	t     testing.TB
	mu    sync.Mutex
	conns []*conns
}

func newRig(t testing.TB, change func(*Config)) *rig {
	t.Helper()
	cfg := DefaultConfig()
	cfg.Service = "web"
	if change != nil {
		change(&cfg)
	}
	r := &rig{t: t}
	start := time.Now()
	b, err := New(cfg, Env{
		Now:  func() time.Duration { return time.Since(start) + time.Second },
		Rand: rand.Uint32N,
		NewConns: func(ep *picker.Endpoint) Conns {
			r.mu.Lock()
			defer r.mu.Unlock()
			c := &conns{ep: ep}
			r.conns = append(r.conns, c)
			return c
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	r.Balancer = b
	return r
}

// bubble runs f in virtual time. When f returns, a goroutine that is still
// there fails the test.
func bubble(t *testing.T, f func(t *testing.T)) {
	t.Helper()
	synctest.Test(t, f)
}

// run starts Run until the test ends.
func (r *rig) run() { go r.Run(r.t.Context()) }

// limit makes a change for newRig: n in flight per endpoint, and a queue.
func limit(n, length int, timeout time.Duration) func(*Config) {
	return func(c *Config) {
		c.MaxInFlight = n
		c.Queue = QueueConfig{Length: length, Timeout: timeout}
	}
}

func instance(i int) discovery.Instance {
	return discovery.Instance{
		ID: fmt.Sprint("n/", i), Service: "web", Node: "n", Address: "127.0.0.1", Port: 8000 + i, Weight: 1,
	}
}

func instances(n int) []discovery.Instance {
	set := make([]discovery.Instance, n)
	for i := range set {
		set[i] = instance(i)
	}
	return set
}

// member returns the balancer's object for instance i.
func (r *rig) member(i int) *member { return r.snap.Load().byID[instance(i).ID] }

func (r *rig) endpoint(i int) *picker.Endpoint { return r.member(i).ep }

// get leases at once or fails the test.
func (r *rig) get() *Lease {
	r.t.Helper()
	l, err := r.TryAcquire(Key{})
	if err != nil {
		r.t.Fatalf("no lease: %v", err)
	}
	return &l
}

// getAt leases endpoint i, by trying all the others away.
func (r *rig) getAt(i int) *Lease {
	r.t.Helper()
	var k Key
	for _, m := range r.snap.Load().ready {
		if m != r.member(i) {
			k.Tried.Add(m.ep)
		}
	}
	l, err := r.TryAcquire(k)
	if err != nil {
		r.t.Fatalf("no lease on endpoint %d: %v", i, err)
	}
	if l.Endpoint() != r.endpoint(i) {
		r.t.Fatalf("leased %s, want endpoint %d", l.Endpoint().ID, i)
	}
	return &l
}

// eject has nobody listen at endpoint i, and waits for the rebuild.
func (r *rig) eject(i int) {
	r.t.Helper()
	r.getAt(i).Done(down)
	synctest.Wait()
}

var (
	ok   = picker.Result{Outcome: picker.Success, FirstByte: time.Millisecond, Total: time.Millisecond}
	bad  = picker.Result{Outcome: picker.Failure}
	down = picker.Result{Outcome: picker.Failure, Down: true}
	skip = picker.Result{Outcome: picker.Ignore}
)

// refused is an error unless err is a refusal for this reason with a usable time.
func refused(t testing.TB, err error, want Reason) {
	t.Helper()
	var r *Refusal
	if !errors.As(err, &r) || r.Reason != want {
		t.Errorf("error %v, want refusal %q", err, want)
		return
	}
	if r.RetryAfter < 1 || r.RetryAfter > 30 {
		t.Errorf("%v: retry after %d s", r.Reason, r.RetryAfter)
	}
}

// refuses asks for a lease that must be refused.
func (r *rig) refuses(want Reason) {
	r.t.Helper()
	_, err := r.TryAcquire(Key{})
	refused(r.t, err, want)
}

// quiet fails if anything is in flight or waits.
func (r *rig) quiet() {
	r.t.Helper()
	for _, m := range r.snap.Load().all {
		if n := m.ep.InFlight(); n != 0 {
			r.t.Errorf("%s: %d in flight at the end", m.ep.ID, n)
		}
	}
	q := &r.queue
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.waiting.Load() != 0 || q.n != 0 || q.first != nil || q.last != nil {
		r.t.Errorf("%d wait at the end, %d in the list", q.waiting.Load(), q.n)
	}
}

// answer is what became of a request that may have to wait.
type answer struct {
	lease  Lease
	err    error
	waited time.Duration
}

// ask starts an Acquire and returns once it has an answer or waits.
func (r *rig) ask(ctx context.Context) chan answer {
	out := make(chan answer, 1)
	go func() {
		start := time.Now()
		l, err := r.Acquire(ctx, Key{})
		out <- answer{l, err, time.Since(start)}
	}()
	synctest.Wait()
	return out
}

// pending fails if the answer is there already.
func pending(t testing.TB, what string, c chan answer) {
	t.Helper()
	if len(c) != 0 {
		a := <-c
		t.Fatalf("%s did not wait: %v", what, a.err)
	}
}
