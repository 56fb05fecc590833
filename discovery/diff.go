package discovery

import (
	"maps"
	"slices"

	"github.com/hashicorp/consul/api"
)

// delta counts how two sets differ.
type delta struct{ Added, Removed, Changed int }

func (d delta) none() bool { return d == delta{} }

// diff compares two sets, each ordered by ID with each ID once.
func diff(old, new []Instance) (d delta) {
	i, j := 0, 0
	for i < len(old) && j < len(new) {
		switch a, b := &old[i], &new[j]; {
		case a.ID < b.ID:
			d.Removed++
			i++
		case a.ID > b.ID:
			d.Added++
			j++
		default:
			if !same(a, b) {
				d.Changed++
			}
			i++
			j++
		}
	}
	d.Removed += len(old) - i
	d.Added += len(new) - j
	return d
}

func same(a, b *Instance) bool {
	return a.ID == b.ID && a.Service == b.Service && a.Node == b.Node && a.Datacenter == b.Datacenter &&
		a.Address == b.Address && a.Port == b.Port && a.Weight == b.Weight && a.Health == b.Health &&
		a.Backup == b.Backup && a.Zone == b.Zone && a.Unlisted == b.Unlisted && a.Tier == b.Tier &&
		slices.Equal(a.Tags, b.Tags) && maps.Equal(a.Meta, b.Meta)
}

// byAnswer orders a set as the answer it came from, nearest first.
func byAnswer(set []Instance, entries []*api.ServiceEntry) []Instance {
	rank := make(map[string]int, len(entries))
	for i, e := range entries {
		if e == nil || e.Node == nil || e.Service == nil {
			continue
		}
		id := instanceID(e.Node.Node, e.Service.ID)
		if _, ok := rank[id]; !ok {
			rank[id] = i
		}
	}
	set = slices.Clone(set)
	slices.SortFunc(set, func(a, b Instance) int { return rank[a.ID] - rank[b.ID] })
	return set
}
