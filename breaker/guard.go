package breaker

import "sync/atomic"

// Guard caps how many endpoints of a service are ejected at once. All methods
// are safe for concurrent use; none locks.
type Guard struct {
	percent int64
	total   atomic.Int64 // endpoints that may take requests but for ejection
	ejected atomic.Int64
	panic   atomic.Bool // see SetPanic
	causes  causes      // of the ejections so far
}

// NewGuard returns a guard that allows maxEjectedPercent (0 to 100) of the
// endpoints to be out, rounded down.
func NewGuard(maxEjectedPercent int) *Guard { return &Guard{percent: int64(maxEjectedPercent)} }

// SetTotal tells how many endpoints there are to eject from.
func (g *Guard) SetTotal(n int) { g.total.Store(int64(n)) }

// SetPanic tells whether health is ignored, or may come to be, but for who cannot be
// reached: from then on every endpoint tells of that. To be called before they are
// asked.
func (g *Guard) SetPanic(yes bool) { g.panic.Store(yes) }

// Ejected returns how many are out now.
func (g *Guard) Ejected() int { return int(g.ejected.Load()) }

// enter takes a place among the ejected if there is one. Endpoints that refuse
// connections may take all places but the last endpoint's.
func (g *Guard) enter(gone bool) bool {
	for {
		n := g.ejected.Load()
		if n+1 > g.places(gone) {
			return false
		}
		if g.ejected.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

// places is how many may be out.
func (g *Guard) places(gone bool) int64 {
	total := g.total.Load()
	room := total * g.percent / 100
	if gone {
		room = max(room, total-1)
	}
	return min(room, total-1)
}

// room reports whether any endpoint would find a place now.
func (g *Guard) room() bool { return g.ejected.Load()+1 <= g.places(false) }

// join takes a place, free or not: for one that comes back ejected.
func (g *Guard) join() { g.ejected.Add(1) }

func (g *Guard) leave() { g.ejected.Add(-1) }
