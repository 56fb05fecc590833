package register

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"time"

	"outrigger/agentstats/internal/call"
)

const (
	readEvery     = 100 * time.Millisecond // in-flight, while draining
	announceEvery = 200 * time.Millisecond // the catalog
	tellEvery     = 5 * time.Second        // in the log, while draining
	leaveLimit    = 3 * time.Second        // one call that is made even when time is up
)

func joinPort(host string, port int) string { return net.JoinHostPort(host, strconv.Itoa(port)) }

// Shutdown ends Run, drains the instance and takes it out of Consul:
//
//  1. maintenance mode on, which makes it critical, and every sidecar stop picking
//     it;
//  2. until the catalog has that;
//  3. until nothing is in flight for Drain.Quiet, or for Drain.Blind where that is
//     not known;
//  4. deregistration.
//
// Steps 1 to 3 end after Drain.Timeout at the latest, and at once when ctx ends
// (the second SIGTERM), where Consul answers; a Consul that does not adds up to 6 s. The backend has to serve until
// Shutdown returns. The error tells what is left in Consul, or what stays unsure.
//
// Where this Registrar never wrote to Consul it changes nothing there. An instance that
// somebody else has in maintenance mode stays registered, in
// maintenance: whoever took it out must not find it in service again because its
// agent was restarted.
func (r *Registrar) Shutdown(ctx context.Context) error {
	r.stop()
	r.once.Do(func() { close(r.ran) }) // Run was never called, and is not any more
	<-r.ran
	if !r.loop.tried {
		r.log.Info("this agent registered nothing in Consul: what is there is left as it is")
		return nil
	}
	limited, cancel := context.WithTimeout(ctx, r.cfg.Drain.Timeout)
	defer cancel()
	have, err := r.leave(limited)
	if err == nil && have.service == nil {
		r.log.Info("it is not registered in Consul: nothing to leave")
		return nil
	}
	if err == nil {
		r.tellDrained(r.drain(limited, have), ctx)
	}
	if have.maint != "" {
		r.log.Warn("left registered, because somebody put it into maintenance mode; deregister it if it is gone for good",
			"reason", have.maint, "command", "consul services deregister -id="+r.id)
		return nil
	}
	last, cancelLast := context.WithTimeout(context.WithoutCancel(ctx), leaveLimit)
	defer cancelLast()
	if e := r.deregister(last); e != nil {
		return fmt.Errorf("register: %s stays registered until its check is critical: %w", r.id, errors.Join(r.told(err), r.told(e)))
	}
	r.note(func(s *Status) { s.Registered = false }, nil)
	r.log.Info("deregistered from Consul")
	if err != nil {
		return fmt.Errorf("register: %s was deregistered without a drain: %w", r.id, r.told(err))
	}
	return nil
}

// told explains err, which may be nil.
func (r *Registrar) told(err error) error {
	if err == nil {
		return nil
	}
	return r.explain(err)
}

// leave turns maintenance mode on. It tries once whatever ctx says, then until
// that ends or Consul refuses.
func (r *Registrar) leave(ctx context.Context) (have instance, err error) {
	for n := 0; ; n++ {
		if have, err = r.enterMaintenance(ctx, have); err == nil {
			return have, nil
		}
		if is(err, http.StatusForbidden) {
			return have, err
		}
		if n == 0 {
			r.log.Warn("cannot turn maintenance mode on for now", "error", r.explain(err))
		}
		if call.Sleep(ctx, backoff(n, r.env.Rand())) != nil {
			return have, err
		}
	}
}

// enterMaintenance is not cut short by ctx, only bounded: a call that Consul has
// seen and we have not must not leave us guessing.
func (r *Registrar) enterMaintenance(ctx context.Context, last instance) (instance, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), leaveLimit)
	defer cancel()
	have, err := r.read(ctx, "", 0)
	if err != nil {
		return last, err
	}
	if have.service == nil || have.maint != "" {
		return have, nil
	}
	return have, r.maintenance(ctx, true)
}

// drain waits until the instance may go and returns why, "" if time was up first.
func (r *Registrar) drain(ctx context.Context, have instance) string {
	r.log.Info("draining", "timeout", r.cfg.Drain.Timeout)
	if have.maint == "" {
		r.awaitAnnounced(ctx, have.node)
	}
	start := r.env.Now()
	clock, said := drainClock{Drain: r.cfg.Drain, busy: start}, start
	for ctx.Err() == nil {
		inFlight, known := r.env.InFlight()
		now := r.env.Now()
		if done, by := clock.step(now, inFlight, known); done {
			return by
		}
		if now.Sub(said) >= tellEvery {
			said = now
			r.log.Info("still draining", "in_flight", inFlight, "known", known, "after", now.Sub(start).Round(time.Second))
		}
		_ = call.Sleep(ctx, readEvery) // its end ends the loop
	}
	return ""
}

// awaitAnnounced waits until the catalog has the maintenance mode. A Consul agent
// without its servers cannot announce it, and sidecars go on sending meanwhile.
func (r *Registrar) awaitAnnounced(ctx context.Context, node string) {
	said := false
	for ctx.Err() == nil {
		ok, err := r.announced(ctx, node)
		switch {
		case ok:
			return
		case errors.Is(err, errHidden) || is(err, http.StatusForbidden):
			return // Drain.Quiet has to do
		case err != nil && ctx.Err() == nil && !said:
			r.log.Warn("cannot see whether the catalog has the maintenance mode; trying on", "error", r.explain(err))
			said = true
		}
		_ = call.Sleep(ctx, announceEvery) // its end ends the loop
	}
}

func (r *Registrar) tellDrained(by string, ctx context.Context) {
	if by != "" {
		r.log.Info("drained", "because", by)
		return
	}
	inFlight, known := r.env.InFlight()
	why := "drain timeout " + r.cfg.Drain.Timeout.String() + " is over"
	if ctx.Err() != nil {
		why = "told to hurry"
	}
	if known {
		r.log.Warn("not drained: requests may be cut", "because", why, "in_flight", inFlight)
	} else {
		r.log.Warn("not known to be drained: requests may be cut", "because", why)
	}
}
