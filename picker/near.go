package picker

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// Near returns a policy that picks by p among the nearest endpoints (lowest
// Endpoint.Distance) and spills over to those farther away by load: when the
// endpoint picked is more than spill (at least 1) times as crowded as one
// farther away, and by a request more; or when no nearer one takes the request.
//
// How crowded an endpoint is: its requests in flight per weight, in units of
// the mean weight; where the agents of both endpoints tell, from everyone and
// per available core.
//
// names are what the distances are called, from 0 on.
func Near(p Policy, names []string, spill float64, rand Rand) Policy {
	return &nearest{p, names, spill, rand, map[int]Policy{}}
}

type nearest struct {
	Policy
	names []string
	spill float64
	rand  Rand
	parts map[int]Policy // by distance, see at
}

// Build implements Policy. Endpoints that are all at one distance make a picker
// as p's own is. Nearest first, for what a policy draws must not depend on the
// order of a map.
func (p *nearest) Build(ready []*Endpoint) Picker {
	k := &nearPicker{policy: p}
	groups := map[int][]*Endpoint{}
	var sum, n float64
	for _, e := range ready {
		if e.weight.Load() == 0 {
			continue
		}
		d := e.Distance()
		groups[d] = append(groups[d], e)
		sum, n = sum+e.counts(), n+1
	}
	distances := slices.Sorted(maps.Keys(groups))
	switch len(distances) {
	case 0:
		return p.Policy.Build(ready)
	case 1:
		return p.at(distances[0]).Build(ready)
	}
	k.unit = n / sum
	for _, d := range distances {
		part := nearPart{Picker: p.at(d).Build(groups[d]), distance: d, name: p.name(d), endpoints: groups[d]}
		part.vetoer, _ = part.Picker.(Vetoer)
		part.forecaster, _ = part.Picker.(Forecaster)
		k.parts = append(k.parts, part)
	}
	return k.exact()
}

func (p *nearest) name(d int) string {
	if d >= 0 && d < len(p.names) {
		return p.names[d]
	}
	return fmt.Sprint("distance ", d)
}

// nearPicker picks among groups of endpoints. At most two of their pickers are
// asked for a request, but for groups where nothing takes it.
type nearPicker struct {
	policy *nearest
	parts  []nearPart // nearest first
	unit   float64    // 1 / the mean weight
}

type nearPart struct {
	Picker
	vetoer     Vetoer // the same, if it has a veto
	forecaster Forecaster
	distance   int
	name       string
	endpoints  []*Endpoint
}

// Pick implements Picker.
func (p *nearPicker) Pick(r Request) (*Endpoint, bool) {
	var busy *Endpoint
	for i := range p.parts {
		e, ok := p.parts[i].Pick(r)
		switch {
		case !ok:
		case p.parts[i].tooLong(e, &r):
			if busy == nil {
				busy = e
			}
		default:
			return p.spillOver(e, i, &r), true
		}
	}
	return busy, busy != nil
}

// tooLong reports whether r would wait too long at e, the part's pick.
func (g *nearPart) tooLong(e *Endpoint, r *Request) bool {
	return r.MaxWait > 0 && g.forecaster != nil && g.forecaster.Wait(e, r.Now) > r.MaxWait
}

// spillOver returns e, picked in the part at, or one farther away in its stead.
// A look at two endpoints of each farther part tells where it is worth to pick.
func (p *nearPicker) spillOver(e *Endpoint, at int, r *Request) *Endpoint {
	cur, to := e, -1
	for i := at + 1; i < len(p.parts) && !p.quiet(cur, r.Now); i++ {
		if x := p.parts[i].glance(p, r); x != nil && p.spills(cur, x, r.Now) {
			cur, to = x, i
		}
	}
	if to >= 0 {
		if far, ok := p.parts[to].Pick(*r); ok && p.spills(e, far, r.Now) {
			return far
		}
	}
	return e
}

// glance returns the less crowded of two endpoints, nil if neither takes r.
func (g *nearPart) glance(p *nearPicker, r *Request) *Endpoint {
	var best *Endpoint
	for range 2 {
		e := g.endpoints[p.policy.rand(uint32(len(g.endpoints)))]
		if g.takes(e, r) && (best == nil || p.crowd(e) < p.crowd(best)) {
			best = e
		}
	}
	return best
}

