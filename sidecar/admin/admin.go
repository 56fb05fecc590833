package admin

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"

	"outrigger/agentstats"
	"outrigger/discovery"
	"outrigger/sidecar/balance"
)

// Service is what the admin listener may ask about one service. The functions
// are called on every request and scrape, by many goroutines at once; those
// that are nil leave their part out.
type Service struct {
	Name   string // unique; becomes the label "service"
	Listen string // where its clients connect

	Status    func() balance.Status // required
	Explain   func(balance.Question) (balance.Explanation, error)
	Key       func(text string) (uint64, error) // hashes as requests are hashed; nil: picker.Hash
	Decisions func(n int) []balance.Decision    // up to n, the newest first
	Denials   func(n int) []balance.Denial      // likewise
	Discovery func() discovery.Status
	Traffic   func() Traffic
	Agents    func(id string) AgentStatus // by endpoint ID
	Loads     func() Loads
	Checks    func(id string) Check // by endpoint ID; nil: there are no active checks
	Snapshots func() Snapshots      // nil: nothing is kept on disk
}

// Loads counts what is told of endpoints besides the answers to polls, and what this
// sidecar tells agents, since the start.
type Loads struct {
	Declared        uint64 // load headers of answers that were read
	DeclaredRefused uint64 // of those that were not believed

	Published        bool  // published reports are read; else the next four are 0
	Reports          int   // endpoints of which there is a published one
	Reads, ReadFails int64 // of Consul
	PublishedRefused uint64

	Gauges               bool   // gauges are sent; else the next three are 0
	Streams              int    // open
	Frames, StreamsEnded uint64 // sent, and given up because the agent did not keep up
}

// Traffic counts what the clients of one service got, since the start. Client
// errors, answers passed through and our own are counted apart.
type Traffic struct {
	Accepted uint64    // client connections ever
	Open     int64     // client connections now
	Tunnels  int64     // upgraded ones among them
	Passed   [6]uint64 // answers of backends, by status class: Passed[2] are 2xx
	Own      [6]uint64 // answers made by the sidecar itself, by status class

	ClientErrors uint64 // requests refused as invalid, ambiguous or too large
	ClientGone   uint64 // requests whose client left before the end
	Aborted      uint64 // answers cut short because the backend broke off

	RetryCauses []string // what retries were due to,
	Retries     []uint64 // and how many to each

	LogWritten, LogDropped, LogErrors uint64 // lines of the access log
}

// AgentStatus is what the polls of one endpoint's agent came to.
type AgentStatus struct {
	Polled    bool // false: the endpoint has no agent, and nothing else here counts
	Addr      string
	Polls     uint64 // sent or tried
	Failures  uint64 // no answer, or an error
	Rejected  uint64 // answers that were not believed
	Repeated  uint64 // answers that were the last report again
	LastError string // kept after recovery
	// Report is the last accepted one, for what policies do not look at; it does not
	// count from Expires on, which is on the balancer's clock.
	Report  agentstats.Report
	Expires time.Duration
}

// Options are what a Server serves.
type Options struct {
	Services []Service // shown in this order
	Version  string
	Log      hclog.Logger     // nil: no log
	Now      func() time.Time // nil: time.Now
	// Consul tells of the connections to it; nil: no service uses Consul.
	Consul func() Consul
	// Draining reports that the sidecar is shutting down. nil: it never is.
	Draining func() bool
}

// Bounds of the listener. It is for one Prometheus, a few health checks and a
// person or two; it must never take from the data path what that needs.
const (
	maxConns       = 128      // beyond that, new ones are closed at once
	maxHeaderBytes = 16 << 10 // scrapers send well under 1 KiB
	maxScrapes     = 4        // at once
	maxDocuments   = 4        // of /v1 at once: one of 10,000 endpoints takes tens of MiB to make
	headerTimeout  = 5 * time.Second
	writeTimeout   = 30 * time.Second // Prometheus gives up after 10 s by default
	idleTimeout    = 2 * time.Minute  // longer than the usual scrape interval of 15 s to 1 min
	endGrace       = time.Second      // for answers under way when Serve ends
)

// Server is the admin listener. New, Listen, Serve, once each and in this
// order; everything else is safe for concurrent use after that.
type Server struct {
	cfg       Config
	o         Options
	started   time.Time
	registry  *prometheus.Registry
	durations map[string]*observers // by service
	http      *http.Server
	conns     atomic.Int64
	documents chan struct{} // has one in it for each that is being made
	ln        net.Listener
}

