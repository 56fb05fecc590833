package balance

// Gauge tells others what this sidecar has in flight at one endpoint. The
// balancer keeps it beside the endpoint, as it does Conns.
type Gauge interface {
	// Changed is called after each change of the endpoint's in-flight, on the way
	// of a request and by any goroutine: it must neither block nor allocate.
	Changed()
	// Retire is called once, when the endpoint's instance has left; Changed is
	// still called as its leases end.
	Retire()
}

// retire tells those that are kept beside an endpoint that it has left.
func (m *member) retire() {
	if m.conns != nil {
		m.conns.Retire()
	}
	if m.gauge != nil {
		m.gauge.Retire()
	}
}

func (m *member) inFlightChanged() {
	if m.gauge != nil {
		m.gauge.Changed()
	}
}

// InFlight returns this sidecar's requests at the endpoint with this ID now.
func (b *Balancer) InFlight(id string) int64 {
	if m := b.snap.Load().byID[id]; m != nil {
		return int64(m.ep.InFlight())
	}
	return 0
}

// Successes counts the requests that the endpoint with this ID has answered; 0 for
// one that is not there.
func (b *Balancer) Successes(id string) uint64 {
	if m := b.snap.Load().byID[id]; m != nil {
		return m.ep.Totals().Successes
	}
	return 0
}
