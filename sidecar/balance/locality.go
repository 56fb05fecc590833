package balance

import (
	"fmt"
	"slices"
	"strings"

	"outrigger/discovery"
)

// LocalityConfig prefers endpoints near this sidecar.
type LocalityConfig struct {
	// Prefer lists what makes an endpoint near, the nearest first: of Places.
	// Empty: nothing is preferred.
	Prefer []string
	// Node, Zone and Datacenter are where this sidecar is; "": what Consul's
	// agent says.
	Node, Zone, Datacenter string
	// ZoneMeta is the key of a node's meta that holds its zone.
	ZoneMeta string
	// Spill is how much more crowded the near endpoints may be than those
	// farther away before requests spill over, 1 to 100. See picker.Near.
	Spill float64
}

// Places lists what LocalityConfig.Prefer may hold.
func Places() []string { return []string{"node", "zone", "datacenter"} }

func defaultLocality() LocalityConfig {
	return LocalityConfig{
		// None: where sidecars are not spread as backends are, it makes load uneven.
		Prefer:   nil,
		ZoneMeta: "zone",
		Spill:    2, // half as much in flight is a visibly shorter wait, worth a longer way
	}
}

func (c *LocalityConfig) validate() error {
	for i, p := range c.Prefer {
		if !slices.Contains(Places(), p) {
			return fmt.Errorf("prefer has %.40q, allowed are %s", p, strings.Join(Places(), ", "))
		}
		if slices.Contains(c.Prefer[:i], p) {
			return fmt.Errorf("prefer has %q twice", p)
		}
	}
	for _, x := range []struct{ name, text string }{
		{"node", c.Node}, {"zone", c.Zone}, {"datacenter", c.Datacenter}, {"zone_meta", c.ZoneMeta},
	} {
		if len(x.text) > 253 || strings.ContainsFunc(x.text, func(r rune) bool { return r < ' ' || r == 0x7f }) {
			return fmt.Errorf("%s %.80q: allowed are up to 253 bytes of printable characters", x.name, x.text)
		}
	}
	if slices.Contains(c.Prefer, "zone") && c.Zone == "" && c.ZoneMeta == "" {
		return fmt.Errorf("zone_meta is empty: prefer has %q, so it must name a key of the nodes' meta", "zone")
	}
	if !(c.Spill >= 1 && c.Spill <= 100) {
		return fmt.Errorf("spill is %v, allowed are 1 to 100", c.Spill)
	}
	return nil
}

func (c *LocalityConfig) here() Place { return Place{c.Node, c.Zone, c.Datacenter} }

// names are what distances are called.
func (c *LocalityConfig) names() []string { return append(slices.Clone(c.Prefer), "elsewhere") }

// WantsSelf reports whether SetSelf would tell anything that the configuration
// leaves open.
func (c *LocalityConfig) WantsSelf() bool {
	h := c.here()
	return slices.Contains(c.Prefer, "node") && h.Node == "" ||
		slices.Contains(c.Prefer, "zone") && h.Zone == "" ||
		len(c.Prefer) > 0 && h.Datacenter == ""
}

// NodeMeta is the key of the instances' node meta that distances need, "" for
// none: what discovery is to be asked for.
func (c *LocalityConfig) NodeMeta() string {
	if slices.Contains(c.Prefer, "zone") {
		return c.ZoneMeta
	}
	return ""
}

// SetSelf tells where this sidecar is. What the configuration says goes first.
func (b *Balancer) SetSelf(self discovery.Self) {
	c := &b.cfg.Locality
	b.mu.Lock()
	b.here = c.here()
	for _, x := range []struct {
		to   *string
		from string
	}{{&b.here.Node, self.Node}, {&b.here.Zone, self.Meta[c.ZoneMeta]}, {&b.here.Datacenter, self.Datacenter}} {
		if *x.to == "" {
			*x.to = x.from
		}
	}
	for _, m := range b.order {
		m.ep.SetDistance(b.distance(m.inst.Load()))
	}
	b.mu.Unlock()
	b.post()
}

// Place is where something runs; "" is unknown.
type Place struct{ Node, Zone, Datacenter string }

// Here returns where this sidecar is, as far as it knows.
func (b *Balancer) Here() Place {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.here
}

// distance returns the index of the first of Prefer that the instance shares
// with this sidecar, their number if it shares none. Nodes and zones of other
// datacenters are others, whatever they are called. The caller holds b.mu.
func (b *Balancer) distance(inst *discovery.Instance) int {
	return b.cfg.Locality.distance(b.here, inst)
}

func (c *LocalityConfig) distance(h Place, inst *discovery.Instance) int {
	prefer := c.Prefer
	near := h.Datacenter == "" || inst.Datacenter == "" || inst.Datacenter == h.Datacenter
	for i, p := range prefer {
		switch {
		case !near:
		case p == "node" && h.Node != "" && inst.Node == h.Node,
			p == "zone" && h.Zone != "" && inst.Zone == h.Zone,
			p == "datacenter" && h.Datacenter != "" && inst.Datacenter == h.Datacenter:
			return i
		}
	}
	return len(prefer)
}

// align counts distances inside each tier of sources where several are used at
// once: the nearest of each stand side by side, or a fallback that is near would
// get everything and one that is far nothing, whatever their shares. The caller
// holds b.mu.
func (b *Balancer) align(ready []*member) {
	if !b.failover.any || len(b.cfg.Locality.Prefer) == 0 {
		return
	}
	nearest := map[int]int{} // by tier
	for _, m := range ready {
		inst := m.inst.Load()
		d := b.distance(inst)
		if was, ok := nearest[inst.Tier]; !ok || d < was {
			nearest[inst.Tier] = d
		}
	}
	for _, m := range ready {
		inst := m.inst.Load()
		d := b.distance(inst)
		if len(nearest) > 1 {
			d -= nearest[inst.Tier]
		}
		m.ep.SetDistance(d)
	}
}

// distanceName is what status calls the distance of an instance.
func (c *LocalityConfig) distanceName(here *Place, inst *discovery.Instance) string {
	if here == nil {
		return ""
	}
	return c.names()[c.distance(*here, inst)]
}
