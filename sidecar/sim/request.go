package sim

import (
	"time"

	"outrigger/picker"
	"outrigger/sidecar/balance"
)

// request is a client and its request. It is reused when it has come to its
// end; life and try tell what still belongs to it from what is late.
type request struct {
	index    int32
	sidecar  int32
	life     int32 // arrivals so far, of whatever client
	try      int32 // of sending, likewise
	state    state
	retried  int
	returned int
	measured bool
	born     time.Duration // its arrival, the last one if its client returned
	work     float64
	lease    balance.Lease
	waiter   balance.Waiter
}

type state uint8

const (
	stateFree state = iota
	stateQueued
	stateSent
	stateAway // told 503, its client will come back
)

// newRequest has a new client arrive at a random sidecar.
func (f *fleet) newRequest() {
	var r *request
	if n := len(f.free); n > 0 {
		r = f.requests[f.free[n-1]]
		f.free = f.free[:n-1]
	} else {
		r = &request{index: int32(len(f.requests))}
		r.waiter.Grant = func(l balance.Lease, err error) { f.granted(r, l, err) }
		f.requests = append(f.requests, r)
	}
	r.sidecar = int32(f.arrivals.r.IntN(len(f.sidecars)))
	r.work = f.cfg.Work.draw(f.arrivals.r)
	r.returned = 0
	r.measured = f.stats.measuring
	if r.measured {
		f.stats.pending++
		f.stats.requests++
	}
	f.ask(r)
}

// ask has a request arrive at its sidecar.
func (f *fleet) ask(r *request) {
	r.born, r.retried = f.now, 0
	r.life++
	r.state = stateQueued
	r.waiter.Key = balance.Key{Deadline: f.clock() + f.cfg.Client.Timeout}
	f.stats.asked(r)
	f.patience.push(event{at: f.now + f.cfg.Client.Timeout, kind: evPatience, a: r.index, b: r.life})
	l, waits, err := f.sidecars[r.sidecar].b.Ask(&r.waiter)
	switch {
	case err != nil:
		f.refused(r, err)
	case !waits:
		f.send(r, l)
	case r.state == stateQueued: // not granted meanwhile
		f.queueing.push(event{at: f.now + f.cfg.Balance.Queue.Timeout, kind: evQueued, a: r.index, b: r.life})
	}
}

// granted ends a wait in a sidecar's queue.
func (f *fleet) granted(r *request, l balance.Lease, err error) {
	if err != nil {
		f.refused(r, err)
		return
	}
	f.send(r, l)
}

func (f *fleet) send(r *request, l balance.Lease) {
	r.state, r.lease = stateSent, l
	r.try++
	f.newJob(r, r.lease.Conns().(link).backend)
}

// replied takes an answer, unless its client has given up.
func (f *fleet) replied(e event) {
	r := f.requests[e.a]
	if r.state != stateSent || r.try != e.b {
		return
	}
	took := f.now + clockStart - r.lease.Start()
	result := picker.Result{Outcome: picker.Success, FirstByte: took, Total: took}
	switch answer(e.c) {
	case answerStatus:
		result.Outcome = picker.Failure
	case answerShed:
		result.Outcome = picker.Drop
	case answerReset, answerRefused:
		result = picker.Result{Outcome: picker.Failure, Down: answer(e.c) == answerRefused}
	}
	f.telling(r)
	ep := r.lease.Endpoint()
	r.lease.Done(result)
	switch answer(e.c) {
	case answerGood:
		f.end(r, fateAnswered)
	case answerReset, answerRefused:
		f.again(r, ep)
	default:
		f.end(r, fateFailed)
	}
}

// telling stores what the answer carries beside itself.
func (f *fleet) telling(r *request) {
	m := &f.machines[r.lease.Conns().(link).backend]
	f.feedback = feedback{float64(m.inFlight()), r.work * (1 - m.IO) / m.Speed}
}

// again sends a request that failed to another endpoint if it may.
func (f *fleet) again(r *request, failed *picker.Endpoint) {
	if r.retried < f.cfg.Client.Retries {
		r.waiter.Key.Tried.Add(failed)
		if l, err := f.sidecars[r.sidecar].b.Retry(r.waiter.Key); err == nil {
			r.retried++
			f.stats.retries++
			f.send(r, l)
			return
		}
	}
	f.end(r, fateFailed)
}

// gaveUp takes the end of a client's patience.
func (f *fleet) gaveUp(e event) {
	r := f.requests[e.a]
	if r.life != e.b {
		return
	}
	switch r.state {
	case stateQueued:
		f.sidecars[r.sidecar].b.Cancel(&r.waiter, true)
	case stateSent:
		f.telling(r)
		r.lease.Done(picker.Result{Outcome: f.cfg.Client.Outcome})
	default:
		return
	}
	f.end(r, fateTimedOut)
}

// waitedOut takes the end of a wait in a sidecar's queue.
func (f *fleet) waitedOut(e event) {
	r := f.requests[e.a]
	if r.life != e.b || r.state != stateQueued {
		return
	}
	b := f.sidecars[r.sidecar].b
	if b.Cancel(&r.waiter, false) {
		f.refused(r, b.Refuse(balance.QueueTimeout))
	}
}

// refused takes a sidecar's own 503. The client comes back, or is turned away
// for good.
func (f *fleet) refused(r *request, err error) {
	no := err.(*balance.Refusal)
	f.stats.turned(r, no.Reason)
	if r.returned == f.cfg.Client.Returns {
		f.end(r, fateTurned)
		return
	}
	r.returned++
	r.state = stateAway
	after := f.cfg.Client.ReturnAfter
	if after == 0 {
		after = time.Duration(no.RetryAfter) * time.Second
	}
	f.heap.push(event{at: f.now + after, kind: evReturn, a: r.index})
}

// end is the end of a request.
func (f *fleet) end(r *request, how fate) {
	f.stats.ended(r, how, f.now-r.born)
	r.state = stateFree
	r.life++
	r.measured = false
	f.free = append(f.free, r.index)
}
