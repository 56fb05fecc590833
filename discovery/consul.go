package discovery

import (
	"context"
	"errors"
	"fmt"
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
	// Probes is shared by all sources; nil: this one has its own.
	Probes *ProbeLimit
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
	wrong  error // of query or configuration; Watch returns it

	watching atomic.Bool
	loop     loop // Watch's alone
	last     lastRead
	keep     *keeper
}

var _ Source = (*Consul)(nil)

// loop is what the watch loop knows between reads.
type loop struct {
	bucket bucket
	delay  time.Duration // before the next read, beside the bucket's
	index  uint64        // the next read blocks on it; 0: it does not block
	verify bool          // the next read is a consistent one
}

// consulHint is what to look at when Consul lists nothing.
const consulHint = "the token (to a request without a valid one Consul answers with an empty list, not with an error) " +
	"and whether the agent lost its registrations"

// NewConsul returns a source for the instances that query selects. The client
// (NewClient) is shared with other sources. A wrong query or configuration shows
// when Watch is called.
func NewConsul(client *api.Client, query Query, cfg Config, env Env) *Consul {
	k := newKeeper("Consul", consulHint, query.Service, cfg, env)
	c := &Consul{client: client, query: query, cfg: cfg, env: k.env, keep: k}
	if err := errors.Join(query.Validate(), cfg.Validate()); err != nil {
		c.wrong = fmt.Errorf("discovery of service %q: %w", query.Service, err)
	}
	c.loop.bucket = bucket{burst: cfg.RateBurst, every: cfg.RateInterval}
	return c
}

// Status implements Source.
func (c *Consul) Status() Status { return c.keep.status("consul") }

// Watch implements Source. apply runs on the calling goroutine.
func (c *Consul) Watch(ctx context.Context, apply func([]Instance)) error {
	if c.wrong != nil {
		return c.wrong
	}
	if !c.watching.CompareAndSwap(false, true) {
		return fmt.Errorf("discovery of service %q: it is being watched already", c.query.Service)
	}
	defer c.watching.Store(false)
	c.keep.begin(apply)
	defer c.keep.end()
	defer c.keep.persist(ctx)()
	c.loop.index, c.loop.delay = 0, 0
	for {
		if err := c.pause(ctx); err != nil {
			return err
		}
		a, err := c.read(ctx)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil:
			c.failed(err)
		default:
			c.answered(ctx, a)
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

// failed slows down. The next read does not block: another server, or the same
// one after a restart, may count from a lower index, and blocking there on ours
// would leave us deaf for the whole wait.
func (c *Consul) failed(err error) {
	c.follow(c.keep.failed(err, busy(err)))
	c.loop.index = 0
}

// answered has an answer judged.
func (c *Consul) answered(ctx context.Context, a reading) {
	next := nextIndex(c.loop.index, a.index)
	c.follow(c.keep.take(ctx, a))
	if c.loop.index = next; c.loop.verify {
		c.loop.index = 0
	}
}

func (c *Consul) follow(p pace) { c.loop.delay, c.loop.verify = p.delay, p.verify }
