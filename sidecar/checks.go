package sidecar

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/go-hclog"

	"outrigger/discovery"
	"outrigger/discovery/healthcheck"
	"outrigger/sidecar/admin"
	"outrigger/sidecar/balance"
	"outrigger/sidecar/h1"
)

// checks are the active checks of one service's endpoints; nil: there are none.
type checks struct {
	checker *healthcheck.Checker
	apart   bool // another port is asked than requests go to
}

func newChecks(c *ServiceConfig, env balance.Env, log hclog.Logger) *checks {
	if c.Check.Kind == "" {
		return nil
	}
	checker := healthcheck.New(c.Check, healthcheck.Env{
		Now: env.Now, Rand: env.Rand, Logger: log.Named("check"),
		// The engine says what is wrong with the files.
		TLS: h1.ClientTLS(c.HTTP.TLS, nil, env.Now),
	})
	return &checks{checker, c.Check.Port != 0}
}

// run checks until ctx ends; set is told of each change of an endpoint.
func (c *checks) run(ctx context.Context, set func(id string, s balance.CheckState)) error {
	return c.checker.Run(ctx, func(id string, v healthcheck.Verdict) { set(id, c.state(v)) })
}

func (c *checks) state(v healthcheck.Verdict) balance.CheckState {
	return balance.CheckState{
		Addr: v.Addr, Known: v.State != healthcheck.Unknown, Up: v.State == healthcheck.Up,
		// Another port that is closed does not say that requests cannot get through.
		Unreachable: v.Unreachable && !c.apart, Since: v.Since, Error: v.Error,
	}
}

func (c *checks) follow(set []discovery.Instance) {
	if c == nil {
		return
	}
	targets := make([]healthcheck.Target, len(set))
	for i := range set {
		targets[i] = healthcheck.Target{ID: set[i].ID, Addr: set[i].HostPort()}
	}
	c.checker.SetTargets(targets)
}

// probe asks an instance that the registry lost whether it lives: by a check, or
// by a connection where there are none, or where the check's own port is closed.
func (c *checks) probe(ctx context.Context, i discovery.Instance) error {
	if c != nil {
		err := c.checker.Once(ctx, healthcheck.Target{ID: i.ID, Addr: i.HostPort()})
		if errors.Is(err, healthcheck.ErrNoVerdict) {
			return fmt.Errorf("%w: %w", discovery.ErrNoVerdict, err)
		}
		if err == nil || !c.apart || !healthcheck.Unreachable(err) {
			return err
		}
	}
	return discovery.Connects(ctx, i)
}

// describe is what the admin listener sees of the checks; nil: there are none.
func (c *checks) describe(now func() time.Duration) func(id string) admin.Check {
	if c == nil {
		return nil
	}
	return func(id string) admin.Check {
		st, ok := c.checker.Status(id)
		if !ok {
			return admin.Check{}
		}
		return admin.Check{
			Checked: true, State: st.State.String(), For: now() - st.Since, Error: st.Error, Took: st.Took,
			Successes: st.Successes, Failures: st.Failures, Unmade: st.Unmade,
		}
	}
}
