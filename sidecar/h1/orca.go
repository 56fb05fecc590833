package h1

import (
	"time"

	"outrigger/picker"
)

// loadHeader is the header in which a backend may tell its load (package
// agentstats/orca). It passes to the client as any other does, for this sidecar
// need not be the last that wants to know; Envoy passes it on as well.
const loadHeader = "endpoint-load-metrics"

// loadEvery is the least time between two such headers of one endpoint that are
// looked at: far below the age at which figures change picks, and it bounds what
// a busy endpoint costs.
const loadEvery = 10 * time.Millisecond

// LoadFunc is told the untrusted value of the header endpoint-load-metrics of an
// answer whose head came from the endpoint at now, on the engine's clock. own is
// what this sidecar then had in flight there, this request included. It is
// called by many goroutines, for one endpoint at most every 10 ms, and before
// the answer goes on: it must be quick. value is valid only during the call.
type LoadFunc func(ep *picker.Endpoint, now time.Duration, own int, value []byte)

// told hands over what the answer in c.res, which came over u, says of its
// endpoint's load. Of several such headers the first counts, as with Envoy.
func (c *conn) told(u *upstream) {
	for i := range c.res.Headers {
		f := &c.res.Headers[i]
		if len(f.Name) != len(loadHeader) || !fold(f.Name, loadHeader) {
			continue
		}
		last := u.pool.toldAt.Load()
		if (last == 0 || int64(c.now)-last >= int64(loadEvery)) && u.pool.toldAt.CompareAndSwap(last, int64(c.now)) {
			ep := c.lease.Endpoint()
			c.s.load(ep, c.now, ep.InFlight(), f.Value)
		}
		return
	}
}
