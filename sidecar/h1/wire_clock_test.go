package h1

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"outrigger/picker"
	"outrigger/sidecar/balance"
)

// clocked is a rig whose time stands still unless the test lets it pass: what
// strikes, and when, does not depend on how fast the machine is.
type clocked struct {
	*rig
	at atomic.Int64
}

func newClocked(t testing.TB, cfg Config, bcfg balance.Config, addrs ...string) *clocked {
	t.Helper()
	if err := cfg.Validate(); err != nil {
		t.Fatal(err)
	}
	r := &clocked{}
	r.at.Store(int64(time.Hour))
	ctx, cancel := context.WithCancel(context.Background())
	e, err := NewEngine(r.now)
	if err != nil {
		t.Fatal(err)
	}
	go e.Run(ctx)
	cfg.FailureStatuses = bcfg.Breaker.FailureStatuses
	env := balance.RealEnv(e.Conns(cfg, nil))
	env.Now = r.now
	b, err := balance.New(bcfg, env)
	if err != nil {
		t.Fatal(err)
	}
	r.rig = &rig{t: t, e: e, b: b}
	r.set(addrs...)
	r.serve(cfg, nil, cancel)
	return r
}

func (r *clocked) now() time.Duration { return time.Duration(r.at.Load()) }

// pass lets time pass and whatever is due by then strike.
func (r *clocked) pass(d time.Duration) {
	r.at.Add(int64(d))
	r.e.reaper.strike(r.now())
}

// dial opens the only client connection, whose wait for a request has begun in
// the past: its time-out then is mistaken for no other.
func (r *clocked) dial() *peer {
	r.t.Helper()
	c := r.rig.dial()
	r.rests()
	return c
}

// rests waits until the only client connection waits for a request, and lets a
// moment pass.
func (r *clocked) rests() {
	r.t.Helper()
	r.eventually("the connection waits for a request", func() (rests bool) {
		r.s.each(func(c *conn) {
			rests = c.idleAt.Load() != 0 && time.Duration(c.alarm.at.Load()) == r.now()+r.s.cfg.Timeouts.Idle
		})
		return rests
	})
	r.pass(time.Millisecond)
}

// clientAlarm is when the time of the only client, who has begun a request, is
// up; 0: never, fired: it was.
func (r *rig) clientAlarm() (at time.Duration) {
	r.s.each(func(c *conn) {
		if c.idleAt.Load() == 0 {
			at = time.Duration(c.alarm.at.Load())
		}
	})
	return at
}

// backendAlarm is the same of the backend that serves the only client; 0 also
// if there is none.
func (r *rig) backendAlarm() (at time.Duration) {
	r.s.each(func(c *conn) {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.up != nil {
			at = time.Duration(c.up.alarm.at.Load())
		}
	})
	return at
}

// wantClientAlarm waits until the client's time is up in left from now.
func (r *clocked) wantClientAlarm(left time.Duration) {
	r.t.Helper()
	r.eventually("the client's time is up in "+left.String(), func() bool { return r.clientAlarm() == r.now()+left })
}

func (r *clocked) wantBackendAlarm(left time.Duration) {
	r.t.Helper()
	r.eventually("the backend's time is up in "+left.String(), func() bool { return r.backendAlarm() == r.now()+left })
}

// wantJudged checks how the requests to one backend were judged.
func (r *rig) wantJudged(b *backend, want picker.Totals) {
	r.t.Helper()
	r.settled()
	var got picker.Totals
	for deadline := time.Now().Add(patience / 10); ; time.Sleep(time.Millisecond) {
		for _, e := range r.b.Status().Endpoints {
			if e.Instance.ID == "i-"+b.addr {
				got = e.Totals
			}
		}
		if got == want || time.Now().After(deadline) {
			break
		}
	}
	if got != want {
		r.t.Errorf("the backend was judged %+v, want %+v", got, want)
	}
}

// wantRetries checks what the retries so far were due to.
func (r *rig) wantRetries(causes ...cause) {
	r.t.Helper()
	var want [numCauses]uint64
	for _, c := range causes {
		want[c]++
	}
	if got := r.s.Stats().Retries; got != want {
		r.t.Errorf("retries %v of %v, want %v", got, Causes(), want)
	}
	if n := r.b.Status().Retries; n != uint64(len(causes)) {
		r.t.Errorf("the balancer counts %d retries, want %d", n, len(causes))
	}
}

var (
	oneSuccess = picker.Totals{Requests: 1, Successes: 1}
	oneFailure = picker.Totals{Requests: 1, Failures: 1}
	oneIgnored = picker.Totals{Requests: 1, Ignored: 1}
)
