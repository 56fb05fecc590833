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
			s.balancer.SetSelf(self)
		}
	})
}
