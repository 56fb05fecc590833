package discovery

import (
	"fmt"
	"strings"

	"github.com/hashicorp/consul/api"
)

// aggregate returns the worst of the checks; maintenance is worst, as in
// consul/api's AggregatedStatus. Unlike that, an unknown state is critical: what
// can't be read is not passing.
func aggregate(checks api.HealthChecks) Health {
	worst := Passing
	for _, c := range checks {
		if c == nil {
			continue
		}
		if c.CheckID == api.NodeMaint || strings.HasPrefix(c.CheckID, api.ServiceMaintPrefix) {
			return Maintenance
		}
		switch c.Status {
		case api.HealthPassing:
		case api.HealthWarning:
			worst = max(worst, Warning)
		default:
			worst = Critical
		}
	}
	return worst
}

// maxWeight is Consul's own bound.
const maxWeight = 65535

// effectiveWeight returns the weight for h, and a remark when it had to be
// changed.
func effectiveWeight(w api.AgentWeights, h Health) (int, string) {
	if w == (api.AgentWeights{}) {
		// Consul refuses a passing weight of 0 and itself reads both 0 as not
		// given.
		w = api.AgentWeights{Passing: 1, Warning: 1}
	}
	n := w.Passing
	switch h {
	case Warning:
		n = w.Warning
	case Maintenance:
		return 0, ""
	}
	switch {
	case n < 0:
		return 0, fmt.Sprintf("weight %d taken as 0", n)
	case n > maxWeight:
		return maxWeight, fmt.Sprintf("weight %d taken as %d", n, maxWeight)
	}
	return n, ""
}
