package healthcheck

import (
	"cmp"
	"container/heap"
	"context"
	"crypto/tls"
	"errors"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
)

const (
	// maxAtOnce bounds the checks of a Checker that run at once, and so its descriptors.
	maxAtOnce = 64
	// maxSlow bounds those of endpoints whose last check ran into the timeout, so that
	// any number of these leaves room for the others.
	maxSlow = maxAtOnce / 2
	// sayEvery is the least time between two log lines of one kind, about one endpoint
	// where it is about one.
	sayEvery = time.Minute
)

// Target is an endpoint to be checked.
type Target struct {
	ID   string // unique in a set
	Addr string // "host:port" of the instance
	// ServerName is given to Env.TLS; "": the host of Addr.
	ServerName string
}

// Env is what a Checker gets from its surroundings. Every field may be left out.
type Env struct {
	// Now is a monotonic clock. Default: the time since New.
	Now func() time.Duration
	// Rand returns a uniform number in [0, n); it is called under a lock. Default:
	// rand.Uint32N.
	Rand   func(n uint32) uint32
	Logger hclog.Logger // default: none
	// TLS returns what a connection for the server name is made with; a nil
	// configuration is none. An error is this machine's own and says nothing about an
	// endpoint. Called for each check, concurrently. Default: no TLS.
	TLS func(serverName string) (*tls.Config, error)
	// Dial opens a connection and must honour ctx. Default: net.Dialer, no proxy.
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)
}

func (e Env) withDefaults() Env {
	if e.Now == nil {
		start := time.Now()
		e.Now = func() time.Duration { return time.Since(start) }
	}
	if e.Rand == nil {
		e.Rand = rand.Uint32N
	}
	if e.Logger == nil {
		e.Logger = hclog.NewNullLogger()
	}
	if e.Dial == nil {
		d := &net.Dialer{KeepAlive: -1} // a check's connection is too short for it
		e.Dial = d.DialContext
	}
	return e
}

// Checker checks a set of endpoints, each at its own times. One goroutine waits for
// the next check of all, and each check that runs has one. All methods are safe for
// concurrent use.
type Checker struct {
	cfg   Config
	env   Env
	check *check
	lines lines
	wake  chan struct{} // capacity 1: something may have become due sooner

	mu      sync.Mutex // locked before a target's
	targets map[string]*target
	due     dueHeap   // those that do not run and are not parked
	parked  []*target // due, but maxSlow slow ones run; in order
	running int
	slow    int             // of running
	ctx     context.Context // of Run; nil before it
	sink    func(string, Verdict)
	checks  sync.WaitGroup
	saidOwn sparing
	saidLag sparing
}

// New returns a Checker without targets. c must be valid and have a Kind.
func New(c Config, env Env) *Checker {
	c, env = c.filled(), env.withDefaults()
	return &Checker{
		cfg: c, env: env, check: newCheck(c, env),
		wake:    make(chan struct{}, 1),
		targets: map[string]*target{},
	}
}

// Once makes one check of t, whether it is a target or not, within Config.Timeout and
// until ctx ends; nil: healthy. It changes no state, does not count among the 64 at
// once, and tells nobody. An error that wraps ErrNoVerdict says nothing about the endpoint.
func (c *Checker) Once(ctx context.Context, t Target) error {
	return c.check.run(ctx, t)
}

// SetTargets replaces the set of targets. One whose ID, Addr and ServerName stay keeps
// its state and schedule; a new one is Unknown, and its first check comes at a random
// moment of the next FastInterval. When SetTargets returns, the sink is not running and
// will not run again for targets that were left out. Of two targets with one ID the
// later counts.
func (c *Checker) SetTargets(targets []Target) {
	next := make(map[string]Target, len(targets))
	for _, t := range targets {
		next[t.ID] = t
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for id, old := range c.targets {
		if t, ok := next[id]; !ok || t != old.Target {
			c.drop(old)
		}
	}
	now := c.env.Now()
	for id, t := range next {
		if c.targets[id] == nil {
			added := &target{Target: t, c: c, at: now + c.uniform(c.cfg.FastInterval)}
			added.status.Since, added.status.Addr = now, t.Addr
			c.targets[id] = added
			heap.Push(&c.due, added)
		}
	}
	c.rouse()
}

// drop takes a target out. c.mu is held.
func (c *Checker) drop(t *target) {
	delete(c.targets, t.ID)
	switch {
	case t.running:
	case t.parked:
		c.parked = slices.DeleteFunc(c.parked, func(p *target) bool { return p == t })
	default:
		heap.Remove(&c.due, t.index)
	}
	t.stop()
}

// Run checks until ctx ends, which is no error, and returns when every check has ended
// and every connection is closed. The sink hears of every change of an endpoint's
// state, and of one that is down when it becomes unreachable or reachable: concurrently
// for different endpoints, never for one. It must neither block nor call the Checker. A
// Checker runs once.
func (c *Checker) Run(ctx context.Context, sink func(id string, v Verdict)) error {
	c.mu.Lock()
	if c.ctx != nil {
		c.mu.Unlock()
		return errors.New("health checks: Run was called before; a Checker runs once")
	}
	c.ctx, c.sink = ctx, sink
	for now, i := c.env.Now(), 0; i < len(c.due); i++ { // what was due while nothing ran is not due all at once
		c.due[i].at = now + c.uniform(c.cfg.FastInterval)
	}
	heap.Init(&c.due)
	c.mu.Unlock()

	timer := time.NewTimer(c.start())
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			c.checks.Wait()
			return nil
		case <-timer.C:
		case <-c.wake:
		}
		timer.Reset(c.start())
	}
}

