package sockets

import (
	"errors"
	"fmt"
	"math"
	"runtime"
	"time"
)

// ErrNamespaceGone says that the network namespace of the configuration no longer is
// the one that was opened: the backend's container has ended. Open a new watcher.
var ErrNamespaceGone = errors.New("the backend's network namespace is gone")

// Watcher looks at the connections of one backend. Not for concurrent use.
type Watcher struct {
	cfg  Config
	link *link
	est  *estimator
	cpu  func() int64 // nanoseconds that this thread has used

	start   time.Time
	last    Sample
	cost    time.Duration // of the last sample
	hold    time.Duration // how long it is not taken anew
	search  time.Duration // mean cost of a search
	perConn time.Duration // mean cost of asking for one connection

	searched  bool
	dumped    time.Time
	opens     uint64 // PassiveOpens at the last search
	opened    uint64 // since
	counted   bool   // opens is known
	namespace nsID
	checked   time.Time
	closed    bool

	msg       message
	questions []question
	asked     []int // the connections asked for, by place in questions
	gone      []uint64
}

// Open opens a watcher of a backend's port. It fails where the configuration is wrong,
// the namespace does not exist or may not be entered, and where the kernel has no
// sock_diag. Close it after use.
func Open(cfg Config) (*Watcher, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("sockets: %w", err)
	}
	w := &Watcher{cfg: cfg, est: newEstimator(), cpu: cpuTime}
	var err error
	if cfg.NetNS != "" {
		if w.namespace, err = namespaceAt(cfg.NetNS); err != nil {
			return nil, fmt.Errorf("sockets: network namespace %s: %w", cfg.NetNS, err)
		}
	}
	if w.link, err = openLink(cfg.NetNS); err != nil {
		return nil, fmt.Errorf("sockets: %w", err)
	}
	return w, nil
}

// Close releases the watcher, and with it the namespace it looked into.
func (w *Watcher) Close() {
	w.closed = true
	w.hangUp()
}

func (w *Watcher) hangUp() {
	if w.link != nil {
		w.link.close()
		w.link = nil
	}
}

// Sample looks at the backend's connections, or returns the last sample again where
// Config.Budget forbids looking now. now must carry a monotonic reading and not go
// back. After an error the next call starts afresh; ErrNamespaceGone is final, and so
// is Close.
//
// Accuracy needs history: call it every 250 ms even when nobody asks.
func (w *Watcher) Sample(now time.Time) (Sample, error) {
	if w.closed {
		return Sample{}, errors.New("sockets: the watcher is closed")
	}
	if w.searched && now.Sub(w.last.At) < w.hold {
		return w.last, nil
	}
	if err := w.checkNamespace(now); err != nil {
		return Sample{}, err
	}
	if w.link == nil {
		var err error
		if w.link, err = openLink(w.cfg.NetNS); err != nil {
			return Sample{}, fmt.Errorf("sockets: %w", err)
		}
	}
	if w.start.IsZero() {
		w.start = now
	}
	// The CPU time is the thread's.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	began := w.cpu()
	if err := w.look(now, began); err != nil {
		w.hangUp()
		w.est, w.searched = newEstimator(), false
		return Sample{}, fmt.Errorf("sockets: %w", err)
	}
	opened := math.Inf(1)
	if w.counted {
		opened = float64(w.opened)
	}
	w.last = w.est.sum(opened)
	w.last.At = now
	w.cost = time.Duration(w.cpu() - began)
	w.hold = w.pause(now)
	return w.last, nil
}

// checkNamespace tells, once a second, whether the path still names the namespace.
func (w *Watcher) checkNamespace(now time.Time) error {
	if w.cfg.NetNS == "" || now.Sub(w.checked) < time.Second {
		return nil
	}
	if name, err := namespaceAt(w.cfg.NetNS); err != nil || name != w.namespace {
		return fmt.Errorf("sockets: %s: %w", w.cfg.NetNS, ErrNamespaceGone)
	}
	w.checked = now
	return nil
}

func (w *Watcher) look(now time.Time, began int64) error {
	total, counted := w.link.accepted()
	w.opened, w.counted = total-w.opens, counted && w.counted
	if w.mustSearch(now) {
		return w.searchAll(now, began, total, counted)
	}
	return w.askKnown(now)
}

