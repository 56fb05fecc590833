package sim

import (
	"math"
	"time"

	"outrigger/picker"
)

// Baselines returns the names that Config.Baseline accepts, in the order
// documents show them. None of them is for use in a sidecar.
func Baselines() []string {
	return []string{"oracle", "prequal", "c3", "grpc_wrr", "lowest_cpu"}
}

// baseline makes one sidecar's policy. What it learns it must keep in the
// policy: pickers are built anew with every change of the set.
func (f *fleet) baseline(sidecar int32, r picker.Rand) picker.Policy {
	switch f.cfg.Baseline {
	case "oracle":
		return &scan{f: f, rand: r, rule: "least expected time by what is true now", score: f.expected}
	case "prequal":
		return newPrequal(f, sidecar, r)
	case "c3":
		return newC3(f, r)
	case "grpc_wrr":
		return newWRR(f, r)
	default:
		return &scan{f: f, rand: r, rule: "lowest reported CPU", score: reportedCPU}
	}
}

// seat is an endpoint and its backend.
type seat struct {
	*picker.Endpoint
	backend int32
}

func (f *fleet) seats(ready []*picker.Endpoint) []seat {
	var s []seat
	for _, e := range ready {
		if e.Weight() > 0 {
			s = append(s, seat{e, f.index[e.ID]})
		}
	}
	return s
}

func (s *seat) takes(r *picker.Request) bool { return s.HasRoom() && !r.Tried.Has(s.Endpoint) }

// anyOf returns a random seat that takes the request.
func anyOf(seats []seat, r *picker.Request, rand picker.Rand) (*picker.Endpoint, bool) {
	if len(seats) == 0 {
		return nil, false
	}
	off := int(rand(uint32(len(seats))))
	for i := range seats {
		if s := &seats[(off+i)%len(seats)]; s.takes(r) {
			return s.Endpoint, true
		}
	}
	return nil, false
}

// scan is a policy that takes the lowest score of all, ties by chance.
type scan struct {
	f     *fleet
	rand  picker.Rand
	rule  string
	score func(s *seat, now time.Duration) float64
}

func (p *scan) Name() string { return p.f.cfg.Baseline }

func (p *scan) Build(ready []*picker.Endpoint) picker.Picker {
	return &scanPicker{p, p.f.seats(ready)}
}

type scanPicker struct {
	*scan
	seats []seat
}

func (p *scanPicker) Pick(r picker.Request) (*picker.Endpoint, bool) {
	var best *picker.Endpoint
	least, ties := math.Inf(1), uint32(0)
	for i := range p.seats {
		s := &p.seats[i]
		if !s.takes(&r) {
			continue
		}
		x := p.score(s, r.Now)
		switch {
		case best == nil || x < least:
			best, least, ties = s.Endpoint, x, 1
		case x == least:
			if ties++; p.rand(ties) == 0 {
				best = s.Endpoint
			}
		}
	}
	return best, best != nil
}

func (p *scanPicker) Mode(time.Duration) string { return p.rule }

func (p *scanPicker) Explain(r picker.Request) picker.Explanation {
	x := picker.Explanation{Rule: p.rule}
	for i := range p.seats {
		s := &p.seats[i]
		x.Candidates = append(x.Candidates, picker.Candidate{Endpoint: s.Endpoint, Share: 1, Score: p.score(s, r.Now)})
	}
	return x
}

// expected is the oracle's score: the mean time that one more request would
// take if nothing changed, by what is in the backend and on its way there and
// by what its neighbour leaves.
func (f *fleet) expected(s *seat, _ time.Duration) float64 {
	m := &f.machines[s.backend]
	if !f.listens(m) || m.Fault.Share > 0.5 && f.faulty(m) {
		return math.Inf(1)
	}
	work := f.cfg.Work.Mean.Seconds()
	alone := m.Wait.Seconds() + work*m.IO
	computing := len(m.jobs) + m.backlog.n + m.coming + 1
	if alone > 0 { // of those that have not computed yet, few will do so at one time
		computing = len(m.jobs) + 1
	}
	t := alone + work*(1-m.IO)*m.slow()/m.Speed*max(1, float64(computing)/m.room())
	if n := m.inFlight() + m.coming + 1; m.Limit > 0 && n > m.Limit {
		t += float64(n-m.Limit) / float64(m.Limit) * (alone + work/m.Speed)
	}
	return t
}

func reportedCPU(s *seat, _ time.Duration) float64 {
	if l := s.Load(); l != nil {
		return l.CPU
	}
	return 0
}
