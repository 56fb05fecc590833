package publish

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/consul/api"
	"github.com/hashicorp/go-hclog"

	"outrigger/agentstats/internal/call"
)

// Env is what a Publisher gets from its surroundings.
type Env struct {
	// Client of a Consul agent. It bounds what it reads and does not follow
	// redirects (discovery.NewClient makes such).
	Client *api.Client
	Logger hclog.Logger // nil: none
	// Service and Instance are the backend's service name and service ID in Consul.
	Service, Instance string
	// Node is the node that has the instance; "": that of the Consul agent asked.
	Node string
	// Report returns the newest report as JSON, the time of its sample, and false
	// where there is none. It is asked once a second.
	Report func() ([]byte, time.Time, bool)
	Now    func() time.Time // nil: time.Now
	Rand   func() float64   // uniform in [0, 1), for jitter; nil: math/rand/v2
}

const (
	lookEvery = time.Second
	callLimit = 10 * time.Second
	endLimit  = 2 * time.Second // for destroying the session at the end

	backoffMin = time.Second
	backoffMax = 30 * time.Second

	// maxReport bounds a value; Consul itself takes 512 KiB, for another use.
	maxReport = 16 << 10
)

// Publisher publishes the report of one agent. Run is called once; Status is safe
// for concurrent use.
type Publisher struct {
	cfg Config
	env Env
	log hclog.Logger

	started time.Time
	decide  *decider
	session string
	key     string
	renewAt time.Time
	fails   int
	failing time.Time

	held  bool      // the key, by another session
	since time.Time // since when
	tried time.Time // the last try to get it
	told  bool      // that its holder lives

	mu     sync.Mutex
	status Status
}

// Status is what a Publisher has done.
type Status struct {
	Key       string // "" before the first session
	Writes    int64  // since the start
	Errors    int64  // calls that failed since the start
	LastWrite time.Time
	LastError string // of the last call; "": it succeeded
	Held      bool   // another session holds the key
}

// New checks the configuration.
func New(cfg Config, env Env) (*Publisher, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("publish: %w", err)
	}
	switch {
	case env.Client == nil || env.Report == nil:
		return nil, errors.New("publish: there is no Consul client or no report")
	case !keyPart(env.Service):
		return nil, fmt.Errorf("publish: service %.80q is not a name: say which service the backend belongs to", env.Service)
	case !keyPath(env.Instance):
		return nil, fmt.Errorf("publish: instance %.80q is not an ID: give the backend's service ID in Consul", env.Instance)
	case env.Node != "" && !call.Plain(env.Node, maxName):
		return nil, fmt.Errorf("publish: node %.80q is not a name", env.Node)
	}
	if env.Logger == nil {
		env.Logger = hclog.NewNullLogger()
	}
	if env.Now == nil {
		env.Now = time.Now
	}
	if env.Rand == nil {
		env.Rand = rand.Float64
	}
	return &Publisher{
		cfg: cfg, env: env, started: env.Now(), decide: newDecider(cfg),
		log: env.Logger.With("service", env.Service, "instance", env.Instance),
	}, nil
}

// Status returns what is known now.
func (p *Publisher) Status() Status {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.status
}

// Run publishes until ctx ends, which is no error, and then takes the report away.
// Consul being away is no error either.
func (p *Publisher) Run(ctx context.Context) error {
	defer p.end()
	for {
		pause := lookEvery
		if err := p.look(ctx); err != nil && ctx.Err() == nil {
			pause = p.failed(err)
		} else if err == nil && p.fails > 0 {
			p.log.Info("Consul answers again", "after", p.env.Now().Sub(p.failing).Round(time.Millisecond), "errors", p.fails)
			p.fails = 0
		}
		if call.Sleep(ctx, pause) != nil {
			return nil
		}
	}
}

// look keeps the session alive and writes the newest report if that is worth it.
func (p *Publisher) look(ctx context.Context) error {
	now := p.env.Now()
	if p.session != "" && !now.Before(p.renewAt) {
		if err := p.renew(ctx, now); err != nil {
			return err
		}
	}
	report, at, ok := p.env.Report()
	if !ok || now.Sub(at) > p.cfg.MaxInterval {
		return nil // what was published ages at the sidecars
	}
	f, ok := read(report)
	if !ok || len(report) > maxReport {
		return fmt.Errorf("the agent's report is no JSON object of at most %d bytes", maxReport)
	}
	f, due := p.decide.step(now.Sub(p.started).Seconds(), f)
	if !due || p.held && now.Before(p.tried.Add(p.cfg.MinInterval)) {
		return nil
	}
	report, err := f.withAvail(report)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	if p.session == "" {
		if err := p.open(ctx, now); err != nil {
			return err
		}
	}
	if p.key == "" {
		if err := p.place(ctx); err != nil {
			return err
		}
	}
	if p.held {
		if held, err := p.stillHeld(ctx, now); held || err != nil {
			return err
		}
	}
	return p.write(ctx, now, report, f)
}

// open makes a session.
//
// Only the TTL ends it, no check: with serfHealth, one flap of gossip would delete
// the reports of a whole rack, to be written again by all at once.
func (p *Publisher) open(ctx context.Context, now time.Time) error {
	id, _, err := p.env.Client.Session().CreateNoChecks(&api.SessionEntry{
		Name: "outrigger agent of " + p.env.Service + "/" + p.env.Instance,
		TTL:  p.cfg.SessionTTL.String(), Behavior: api.SessionBehaviorDelete,
		// No time for a holder that does not know that it lost the key: what it
		// writes is refused anyway.
		LockDelay: time.Millisecond,
	}, (&api.WriteOptions{}).WithContext(ctx))
	if err == nil {
		p.session, p.renewAt = id, now.Add(p.cfg.SessionTTL/3)
	}
	return err
}

