package discovery

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/hashicorp/consul/api"
	"github.com/hashicorp/go-hclog"
)

// Env is what a source takes from the outside.
type Env struct {
	Logger hclog.Logger     // nil: none
	Now    func() time.Time // nil: time.Now
	Rand   func() float64   // uniform in [0, 1), for jitter; nil: math/rand/v2
	// Probe asks an instance that the registry lost whether it lives. nil: a TCP
	// connection.
	Probe Prober
	// Successes counts the requests that an instance answered, by its ID: one more
	// since the doubt began is as good as a probe. nil: unknown.
	Successes func(id string) uint64
}

// Consul follows one service by blocking queries on /v1/health/service. It is
// made by NewConsul and implements Source.
//
// Its set outlives a Watch: the next one applies it at once and goes on from
// there, so a restarted consumer does not mistake an outage for an empty service.
type Consul struct {
	client *api.Client
	query  Query
	cfg    Config
	env    Env
	log    hclog.Logger
	wrong  error // of query or configuration; Watch returns it

	watching atomic.Bool
	loop     loop // Watch's alone
	record   record
}

var _ Source = (*Consul)(nil)

// loop is what the watch loop knows between reads.
type loop struct {
	apply  func([]Instance)
	bucket bucket
	delay  time.Duration // before the next read, beside the bucket's
	index  uint64        // the next read blocks on it; 0: it does not block
	verify bool          // the next read is a consistent one

	seen     bool
	set      []Instance // by ID
	shown    []Instance // the same as it was applied: by distance with Query.Near
	setIndex uint64     // of the last believed answer
	filtered bool       // ACLs filtered that

	fails      int       // reads that failed in a row
	failing    time.Time // since when
	held       int       // answers not believed in a row
	told       string    // the reason for holding that was logged
	emptyReads int       // see circumstances
	emptySince time.Time
	odd        map[oddity]bool // of the last believed answer, all logged
}

// NewConsul returns a source for the instances that query selects. The client
// (NewClient) is shared with other sources. A wrong query or configuration shows
// when Watch is called.
func NewConsul(client *api.Client, query Query, cfg Config, env Env) *Consul {
	if env.Logger == nil {
		env.Logger = hclog.NewNullLogger()
	}
	if env.Now == nil {
		env.Now = time.Now
	}
	if env.Rand == nil {
		env.Rand = rand.Float64
	}
	c := &Consul{client: client, query: query, cfg: cfg, env: env, log: env.Logger.With("service", query.Service)}
	if err := errors.Join(query.Validate(), cfg.Validate()); err != nil {
		c.wrong = fmt.Errorf("discovery of service %q: %w", query.Service, err)
	}
	c.loop.bucket = bucket{burst: cfg.RateBurst, every: cfg.RateInterval}
	return c
}

// Status implements Source.
func (c *Consul) Status() Status { return c.record.status(c.env.Now()) }

// Watch implements Source. apply runs on the calling goroutine.
func (c *Consul) Watch(ctx context.Context, apply func([]Instance)) error {
	if c.wrong != nil {
		return c.wrong
	}
	if !c.watching.CompareAndSwap(false, true) {
		return fmt.Errorf("discovery of service %q: it is being watched already", c.query.Service)
	}
	defer c.watching.Store(false)
	l := &c.loop
	l.apply, l.index, l.delay = apply, 0, 0
	if l.seen {
		apply(l.shown)
	}
	for {
		if err := c.pause(ctx); err != nil {
			return err
		}
		entries, meta, err := c.read(ctx)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil:
			c.failed(err)
		default:
			c.answered(entries, meta)
		}
	}
}

// pause keeps the distance to the read before.
func (c *Consul) pause(ctx context.Context) error {
	if err := sleep(ctx, c.loop.delay); err != nil {
		return err
	}
	return sleep(ctx, c.loop.bucket.take(c.env.Now()))
}

// failed keeps the set and slows down. The next read does not block: another
// server, or the same one after a restart, may count from a lower index, and
// blocking there on ours would leave us deaf for the whole wait.
func (c *Consul) failed(err error) {
	l, now := &c.loop, c.env.Now()
	var status api.StatusError
	busy := errors.As(err, &status) && status.Code == http.StatusTooManyRequests
	l.index, l.emptyReads = 0, 0
	l.delay = c.cfg.backoff(l.fails, busy, c.env.Rand())
	text := presentable(err, c.cfg.Token)
	c.record.fail(now, text)
	l.fails++
	if l.fails > 1 {
		c.log.Debug("still no answer from Consul", "error", text, "retry_in", l.delay)
		return
	}
	l.failing = now
	if l.seen {
		c.log.Warn("no answer from Consul: keeping the last good set", "error", text, "instances", len(l.set))
	} else {
		c.log.Warn("no answer from Consul: the service is still unknown", "error", text)
	}
}

