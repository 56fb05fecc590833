package agentstats

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"time"
)

// Target is one endpoint and the address of its agent.
type Target struct {
	ID   string // the endpoint's; unique in a set
	Addr string // the agent's "host:port"
	// Instance is what Report.Instance must be, where both are not "". It guards against
	// an address that now belongs to another backend's agent.
	Instance string
	// Backend is the instance's own address, with or without a port; "": unknown. Without
	// TLS only an agent on the same host is shown a token, and what another's name
	// resolves to is checked. An instance that moves is polled anew.
	Backend string
}

// atHome reports whether the agent is on its instance's own host.
func (t Target) atHome() bool {
	host, _, err := net.SplitHostPort(t.Addr)
	return err == nil && t.Backend != "" && sameHost(host, hostOf(t.Backend))
}

// Sample is a report that arrived, with what the sidecar knows about it.
type Sample struct {
	Report Report
	// RTT is the time from sending the poll to having the answer, without dialling.
	RTT time.Duration
	// At is when the report was true, on PollEnv.Now: its arrival minus RTT/2. Age
	// counts from here, never from the agent's clock.
	At time.Duration
	// OwnInFlight is PollEnv.InFlight of the endpoint when the poll was sent.
	OwnInFlight int64
	// Interval is the time to the next poll, before jitter; Expiry the age from which the
	// report should no longer count.
	Interval time.Duration
	Expiry   time.Duration
}

// Poller keeps one poll loop per target, each on its own connection and with its own
// phase and jitter, so that the order in which a sidecar hears from its endpoints is
// its own. All methods are safe for concurrent use.
type Poller struct {
	cfg PollConfig
	env PollEnv

	tls    *files        // nil: none
	grid   time.Duration // polls fire on multiples of it, counted from offset
	offset time.Duration
	randMu sync.Mutex

	mu      sync.Mutex
	targets map[string]*target
	ctx     context.Context // of Run; nil before it
	closed  bool            // ctx has ended: no loop may start any more
	sink    func(string, Sample)
	loops   sync.WaitGroup
}

// NewPoller returns a poller without targets. cfg must be valid.
func NewPoller(cfg PollConfig, env PollEnv) *Poller {
	p := &Poller{cfg: cfg, env: env.withDefaults(), targets: map[string]*target{}}
	if t := cfg.TLS; t.Enabled {
		p.tls = newFiles([]string{t.CAFile, t.CertFile, t.KeyFile}, t.load, p.env.Logger)
	}
	// Waking a quiet process costs more than a poll. Rounded up to a grid as fine as the
	// default jitter, the polls of many endpoints share their wake-ups; the grids of
	// different sidecars are offset at random, and the order stays random.
	p.grid = max(cfg.Interval/20, time.Millisecond)
	p.offset = p.uniform(p.grid)
	return p
}

// dial opens a connection to an agent, with TLS if that is on.
func (p *Poller) dial(ctx context.Context, t Target) (net.Conn, error) {
	dial, addr := p.env.Dial, t.Addr
	if dial == nil {
		dial = dialer(t).DialContext
	}
	conn, err := dial(ctx, "tcp", addr)
	if err != nil || p.tls == nil {
		return conn, err
	}
	cfg, err := p.tls.current()
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	if cfg.ServerName == "" {
		host, _, err := net.SplitHostPort(addr)
		if err != nil {
			_ = conn.Close()
			return nil, err
		}
		cfg = cfg.Clone()
		cfg.ServerName = host
	}
	secured := tls.Client(conn, cfg)
	if err := secured.HandshakeContext(ctx); err != nil {
		_ = conn.Close()
		return nil, fmt.Errorf("TLS with the agent: %w", err)
	}
	return secured, nil
}

// Dial opens a further connection to the agent of a target, as polls do: what else the
// agent serves is asked for there. ctx bounds the dialling. Safe for concurrent use.
func (p *Poller) Dial(ctx context.Context, id string) (net.Conn, error) {
	p.mu.Lock()
	t := p.targets[id]
	p.mu.Unlock()
	if t == nil {
		return nil, fmt.Errorf("endpoint %q has no agent", id)
	}
	return p.dial(ctx, t.Target)
}

// Authorization is the value of the request header of that name which the agent of a
// target is shown; "" for none. It is a secret. Safe for concurrent use.
func (p *Poller) Authorization(id string) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	t := p.targets[id]
	if t == nil {
		return ""
	}
	return t.client.auth
}

