package balance

import (
	"sync/atomic"
	"testing"
)

// BenchmarkDecided is what a record adds to a request: the ticket is counted
// anyway.
func BenchmarkDecided(b *testing.B) {
	r := newRig(b, nil)
	r.Update(instances(10))
	s, m, now := r.snap.Load(), r.member(0), r.Now()
	b.Run("serial", func(b *testing.B) {
		b.ReportAllocs()
		var k Key
		for b.Loop() {
			r.decided(r.granted.Add(1), s, m, &k, now, 0)
		}
	})
	b.Run("parallel", func(b *testing.B) {
		b.ReportAllocs()
		b.RunParallel(func(pb *testing.PB) {
			var k Key
			for pb.Next() {
				r.decided(r.granted.Add(1), s, m, &k, now, 0)
			}
		})
	})
	// What of it is the ticket, which is there without records too.
	var n atomic.Uint64
	b.Run("ticket alone/serial", func(b *testing.B) {
		for b.Loop() {
			n.Add(1)
		}
	})
	b.Run("ticket alone/parallel", func(b *testing.B) {
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				n.Add(1)
			}
		})
	})
}
