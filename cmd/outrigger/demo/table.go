package demo

import (
	"fmt"
	"strings"
	"time"

	"outrigger/sidecar/admin"
)

// endpoint finds a backend's row in the sidecar's status.
func endpoint(doc *admin.ServiceDoc, s *server) *admin.EndpointDoc {
	for i := range doc.Endpoints {
		if strings.HasSuffix(doc.Endpoints[i].Address, fmt.Sprintf(":%d", s.port)) {
			return &doc.Endpoints[i]
		}
	}
	return nil
}

// tableOf is a heading and a line for each backend. before holds the requests
// of the last time, and totals those of now.
func tableOf(servers []*server, doc *admin.ServiceDoc, before map[string]uint64, since time.Duration) (rows []string, totals map[string]uint64) {
	totals = map[string]uint64{}
	rows = append(rows, fmt.Sprintf("%-8s %10s %8s %10s %6s %11s %10s  %s", "backend", "requests", "per s", "in-flight", "cpu", "cores free", "latency", "state"))
	for _, s := range servers {
		e := endpoint(doc, s)
		if e == nil {
			rows = append(rows, fmt.Sprintf("%-8s not in Consul", s.name))
			continue
		}
		totals[s.name] = e.RequestsTotal
		rate := "-"
		if b, ok := before[s.name]; ok && since > 0 && e.RequestsTotal >= b {
			rate = fmt.Sprintf("%.0f", float64(e.RequestsTotal-b)/since.Seconds())
		}
		rows = append(rows, fmt.Sprintf("%-8s %10d %8s %10d %6s %11s %10s  %s",
			s.name, e.RequestsTotal, rate, e.InFlight, cpuText(e), freeText(e), latencyText(e), stateText(e)))
	}
	return rows, totals
}

func cpuText(e *admin.EndpointDoc) string {
	if e.Figures == nil || e.Figures.CPU == nil {
		return "-"
	}
	return fmt.Sprintf("%.0f%%", 100**e.Figures.CPU)
}

// freeText is what a backend could use now: its own use and what is idle.
func freeText(e *admin.EndpointDoc) string {
	if e.Figures == nil || e.Figures.AvailableCores == nil {
		return "-"
	}
	return fmt.Sprintf("%.2f", *e.Figures.AvailableCores)
}

func latencyText(e *admin.EndpointDoc) string {
	if e.LatencySeconds == nil {
		return "-"
	}
	return fmt.Sprintf("%.1fms", 1000**e.LatencySeconds)
}

func stateText(e *admin.EndpointDoc) string {
	if e.Ready {
		return "ready"
	}
	return e.Why
}
