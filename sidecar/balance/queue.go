package balance

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"outrigger/breaker"
)

// Waiter is a request that waits for a free slot. Its owner sets Key and Grant
// and hands it to Enqueue; everything else belongs to the balancer until Grant
// is called or Cancel has returned true.
type Waiter struct {
	Key Key
	// Grant is called once, from any goroutine and with no lock held, with a
	// lease or a *Refusal. Not called after Cancel has returned true.
	Grant func(Lease, error)

	probe      breaker.Probe
	prev, next *Waiter
	queued     bool
}

// queue is a bounded list of waiters, oldest first.
type queue struct {
	waiting atomic.Int64 // read without mu by Done: is there anyone to grant to?

	mu          sync.Mutex
	first, last *Waiter
	n           int

	granted, overflowed, timedOut atomic.Uint64
}

func (q *queue) push(w *Waiter) {
	w.prev, w.next, w.queued = q.last, nil, true
	if q.last != nil {
		q.last.next = w
	} else {
		q.first = w
	}
	q.last = w
	q.n++
	q.waiting.Add(1)
}

func (q *queue) remove(w *Waiter) {
	if w.prev != nil {
		w.prev.next = w.next
	} else {
		q.first = w.next
	}
	if w.next != nil {
		w.next.prev = w.prev
	} else {
		q.last = w.prev
	}
	w.prev, w.next, w.queued = nil, nil, false
	q.n--
	q.waiting.Add(-1)
}

// turns returns who gets the next slot, and who follows whom: the oldest first,
// or under pressure (more than half of the queue in use) the newest, whose
// client is likeliest to be there still when the answer comes.
func (q *queue) turns(length int) (*Waiter, func(*Waiter) *Waiter) {
	if q.n > length/2 {
		return q.last, func(w *Waiter) *Waiter { return w.prev }
	}
	return q.first, func(w *Waiter) *Waiter { return w.next }
}

// Enqueue makes a request wait for a slot, or refuses it: the capacity breaker
// is open, or the queue is full. It rechecks for room once the waiter can be
// seen, so a slot freed meanwhile is not missed; Grant may thus be called
// before Enqueue returns. Waiting has no end of its own: the owner cancels.
func (b *Balancer) Enqueue(w *Waiter) error {
	if reason, ok := b.enqueue(w, Saturated); !ok {
		return b.refuse(reason, &w.Key)
	}
	return nil
}

func (b *Balancer) enqueue(w *Waiter, why Reason) (Reason, bool) {
	if b.cfg.Queue.Length == 0 {
		return why, false
	}
	probe, ok := b.capacity.MayQueue(b.env.Now())
	if !ok {
		return why, false
	}
	w.probe = probe
	q := &b.queue
	q.mu.Lock()
	if q.n >= b.cfg.Queue.Length {
		q.mu.Unlock()
		q.overflowed.Add(1)
		b.capacity.Queued(probe, false)
		return QueueFull, false
	}
	w.Key.queued = true
	q.push(w)
	q.mu.Unlock()
	b.grant()
	if b.draining.Load() {
		b.flush(Draining) // Drain may have looked just before the push
	}
	return 0, true
}

// Cancel takes a waiter out of the queue: because its client left, or because
// its time was up. false: it is not there, Grant has been or is being called.
func (b *Balancer) Cancel(w *Waiter, clientLeft bool) bool {
	q := &b.queue
	q.mu.Lock()
	was := w.queued
	if was {
		q.remove(w)
	}
	q.mu.Unlock()
	switch {
	case !was:
	case clientLeft:
		b.capacity.Abandoned(w.probe)
	default:
		q.timedOut.Add(1)
		b.capacity.Queued(w.probe, false)
	}
	if was && q.waiting.Load() > 0 {
		b.grant() // it may have been in the way of others
	}
	return was
}

// grant gives free slots to waiters until there are no more of either.
func (b *Balancer) grant() {
	q := &b.queue
	for q.waiting.Load() > 0 {
		q.mu.Lock()
		w, l := b.serve(b.env.Now())
		if w == nil {
			q.mu.Unlock()
			return
		}
		q.remove(w)
		q.mu.Unlock()
		q.granted.Add(1)
		b.capacity.Queued(w.probe, true)
		w.Grant(l, nil)
	}
}

// serve is not to hold the queue's lock for long.
const (
	serveTries = 8  // waiters that it asks an endpoint for
	serveLooks = 64 // waiters that it looks at
)

