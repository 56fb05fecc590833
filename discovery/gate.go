package discovery

import (
	"container/list"
	"context"
	"math"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
)

const (
	// gateBurst reads may start at once and then one each gateEvery: what all
	// services of a sidecar ask for when Consul is back after an outage. 500 are
	// through within 2 s.
	gateBurst = 100
	gateEvery = 5 * time.Millisecond
	// shortestWait is the least that a blocking read is shortened to. With so many
	// services that it does not do a round takes longer than Config.Spread.
	shortestWait = time.Second
	// readerGone is after how long a reader that asks no more is not counted.
	readerGone = time.Minute
	busySpell  = time.Minute // without a refusal, until the next is told of
	// settling is how long after the newest reader came more are expected, and how
	// long reads may block meanwhile: nobody knows yet how many must share.
	settling = 2 * time.Second
)

// Gate shares the connections to one Consul agent among all who read from it.
// On HTTP/1 each blocking read holds one, and an agent takes 200 from an address.
// While there are more readers than connections, each blocks for less, so that
// all have their turn within Config.Spread; they come first in, first out. What
// does not block goes first, and always gets through. On HTTP/2 all reads share a
// few connections: there the gate only paces how fast reads begin.
//
// Gates come from NewGatedClient. They are safe for concurrent use.
type Gate struct {
	now    func() time.Time
	log    hclog.Logger
	spread time.Duration
	idle   func() // closes connections that nobody uses

	mu      sync.Mutex
	window  window
	bucket  bucket
	http2   bool
	polls   list.List // of *turn: waiting reads that will block
	urgent  list.List // and those that will not
	holding int       // blocking reads that are in
	passing int       // the other reads that are in
	inside  map[*turn]struct{}
	wake    *time.Timer

	readers     map[string]*reader
	readersNow  int       // the sum of their turns, at least 1 each
	joined      time.Time // the newest of them
	swept       time.Time
	toldSharing bool
	toldBusy    time.Time // the newest refusal
	heard       time.Time // the newest answer

	busyConnections, busyRate uint64
}

// reader is who asks again and again for the same: a watch.
type reader struct {
	turns int // waiting or in
	last  time.Time
}

// turn is one read's way through the gate.
type turn struct {
	who    *reader       // nil: asks but once
	want   time.Duration // how long it would like to block; 0: it does not
	wait   time.Duration // how long it may, once it is in
	blocks bool          // holds one of the connections for blocking reads
	queued time.Time
	began  time.Time
	conn   time.Time     // since when it has a connection; zero: it has none
	reused bool          // which the agent has answered on before
	in     chan struct{} // closed when it is let in
	place  *list.Element // in a queue; nil: not waiting
}

// GateStatus is how a gate is doing.
type GateStatus struct {
	Limit   int `json:"limit"`   // reads at once on HTTP/1
	InUse   int `json:"in_use"`  // reads that are in
	Waiting int `json:"waiting"` // reads that wait for their turn
	Readers int `json:"readers"` // who ask again and again
	// HTTP2: the last answer came by HTTP/2, Limit does not apply.
	HTTP2 bool `json:"http2"`
	// LongestWait is how long a read may block now; 0: as long as it likes.
	LongestWait time.Duration `json:"longest_wait"`
	// BusyConnections counts connections that the agent refused for being too many,
	// BusyRate answers 429 and 503 of Consul's request limits.
	BusyConnections uint64 `json:"busy_connections_total"`
	BusyRate        uint64 `json:"busy_rate_total"`
}

func newGate(c Config, now func() time.Time, log hclog.Logger, idle func()) *Gate {
	return &Gate{
		now: now, log: log, spread: c.Spread, idle: idle, swept: now(),
		window:  newWindow(c.MaxConnections, now()),
		bucket:  bucket{burst: gateBurst, every: gateEvery},
		readers: map[string]*reader{}, inside: map[*turn]struct{}{},
	}
}

// Status returns what is so now.
func (g *Gate) Status() GateStatus {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.window.grow(g.now())
	g.sweep(g.now())
	s := GateStatus{
		Limit: g.window.limit, InUse: g.holding + g.passing, Waiting: g.polls.Len() + g.urgent.Len(),
		Readers: g.readersNow, HTTP2: g.http2, BusyConnections: g.busyConnections, BusyRate: g.busyRate,
	}
	if longest := g.longest(g.now()); longest < math.MaxInt64 {
		s.LongestWait = longest
	}
	return s
}

// enter waits for a turn, which the caller must leave, or for the end of ctx. name
// tells readers apart, "" is none. want is how long the read would block.
func (g *Gate) enter(ctx context.Context, name string, want time.Duration) (*turn, error) {
	now := g.now()
	t := &turn{want: want, queued: now, in: make(chan struct{})}
	g.mu.Lock()
	g.sweep(now)
	if name != "" {
		t.who = g.join(name)
	}
	if want > 0 {
		t.place = g.polls.PushBack(t)
	} else {
		t.place = g.urgent.PushBack(t)
	}
	g.pump()
	g.mu.Unlock()
	select {
	case <-t.in:
		return t, nil
	case <-ctx.Done():
	}
	g.mu.Lock()
	if t.place == nil { // let in meanwhile
		g.mu.Unlock()
		return t, nil
	}
	g.unqueue(t)
	g.part(t.who)
	g.pump() // it may have been what the timer was for
	g.mu.Unlock()
	return nil, context.Cause(ctx)
}

