package discovery

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/consul/api"
)

// readMargin is how long an answer may take beyond the wait. Consul itself holds
// a read for up to 7 s while there is no leader (rpc_hold_timeout).
const readMargin = 10 * time.Second

// read asks Consul once. Consul adds up to a sixteenth to the wait, to spread
// those who wait.
func (c *Consul) read(ctx context.Context) ([]*api.ServiceEntry, *api.QueryMeta, error) {
	q, l := c.query, &c.loop
	opts := &api.QueryOptions{
		Datacenter: cmp.Or(q.Datacenter, c.cfg.Datacenter),
		Filter:     q.Filter,
		Near:       q.Near,
	}
	limit := readMargin
	switch {
	case l.verify:
		// Not the default mode: discovery_max_stale in the agent's
		// configuration silently turns that into a stale read.
		opts.RequireConsistent = true
	case l.index > 0:
		opts.WaitIndex, opts.WaitTime = l.index, c.cfg.Wait
		limit += c.cfg.Wait + c.cfg.Wait/16
		opts.AllowStale = c.cfg.Stale
	default:
		opts.AllowStale = c.cfg.Stale
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	// Several tags go out as several tag parameters, all of which must match.
	entries, meta, err := c.client.Health().ServiceMultipleTags(q.Service, q.Tags, q.OnlyPassing, opts.WithContext(ctx))
	switch {
	case err != nil && ctx.Err() == context.DeadlineExceeded:
		return nil, nil, fmt.Errorf("no answer within %s: %w", limit, err)
	case err != nil:
		return nil, nil, err
	case meta.LastIndex == 0 && !meta.KnownLeader:
		return nil, nil, errors.New("the answer has no usable X-Consul-Index header: is this address a Consul agent's?")
	}
	return entries, meta, nil
}