// New returns a server that does not listen yet. It calls none of the
// functions in o but Now.
func New(cfg Config, o Options) (*Server, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if o.Log == nil {
		o.Log = hclog.NewNullLogger()
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Draining == nil {
		o.Draining = func() bool { return false }
	}
	if err := checkServices(o.Services); err != nil {
		return nil, err
	}
	s := &Server{cfg: cfg, o: o, started: o.Now(), documents: make(chan struct{}, maxDocuments)}
	if err := s.register(); err != nil {
		return nil, fmt.Errorf("admin metrics: %w", err)
	}
	s.http = &http.Server{
		Handler:                      s.routes(),
		DisableGeneralOptionsHandler: true, // "OPTIONS *" would pass by our checks
		ReadHeaderTimeout:            headerTimeout,
		ReadTimeout:                  headerTimeout, // no request has a body worth waiting for
		WriteTimeout:                 writeTimeout,
		IdleTimeout:                  idleTimeout,
		MaxHeaderBytes:               maxHeaderBytes,
		ConnState:                    s.count,
		ErrorLog:                     o.Log.StandardLogger(&hclog.StandardLoggerOptions{ForceLevel: hclog.Warn}),
	}
	return s, nil
}

func checkServices(services []Service) error {
	seen := map[string]bool{}
	for _, sv := range services {
		switch {
		case sv.Name == "" || !utf8.ValidString(sv.Name):
			return fmt.Errorf("admin: service name %q is empty or not UTF-8, so it cannot label metrics", sv.Name)
		case seen[sv.Name]:
			return fmt.Errorf("admin: service %q is there twice", sv.Name)
		case sv.Status == nil:
			return fmt.Errorf("admin: service %q has no Status function", sv.Name)
		}
		seen[sv.Name] = true
	}
	return nil
}

// count bounds the open connections.
func (s *Server) count(c net.Conn, state http.ConnState) {
	switch state {
	case http.StateNew:
		if s.conns.Add(1) > maxConns {
			_ = c.Close() // its goroutine finds out and reports it closed
		}
	case http.StateClosed, http.StateHijacked:
		s.conns.Add(-1)
	}
}

// Listen opens the listener and returns its address.
func (s *Server) Listen() (net.Addr, error) {
	ln, err := net.Listen("tcp", s.cfg.Listen)
	if err != nil {
		return nil, fmt.Errorf("admin listener %q: %w", s.cfg.Listen, err)
	}
	// "localhost" is whatever the hosts file says.
	if a, err := netip.ParseAddrPort(ln.Addr().String()); err != nil || !a.Addr().IsLoopback() {
		return nil, errors.Join(
			fmt.Errorf("admin listen %q means %s here, which is not a loopback address; write 127.0.0.1", s.cfg.Listen, ln.Addr()),
			ln.Close())
	}
	s.ln = ln
	return ln.Addr(), nil
}

// Addr returns where the server listens, nil before Listen.
func (s *Server) Addr() net.Addr {
	if s.ln == nil {
		return nil
	}
	return s.ln.Addr()
}

// Serve answers until ctx ends, lets answers under way finish (for a second at
// most) and returns nil. An error means that the listener broke.
func (s *Server) Serve(ctx context.Context) error {
	if s.ln == nil {
		return errors.New("admin: Serve was called before Listen")
	}
	ended := make(chan error, 1)
	go func() { ended <- s.http.Serve(s.ln) }()
	select {
	case err := <-ended:
		return fmt.Errorf("admin listener %s: %w", s.ln.Addr(), err)
	case <-ctx.Done():
	}
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), endGrace)
	defer cancel()
	if s.http.Shutdown(grace) != nil {
		_ = s.http.Close() // what is left hangs, and must not keep the process
	}
	<-ended //nolint:errcheck // closing the listener is what ended it
	return nil
}

// guarded refuses requests that a web page may have caused. A page whose name
// its owner points at 127.0.0.1 (DNS rebinding) is of one origin with us as far
// as the browser knows, and only the Host header tells the difference. (The
// listen address is loopback itself, so it needs no exception.)
func guarded(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Content-Type-Options", "nosniff")
		w.Header().Set("Cache-Control", "no-store")
		if !loopbackHost(r.Host) {
			http.Error(w, "the admin listener answers to localhost, 127.0.0.1 and [::1] only; ask by one of these",
				http.StatusMisdirectedRequest)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// loopbackHost reports whether a Host header names this machine: "localhost"
// or a loopback address, with or without a port. Any port will do, for it may
// have been forwarded.
func loopbackHost(hostport string) bool {
	host := hostport
	if h, _, err := net.SplitHostPort(hostport); err == nil {
		host = h
	} else if inner, ok := strings.CutPrefix(hostport, "["); ok {
		host, _ = strings.CutSuffix(inner, "]")
	}
	if strings.EqualFold(host, "localhost") {
		return true
	}
	ip, err := netip.ParseAddr(host)
	// A zone ("::1%eth0") names a link, which this machine's loopback is not;
	// netip takes any text for one.
	return err == nil && ip.Zone() == "" && ip.Unmap().IsLoopback()
}
