package agentstats

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
)

// InFlightHeader is the request header with which a poll declares how many requests
// its sidecar has in flight at the backend: decimal digits, 0 to 1e9. The answer says
// it back as own_in_flight.
const InFlightHeader = "Outrigger-In-Flight"

// Live are the figures that are taken when a poll is answered, not before.
type Live struct {
	InFlight    Opt[float64]
	Source      string // one of the Source constants; "" without InFlight
	AcceptQueue Opt[int64]
	AcceptLimit Opt[int64]
	Conc        Opt[float64]
}

// route is one path the agent serves besides the report and its own health.
type route struct {
	pattern string // as http.ServeMux takes it
	handler http.Handler
}

// server answers everything the fast path does not: scrapes, curl, TLS, upgrades and
// whatever is malformed. It is net/http's, whose reading of hostile input has been
// tried for years. Requests' contexts end with ctx, those of hijacked connections too.
func (a *Agent) server(ctx context.Context) *http.Server {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", a.serveHealth) // GET covers HEAD; all else is answered 405
	mux.Handle("GET "+ReportPath, a.guarded(http.HandlerFunc(a.serveReport)))
	for _, r := range a.routes {
		mux.Handle(r.pattern, a.guarded(r.handler))
	}
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true) // a poll is one exchange at a time, and upgrades need it
	return &http.Server{
		Handler:           mux,
		ReadHeaderTimeout: ioTimeout,
		ReadTimeout:       ioTimeout,
		WriteTimeout:      ioTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		Protocols:         protocols,
		BaseContext:       func(net.Listener) context.Context { return ctx },
		ConnContext:       withConn,
		ConnState:         releaseHijacked,
		// Peers that break off or talk nonsense are their own problem.
		ErrorLog: a.env.Logger.StandardLogger(&hclog.StandardLoggerOptions{ForceLevel: hclog.Debug}),
	}
}

// serve answers on the listener until ctx ends, which is no error. Plain connections
// go through the fast path where there is one; what it does not take, and TLS, is
// net/http's.
func (a *Agent) serve(ctx context.Context, l net.Listener) error {
	a.crowd.most, a.crowd.log, a.crowd.now = int64(a.cfg.MaxConns), a.env.Logger, a.env.Now
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	srv := a.server(ctx)
	failed := make(chan error, 2)
	rest := newHandedOver(l.Addr())
	fast, ok := func() error { return nil }, false
	if !a.cfg.TLS.on() {
		fast, ok = a.fastPath(ctx, l, rest)
	}
	var from net.Listener = rest
	if !ok {
		from = &limitedListener{Listener: l, crowd: &a.crowd}
		if a.cfg.TLS.on() {
			from = tls.NewListener(from, a.cfg.TLS.following(a.env.Logger))
		}
	}
	var running sync.WaitGroup
	running.Go(func() { failed <- srv.Serve(from) })
	if ok {
		running.Go(func() {
			if err := fast(); err != nil {
				failed <- err
			}
		})
	}
	var err error
	select {
	case err = <-failed:
		err = fmt.Errorf("agent: serving on %s failed: %w", l.Addr(), err)
		cancel()
		_ = srv.Close()
	case <-ctx.Done():
		err = shutdown(srv)
	}
	running.Wait()
	return err
}

func shutdown(srv *http.Server) error {
	ctx, cancel := context.WithTimeout(context.Background(), shutdownGrace)
	defer cancel()
	err := srv.Shutdown(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		return srv.Close() // a peer in mid-request does not hold the agent up
	}
	return err
}

// guarded asks for the token, if there is one. It does not say what was wrong.
func (a *Agent) guarded(h http.Handler) http.Handler {
	if !a.guard.on {
		return h
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if v := r.Header["Authorization"]; len(v) == 1 && a.guard.allows([]byte(v[0])) {
			h.ServeHTTP(w, r)
			return
		}
		a.crowd.refused.Add(1)
		w.Header().Set("WWW-Authenticate", "Bearer")
		w.Header().Set("Connection", "close") // a stranger's place is another's at once
		http.Error(w, "unauthorized", http.StatusUnauthorized)
	})
}

func (a *Agent) serveReport(w http.ResponseWriter, r *http.Request) {
	own, ok := ownInFlight(r.Header[InFlightHeader])
	if !ok {
		http.Error(w, InFlightHeader+" must be given once, as a whole number from 0 to 1000000000", http.StatusBadRequest)
		return
	}
	now := a.env.Now()
	s := a.newest.Load()
	if problem := a.stale(s, now); problem != "" {
		http.Error(w, problem, http.StatusServiceUnavailable)
		return
	}
	if c, _ := r.Context().Value(connKey{}).(*limitedConn); c != nil {
		c.polls()
	}
	body := a.compose(nil, s, now, own)
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Content-Length", strconv.Itoa(len(body)))
	h.Set("Cache-Control", "no-store")
	_, _ = w.Write(body) // a poller that went away has no use for the error
}

// ownInFlight reads the values of InFlightHeader: none is unknown.
func ownInFlight(values []string) (own Opt[int64], ok bool) {
	switch len(values) {
	case 0:
		return own, true
	case 1:
		n, ok := parseCount(values[0])
		return Some(n), ok
	}
	return own, false
}