// takes reports whether the part would pick e for r: one that it vetoes is idle
// for that, and would hide those behind it.
func (g *nearPart) takes(e *Endpoint, r *Request) bool {
	return r.takes(e) && (g.vetoer == nil || !g.vetoer.Vetoes(e, r.Now))
}

// counts is the weight that e counts with now.
func (e *Endpoint) counts() float64 { return float64(e.weight.Load()*e.percent()) / 100 }

// crowd is how crowded e is by this sidecar's own requests.
func (p *nearPicker) crowd(e *Endpoint) float64 {
	return float64(e.inFlight.Load()) / max(e.counts()*p.unit, 1e-9)
}

// crowdOf is how crowded e is by its agent's report l.
func (p *nearPicker) crowdOf(e *Endpoint, l *Load) float64 {
	return (float64(e.inFlight.Load()) + l.Others()) / max(e.counts()*p.unit*capacity(l), 1e-9)
}

// tells returns e's report if it can be believed and tells how crowded e is.
func tells(e *Endpoint, now time.Duration) *Load {
	if l := e.Load(); l != nil && now < l.Expires && l.InFlight >= 0 && l.Cores > 0 {
		return l
	}
	return nil
}

// spills reports whether a request goes to far rather than to e.
func (p *nearPicker) spills(e, far *Endpoint, now time.Duration) bool {
	if a, b := tells(e, now), tells(far, now); a != nil && b != nil {
		return p.crowdOf(e, a) > p.policy.spill*p.crowdOf(far, b)+1
	}
	return p.crowd(e) > p.policy.spill*p.crowd(far)+1
}

// quiet reports whether e spills over to nobody, however idle.
func (p *nearPicker) quiet(e *Endpoint, now time.Duration) bool {
	if l := tells(e, now); l != nil && p.crowdOf(e, l) > 1 {
		return false
	}
	return p.crowd(e) <= 1
}

// of returns the part that e is in, the nearest if it is in none.
func (p *nearPicker) of(e *Endpoint) Picker {
	d := e.Distance()
	for i := range p.parts {
		if p.parts[i].distance == d {
			return p.parts[i].Picker
		}
	}
	return p.parts[0].Picker
}

// Mode implements Picker.
func (p *nearPicker) Mode(now time.Duration) string {
	names := make([]string, len(p.parts))
	for i, g := range p.parts {
		names[i] = fmt.Sprintf("%s (%d)", g.name, len(g.endpoints))
	}
	return fmt.Sprintf("nearest first: %s; %s", strings.Join(names, ", then "), p.parts[0].Mode(now))
}

// Explain implements Picker. The rule is that of the group where the least
// crowded endpoint of each takes part; policies that draw may pick another.
func (p *nearPicker) Explain(r Request) Explanation {
	x := Explanation{}
	var used *Endpoint
	var nearer []*Endpoint // all that take r and are nearer than the group at hand
	for i := range p.parts {
		g := &p.parts[i]
		part := g.Explain(r)
		var least *Endpoint
		var takes []*Endpoint
		for _, c := range part.Candidates {
			c.Terms = append(slices.Clip(c.Terms), Term{"distance", float64(g.distance)})
			if c.Out == "" {
				takes = append(takes, c.Endpoint)
				if least == nil || p.crowd(c.Endpoint) < p.crowd(least) {
					least = c.Endpoint
				}
				if !p.reached(nearer, c.Endpoint, r.Now) {
					c.Out, c.Share = "farther than others that take the request", 0
				}
			}
			x.Candidates = append(x.Candidates, c)
		}
		nearer = append(nearer, takes...)
		switch {
		case least == nil:
		case used == nil:
			x.Rule = g.name + ", the nearest that takes the request: " + part.Rule
			used = least
		case p.spills(used, least, r.Now):
			x.Rule = fmt.Sprintf("%s, nearer ones are more than %g times as crowded, and by a request more: %s",
				g.name, p.policy.spill, part.Rule)
			used = least
		}
	}
	if x.Rule == "" {
		x.Rule = p.Mode(r.Now)
	}
	return x
}

// reached reports whether a pick among the nearer endpoints may spill over to far.
func (p *nearPicker) reached(nearer []*Endpoint, far *Endpoint, now time.Duration) bool {
	return len(nearer) == 0 || slices.ContainsFunc(nearer, func(e *Endpoint) bool { return p.spills(e, far, now) })
}
