package agentstats

import (
	"context"
	"errors"
	"math"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	"outrigger/agentstats/declared"
	"outrigger/agentstats/sockets"
)

const (
	// countEvery is how long a count answers for further polls. PICKING.md asks for 5 ms
	// and tolerates 20; with 4 ms 2,000 polls a second cost an agent 5.2 % of a core, and
	// they are to cost less than 5.
	countEvery = 8 * time.Millisecond
	// countAge is where a count of the kernel's is too old to be given. PICKING.md
	// tolerates 20 ms; its table of gauges has p99 at 378 ms with 20 ms, 515 with 50 and
	// 617 with none at all, so a count of 50 ms is still better than none. Ages above
	// 20 ms come of several hundred busy connections (sockets.Config.Budget).
	countAge = 50 * time.Millisecond
	// askedFor is for how long after the last question windows are still followed: an
	// agent that nobody asks need not look.
	askedFor = 5 * time.Second
	// lookAgain is when to look again at connections of which it is not known whether
	// they hold a request: what they do next tells.
	lookAgain = 50 * time.Millisecond
	// followed is for how long after the last question that is done: some polls.
	followed = 3 * time.Second
	// spareConns is what may have opened since connections were last searched for, besides
	// as many again as there were: a sidecar has one request at a time on each, and its
	// gauge may come before its connection is seen.
	spareConns = 16
	// declaredAge is for how long what the backend declared stands while it must not be
	// asked again; it is asked every 100 ms at least.
	declaredAge = 150 * time.Millisecond
)

// counting finds out, when somebody asks, how many requests are in the backend: what
// the backend declares itself, else the larger of what the kernel sees on its
// connections and what sidecars say they have there. Safe for concurrent use; whoever
// comes while one looks waits and gets what that one finds.
type counting struct {
	now      func() time.Time
	log      hclog.Logger
	declared interface { // nil: the backend declares nothing
		Read(ctx context.Context) (declared.Figures, error)
		Close()
	}
	conns interface { // nil: nobody looks
		follow(pid int)
		sample(now time.Time) (sockets.Sample, error)
		close()
	}
	board interface { // nil: sidecars' gauges are not taken
		Sum(now time.Time) (total float64, streams int, age time.Duration)
		Close()
	}

	// polling returns how many sidecars poll; nil: not known.
	polling func() int64

	mu       sync.Mutex
	asked    time.Time // when somebody last wanted to know
	again    *time.Timer
	ended    bool
	told     declared.Figures // by the backend, last
	at       time.Time
	last     Live
	err      Opt[float64] // error share that the backend declares
	said     string       // why the kernel does not tell
	doubted  bool         // it was said that sidecars claim too much
	inFlight meanGauge
	queue    meanGauge
	conc     concEstimator
	epoch    string
}

// look returns the figures of this moment.
func (c *counting) look() Live {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.asked = c.now()
	return c.count()
}

// count looks, unless somebody just did. c.mu is held.
func (c *counting) count() Live {
	now := c.now()
	if !c.at.IsZero() && now.Sub(c.at) < countEvery {
		return c.last
	}
	var l Live
	l.InFlight, l.Source = c.ask(now)
	most := math.Inf(1) // requests that sidecars may have on the backend's connections
	if s, ok := c.kernel(now); ok {
		most = float64(2*s.Established + spareConns)
		l.AcceptQueue, l.AcceptLimit = Some(s.AcceptQueue), Some(s.AcceptLimit)
		c.queue.add(now, float64(s.AcceptQueue))
		if l.Source == "" && now.Sub(s.At) <= countAge && s.Unsure <= max(1, s.InFlight/4) {
			l.InFlight, l.Source = Some(s.InFlight), SourceKernel
		}
		if s.Ties > 0 {
			c.lookSoon(now)
		}
	}
	if c.board != nil && l.Source != SourceDeclared {
		// The sum knows nothing of clients without a sidecar, the kernel may err.
		sum, streams, _ := c.board.Sum(now)
		sum = c.believe(sum, most)
		all := streams > 0 && (c.polling == nil || int64(streams) >= c.polling())
		if l.Source == "" && all || l.Source == SourceKernel && sum > l.InFlight.Or(0) {
			l.InFlight, l.Source = Some(sum), SourceSidecars
		}
	}
	if n, ok := l.InFlight.Get(); ok {
		c.inFlight.add(now, n)
		if v, ok := c.conc.value(n, float64(l.AcceptQueue.Or(0))); ok {
			l.Conc = Some(round(math.Min(v, maxInFlight)))
		}
		l.InFlight = Some(round(n))
	}
	// Whoever waited meanwhile gets this, however long it took.
	c.last, c.at = l, c.now()
	return l
}

// believe bounds what sidecars say they have in the backend by what its connections can
// hold. c.mu is held.
func (c *counting) believe(sum, most float64) float64 {
	if sum <= most {
		return sum
	}
	if !c.doubted {
		c.doubted = true
		c.log.Warn("sidecars claim more requests than the backend's connections can hold; no more than those count",
			"claimed", round(sum), "counted", most)
	}
	return most
}