// serve leases a slot for the next waiter that can have one, nil if there is
// none. Who is refused for a reason of its own is not in the way of those behind
// it. The caller holds the queue's lock.
func (b *Balancer) serve(now time.Duration) (*Waiter, Lease) {
	late := time.Duration(0) // whose deadline is no later has too little time left
	w, after := b.queue.turns(b.cfg.Queue.Length)
	for tries, looks := 0, 0; w != nil && tries < serveTries && looks < serveLooks; w, looks = after(w), looks+1 {
		k := &w.Key
		if k.Deadline > 0 && k.Deadline <= late {
			continue
		}
		l, _, ok := b.try(k, now)
		if ok {
			return w, l
		}
		tries++
		switch {
		case k.Tried.Len() > 0: // tells nothing of others
		case b.hasten(k):
			late = k.Deadline
		default:
			return nil, Lease{} // there is no slot for anyone
		}
	}
	return nil, Lease{}
}

// hasten reports whether tooLong may refuse k where it takes one with more time.
func (b *Balancer) hasten(k *Key) bool {
	return k.Deadline > 0 && b.cfg.MaxWait > 0 && b.snap.Load().forecaster != nil
}

// flush refuses everyone who waits.
func (b *Balancer) flush(reason Reason) {
	q := &b.queue
	for {
		q.mu.Lock()
		w := q.first
		if w == nil {
			q.mu.Unlock()
			return
		}
		q.remove(w)
		q.mu.Unlock()
		b.capacity.Abandoned(w.probe)
		w.Grant(Lease{}, b.refuse(reason, &w.Key))
	}
}

// blocking is a waiter with what Acquire needs to sleep on it.
type blocking struct {
	Waiter
	lease Lease
	err   error
	woken chan struct{}
	timer *time.Timer
}

func newBlocking() *blocking {
	w := &blocking{woken: make(chan struct{}, 1), timer: time.NewTimer(time.Hour)}
	w.timer.Stop()
	w.Grant = func(l Lease, err error) {
		w.lease, w.err = l, err
		w.woken <- struct{}{}
	}
	return w
}

// Ask is Acquire for a caller that must not block: it leases an endpoint at
// once, or makes w wait and says so, or refuses with a *Refusal. The caller ends
// the wait (Cancel, then Refuse with QueueTimeout); w.Key is what is asked for.
func (b *Balancer) Ask(w *Waiter) (l Lease, waits bool, err error) {
	l, reason, ok := b.admit(&w.Key)
	if !ok && reason == Saturated {
		reason, waits = b.enqueue(w, Saturated)
	}
	if !ok && !waits {
		return Lease{}, false, b.refuse(reason, &w.Key)
	}
	return l, waits, nil
}

// Acquire leases an endpoint, waiting in the queue for at most its time-out
// when none has room. The error is a *Refusal, or ctx.Err() when ctx ends
// first. It does not allocate when it need not wait.
func (b *Balancer) Acquire(ctx context.Context, k Key) (Lease, error) {
	l, reason, ok := b.admit(&k)
	if ok {
		return l, nil
	}
	if reason != Saturated {
		return Lease{}, b.refuse(reason, &k)
	}
	return b.wait(ctx, k)
}

func (b *Balancer) wait(ctx context.Context, k Key) (Lease, error) {
	w := b.sleepers.Get().(*blocking)
	defer func() {
		w.lease, w.err, w.Key = Lease{}, nil, Key{}
		b.sleepers.Put(w)
	}()
	w.Key = k
	if reason, ok := b.enqueue(&w.Waiter, Saturated); !ok {
		return Lease{}, b.refuse(reason, &w.Key)
	}
	limit := b.cfg.Queue.Timeout
	if k.Deadline > 0 {
		limit = min(limit, max(0, k.Deadline-b.env.Now()))
	}
	w.timer.Reset(limit)
	defer w.timer.Stop()
	select {
	case <-w.woken:
		return w.lease, w.err
	case <-w.timer.C:
		if b.Cancel(&w.Waiter, false) {
			return Lease{}, b.refuse(QueueTimeout, &w.Key)
		}
	case <-ctx.Done():
		if b.Cancel(&w.Waiter, true) {
			return Lease{}, ctx.Err()
		}
	}
	<-w.woken // a grant was on its way
	return w.lease, w.err
}
