package sidecar

import (
	"context"
	"net"

	"github.com/hashicorp/go-hclog"

	"outrigger/agentstats"
	"outrigger/agentstats/gauge"
	"outrigger/picker"
	"outrigger/sidecar/balance"
)

// gauges tells the agents of a service what this sidecar has in flight at their
// backends. A nil *gauges is one that is switched off: all its methods may be called.
type gauges struct{ sender *gauge.Sender }

// newGauges returns nil when cfg does not enable gauges. dial connects to the agent of
// an endpoint as its polls do, and is called only once run is; authorization returns
// the polls' header for one, "" for none.
func newGauges(cfg gauge.Config, env balance.Env, dial func(ctx context.Context, id string) (net.Conn, error),
	authorization func(id string) string, log hclog.Logger) *gauges {
	if !cfg.Enabled {
		return nil
	}
	return &gauges{gauge.NewSender(cfg, gauge.SenderEnv{
		Dial: dial, Authorization: authorization, Now: env.Now, Rand: env.Rand, Logger: log,
	})}
}

// hook is for balance.Env.NewGauge.
func (g *gauges) hook() func(*picker.Endpoint) balance.Gauge {
	if g == nil {
		return nil
	}
	return func(ep *picker.Endpoint) balance.Gauge { return g.sender.Gauge(ep.ID, ep.InFlight) }
}

// setTargets follows the poller's.
func (g *gauges) setTargets(targets []agentstats.Target) {
	if g == nil {
		return
	}
	addrs := make(map[string]string, len(targets))
	for _, t := range targets {
		addrs[t.ID] = t.Addr
	}
	g.sender.SetAgents(addrs)
}

// run sends until ctx ends.
func (g *gauges) run(ctx context.Context) {
	if g != nil {
		g.sender.Run(ctx)
	}
}

// stats is all zeros when gauges are off.
func (g *gauges) stats() gauge.SenderStats {
	if g == nil {
		return gauge.SenderStats{}
	}
	return g.sender.Stats()
}
