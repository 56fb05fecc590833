package picker

import (
	"fmt"
	"math/rand/v2"
	"testing"
)

// BenchmarkHashPick picks for another key each time, as a cache does not like
// it: BenchmarkPick has no key at all.
func BenchmarkHashPick(b *testing.B) {
	for _, n := range []int{10, 100, 10000} {
		for _, of := range []struct {
			name string
			keys uint64
		}{{"one key", 1}, {"keys", 1 << 40}} {
			k := policy(b, "consistent_hash", rand.Uint32N).Build(busyFleet(n))
			b.Run(fmt.Sprintf("%d/%s", n, of.name), func(b *testing.B) {
				b.ReportAllocs()
				key := uint64(0)
				for b.Loop() {
					key++
					k.Pick(Request{Now: now, Key: 1 + key%of.keys})
				}
			})
			b.Run(fmt.Sprintf("%d/%s/parallel", n, of.name), func(b *testing.B) {
				b.ReportAllocs()
				b.RunParallel(func(pb *testing.PB) {
					key := rand.Uint64()
					for pb.Next() {
						key++
						k.Pick(Request{Now: now, Key: 1 + key%of.keys})
					}
				})
			})
		}
	}
}

// BenchmarkHashRecount sums up what is in flight.
func BenchmarkHashRecount(b *testing.B) {
	k := policy(b, "consistent_hash", rand.Uint32N).Build(busyFleet(10000)).(Refresher)
	for b.Loop() {
		k.Refresh(now)
	}
}
