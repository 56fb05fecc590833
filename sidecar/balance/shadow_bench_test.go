package balance

import (
	"testing"

	"outrigger/picker"
)

// BenchmarkShadow is what a shadow adds to a request.
func BenchmarkShadow(b *testing.B) {
	for _, shadow := range append([]string{""}, picker.Names()...) {
		if shadow == "random" {
			continue // the policy
		}
		r := newRig(b, func(c *Config) { c.Picker.Policy, c.Shadow.Policy = "random", shadow })
		r.Update(instances(100))
		name := shadow
		if name == "" {
			name = "none"
		}
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				l, err := r.TryAcquire(Key{Hash: 7})
				if err != nil {
					b.Fatal(err)
				}
				l.Done(ok)
			}
		})
	}
}
