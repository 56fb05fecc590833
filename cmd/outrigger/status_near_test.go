package main

import (
	"strings"
	"testing"

	"outrigger/sidecar/admin"
)

const statusNearGolden = `
  affinity   8 pinned, 1 not at once where they belong
  here       node n1, zone unknown, datacenter dc1
  ENDPOINT  ADDRESS      WEIGHT     HEALTH   STATE  IN-FLIGHT  REQUESTS  FAILED  LATENCY  CPU  MEM  FIGURES  BREAKER  DISTANCE
  n1/web-1  10.0.0.1:80  10 at 40%  passing  ready  0          0         0       -        -    -    -        closed   node
  n2/web-2  10.0.0.2:80  10         passing  ready  0          0         0       -        -    -    -        closed   elsewhere
`

// TestStatusNear: what is near, starts slowly or is bound shows.
func TestStatusNear(t *testing.T) {
	t.Parallel()
	e := admin.EndpointDoc{ID: "n2/web-2", Address: "10.0.0.2:80", Weight: 10, Health: "passing", Ready: true,
		Distance: "elsewhere", Breaker: admin.EndpointBreakerDoc{State: "closed"}}
	slow := e
	slow.ID, slow.Address, slow.Distance, slow.SlowStart = "n1/web-1", "10.0.0.1:80", "node", number(.4)
	doc := &admin.StatusDoc{Services: []admin.ServiceDoc{{
		Name: "web", PinnedTotal: 8, PinMissedTotal: 1, Here: &admin.HereDoc{Node: "n1", Datacenter: "dc1"},
		Endpoints: []admin.EndpointDoc{slow, e},
	}}}
	if got := string(statusTable(doc, "x:1")); !strings.HasSuffix(got, statusNearGolden) {
		t.Errorf("got\n%s\nwant\n%s", got, statusNearGolden)
	}
}