// answered judges an answer.
func (c *Consul) answered(entries []*api.ServiceEntry, meta *api.QueryMeta) {
	l, now := &c.loop, c.env.Now()
	if l.fails > 0 {
		c.log.Info("Consul answers again", "after", now.Sub(l.failing).Round(time.Millisecond), "errors", l.fails)
		l.fails = 0
	}
	c.record.answer(meta.LastContact)
	set, odd := convert(&c.query, entries)
	c.query.markBackups(set)
	if l.verify && meta.KnownLeader && !meta.ResultsFilteredByACLs && len(set) == 0 {
		if l.emptyReads == 0 {
			l.emptySince = now
		}
		l.emptyReads++
	} else {
		l.emptyReads = 0
	}
	d := diff(l.set, set)
	v := plausible(rules{c.cfg.MaxStale, c.cfg.EmptyConfirm}, l.set, set, d, circumstances{
		Seen:        l.seen,
		Consistent:  l.verify,
		Streaming:   meta.QueryBackend == api.QueryBackendStreaming,
		KnownLeader: meta.KnownLeader,
		LastContact: meta.LastContact,
		Backwards:   meta.LastIndex < l.setIndex,
		Filtered:    meta.ResultsFilteredByACLs,
		WasFiltered: l.filtered,
		EmptyReads:  l.emptyReads,
		EmptySpan:   now.Sub(l.emptySince),
	})
	if v.decision != accept {
		c.doubt(v, now)
		return
	}
	l.index = nextIndex(l.index, meta.LastIndex)
	l.setIndex, l.filtered = meta.LastIndex, meta.ResultsFilteredByACLs
	c.believe(set, d, entries, odd, now)
}

// doubt keeps the set and arranges for a consistent read: the first at once,
// then at the distance that confirming asks for, or ever more slowly.
func (c *Consul) doubt(v verdict, now time.Time) {
	l := &c.loop
	switch {
	case !l.verify:
		l.delay = 0
	case v.decision == confirm:
		l.delay = rules{c.cfg.MaxStale, c.cfg.EmptyConfirm}.confirmSpacing()
	default:
		l.delay = c.cfg.backoff(l.held, false, c.env.Rand())
		l.held++
	}
	if l.verify && l.told != v.reason {
		// Only now: the first consistent read usually settles it.
		c.log.Warn("not believing Consul's answer: keeping the last good set", "reason", v.reason, "instances", len(l.set))
		l.told = v.reason
	}
	l.index, l.verify = 0, true
	c.record.hold(now, v.reason)
}

// believe takes a set, which may be the one held, for the truth.
func (c *Consul) believe(set []Instance, d delta, entries []*api.ServiceEntry, odd []oddity, now time.Time) {
	l := &c.loop
	first, changed := !l.seen, !l.seen || !d.none()
	l.verify, l.held, l.delay, l.emptyReads = false, 0, 0, 0
	if l.told != "" {
		c.log.Info("believing Consul's answer now", "was", l.told, "instances", len(set))
		l.told = ""
	}
	c.tellOdd(odd)
	if changed {
		l.set, l.shown, l.seen = set, set, true
		if c.query.Near != "" {
			l.shown = byAnswer(set, entries)
		}
		c.tellChange(first, d)
		l.apply(l.shown)
	}
	dropped := 0
	for _, o := range odd {
		if o.Dropped {
			dropped++
		}
	}
	c.record.believe(now, l.setIndex, len(l.set), dropped, changed)
}

func (c *Consul) tellChange(first bool, d delta) {
	l := &c.loop
	switch {
	case first:
		c.log.Info("service found", "instances", len(l.set), "index", l.setIndex)
	case d.Added+d.Removed > 0:
		c.log.Info("instances changed", "instances", len(l.set), "added", d.Added, "removed", d.Removed, "changed", d.Changed)
	default:
		c.log.Debug("instances changed", "instances", len(l.set), "changed", d.Changed)
	}
}

// maxOddLines bounds the lines that one answer can put into the log.
const maxOddLines = 10

// tellOdd logs the oddities that the answer before did not have.
func (c *Consul) tellOdd(odd []oddity) {
	l, lines := &c.loop, 0
	known := make(map[oddity]bool, len(odd))
	for _, o := range odd {
		if known[o] {
			continue
		}
		known[o] = true
		if l.odd[o] {
			continue
		}
		if lines++; lines > maxOddLines {
			continue
		}
		msg, id := "instance in Consul corrected", o.ID
		if o.Dropped {
			msg = "instance in Consul left out"
		}
		if !plainText(id, 200) {
			id = fmt.Sprintf("%.200q", id)
		}
		c.log.Warn(msg, "id", id, "reason", o.Text)
	}
	if lines > maxOddLines {
		c.log.Warn("more instances in Consul left out or corrected", "count", lines-maxOddLines)
	}
	l.odd = known
}
