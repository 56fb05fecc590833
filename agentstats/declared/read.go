package declared

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// maxBody bounds an answer: Prometheus pages of big apps reach some 100 KiB.
const maxBody = 1 << 20

// maxDepth bounds the path to a JSON field.
const maxDepth = 16

// reader reads the figures off an answer. One goroutine at a time uses it.
type reader interface {
	accept() string
	read(*http.Response) (Figures, error)
}

func newReader(c Config, env Env) (reader, error) {
	switch c.format() {
	case formatPrometheus:
		return &promReader{metric: []byte(c.Metric), labels: c.Labels, now: env.Now, maxAge: c.MaxAge}, nil
	case formatJSON:
		return &jsonReader{field: c.Field, path: strings.Split(c.Field, ".")}, nil
	}
	if env.ORCA == nil {
		return nil, errors.New("declared: there is no reader of ORCA's header")
	}
	return &orcaReader{named: c.Named, parse: env.ORCA}, nil
}

// body is a buffer that is used again for each answer.
type body struct{ buf bytes.Buffer }

// maxKept is the most memory that is kept between answers.
const maxKept = 256 << 10

func (b *body) readAll(from io.Reader) ([]byte, error) {
	if b.buf.Cap() > maxKept {
		b.buf = bytes.Buffer{}
	}
	b.buf.Reset()
	if _, err := b.buf.ReadFrom(io.LimitReader(from, maxBody+1)); err != nil {
		return nil, fmt.Errorf("the app's answer broke off: %w", err)
	}
	if b.buf.Len() > maxBody {
		return nil, fmt.Errorf("the app's answer is longer than %d bytes", maxBody)
	}
	return b.buf.Bytes(), nil
}

// inRange checks the requests in flight, however they were told.
func inRange(name string, v float64) (Figures, error) {
	if !(v >= 0 && v <= maxInFlight) { // also NaN
		return Figures{}, fmt.Errorf("%q is %v, outside 0 to 1e9", name, v)
	}
	return Figures{InFlight: v, Err: Absent}, nil
}

// jsonReader finds a number in a document.
type jsonReader struct {
	body
	field string
	path  []string
}

func (*jsonReader) accept() string { return "application/json" }

func (r *jsonReader) read(res *http.Response) (Figures, error) {
	doc, err := r.readAll(res.Body)
	if err != nil {
		return Figures{}, err
	}
	return r.find(doc)
}

func (r *jsonReader) find(doc []byte) (Figures, error) {
	at := json.RawMessage(doc)
	for i, name := range r.path {
		next, err := member(at, name)
		if err != nil {
			return Figures{}, fmt.Errorf("JSON field %q: %w", strings.Join(r.path[:i+1], "."), err)
		}
		at = next
	}
	var n float64
	if len(at) == 0 || at[0] != '-' && (at[0] < '0' || at[0] > '9') {
		return Figures{}, fmt.Errorf("JSON field %q is not a number", r.field)
	}
	if err := json.Unmarshal(at, &n); err != nil {
		return Figures{}, fmt.Errorf("JSON field %q: %w", r.field, err)
	}
	return inRange(r.field, n)
}

// member returns the member or, of an array, element of that name.
func member(doc json.RawMessage, name string) (json.RawMessage, error) {
	if doc = bytes.TrimLeft(doc, " \t\r\n"); len(doc) > 0 && doc[0] == '[' {
		var list []json.RawMessage
		if err := json.Unmarshal(doc, &list); err != nil {
			return nil, err
		}
		i, err := strconv.ParseUint(name, 10, 31)
		if err != nil || i >= uint64(len(list)) {
			return nil, fmt.Errorf("it is not in an array of %d", len(list))
		}
		return list[i], nil
	}
	var m map[string]json.RawMessage
	if err := json.Unmarshal(doc, &m); err != nil {
		return nil, err
	}
	v, ok := m[name]
	if !ok {
		return nil, errors.New("it is not there")
	}
	return v, nil
}

// promReader adds up the series of a gauge.
type promReader struct {
	body
	lines  bytes.Buffer
	metric []byte
	labels map[string]string
	now    func() time.Time
	maxAge time.Duration
}

func (*promReader) accept() string { return "text/plain;version=0.0.4" }

