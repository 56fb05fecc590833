package discovery

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptrace"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	// soon is how young a connection is that was refused, and not cut off later.
	soon = time.Second
	// provenAfter is how long a connection must have lived to be one that the agent
	// takes: it refuses at once.
	provenAfter = time.Second
	// lookAgain is how long after a connection was closed without a word it is
	// looked whether others are still served: they all end together when the agent
	// or what is in front of it goes.
	lookAgain = 250 * time.Millisecond
)

// fresh finds out whether a connection was made for the request.
type fresh struct {
	mu    sync.Mutex
	made  time.Time // zero: it has been used before
	heard bool
}

func (f *fresh) trace(g *Gate, t *turn) *httptrace.ClientTrace {
	return &httptrace.ClientTrace{
		GetConn: func(string) { g.connected(t, time.Time{}, false) }, // also when net/http tries again
		GotConn: func(i httptrace.GotConnInfo) {
			now := g.now()
			g.connected(t, now, i.Reused)
			f.mu.Lock()
			defer f.mu.Unlock()
			if f.made, f.heard = (time.Time{}), false; !i.Reused {
				f.made = now.Add(-i.IdleTime) // one that was made for another, who took one that came free
			}
		},
		GotFirstResponseByte: func() {
			f.mu.Lock()
			defer f.mu.Unlock()
			f.heard = true
		},
	}
}

// closed reports whether an error is that of a connection never used before that was
// closed without an answer, and how old it was.
func (f *fresh) closed(err error, now time.Time) (age time.Duration, ok bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.made.IsZero() || f.heard {
		return 0, false
	}
	return now.Sub(f.made), errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) ||
		errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) ||
		strings.Contains(err.Error(), "server closed idle connection") // net/http's EOF before the first byte
}

// silent reports whether an error is worth another try: the agent refused the
// connection without a word. Over its limit it does that when its 429 does not get
// through, and goes on serving the others. When it serves nobody it is away.
func (t *transport) silent(req *http.Request, turn *turn, conn *fresh, err error) bool {
	now := t.gate.now()
	age, ok := conn.closed(err, now)
	switch {
	case !ok || req.Method != http.MethodGet:
		return false
	case age > soon:
		// Made long ago and never used: it may have ended long ago too, and nobody
		// has looked (polite). net/http does the same for those that were used.
		t.gate.idle()
		return true
	}
	if sleep(req.Context(), lookAgain) != nil || !t.gate.serving(now, turn) {
		return false
	}
	t.gate.refused(turn, false)
	return true
}

// connected notes since when t has a connection; zero: it looks for one.
func (g *Gate) connected(t *turn, since time.Time, reused bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	t.conn, t.reused = since, reused
}

// spoke notes any answer but a refusal.
func (g *Gate) spoke() {
	now := g.now()
	g.mu.Lock()
	defer g.mu.Unlock()
	g.heard = now
	g.window.answered(now)
}

// serving reports whether the agent serves others than t: it has answered since, or
// holds connections that it would have ended by now.
func (g *Gate) serving(since time.Time, t *turn) bool {
	now := g.now()
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.heard.After(since) {
		return true
	}
	for other := range g.inside {
		if other == t || other.conn.IsZero() {
			continue
		}
		if age := now.Sub(other.conn); age >= provenAfter || other.reused && age >= lookAgain/2 {
			return true
		}
	}
	return false
}

// refused notes that the agent would not take t's connection; said: and gave the
// reason.
func (g *Gate) refused(t *turn, said bool) {
	now := g.now()
	g.mu.Lock()
	proven := 0
	for t := range g.inside {
		if now.Sub(t.began) >= provenAfter {
			proven++
		}
	}
	g.window.refused(now, t.began, len(g.inside), proven, said)
	g.busyConnections++
	quiet := now.Sub(g.toldBusy) < busySpell && !g.toldBusy.IsZero()
	g.toldBusy = now
	limit := g.window.limit
	g.mu.Unlock()
	g.idle() // those count for the agent too
	switch {
	case quiet:
	case said:
		g.log.Warn("the Consul agent refuses connections: using fewer", "connections", limit,
			"hint", "its limits.http_max_conns_per_client counts all programs of this host together; https needs a few connections for any number of services")
	default:
		g.log.Warn("new connections to the Consul agent are closed while it serves others: using fewer for now", "connections", limit,
			"hint", "its limits.http_max_conns_per_client, or that of something in front of it")
	}
}
