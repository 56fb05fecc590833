package balance

import (
	"context"
	"fmt"
	"testing"
	"time"

	"outrigger/picker"
)

func BenchmarkAcquireDone(b *testing.B) {
	for _, policy := range picker.Names() {
		for _, n := range []int{10, 100} {
			r := newRig(b, func(c *Config) { c.Picker.Policy = policy })
			r.Update(instances(n))
			ctx := context.Background()
			once := func() {
				l, err := r.Acquire(ctx, Key{})
				if err != nil {
					b.Fatal(err)
				}
				l.Done(ok)
			}
			b.Run(fmt.Sprintf("%s/%d/serial", policy, n), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					once()
				}
			})
			b.Run(fmt.Sprintf("%s/%d/parallel", policy, n), func(b *testing.B) {
				b.ReportAllocs()
				b.RunParallel(func(pb *testing.PB) {
					for pb.Next() {
						once()
					}
				})
			})
		}
	}
}

// BenchmarkQueued has more requests than slots, so that most of them wait.
func BenchmarkQueued(b *testing.B) {
	r := newRig(b, limit(1, 10000, time.Minute))
	r.Update(instances(1))
	ctx := context.Background()
	b.SetParallelism(8)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			l, err := r.Acquire(ctx, Key{})
			if err != nil {
				b.Error(err)
				return
			}
			l.Done(ok)
		}
	})
}
