package agentstats

import (
	"github.com/prometheus/client_golang/prometheus"

	"outrigger/agentstats/declared"
)

// partCounts is what the parts of an agent did; unknown where it has no such part.
type partCounts struct {
	gaugeStreams, gaugeFrames, gaugesRefused Opt[int64]
	declaredAsked, declaredFailed            Opt[int64]
	registered, maintenance, registerErrors  Opt[int64]
	published, publishErrors, publishHeld    Opt[int64]
}

// partCounts asks the parts.
func (a *Agent) partCounts() (c partCounts) {
	if a.board != nil {
		s := a.board.Stats()
		c.gaugeStreams, c.gaugeFrames = Some(int64(s.Open)), Some(int64(min(s.Frames, maxInteger)))
		c.gaugesRefused = Some(int64(min(s.Refused, maxInteger)))
	}
	if a.counting != nil {
		if d, ok := a.counting.declared.(interface{ Status() declared.Status }); ok {
			s := d.Status()
			c.declaredAsked, c.declaredFailed = Some(int64(min(s.Asked, maxInteger))), Some(int64(min(s.Failed, maxInteger)))
		}
	}
	if r := a.parts.registrar; r != nil {
		s := r.Status()
		c.registered, c.maintenance, c.registerErrors = Some(bit(s.Registered)), Some(bit(s.Maintenance != "")), Some(s.Errors)
	}
	if p := a.parts.publisher; p != nil {
		s := p.Status()
		c.published, c.publishErrors, c.publishHeld = Some(s.Writes), Some(s.Errors), Some(bit(s.Held))
	}
	return c
}

func bit(b bool) int64 {
	if b {
		return 1
	}
	return 0
}

func (t *reportTable) parts() {
	now, total := prometheus.GaugeValue, prometheus.CounterValue
	t.own(now, "sidecar_streams_open", "Streams of sidecars' gauges that are open.", func(c *counts) Opt[int64] { return c.gaugeStreams })
	t.own(total, "sidecar_frames_total", "Gauges that sidecars sent.", func(c *counts) Opt[int64] { return c.gaugeFrames })
	t.own(total, "sidecar_streams_refused_total", "Streams of gauges that were refused.", func(c *counts) Opt[int64] { return c.gaugesRefused })
	t.own(total, "declared_asked_total", "Times that the backend was asked for the figures it declares.", func(c *counts) Opt[int64] { return c.declaredAsked })
	t.own(total, "declared_failed_total", "Times that it gave none that can be used.", func(c *counts) Opt[int64] { return c.declaredFailed })
	t.own(now, "registered", "1 while the backend is registered in Consul, as far as Consul last answered.", func(c *counts) Opt[int64] { return c.registered })
	t.own(now, "maintenance", "1 while somebody has the backend in maintenance mode in Consul.", func(c *counts) Opt[int64] { return c.maintenance })
	t.own(total, "register_errors_total", "Calls of Consul about the registration that failed.", func(c *counts) Opt[int64] { return c.registerErrors })
	t.own(total, "published_total", "Reports put into Consul.", func(c *counts) Opt[int64] { return c.published })
	t.own(total, "publish_errors_total", "Calls of Consul to publish that failed.", func(c *counts) Opt[int64] { return c.publishErrors })
	t.own(now, "publish_held_by_another", "1 while another session holds the key, so that nothing is published.", func(c *counts) Opt[int64] { return c.publishHeld })
}
