package sim

import (
	"time"

	"outrigger/picker"
)

// c3 is the replica ranking of Suresh and others, "C3: Cutting tail latency in
// cloud data stores via adaptive replica selection", NSDI 2015, section 3.1:
//
//	score = R - s + q^3*s,  q = 1 + own in flight * clients + Q
//
// with moving averages of the response time R, of the service time s and of the
// queue Q that come with each answer. Its rate control is left out: it spreads
// what a group of replicas cannot take over time, and here every backend serves
// everything.
type c3 struct {
	scan
	known []c3Figures // by backend
}

type c3Figures struct{ response, service, queue float64 }

// c3Weight of a new sample: the authors' Cassandra code.
const c3Weight = 0.9

func newC3(f *fleet, r picker.Rand) picker.Policy {
	p := &c3{known: make([]c3Figures, len(f.machines))}
	p.scan = scan{f: f, rand: r, rule: "C3's cubic score", score: p.rank}
	return p
}

func (p *c3) rank(s *seat, _ time.Duration) float64 {
	x := &p.known[s.backend]
	q := 1 + float64(s.InFlight())*float64(len(p.f.sidecars)) + x.queue
	return x.response - x.service + q*q*q*x.service
}

func (p *c3) Build(ready []*picker.Endpoint) picker.Picker {
	return &c3Picker{scanPicker{&p.scan, p.f.seats(ready)}, p}
}

type c3Picker struct {
	scanPicker
	p *c3
}

func (*c3Picker) Sent(*picker.Endpoint, time.Duration) float32 { return 0 }

func (*c3Picker) Reported(*picker.Endpoint, time.Duration) {}

// Done implements picker.Observer. What timed out counts with the time that it
// took so far and what its late answer would say of the queue.
func (k *c3Picker) Done(e *picker.Endpoint, _ time.Duration, _ float32, r picker.Result) {
	x, fb := &k.p.known[k.p.f.index[e.ID]], k.p.f.feedback
	was := *x
	*x = c3Figures{r.Age.Seconds(), fb.service, fb.inFlight}
	if was != (c3Figures{}) {
		x.response = c3Weight*x.response + (1-c3Weight)*was.response
		x.service = c3Weight*x.service + (1-c3Weight)*was.service
		x.queue = c3Weight*x.queue + (1-c3Weight)*was.queue
	}
}
