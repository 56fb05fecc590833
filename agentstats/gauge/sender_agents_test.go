package gauge

import (
	"math/rand/v2"
	"net"
	"net/http"
	"sync/atomic"
	"testing"
	"time"
)

// TestAgentStalls: an agent that no longer reads costs its stream, not the others'.
func TestAgentStalls(t *testing.T) {
	bubble(t, DefaultConfig(), func(t *testing.T, w *fleet) {
		b, _ := w.agent("b")
		l := w.net.listen("a")
		var held []net.Conn
		go func() { // answers and reads no more
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				held = append(held, c)
				http.ReadRequest(newReader(c))
				c.Write([]byte(switching))
			}
		}()
		fa, fb := newFlow(w.Sender, "a"), newFlow(w.Sender, "b")
		w.SetAgents(map[string]string{"a": "1", "b": "1"})
		after(spread)
		for range 10000 {
			fa.add(1)
			fb.add(1)
			after(ms)
		}
		after(100 * ms)
		w.sums(b, 10000, 1)
		if s := w.Stats(); s.Dropped < 3 || s.Dropped > 20 {
			t.Errorf("counted %+v", s)
		}
		if b.Stats().Expired != 0 {
			t.Error("the good one suffered")
		}
		l.Close()
		for _, c := range held {
			c.Close()
		}
	})
}

// TestAgentTalks: an agent that is none of ours ends the stream.
func TestAgentTalks(t *testing.T) {
	for name, answer := range map[string]string{
		"bytes after the 101": switching + "x",
		"another protocol":    "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n",
		"nonsense":            "\x00\x01\x02\r\n\r\n",
		"no end of headers":   "HTTP/1.1 101 Switching Protocols\r\nX: " + string(make([]byte, 5000)),
		"nothing":             "",
		"a report":            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}",
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, DefaultConfig(), func(t *testing.T, w *fleet) {
				l := w.net.listen("a")
				go func() {
					for {
						c, err := l.Accept()
						if err != nil {
							return
						}
						go func() {
							defer c.Close()
							http.ReadRequest(newReader(c))
							c.Write([]byte(answer))
							time.Sleep(time.Hour)
						}()
					}
				}()
				newFlow(w.Sender, "a").add(1)
				w.SetAgents(map[string]string{"a": "1"})
				after(time.Minute)
				if s := w.Stats(); s.Streams != 0 || s.Frames != 0 {
					t.Errorf("counted %+v", s)
				}
				if n := w.net.dialled("a"); n < 2 || n > 20 {
					t.Errorf("%d dials in a minute", n)
				}
				l.Close()
				after(time.Hour)
			})
		})
	}
}

// TestRandomWalk: whatever happens, an interval after the last change the sum is exact.
func TestRandomWalk(t *testing.T) {
	for seed := range uint64(20) {
		r := rand.New(rand.NewPCG(seed, 1))
		bubble(t, Config{Enabled: true, Interval: time.Duration(5+r.IntN(40)) * ms}, func(t *testing.T, w *fleet) {
			a, _ := w.agent("a")
			f := newFlow(w.Sender, "a")
			w.SetAgents(map[string]string{"a": "1"})
			after(time.Second)
			for range 300 {
				for range r.IntN(4) {
					f.add(int64(1 + r.IntN(3)))
				}
				for range r.IntN(4) {
					f.add(-min(f.n.Load(), int64(1+r.IntN(3))))
				}
				after(time.Duration(r.IntN(30)) * ms)
				if r.IntN(20) == 0 {
					after(time.Duration(r.IntN(8000)) * ms)
				}
				before := f.n.Load()
				after(w.cfg.Interval)
				w.sums(a, float64(before), 1)
			}
		})
	}
}

// TestRepeatsInBetween: whenever the sender looks for what stands still the figure is
// another, and whenever it looks at what changed it is the old one again.
func TestRepeatsInBetween(t *testing.T) {
	bubble(t, DefaultConfig(), func(t *testing.T, w *fleet) {
		a, _ := w.agent("a")
		f := newFlow(w.Sender, "a")
		w.SetAgents(map[string]string{"a": "1"})
		f.add(3)
		after(4 * sweep)
		after(sweep - 5*ms)
		for range 40 {
			f.add(1)
			after(10 * ms)
			f.add(-1)
			after(sweep - 10*ms)
			if _, _, age := a.Sum(time.Now()); age > Heartbeat+sweep {
				t.Fatalf("the gauge is %v old", age)
			}
		}
		w.sums(a, 3, 1)
	})
}

// TestChangeWhileRead: a change right after the figure was read is sent next.
func TestChangeWhileRead(t *testing.T) {
	bubble(t, DefaultConfig(), func(t *testing.T, w *fleet) {
		a, _ := w.agent("a")
		var n atomic.Int64
		var armed atomic.Bool
		var g *Gauge
		g = w.Gauge("a", func() int {
			v := n.Load()
			if armed.CompareAndSwap(true, false) {
				n.Add(1)
				g.Changed()
			}
			return int(v)
		})
		w.SetAgents(map[string]string{"a": "1"})
		after(spread + 30*ms)
		for i := range 50 {
			armed.Store(true)
			n.Add(1)
			g.Changed()
			after(2 * w.cfg.Interval)
			w.sums(a, float64(2*i+2), 1)
		}
	})
}