func (r *promReader) read(res *http.Response) (Figures, error) {
	page, err := r.readAll(res.Body)
	if err != nil {
		return Figures{}, err
	}
	return r.sum(page)
}

func (r *promReader) sum(page []byte) (Figures, error) {
	// The parser makes an object of every series, of which a page may have thousands: it
	// gets the lines that matter.
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(bytes.NewReader(r.filter(page)))
	if err != nil {
		return Figures{}, fmt.Errorf("the app's Prometheus page: %w", err)
	}
	family := families[string(r.metric)]
	if t := family.GetType(); family != nil && t != dto.MetricType_GAUGE && t != dto.MetricType_UNTYPED {
		return Figures{}, fmt.Errorf("metric %q is a %s, not a gauge", r.metric, strings.ToLower(t.String()))
	}
	sum, found := 0.0, 0
	for _, m := range family.GetMetric() {
		if !r.wants(m) {
			continue
		}
		if at := m.GetTimestampMs(); m.TimestampMs != nil && r.now().Sub(time.UnixMilli(at)) > r.maxAge {
			return Figures{}, fmt.Errorf("metric %q has a time stamp that is older than %v", r.metric, r.maxAge)
		}
		v := m.GetGauge().GetValue() + m.GetUntyped().GetValue() // one of them
		if _, err := inRange(string(r.metric), v); err != nil {
			return Figures{}, err
		}
		sum += v
		found++
	}
	if found == 0 {
		return Figures{}, fmt.Errorf("the app's Prometheus page has no series of %q with the labels", r.metric)
	}
	return inRange(string(r.metric), sum)
}

// wants reports whether the series has the labels.
func (r *promReader) wants(m *dto.Metric) bool {
	n := 0
	for _, l := range m.GetLabel() {
		if v, ok := r.labels[l.GetName()]; ok {
			if v != l.GetValue() {
				return false
			}
			n++
		}
	}
	return n == len(r.labels)
}

// filter returns the page's lines about the metric: its type and its series. A line
// break ends a line in all of the format: in values and comments it is escaped.
func (r *promReader) filter(page []byte) []byte {
	r.lines.Reset()
	for len(page) > 0 {
		line, rest, _ := bytes.Cut(page, []byte("\n"))
		page = rest
		l := bytes.TrimLeft(line, " \t")
		// "# TYPE name gauge", `name{a="b"} 1`, `{"name",a="b"} 1`
		quoted := len(l) > 0 && l[0] == '{'
		typed := false
		if rest, ok := bytes.CutPrefix(l, []byte("#")); ok {
			if l, typed = bytes.CutPrefix(bytes.TrimLeft(rest, " \t"), []byte("TYPE")); !typed {
				continue
			}
			l = bytes.TrimLeft(l, " \t")
			l = bytes.TrimPrefix(l, []byte(`"`))
		}
		if quoted && bytes.Contains(l, r.metric) || !quoted && r.begins(l) {
			r.lines.Write(bytes.TrimSuffix(line, []byte("\r")))
			r.lines.WriteByte('\n')
		}
	}
	return r.lines.Bytes()
}

// begins reports whether the line begins with the metric, and not with one of a longer
// name.
func (r *promReader) begins(l []byte) bool {
	rest, ok := bytes.CutPrefix(l, r.metric)
	if !ok || len(rest) == 0 {
		return false
	}
	switch rest[0] {
	case ' ', '\t', '{', '"':
		return true
	}
	return false
}

// orcaReader reads the header of an answer.
type orcaReader struct {
	body
	named string
	parse func(value []byte, named string) (inFlight, errShare float64, err error)
}

func (*orcaReader) accept() string { return "*/*" }

func (r *orcaReader) read(res *http.Response) (Figures, error) {
	if _, err := r.readAll(res.Body); err != nil { // so that the connection can be kept
		return Figures{}, err
	}
	value := res.Header.Get("Endpoint-Load-Metrics")
	if value == "" {
		return Figures{}, errors.New("the app's answer has no header endpoint-load-metrics")
	}
	inFlight, share, err := r.parse([]byte(value), r.named)
	if err != nil {
		return Figures{}, err
	}
	if inFlight < 0 && share < 0 {
		return Figures{}, fmt.Errorf("the app's header endpoint-load-metrics has neither named_metrics.%s nor errors", r.named)
	}
	return Figures{InFlight: inFlight, Err: share}, nil
}
