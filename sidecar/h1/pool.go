package h1

import (
	"context"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"

	"outrigger/picker"
	"outrigger/sidecar/balance"
)

// upstream is a connection to a backend. One request uses it at a time.
type upstream struct {
	nc     net.Conn
	sock   sock
	pool   *pool
	alarm  alarm
	tls    *tlsConn // nc if it is by TLS, else nil
	peek   *peeker  // nil if by TLS
	in     buffer
	reused bool // has carried a request before this one
	idleAt time.Duration
}

// pool keeps the idle connections to one endpoint, most recently used first
// out, so that a quiet time lets the rest grow old. Safe for concurrent use.
type pool struct {
	e    *Engine
	cfg  *Config // of the service: shared
	dial *dialer

	toldAt atomic.Int64 // when the endpoint's load header was looked at last; 0: never

	mu      sync.Mutex
	idle    []*upstream // oldest first
	retired bool
}

// Conns returns what makes the connection store of each endpoint of a service,
// for balance.Env. log takes what concerns no single request; nil for none.
func (e *Engine) Conns(cfg Config, log hclog.Logger) func(*picker.Endpoint) balance.Conns {
	dialers := newDialers(cfg.TLS, log, e.now)
	return func(ep *picker.Endpoint) balance.Conns {
		p := &pool{e: e, cfg: &cfg, dial: dialers.to(ep)}
		e.pools.add(p)
		return p
	}
}

// get returns an idle connection, or a new one, dialled within limit. fresh asks
// for a new one. That an idle one is still open and quiet is for the caller to
// look at, if its sock looks first.
func (p *pool) get(ctx context.Context, fresh bool, limit time.Duration) (*upstream, error) {
	for !fresh {
		u := p.pop()
		if u == nil {
			break
		}
		if !u.outdated() && (u.sock.looksFirst() || u.quiet()) {
			u.reused = true
			return u, nil
		}
		u.close()
	}
	nc, err := p.dial.dial(ctx, limit)
	if err != nil {
		return nil, err
	}
	u := &upstream{nc: nc, pool: p}
	if u.tls, _ = nc.(*tlsConn); u.tls == nil {
		u.peek = newPeeker(nc)
	}
	u.sock.init(nc, p.e.bufs)
	u.alarm.conn, u.alarm.sock, u.alarm.idle = nc, &u.sock, p.cfg.Timeouts.Idle
	p.e.reaper.add(&u.alarm)
	return u, nil
}

// quiet reports whether an idle connection is open with nothing to read. If
// not, it must not carry a request.
func (u *upstream) quiet() bool {
	if u.tls != nil {
		return u.tls.quiet()
	}
	return u.peek.quiet()
}

// outdated reports whether a new connection would be made otherwise.
func (u *upstream) outdated() bool { return u.tls != nil && u.tls.outdated() }

func (p *pool) pop() *upstream {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := len(p.idle)
	if n == 0 {
		return nil
	}
	u := p.idle[n-1]
	p.idle[n-1] = nil
	p.idle = p.idle[:n-1]
	return u
}

// put takes back a connection whose exchange ended cleanly.
func (u *upstream) put(now time.Duration) {
	p := u.pool
	if !u.alarm.off() || u.in.len() > 0 || u.outdated() {
		u.close() // struck, or the backend sent more than it had announced, or other files are in use
		return
	}
	p.e.bufs.release(&u.in)
	u.in.big = false
	u.idleAt = now
	p.mu.Lock()
	if p.retired || len(p.idle) >= p.cfg.PoolSize {
		p.mu.Unlock()
		u.close()
		return
	}
	p.idle = append(p.idle, u)
	p.mu.Unlock()
}

func (u *upstream) close() {
	u.pool.e.reaper.remove(&u.alarm)
	_ = u.nc.Close()
	u.pool.e.bufs.release(&u.in)
}

// Retire implements balance.Conns.
func (p *pool) Retire() {
	p.e.pools.remove(p)
	p.mu.Lock()
	p.retired = true
	idle := p.idle
	p.idle = nil
	p.mu.Unlock()
	for _, u := range idle {
		u.close()
	}
}

// sweep closes connections that have been idle for too long, or that a change
// of TLS files has made obsolete.
func (p *pool) sweep(now time.Duration) {
	p.dial.sweep()
	var old []*upstream
	p.mu.Lock()
	p.idle = slices.DeleteFunc(p.idle, func(u *upstream) bool {
		gone := now-u.idleAt >= p.cfg.PoolIdle || u.outdated()
		if gone {
			old = append(old, u)
		}
		return gone
	})
	p.mu.Unlock()
	for _, u := range old {
		u.close()
	}
}

// pools is the set of live pools.
type pools struct {
	mu  sync.Mutex
	set map[*pool]struct{}
}

func (s *pools) add(p *pool) {
	s.mu.Lock()
	s.set[p] = struct{}{}
	s.mu.Unlock()
}

func (s *pools) remove(p *pool) {
	s.mu.Lock()
	delete(s.set, p)
	s.mu.Unlock()
}

func (s *pools) sweep(now time.Duration) {
	s.mu.Lock()
	all := make([]*pool, 0, len(s.set))
	for p := range s.set {
		all = append(all, p)
	}
	s.mu.Unlock()
	for _, p := range all {
		p.sweep(now)
	}
}
