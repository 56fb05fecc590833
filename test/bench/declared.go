package main

import (
	"context"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"outrigger/agentstats"
)

// declarer stands between an agent and those who ask it. It is here because the
// agent does not yet know how many requests are in its backend, nor speaks
// HAProxy's agent-check: it adds to the agent's newest report the count that the
// backend declares, and answers in both languages. An agent that can do this
// itself takes its place.
type declarer struct {
	agent    string // "127.0.0.1:port" of the real one
	inFlight func() int64
	client   *http.Client
	newest   atomic.Pointer[agentstats.Report]
}

// agentLook is how often the agent's figures, means over 250 ms that it renews
// as often, are fetched.
const agentLook = 100 * time.Millisecond

// run fetches until ctx ends. A report that does not come leaves the last one.
func (d *declarer) run(ctx context.Context) {
	for {
		_ = d.look(ctx) // what has no report says so to whoever asks
		if pause(ctx, agentLook) != nil {
			return
		}
	}
}

func (d *declarer) look(ctx context.Context) error {
	text, err := getWith(ctx, d.client, "http://"+d.agent+agentstats.ReportPath)
	if err != nil {
		return err
	}
	r, err := agentstats.Decode([]byte(text))
	if err == nil {
		d.newest.Store(&r)
	}
	return err
}

// report is the agent's, with the in-flight of this moment and its time.
func (d *declarer) report(now time.Time) (agentstats.Report, bool) {
	r := d.newest.Load()
	if r == nil {
		return agentstats.Report{}, false
	}
	declared := *r
	declared.InFlight = agentstats.Some(float64(d.inFlight()))
	declared.At = now.UnixMilli()
	return declared, true
}

func (d *declarer) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	r, ok := d.report(time.Now())
	if !ok || req.URL.Path != agentstats.ReportPath {
		http.Error(w, "no report", http.StatusServiceUnavailable)
		return
	}
	body, err := agentstats.Encode(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(body) // a poller that went away has no use for the error
}

// agentCheckLine is what HAProxy is told: the share of the backend's quota that
// it can have now. HAProxy multiplies the configured weight by it, which is by
// the quota, so that the product is the cores the backend can have, what its
// leastconn needs to know. (The idle share, the other candidate, takes weight
// from a backend for being used well, and all clients at once.)
func agentCheckLine(r agentstats.Report, ok bool) string {
	percent := 100.0
	cores, known := r.Cores.Get()
	if avail, has := r.Avail.Get(); ok && known && has {
		percent = min(max(math.Round(100*avail/cores), 1), 100) // 0% would drain it
	}
	return fmt.Sprintf("%.0f%%\n", percent)
}

// serveAgentCheck answers each connection with a line and closes it, until the
// listener is closed.
func (d *declarer) serveAgentCheck(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		r, ok := d.report(time.Now())
		_, _ = io.WriteString(c, agentCheckLine(r, ok)) // HAProxy takes silence for no news
		_ = c.Close()
	}
}
