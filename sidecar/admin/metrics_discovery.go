package admin

import (
	"github.com/prometheus/client_golang/prometheus"

	"outrigger/discovery"
)

func discoveryMetrics(t *table[serviceView]) {
	add := func(kind prometheus.ValueType, name, help string, read func(*discovery.Status) float64) {
		t.add(kind, "discovery_"+name, help, func(v serviceView) float64 {
			if v.discovery == nil {
				return unknown
			}
			return read(v.discovery)
		})
	}
	// onceSeen is for what has no meaning before the first answer.
	onceSeen := func(read func(*discovery.Status) float64) func(*discovery.Status) float64 {
		return func(d *discovery.Status) float64 {
			if !d.Seen {
				return unknown
			}
			return read(d)
		}
	}
	type status = *discovery.Status
	add(gauge, "seen", "1 once discovery gave a first answer.", func(d status) float64 { return truth(d.Seen) })
	add(gauge, "current", "1 while the last read was answered and believed.", func(d status) float64 { return truth(d.Current) })
	add(gauge, "instances", "Instances in the set in use.", onceSeen(func(d status) float64 { return float64(d.Instances) }))
	add(gauge, "unusable_instances", "Registrations left out of the set: bad address, no port, double ID.",
		onceSeen(func(d status) float64 { return float64(d.Unusable) }))
	add(gauge, "index", "Consul's index of the last believed answer.", onceSeen(func(d status) float64 { return float64(d.Index) }))
	add(gauge, "age_seconds", "Time since the last believed answer. Grows to the wait of a blocking query with nothing amiss; see discovery_current.",
		onceSeen(func(d status) float64 { return d.Age.Seconds() }))
	add(gauge, "last_change_age_seconds", "Time since the set changed.", onceSeen(func(d status) float64 { return d.SinceChange.Seconds() }))
	add(gauge, "last_contact_seconds", "How far behind its leader the answering Consul server was.",
		onceSeen(func(d status) float64 { return d.LastContact.Seconds() }))
	add(gauge, "failing_seconds", "Time since reads began to fail, 0 when they do not.", func(d status) float64 { return d.FailingFor.Seconds() })
	add(gauge, "holding", "1 while an answer is not believed and the last good set kept.", func(d status) float64 { return truth(d.Holding != "") })
	add(gauge, "holding_seconds", "Time since the last good set is kept against an answer, 0 when it is not.",
		func(d status) float64 { return d.HoldingFor.Seconds() })
	add(counter, "answers_total", "Reads that were answered.", func(d status) float64 { return float64(d.AnswersTotal) })
	add(counter, "errors_total", "Reads that failed.", func(d status) float64 { return float64(d.ErrorsTotal) })
	add(counter, "held_answers_total", "Answers that were not believed.", func(d status) float64 { return float64(d.HeldTotal) })
	add(counter, "updates_total", "Changes of the set.", func(d status) float64 { return float64(d.UpdatesTotal) })
}

// doubtMetrics are of what is believed. Their labels are discovery's own lists.
func doubtMetrics(t *table[serviceView]) {
	by := func(kind prometheus.ValueType, label, name, help string, read func(*discovery.Status, func(float64, ...string))) {
		t.addBy(kind, label, "discovery_"+name, help, func(v serviceView, emit func(float64, ...string)) {
			if v.discovery != nil {
				read(v.discovery, emit)
			}
		})
	}
	add := func(name, help string, read func(*discovery.Status) float64) {
		by(gauge, "", name, help, func(d *discovery.Status, emit func(float64, ...string)) { emit(read(d)) })
	}
	by(gauge, "state", "state", "1 for what the set in use is worth.",
		func(d *discovery.Status, emit func(float64, ...string)) {
			for _, s := range discovery.States() {
				emit(truth(s == d.State), string(s))
			}
		})
	by(counter, "reason", "doubts_total", "How often answers began not to be believed, by why.",
		func(d *discovery.Status, emit func(float64, ...string)) {
			for _, code := range discovery.Doubts() {
				emit(float64(d.DoubtsTotal[code]), code)
			}
		})
	by(counter, "result", "probes_total", "Probes of instances that the registry dropped.",
		func(d *discovery.Status, emit func(float64, ...string)) {
			emit(float64(d.ProbesAlive), "answers")
			emit(float64(d.ProbesDead), "dead")
		})
	add("unlisted_instances", "Instances in use that the registry dropped, kept because they answer.",
		func(d *discovery.Status) float64 { return float64(d.Unlisted) })
	add("kept_seconds", "Time since instances that the registry dropped are kept, 0 when none are.",
		func(d *discovery.Status) float64 {
			if d.State != discovery.Kept {
				return 0
			}
			return d.StateFor.Seconds()
		})
}

