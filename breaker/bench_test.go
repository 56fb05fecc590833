package breaker

import (
	"math/rand/v2"
	"testing"
	"time"
)

func BenchmarkHealthy(b *testing.B) {
	start := time.Now()
	w := &world{clock: func() time.Duration { return time.Since(start) + time.Second }, rand: rand.Uint32N}
	e := w.endpoint(b, DefaultConfig())
	now := w.clock()
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			p, _ := e.Admit(now)
			e.Report(p, Good, now)
		}
	})
}

// BenchmarkDirty is a success within a window of a failure: gobreaker's share.
func BenchmarkDirty(b *testing.B) {
	start := time.Now()
	w := &world{clock: func() time.Duration { return time.Since(start) + time.Second }, rand: rand.Uint32N}
	e := w.endpoint(b, DefaultConfig())
	now := w.clock()
	e.send(Bad)
	b.ReportAllocs()
	for b.Loop() {
		p, _ := e.Admit(now)
		e.Report(p, Good, now)
	}
}

func BenchmarkMeterAdd(b *testing.B) {
	var m Meter
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			m.Add(time.Second)
		}
	})
}
