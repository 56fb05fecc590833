package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"time"
)

// Keys of the figures of the idle case, in bytes.
const (
	keyPerConnPSS = "pss_bytes_per_connection"
	keyPerConnRSS = "rss_bytes_per_connection"
	keyBaseRSS    = "rss_before_bytes"
	keyFullRSS    = "rss_with_connections_bytes"
	keyFullPSS    = "pss_with_connections_bytes"
)

func idleMetrics() []metric {
	return []metric{
		{key: keyPerConnPSS, label: "PSS bytes/conn", spread: true, compare: lower},
		{key: keyPerConnRSS, label: "RSS bytes/conn", compare: lower},
		{key: keyBaseRSS, label: "RSS before MiB", scale: 1 << 20, digits: 1},
		{key: keyFullRSS, label: "RSS with MiB", scale: 1 << 20, digits: 1, compare: lower},
		{key: keyPeak, label: "peak RSS MiB", scale: 1 << 20, digits: 1, compare: lower},
	}
}

const (
	idleConns  = 5000
	idleSettle = 3 * time.Second // for what a proxy gives back after the burst; well below all idle timeouts
)

// idle measures the memory of connections that have had one request each.
func (b *bench) idle(ctx context.Context) (*result, error) {
	if need := uint64(idleConns + 1000); b.files < need || b.maxConns() < idleConns+100 {
		return nil, fmt.Errorf("the limit of open files is %d, too low for %d connections: raise it (ulimit -n %d)", b.files, idleConns, 4*need)
	}
	r := &result{
		Name: idleCase, Title: fmt.Sprintf("%d idle keep-alive connections after one request each", idleConns),
		Setting: fmt.Sprintf("%d rounds, each with a fresh proxy; memory is read %v after the last answer", b.opt.rounds, idleSettle),
		metrics: idleMetrics(), headline: keyPerConnPSS,
	}
	for i := range b.opt.rounds {
		values := round{}
		for _, name := range rotated(proxyNames(), i) {
			f, err := b.idleSample(ctx, name)
			if err != nil {
				return nil, fmt.Errorf("%s, round %d: %w\n%s", name, i+1, err, b.logOf(name))
			}
			values[name] = f
		}
		r.Rounds = append(r.Rounds, values)
	}
	return r, nil
}

func (b *bench) idleSample(ctx context.Context, name string) (figures, error) {
	if err := b.startProxies(ctx, []string{name}, variant{}); err != nil {
		return nil, err
	}
	p := b.proxy(name)
	// Its pools and buffers as they are at rest, not untouched.
	if _, err := b.sample(ctx, p, load{path: smallPath, conns: 64}, 1); err != nil {
		return nil, err
	}
	if err := pause(ctx, idleSettle); err != nil {
		return nil, err
	}
	before, err := memoryOf(p.pid)
	if err != nil {
		return nil, err
	}
	var conns []net.Conn
	defer func() {
		for _, c := range conns {
			_ = c.Close() // it was only held
		}
	}()
	for range idleConns {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		c, err := net.Dial("tcp", p.addr)
		if err != nil {
			return nil, err
		}
		conns = append(conns, c)
		if err := askOn(c, 5*time.Second); err != nil {
			return nil, fmt.Errorf("connection %d: %w", len(conns), err)
		}
	}
	if err := pause(ctx, idleSettle); err != nil {
		return nil, err
	}
	after, err := memoryOf(p.pid)
	if err != nil {
		return nil, err
	}
	for i, c := range conns { // they must all have been there
		if err := askOn(c, 5*time.Second); err != nil {
			return nil, fmt.Errorf("connection %d of %d was not kept: %w", i+1, len(conns), err)
		}
	}
	return figures{
		keyPerConnPSS: (after.pss - before.pss) / idleConns,
		keyPerConnRSS: (after.rss - before.rss) / idleConns,
		keyBaseRSS:    before.rss, keyFullRSS: after.rss, keyFullPSS: after.pss, keyPeak: after.peak,
	}, nil
}

var smallRequest = []byte("GET " + smallPath + " HTTP/1.1\r\nHost: idle\r\n\r\n")

// askOn sends a small request on a connection and reads its answer.
func askOn(c net.Conn, limit time.Duration) error {
	if err := c.SetDeadline(time.Now().Add(limit)); err != nil {
		return err
	}
	if _, err := c.Write(smallRequest); err != nil {
		return err
	}
	buf := make([]byte, 4096)
	for have := 0; ; {
		n, err := c.Read(buf[have:])
		if err != nil {
			return err
		}
		have += n
		_, status, err := responseLength(buf[:have])
		switch {
		case err == errPartial && have < len(buf):
			continue
		case err != nil:
			return err
		case status != 200:
			return fmt.Errorf("answered %d: %w", status, io.ErrUnexpectedEOF)
		}
		return nil
	}
}
