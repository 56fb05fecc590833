package gauge

import (
	"fmt"
	"sync/atomic"
	"testing"
	"time"
)

// BenchmarkChanged is what a request pays, twice.
func BenchmarkChanged(b *testing.B) {
	for _, c := range []struct {
		name string
		set  func(g *Gauge)
	}{
		{"no_stream", func(*Gauge) {}},
		{"pending", func(g *Gauge) { g.link.Store(&link{}); g.queued.Store(true) }},
	} {
		b.Run(c.name, func(b *testing.B) {
			g := newFlow(NewSender(DefaultConfig(), SenderEnv{}), "a").Gauge
			c.set(g)
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					g.Changed()
				}
			})
		})
	}
	b.Run("first", func(b *testing.B) { // of an interval: the stack is empty each time
		s := NewSender(DefaultConfig(), SenderEnv{})
		g := newFlow(s, "a").Gauge
		g.link.Store(&link{})
		b.ReportAllocs()
		for b.Loop() {
			g.Changed()
			s.changed.Store(nil)
			g.queued.Store(false)
		}
	})
}

// BenchmarkSum is what an ask pays, with so many streams above 0.
func BenchmarkSum(b *testing.B) {
	for _, n := range []int{10, 1000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			board := NewBoard(DefaultBoardConfig(), BoardEnv{})
			for range n {
				s := &stream{}
				board.enter(s)
				board.put(s, 3, time.Now())
			}
			now := time.Now()
			b.ReportAllocs()
			for b.Loop() {
				board.Sum(now)
			}
		})
	}
}

// BenchmarkFrame is one frame over loopback, written and, eight at a time, read in this
// process.
func BenchmarkFrame(b *testing.B) {
	a := tcpAgent(b, BoardEnv{})
	s := NewSender(DefaultConfig(), SenderEnv{Dial: to(a.addr)})
	l, err := s.open(b.Context(), "a")
	if err != nil {
		b.Fatal(err)
	}
	defer l.close()
	g := &Gauge{s: s, id: "a"}
	var n atomic.Int64
	g.inFlight = func() int { return int(n.Load()) }
	g.link.Store(l)
	b.ReportAllocs()
	for b.Loop() {
		n.Add(1)
		s.send(g, 0, true)
		if n.Load()%8 == 0 {
			a.total()
		}
	}
}
