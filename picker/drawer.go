package picker

// drawer draws places of a table in proportion to their share, in O(1).
type drawer struct {
	places []int32
	alias  alias
}

// newDrawer covers the endpoints of one state.
func newDrawer(all []rated, want state) drawer {
	var d drawer
	var shares []float64
	for i := range all {
		if c := &all[i]; c.state == want && c.share > 0 {
			d.places = append(d.places, int32(i))
			shares = append(shares, float64(c.share))
		}
	}
	if len(shares) > 0 {
		d.alias = newAliasOf(shares)
	}
	return d
}

func (d *drawer) empty() bool { return len(d.places) == 0 }

// draw returns a place; there must be one.
func (d *drawer) draw(r *dice) int {
	x := r.next()
	i := uint32(x >> 32 * uint64(len(d.places)) >> 32)
	if uint32(x)>>1 < d.alias.keep[i] {
		return int(d.places[i])
	}
	return int(d.places[d.alias.other[i]])
}
