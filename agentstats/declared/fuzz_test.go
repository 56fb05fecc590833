package declared

import (
	"bytes"
	"encoding/json"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

func FuzzJSON(f *testing.F) {
	for _, s := range []string{`{"a":{"0":1}}`, `{"a":[1]}`, `{"a":[-1]}`, `[]`, `{"a":{"0":"1"}}`, `{"a":[1],"a":[2]}`, ``} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, doc []byte) {
		r := &jsonReader{field: "a.0", path: []string{"a", "0"}}
		got, err := r.find(doc)
		if err != nil {
			return
		}
		var v any
		if err := json.Unmarshal(doc, &v); err != nil {
			t.Fatalf("%q was read: %v", doc, err)
		}
		a := v.(map[string]any)["a"]
		var want any
		switch a := a.(type) {
		case []any:
			want = a[0]
		case map[string]any:
			want = a["0"]
		}
		if got.InFlight != want || !(got.InFlight >= 0 && got.InFlight <= maxInFlight) {
			t.Fatalf("%q: %v, want %v", doc, got.InFlight, want)
		}
	})
}

func FuzzPrometheus(f *testing.F) {
	for _, s := range []string{"busy 3\n", "# TYPE busy gauge\nbusy{a=\"b\\n\"} 1 123\n", "{\"busy\"} 1\n", "busy{a=\"b\"} NaN\nx 1", "# TYPE busy histogram\nbusy_sum 1\n"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, page []byte) {
		r := &promReader{metric: []byte("busy"), now: time.Now, maxAge: time.Hour}
		if got, err := r.sum(page); err == nil && !(got.InFlight >= 0 && got.InFlight <= maxInFlight) {
			t.Fatalf("%q: %+v", page, got)
		}
	})
}

func BenchmarkRead(b *testing.B) {
	reg, busy := registry(b)
	busy.WithLabelValues("web", "1").Set(4)
	rec := httptest.NewRecorder()
	promhttp.HandlerFor(reg, promhttp.HandlerOpts{}).ServeHTTP(rec, httptest.NewRequest("GET", "/", nil))
	page := rec.Body.Bytes()
	b.Run("page", func(b *testing.B) {
		r := &promReader{metric: []byte("app_busy"), now: time.Now}
		b.ReportAllocs()
		b.SetBytes(int64(len(page)))
		for b.Loop() {
			if _, err := r.sum(page); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("whole page", func(b *testing.B) { // what it would cost without the filter
		p := expfmt.NewTextParser(model.UTF8Validation)
		b.ReportAllocs()
		for b.Loop() {
			if _, err := p.TextToMetricFamilies(bytes.NewReader(page)); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("json", func(b *testing.B) {
		r := &jsonReader{field: "a.b.0.c", path: []string{"a", "b", "0", "c"}}
		b.ReportAllocs()
		for b.Loop() {
			if _, err := r.find([]byte(`{"x":[1,2,3],"a":{"b":[{"c":7}]}}`)); err != nil {
				b.Fatal(err)
			}
		}
	})
}
