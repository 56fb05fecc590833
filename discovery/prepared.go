package discovery

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/consul/api"
)

// PreparedQuery asks Consul to execute a prepared query. What selects instances
// is in Consul, so that of Query only Service (for logs, where it may be any name),
// Datacenter (whose query it is), Near and what says how instances are to be
// understood can be set.
type PreparedQuery struct {
	Query
	Name string // the prepared query's name or ID
	// Poll is the distance of two executions, give or take a fifth, 1 s to 1 h.
	// Prepared queries cannot block until something changes (consul #3035).
	Poll time.Duration
}

// DefaultPreparedQuery returns the query of a service that names nothing else.
func DefaultPreparedQuery(service, name string) PreparedQuery {
	return PreparedQuery{
		Query: DefaultQuery(service), Name: name,
		Poll: 5 * time.Second, // soon enough for a failover; each is a request to a server
	}
}

// Validate reports every part that cannot be asked for.
func (q PreparedQuery) Validate() error {
	errs := []error{q.Query.Validate()}
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	// consul/api puts it into the path.
	if q.Name == "" || q.Name == "." || q.Name == ".." || !plainText(q.Name, 253) || strings.Contains(q.Name, "/") {
		bad("prepared_query %.80q: allowed are 1 to 253 printable characters other than /", q.Name)
	}
	if len(q.Tags) > 0 || q.Filter != "" || q.OnlyPassing || len(q.NodeMetaIs) > 0 {
		bad("a prepared query selects instances by itself: write tags, filter, only_passing and node_meta into it, in Consul")
	}
	if q.Poll < time.Second || q.Poll > time.Hour {
		bad("poll is %s, allowed are 1s to 1h", q.Poll)
	}
	return errors.Join(errs...)
}

func (q PreparedQuery) fingerprint(cfg Config) string {
	q.Near, q.Poll = "", 0
	return fingerprint("prepared_query", cfg, q)
}

// Prepared follows a prepared query by executing it again and again. It is made by
// NewPrepared and implements Source.
//
// The query may be answered by another datacenter from one time to the next, so
// IDs have theirs in front: "@DATACENTER/NODE/SERVICE_ID", and "@peer:NAME/..." for
// instances of a cluster peer.
type Prepared struct {
	client *api.Client
	query  PreparedQuery
	cfg    Config
	keep   *keeper
	wrong  error // of query or configuration; Watch returns it

	watching atomic.Bool
	bucket   bucket // Watch's alone
	verify   bool   // the next read is a consistent one; Watch's alone

	mu sync.Mutex
	dc string // of the last believed answer
}

var _ Source = (*Prepared)(nil)

// NewPrepared returns a source for the instances that the query finds. The client
// is shared with other sources. A wrong query or configuration shows when Watch is
// called.
func NewPrepared(client *api.Client, query PreparedQuery, cfg Config, env Env) *Prepared {
	hint := consulHint + ", or whether all of the query's instances are critical"
	p := &Prepared{
		client: client, query: query, cfg: cfg,
		keep:   newKeeper("Consul", hint, query.Service, cfg, env),
		bucket: bucket{burst: cfg.RateBurst, every: cfg.RateInterval},
	}
	if err := errors.Join(query.Validate(), cfg.Validate()); err != nil {
		p.wrong = fmt.Errorf("discovery of service %q: %w", query.Service, err)
	}
	return p
}

// Persist is Consul.Persist.
func (p *Prepared) Persist(store *Store, block string) {
	p.keep.keepOn(store, block, p.query.Service, p.query.fingerprint(p.cfg))
}

// Status implements Source. Index is 0: an execution has none.
func (p *Prepared) Status() Status {
	s := p.keep.status("prepared_query")
	p.mu.Lock()
	defer p.mu.Unlock()
	s.Datacenter = p.dc
	return s
}

// Watch implements Source.
func (p *Prepared) Watch(ctx context.Context, apply func([]Instance)) error {
	if p.wrong != nil {
		return p.wrong
	}
	if !p.watching.CompareAndSwap(false, true) {
		return fmt.Errorf("discovery of service %q: it is being watched already", p.query.Service)
	}
	defer p.watching.Store(false)
	p.keep.begin(apply)
	defer p.keep.end()
	defer p.keep.persist(ctx)()
	for delay := time.Duration(0); ; {
		if err := sleep(ctx, delay); err != nil {
			return err
		}
		if err := sleep(ctx, p.bucket.take(p.keep.env.Now())); err != nil {
			return err
		}
		a, from, err := p.read(ctx)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil:
			next := p.keep.failed(err, busy(err))
			delay, p.verify = next.delay, next.verify
		default:
			delay = p.answered(ctx, a, from)
		}
	}
}

