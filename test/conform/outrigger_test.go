// Package conform holds Outrigger against RFC 9110 and 9112: every row scripts
// both sides of the wire octet by octet and is named after the section that
// binds a proxy. The same rows are played through HAProxy and NGINX, where they
// are installed; where they or we differ is a table:
//
//	go test ./test/conform -v -run Peers              # the differences
//	go test ./test/conform -v -run Peers -args -table # every row
//
// A difference is their known leniency, a choice the RFCs leave open and we
// have made, or our bug, and that fails TestOutrigger.
package conform

import (
	"context"
	"fmt"
	"net"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"outrigger/discovery"
	"outrigger/sidecar/balance"
	"outrigger/sidecar/h1"
	"outrigger/sidecar/tunnel"
)

// patience is for Outrigger: nothing waits for it but what fails.
const patience = 5 * time.Second

// engine makes one Outrigger after the other, on one engine.
type engine struct {
	env      balance.Env
	e        *h1.Engine
	patience time.Duration
}

func (*engine) name() string { return "outrigger" }

func newEngine(ctx context.Context) (*engine, error) {
	g := &engine{env: balance.RealEnv(nil), patience: patience}
	var err error
	if g.e, err = h1.NewEngine(g.env.Now); err != nil {
		return nil, err
	}
	go g.e.Run(ctx)
	return g, nil
}

// service is a server before one backend.
type service struct {
	b *balance.Balancer
	s *h1.Server
}

// service assembles what the sidecar assembles.
func (g *engine) service(ctx context.Context, cfg h1.Config, bcfg balance.Config, backend string) (*service, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg.FailureStatuses = bcfg.Breaker.FailureStatuses
	env := g.env
	env.NewConns = g.e.Conns(cfg, nil)
	b, err := balance.New(bcfg, env)
	if err != nil {
		return nil, err
	}
	go b.Run(ctx)
	host, port, err := net.SplitHostPort(backend)
	if err != nil {
		return nil, err
	}
	n, err := strconv.Atoi(port)
	if err != nil {
		return nil, err
	}
	b.Update([]discovery.Instance{{ID: "i", Address: host, Port: n, Weight: 1}})
	return &service{b: b, s: g.e.NewServer(cfg, b, h1.Options{Tunnel: tunnel.Run})}, nil
}

// lane starts a fresh Outrigger with the defaults but for the row's own tuning.
func (g *engine) lane(r *row) (*lane, error) {
	back, err := newBackend()
	if err != nil {
		return nil, err
	}
	cfg := h1.DefaultConfig()
	if r.tune != nil {
		r.tune(&cfg)
	}
	ctx, cancel := context.WithCancel(context.Background())
	sv, err := g.service(ctx, cfg, balance.DefaultConfig(), back.addr())
	if err != nil {
		cancel()
		return nil, err
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		cancel()
		return nil, err
	}
	served := make(chan struct{})
	go func() {
		defer close(served)
		// Without its deadlines, so that Shutdown does not wait for latecomers.
		sv.s.Serve(struct{ net.Listener }{ln})
	}()
	return &lane{b: back, addr: ln.Addr().String(), patience: g.patience, settle: func() {
		dead, stop := context.WithCancel(context.Background())
		stop()
		_ = sv.s.Shutdown(dead)
		<-served
		sv.b.Update(nil) // retires the pool
		cancel()
		_ = back.ln.Close()
	}}, nil
}

// play plays the row through Outrigger.
func (g *engine) play(r *row) (*sight, error) {
	l, err := g.lane(r)
	if err != nil {
		return nil, err
	}
	return l.play(r)
}

// rows are all rows, by topic.
func rows() (all []row) {
	for _, f := range []func() []row{
		targetRows, lineRows, fieldRows, lengthRows, codingRows, smugglingRows, chunkRows, hopRows, expectRows, pipelineRows, answerRows, limitRows,
	} {
		all = append(all, f()...)
	}
	return all
}

func TestOutrigger(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	g, err := newEngine(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range rows() {
		t.Run(r.rule, func(t *testing.T) {
			t.Parallel()
			s, err := g.play(&r)
			if err != nil {
				t.Fatal(err)
			}
			if why := r.bad(s); why != "" {
				t.Errorf("%s\nseen: %s\nbackend: %s\nclient: %s", why, s, dump(s.requests), dump(s.answers))
			}
		})
	}
}

// Every row has a name of its own, which begins with a section.
func TestRowNames(t *testing.T) {
	seen := map[string]bool{}
	for _, r := range rows() {
		if seen[r.rule] {
			t.Errorf("two rows %q", r.rule)
		}
		seen[r.rule] = true
		if !section.MatchString(r.rule) {
			t.Errorf("row %q names no section", r.rule)
		}
	}
	t.Logf("%d rows", len(seen))
}

var section = regexp.MustCompile(`^9\d{3}-[0-9A-Z]+(\.\d+)* `)

// dump shows messages for a failure.
func dump(ms []*message) string {
	var b strings.Builder
	for _, m := range ms {
		fmt.Fprintf(&b, "\n  %q %q body %.60q trailers %q whole %v faults %q", m.start, m.fields, m.body, m.trailers, m.whole, m.faults)
	}
	return b.String()
}
