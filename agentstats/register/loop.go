package register

import (
	"context"
	"time"

	"github.com/hashicorp/consul/api"

	"outrigger/agentstats/internal/call"
)

// Pauses after an error: they double, half of each is chance, so that the agents
// of a fleet do not come back to Consul in step.
const (
	backoffMin = 250 * time.Millisecond
	backoffMax = 5 * time.Second // registered again within that after an outage
)

// Pauses between writes that somebody else undoes each time: the first is undone
// at once, then ever more slowly, so that two that want the same ID do not write
// to the catalog in a tight loop.
const (
	contestMin  = time.Second
	contestMax  = 5 * time.Minute
	contestOver = time.Minute // undisturbed for so long: forgotten
)

// unwellEvery is how often the check is looked at while it does not pass.
const unwellEvery = time.Second

// loop is what Run knows between looks.
type loop struct {
	delay  time.Duration // before the next look
	hash   string        // the next look waits for a change from it; "": it does not wait
	tried  bool          // by this process to write, at least once
	wrote  bool          // and it did
	status string        // our check's when last seen

	fails   int
	failing time.Time

	contests int       // writes in a row that were undone
	settled  time.Time // the last write
	told     string    // maintenance reason that was logged
}

// look looks at the registration, waiting for a change if the last look found it
// in order, and puts it right.
func (r *Registrar) look(ctx context.Context) error {
	l := &r.loop
	wait := r.cfg.Refresh
	if r.cfg.Check.Kind != CheckNone && l.status != api.HealthPassing {
		// A Consul that comes back empty is told the health that was seen last, so that it
		// becomes healthy must not go unseen for long.
		wait = min(wait, unwellEvery)
	}
	have, err := r.read(ctx, l.hash, wait)
	l.hash, l.delay = "", 0
	if err != nil {
		return err
	}
	if have.checked {
		l.status = have.status
	}
	r.note(func(s *Status) { s.Registered, s.Maintenance = have.service != nil, have.maint }, nil)
	if wrong := r.wrong(have); wrong != "" {
		return r.put(ctx, have, wrong)
	}
	if l.contests > 0 && r.env.Now().Sub(l.settled) > contestOver {
		l.contests = 0
	}
	r.tellMaintenance(have)
	if have.maintOur {
		// Left behind by an agent that was killed while it drained.
		if err := r.maintenance(ctx, false); err != nil {
			return err
		}
		r.log.Info("ended the maintenance mode that an agent before this one had left")
		return nil
	}
	l.hash = have.service.ContentHash
	if l.hash == "" { // no Consul of today
		l.delay = r.cfg.Refresh
	}
	return nil
}

// wrong says what has to be written, or "".
func (r *Registrar) wrong(have instance) string {
	if have.service == nil {
		if r.loop.wrote {
			return "gone"
		}
		return "new"
	}
	if !r.loop.wrote {
		// Whoever registered it, its check may be of another configuration, which
		// the Consul agent does not tell.
		return "taken over"
	}
	if d := differs(r.want, have.service); d != "" {
		return "changed: " + d
	}
	if r.want.Check != nil && !have.checked {
		return "its check is gone"
	}
	return ""
}

// put writes the registration, unless the last writes were undone too soon before.
func (r *Registrar) put(ctx context.Context, have instance, wrong string) error {
	l, now := &r.loop, r.env.Now()
	if l.wrote {
		if pause := l.contest(now); pause > 0 {
			l.delay = min(pause, r.cfg.Refresh)
			return nil
		}
		l.contests++
	}
	want := *r.want
	if want.EnableTagOverride && have.service != nil {
		want.Tags = have.service.Tags
	}
	if want.Check != nil && l.wrote && !have.checked && l.status != "" {
		// The Consul agent lost its memory, the backend did not lose its health: as
		// critical it would be out of service until the first check.
		check := *want.Check
		check.Status, want.Check = l.status, &check
	}
	l.tried = true // an answer that is lost is no proof of failure
	if err := r.register(ctx, &want); err != nil {
		return err
	}
	r.tellWrite(have, wrong)
	l.wrote, l.settled = true, now
	r.note(func(s *Status) { s.Registered = true; s.Written++ }, nil)
	return nil // the next look, at once, checks it and gets the hash
}

// contest returns how long to leave what somebody else did.
func (l *loop) contest(now time.Time) time.Duration {
	if l.contests == 0 {
		return 0
	}
	pause := contestMin
	for n := 1; n < l.contests && pause < contestMax; n++ {
		pause *= 2
	}
	return min(pause, contestMax) - now.Sub(l.settled)
}

func (r *Registrar) tellWrite(have instance, wrong string) {
	switch {
	case wrong == "new":
		r.log.Info("registered in Consul", "port", r.cfg.Port, "check", r.cfg.Check.Kind)
	case wrong == "taken over":
		if d := differs(r.want, have.service); d != "" {
			r.log.Info("registered in Consul over what was there", "different", d)
			return
		}
		r.log.Info("registered in Consul, as it was already")
	case r.loop.contests > 1:
		r.log.Warn("registered in Consul again, and somebody else keeps undoing it: another agent with this id, or a tool?",
			"found", wrong, "in_a_row", r.loop.contests, "other_address", have.address())
	case have.service == nil:
		r.log.Warn("registered in Consul again: the Consul agent restarted without its data, or somebody deregistered it (to take an instance out use maintenance mode)")
	default:
		r.log.Warn("registered in Consul again", "found", wrong, "other_address", have.address())
	}
}

// tellMaintenance logs once when somebody else's maintenance mode begins and ends.
func (r *Registrar) tellMaintenance(have instance) {
	switch l := &r.loop; {
	case have.maint == l.told:
	case have.maint == "":
		r.log.Info("no longer in maintenance mode")
		l.told = ""
	default:
		r.log.Info("somebody put it into maintenance mode: left so", "reason", have.maint)
		l.told = have.maint
	}
}

// judge slows down after an error and logs the first and the last of a row.
func (r *Registrar) judge(err error) {
	l := &r.loop
	if err == nil {
		if l.fails > 0 {
			r.log.Info("Consul answers again", "after", r.env.Now().Sub(l.failing).Round(time.Millisecond), "errors", l.fails)
			l.fails = 0
		}
		return
	}
	err = r.explain(err)
	r.note(nil, err)
	if l.fails == 0 {
		l.failing = r.env.Now()
		r.log.Warn("cannot register in Consul for now; trying on", "error", err)
	} else {
		r.log.Debug("still cannot register in Consul", "error", err)
	}
	l.delay = backoff(l.fails, r.env.Rand())
	l.fails++
}

// backoff returns the pause after the n-th error in a row, from 0.
func backoff(n int, chance float64) time.Duration {
	return call.Backoff(n, backoffMin, backoffMax, chance)
}

// address is the other registration's, for logs.
func (i instance) address() string {
	if i.service == nil {
		return ""
	}
	return call.Clean(hostPort(i.service))
}

func hostPort(s *api.AgentService) string { return joinPort(s.Address, s.Port) }
