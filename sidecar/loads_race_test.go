package sidecar

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"outrigger/agentstats"
	"outrigger/discovery"
	"outrigger/picker"
	"outrigger/sidecar/balance"
)

// Everything at once, with a real balancer: nothing is said of an endpoint twice
// at a time (the race detector would see it), and what is said last stands.
func TestLoadsAreConcurrent(t *testing.T) {
	env := balance.RealEnv(nil)
	b, err := balance.New(balance.DefaultConfig(), env)
	if err != nil {
		t.Fatal(err)
	}
	var telling [2]sync.Mutex
	s := newLoads(DefaultORCAConfig(), loadsEnv{
		Now: env.Now, Rand: rand.Uint32N, InFlight: b.InFlight, Log: hclog.NewNullLogger(),
		Set: func(id string, l *picker.Load) {
			m := &telling[id[0]-'a']
			if !m.TryLock() {
				t.Error("an endpoint is told of twice at once")
				return
			}
			defer m.Unlock()
			b.SetLoad(id, l)
		},
	})
	sets := [][]discovery.Instance{
		{{ID: "a", Address: "10.0.0.1", Port: 1, Weight: 1}, {ID: "b", Address: "10.0.0.1", Port: 2, Weight: 1}},
		{{ID: "a", Address: "10.0.0.1", Port: 1, Weight: 1}},
		{{ID: "b", Address: "10.0.0.1", Port: 3, Weight: 1}},
	}
	follow := func(set []discovery.Instance) {
		b.Update(set)
		s.follow(set)
	}
	follow(sets[0])
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			ep := picker.NewEndpoint(string(rune('a'+i%2)), fmt.Sprintf("10.0.0.1:%d", 1+i%3), 1, 0, nil)
			for n := range 300 {
				switch i / 2 {
				case 0:
					s.poll(ep.ID, agentstats.Sample{Report: full(float64(n)), At: env.Now(), Expiry: ms})
				case 1:
					s.publish(ep.ID, []byte(`{"version":1,"at":1,"cores":2,"in_flight":1}`), n%5 == 0)
				default:
					s.declare(ep, env.Now(), n, []byte(orcaAll))
				}
			}
		})
	}
	wg.Go(func() {
		for n := range 100 {
			follow(sets[n%len(sets)])
		}
	})
	wg.Wait()
	follow(sets[1])
	s.poll("a", agentstats.Sample{Report: full(42), At: env.Now(), Expiry: time.Minute})
	if l := b.Status().Endpoints[0].Load; l == nil || l.InFlight != 42 {
		t.Errorf("last told: %+v", l)
	}
}

// BenchmarkLoadsDeclare is what a header costs that is not throttled.
func BenchmarkLoadsDeclare(b *testing.B) {
	now := time.Second
	ep := picker.NewEndpoint("a", "10.0.0.1:80", 1, 0, nil)
	s := newLoads(DefaultORCAConfig(), loadsEnv{Now: func() time.Duration { return now }, Set: func(_ string, l *picker.Load) { ep.SetLoad(l) }})
	s.follow([]discovery.Instance{{ID: "a", Address: "10.0.0.1", Port: 80}})
	value := []byte(orcaAll)
	b.ReportAllocs()
	for b.Loop() {
		now += ms
		s.declare(ep, now, 1, value)
	}
}