// fallbackMetrics are of the sources behind the first one, by their name in the
// configuration.
func fallbackMetrics(t *table[serviceView]) {
	each := func(name, help string, read func(*discovery.Status) float64) {
		t.addBy(gauge, "fallback", "discovery_fallback_"+name, help, func(v serviceView, emit func(float64, ...string)) {
			if v.discovery == nil {
				return
			}
			for i := range v.discovery.Fallbacks {
				f := &v.discovery.Fallbacks[i]
				emit(read(&f.Status), f.Name)
			}
		})
	}
	each("instances", "Instances of a fallback source.", func(d *discovery.Status) float64 { return float64(d.Instances) })
	each("current", "1 while the last read of a fallback source was answered and believed.",
		func(d *discovery.Status) float64 { return truth(d.Current) })
}

func snapshotMetrics(t *table[serviceView]) {
	by := func(kind prometheus.ValueType, label, name, help string, read func(*Snapshots, func(float64, ...string))) {
		t.addBy(kind, label, "discovery_snapshot_"+name, help, func(v serviceView, emit func(float64, ...string)) {
			if v.snapshots != nil {
				read(v.snapshots, emit)
			}
		})
	}
	by(counter, "", "writes_total", "Snapshots of the set written to disk.",
		func(s *Snapshots, emit func(float64, ...string)) { emit(float64(s.Writes)) })
	t.add(gauge, "discovery_snapshot_age_seconds",
		"Time since what the snapshot on disk says was last known to be so; absent when there is none.",
		func(v serviceView) float64 {
			switch d, s := v.discovery, v.snapshots; {
			case d != nil && d.State == discovery.Snapshot:
				return d.SnapshotAge.Seconds() // what is served
			case s != nil && s.Age > 0:
				return s.Age.Seconds()
			}
			return unknown
		})
	by(counter, "op", "errors_total", "Snapshots that could not be written, or not be used.",
		func(s *Snapshots, emit func(float64, ...string)) {
			emit(float64(s.ReadErrors), "read")
			emit(float64(s.WriteErrors), "write")
		})
	by(gauge, "", "bytes", "Size of the newest snapshot; absent when there is none.",
		func(s *Snapshots, emit func(float64, ...string)) {
			if s.Bytes > 0 {
				emit(float64(s.Bytes))
			}
		})
}

// consulMetrics are of the connections to Consul that all services share.
func consulMetrics() []metric[Consul] {
	t := &table[Consul]{}
	t.add(gauge, "consul_connections_limit", "Reads that are at the Consul agent at once, each on a connection; absent on HTTP/2.",
		func(c Consul) float64 {
			if c.HTTP2 {
				return unknown
			}
			return float64(c.Limit)
		})
	t.add(gauge, "consul_connections_in_use", "Reads that are at the Consul agent.",
		func(c Consul) float64 { return float64(c.InUse) })
	t.add(gauge, "consul_reads_waiting", "Reads that wait for a connection.",
		func(c Consul) float64 { return float64(c.Waiting) })
	t.addBy(counter, "kind", "consul_busy_total",
		"Reads that the Consul agent turned away: for too many connections, or by its request limits.",
		func(c Consul, emit func(float64, ...string)) {
			emit(float64(c.BusyConnections), busyConnections)
			emit(float64(c.BusyRate), busyRate)
		})
	return t.rows
}
