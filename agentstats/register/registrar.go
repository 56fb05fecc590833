// Package register keeps a backend registered in Consul for as long as its agent
// runs, and lets it leave without a lost request: maintenance mode, which takes it
// out of every sidecar's choice, the end of what is in flight, and only then out
// of the catalog.
//
// The token needs service "SERVICE" { policy = "write" }. With
// node "NODE" { policy = "read" } besides, the drain sees when the catalog has the
// maintenance mode; else it trusts that it has within Drain.Quiet.
package register

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"time"

	"github.com/hashicorp/consul/api"
	"github.com/hashicorp/go-hclog"

	"outrigger/agentstats/internal/call"
)

// Env is what a Registrar gets from its surroundings.
type Env struct {
	// Client of the Consul agent on the backend's host. It bounds what it reads
	// and does not follow redirects (discovery.NewClient makes such).
	Client *api.Client
	Logger hclog.Logger // nil: none
	// Meta is added to Config.Meta, which wins: where the agent is.
	Meta map[string]string
	// InFlight returns the requests in the backend, false where that is not known
	// now. It is asked ten times a second while draining, by the goroutine that
	// called Shutdown. nil: never known.
	InFlight func() (float64, bool)
	Hostname string           // for Config.InstanceID; "": os.Hostname
	Now      func() time.Time // nil: time.Now
	Rand     func() float64   // uniform in [0, 1), for jitter; nil: math/rand/v2
}

// Registrar keeps one registration. Run is called once, Shutdown at any time; the
// other methods are safe for concurrent use.
type Registrar struct {
	consul
	env  Env
	log  hclog.Logger
	want *api.AgentServiceRegistration

	stop    context.CancelFunc // ends Run
	stopped context.Context
	ran     chan struct{} // closed when Run has ended
	once    sync.Once     // of Run
	loop    loop          // Run's alone

	mu     sync.Mutex
	status Status
}

// Status is what a Registrar knows of its registration.
type Status struct {
	ID         string
	Registered bool // at the last look that Consul answered
	// Maintenance is the reason of a maintenance mode that somebody else turned
	// on; "": none.
	Maintenance string
	Written     int64     // registrations written since the start
	Errors      int64     // calls that failed since the start
	LastError   string    // of the last call; "": it succeeded
	LastLook    time.Time // the last answer
}

// New checks the configuration.
func New(cfg Config, env Env) (*Registrar, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("register: %w", err)
	}
	if env.Client == nil {
		return nil, errors.New("register: there is no Consul client")
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
	if env.InFlight == nil {
		env.InFlight = func() (float64, bool) { return 0, false }
	}
	if env.Hostname == "" && cfg.ID == "" && cfg.Address == "" {
		var err error
		if env.Hostname, err = os.Hostname(); err != nil {
			return nil, fmt.Errorf("register: no id, no address, and this host's name is not known (%w): set id", err)
		}
	}
	id := cfg.InstanceID(env.Hostname)
	if !name(id) {
		return nil, fmt.Errorf("register: %.80q, made of service, host and port, cannot be an id: set id", id)
	}
	r := &Registrar{
		consul: consul{client: env.Client, cfg: cfg, id: id},
		env:    env,
		log:    env.Logger.With("service", cfg.Service, "id", id),
		want:   cfg.want(id, env.Meta),
		ran:    make(chan struct{}),
		status: Status{ID: id},
	}
	r.stopped, r.stop = context.WithCancel(context.Background())
	return r, nil
}

// ID is the instance's ID in Consul.
func (r *Registrar) ID() string { return r.id }

// Status returns what is known now.
func (r *Registrar) Status() Status {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.status
}

// Run registers the instance and keeps it registered until ctx ends or Shutdown is
// called, which is no error: it stays registered then. Consul being away is none
// either. A second call is an error.
//
// It registers at once, whether the backend serves already or not: the check is
// critical until it has passed, so that nothing is sent to it before.
func (r *Registrar) Run(ctx context.Context) error {
	first := false
	r.once.Do(func() { first = true })
	if !first {
		return errors.New("register: it runs already, or has ended")
	}
	defer close(r.ran)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(r.stopped, cancel)()
	for {
		if call.Sleep(ctx, r.loop.delay) != nil {
			return nil
		}
		err := r.look(ctx)
		if ctx.Err() != nil {
			return nil
		}
		r.judge(err)
	}
}

// note writes down the outcome of a call.
func (r *Registrar) note(change func(*Status), err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.status.LastError = ""
	if err != nil {
		r.status.Errors++
		r.status.LastError = err.Error()
		return
	}
	r.status.LastLook = r.env.Now()
	change(&r.status)
}
