package publish

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/consul/api"
	"github.com/hashicorp/go-hclog"

	"outrigger/agentstats/internal/call"
)

// WatchConfig is how a sidecar follows the reports of one service.
type WatchConfig struct {
	Prefix string // as the agents have it
	// Wait is how long a read blocks when nothing changes, 1 s to 10 min.
	Wait time.Duration
	// Pause is the mean time between two reads, 100 ms to 1 min: between half and
	// one and a half of it, by chance, for two reasons. The sidecars of a service
	// must not act on the same news at the same moment; and many writes become one
	// read.
	Pause time.Duration
	// Hold is for how long a report must be missing before it is called gone, 0 to
	// 10 min.
	Hold time.Duration
}

// DefaultWatchConfig returns the settings of a configuration that names none.
func DefaultWatchConfig() WatchConfig {
	return WatchConfig{
		Prefix: DefaultConfig().Prefix,
		Wait:   5 * time.Minute, // Consul's own default
		Pause:  time.Second,     // the figures are 5 s old at best
		// Outlasts the restart of an agent, and an empty answer of a server that is
		// behind. Figures age meanwhile, as they do in an outage.
		Hold: 10 * time.Second,
	}
}

// Validate reports every setting that is out of range.
func (c WatchConfig) Validate() error {
	errs := []error{checkPrefix(c.Prefix)}
	span := func(name string, d, low, high time.Duration) {
		if d < low || d > high {
			errs = append(errs, fmt.Errorf("%s is %s, allowed are %s to %s", name, d, low, high))
		}
	}
	span("wait", c.Wait, time.Second, 10*time.Minute)
	span("pause", c.Pause, 100*time.Millisecond, time.Minute)
	span("hold", c.Hold, 0, 10*time.Minute)
	return errors.Join(errs...)
}

// WatchEnv is what a Watcher gets from its surroundings.
type WatchEnv struct {
	// Client of a Consul agent. It bounds an answer's size and does not follow
	// redirects (discovery.NewClient makes such).
	Client *api.Client
	// Datacenter whose agents publish; "": the client's. Each has a KV store of its own.
	Datacenter string
	Logger     hclog.Logger     // nil: none
	Now        func() time.Time // nil: time.Now
	Rand       func() float64   // uniform in [0, 1), for jitter; nil: math/rand/v2
}

// Watcher follows the published reports of one service. Run is called once; Status
// is safe for concurrent use.
type Watcher struct {
	cfg     WatchConfig
	env     WatchEnv
	log     hclog.Logger
	service string
	folder  string // with the slash

	known    map[string]*entry // by instance
	index    uint64            // the next read blocks on it; 0: it does not block
	fails    int
	failing  time.Time
	filtered bool // ACLs filtered the last answer

	mu     sync.Mutex
	status WatchStatus
}

// entry is one report as it was given.
type entry struct {
	modified uint64
	created  uint64
	missing  time.Time // since when; zero: it is there
}

// WatchStatus is what a Watcher has seen.
type WatchStatus struct {
	Reports   int       // instances with a report
	Reads     int64     // answers since the start
	Errors    int64     // reads that failed since the start
	LastRead  time.Time // the last answer
	LastError string    // of the last read; "": it succeeded
}

// NewWatcher checks the configuration.
func NewWatcher(service string, cfg WatchConfig, env WatchEnv) (*Watcher, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("published reports: %w", err)
	}
	switch {
	case env.Client == nil:
		return nil, errors.New("published reports: there is no Consul client")
	case !keyPart(service):
		return nil, fmt.Errorf("published reports: service %.80q is not a name", service)
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
	return &Watcher{
		cfg: cfg, env: env, log: env.Logger.With("service", service), service: service,
		folder: cfg.Prefix + "/" + service + "/", known: map[string]*entry{},
	}, nil
}

// Status returns what is known now.
func (w *Watcher) Status() WatchStatus {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.status
}

// Run follows the reports until ctx ends, which is no error. update is called on
// this goroutine, for each report that is new or was written again, and with gone
// and no value for one that is no longer there. instance is "NODE/ID", which is
// what outrigger's discovery calls an instance's ID. What value holds is foreign:
// anybody who may write the key can put anything there.
//
// Consul being away is no error: no update is made, the figures age.
func (w *Watcher) Run(ctx context.Context, update func(instance string, value []byte, gone bool)) error {
	for {
		pairs, meta, err := w.read(ctx)
		if ctx.Err() != nil {
			return nil
		}
		var pause time.Duration
		if err != nil {
			pause = w.failed(err)
		} else {
			w.answered(pairs, meta, update)
			pause = w.cfg.Pause/2 + time.Duration(w.env.Rand()*float64(w.cfg.Pause))
		}
		if call.Sleep(ctx, pause) != nil {
			return nil
		}
	}
}