// mustSearch decides between searching the host's table, at a cost that grows with the
// host, and asking for the known connections, at one that grows with their number.
func (w *Watcher) mustSearch(now time.Time) bool {
	age := now.Sub(w.dumped)
	switch {
	case !w.searched, age >= max(w.cfg.Rescan, w.spaced()), w.asking(now) > w.search:
		return true
	case w.counted && w.opened == 0:
		return false
	}
	return age >= w.spaced()
}

// asking is what asking for the known connections is expected to cost.
func (w *Watcher) asking(now time.Time) time.Duration {
	return time.Duration(w.est.due(now.Sub(w.start))) * w.perConn
}

// maxAge is how old a report's in-flight may be (PICKING.md: 20 ms tolerable).
const maxAge = 20 * time.Millisecond

// dear tells that searches alone cannot keep samples fresh within the budget. They then
// get one half of it, and asking for the known connections in between the other.
func (w *Watcher) dear() bool { return w.within(w.search) > maxAge }

// within is the time over which a cost is the budget's share.
func (w *Watcher) within(cost time.Duration) time.Duration {
	return time.Duration(float64(cost) / w.cfg.Budget)
}

// spaced is the least time between searches for connections that were opened.
func (w *Watcher) spaced() time.Duration {
	if w.dear() {
		return 2 * w.within(w.search)
	}
	return w.within(w.search)
}

// pause is how long the last sample stands.
func (w *Watcher) pause(now time.Time) time.Duration {
	switch {
	case !w.dear():
		return w.within(w.cost)
	case w.dumped.Equal(now):
		return min(w.within(w.cost), 2*w.within(w.asking(now)))
	}
	return 2 * w.within(w.cost)
}

func (w *Watcher) searchAll(now time.Time, began int64, total uint64, counted bool) error {
	at := now.Sub(w.start)
	w.est.beginDump()
	err := w.link.dump(w.cfg.Port, openStates|listenStates, true, &w.msg, func(r *record) { w.est.see(r, at) })
	if err != nil {
		return err
	}
	w.est.endDump()
	w.opens, w.opened, w.counted = total, 0, counted
	w.searched, w.dumped = true, now
	w.search = mean(w.search, time.Duration(w.cpu()-began))
	return nil
}

func (w *Watcher) askKnown(now time.Time) error {
	at := now.Sub(w.start)
	if err := w.askListeners(); err != nil {
		return err
	}
	began, n := w.cpu(), 0
	w.questions, w.asked, w.gone = w.questions[:0], w.asked[:0], w.gone[:0]
	for i := range w.est.conns {
		c := &w.est.conns[i]
		if !c.due(at) {
			continue
		}
		w.questions = append(w.questions, question{family: c.family, id: &c.id})
		w.asked = append(w.asked, i)
		if n++; len(w.questions) == batch {
			if err := w.askBatch(at); err != nil {
				return err
			}
		}
	}
	if err := w.askBatch(at); err != nil {
		return err
	}
	for _, cookie := range w.gone {
		w.est.closed(cookie)
	}
	if n > 0 {
		w.perConn = mean(w.perConn, time.Duration(w.cpu()-began)/time.Duration(n))
	}
	return nil
}

func (w *Watcher) askBatch(at time.Duration) error {
	err := w.link.get(w.questions, &w.msg, func(i int, r *record) {
		c := &w.est.conns[w.asked[i]]
		if r == nil || !r.hasInfo || r.state != stateEstablished && r.state != stateCloseWait {
			w.gone = append(w.gone, c.id.cookie())
			return
		}
		w.est.look(c, r, at, true)
	})
	w.questions, w.asked = w.questions[:0], w.asked[:0]
	return err
}

// askListeners brings the accept queues up to date. The table of listening sockets is
// small, and of several that share an address (SO_REUSEPORT) only one would answer to a
// question by address.
func (w *Watcher) askListeners() error {
	w.est.listeners = w.est.listeners[:0]
	return w.link.dump(w.cfg.Port, listenStates, false, &w.msg, func(r *record) {
		w.est.listeners = append(w.est.listeners, *r)
	})
}

func mean(old, new time.Duration) time.Duration {
	if old == 0 {
		return new
	}
	return old + (new-old)/8
}
