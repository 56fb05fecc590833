package admin

import (
	"strconv"

	"outrigger/discovery"
	"outrigger/sidecar/balance"
)

func describeDiscovery(d *discovery.Status) *DiscoveryDoc {
	doc := &DiscoveryDoc{
		State: string(d.State), StateForSeconds: positive(d.StateFor), Source: d.Source, Datacenter: d.Datacenter,
		Seen: d.Seen, Current: d.Current, Instances: d.Instances, Unlisted: d.Unlisted, Unusable: d.Unusable,
		Index: d.Index, LastError: d.LastError, FailingForSeconds: positive(d.FailingFor),
		Holding: d.Holding, HoldingForSeconds: positive(d.HoldingFor), Doubt: d.Doubt,
		AnswersTotal: d.AnswersTotal, ErrorsTotal: d.ErrorsTotal,
		HeldTotal: d.HeldTotal, UpdatesTotal: d.UpdatesTotal,
		ProbesAnsweredTotal: d.ProbesAlive, ProbesDeadTotal: d.ProbesDead, DoubtsTotal: map[string]uint64{},
	}
	for _, code := range discovery.Doubts() {
		doc.DoubtsTotal[code] = d.DoubtsTotal[code]
	}
	if d.LastError != "" {
		doc.LastErrorAgeSeconds = known(d.LastErrorAge.Seconds())
	}
	if d.Seen {
		doc.AgeSeconds = known(d.Age.Seconds())
		doc.SinceChangeSeconds = known(d.SinceChange.Seconds())
		doc.LastContactSeconds = known(d.LastContact.Seconds())
	}
	if d.State == discovery.Snapshot {
		doc.SnapshotAgeSeconds = known(d.SnapshotAge.Seconds())
	}
	for i := range d.Fallbacks {
		f := &d.Fallbacks[i]
		doc.Fallbacks = append(doc.Fallbacks, FallbackDoc{f.Name, *describeDiscovery(&f.Status)})
	}
	return doc
}

// sources adds what discovery says, and returns the names of its tiers.
func (sv *Service) sources(doc *ServiceDoc, st *balance.Status) []string {
	if sv.Discovery == nil {
		return nil
	}
	d := sv.Discovery()
	doc.Discovery = describeDiscovery(&d)
	doc.Discovery.Snapshot = sv.snapshot()
	names := tiers(&d)
	if len(names) > 1 {
		doc.Tier, doc.TierForSeconds = tierName(names, st.Tier), positive(st.TierFor)
	}
	return names
}

// tiers names the tiers of a service: its primary source and its fallbacks.
func tiers(d *discovery.Status) []string {
	names := []string{"primary"}
	for i := range d.Fallbacks {
		names = append(names, d.Fallbacks[i].Name)
	}
	return names
}

// tierName is that of tier n, also when it is one that discovery does not know yet
// or any more.
func tierName(names []string, n int) string {
	if n < 0 || n >= len(names) {
		return "fallback " + strconv.Itoa(n)
	}
	return names[n]
}

func (sv *Service) snapshot() *SnapshotDoc {
	if sv.Snapshots == nil {
		return nil
	}
	s := sv.Snapshots()
	return &SnapshotDoc{s.Writes, s.ReadErrors, s.WriteErrors, s.Bytes, positive(s.Age)}
}

func describeConsul(c Consul) *ConsulDoc {
	doc := &ConsulDoc{
		ReadsInUse: c.InUse, ReadsWaiting: c.Waiting, Readers: c.Readers, HTTP2: c.HTTP2,
		LongestWaitSeconds: positive(c.LongestWait),
		BusyTotal:          map[string]uint64{busyConnections: c.BusyConnections, busyRate: c.BusyRate},
	}
	if !c.HTTP2 {
		doc.ReadsLimit = &c.Limit
	}
	return doc
}

// What the Consul agent turns reads away for.
const (
	busyConnections = "connections"
	busyRate        = "rate"
)