// place makes the key. The session knows the Consul agent's node, and may be read
// with the permission that made it.
func (p *Publisher) place(ctx context.Context) error {
	node := p.env.Node
	if node == "" {
		info, _, err := p.env.Client.Session().Info(p.session, (&api.QueryOptions{}).WithContext(ctx))
		if err != nil {
			return err
		}
		if info == nil {
			p.session = ""
			return errors.New("the session is gone again")
		}
		node = info.Node
	}
	if node == "" || !call.Plain(node, maxName) {
		return fmt.Errorf("the node %.80q cannot be part of a key: set node", node)
	}
	p.key = Key(p.cfg.Prefix, p.env.Service, node, p.env.Instance)
	p.note(func(s *Status) { s.Key = p.key }, nil)
	return nil
}

// renew tells Consul that the session is alive; the next look makes a new one if
// it was lost.
func (p *Publisher) renew(ctx context.Context, now time.Time) error {
	ctx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	entry, _, err := p.env.Client.Session().Renew(p.session, (&api.WriteOptions{}).WithContext(ctx))
	if err != nil {
		return err
	}
	if entry == nil {
		p.lost()
		return nil
	}
	p.renewAt = now.Add(p.cfg.SessionTTL / 3)
	return nil
}

func (p *Publisher) lost() {
	p.log.Info("the session was lost, and the report with it: publishing anew")
	p.session = ""
	p.decide.lost()
}

// write puts the report under the key, if that is free or ours.
func (p *Publisher) write(ctx context.Context, now time.Time, report []byte, f figures) error {
	ok, _, err := p.env.Client.KV().Acquire(&api.KVPair{Key: p.key, Value: report, Session: p.session}, (&api.WriteOptions{}).WithContext(ctx))
	switch {
	case err != nil && strings.Contains(err.Error(), "invalid session"):
		p.lost()
		return nil
	case err != nil:
		return err
	case !ok:
		p.refused(now)
		return nil
	}
	if p.held {
		p.log.Info("the key is free: publishing", "key", p.key)
		p.held = false
	}
	p.decide.written(now.Sub(p.started).Seconds(), f, p.env.Rand())
	p.note(func(s *Status) { s.Writes++; s.LastWrite = now; s.Held = false }, nil)
	return nil
}

// refused notes that another session has the key. Either its agent was killed, and
// then Consul ends that session within twice its TTL, or it is alive.
func (p *Publisher) refused(now time.Time) {
	if !p.held {
		p.held, p.since, p.told = true, now, false
		p.log.Info("another session holds the key, perhaps that of an agent that was killed: waiting",
			"key", p.key, "for_up_to", 2*p.cfg.SessionTTL)
	}
	p.tried = now
	p.note(func(s *Status) { s.Held = true }, nil)
}

// stillHeld looks, which is no Raft entry as a write would be.
func (p *Publisher) stillHeld(ctx context.Context, now time.Time) (bool, error) {
	pair, _, err := p.env.Client.KV().Get(p.key, (&api.QueryOptions{AllowStale: true}).WithContext(ctx))
	if err != nil {
		return false, err
	}
	if pair == nil || pair.Session == "" || pair.Session == p.session {
		return false, nil
	}
	p.refused(now)
	if !p.told && now.Sub(p.since) > 2*p.cfg.SessionTTL+p.cfg.MinInterval {
		p.told = true
		p.log.Warn("another agent publishes under the same key and lives: give each backend an ID of its own", "key", p.key)
	}
	return true, nil
}

// failed notes an error, logs the first of a row and returns the pause.
func (p *Publisher) failed(err error) time.Duration {
	err = explain(err, fmt.Sprintf("session_prefix \"\" { policy = \"write\" }, key_prefix %q { policy = \"write\" }", p.cfg.Prefix+"/"+p.env.Service+"/"))
	p.note(nil, err)
	if p.fails == 0 {
		p.failing = p.env.Now()
		p.log.Warn("cannot publish in Consul for now; trying on", "error", err)
	} else {
		p.log.Debug("still cannot publish in Consul", "error", err)
	}
	pause := backoff(p.fails, p.env.Rand())
	p.fails++
	return pause
}

func (p *Publisher) note(change func(*Status), err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.status.LastError = ""
	if err != nil {
		p.status.Errors++
		p.status.LastError = err.Error()
		return
	}
	change(&p.status)
}

// end destroys the session, and the key with it.
func (p *Publisher) end() {
	if p.session == "" {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), endLimit)
	defer cancel()
	if _, err := p.env.Client.Session().Destroy(p.session, (&api.WriteOptions{}).WithContext(ctx)); err != nil {
		p.log.Info("could not take the report away: Consul will, when the session ends", "within", 2*p.cfg.SessionTTL, "error", call.Clean(err.Error()))
	}
}

// backoff returns the pause after the n-th error in a row, from 0: half is chance.
func backoff(n int, chance float64) time.Duration {
	return call.Backoff(n, backoffMin, backoffMax, chance)
}

// explain makes an error fit for a log line and says what to do about it.
func explain(err error, needs string) error {
	var s api.StatusError
	text := call.Clean(err.Error())
	if errors.As(err, &s) && (s.Code == http.StatusForbidden || s.Code == http.StatusUnauthorized) {
		return fmt.Errorf("refused by Consul: %s (the token needs: %s)", text, needs)
	}
	return errors.New(text)
}
