package h1

import (
	"errors"
	"os"
	"runtime/debug"
	"time"
)

// A connection waits for its next request with a goroutine of its own, which
// costs the least when the request comes soon. After parkAfter it is parked:
// most connections of most clients rest most of the time, and a stack for each
// is most of what they cost. In a crowd that is sooner, down to parkSoonest, for
// the runtime keeps for good some of what its largest crowd needed.
const (
	parkAfter   = time.Second
	parkSoonest = 2 * reapEvery
	crowd       = 256
)

// patienceIn is how long a connection among n waits before it is parked.
func patienceIn(n int) time.Duration {
	if n <= crowd {
		return parkAfter
	}
	return max(parkSoonest, parkAfter*crowd/time.Duration(n))
}

// tick is called by the reaper.
func (c *conn) tick(now, patience time.Duration) {
	at := time.Duration(c.idleAt.Load())
	if at == 0 {
		c.lasting.Store(true)
	}
	c.s.e.watch.hangUp(c)
	switch {
	case at == 0 && c.finished.Load():
		c.hangUp()
	case canPark && at != 0 && now-at >= patience:
		c.nudge()
	}
}

// peerFinished is called by the watcher when the client will send no more. That
// counts as leaving, but a last request that came with it is served if it does
// not last until a tick.
func (c *conn) peerFinished() {
	c.finished.Store(true)
	if c.lasting.Load() {
		c.hangUp()
	} else if c.idleAt.Load() != 0 {
		c.nudge() // the end may have come with the last bytes, and been missed
	}
}

// nudge wakes the goroutine if it waits for a request.
func (c *conn) nudge() { _ = c.nc.SetReadDeadline(longAgo) }

// errNudged is the error of a read that was woken by nudge.
var errNudged = errors.New("woken")

// lifted reports whether the error of a read was nothing but a nudge, and makes
// the connection readable again. Any other deadline comes after the alarm struck
// or from stop.
func (c *conn) lifted(err error) bool {
	if !errors.Is(err, os.ErrDeadlineExceeded) || c.ending() || c.nc.SetReadDeadline(time.Time{}) != nil {
		return false
	}
	if c.ending() {
		_ = c.nc.SetReadDeadline(longAgo) // lifting the nudge must not lift theirs
		return false
	}
	return true
}

// ending reports whether reads from the client are to fail.
func (c *conn) ending() bool { return c.alarm.struck() || c.work != nil && c.upload.stopping.Load() }

// fillIn reads from the client.
func (c *conn) fillIn() error {
	for {
		k, err := c.sock.fill(&c.in)
		if k > 0 {
			return nil
		}
		if !c.lifted(err) {
			return err
		}
		if c.idleAt.Load() != 0 {
			return errNudged
		}
	}
}

// rouse decides what a nudged connection does that waits for a request.
func (c *conn) rouse() headState {
	idle := c.s.e.now() - time.Duration(c.idleAt.Load())
	if c.s.draining.Load() {
		if idle >= idleGrace && newPeeker(c.nc).quiet() { // a request that has come is still served
			return headNone
		}
		return headMore
	}
	if idle >= parkSoonest && c.s.e.watch.park(c) {
		return headParked
	}
	return headMore
}

// giver gives the memory that parked connections no longer need back to the
// system when many have been parked: the runtime alone would keep the stacks of
// a rush for minutes.
type giver struct {
	known int // how many were parked at the last release, or fewer since
	at    time.Duration
}

const (
	manyParked   = 500             // a collection is worth the memory of so many
	releaseEvery = 2 * time.Second // and costs milliseconds
)

// sweep is called about once a second, by one goroutine.
func (g *giver) sweep(now time.Duration, parked int) {
	if g.known = min(g.known, parked); parked-g.known < manyParked || now-g.at < releaseEvery {
		return
	}
	g.known, g.at = parked, now
	go debug.FreeOSMemory()
}

// closeIdle ends a connection that has waited for a request for idleGrace.
func (c *conn) closeIdle(now time.Duration) {
	if at := time.Duration(c.idleAt.Load()); at != 0 && now-at >= idleGrace {
		c.nudge()
	}
}

// cut ends the connection at once, tunnels too.
func (c *conn) cut() {
	c.hangUp()
	go func() { _ = c.nc.Close() }() // it waits for whoever is in the midst of a read
}
