package picker

import (
	"sync"
	"testing"
	"time"
)

// TestGhostsLiveFromSending: a request counts until a second after it was sent,
// to within one step, however long it took to fail.
func TestGhostsLiveFromSending(t *testing.T) {
	for _, age := range []time.Duration{0, 300 * time.Millisecond, 999 * time.Millisecond} {
		var g ghosts
		g.add(now, age)
		end := now + ghostLife - age
		if n := g.count(now); n != 1 {
			t.Errorf("age %v: %d at once, want 1", age, n)
		}
		if n := g.count(end - 1); n != 1 {
			t.Errorf("age %v: %d just before the end, want 1", age, n)
		}
		if n := g.count(end); n != 0 {
			t.Errorf("age %v: %d at the end, want 0", age, n)
		}
	}
	var g ghosts
	g.add(now, ghostLife)
	if n := g.count(now); n != 0 {
		t.Errorf("one that took its whole life to fail counts as %d", n)
	}
}

// TestGhostsAddUp over many turns of the ring.
func TestGhostsAddUp(t *testing.T) {
	var g ghosts
	const every = 10 * time.Millisecond
	for i := range 1000 {
		at := now + time.Duration(i)*every
		g.add(at, 0)
		want := int64(min(i+1, int(ghostLife/every)))
		// A slot goes as a whole, so up to one step's worth may stay longer.
		if n := g.count(at); n < want || n > want+int64(ghostStep/every)+1 {
			t.Fatalf("%d ghosts after %d failures, want about %d", n, i+1, want)
		}
	}
	if n := g.count(now + time.Hour); n != 0 {
		t.Errorf("%d after an hour", n)
	}
}

func TestGhostsConcurrently(t *testing.T) {
	var g ghosts
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 1000 {
				g.add(now, 0)
				g.count(now)
			}
		})
	}
	wg.Wait()
	if n := g.count(now); n != 8000 {
		t.Errorf("%d ghosts, want 8000", n)
	}
}