// leave gives the turn back.
func (g *Gate) leave(t *turn) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.inside, t)
	if t.blocks {
		g.holding--
	} else {
		g.passing--
	}
	g.part(t.who)
	g.pump()
}

// pump lets in whoever may come in. It is called with the lock held.
func (g *Gate) pump() {
	now := g.now()
	g.window.grow(now)
	for {
		t, again := g.next(now)
		if t == nil {
			g.wakeAfter(again)
			return
		}
		if d := g.bucket.wait(now); d > 0 {
			g.wakeAfter(d)
			return
		}
		g.bucket.take(now)
		g.admit(t, now)
	}
}

// reserve is how many of the connections are for reads that don't block.
func (g *Gate) reserve() int { return max(2, g.window.limit/16) }

// next returns whose turn it is. nil: nobody's, look again after the duration.
func (g *Gate) next(now time.Time) (*turn, time.Duration) {
	used := g.holding + g.passing
	// Some always get through, also when others use more than the limit has
	// become.
	room := g.http2 || used < g.window.limit || g.passing < g.reserve()
	if e := g.urgent.Front(); e != nil && room {
		return e.Value.(*turn), 0
	}
	e := g.polls.Front()
	if e == nil {
		return nil, math.MaxInt64
	}
	t := e.Value.(*turn)
	if g.http2 || used < g.window.limit && g.holding < g.window.limit-g.reserve() {
		t.blocks = true
		return t, 0
	}
	// Readers that came later find all connections taken for minutes, by reads that
	// nobody had reason to shorten and that Consul would not end if they were
	// cancelled. They ask in short through what is reserved.
	if !room {
		return nil, math.MaxInt64
	}
	if d := g.spread - now.Sub(t.queued); d > 0 {
		return nil, d
	}
	return t, 0
}

// longest is how long a read may block now.
func (g *Gate) longest(now time.Time) time.Duration {
	room := g.window.limit - g.reserve()
	switch {
	case g.http2:
		return math.MaxInt64
	case now.Sub(g.joined) < settling:
		return settling
	case g.readersNow <= room:
		return math.MaxInt64
	}
	return max(shortestWait, time.Duration(float64(g.spread)*float64(room)/float64(g.readersNow)))
}

func (g *Gate) admit(t *turn, now time.Time) {
	g.unqueue(t)
	t.began = now
	g.inside[t] = struct{}{}
	if t.blocks {
		g.holding++
		t.wait = min(t.want, g.longest(now))
	} else {
		g.passing++
		t.wait = min(t.want, shortestWait)
	}
	if t.wait < t.want && !g.toldSharing && g.readersNow > g.window.limit-g.reserve() {
		g.toldSharing = true
		g.log.Info("more services are watched than there are connections to the Consul agent: they take turns",
			"services", g.readersNow, "connections", g.window.limit, "changes_show_within", g.spread,
			"hint", "https needs a few connections for any number; or raise the agent's limits.http_max_conns_per_client and consul { max_connections }")
	}
	close(t.in)
}

func (g *Gate) unqueue(t *turn) {
	if t.want > 0 {
		g.polls.Remove(t.place)
	} else {
		g.urgent.Remove(t.place)
	}
	t.place = nil
}

// wakeAfter arranges for the next look; nothing else needs one sooner.
func (g *Gate) wakeAfter(d time.Duration) {
	switch {
	case d == math.MaxInt64:
		if g.wake != nil {
			g.wake.Stop()
		}
	case g.wake == nil:
		g.wake = time.AfterFunc(d, func() {
			g.mu.Lock()
			defer g.mu.Unlock()
			g.pump()
		})
	default:
		g.wake.Reset(d)
	}
}

func (g *Gate) join(name string) *reader {
	r := g.readers[name]
	if r == nil {
		r = &reader{}
		g.readers[name] = r
		g.readersNow++
		g.joined = g.now()
	} else if r.turns > 0 {
		g.readersNow++
	}
	r.turns++
	return r
}

func (g *Gate) part(r *reader) {
	if r == nil {
		return
	}
	r.turns--
	r.last = g.now()
	if r.turns > 0 {
		g.readersNow--
	}
}

// sweep forgets readers that ask no more.
func (g *Gate) sweep(now time.Time) {
	if now.Sub(g.swept) < readerGone/4 {
		return
	}
	g.swept = now
	for name, r := range g.readers {
		if r.turns == 0 && now.Sub(r.last) > readerGone {
			delete(g.readers, name)
			g.readersNow--
		}
	}
}

// answered notes by which protocol an answer came.
func (g *Gate) answered(http2 bool) {
	g.spoke()
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.http2 != http2 {
		g.http2 = http2
		g.pump()
	}
}

// limited notes an answer of Consul's request limits.
func (g *Gate) limited() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.busyRate++
}
