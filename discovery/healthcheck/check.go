package healthcheck

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strconv"
	"time"
)

// check makes one check; nil: healthy. Safe for concurrent use.
type check struct {
	cfg  Config
	env  Env
	plan *plan // of Kind "http"
	grpc *grpcCheck
	err  error // why there is nothing to check with
}

func newCheck(cfg Config, env Env) *check {
	k := &check{cfg: cfg, env: env}
	switch cfg.Kind {
	case "http":
		k.plan, k.err = newPlan(cfg.HTTP)
	case "grpc":
		k.grpc = newGRPCCheck(cfg.GRPC)
	case "tcp":
	default:
		k.err = fmt.Errorf("there is no health check of kind %.80q", cfg.Kind)
	}
	return k
}

// run makes one check of t within Config.Timeout, or until the deadline of ctx if that
// is sooner. Called off, it returns ErrNoVerdict.
func (k *check) run(ctx context.Context, t Target) error {
	if k.err != nil {
		return fmt.Errorf("%w: %w", ErrNoVerdict, k.err)
	}
	addr, host, err := k.address(t)
	if err != nil {
		return connectError{err}
	}
	limit := k.cfg.Timeout
	if end, ok := ctx.Deadline(); ok {
		limit = max(0, min(limit, time.Until(end).Round(time.Millisecond)))
	}
	inner, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	conn, err := k.connect(inner, addr, host, limit)
	switch {
	case err == nil:
		err = k.ask(inner, conn, addr, limit)
	case !errors.Is(err, ErrNoVerdict):
		err = connectError{err}
	}
	switch {
	case err == nil, errors.Is(err, ErrNoVerdict):
		return err
	case ours(err):
		return fmt.Errorf("%w: %w", ErrNoVerdict, err)
	case errors.Is(ctx.Err(), context.Canceled): // at a deadline the endpoint was too slow
		return fmt.Errorf("%w: %w", ErrNoVerdict, context.Cause(ctx))
	}
	return err
}

// address is where t is checked, and the host to verify.
func (k *check) address(t Target) (addr, host string, err error) {
	host, port, err := net.SplitHostPort(t.Addr)
	if err != nil {
		return "", "", fmt.Errorf("the address %.200q is not HOST:PORT", t.Addr)
	}
	if k.cfg.Port != 0 {
		port = strconv.Itoa(k.cfg.Port)
	}
	addr = net.JoinHostPort(host, port)
	if t.ServerName != "" {
		host = t.ServerName
	}
	return addr, host, nil
}

// connect opens a connection, with TLS where the service has it.
func (k *check) connect(ctx context.Context, addr, host string, limit time.Duration) (net.Conn, error) {
	var secure *tls.Config
	if k.env.TLS != nil {
		var err error
		if secure, err = k.env.TLS(host); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrNoVerdict, err)
		}
	}
	conn, err := k.env.Dial(ctx, "tcp", addr)
	if err != nil {
		if ours(err) {
			return nil, fmt.Errorf("%w: %w", ErrNoVerdict, explain("connect", err, limit))
		}
		return nil, explain("connect", err, limit)
	}
	if secure == nil {
		return conn, nil
	}
	secure = secure.Clone()
	if secure.ServerName == "" {
		secure.ServerName = host
	}
	switch k.cfg.Kind {
	case "grpc":
		secure.NextProtos = []string{"h2"}
	default:
		secure.NextProtos = []string{"http/1.1"}
	}
	tc := tls.Client(conn, secure)
	if err := tc.HandshakeContext(ctx); err != nil {
		_ = conn.Close()
		return nil, explain("TLS handshake", err, limit)
	}
	return tc, nil
}

// ask makes the check over conn, which it closes.
func (k *check) ask(ctx context.Context, conn net.Conn, addr string, limit time.Duration) error {
	if k.cfg.Kind == "tcp" {
		hangUp(conn)
		return nil
	}
	defer conn.Close()
	// Not a deadline: ctx may end before its own.
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if k.grpc != nil {
		return k.grpc.ask(ctx, conn, addr, limit)
	}
	return k.plan.ask(conn, addr, limit)
}

// hangUp closes a connection over which nothing was said. By a reset where it is plain
// TCP: it leaves no TIME_WAIT behind, of which there would be thousands.
func hangUp(conn net.Conn) {
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0) // a normal end will do as well
	}
	_ = conn.Close()
}
