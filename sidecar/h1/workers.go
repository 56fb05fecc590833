package h1

import "sync/atomic"

// workers are goroutines that have served a connection and wait for another.
// Their stacks have grown already to what a request needs: with a connection
// for every request, growing a new one is a good part of its cost.
type workers struct {
	hand  chan *conn
	spare atomic.Int64
	done  chan struct{} // closed when the engine ends
}

// maxSpare bounds how many wait.
const maxSpare = 64

func (w *workers) init() { w.hand, w.done = make(chan *conn), make(chan struct{}) }

// run has a goroutine call c.run.
func (w *workers) run(c *conn) {
	select {
	case w.hand <- c:
	default:
		go w.work(c)
	}
}

func (w *workers) work(c *conn) {
	for {
		c.run()
		if w.spare.Add(1) > maxSpare {
			w.spare.Add(-1)
			return
		}
		select {
		case c = <-w.hand:
			w.spare.Add(-1)
		case <-w.done:
			return
		}
	}
}
