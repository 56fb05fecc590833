package h1

import (
	"context"
	"errors"
	"net"
	"syscall"
	"time"

	"github.com/hashicorp/go-hclog"

	"outrigger/picker"
)

// dialer makes connections to one endpoint. Safe for concurrent use.
type dialer struct {
	net  net.Dialer
	addr string
	tls  *tlsEndpoint // nil: plain TCP
}

// dialers makes a service's dialers.
type dialers struct {
	files *tlsFiles // nil: plain TCP
	name  string    // to verify, "": the endpoint's host
	moan  *rateLimited
}

// complainEvery is how often a service tells of TLS that fails.
const complainEvery = 10 * time.Second

func newDialers(cfg TLSConfig, log hclog.Logger, now func() time.Duration) *dialers {
	if !cfg.Enabled {
		return &dialers{}
	}
	if log == nil {
		log = hclog.NewNullLogger()
	}
	return &dialers{files: newTLSFiles(cfg, log, now), name: cfg.ServerName, moan: &rateLimited{every: complainEvery}}
}

func (ds *dialers) to(ep *picker.Endpoint) *dialer {
	d := &dialer{addr: ep.Addr}
	d.net.KeepAlive = 30 * time.Second
	if ds.files == nil {
		return d
	}
	name := ds.name
	if name == "" {
		name = ep.Addr
		if host, _, err := net.SplitHostPort(ep.Addr); err == nil {
			name = host
		}
	}
	d.tls = &tlsEndpoint{files: ds.files, addr: ep.Addr, name: name, moan: ds.moan}
	return d
}

// dial connects, handshake included, within limit and until ctx ends. Nothing
// of a request has been sent when it fails. A connection by TLS is a *tlsConn.
func (d *dialer) dial(ctx context.Context, limit time.Duration) (net.Conn, error) {
	limit = max(limit, time.Nanosecond) // 0 would be none
	if d.tls == nil {
		nd := d.net
		nd.Timeout = limit
		return nd.DialContext(ctx, "tcp", d.addr)
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	nc, err := d.net.DialContext(ctx, "tcp", d.addr)
	if err != nil {
		return nil, err
	}
	return d.tls.handshake(ctx, nc)
}

// sweep looks after TLS's files, without waiting for them. Called about once a
// second while there are connections.
func (d *dialer) sweep() {
	if d.tls != nil && d.tls.files.due() {
		go d.tls.files.look()
	}
}

// ourFault reports whether a dial failed for lack of something on this machine.
func ourFault(err error) bool {
	for _, e := range []error{syscall.EMFILE, syscall.ENFILE, syscall.EADDRNOTAVAIL, syscall.ENOBUFS, syscall.ENOMEM, errOwnTLS} {
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
