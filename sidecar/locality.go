package sidecar

import (
	"context"

	"outrigger/discovery"
)

// locate tells the services that prefer what is near where this sidecar is,
// once the Consul agent has said it.
func (sc *Sidecar) locate(ctx context.Context) {
	var ask []*service
	for _, s := range sc.services {
		if s.cfg.Balance.Locality.WantsSelf() {
			ask = append(ask, s)
		}
	}
	if len(ask) == 0 {
		return
	}
	discovery.Locate(ctx, sc.client, sc.cfg.Consul, sc.log.Named("discovery"), func(self discovery.Self) {
		for _, s := range ask {
			s.locate(self)
		}
	})
}

// locate tells the balancer where this sidecar is, and the operator if that is
// not enough to prefer what is near.
func (s *service) locate(self discovery.Self) {
	s.balancer.SetSelf(self)
	if key := s.cfg.Balance.Locality.NodeMeta(); key != "" && s.balancer.Here().Zone == "" {
		s.log.Warn("locality prefers the same zone, but this node's meta does not say which it is in: no endpoint counts as in it; set zone, or in zone_meta the key that has it",
			"node", self.Node, "zone_meta", key)
	}
}