// parseCount reads decimal digits up to maxInFlight, with no sign and no zeros in front.
func parseCount[T string | []byte](text T) (n int64, ok bool) {
	if len(text) == 0 || len(text) > len("1000000000") || text[0] == '0' && len(text) > 1 {
		return 0, false
	}
	for i := range len(text) {
		c := text[i]
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + int64(c-'0')
	}
	return n, n <= maxInFlight
}

// serveHealth answers for the agent itself: 200 while it samples. A backend that is
// down is a matter of the report, not of the agent's health. It asks for no token, so
// where there is one it does not tell what is watched.
func (a *Agent) serveHealth(w http.ResponseWriter, _ *http.Request) {
	h := w.Header()
	h.Set("Content-Type", "text/plain; charset=utf-8")
	h.Set("Cache-Control", "no-store")
	s := a.newest.Load()
	if problem := a.stale(s, a.env.Now()); problem != "" {
		http.Error(w, problem, http.StatusServiceUnavailable)
		return
	}
	if a.guard.on {
		_, _ = io.WriteString(w, "ok\n")
		return
	}
	fmt.Fprintf(w, "ok\n%s\n", s.state)
}

// stale says why a sample must not be served any more; "" when it may. A sampler that
// hangs would otherwise go on looking fresh, since polls stamp their answers anew.
func (a *Agent) stale(s *served, now time.Time) string {
	if s == nil { // only when the very first sample could not be encoded
		return "no sample yet"
	}
	if age := now.Sub(s.at); age > max(3*a.cfg.Interval, 3*time.Second) {
		return fmt.Sprintf("the newest sample is %s old", age.Round(time.Millisecond))
	}
	return ""
}

// limitedListener closes connections above a number at once: a peer that is turned
// away knows it and backs off, while one left in the accept queue would only time out,
// and idle strangers could starve the sidecars without a word in the log.
type limitedListener struct {
	net.Listener
	crowd *crowd
}

func (l *limitedListener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if l.crowd.enter() {
			return &limitedConn{Conn: c, crowd: l.crowd}, nil
		}
		_ = c.Close()
	}
}

// crowd counts the open connections and, among them, those that poll.
type crowd struct {
	open    atomic.Int64
	polling atomic.Int64
	handed  atomic.Int64 // of the open ones: passed on by the fast path, and not hijacked
	most    int64
	log     hclog.Logger
	now     func() time.Time
	// Since the start: polls answered, connections above most, requests without the right
	// token, samples that could not be encoded.
	polls, turnedAway, refused, failed atomic.Uint64

	said map[string]time.Time // when each line was logged last; only for the goroutine that accepts
}

// complainEvery is how often a line that others can cause is logged.
const complainEvery = time.Minute

// complain logs a line at most once in complainEvery. Only for the goroutine that accepts.
func (c *crowd) complain(what string, args ...any) {
	now := c.now()
	if last, ok := c.said[what]; ok && now.Sub(last) < complainEvery {
		return
	}
	if c.said == nil {
		c.said = map[string]time.Time{}
	}
	c.said[what] = now
	c.log.Warn(what, args...)
}

// enter counts a new connection, unless there are too many.
func (c *crowd) enter() bool {
	if c.open.Add(1) <= c.most {
		return true
	}
	c.open.Add(-1)
	n := c.turnedAway.Add(1)
	c.complain("connections are turned away: all that max_conns allows are open", "max_conns", c.most, "so_far", n)
	return false
}

// maxHanded bounds the connections that net/http has of the fast path, some 14 KiB
// each: scrapes, people with curl, gauge streams until they are hijacked.
const maxHanded = 256

// hand counts a connection that the fast path passes on, unless there are too many.
func (c *crowd) hand() bool {
	if c.handed.Add(1) <= maxHanded {
		return true
	}
	c.handed.Add(-1)
	n := c.turnedAway.Add(1)
	c.complain("connections that do not poll are turned away: too many are open", "most", maxHanded, "so_far", n)
	return false
}

type limitedConn struct {
	net.Conn
	crowd  *crowd
	once   sync.Once
	polled atomic.Bool
	handed atomic.Bool // counted as that
}

// polls marks the connection as a sidecar's.
func (c *limitedConn) polls() {
	if !c.polled.Swap(true) {
		c.crowd.polling.Add(1)
	}
}

func (c *limitedConn) Close() error {
	c.once.Do(func() {
		c.crowd.open.Add(-1)
		c.release()
		if c.polled.Load() {
			c.crowd.polling.Add(-1)
		}
	})
	return c.Conn.Close()
}

// release tells that net/http keeps nothing of a connection any more.
func (c *limitedConn) release() {
	if c.handed.Swap(false) {
		c.crowd.handed.Add(-1)
	}
}

func releaseHijacked(c net.Conn, state http.ConnState) {
	if l, ok := c.(*limitedConn); ok && state == http.StateHijacked {
		l.release()
	}
}

// connKey is where a request's context has its *limitedConn.
type connKey struct{}

func withConn(ctx context.Context, c net.Conn) context.Context {
	if t, ok := c.(interface{ NetConn() net.Conn }); ok { // TLS
		c = t.NetConn()
	}
	return context.WithValue(ctx, connKey{}, c)
}