// lookSoon has the connections looked at again though nobody asks. c.mu is held.
func (c *counting) lookSoon(now time.Time) {
	if c.again != nil || c.ended || c.asked.IsZero() || now.Sub(c.asked) > followed {
		return
	}
	c.again = time.AfterFunc(lookAgain, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.again = nil; !c.ended && c.declared == nil {
			c.count()
		}
	})
}

// ask returns what the backend declares. While it must not be asked again, what it said
// last stands: the kernel counts other things, and a figure that changes hands from
// poll to poll would look like load that comes and goes. c.mu is held.
func (c *counting) ask(now time.Time) (Opt[float64], string) {
	if c.declared == nil {
		return Opt[float64]{}, ""
	}
	f, err := c.declared.Read(context.Background()) // it bounds the wait itself
	switch {
	case err == nil:
		c.told = f
	case errors.Is(err, declared.ErrStale) && now.Sub(c.told.At) <= declaredAge:
		f = c.told
	default:
		c.err = Opt[float64]{}
		return Opt[float64]{}, ""
	}
	c.err = Opt[float64]{}
	if f.Err >= 0 {
		c.err = Some(f.Err)
	}
	if f.InFlight < 0 {
		return Opt[float64]{}, ""
	}
	return Some(f.InFlight), SourceDeclared
}

// kernel returns what the connections say.
func (c *counting) kernel(now time.Time) (sockets.Sample, bool) {
	if c.conns == nil {
		return sockets.Sample{}, false
	}
	s, err := c.conns.sample(now)
	why := ""
	if err != nil {
		why = err.Error()
	}
	if why != c.said {
		c.said = why
		if why == "" {
			c.log.Info("the kernel tells of the backend's connections again")
		} else {
			c.log.Warn("the kernel does not tell how many requests are in the backend", "error", why)
		}
	}
	return s, err == nil
}

// tick closes a window: r is the sample taken at its end, of a backend whose process is
// pid (0: none). It returns the error share that the backend declares.
func (c *counting) tick(now time.Time, r *Report, pid int) (err Opt[float64]) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if r.Epoch != c.epoch {
		c.epoch = r.Epoch
		c.inFlight.reset()
		c.queue.reset()
		c.conc.reset()
	}
	if c.conns != nil {
		c.conns.follow(pid)
	}
	if c.asked.IsZero() || now.Sub(c.asked) > askedFor {
		c.inFlight.reset()
		c.queue.reset()
		c.err = Opt[float64]{}
		return c.err
	}
	if c.declared == nil { // else each question of ours would take the answer of a poll
		c.count()
	}
	inFlight, known := c.inFlight.take(now)
	queue, _ := c.queue.take(now) // 0 where nobody tells
	used, has := r.Used.Get()
	avail, also := r.Avail.Get()
	if known && has && also {
		c.conc.observe(now, used, avail, inFlight, queue)
	}
	return c.err
}

// errShare returns the error share that the backend declared when it was last asked.
func (c *counting) errShare() Opt[float64] {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// close ends what asks and listens.
func (c *counting) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ended = true
	if c.again != nil {
		c.again.Stop()
	}
	if c.declared != nil {
		c.declared.Close()
	}
	if c.board != nil {
		c.board.Close()
	}
	if c.conns != nil {
		c.conns.close()
	}
}

// connections looks at the backend's TCP connections, in whichever network namespace
// the backend is. Not for concurrent use.
type connections struct {
	cfg     sockets.Config
	space   func(pid int) string // the namespace of a process: "" for the agent's own
	watcher *sockets.Watcher
	failed  error     // why it could not be opened
	again   time.Time // from when to try that once more
}

// reopenEvery is the pause after a watcher could not be opened.
const reopenEvery = time.Second

// follow takes note that the backend is this process now, 0 for none.
func (c *connections) follow(pid int) {
	if pid == 0 {
		return // it may come back in the same place
	}
	if space := c.space(pid); space != c.cfg.NetNS {
		c.close()
		c.cfg.NetNS, c.again = space, time.Time{}
	}
}

func (c *connections) sample(now time.Time) (sockets.Sample, error) {
	if c.watcher == nil {
		if now.Before(c.again) {
			return sockets.Sample{}, c.failed
		}
		if c.watcher, c.failed = sockets.Open(c.cfg); c.failed != nil {
			c.watcher, c.again = nil, now.Add(reopenEvery)
			return sockets.Sample{}, c.failed
		}
	}
	s, err := c.watcher.Sample(now)
	if errors.Is(err, sockets.ErrNamespaceGone) {
		c.close()
	}
	return s, err
}

func (c *connections) close() {
	if c.watcher != nil {
		c.watcher.Close()
		c.watcher = nil
	}
}