// withheld reports whether there is a token that a target's agent is not shown: without
// TLS the catalog could have it sent to any address.
func (p *Poller) withheld(t Target) bool {
	return p.cfg.Token != "" && p.tls == nil && !t.atHome()
}

// onGrid returns the moment of the grid at or after t.
func (p *Poller) onGrid(t time.Duration) time.Duration {
	n := (t - p.offset + p.grid - 1) / p.grid
	return n*p.grid + p.offset
}

// SetTargets replaces the set of targets. One that stays the same keeps its
// connection, schedule and counts; a new one gets its first poll at a random moment
// of the next interval. When SetTargets returns, the sink is not running and will not
// run again for targets that were left out. Of two targets with one ID the later
// counts.
func (p *Poller) SetTargets(targets []Target) {
	p.mu.Lock()
	defer p.mu.Unlock()
	next := make(map[string]Target, len(targets))
	for _, t := range targets {
		next[t.ID] = t
	}
	for id, old := range p.targets {
		if next[id] != old.Target {
			old.stop()
			delete(p.targets, id)
		}
	}
	for id, t := range next {
		if p.targets[id] == nil {
			p.targets[id] = newTarget(p, t)
			p.launch(p.targets[id])
		}
	}
}

// launch starts a target's loop once Run has been called. p.mu is held.
func (p *Poller) launch(t *target) {
	if p.ctx == nil || p.closed {
		return
	}
	ctx, cancel := context.WithCancel(p.ctx)
	t.cancel = cancel
	p.loops.Go(func() {
		defer cancel()
		t.loop(ctx, p.sink)
	})
}

// Run polls until ctx ends, which is no error, and returns when every loop has ended
// and every connection is closed. The sink gets each accepted report: concurrently for
// different targets, never for one; it must neither block nor call the poller. A
// poller runs once.
func (p *Poller) Run(ctx context.Context, sink func(id string, s Sample)) error {
	p.mu.Lock()
	if p.ctx != nil {
		p.mu.Unlock()
		return errors.New("agent poller: Run was called before; a poller runs once")
	}
	p.ctx, p.sink = ctx, sink
	for _, t := range p.targets {
		p.launch(t)
	}
	p.mu.Unlock()

	<-ctx.Done()
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.loops.Wait()
	return nil
}

// TargetStatus is what the polls of one target came to. Times are on PollEnv.Now.
type TargetStatus struct {
	ID       string
	Addr     string
	Polls    uint64 // sent or tried
	Accepted uint64 // given to the sink
	Failures uint64 // no answer, or not a 200
	Rejected uint64 // answers that are no valid report, or another instance's
	Replayed uint64 // reports older than the last accepted one
	Repeated uint64 // reports that were accepted before: no news, and no failure until that has expired

	LastError   string        // of the last poll that failed or brought what is refused or too old; kept after recovery
	LastErrorAt time.Duration // 0: never
	LastAt      time.Duration // Sample.At of the last accepted report; 0: never
	Report      Report        // the last accepted report; Version is 0 before there is one
	Expires     time.Duration // when that should no longer count
	RTT         time.Duration // of the last accepted report
	InARow      int           // failures and rejections since the last answer in order
	Backoff     time.Duration // the pause being made because of them; 0: none
	Interval    time.Duration // between polls, with the agent's wish
}

// Status returns one target's status; false for an unknown ID.
func (p *Poller) Status(id string) (TargetStatus, bool) {
	p.mu.Lock()
	t := p.targets[id]
	p.mu.Unlock()
	if t == nil {
		return TargetStatus{}, false
	}
	return t.snapshot(), true
}

// All returns the status of every target, in the order of their IDs.
func (p *Poller) All() []TargetStatus {
	p.mu.Lock()
	all := make([]TargetStatus, 0, len(p.targets))
	for _, t := range p.targets {
		all = append(all, t.snapshot())
	}
	p.mu.Unlock()
	slices.SortFunc(all, func(a, b TargetStatus) int { return cmp.Compare(a.ID, b.ID) })
	return all
}

// uniform returns a duration in [0, d), in steps of a 2^20th of it.
func (p *Poller) uniform(d time.Duration) time.Duration {
	const steps = 1 << 20
	p.randMu.Lock()
	defer p.randMu.Unlock()
	return time.Duration(float64(d) * float64(p.env.Rand(steps)) / steps)
}
