package h1

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// tlsEndpoint is TLS to one endpoint: what its connections have in common. Safe
// for concurrent use.
type tlsEndpoint struct {
	files *tlsFiles
	addr  string
	name  string       // to verify
	moan  *rateLimited // of the service

	mu    sync.Mutex
	creds *credentials // which cfg was made of
	cfg   *tls.Config
}

// config returns what a new connection is made with.
func (e *tlsEndpoint) config() (*tls.Config, *credentials, error) {
	creds, err := e.files.current()
	if err != nil {
		return nil, nil, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.creds != creds {
		e.creds, e.cfg = creds, e.newConfig(creds)
	}
	return e.cfg, creds, nil
}

func (e *tlsEndpoint) newConfig(creds *credentials) *tls.Config {
	c := &tls.Config{
		RootCAs:            creds.roots,
		ServerName:         e.name,
		MinVersion:         e.files.cfg.minVersion(),
		InsecureSkipVerify: e.files.cfg.InsecureSkipVerify,
		NextProtos:         []string{"http/1.1"},
		ClientSessionCache: sessionsOf{creds.sessions, e.addr},
		// Small records at the start hasten the first byte over long ways, at
		// the price of a system call each. Backends are near.
		DynamicRecordSizingDisabled: true,
	}
	if pair := creds.pair; pair != nil {
		// Not Certificates: that would show nothing, and not say so, to a
		// backend whose list of authorities does not name the issuer.
		c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return pair, nil }
	}
	return c
}

// sessionsOf keeps endpoints' sessions apart where all have the same name: they
// need not know each other's tickets.
type sessionsOf struct {
	all  tls.ClientSessionCache
	addr string
}

func (s sessionsOf) Get(key string) (*tls.ClientSessionState, bool) {
	return s.all.Get(s.addr + " " + key)
}

func (s sessionsOf) Put(key string, cs *tls.ClientSessionState) { s.all.Put(s.addr+" "+key, cs) }

// handshake makes a TLS connection of nc, which it closes on error. ctx bounds
// it; an error says who is to blame (ourFault).
func (e *tlsEndpoint) handshake(ctx context.Context, nc net.Conn) (*tlsConn, error) {
	cfg, creds, err := e.config()
	if err != nil {
		_ = nc.Close()
		return nil, err
	}
	w := newWire(nc)
	c := &tlsConn{Conn: tls.Client(w, cfg), wire: w, e: e, creds: creds}
	if err := c.HandshakeContext(ctx); err != nil {
		_ = nc.Close()
		err = fmt.Errorf("TLS handshake with %s: %w", e.addr, err)
		if !errors.Is(err, context.Canceled) { // the client has gone
			e.complain(err)
		}
		return nil, err
	}
	return c, nil
}

// complain tells why a backend was not taken, or did not take us. The breaker
// hears of it too, but not why.
func (e *tlsEndpoint) complain(err error) {
	if !e.moan.now(e.files.now()) {
		return
	}
	hint := ""
	var host x509.HostnameError
	var unknown x509.UnknownAuthorityError
	switch {
	case errors.As(err, &host):
		hint = "the certificate is for another name: set server_name in the service's tls block to one that it has"
	case errors.As(err, &unknown):
		hint = "set ca_file in the service's tls block to the authority that signed the backends' certificates"
	case remoteAlert(err):
		hint = "the backend refused; its own log may say more. Look at min_version, server_name and the client certificate"
	}
	e.files.log.Warn("TLS with a backend failed", "endpoint", e.addr, "error", fmt.Sprintf("%.400v", err), "hint", hint)
}

// remoteAlert reports whether the backend ended the connection by an alert.
func remoteAlert(err error) bool {
	var oe *net.OpError
	return errors.As(err, &oe) && oe.Op == "remote error"
}

// rateLimited lets something be said once in a while.
type rateLimited struct {
	every time.Duration
	last  atomic.Int64
}

func (r *rateLimited) now(now time.Duration) bool {
	last := r.last.Load()
	return (last == 0 || int64(now)-last >= int64(r.every)) && r.last.CompareAndSwap(last, int64(now))
}

