package admin

import "github.com/prometheus/client_golang/prometheus"

// loadMetrics are of what is told of endpoints besides answers to polls, and of what
// is told to agents.
func loadMetrics(t *table[serviceView]) {
	add := func(kind prometheus.ValueType, name, help string, on func(*Loads) bool, read func(*Loads) float64) {
		t.add(kind, name, help, func(v serviceView) float64 {
			if v.loads == nil || !on(v.loads) {
				return unknown
			}
			return read(v.loads)
		})
	}
	always := func(*Loads) bool { return true }
	published := func(l *Loads) bool { return l.Published }
	gauges := func(l *Loads) bool { return l.Gauges }

	add(counter, "declared_loads_total", "Load headers (endpoint-load-metrics) of answers that were read.", always,
		func(l *Loads) float64 { return float64(l.Declared) })
	add(counter, "declared_loads_refused_total", "Load headers of answers that were not believed.", always,
		func(l *Loads) float64 { return float64(l.DeclaredRefused) })
	add(gauge, "published_reports", "Endpoints whose agent's report is in Consul.", published,
		func(l *Loads) float64 { return float64(l.Reports) })
	add(counter, "published_reads_total", "Answers of Consul to reads of published reports.", published,
		func(l *Loads) float64 { return float64(l.Reads) })
	add(counter, "published_read_failures_total", "Reads of published reports that failed.", published,
		func(l *Loads) float64 { return float64(l.ReadFails) })
	add(counter, "published_reports_refused_total", "Published reports that were not believed.", published,
		func(l *Loads) float64 { return float64(l.PublishedRefused) })
	add(gauge, "agent_streams", "Agents that are told this sidecar's requests in flight as they change.", gauges,
		func(l *Loads) float64 { return float64(l.Streams) })
	add(counter, "agent_frames_total", "Figures sent on those streams.", gauges,
		func(l *Loads) float64 { return float64(l.Frames) })
	add(counter, "agent_streams_dropped_total", "Streams given up because their agent did not keep up.", gauges,
		func(l *Loads) float64 { return float64(l.StreamsEnded) })
}
