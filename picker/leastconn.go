package picker

import "time"

// leastConn sends each request to the endpoint with the lowest in-flight per
// weight, exact over the whole set; ties are drawn in proportion to weight.
type leastConn struct{ rand Rand }

func (leastConn) Name() string { return "least_conn" }

func (p leastConn) Build(ready []*Endpoint) Picker {
	return &leastConnPicker{slots(ready), p.rand}
}

type leastConnPicker struct {
	slots []slot
	rand  Rand
}

func (p *leastConnPicker) Pick(r Request) (*Endpoint, bool) {
	return scanFree(p.slots, &r, p.rand)
}

func (*leastConnPicker) Mode(time.Duration) string { return "least in-flight per weight" }

// Explain implements Picker.
func (p *leastConnPicker) Explain(r Request) Explanation {
	return explain(p.Mode(r.Now), p.slots, &r, everyone)
}
