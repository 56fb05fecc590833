package picker

// apart is a Policy that remembers what it built last, and so needs one of its
// own for each set of endpoints.
type apart interface{ another() Policy }

func (p *resource) another() Policy      { return newResource(p.cfg, p.rand) }
func (p consistentHash) another() Policy { return newConsistentHash(p.cfg, p.rand) }

// at returns the policy for the endpoints at distance d.
func (p *nearest) at(d int) Policy {
	of, ok := p.Policy.(apart)
	if !ok {
		return p.Policy
	}
	if p.parts[d] == nil {
		p.parts[d] = of.another()
	}
	return p.parts[d]
}