// rouse has Run look at what is due. c.mu may be held.
func (c *Checker) rouse() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// idle is how long Run waits where nothing can become due before it is roused.
const idle = time.Hour

// start starts what is due and has room, and returns how long to wait.
func (c *Checker) start() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.env.Now()
	for c.running < maxAtOnce {
		var t *target
		switch {
		case len(c.parked) > 0 && c.slow < maxSlow:
			t, c.parked = c.parked[0], c.parked[1:]
			t.parked = false
		case len(c.due) == 0:
			return idle
		case c.due[0].at > now:
			return c.due[0].at - now
		default:
			t = heap.Pop(&c.due).(*target)
			if t.slow && c.slow >= maxSlow {
				t.parked = true
				c.parked = append(c.parked, t)
				continue
			}
		}
		c.launch(t, now)
	}
	return idle // whichever check ends will rouse
}

// launch starts a check. c.mu is held.
func (c *Checker) launch(t *target, now time.Duration) {
	if now-t.at > c.cfg.Interval && c.saidLag.may(now) {
		c.env.Logger.Warn("health checks are late: too many run into the timeout, or this machine is short of CPU",
			"late_by", (now - t.at).Round(time.Millisecond), "at_once", maxAtOnce, "timeout", c.cfg.Timeout)
	}
	ctx, cancel := context.WithCancel(c.ctx)
	t.running, t.cancel = true, cancel
	wasSlow := t.slow
	c.running++
	if wasSlow {
		c.slow++
	}
	c.checks.Go(func() {
		defer cancel()
		err := c.check.run(ctx, t.Target)
		end := c.env.Now()
		if ctx.Err() == nil {
			t.deliver(err, now, end)
		}
		c.finish(t, err, wasSlow, end)
	})
}

// finish gives a check's place back and schedules the next.
func (c *Checker) finish(t *target, err error, wasSlow bool, end time.Duration) {
	pause := c.cfg.Interval
	if !t.settled() {
		pause = c.cfg.FastInterval
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.running--
	if wasSlow {
		c.slow--
	}
	t.running = false
	t.slow = errors.Is(err, context.DeadlineExceeded)
	if c.targets[t.ID] == t {
		// From when it was due: neither slow answers nor late timers stretch the schedule.
		t.at = max(t.at+c.jittered(pause), end)
		heap.Push(&c.due, t)
	}
	if errors.Is(err, ErrNoVerdict) && !errors.Is(err, context.Canceled) && c.saidOwn.may(end) {
		c.env.Logger.Error("an endpoint could not be checked; states stay as they are", "endpoint", t.ID, "error", errorText(err))
	}
	c.rouse()
}

// Status returns what the checks of one target came to; false for an unknown ID.
func (c *Checker) Status(id string) (TargetStatus, bool) {
	c.mu.Lock()
	t := c.targets[id]
	c.mu.Unlock()
	if t == nil {
		return TargetStatus{}, false
	}
	return t.snapshot(), true
}

// All returns the status of every target, in the order of their IDs.
func (c *Checker) All() []TargetStatus {
	c.mu.Lock()
	targets := make([]*target, 0, len(c.targets))
	for _, t := range c.targets {
		targets = append(targets, t)
	}
	c.mu.Unlock()
	all := make([]TargetStatus, 0, len(targets))
	for _, t := range targets {
		all = append(all, t.snapshot())
	}
	slices.SortFunc(all, func(a, b TargetStatus) int { return cmp.Compare(a.ID, b.ID) })
	return all
}

// uniform returns a duration in [0, d), in steps of a 2^20th of it. c.mu is held.
func (c *Checker) uniform(d time.Duration) time.Duration {
	const steps = 1 << 20
	return time.Duration(float64(d) * float64(c.env.Rand(steps)) / steps)
}

func (c *Checker) jittered(interval time.Duration) time.Duration {
	spread := time.Duration(float64(interval) * c.cfg.Spread)
	return interval - spread + c.uniform(2*spread)
}

// dueHeap is a heap of targets by the time of their next check.
type dueHeap []*target

func (h dueHeap) Len() int           { return len(h) }
func (h dueHeap) Less(i, j int) bool { return h[i].at < h[j].at }
func (h dueHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = i, j
}

func (h *dueHeap) Push(x any) {
	t := x.(*target)
	t.index = len(*h)
	*h = append(*h, t)
}

func (h *dueHeap) Pop() any {
	last := len(*h) - 1
	t := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	return t
}
