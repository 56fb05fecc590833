package picker

// explain lists the endpoints of a policy that compares what they have in
// flight per weight; share is each one's chance to be compared.
func explain(rule string, s []slot, r *Request, share func(i int) float64) Explanation {
	x := Explanation{Rule: rule, Candidates: make([]Candidate, len(s))}
	for i, c := range s {
		n := c.ep.InFlight()
		x.Candidates[i] = Candidate{
			Endpoint: c.ep,
			Share:    share(i),
			Score:    float64(n) / float64(c.w),
			Terms:    c.terms(n),
			Out:      r.whyNot(c.ep),
		}
	}
	return x
}

// terms are in-flight and weight as Consul has it; a slow start takes a part of
// it away.
func (c *slot) terms(n int) []Term {
	t := []Term{{"in_flight", float64(n)}, {"weight", float64(c.ep.Weight())}}
	if p := c.ep.percent(); p < 100 {
		t = append(t, Term{"slow_start", float64(p) / 100})
	}
	return t
}

// byWeight returns each endpoint's share of all weights.
func byWeight(s []slot) func(i int) float64 {
	var sum float64
	for _, c := range s {
		sum += float64(c.w)
	}
	return func(i int) float64 { return float64(s[i].w) / sum }
}

// everyone is the share where all endpoints are compared.
func everyone(int) float64 { return 1 }

// whyNot says why e may not be given to this request, "" if it may.
func (r *Request) whyNot(e *Endpoint) string {
	switch {
	case r.Tried.Has(e):
		return "tried already"
	case !e.HasRoom():
		return "at its limit"
	}
	return ""
}
