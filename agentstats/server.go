package agentstats

import (
	"fmt"
	"net"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
)

// server is net/http's: a poll costs it a few microseconds more than a hand-written
// loop would, and its reading of hostile input has been tried for years.
func (a *Agent) server() *http.Server {
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+ReportPath, a.serveReport) // GET covers HEAD; all else is answered 405
	mux.HandleFunc("GET /healthz", a.serveHealth)
	return &http.Server{
		Handler:           mux,
		ReadHeaderTimeout: ioTimeout,
		ReadTimeout:       ioTimeout,
		WriteTimeout:      ioTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		// Peers that break off or talk nonsense are their own problem.
		ErrorLog: a.env.Logger.StandardLogger(&hclog.StandardLoggerOptions{ForceLevel: hclog.Debug}),
	}
}

func (a *Agent) serveReport(w http.ResponseWriter, _ *http.Request) {
	s := a.newest.Load()
	if s == nil { // only when the very first sample could not be encoded
		http.Error(w, "no sample yet", http.StatusServiceUnavailable)
		return
	}
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Content-Length", strconv.Itoa(len(s.body)))
	h.Set("Cache-Control", "no-store")
	_, _ = w.Write(s.body) // a poller that went away has no use for the error
}

// serveHealth answers for the agent itself: 200 while it samples. A backend that is
// down is a matter of the report, not of the agent's health.
func (a *Agent) serveHealth(w http.ResponseWriter, _ *http.Request) {
	h := w.Header()
	h.Set("Content-Type", "text/plain; charset=utf-8")
	h.Set("Cache-Control", "no-store")
	s := a.newest.Load()
	if s == nil {
		http.Error(w, "no sample yet", http.StatusServiceUnavailable)
		return
	}
	if age := a.env.Now().Sub(s.at); age > max(3*a.cfg.Interval, 3*time.Second) {
		http.Error(w, fmt.Sprintf("the newest sample is %s old", age.Round(time.Millisecond)), http.StatusServiceUnavailable)
		return
	}
	fmt.Fprintf(w, "ok\n%s\n", s.state)
}

// limitedListener closes connections above a number at once: a peer that is turned
// away knows it and backs off, while one left in the accept queue would only time out,
// and idle strangers could starve the sidecars without a word in the log.
type limitedListener struct {
	net.Listener
	open *atomic.Int64
	most int64
	log  hclog.Logger
	full bool // said so; only Accept's goroutine reads it
}

func (l *limitedListener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if l.open.Add(1) <= l.most {
			l.full = false
			return &limitedConn{Conn: c, open: l.open}, nil
		}
		l.open.Add(-1)
		_ = c.Close()
		if !l.full {
			l.full = true
			l.log.Warn("connections are turned away: all that max_conns allows are open", "max_conns", l.most, "peer", c.RemoteAddr())
		}
	}
}

type limitedConn struct {
	net.Conn
	open *atomic.Int64
	once sync.Once
}

func (c *limitedConn) Close() error {
	c.once.Do(func() { c.open.Add(-1) })
	return c.Conn.Close()
}