// answered has an answer judged, and returns the pause before the next read.
func (p *Prepared) answered(ctx context.Context, a reading, from origin) time.Duration {
	before := p.Status().Datacenter
	a.Moved = before != "" && len(a.set) > 0 && from.dc != before
	next := p.keep.take(ctx, a)
	if p.verify = next.verify; p.verify {
		return next.delay
	}
	if a.Moved {
		p.keep.log.Info("the prepared query is answered by another datacenter", "was", before, "now", from.dc, "failovers", from.failovers)
	}
	if len(a.set) > 0 { // that nothing was found was not found there
		p.mu.Lock()
		p.dc = from.dc
		p.mu.Unlock()
	}
	return time.Duration((0.8 + 0.4*p.keep.env.Rand()) * float64(p.query.Poll))
}

// origin is who answered.
type origin struct {
	dc        string // or "peer:NAME"
	failovers int    // tried before
}

// read executes the query once. A verifying read does not use the cache.
func (p *Prepared) read(ctx context.Context) (reading, origin, error) {
	opts := &api.QueryOptions{
		Datacenter: cmp.Or(p.query.Datacenter, p.cfg.Datacenter),
		Near:       p.query.Near,
		Namespace:  p.cfg.Namespace,
		Partition:  p.cfg.Partition,
	}
	if p.verify {
		opts.RequireConsistent = true
	} else {
		opts.AllowStale = p.cfg.Stale
		// The agent does not refresh what it has by itself: it is as old as asked for.
		opts.UseCache, opts.MaxAge = p.cfg.Cached, min(p.query.Poll, p.cfg.MaxStale)
	}
	ctx, x, end := withExchange(ctx, 0, false, &p.keep.first)
	defer end()
	resp, meta, err := p.client.PreparedQuery().Execute(p.query.Name, opts.WithContext(ctx))
	var status api.StatusError
	switch {
	case err != nil && context.Cause(ctx) == errTooLate:
		return reading{}, origin{}, fmt.Errorf("no answer within %s: %w", x.timeLimit, err)
	case errors.As(err, &status) && status.Code == http.StatusNotFound:
		return reading{}, origin{}, fmt.Errorf("there is no prepared query %q, or this address is no Consul agent's: %w", p.query.Name, err)
	case err != nil:
		return reading{}, origin{}, err
	case resp == nil || resp.Service == "" || meta.LastIndex == 0 && !meta.KnownLeader:
		return reading{}, origin{}, errors.New("the answer is no prepared query's: is this address a Consul agent's?")
	}
	a, from := p.understand(resp)
	a.circumstances = circumstances{
		Consistent:  p.verify,
		KnownLeader: meta.KnownLeader,
		LastContact: meta.LastContact,
		CacheAge:    meta.CacheAge,
		Filtered:    meta.ResultsFilteredByACLs,
	}
	return a, from, nil
}

// understand makes instances of what the query found.
func (p *Prepared) understand(resp *api.PreparedQueryExecuteResponse) (reading, origin) {
	entries := make([]*api.ServiceEntry, 0, len(resp.Nodes))
	for i := range resp.Nodes {
		entries = append(entries, &resp.Nodes[i])
	}
	from := origin{resp.Datacenter, resp.Failovers}
	if from.dc == "" && len(entries) > 0 && entries[0].Service != nil && entries[0].Service.PeerName != "" {
		from.dc = "peer:" + entries[0].Service.PeerName
	}
	set, odd := convert(&p.query.Query, entries)
	p.query.markBackups(set)
	a := reading{set: set, odd: odd}
	if p.query.Near != "" {
		a.shown = byAnswer(set, entries)
	}
	// A name with these is not Consul's, but the answer is untrusted.
	prefix := "@" + strings.NewReplacer("%", "%25", "/", "%2F").Replace(from.dc) + "/"
	for _, list := range [][]Instance{a.set, a.shown} {
		for i := range list {
			list[i].ID = prefix + list[i].ID
		}
	}
	// With it an ID may be too long.
	a.set = slices.DeleteFunc(a.set, func(i Instance) bool {
		err := i.Validate()
		if err != nil {
			a.odd = append(a.odd, oddity{i.ID, err.Error(), true})
		}
		return err != nil
	})
	a.shown = slices.DeleteFunc(a.shown, func(i Instance) bool { return i.Validate() != nil })
	return a, from
}
