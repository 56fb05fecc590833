package discovery

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/consul/api"
)

// readMargin is how long an answer may take beyond the wait. Consul itself holds
// a read for up to 7 s while there is no leader (rpc_hold_timeout).
const readMargin = 10 * time.Second

// lastRead is the newest answer that was decoded.
type lastRead struct {
	reading
	at time.Time
}

// read asks Consul once. A verifying read must neither block nor use the cache:
// the agent would answer from what it has, whatever consistency is asked for.
func (c *Consul) read(ctx context.Context) (reading, error) {
	q, l := c.query, &c.loop
	opts := &api.QueryOptions{
		Datacenter: cmp.Or(q.Datacenter, c.cfg.Datacenter),
		Filter:     q.Filter,
		Near:       q.Near,
		NodeMeta:   q.NodeMetaIs,
		// Enterprise's, others answer 400.
		Namespace: c.cfg.Namespace,
		Partition: c.cfg.Partition,
	}
	if l.verify {
		// Not the default mode: discovery_max_stale in the agent's
		// configuration silently turns that into a stale read.
		opts.RequireConsistent = true
	} else {
		opts.AllowStale, opts.UseCache = c.cfg.Stale, c.cfg.Cached
		if l.index > 0 {
			opts.WaitIndex, opts.WaitTime = l.index, c.cfg.Wait
		}
	}
	// An index belongs to a cluster. Looking at the whole answer now and then
	// mends it if another one has come to the same.
	known := l.index > 0 && l.index == c.last.index && c.env.Now().Sub(c.last.at) < c.cfg.Wait
	ctx, x, end := withExchange(ctx, opts.WaitTime, known, &c.keep.first)
	defer end()
	// Several tags go out as several tag parameters, all of which must match.
	entries, meta, err := c.client.Health().ServiceMultipleTags(q.Service, q.Tags, q.OnlyPassing, opts.WithContext(ctx))
	switch {
	case err != nil && context.Cause(ctx) == errTooLate:
		return reading{}, fmt.Errorf("no answer within %s: %w", x.timeLimit, err)
	case err != nil:
		return reading{}, err
	case meta.LastIndex == 0 && !meta.KnownLeader:
		return reading{}, errors.New("the answer has no usable X-Consul-Index header: is this address a Consul agent's?")
	}
	a := c.last.reading
	if !x.unchanged {
		a = c.understand(entries)
		a.index = meta.LastIndex
		c.last = lastRead{a, c.env.Now()}
	}
	a.circumstances = circumstances{
		Consistent:  l.verify,
		Streaming:   meta.QueryBackend == api.QueryBackendStreaming,
		KnownLeader: meta.KnownLeader,
		LastContact: meta.LastContact,
		CacheAge:    meta.CacheAge,
		Filtered:    meta.ResultsFilteredByACLs,
	}
	return a, nil
}

// understand makes instances of what Consul lists.
func (c *Consul) understand(entries []*api.ServiceEntry) reading {
	set, odd := convert(&c.query, entries)
	c.query.markBackups(set)
	a := reading{set: set, odd: odd}
	if c.query.Near != "" {
		a.shown = byAnswer(set, entries)
	}
	return a
}

// graceQueued is the most that a source's first read waits for its turn before the
// snapshot is used: 1000 sources have theirs by then.
const graceQueued = 5 * time.Second

// firstRead runs the grace of a source's first answer. Among hundreds of sources
// the first read waits longer for its turn at the gate than an agent needs to
// answer: the grace begins when it has it. A nil one does nothing.
type firstRead struct {
	mu     sync.Mutex
	late   *time.Timer // nil: nobody waits for it
	turned bool
}

// begin returns what fires when the first answer is late.
func (f *firstRead) begin() <-chan time.Time {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.late, f.turned = time.NewTimer(grace), false
	return f.late.C
}

// queue notes that the read waits for its turn.
func (f *firstRead) queue() { f.restart(graceQueued, false) }

// turn notes that it has it.
func (f *firstRead) turn() { f.restart(grace, true) }

func (f *firstRead) restart(d time.Duration, turned bool) {
	if f == nil {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.late != nil && !f.turned {
		f.late.Reset(d)
		f.turned = turned
	}
}