// read asks Consul once, for no longer than until a missing report is gone.
func (w *Watcher) read(ctx context.Context) (api.KVPairs, *api.QueryMeta, error) {
	limit, wait := callLimit, w.cfg.Wait
	now := w.env.Now()
	for _, e := range w.known {
		if !e.missing.IsZero() {
			wait = min(wait, max(time.Second, w.cfg.Hold-now.Sub(e.missing)))
		}
	}
	if w.index > 0 {
		limit += wait + wait/16 // which Consul adds by chance
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	pairs, meta, err := w.env.Client.KV().List(w.folder, (&api.QueryOptions{
		Datacenter: w.env.Datacenter,
		AllowStale: true, // spreads the reads over the servers
		WaitIndex:  w.index, WaitTime: wait,
	}).WithContext(ctx))
	if err != nil {
		return nil, nil, err
	}
	if meta.LastIndex == 0 && !meta.KnownLeader {
		return nil, nil, errors.New("the answer has no usable X-Consul-Index header: is this address a Consul agent's?")
	}
	return pairs, meta, nil
}

// answered gives on what changed.
func (w *Watcher) answered(pairs api.KVPairs, meta *api.QueryMeta, update func(string, []byte, bool)) {
	now := w.env.Now()
	if w.fails > 0 {
		w.log.Info("Consul answers again with published reports", "after", now.Sub(w.failing).Round(time.Millisecond), "errors", w.fails)
		w.fails = 0
	}
	if meta.ResultsFilteredByACLs && !w.filtered {
		w.log.Warn("Consul hides published reports from the token", "needs", w.needs())
	}
	w.filtered = meta.ResultsFilteredByACLs
	seen := make(map[string]bool, len(pairs))
	for _, p := range pairs {
		instance, ok := strings.CutPrefix(p.Key, w.folder)
		node, id, two := strings.Cut(instance, "/")
		if !ok || !two || !call.Plain(node, maxName) || !call.Plain(id, 2*maxName) || node == "" || id == "" {
			continue // not a report's key
		}
		seen[instance] = true
		e := w.known[instance]
		if e != nil {
			e.missing = time.Time{}
		}
		if e != nil && e.modified == p.ModifyIndex && e.created == p.CreateIndex {
			continue
		}
		w.known[instance] = &entry{modified: p.ModifyIndex, created: p.CreateIndex}
		update(instance, p.Value, false)
	}
	w.forget(seen, now, update)
	w.index = nextIndex(w.index, meta.LastIndex)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.status.Reports, w.status.LastError, w.status.LastRead = len(w.known), "", now
	w.status.Reads++
}

// forget calls gone what has been missing for long enough.
func (w *Watcher) forget(seen map[string]bool, now time.Time, update func(string, []byte, bool)) {
	for _, instance := range slices.Sorted(maps.Keys(w.known)) {
		e := w.known[instance]
		if seen[instance] {
			continue
		}
		if e.missing.IsZero() {
			e.missing = now
		}
		if now.Sub(e.missing) >= w.cfg.Hold {
			delete(w.known, instance)
			update(instance, nil, true)
		}
	}
}

// nextIndex returns what the next read blocks on: nothing when the index went
// backwards (a restored or replaced server), and never 0 by accident.
func nextIndex(last, got uint64) uint64 {
	if got < last {
		return 0
	}
	return max(got, 1)
}

// failed notes an error, logs the first of a row and returns the pause. The next
// read does not block, as another server may count from a lower index.
func (w *Watcher) failed(err error) time.Duration {
	w.index = 0
	err = explain(err, w.needs())
	w.mu.Lock()
	w.status.Errors++
	w.status.LastError = err.Error()
	w.mu.Unlock()
	if w.fails == 0 {
		w.failing = w.env.Now()
		w.log.Warn("no published reports from Consul for now: the figures age", "error", err)
	} else {
		w.log.Debug("still no published reports from Consul", "error", err)
	}
	pause := backoff(w.fails, w.env.Rand())
	w.fails++
	return pause
}

func (w *Watcher) needs() string {
	return fmt.Sprintf("key_prefix %q { policy = \"read\" }, or \"list\" where acl.enable_key_list_policy is on", w.folder)
}
