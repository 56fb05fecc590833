package sidecar

import (
	"github.com/hashicorp/go-hclog"

	"outrigger/discovery"
)

// newSource returns where the service learns its instances from. s has its checks,
// and gets its balancer before the source is watched.
func (sc *Sidecar) newSource(s *service, log hclog.Logger) discovery.Source {
	env := discovery.Env{
		Logger: log, Probe: s.checks.probe,
		Successes: func(id string) uint64 { return s.balancer.Successes(id) },
	}
	return discovery.NewConsul(sc.client, s.cfg.Discover, sc.cfg.Consul, env)
}