// tlsConn is a connection to a backend by TLS. As with any connection, one
// reads while one writes, and anybody may set deadlines. A write that fails, by
// a deadline too, leaves it of no use.
type tlsConn struct {
	*tls.Conn
	wire  *wire
	e     *tlsEndpoint
	creds *credentials
	one   [1]byte
}

// Read tells of a backend that refuses us: in TLS 1.3 that comes after the
// handshake.
func (c *tlsConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if err != nil && remoteAlert(err) {
		c.e.complain(err)
	}
	return n, err
}

// quiet reports whether the connection is open, with no data and no end of it
// to read. Session tickets and new keys, which come at any time in TLS 1.3, are
// dealt with on the way. A record of which only a part has come may be
// anything, and is not quiet.
func (c *tlsConn) quiet() bool {
	if c.wire.raw == nil {
		return false
	}
	c.wire.now = true
	n, err := c.Conn.Read(c.one[:])
	c.wire.now = false
	return n == 0 && err == errNotNow && !c.wire.stuck && c.wire.whole()
}

// outdated reports whether the credentials have changed since.
func (c *tlsConn) outdated() bool { return c.e.files.cur.Load() != c.creds }

// Close says goodbye (RFC 8446 section 6.1) if that can be done without
// waiting. A connection that was struck ends without, as the cut that it is.
func (c *tlsConn) Close() error {
	if c.wire.raw == nil {
		return c.wire.Conn.Close()
	}
	c.wire.now = true
	if err := c.Conn.Close(); errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil // that the goodbye did not go out is of no interest
}

// wire is the connection under TLS.
type wire struct {
	net.Conn
	raw syscall.RawConn // nil: it cannot be used without waiting
	// now makes reads and writes return at once. Set by the owner while nobody
	// else reads or writes.
	now   bool
	stuck bool // a write found no room while now
	rw    oneshot

	// Where in a record the bytes read so far end.
	head [recordHead]byte
	have int // bytes of head
	left int // bytes of the record behind it
}

const recordHead = 5

// notNow is the error of a read or write that would have to wait. crypto/tls
// goes on after errors that say that they are temporary.
type notNow struct{}

func (notNow) Error() string   { return "this would have to wait" }
func (notNow) Timeout() bool   { return true }
func (notNow) Temporary() bool { return true }

var errNotNow error = notNow{}

// errCut is the end of a connection without TLS's own end. RFC 9112 section
// 9.8: what ends so is not complete. crypto/tls would let io.EOF pass between
// two records.
var errCut = errors.New("the backend's connection ended without a TLS close_notify")

// Read returns errCut in the place of io.EOF.
func (w *wire) Read(b []byte) (n int, err error) {
	if w.now {
		n, err = w.rw.read(w.raw, b)
	} else {
		n, err = w.Conn.Read(b)
	}
	w.follow(b[:n])
	if err == io.EOF {
		err = errCut
	}
	return n, err
}

func (w *wire) Write(b []byte) (int, error) {
	if !w.now {
		return w.Conn.Write(b)
	}
	n, err := w.rw.write(w.raw, b)
	w.stuck = w.stuck || err != nil
	return n, err
}

// SetWriteDeadline does nothing while now: crypto/tls sets one before it says
// goodbye, which would lift that of an alarm.
func (w *wire) SetWriteDeadline(t time.Time) error {
	if w.now {
		return nil
	}
	return w.Conn.SetWriteDeadline(t)
}

// follow takes note of where records begin and end.
func (w *wire) follow(b []byte) {
	for len(b) > 0 {
		if w.left > 0 {
			k := min(w.left, len(b))
			w.left -= k
			b = b[k:]
			continue
		}
		w.head[w.have] = b[0]
		b = b[1:]
		if w.have++; w.have == recordHead {
			w.have = 0
			w.left = int(w.head[3])<<8 | int(w.head[4])
		}
	}
}

// whole reports whether the last record was read to its end.
func (w *wire) whole() bool { return w.have == 0 && w.left == 0 }
