package simulate

import (
	"encoding/json"
	"time"
)

// document is what -json writes. All latencies are seconds; null is one beyond
// the time-out.
type document struct {
	Command           string    `json:"command"`
	Service           string    `json:"service"`
	Backends          string    `json:"backends"`
	CapacityPerSecond float64   `json:"capacity_per_second"`
	Sidecars          int       `json:"sidecars"`
	Work              string    `json:"work"`
	Neighbours        string    `json:"neighbours"`
	Surge             string    `json:"surge"`
	SilentShare       float64   `json:"silent_share"`
	IntervalSeconds   float64   `json:"interval_seconds"`
	TimeoutSeconds    float64   `json:"timeout_seconds"`
	WarmupSeconds     float64   `json:"warmup_seconds"`
	DurationSeconds   float64   `json:"duration_seconds"`
	Seed              uint64    `json:"seed"`
	Seeds             int       `json:"seeds"`
	Interrupted       bool      `json:"interrupted"`
	Cases             []docCase `json:"cases"`
	Advice            string    `json:"advice"`
}

type docCase struct {
	Load        float64  `json:"load"`
	Policy      string   `json:"policy"`
	MaxInFlight int      `json:"max_in_flight"`
	Median      docRun   `json:"median"`
	Runs        []docRun `json:"runs"`
}

type docRun struct {
	Seed        *uint64  `json:"seed,omitempty"`
	P50Seconds  *float64 `json:"p50_seconds"`
	P99Seconds  *float64 `json:"p99_seconds"`
	P999Seconds *float64 `json:"p999_seconds"`
	Goodput     float64  `json:"goodput"`
	Shed        float64  `json:"shed"`
	Failed      float64  `json:"failed"`
	Requests    int      `json:"requests,omitempty"`
}

// JSON writes all that was asked and measured, each run by itself.
func (q *Question) JSON(lines []Line, command string) ([]byte, error) {
	seconds := func(d time.Duration) float64 { return d.Seconds() }
	latency := func(s float64) *float64 {
		if s >= q.Timeout.Seconds() {
			return nil
		}
		return &s
	}
	doc := document{
		Command: command, Service: q.Service, Backends: groupsText(q.Backends), CapacityPerSecond: q.Capacity(),
		Sidecars: q.Sidecars, Work: q.Work.String(), Neighbours: q.Neighbours.String(), Surge: q.Surge.String(),
		SilentShare: q.Silent, IntervalSeconds: seconds(q.Interval), TimeoutSeconds: seconds(q.Timeout),
		WarmupSeconds: seconds(q.Warmup), DurationSeconds: seconds(q.Duration), Seed: q.Seed, Seeds: q.Seeds,
		Interrupted: !q.complete(lines), Cases: []docCase{}, Advice: q.Advice(lines),
	}
	for i := range lines {
		l := &lines[i]
		c := docCase{Load: l.Load, Policy: l.Policy, MaxInFlight: l.Limit, Median: docRun{
			P50Seconds: latency(l.median(p50)), P99Seconds: latency(l.median(p99)), P999Seconds: latency(l.median(p999)),
			Goodput: l.median(goodput), Shed: l.median(shed), Failed: l.median(failed),
		}}
		for _, o := range l.Runs {
			c.Runs = append(c.Runs, docRun{
				Seed: &o.Seed, P50Seconds: latency(p50(&o)), P99Seconds: latency(p99(&o)), P999Seconds: latency(p999(&o)),
				Goodput: o.Goodput, Shed: o.Shed, Failed: o.Failed, Requests: o.Sent,
			})
		}
		doc.Cases = append(doc.Cases, c)
	}
	text, err := json.MarshalIndent(doc, "", "  ")
	return append(text, '\n'), err
}

// complete reports whether every case was run with every seed.
func (q *Question) complete(lines []Line) bool {
	n := 0
	for i := range lines {
		n += len(lines[i].Runs)
	}
	return n == len(q.cases())*q.Seeds
}
