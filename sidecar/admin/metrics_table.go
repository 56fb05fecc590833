package admin

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"outrigger/sidecar/balance"
)

// metric is one metric and how to read it from a T. read hands every value to
// emit; a value that is not known is negative and not exported. label is the one
// that it has besides the T's, "" for none.
type metric[T any] struct {
	desc  *prometheus.Desc
	kind  prometheus.ValueType
	label string
	read  func(from T, emit func(v float64, labels ...string))
}

// table collects the metrics of a T. base are the labels that all have.
type table[T any] struct {
	base []string
	rows []metric[T]
}

func (t *table[T]) add(kind prometheus.ValueType, name, help string, read func(T) float64) {
	t.addBy(kind, "", name, help, func(from T, emit func(float64, ...string)) { emit(read(from)) })
}

// addBy adds a metric with one more label.
func (t *table[T]) addBy(kind prometheus.ValueType, label, name, help string,
	read func(from T, emit func(float64, ...string))) {
	labels := t.base[:len(t.base):len(t.base)]
	if label != "" {
		labels = append(labels, label)
	}
	t.rows = append(t.rows, metric[T]{prometheus.NewDesc(prefix+name, help, labels, nil), kind, label, read})
}

// sample is one value. prometheus.NewConstMetric makes the same and labels of its
// own for each: a third of the time of a scrape of 10,000 endpoints.
type sample struct {
	desc   *prometheus.Desc
	kind   prometheus.ValueType
	v      float64
	labels []*dto.LabelPair // by name; shared and not to be changed
}

// Desc implements prometheus.Metric.
func (s *sample) Desc() *prometheus.Desc { return s.desc }

// Write implements prometheus.Metric.
func (s *sample) Write(out *dto.Metric) error {
	out.Label = s.labels
	switch s.kind {
	case prometheus.CounterValue:
		out.Counter = &dto.Counter{Value: &s.v}
	case prometheus.GaugeValue:
		out.Gauge = &dto.Gauge{Value: &s.v}
	default:
		return fmt.Errorf("%v: values of kind %d are not exported", s.desc, s.kind)
	}
	return nil
}

func pair(name, value string) *dto.LabelPair { return &dto.LabelPair{Name: &name, Value: &value} }

// export writes the rows' values, which have the labels of base besides their own.
func export[T any](out chan<- prometheus.Metric, rows []metric[T], from T, base []*dto.LabelPair) {
	for i := range rows {
		m := &rows[i]
		m.read(from, func(v float64, labels ...string) {
			switch {
			case !(v >= 0):
			case len(labels) == 0 && m.label == "":
				out <- &sample{m.desc, m.kind, v, base}
			case len(labels) == 1 && m.label != "":
				all := append(base[:len(base):len(base)], &dto.LabelPair{Name: &m.label, Value: &labels[0]})
				slices.SortFunc(all, func(a, b *dto.LabelPair) int { return strings.Compare(*a.Name, *b.Name) })
				out <- &sample{m.desc, m.kind, v, all}
			default:
				out <- prometheus.NewInvalidMetric(m.desc, fmt.Errorf("%d labels are given besides %v", len(labels), base))
			}
		})
	}
}

// labelled is an endpoint under its label.
type labelled struct {
	label  string
	status *balance.EndpointStatus
}

// byLabel returns the endpoints in the order of their labels: series have to be
// sorted in the end, and what comes sorted takes no time. Of those with one label
// (their IDs are not UTF-8) only the first is exported, for two cannot be.
func byLabel(endpoints []balance.EndpointStatus) []labelled {
	out := make([]labelled, len(endpoints))
	for i := range endpoints {
		out[i] = labelled{strings.ToValidUTF8(endpoints[i].Instance.ID, "\ufffd"), &endpoints[i]}
	}
	slices.SortStableFunc(out, func(a, b labelled) int { return cmp.Compare(a.label, b.label) })
	return slices.CompactFunc(out, func(a, b labelled) bool { return a.label == b.label })
}
