package h1

import (
	"context"
	"errors"
	"net"
	"slices"
	"sync"
	"syscall"
	"time"

	"outrigger/picker"
	"outrigger/sidecar/balance"
)

// upstream is a connection to a backend. One request uses it at a time.
type upstream struct {
	nc     net.Conn
	sock   sock
	pool   *pool
	alarm  alarm
	peek   *peeker
	in     buffer
	reused bool   // has carried a request before this one
	idleAt time.Duration
}

// pool keeps the idle connections to one endpoint, most recently used first
// out, so that a quiet time lets the rest grow old. Safe for concurrent use.
type pool struct {
	e    *Engine
	cfg  Config
	addr string
	dial net.Dialer

	mu      sync.Mutex
	idle    []*upstream // oldest first
	retired bool
}

// Conns returns what makes the connection store of each endpoint of a service,
// for balance.Env.
func (e *Engine) Conns(cfg Config) func(*picker.Endpoint) balance.Conns {
	return func(ep *picker.Endpoint) balance.Conns {
		p := &pool{e: e, cfg: cfg, addr: ep.Addr}
		p.dial.KeepAlive = 30 * time.Second
		e.pools.add(p)
		return p
	}
}

// get returns an idle connection that is still open, or a new one, dialled
// within limit. fresh asks for a new one.
func (p *pool) get(ctx context.Context, fresh bool, limit time.Duration) (*upstream, error) {
	for !fresh {
		u := p.pop()
		if u == nil {
			break
		}
		if u.peek.quiet() {
			u.reused = true
			return u, nil
		}
		u.close()
	}
	dial := p.dial
	dial.Timeout = max(limit, time.Nanosecond) // 0 would be none
	nc, err := dial.DialContext(ctx, "tcp", p.addr)
	if err != nil {
		return nil, err
	}
	u := &upstream{nc: nc, pool: p, peek: newPeeker(nc)}
	u.sock.init(nc, p.e.bufs)
	u.alarm.conn = nc
	p.e.reaper.add(&u.alarm)
	return u, nil
}

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
	if !u.alarm.off() || u.in.len() > 0 {
		u.close() // struck, or the backend sent more than it had announced
		return
	}
	p.e.bufs.release(&u.in)
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

// sweep closes connections that have been idle for too long.
func (p *pool) sweep(now time.Duration) {
	p.mu.Lock()
	n := 0
	for n < len(p.idle) && now-p.idle[n].idleAt >= p.cfg.PoolIdle {
		n++
	}
	old := slices.Clone(p.idle[:n])
	p.idle = slices.Delete(p.idle, 0, n)
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

// ourFault reports whether a dial failed for lack of something on this machine.
func ourFault(err error) bool {
	for _, e := range []error{syscall.EMFILE, syscall.ENFILE, syscall.EADDRNOTAVAIL, syscall.ENOBUFS, syscall.ENOMEM} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// nobodyThere reports whether a dial failed in a way that says that nothing
// listens at the address.
func nobodyThere(err error) bool {
	return errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.EHOSTUNREACH) ||
		errors.Is(err, syscall.ENETUNREACH)
}
